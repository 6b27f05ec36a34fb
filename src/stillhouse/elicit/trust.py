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


# solutions in two steps, and which of them are right; every second one holds a mistake, so that no constant judge passes
KNOWN_STEPS = (
    ("What is 2 plus 3, times 4?", ("2 plus 3 is 5.", "5 times 4 is 20."), (True, True)),
    ("What is 6 plus 1, times 2?", ("6 plus 1 is 9.", "9 times 2 is 18."), (False, True)),
    ("What is 10 minus 4, halved?", ("10 minus 4 is 6.", "Half of 6 is 3."), (True, True)),
    ("What is 8 minus 2, times 3?", ("8 minus 2 is 6.", "6 times 3 is 27."), (True, False)),
    ("How many legs have 3 dogs and 1 bird?", ("3 dogs have 12 legs.", "With the bird's 2 that is 14."), (True, True)),
    ("How many legs have 2 cats and 1 hen?", ("2 cats have 10 legs.", "With the hen's 2 that is 12."), (False, True)),
    ("How many days are 2 weeks and 3 days?", ("2 weeks are 14 days.", "14 and 3 are 17 days."), (True, True)),
    ("How many days are 3 weeks and 1 day?", ("3 weeks are 21 days.", "21 and 1 are 31 days."), (True, False)),
    ("What is half of 20, plus 5?", ("Half of 20 is 10.", "10 plus 5 is 15."), (True, True)),
    ("What is half of 12, plus 7?", ("Half of 12 is 6.", "6 plus 7 is 15."), (True, False)),
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


def of_steps(label: Callable[[Sequence[Example]], Sequence[Sequence[bool] | None]]) -> str:
    """The same for a judge of steps: every step of a solution labelled as it is known to be."""
    solved = [
        Example(f"canary-steps-{number}", user(request), "\n".join(steps))
        for number, (request, steps, _) in enumerate(KNOWN_STEPS)
    ]
    told = label(solved)
    # what follows from a mistake may be called right or wrong
    caught = sum(
        each is not None and list(each)[: _told(known)] == list(known)[: _told(known)]
        for each, (_, _, known) in zip(told, KNOWN_STEPS, strict=True)
    )
    return "" if caught >= LEAST * len(KNOWN_STEPS) else f"{caught} of {len(KNOWN_STEPS)} canaries right"


def _told(known: Sequence[bool]) -> int:
    return list(known).index(False) + 1 if False in known else len(known)


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
