"""A referee of two answers: what the student gets wrong (`feedback.hard`, R12)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from stillhouse.elicit import trust
from stillhouse.elicit.asking import Unparsed, annotated, in_chunks, keys_of, read_each
from stillhouse.elicit.judge_prompts import RATE
from stillhouse.elicit.trust import Untrusted
from stillhouse.graders import verdicts
from stillhouse.records import Example, Lost, Prompt, user
from stillhouse.selection.texts import prompt_text
from stillhouse.teachers.base import Generates, Outcome

__all__: list[str] = []


def hard(
    examples: Iterable[Example],
    teacher: Generates,
    *,
    low: int = 1,
    high: int = 10,
    gap: float = 1.0,
    easy: float = 1.0,
    untrusted: Untrusted = "mark",
) -> Iterator[Example | Lost]:
    """What the student gets wrong, found by a referee: hard examples, and as many easy ones as `easy` says.

    The response is the student's answer, the reference the teacher's. Both are scored in one prompt, in both orders,
    and averaged; hard is a gap of `gap` or more in the teacher's favour. Columns: `gap`, `hard`. Easy ones are kept
    at the rate `easy` per hard one (a guard against forgetting), the rest lost as "easy"; unreadable verdicts as
    "verdict_<code>". A referee that fails the canaries (`elicit/trust.py`) marks its rows in the column `untrusted`, or
    stops the run. Next: `expansion.evolve` with `operators: [breadth]`. Source: R12 (Lion), J5.
    """
    if not (examples := trust.some(examples)):
        return
    gaps = partial(_gaps, teacher=teacher, low=low, high=high)

    def prefers(couples: Sequence[tuple[Example, Example]]) -> list[bool]:
        told = gaps([replace(wrong, reference=right.response) for right, wrong in couples])
        return [not isinstance(each, Lost) and each > 0 for _, _, each in told]

    mark = {} if untrusted == "unchecked" else trust.enforced(trust.of_choices(prefers), untrusted, teacher.name)
    hard_ones = easy_ones = 0
    for chunk in in_chunks(examples):
        known = [one for one in chunk if one.reference is not None]
        yield from (Lost(one.id, "no_reference") for one in chunk if one.reference is None)
        for one, outcomes, difference in gaps(known):
            if isinstance(difference, Lost):
                yield difference
                continue
            is_hard = difference >= gap
            hard_ones, easy_ones = hard_ones + is_hard, easy_ones + (not is_hard)
            if not is_hard and easy_ones > easy * hard_ones:
                easy_ones -= 1
                yield Lost(one.id, "easy", keys=keys_of(*outcomes))
            else:
                yield annotated(one, {"gap": difference, "hard": bool(is_hard), **mark}, outcomes[0], teacher.name)


def _gaps(
    examples: Sequence[Example], teacher: Generates, low: int, high: int
) -> Iterator[tuple[Example, tuple[Outcome, Outcome], float | Lost]]:
    """By how much the reference is better than the response, over both orders; or why nobody could tell."""
    aspects = "First: {a}\nSecond: {b}"
    sampling = replace(teacher.sampling, n=1, temperature=0.0)

    def prompt_of(swapped: bool) -> Any:
        def write(one: Example) -> Prompt:
            first, second = (one.response, one.reference) if swapped else (one.reference, one.response)
            both = f"First answer:\n=====\n{first}\n=====\nSecond answer:\n=====\n{second}"
            text = RATE.format(
                prompt=prompt_text(one.prompt), reference="", response=both, low=low, high=high,
                aspects="- First: how good the first answer is\n- Second: how good the second answer is",
                example=aspects.format(a=low, b=high),
            )  # fmt: skip
            return user(text)

        return write

    def read(text: str) -> tuple[float, float] | Unparsed:
        try:
            one, two = (verdicts.score(text, low=low, high=high, marker=marker) for marker in ("First", "Second"))
        except verdicts.NoVerdictError as error:
            return Unparsed(f"verdict_{error}", text[-80:])
        return one, two

    straight = list(read_each(examples, teacher, prompt_of(False), read, sampling=sampling))
    swapped = read_each(examples, teacher, prompt_of(True), read, sampling=sampling)
    for (one, _, outcome, a), (_, _, other, b) in zip(straight, swapped, strict=True):
        lost = next((each for each in (a, b) if isinstance(each, Lost)), None)
        told = lost if lost is not None else ((a[0] - a[1]) + (b[1] - b[0])) / 2  # type: ignore[index]
        yield one, (outcome, other), told
