"""Graders: is an answer right? The same grader selects data, rewards a student and evaluates one.

A grader is `(responses, references, *, knobs) -> list[Grade]`, one grade per response, in order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Grade:
    """`value` lies in [0, 1], or is None where nobody could tell; `reason` is a short code that can be counted."""

    value: float | None
    reason: str


Grader = Callable[[Sequence[str], Sequence[str | None]], list[Grade]]

CANNOT_TELL_NO_REFERENCE = Grade(None, "no_reference")
