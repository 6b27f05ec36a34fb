"""Divergences between the teacher's and the student's next-token distributions (Eq. 10, Table 1).

Legend: N positions, V vocabulary, p teacher, q student. Each divergence is written once, as a pair over
distributions on the last axis: its value, and q * dD/dq, from which every representation of the teacher (dense
logits, top-k with a tail, a sample, fused chunks of hidden states: `stillhouse.kernels`) makes the gradient for the
logits, dz = q * (dD/dq - E_q[dD/dq]).

Shared by all of them:
- `student_logits_NV` predict the target at each position (nothing is shifted here), of any leading shape; or a
  `kernels.fused.Projected`, which makes them from hidden states chunk by chunk. float16 and bfloat16 are converted to
  float32 before the softmax. `weight_N` is 0 at masked positions; those are never looked at.
- The result is the sum over positions of weight * divergence, in nats, float32 (float64 for float64 logits).
- `temperature` T divides the logits of both sides, and the divergence is multiplied by T^2: the gradient keeps its
  size when T grows (it tends to (z_student - z_teacher) / V, both centred), so a weight tuned at one T holds at others.
- `teacher_weight` is the teacher's share of a mixture; `skew` is the share, in the mixture that a distribution is
  compared with, of that distribution itself.
- A log-probability below -1e5 counts as -1e5: a token that one side rules out costs much, never infinity or nan.
- RecipeError where a knob is out of its range or where the vocabularies cannot be compared.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from stillhouse.errors import RecipeError
from stillhouse.kernels.beliefs import Beliefs, Distributions, Pair, Sampled
from stillhouse.kernels.beliefs import Dense as Dense
from stillhouse.kernels.beliefs import TopK as TopK
from stillhouse.kernels.positions import Block, source_of, weighted_sum

__all__ = [
    "adaptive_kl",
    "alpha_beta",
    "forward_kl",
    "generalised_jensen_shannon",
    "jensen_shannon",
    "reverse_kl",
    "skew_forward_kl",
    "skew_reverse_kl",
    "total_variation",
    "universal_logit",
]


def forward_kl(
    student_logits_NV: Any, teacher_beliefs: Beliefs, weight_N: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """KL(teacher || student): covers every mode of the teacher; the one to start from (Eq. 10, Table 1).

    The only divergence that takes `Sampled` beliefs.
    """
    return _summed(_forward_kl, student_logits_NV, teacher_beliefs, weight_N, temperature)


def reverse_kl(
    student_logits_NV: Any, teacher_beliefs: Distributions, weight_N: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """KL(student || teacher): keeps to the teacher's modes; for a student that already speaks (Eq. 10, Table 1)."""
    return _distribution(_reverse_kl, student_logits_NV, teacher_beliefs, weight_N, temperature)


