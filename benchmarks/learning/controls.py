"""Ways of teaching that are wrong on purpose: an experiment in which they help as much proves nothing (methods 3.5)."""

import hashlib
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from stillhouse.graders import Grade
from stillhouse.kernels.beliefs import Dense
from stillhouse.objectives.divergence import forward_kl


def shuffled(student_logits_NV: Any, teacher_beliefs: Any, weight_N: Tensor) -> Tensor:
    """Forward KL to what the teacher believes somewhere else: its rows moved by half of the batch."""
    return _moved(student_logits_NV, teacher_beliefs, weight_N, teacher_beliefs.positions // 2)


def shifted(student_logits_NV: Any, teacher_beliefs: Any, weight_N: Tensor) -> Tensor:
    """Forward KL to what the teacher believes one position on: the usual mistake of a label shift done twice."""
    return _moved(student_logits_NV, teacher_beliefs, weight_N, 1)


def _moved(student_logits_NV: Any, teacher_beliefs: Any, weight_N: Tensor, by: int) -> Tensor:
    moved = Dense(teacher_beliefs.logits_NV.roll(-by, 0), vocabulary=teacher_beliefs.vocabulary)
    return forward_kl(student_logits_NV, moved, weight_N)


def coin(texts: Sequence[str], references: Sequence[str | None]) -> list[Grade]:
    """A grader that has read nothing: right or wrong by a hash of the answer."""
    return [Grade(float(hashlib.sha256(text.encode()).digest()[0] % 2), "coin") for text in texts]
