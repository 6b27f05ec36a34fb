"""Evaluate: tasks on held-out items give one row per item; `compare` makes intervals of those rows."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class ItemScore:
    """One held-out item under one student. `value` is None where the grader could not tell; `reason` is its code."""

    metric: ClassVar[str] = "score"
    item_id: str
    prompt: str
    reference: str | None
    response: str
    value: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class WindowScore:
    """One held-out document or window: sums over its `tokens` predicted tokens, natural logarithms.

    `teacher_nll`, `kl_from_teacher` (KL(teacher || student), nats) and `agreements` (positions where both put the
    same token first) are None without a teacher. `text` is what was read, so that training rows can be held against it.
    """

    metric: ClassVar[str] = "nll"
    item_id: str
    tokens: int
    nll: float
    teacher_nll: float | None = None
    kl_from_teacher: float | None = None
    agreements: int | None = None
    text: str = ""

    @property
    def value(self) -> float:
        return self.nll / self.tokens


@dataclass(frozen=True, slots=True)
class OwnText:
    """One continuation that the student drew: sums over its `tokens`, natural logarithms.

    `kl_to_teacher` is KL(student || teacher) over the vocabulary at each drawn position; `distinct` is the share of its
    runs of three tokens that occur once or more, each counted once (nan below three tokens).
    """

    metric: ClassVar[str] = "kl_to_teacher"
    item_id: str
    tokens: int
    teacher_nll: float
    kl_to_teacher: float
    distinct: float

    @property
    def value(self) -> float:
        return self.kl_to_teacher / self.tokens
