"""Teachers that cut text into other tokens (survey 4.6, R30).

Legend: N positions, V the student's vocabulary, P aligned spans. Any divergence works across tokenizers with
`kernels.beliefs.Mapped` beliefs at positions where both sides start a token; here is what needs more than that.
`divergence.universal_logit` needs nothing of the kind and knows least.
"""

from typing import Any

import torch
from torch import Tensor

from stillhouse.errors import RecipeError
from stillhouse.kernels.beliefs import Mapped
from stillhouse.kernels.groups import group_sum
from stillhouse.kernels.positions import Block, source_of, weighted_sum
from stillhouse.objectives.divergence import forward_kl, sorted_gap

__all__ = ["hybrid", "span_likelihood"]


def span_likelihood(
    student_logprobs_N: Tensor,
    span_N: Tensor,
    teacher_span_logprobs_P: Tensor,
    weight_P: Tensor,
    *,
    temperature: float = 1.0,
) -> Tensor:
    """KL between both sides' chance of spelling each aligned span or anything else (ALM, arXiv 2503.20083).

    `span_N` is the span of each student position, -1 outside; a span's probability is the product over its tokens
    (`teacher_span_logprobs_P`: summed over the teacher's). `temperature` divides both log-probabilities, so that long
    spans still differ. Sum over spans of weight * KL of two outcomes.
    """
    inside_N = span_N >= 0
    log_q_P = group_sum(student_logprobs_N[inside_N], span_N[inside_N], len(weight_P))
    counted_P = weight_P != 0
    weight_p, log_q_p, log_p_p = (x[counted_P] for x in (weight_P, log_q_P, teacher_span_logprobs_P.detach()))
    log_p_p, log_q_p = (_below_one(x / temperature) for x in (log_p_p, log_q_p))
    hit_p = log_p_p.exp() * (log_p_p - log_q_p)
    miss_p = -torch.expm1(log_p_p) * (_log_rest(log_p_p) - _log_rest(log_q_p))
    return (weight_p * (hit_p + miss_p)).sum()


def hybrid(
    student_logits_NV: Any,
    teacher_beliefs: Mapped,
    weight_N: Tensor,
    *,
    unmatched_weight: float = 1.0,
    temperature: float = 1.0,
) -> Tensor:
    """Forward KL over tokens both sides know, the universal logit loss over the rest (the idea of GOLD; R30).

    Map only tokens with equal bytes (`kernels.alignment.matched_ids`). The rest takes part in the KL as one bucket, and
    inside it `unmatched_weight` times the sum of |sorted p - sorted q| is added. Where digits or punctuation are cut
    differently much of what matters is unmatched: measured elsewhere to fail on numbers; prefer `first_ids` and a plain
    divergence there.
    """
    if not isinstance(teacher_beliefs, Mapped):
        raise RecipeError(
            "cross_tokenizer.hybrid needs beliefs mapped to the student's ids; for one tokenizer use forward_kl"
        )
    matched = forward_kl(student_logits_NV, teacher_beliefs, weight_N, temperature=temperature)
    source, teacher = source_of(student_logits_NV), source_of(teacher_beliefs.logits_NU)
    vocabulary = teacher_beliefs.addressable(source.width)
    taken_U = teacher_beliefs.student_ids_U
    rest_U = (taken_U < 0).nonzero().squeeze(-1)
    free_V = torch.ones(vocabulary, dtype=torch.bool, device=taken_U.device)
    free_V[taken_U[taken_U >= 0]] = False
    rest_V = free_V.nonzero().squeeze(-1)

    def loss(rows_n: Tensor) -> Block:
        teacher_nU = teacher.rows(rows_n, len(taken_U), source.dtype)

        def block(part: slice, logits_bV: Tensor) -> tuple[Tensor, Tensor]:
            p_bU, q_bV = (teacher_nU[part] / temperature).softmax(-1), (logits_bV / temperature).softmax(-1)
            value_b, slope_br = sorted_gap(p_bU[:, rest_U], q_bV[:, rest_V])
            slope_bV = torch.zeros_like(q_bV).index_copy_(1, rest_V, slope_br)
            gradient_bV = q_bV * (slope_bV - (q_bV * slope_bV).sum(-1, keepdim=True))
            return value_b * temperature**2, gradient_bV * temperature

        return block

    return matched + unmatched_weight * weighted_sum(source, loss, weight_N, vocabulary=vocabulary)


def _below_one(log_probability: Tensor) -> Tensor:
    """A certain span leaves nothing for anything else: a rounding below it keeps the logarithm of the rest finite."""
    return log_probability.clamp(max=-1e-6)


def _log_rest(log_probability: Tensor) -> Tensor:
    return torch.log(-torch.expm1(log_probability))
