"""A strong student that learns from a weak teacher without learning its mistakes (survey 4.6; arXiv 2312.09390).

Legend: N positions (or examples of a classifier), V vocabulary (or classes). Logits, weights and beliefs as in
`divergence`; the student's own opinion is part of the target and a constant there.
"""

from typing import Any

import torch
from torch import Tensor

from stillhouse.errors import RecipeError
from stillhouse.kernels.beliefs import Dense
from stillhouse.kernels.positions import Block, source_of, weighted_sum

__all__ = ["confidence", "product_of_experts"]


def confidence(
    student_logits_NV: Any, teacher_beliefs: Dense, weight_N: Tensor, *, student_share: float = 0.5
) -> Tensor:
    """Cross-entropy with (1 - a) times the weak teacher plus a times the student's own hardened choice.

    a is `student_share`, ramped to 0.5 in the paper's code. Hardening is by arg max; for two classes by a threshold on
    the student's probability of the second, the quantile of the batch that leaves it as many as the teacher gives it.
    """
    if not 0.0 <= student_share <= 1.0:
        raise RecipeError(f"student_share {student_share} must be between 0 and 1, e.g. 0.5")
    source, teacher = source_of(student_logits_NV), source_of(teacher_beliefs.logits_NV)
    threshold = _balanced_threshold(source, teacher, weight_N) if source.width == 2 else None

    def target(p_bV: Tensor, log_q_bV: Tensor) -> Tensor:
        hard_b = log_q_bV.argmax(-1) if threshold is None else (log_q_bV[:, 1].exp() > threshold).long()
        hard_bV = torch.zeros_like(p_bV).scatter_(-1, hard_b[:, None], 1.0)
        return (1.0 - student_share) * p_bV + student_share * hard_bV

    return _self_targeted(source, teacher_beliefs, weight_N, target)


def product_of_experts(
    student_logits_NV: Any,
    teacher_beliefs: Dense,
    weight_N: Tensor,
    *,
    teacher_power: float = 1.0,
    student_power: float = 1.0,
) -> Tensor:
    """Cross-entropy with the normalised product of the weak teacher's and the student's own probabilities.

    Each is raised to its power first.
    """

    def target(p_bV: Tensor, log_q_bV: Tensor) -> Tensor:
        return (teacher_power * p_bV.log().clamp(min=-1e5) + student_power * log_q_bV).softmax(-1)

    return _self_targeted(source_of(student_logits_NV), teacher_beliefs, weight_N, target)


def _self_targeted(source: Any, teacher_beliefs: Dense, weight_N: Tensor, target: Any) -> Tensor:
    """Cross-entropy with a target made of teacher probabilities and the student's log-probabilities."""
    vocabulary = teacher_beliefs.addressable(source.width)
    teacher = source_of(teacher_beliefs.logits_NV)

    def loss(rows_n: Tensor) -> Block:
        teacher_nV = teacher.rows(rows_n, vocabulary, source.dtype)

        def block(part: slice, logits_bV: Tensor) -> tuple[Tensor, Tensor]:
            log_q_bV = logits_bV.log_softmax(-1).clamp(min=-1e5)
            target_bV = target(teacher_nV[part].softmax(-1), log_q_bV)
            return -(target_bV * log_q_bV).sum(-1), log_q_bV.exp() - target_bV

        return block

    return weighted_sum(source, loss, weight_N, vocabulary=vocabulary)


def _balanced_threshold(source: Any, teacher: Any, weight_N: Tensor) -> Tensor:
    rows = weight_N.reshape(-1).nonzero().squeeze(-1)
    if len(rows) == 0:
        return torch.zeros((), dtype=source.dtype)
    q_n = source.rows(rows, 2, source.dtype).softmax(-1)[:, 1]
    share = teacher.rows(rows, 2, source.dtype).softmax(-1)[:, 1].mean()
    return torch.quantile(q_n, 1.0 - share)
