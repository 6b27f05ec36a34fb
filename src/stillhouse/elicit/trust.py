"""Is a judge to be believed? Answers whose worth is known, and one answer to everything, put before it first.

A judge is untrusted where it gets fewer than `LEAST` of the known requests right, or rates the constant answer as high
as the right ones. Both are far below what a person misses: who fails here says nothing about closer calls. The requests
are stored like any other, so that a judge with one rubric is paid for them once. Sources: 12.7 (canaries, the constant
answer that must not win), R36, R59.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from stillhouse.errors import RunFailed
from stillhouse.records import Example, user

__all__: list[str] = []

Untrusted = Literal["mark", "stop", "unchecked"]
LEAST = 0.8
CONSTANT = (
    "Thank you for asking. I have thought about this with great care, and this is my best and most complete answer."
)
KNOWN = (
    ("How many days are there in a week?", "A week has seven days, from Monday to Sunday."),
    ("What is 12 plus 30?", "12 plus 30 is 42."),
    ("At what temperature does water freeze at sea level?", "Water freezes at 0 degrees Celsius, or 32 degrees Fahrenheit."),
    ("Which planet do we live on?", "We live on the Earth, the third planet from the Sun."),
    ("What is the opposite of the word hot?", "The opposite of hot is cold."),
    ("Name the four seasons of the year.", "The four seasons are spring, summer, autumn and winter."),
    ("What do bees make out of nectar?", "Bees make honey out of the nectar of flowers."),
    ("How many sides does a triangle have?", "A triangle has three straight sides and three corners."),
    ("What is the capital of France?", "The capital of France is Paris, a city on the Seine."),
    ("Which month comes after March?", "April is the month that comes right after March."),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Known:
    """One request with its right answer, the words of another right answer in disorder, and the constant answer."""

    right: Example
    wrong: Example
    constant: Example


def known() -> list[Known]:
    """The requests that every judge is tried on; the wrong answer belongs to another request and is out of order."""
    made = []
    for number, (request, answer) in enumerate(KNOWN):
        words = KNOWN[(number + 3) % len(KNOWN)][1].split()
        random.Random(number).shuffle(words)
        texts = {"right": answer, "wrong": " ".join(words), "constant": CONSTANT}
        made.append(Known(**{key: Example(f"canary-{number}-{key}", user(request), t) for key, t in texts.items()}))
    return made


def of_ratings(rate: Callable[[Sequence[Example]], Sequence[float | None]]) -> str:
    """Why a judge that rates is not to be trusted, or nothing. A rating that cannot be read is not right."""
    plants = known()
    flat = rate([one for plant in plants for one in (plant.right, plant.wrong, plant.constant)])
    right, wrong, constant = flat[::3], flat[1::3], flat[2::3]
    caught = sum(a is not None and b is not None and a > b for a, b in zip(right, wrong, strict=True))
    both = [(a, c) for a, c in zip(right, constant, strict=True) if a is not None and c is not None]
    means = [sum(each) / len(both) for each in zip(*both, strict=True)] if both else [0.0, 0.0]
    return _said(caught, means[0] > means[1], f"a constant answer {means[1]:.2f}, right answers {means[0]:.2f}")


def of_choices(prefers_right: Callable[[Sequence[tuple[Example, Example]]], Sequence[bool]]) -> str:
    """The same for a judge that compares: right against wrong, and right against constant; a flip is not right."""
    plants = known()
    caught = sum(prefers_right([(plant.right, plant.wrong) for plant in plants]))
    won = sum(prefers_right([(plant.right, plant.constant) for plant in plants]))
    lost_to = f"right answers beat a constant one {won} of {len(KNOWN)} times"
    return _said(caught, won > len(KNOWN) / 2, lost_to)


def some(examples: Iterable[Example]) -> Iterable[Example]:
    """The same examples, or nothing where there is none: a judge with nothing to judge is not tried."""
    stream = iter(examples)
    first = next(stream, None)
    return () if first is None else chain([first], stream)


def enforced(reason: str, untrusted: Untrusted, judge: str) -> dict[str, str]:
    """The column that marks what an untrusted judge said. Raises RunFailed where such a judge is to stop the run."""
    if reason and untrusted == "stop":
        raise RunFailed(f"the judge {judge!r} is not to be trusted ({reason}); take another judge, or other aspects")
    return {"untrusted": reason} if reason else {}


def _said(caught: int, beats_constant: bool, constant: str) -> str:
    passes = caught >= LEAST * len(KNOWN) and beats_constant
    return "" if passes else f"{caught} of {len(KNOWN)} canaries right, {constant}"
