"""Several teachers with one tokenizer, one student (survey 4.6, R30; BabyLlama, FuseLLM).

Legend: N positions, V vocabulary, M teachers. `all_teacher_beliefs` holds one `Dense` per teacher, about the same
positions, in the recipe's order; teachers with other tokenizers are mapped first. `divergence` is any function of
`divergence` bound to its knobs, temperature included; it meets the fused distribution like that of one teacher. Nothing
of size [N, V] is made for the fusion.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from stillhouse.errors import RecipeError
from stillhouse.kernels.beliefs import Dense
from stillhouse.kernels.fused import Blended, target_logprobs
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
    """Divergence from the teachers' mean logits, the normalised geometric mean of what they believe (BabyLlama, R25)."""
    beliefs = _blended(all_teacher_beliefs, _even(all_teacher_beliefs, weight_N), of_logits=True)
    return divergence(student_logits_NV, beliefs, weight_N)


def mean_of_probabilities(
    student_logits_NV: Any,
    all_teacher_beliefs: Sequence[Dense],
    weight_N: Tensor,
    *,
    divergence: Divergence = forward_kl,
) -> Tensor:
    """Divergence from the teachers' mean probabilities: whatever one of them believes stays possible.

    A temperature of the divergence applies to the mean.
    """
    beliefs = _blended(all_teacher_beliefs, _even(all_teacher_beliefs, weight_N), of_logits=False)
    return divergence(student_logits_NV, beliefs, weight_N)


def minimum_cross_entropy(
    student_logits_NV: Any,
    all_teacher_beliefs: Sequence[Dense],
    target_ids_N: Tensor,
    sequence_N: Tensor,
    weight_N: Tensor,
    *,
    divergence: Divergence = forward_kl,
) -> Tensor:
    """Divergence from the teacher that finds the given text likeliest, chosen per sequence (FuseLLM's MinCE, R30).

    FuseLLM adds it to language modelling with a weight of 0.1 to 0.9.
    """
    cost_NM = _cost(all_teacher_beliefs, target_ids_N, sequence_N, weight_N)
    shares_NM = torch.nn.functional.one_hot(cost_NM.argmin(-1), len(all_teacher_beliefs)).to(cost_NM.dtype)
    return divergence(student_logits_NV, _blended(all_teacher_beliefs, shares_NM, of_logits=False), weight_N)


def cross_entropy_weighted(
    student_logits_NV: Any,
    all_teacher_beliefs: Sequence[Dense],
    target_ids_N: Tensor,
    sequence_N: Tensor,
    weight_N: Tensor,
    *,
    divergence: Divergence = forward_kl,
) -> Tensor:
    """Divergence from the teachers' probabilities averaged by softmax(-cross-entropy) per sequence (FuseLLM's AvgCE, R30)."""
    shares_NM = (-_cost(all_teacher_beliefs, target_ids_N, sequence_N, weight_N)).softmax(-1)
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


def _even(all_teacher_beliefs: Sequence[Dense], weight_N: Tensor) -> Tensor:
    teachers = len(all_teacher_beliefs)
    return torch.full((weight_N.numel(), teachers), 1.0 / max(teachers, 1), device=weight_N.device)


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


def _cost(all_teacher_beliefs: Sequence[Dense], target_ids_N: Tensor, sequence_N: Tensor, weight_N: Tensor) -> Tensor:
    """[N, M]: each teacher's mean negative log-likelihood of the sequence that a position belongs to."""
    sequence_n, target_n = sequence_N.reshape(-1), target_ids_N.reshape(-1)
    counted_N = (weight_N.reshape(-1) != 0).float()
    sequences = int(sequence_n.max()) + 1 if len(sequence_n) else 0
    tokens_S = group_sum(counted_N, sequence_n, sequences).clamp(min=1.0)
    costs = []
    for beliefs in all_teacher_beliefs:
        logprobs_N = target_logprobs(beliefs.logits_NV, target_n, counted_N, vocabulary=beliefs.vocabulary)
        costs.append((-group_sum(logprobs_N, sequence_n, sequences) / tokens_S)[sequence_n])
    return torch.stack(costs, -1)
