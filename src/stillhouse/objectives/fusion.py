"""Several teachers, one student (survey 4.6, R30; BabyLlama, FuseLLM).

Legend: N positions, S sequences, V the student's vocabulary, M teachers. `all_teacher_beliefs` holds one `Dense` per
teacher, about the same positions, in the recipe's order; what a teacher with another tokenizer says is spread over the
student's ids first (`kernels.translated`). `heard_NM` is False where such a teacher begins no token: it has no share
there, and weights must be 0 where nobody has one. `divergence` is any function of `divergence` bound to its knobs,
temperature included; it meets the fused distribution like that of one teacher. Nothing of size [N, V] is made for the
fusion.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from stillhouse.errors import RecipeError
from stillhouse.kernels.beliefs import Dense
from stillhouse.kernels.fused import Blended
from stillhouse.kernels.groups import group_sum
from stillhouse.kernels.positions import source_of
from stillhouse.objectives.divergence import forward_kl

__all__ = ["cross_entropy_weighted", "mean_of_logits", "mean_of_probabilities", "minimum_cross_entropy", "routed"]

Divergence = Callable[[Any, Dense, Tensor], Tensor]


def mean_of_logits(
    student_logits_NV: Any,
    all_teacher_beliefs: Sequence[Dense],
    weight_N: Tensor,
    *,
    divergence: Divergence = forward_kl,
) -> Tensor:
    """Divergence from the teachers' mean logits, the normalised geometric mean of what they believe (BabyLlama, R25).

    For teachers of one tokenizer: what one of them cannot say, the mean rules out.
    """
    heard_NM = torch.ones(weight_N.numel(), len(all_teacher_beliefs), device=weight_N.device)
    beliefs = _blended(all_teacher_beliefs, _even(heard_NM), of_logits=True)
    return divergence(student_logits_NV, beliefs, weight_N)


def mean_of_probabilities(
    student_logits_NV: Any,
    all_teacher_beliefs: Sequence[Dense],
    heard_NM: Tensor,
    weight_N: Tensor,
    *,
    divergence: Divergence = forward_kl,
) -> Tensor:
    """Divergence from the teachers' mean probabilities: whatever one of them believes stays possible.

    A temperature of the divergence applies to the mean.
    """
    beliefs = _blended(all_teacher_beliefs, _even(heard_NM), of_logits=False)
    return divergence(student_logits_NV, beliefs, weight_N)


def minimum_cross_entropy(
    student_logits_NV: Any,
    all_teacher_beliefs: Sequence[Dense],
    heard_NM: Tensor,
    all_teacher_logprobs_SM: Tensor,
    sequence_N: Tensor,
    weight_N: Tensor,
    *,
    divergence: Divergence = forward_kl,
) -> Tensor:
    """Divergence from the teacher that finds the given text likeliest, chosen per sequence (FuseLLM's MinCE, R30).

    `all_teacher_logprobs_SM` is each teacher's log-probability of the whole response, cut into its own tokens: the same
    text, so teachers of different tokenizers compare. Where the likeliest begins no token the next one that does stands
    in. FuseLLM adds it to language modelling with a weight of 0.1 to 0.9.
    """
    cost_NM = -all_teacher_logprobs_SM[sequence_N.reshape(-1)]
    chosen_N = cost_NM.masked_fill(~heard_NM.bool(), torch.inf).argmin(-1)
    shares_NM = torch.nn.functional.one_hot(chosen_N, len(all_teacher_beliefs)).to(cost_NM.dtype)
    return divergence(student_logits_NV, _blended(all_teacher_beliefs, shares_NM, of_logits=False), weight_N)


def cross_entropy_weighted(
    student_logits_NV: Any,
    all_teacher_beliefs: Sequence[Dense],
    heard_NM: Tensor,
    all_teacher_logprobs_SM: Tensor,
    sequence_N: Tensor,
    weight_N: Tensor,
    *,
    divergence: Divergence = forward_kl,
) -> Tensor:
    """Divergence from the teachers' probabilities averaged by softmax(-cross-entropy) per sequence (FuseLLM's AvgCE, R30).

    The cross-entropy is in nats per token of the student, whatever tokens the teacher cuts the text into.
    """
    sequence_n = sequence_N.reshape(-1)
    ones_n = torch.ones_like(sequence_n, dtype=all_teacher_logprobs_SM.dtype)
    tokens_S = group_sum(ones_n, sequence_n, len(all_teacher_logprobs_SM)).clamp(min=1.0)
    cost_NM = -(all_teacher_logprobs_SM / tokens_S[:, None])[sequence_n]
    shares_NM = (-cost_NM).masked_fill(~heard_NM.bool(), -torch.inf).softmax(-1).nan_to_num()
    return divergence(student_logits_NV, _blended(all_teacher_beliefs, shares_NM, of_logits=False), weight_N)


def routed(
    student_logits_NV: Any,
    all_teacher_beliefs: Sequence[Dense],
    route_N: Tensor,
    weight_N: Tensor,
    *,
    divergence: Divergence = forward_kl,
) -> Tensor:
    """Divergence from the teacher that each example names (`route:` the column that holds its name): experts side by side.

    `route_N` is the place of that teacher among `all_teacher_beliefs`.
    """
    shares_NM = torch.nn.functional.one_hot(route_N, len(all_teacher_beliefs)).float()
    return divergence(student_logits_NV, _blended(all_teacher_beliefs, shares_NM, of_logits=False), weight_N)


def _even(heard_NM: Tensor) -> Tensor:
    heard_NM = heard_NM.float()
    return heard_NM / heard_NM.sum(-1, keepdim=True).clamp(min=1.0)


def _blended(all_teacher_beliefs: Sequence[Dense], shares_NM: Tensor, *, of_logits: bool) -> Dense:
    if not all_teacher_beliefs or any(not isinstance(beliefs, Dense) for beliefs in all_teacher_beliefs):
        raise RecipeError("fusion needs the dense logits of at least one teacher: name teachers that reveal them")
    vocabularies = {beliefs.vocabulary for beliefs in all_teacher_beliefs}
    if len(vocabularies) > 1:
        raise RecipeError(f"fused teachers must share one vocabulary, not {sorted(map(str, vocabularies))}")
    logits = tuple(beliefs.logits_NV for beliefs in all_teacher_beliefs)
    widths = {source_of(each).width for each in logits}
    if len(widths) > 1 and vocabularies == {None}:
        raise RecipeError(f"fused teachers have {sorted(widths)} columns: give each vocabulary=<ids they can address>")
    return Dense(Blended(logits, shares_NM, of_logits=of_logits), vocabularies.pop())
