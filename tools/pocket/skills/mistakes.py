"""Solutions that go wrong: one step gets a wrong result, and every later step follows from it."""

import re
from dataclasses import dataclass

from tools.pocket.item import Draw
from tools.pocket.skills.stories import Problem, final

STEP = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")


@dataclass(frozen=True)
class Mistake:
    reasoning: str
    reason: str


def mistaken(draw: Draw, problem: Problem) -> Mistake:
    """One step is off by a little; the wrong result is carried to the end as far as the text states it."""
    places = [i for i, step in enumerate(problem.steps) if STEP.search(step)]
    place = draw.choice(places)
    left, wrong_sign, right, result = STEP.search(problem.steps[place]).groups()
    wrong = next(n for n in iter(lambda: int(result) + draw.choice((-3, -2, -1, 1, 2, 3, 10)), None) if n >= 0)
    steps, value = list(problem.steps[:place]), wrong
    steps.append(problem.steps[place].replace(f"= {result}", f"= {wrong}"))
    for step in problem.steps[place + 1 :]:
        _, sign, number, _ = STEP.search(step).groups()
        after = carried(value, sign, int(number))
        steps.append(STEP.sub(f"{value} {sign} {number} = {after}", step))
        value = after
    reason = f"{left} {wrong_sign} {right} is {result}, not {wrong}."
    return Mistake(" ".join(steps) + " " + final(value), reason)


def carried(value: int, sign: str, number: int) -> int:
    return {"+": value + number, "-": value - number, "*": value * number, "/": value // number}[sign]
