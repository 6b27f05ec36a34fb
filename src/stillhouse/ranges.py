"""What is expected, and between what: small statistics of an estimate."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Range", "deviation", "mean", "spaced", "span", "three"]


@dataclass(frozen=True, slots=True)
class Range:
    """What is expected, and between what with 95 %, as far as `how` the numbers were found allows."""

    low: float
    expected: float
    high: float

    def __add__(self, other: "Range") -> "Range":
        return Range(self.low + other.low, self.expected + other.expected, self.high + other.high)

    def __mul__(self, other: "Range | float") -> "Range":
        by = other if isinstance(other, Range) else Range(other, other, other)
        return Range(self.low * by.low, self.expected * by.expected, self.high * by.high)


def spaced(source: Iterable[Any], most: int) -> tuple[list[Any], int]:
    """At most `most` items, evenly spaced over a source whose length is not known before it ends; and that length."""
    taken: list[Any] = []
    step, number = 1, 0
    for number, each in enumerate(source, 1):
        if (number - 1) % step == 0:
            taken.append(each)
            if len(taken) > most:
                taken, step = taken[::2], 2 * step
    return taken, number


def span(told: Range, form: str) -> str:
    low, expected, high = (f"{each:{form}}" for each in three(told))
    return expected if low == high else f"{expected} ({low} to {high})"


def three(told: Range) -> tuple[float, float, float]:
    return told.low, told.expected, told.high


def mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))


def deviation(values: Sequence[float]) -> float:
    middle = mean(values)
    return math.sqrt(sum((each - middle) ** 2 for each in values) / max(1, len(values) - 1))
