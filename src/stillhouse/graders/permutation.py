"""Orders of passages, as rerankers write them: "[2] > [3] > [1]"."""

import math
import re
from collections.abc import Sequence

from stillhouse.graders import CANNOT_TELL_NO_REFERENCE, Grade

__all__ = ["gain", "order"]


def order(responses: Sequence[str], references: Sequence[str | None]) -> list[Grade]:
    """How far an order agrees with the reference's: the share of pairs in the same order (Kendall's tau moved to 0..1).

    Both are lists of numbers ("[2] > [3] > [1]"), counted from 1. Repeated and out-of-range numbers of a response
    are left out, missing ones follow in their original order; a response without any valid number is worth 0,
    "unparsable". Source: R56.
    """
    grades = []
    for response, reference in zip(responses, references, strict=True):
        gold = listed(reference or "")
        if reference is None or sorted(gold) != list(range(1, len(gold) + 1)) or len(gold) < 2:
            grades.append(CANNOT_TELL_NO_REFERENCE if reference is None else Grade(None, "unreadable_reference"))
            continue
        given = read(response, len(gold))
        grades.append(Grade(0.0, "unparsable") if given is None else Grade(_agreement(given, gold), "pairs_in_order"))
    return grades


def gain(responses: Sequence[str], references: Sequence[str | None], *, k: int = 10) -> list[Grade]:
    """The normalised discounted cumulative gain at `k` of an order, against graded relevance.

    The reference holds the relevance of passage 1, 2, ... ("3 0 2 1"); gains are 2^relevance - 1. Where nothing is
    relevant nobody could tell. Source: R56, SK11.
    """
    grades = []
    for response, reference in zip(responses, references, strict=True):
        relevance = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", reference or "")]
        ideal = _discounted(sorted(relevance, reverse=True)[:k])
        if reference is None or ideal == 0:
            grades.append(CANNOT_TELL_NO_REFERENCE if reference is None else Grade(None, "nothing_relevant"))
            continue
        given = read(response, len(relevance))
        if given is None:
            grades.append(Grade(0.0, "unparsable"))
        else:
            grades.append(Grade(_discounted([relevance[i - 1] for i in given[:k]]) / ideal, "gain"))
    return grades


def read(text: str, count: int) -> list[int] | None:
    """A permutation of 1..count: numbers in brackets, or all numbers where none are; None where there is no valid one."""
    valid = list(dict.fromkeys(number for number in listed(text) if 1 <= number <= count))
    return valid + [number for number in range(1, count + 1) if number not in valid] if valid else None


def listed(text: str) -> list[int]:
    """The numbers of a list as they stand: those in brackets, or all where none are."""
    bracketed = re.findall(r"\[(\d{1,6})\]", text)
    return [int(number) for number in bracketed or re.findall(r"\d{1,6}", text)]


def _agreement(given: list[int], gold: list[int]) -> float:
    place = {number: i for i, number in enumerate(given)}
    pairs = [(a, b) for i, a in enumerate(gold) for b in gold[i + 1 :]]
    return sum(place[a] < place[b] for a, b in pairs) / len(pairs)


def _discounted(relevance: Sequence[float]) -> float:
    return sum((2**value - 1) / math.log2(rank + 2) for rank, value in enumerate(relevance))
