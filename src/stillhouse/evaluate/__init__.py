"""Evaluate: tasks on held-out items give one row per item; `compare` makes intervals of those rows."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ItemScore:
    """One held-out item under one student. `value` is None where the grader could not tell; `reason` is its code."""

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
    same token first) are None without a teacher.
    """

    item_id: str
    tokens: int
    nll: float
    teacher_nll: float | None = None
    kl_from_teacher: float | None = None
    agreements: int | None = None