def jensen_shannon(
    student_logits_NV: Any, teacher_beliefs: Distributions, weight_N: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """The mean KL of both to their even mixture, at most log 2 (Table 1)."""
    pair = partial(_generalised_jensen_shannon, teacher_weight=0.5)
    return _distribution(pair, student_logits_NV, teacher_beliefs, weight_N, temperature)


def generalised_jensen_shannon(
    student_logits_NV: Any,
    teacher_beliefs: Distributions,
    weight_N: Tensor,
    *,
    teacher_weight: float = 0.5,
    temperature: float = 1.0,
) -> Tensor:
    """w KL(p || m) + (1 - w) KL(q || m) with m = w p + (1 - w) q, w = `teacher_weight` (GKD, arXiv 2306.13649, R27).

    w is GKD's beta. The value tends to 0 at both ends (divided by w to the forward KL as w -> 0, by 1 - w to the
    reverse KL as w -> 1), so 0 and 1 are refused: other libraries give a KL there.
    """
    if not 0.0 < teacher_weight < 1.0:
        raise RecipeError(
            f"teacher_weight {teacher_weight} must be between 0 and 1, where the divergence vanishes: "
            "write divergence.forward_kl for a beta of 0 elsewhere, divergence.reverse_kl for 1"
        )
    pair = partial(_generalised_jensen_shannon, teacher_weight=teacher_weight)
    return _distribution(pair, student_logits_NV, teacher_beliefs, weight_N, temperature)


def skew_forward_kl(
    student_logits_NV: Any,
    teacher_beliefs: Distributions,
    weight_N: Tensor,
    *,
    skew: float = 0.1,
    temperature: float = 1.0,
) -> Tensor:
    """KL(p || skew p + (1 - skew) q): forward KL with a bounded gradient (DistiLLM, arXiv 2402.03898, R28).

    0.1 is DistiLLM's released default; 0 is the forward KL.
    """
    pair = partial(_skew_forward_kl, skew=_checked_skew(skew))
    return _distribution(pair, student_logits_NV, teacher_beliefs, weight_N, temperature)


def skew_reverse_kl(
    student_logits_NV: Any,
    teacher_beliefs: Distributions,
    weight_N: Tensor,
    *,
    skew: float = 0.1,
    temperature: float = 1.0,
) -> Tensor:
    """KL(q || skew q + (1 - skew) p): reverse KL bounded by -log(skew) (DistiLLM, arXiv 2402.03898, R28).

    The gradient is the true one, through the mixture as well. 0.1 is DistiLLM's released default; 0 is the reverse KL.
    """
    pair = partial(_skew_reverse_kl, skew=_checked_skew(skew))
    return _distribution(pair, student_logits_NV, teacher_beliefs, weight_N, temperature)


def total_variation(
    student_logits_NV: Any, teacher_beliefs: Distributions, weight_N: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """Half the sum of |p - q|: symmetric and bounded by 1, slow from a random start (f-distill, arXiv 2307.15190)."""
    return _distribution(_total_variation, student_logits_NV, teacher_beliefs, weight_N, temperature)


def alpha_beta(
    student_logits_NV: Any,
    teacher_beliefs: Distributions,
    weight_N: Tensor,
    *,
    alpha: float = 0.2,
    beta: float = 0.7,
    temperature: float = 1.0,
) -> Tensor:
    """The alpha-beta divergence, from forward KL (1, 0) to reverse KL (0, 1) and beyond (ABKD).

    -1/(ab) sum[p^a q^b - a/(a+b) p^(a+b) - b/(a+b) q^(a+b)], its limits where a or b is 0. `alpha` and `beta` are not
    negative and not both 0. The defaults are those of ABKD's released script.
    """
    if alpha < 0.0 or beta < 0.0 or alpha + beta <= 0.0:
        raise RecipeError(
            f"alpha {alpha} and beta {beta} must not be negative and not both 0, e.g. alpha 0.2, beta 0.7"
        )
    pair = partial(_alpha_beta, alpha=alpha, beta=beta)
    return _distribution(pair, student_logits_NV, teacher_beliefs, weight_N, temperature)


def adaptive_kl(
    student_logits_NV: Any,
    teacher_beliefs: Distributions,
    weight_N: Tensor,
    *,
    head_mass: float = 0.5,
    temperature: float = 1.0,
) -> Tensor:
    """Forward and reverse KL mixed by where the student is wrong: in the teacher's head or its tail (arXiv 2404.02657).

    The head is the fewest tokens that hold `head_mass` of the teacher; the forward KL weighs as much as the gap |p - q|
    lies in the head, and the weight gets no gradient. Sorts the vocabulary: several times dearer than forward KL.
    """
    if not 0.0 < head_mass < 1.0:
        raise RecipeError(f"head_mass {head_mass} must be between 0 and 1, e.g. 0.5")
    pair = partial(_adaptive_kl, head_mass=head_mass)
    return _distribution(pair, student_logits_NV, teacher_beliefs, weight_N, temperature)


def universal_logit(
    student_logits_NV: Any, teacher_beliefs: Dense, weight_N: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """Sum of |sorted p - sorted q|: for any two tokenizers, blind to which token is which (ULD, arXiv 2402.12030, R30).

    The shorter vocabulary is filled up with zeros. Positions are those of both answers counted from their first token.
    With `Mapped` beliefs every divergence above works across tokenizers and knows the tokens: prefer that.
    """
    if not isinstance(teacher_beliefs, Dense):
        raise RecipeError(
            "divergence.universal_logit sorts the whole distribution: it needs the teacher's dense logits"
        )
    source, teacher = source_of(student_logits_NV), source_of(teacher_beliefs.logits_NV)
    _check(temperature, teacher_beliefs.positions, source.positions)
    # the padding of either head is nobody's token
    other = teacher_beliefs.vocabulary or teacher.width
    own = teacher_beliefs.student_vocabulary or teacher_beliefs.vocabulary or source.width

    def loss(rows_n: Tensor) -> Block:
        teacher_nU = teacher.rows(rows_n, other, source.dtype)

        def block(part: slice, logits_bV: Tensor) -> tuple[Tensor, Tensor]:
            p_bU, q_bV = (teacher_nU[part] / temperature).softmax(-1), (logits_bV / temperature).softmax(-1)
            value_b, slope_bV = sorted_gap(p_bU, q_bV)
            gradient_bV = q_bV * (slope_bV - (q_bV * slope_bV).sum(-1, keepdim=True))
            return value_b * temperature**2, gradient_bV * temperature

        return block

    return weighted_sum(source, loss, weight_N, vocabulary=own)


def _distribution(pair: Pair, student_logits_NV: Any, beliefs: Beliefs, weight_N: Tensor, temperature: float) -> Tensor:
    if isinstance(beliefs, Sampled):
        raise RecipeError(
            "a sample of the teacher's tokens gives only divergence.forward_kl without bias: "
            "use that, or store top-k log-probs"
        )
    return _summed(pair, student_logits_NV, beliefs, weight_N, temperature)


def _summed(pair: Pair, student_logits_NV: Any, beliefs: Beliefs, weight_N: Tensor, temperature: float) -> Tensor:
    source = source_of(student_logits_NV)
    _check(temperature, beliefs.positions, source.positions)
    vocabulary = beliefs.addressable(source.width)
    loss = beliefs.loss(pair, temperature=temperature, vocabulary=vocabulary, dtype=source.dtype)
    return weighted_sum(source, loss, weight_N, vocabulary=vocabulary)


def _check(temperature: float, teacher_positions: int, student_positions: int) -> None:
    if not temperature > 0.0:
        raise RecipeError(f"temperature {temperature} must be above 0; 1 compares the distributions as they are")
    if teacher_positions != student_positions:
        raise RecipeError(
            f"the teacher's beliefs cover {teacher_positions} positions and the student's logits {student_positions}: "
            "both must be about the same targets"
        )


def _checked_skew(skew: float) -> float:
    if not 0.0 <= skew < 1.0:
        raise RecipeError(f"skew {skew} must be at least 0 and below 1, e.g. 0.1")
    return skew


def _forward_kl(log_p: Tensor, p: Tensor, log_q: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    return (log_p - log_q).mul_(p).sum(-1), p.neg_()


def _reverse_kl(log_p: Tensor, p: Tensor, log_q: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    terms = (log_q - log_p).mul_(q)
    return terms.sum(-1), terms


def _generalised_jensen_shannon(
    log_p: Tensor, p: Tensor, log_q: Tensor, q: Tensor, *, teacher_weight: float
) -> tuple[Tensor, Tensor]:
    log_m = _log_mixture(p, q, teacher_weight)
    teacher_sum = (log_p - log_m).mul_(p).sum(-1)
    student_terms = (log_q - log_m).mul_(q)
    value = teacher_weight * teacher_sum + (1.0 - teacher_weight) * student_terms.sum(-1)
    return value, student_terms.mul_(1.0 - teacher_weight)


def _skew_forward_kl(log_p: Tensor, p: Tensor, log_q: Tensor, q: Tensor, *, skew: float) -> tuple[Tensor, Tensor]:
    if skew == 0.0:
        return _forward_kl(log_p, p, log_q, q)
    log_m = _log_mixture(p, q, skew)
    share = log_p.sub(log_m)
    value = (share * p).sum(-1)
    return value, share.exp_().mul_(q).mul_(skew - 1.0)


def _skew_reverse_kl(log_p: Tensor, p: Tensor, log_q: Tensor, q: Tensor, *, skew: float) -> tuple[Tensor, Tensor]:
    if skew == 0.0:
        return _reverse_kl(log_p, p, log_q, q)
    share = log_q - _log_mixture(q, p, skew)
    terms = share * q
    return terms.sum(-1), terms - share.exp_().mul_(q).mul_(skew)


def _total_variation(log_p: Tensor, p: Tensor, log_q: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    gap = q - p
    return 0.5 * gap.abs().sum(-1), gap.sign_().mul_(q).mul_(0.5)


def _alpha_beta(
    log_p: Tensor, p: Tensor, log_q: Tensor, q: Tensor, *, alpha: float, beta: float
) -> tuple[Tensor, Tensor]:
    if beta == 0.0:
        p_a, q_a = (alpha * log_p).exp(), (alpha * log_q).exp()
        value = p_a * (alpha * (log_p - log_q)) - p_a + q_a
        return value.sum(-1) / alpha**2, (q_a - p_a) / alpha
    if alpha == 0.0:
        p_b, q_b = (beta * log_p).exp(), (beta * log_q).exp()
        slope = q_b * (log_q - log_p)
        return (slope / beta - (q_b - p_b) / beta**2).sum(-1), slope
    power = alpha + beta
    cross = (alpha * log_p + beta * log_q).exp()
    q_power = (power * log_q).exp()
    value = cross - (alpha / power) * (power * log_p).exp() - (beta / power) * q_power
    return value.sum(-1) / -(alpha * beta), (q_power - cross) / alpha


def _adaptive_kl(log_p: Tensor, p: Tensor, log_q: Tensor, q: Tensor, *, head_mass: float) -> tuple[Tensor, Tensor]:
    sorted_p, order = p.sort(dim=-1, descending=True)
    in_head = sorted_p.cumsum(-1) - sorted_p < head_mass
    gap = (p - q).abs().gather(-1, order)
    head_gap, gap_sum = (gap * in_head).sum(-1), gap.sum(-1)
    forward_share = torch.where(gap_sum > 0, head_gap / gap_sum.clamp(min=torch.finfo(p.dtype).tiny), 0.5)
    (forward, forward_qg), (reverse, reverse_qg) = _forward_kl(log_p, p, log_q, q), _reverse_kl(log_p, p, log_q, q)
    share = forward_share[..., None]
    return (
        forward_share * forward + (1.0 - forward_share) * reverse,
        share * forward_qg + (1.0 - share) * reverse_qg,
    )


def sorted_gap(p_bU: Tensor, q_bV: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of |sorted p - sorted q| and its derivative for q."""
    sorted_p_bU = p_bU.sort(dim=-1, descending=True).values
    sorted_q_bV, order_bV = q_bV.sort(dim=-1, descending=True)
    shared = min(p_bU.shape[-1], q_bV.shape[-1])
    gap_bV = sorted_q_bV.clone()
    gap_bV[:, :shared] -= sorted_p_bU[:, :shared]
    value_b = gap_bV.abs().sum(-1) + sorted_p_bU[:, shared:].sum(-1)
    return value_b, torch.empty_like(q_bV).scatter_(-1, order_bV, gap_bV.sign())


def _log_mixture(first: Tensor, second: Tensor, first_share: float) -> Tensor:
    """Where both underflow the smallest number stands for the mixture: it is only ever weighted by one of them, 0."""
    mixture = (first_share * first).add_(second, alpha=1.0 - first_share)
    return mixture.clamp_(min=torch.finfo(mixture.dtype).tiny).log_()
