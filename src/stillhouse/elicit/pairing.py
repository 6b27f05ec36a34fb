"""Preferences out of what is there: scores, checkers, who answered. No teacher is asked (`feedback.pairs` and its kin)."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from stillhouse.elicit.asking import as_seed, in_chunks
from stillhouse.elicit.comparing import from_scores
from stillhouse.errors import RecipeError
from stillhouse.graders import Grader
from stillhouse.records import Example, Lost, Origin, Prompt, Ranking, Seed, content_id
from stillhouse.selection.quality import score_of
from stillhouse.selection.texts import grouped

__all__: list[str] = []


def pairs(
    examples: Iterable[Example],
    *,
    column: str = "score",
    rejected: Literal["random", "worst", "all"] = "random",
    margin: float = 0.0,
    trusted: bool = False,
    seed: int = 0,
) -> Iterator[Ranking | Lost]:
    """Preference pairs out of rated answers to one prompt; no teacher is asked.

    Chosen is the answer with the highest score; rejected a random other one (Zephyr), the worst, or each of the
    others. The scores must differ by more than `margin`. Unrated answers take no part, nor with `trusted` those rated
    by a judge that failed its canaries. Lost: "no_score" (fewer than two are rated), "untrusted_judge", "tie". Answers
    to one prompt must be neighbours. Sources: R36, R39, J4.
    """
    for members in grouped(examples):
        rated = [one for one in members if score_of(one, column, trusted) is not None]
        if len(rated) < 2:
            doubtful = trusted and any(one.columns.get("untrusted") for one in members)
            yield Lost(members[0].id, "untrusted_judge" if doubtful else "no_score")
            continue
        best = max(rated, key=lambda one: float(one.columns[column]))
        others = [
            o
            for o in rated
            if float(best.columns[column]) - float(o.columns[column]) > margin and o.response != best.response
        ]
        if not others:
            yield Lost(members[0].id, "tie")
            continue
        if rejected == "random":
            others = [random.Random(content_id(seed, best.id)).choice(others)]
        elif rejected == "worst":
            others = [min(others, key=lambda one: float(one.columns[column]))]
        for other in others:
            yield from_scores([best, other], [float(best.columns[column]), float(other.columns[column])], [], "")


def by_score(examples: Iterable[Example], *, column: str = "score", trusted: bool = False) -> Iterator[Ranking | Lost]:
    """The rated answers to one prompt as one ranking, best first; no teacher is asked.

    What learns from pairs (`ranking.dpo`, `reinforcement.bradley_terry`) takes every two of unequal score in it, each answer
    read once: all right answers against all wrong ones where a checker graded. Equal answers are one, with the score of
    the first; `trusted` as in `pairs`. Lost: "no_score" (fewer than two are rated), "untrusted_judge", "tie" (all are worth
    the same). Answers to one prompt must be neighbours. Sources: R21 (V-STaR's verifier), R36.
    """
    for members in grouped(examples):
        rated: dict[str, Example] = {}
        for one in members:
            if score_of(one, column, trusted) is not None:
                rated.setdefault(one.response, one)
        best = sorted(rated.values(), key=lambda one: -float(one.columns[column]))
        scores = [float(one.columns[column]) for one in best]
        if len(best) < 2:
            doubtful = trusted and any(one.columns.get("untrusted") for one in members)
            yield Lost(members[0].id, "untrusted_judge" if doubtful else "no_score")
        elif scores[0] == scores[-1]:
            yield Lost(members[0].id, "tie")
        else:
            yield from_scores(best, scores, [], "")


def gathered(examples: Iterable[Example]) -> Iterator[Example]:
    """The answers to one prompt brought together, wherever several teachers gave them (`teacher: [a, b]`); no teacher is asked.

    The judges that follow look at neighbours. Prompts come in the order of their first answer; the examples are held.
    Source: R36 (several models answer each prompt).
    """
    for members in _by_prompt(examples):
        yield from members


def by_teacher(
    examples: Iterable[Example], *, order: Sequence[str], agrees: str | None = None
) -> Iterator[Ranking | Lost]:
    """The answers to one prompt ranked by who gave them, best first: a larger or better-prompted teacher is assumed to win.

    `order` names the teachers, best first; an answer of any other is refused. One answer of each counts (the first), equal
    answers are one. With `agrees`, a column that an outside judge wrote (`feedback.rate`, `preferences.reward_model`), an answer
    takes part only if it is scored below every better one that does; an unscored one does not. Fewer than two are lost as
    "single_answer", with `agrees` as "disagrees". The examples are held. Source: R35 (ALMoST, validated by another model).
    """
    places = {name: place for place, name in enumerate(order)}
    for members in _by_prompt(examples):
        for one in members:
            if one.origin.teacher not in places:
                raise RecipeError(f"feedback.by_teacher: {one.id} is by {one.origin.teacher!r}, who is not in `order`")
        firsts: dict[str, Example] = {}
        for one in members:
            firsts.setdefault(one.origin.teacher, one)
        distinct: dict[str, Example] = {}
        for one in sorted(firsts.values(), key=lambda one: places[one.origin.teacher]):
            distinct.setdefault(one.response, one)
        several = len(distinct) > 1
        if agrees is not None:
            distinct = _falling(distinct, agrees)
        if len(distinct) < 2:
            yield Lost(members[0].id, "disagrees" if several else "single_answer")
        else:
            scores = [float(len(order) - places[one.origin.teacher]) for one in distinct.values()]
            yield from_scores(list(distinct.values()), scores, [], "")


def _falling(distinct: dict[str, Example], column: str) -> dict[str, Example]:
    """The answers, best first, that a judge's score falls along."""
    kept: dict[str, Example] = {}
    least = float("inf")
    for response, one in distinct.items():
        value = one.columns.get(column)
        if isinstance(value, int | float) and value < least:
            kept[response], least = one, float(value)
    return kept


def graded(examples: Iterable[Example], *, grader: Grader, column: str = "score") -> Iterator[Example | Lost]:
    """Each answer with a checker's grade in a column; no teacher is asked.

    What the checker cannot tell is lost as "could_not_tell" with its code behind a colon, never scored. Next: `pairs`,
    `quality.best`, or a `weight_column`. Sources: 3.5 (executor feedback), R08, R37.
    """
    for chunk in in_chunks(examples):
        grades = grader([one.response for one in chunk], [one.reference for one in chunk])
        for one, grade in zip(chunk, grades, strict=True):
            if grade.value is None:
                yield Lost(one.id, f"could_not_tell:{grade.reason}")
            else:
                name = content_id("Example", one.id, column, grade.value)
                origin = Origin((one.id,), one.origin.teacher, one.origin.keys)
                yield replace(one, id=name, columns={**one.columns, column: grade.value}, origin=origin)


def failed(examples: Iterable[Example], *, grader: Grader) -> Iterator[Seed | Lost]:
    """The prompts whose answer a checker finds wrong, as seeds again: what to ask for more of. No teacher is asked.

    With `teacher: student` before it, what the student cannot do yet. Lost: "right", and "could_not_tell" with the
    checker's code behind a colon. Sources: R49 (Confucius's introspective feedback), R12, 3.5.
    """
    for chunk in in_chunks(examples):
        grades = grader([one.response for one in chunk], [one.reference for one in chunk])
        for one, grade in zip(chunk, grades, strict=True):
            if grade.value is None:
                yield Lost(one.id, f"could_not_tell:{grade.reason}")
            else:
                yield Lost(one.id, "right") if grade.value >= 1 else as_seed(one)


def _by_prompt(examples: Iterable[Example]) -> Iterable[list[Example]]:
    groups: dict[Prompt, list[Example]] = {}
    for one in examples:
        groups.setdefault(one.prompt, []).append(one)
    return groups.values()
