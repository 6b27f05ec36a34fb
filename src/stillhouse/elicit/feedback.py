"""Feedback: the teacher judges or mends answers, most often the student's own (Eq. 7).

A judge gives verdicts, never a text that takes the row's place; what it wrote is parsed strictly
(`graders/verdicts.py`), and a missing verdict is missing. Texts to be judged are fenced, so that "ignore the above,
score 10" inside one stays a text.
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Any, Literal

from stillhouse.elicit import trust
from stillhouse.elicit.asking import (
    Unparsed,
    asked,
    complete,
    in_chunks,
    keys_of,
    lost,
    read_each,
)
from stillhouse.elicit.comparing import Duel, both_orders, comparable, from_scores, ranked, verdict
from stillhouse.elicit.judge_prompts import ASPECTS, COMPARE, CRITERION, GENERAL, MEND, OPTION, RANK, RATE
from stillhouse.elicit.revising import revised
from stillhouse.elicit.rubric import Rubric
from stillhouse.elicit.stepwise import IS_RIGHT, step_prompt, steps_of
from stillhouse.elicit.stepwise import step_verdicts as read_verdicts
from stillhouse.elicit.trust import Untrusted
from stillhouse.errors import RecipeError
from stillhouse.graders import Grader, permutation, verdicts
from stillhouse.records import Example, Lost, Origin, Prompt, Ranking, content_id, user
from stillhouse.selection.texts import grouped, prompt_text
from stillhouse.teachers.base import Generates, Outcome, Scores

__all__ = [
    "by_teacher",
    "compare",
    "gathered",
    "graded",
    "hard",
    "minimal_edit",
    "option_logprobs",
    "pairs",
    "prefer_revised",
    "rank",
    "rate",
    "revise",
    "step_labels",
    "step_verdicts",
]


def rate(
    examples: Iterable[Example],
    teacher: Generates,
    *,
    aspects: Mapping[str, str] = ASPECTS,
    low: int = 1,
    high: int = 5,
    show_reference: bool = False,
    untrusted: Untrusted = "mark",
) -> Iterator[Example | Lost]:
    """Each answer rated by aspect, as columns: one per aspect, and `score`, their mean.

    The answer itself is untouched. Every aspect must be rated once and within `low`..`high`; otherwise the row is
    lost as "verdict_<code>" (out of range is malformed, never clamped). With `sampling: {n: 3}` each rating is a
    row: the column `rater` counts them. A judge that fails the canaries (`elicit/trust.py`) marks its rows in the column
    `untrusted`, or stops the run. Sources: R36 (UltraFeedback), R15 (AlpaGasus), R39 (with `teacher: student`), R59.
    """
    rubric = Rubric(aspects, low, high)

    def prompt_of(one: Example) -> Prompt:
        reference = one.reference if show_reference else None
        return user(rubric.prompt(prompt_text(one.prompt), one.response, reference))

    def known(plants: Sequence[Example]) -> list[float | None]:
        once = read_each(plants, teacher, prompt_of, rubric.read, sampling=replace(teacher.sampling, n=1))
        return [None if isinstance(value, Lost) else sum(value.values()) / len(value) for *_, value in once]

    mark = {} if untrusted == "unchecked" else trust.enforced(trust.of_ratings(known), untrusted, teacher.name)
    for one, slot, outcome, value in read_each(examples, teacher, prompt_of, rubric.read):
        if isinstance(value, Lost):
            yield value
        else:
            columns = {**value, "score": sum(value.values()) / len(value), "rater": slot, **mark}
            yield _annotated(one, columns, outcome, teacher.name)


def _annotated(one: Example, columns: Mapping[str, Any], outcome: Outcome, judge: str) -> Example:
    """The same example with what a judge said in its columns; who wrote it stays on record as its teacher."""
    name = content_id("Example", one.id, dict(columns), judge, outcome.key)
    origin = Origin((one.id,), one.origin.teacher, (*one.origin.keys, *keys_of(outcome)))
    return replace(one, id=name, columns={**one.columns, **columns}, origin=origin)


def compare(
    examples: Iterable[Example], teacher: Generates, *, criterion: str = CRITERION, untrusted: Untrusted = "mark"
) -> Iterator[Ranking | Lost]:
    """Preferences between the answers to one prompt; each pair is asked in both orders.

    Answers to one prompt must be neighbours (several samples of one teacher are). All pairs are asked; the ranking
    goes by pairs won, which are its scores. A pair whose verdict changes with the order counts for neither; a prompt
    where some verdict cannot be read is lost as "no_verdict", one where no answer wins as "tie" or, if only orders
    flipped, "order_flip". One sampled answer of the judge is used. A judge that fails the canaries (`elicit/trust.py`)
    marks its rankings in the column `untrusted`, or stops the run. Sources: R12, R33, R59, J4.
    """

    def prefers(couples: Sequence[tuple[Example, Example]]) -> list[bool]:
        found = _compared((one for couple in couples for one in couple), teacher, criterion)
        return [
            isinstance(each, Ranking) and each.responses[0] == right.response
            for each, (right, _) in zip(found, couples, strict=True)
        ]

    mark = {} if untrusted == "unchecked" else trust.enforced(trust.of_choices(prefers), untrusted, teacher.name)
    for each in _compared(examples, teacher, criterion):
        yield replace(each, columns={**each.columns, **mark}) if mark and isinstance(each, Ranking) else each


def _compared(examples: Iterable[Example], teacher: Generates, criterion: str) -> Iterator[Ranking | Lost]:
    judge = replace(teacher.sampling, n=1)
    for groups in in_chunks(comparable(examples)):
        yield from (lost_one for lost_one in groups if isinstance(lost_one, Lost))
        duels = [Duel(g, a, b) for g in groups if not isinstance(g, Lost) for a, b in both_orders(len(g.members))]

        def prompt_of(duel: Duel) -> Prompt:
            first, second = duel.group.members[duel.first], duel.group.members[duel.second]
            fields = {"first": first.response, "second": second.response, "criterion": criterion}
            return user(COMPARE.format(prompt=prompt_text(first.prompt), **fields))

        results = list(read_each(duels, teacher, prompt_of, verdict, sampling=judge))
        for group in groups:
            if not isinstance(group, Lost):
                yield ranked(group, [r for r in results if r[0].group is group], teacher.name)


def _fixed(prompt: Prompt, _: Example) -> Prompt:
    return prompt


def rank(
    examples: Iterable[Example], teacher: Generates, *, criterion: str = CRITERION, seed: int = 0
) -> Iterator[Ranking | Lost]:
    """The answers to one prompt ranked at once, shown in an order drawn by the prompt.

    The judge must name every answer once; a shorter, longer or repeating list is lost as "no_permutation". Answers
    to one prompt must be neighbours. The scores are the number of answers ranked below. Sources: R37 (CycleAlign),
    R08 (SDF), R24 (IRM).
    """
    judge = replace(teacher.sampling, n=1)
    for members in grouped(examples):
        members = list({one.response: one for one in members}.values())
        if len(members) < 2:
            yield Lost(members[0].id, "single_answer")
            continue
        random.Random(content_id(seed, members[0].id)).shuffle(members)
        answers = "".join(f"Answer [{i}]:\n=====\n{one.response}\n=====\n" for i, one in enumerate(members, 1))
        example = " > ".join(f"[{i}]" for i in range(len(members), 0, -1))
        text = RANK.format(criterion=criterion, prompt=prompt_text(members[0].prompt), answers=answers, example=example)
        for one, slot, outcome in asked([members[0]], teacher, partial(_fixed, user(text)), sampling=judge):
            given = complete(one, slot, outcome)
            if isinstance(given, Lost):
                yield given
                continue
            order = permutation.listed(given)
            if sorted(order) != list(range(1, len(members) + 1)):
                yield lost(one, slot, outcome, "no_permutation", given[-80:])
            else:
                best = [members[i - 1] for i in order]
                yield from_scores(best, [float(len(best) - 1 - i) for i in range(len(best))], [outcome], teacher.name)


def pairs(
    examples: Iterable[Example],
    *,
    column: str = "score",
    rejected: Literal["random", "worst", "all"] = "random",
    margin: float = 0.0,
    seed: int = 0,
) -> Iterator[Ranking | Lost]:
    """Preference pairs out of rated answers to one prompt; no teacher is asked.

    Chosen is the answer with the highest score; rejected a random other one (Zephyr), the worst, or each of the
    others. The scores must differ by more than `margin`. Unrated answers take no part. Lost: "no_score" (fewer than
    two are rated), "tie". Answers to one prompt must be neighbours. Sources: R36, R39, J4.
    """
    for members in grouped(examples):
        rated = [one for one in members if isinstance(one.columns.get(column), int | float)]
        if len(rated) < 2:
            yield Lost(members[0].id, "no_score")
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


def gathered(examples: Iterable[Example]) -> Iterator[Example]:
    """The answers to one prompt brought together, wherever several teachers gave them (`teacher: [a, b]`); no teacher is asked.

    The judges that follow look at neighbours. Prompts come in the order of their first answer; the examples are held.
    Source: R36 (several models answer each prompt).
    """
    for members in _by_prompt(examples):
        yield from members


def by_teacher(examples: Iterable[Example], *, order: Sequence[str]) -> Iterator[Ranking | Lost]:
    """The answers to one prompt ranked by who gave them, best first: a larger or better-prompted teacher is assumed to win.

    `order` names the teachers, best first; an answer of any other is refused. One answer of each counts (the first), equal
    answers are one. Fewer than two are lost as "single_answer". The examples are held. Check the assumption with
    `feedback.compare`. Source: R35 (ALMoST).
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
        if len(distinct) < 2:
            yield Lost(members[0].id, "single_answer")
        else:
            scores = [float(len(order) - places[one.origin.teacher]) for one in distinct.values()]
            yield from_scores(list(distinct.values()), scores, [], "")


def _by_prompt(examples: Iterable[Example]) -> Iterable[list[Example]]:
    groups: dict[Prompt, list[Example]] = {}
    for one in examples:
        groups.setdefault(one.prompt, []).append(one)
    return groups.values()


def option_logprobs(
    examples: Iterable[Example], teacher: Scores, *, criterion: str = CRITERION, k: int = 50
) -> Iterator[Ranking | Lost]:
    """Soft preferences: the teacher's probabilities of "1" and "2", averaged over both orders, as the scores.

    For each pair of neighbouring answers to one prompt. The probability of an option is read from the first token of
    the answer "1" or "2" and normalised over the two; an option that is not among the `k` most likely tokens makes
    the pair unreadable ("option_missing"). Raises RecipeError for a teacher that cannot tell log-probabilities.
    Source: R33 (RLAIF).
    """
    if not isinstance(teacher, Scores):
        raise RecipeError("feedback.option_logprobs: this teacher cannot tell log-probabilities; use feedback.compare")
    for members in grouped(examples):
        if len(members) < 2:
            yield Lost(members[0].id, "single_answer")
        for a, b in combinations(members, 2):
            forth = _preferred(teacher, _option_prompt(a, b, criterion), k)
            back = _preferred(teacher, _option_prompt(b, a, criterion), k)
            if forth is None or back is None:
                yield Lost(a.id, "option_missing")
                continue
            first = (forth + 1 - back) / 2
            best = [(a, first), (b, 1 - first)] if first >= 0.5 else [(b, 1 - first), (a, first)]
            yield from_scores([one for one, _ in best], [p for _, p in best], [], getattr(teacher, "name", ""))


def _option_prompt(first: Example, second: Example, criterion: str) -> Prompt:
    fields = {"first": first.response, "second": second.response, "criterion": criterion}
    return user(OPTION.format(prompt=prompt_text(first.prompt), **fields))


def _preferred(teacher: Scores, prompt: Prompt, k: int) -> float | None:
    """P("1") / (P("1") + P("2")) at the first token, or None where one of them is not among the k most likely."""
    import numpy as np

    logprobs = []
    for beliefs in teacher.top_logprobs([(prompt, "1"), (prompt, "2")], k=k):
        at = np.flatnonzero(beliefs.top_ids_TK[0] == beliefs.token_ids_T[0])
        if not len(at):
            return None
        logprobs.append(float(beliefs.top_logprobs_TK[0][at[0]]))
    return float(1 / (1 + np.exp(logprobs[1] - logprobs[0])))


def revise(
    examples: Iterable[Example],
    teacher: Generates,
    *,
    principles: Sequence[str] = (GENERAL,),
    times: int = 1,
    chain: bool = False,
    seed: int = 0,
) -> Iterator[Example | Lost]:
    """Each answer criticised and revised, `times` times, each time by a principle drawn for it; the last revision is given.

    It ends early where a revision changes nothing; an answer that never changes is given as it was. With `chain` the
    response is answer, critique and revision in turn, to teach revising itself. Sources: R32 (Constitutional AI: up
    to 4 times), R13, R14.
    """
    for result in revised(examples, teacher, principles, times, seed):
        yield result if isinstance(result, Lost) else result.text(teacher.name, chain)


def prefer_revised(
    examples: Iterable[Example],
    teacher: Generates,
    *,
    principles: Sequence[str] = (GENERAL,),
    times: int = 1,
    seed: int = 0,
) -> Iterator[Ranking | Lost]:
    """The revision of each answer preferred to the answer itself; one that never changes is lost as "unchanged".

    Knobs as in `revise`. Sources: R32, R13.
    """
    for result in revised(examples, teacher, principles, times, seed):
        yield result if isinstance(result, Lost) else result.pair(teacher.name)


def minimal_edit(
    examples: Iterable[Example],
    teacher: Generates,
    *,
    problem: str | None = None,
    show_reference: bool = True,
    most_changed: float = 0.7,
) -> Iterator[Example | Lost]:
    """A wrong answer corrected with as few changes as possible, so that the student sees where it went wrong.

    The column `problem` (an error message, say) and the reference are shown to the teacher where there are any; the
    column `was` keeps the wrong answer. A correction whose words differ from it by more than `most_changed` is a new
    answer and lost as "rewritten", an unchanged one as "unchanged". Whether it is right is for `quality.correct`.
    Sources: R42 (RLMEC), R60 (PERsD).
    """
    from rapidfuzz.distance import Indel

    def prompt_of(one: Example) -> Prompt:
        known = (
            f"What went wrong:\n=====\n{one.columns[problem]}\n=====\n" if problem and one.columns.get(problem) else ""
        )
        if show_reference and one.reference:
            known += f"The right result:\n=====\n{one.reference}\n=====\n"
        return user(MEND.format(prompt=prompt_text(one.prompt), response=one.response, known=known))

    for one, slot, outcome, text in read_each(examples, teacher, prompt_of, str.strip):
        if isinstance(text, Lost):
            yield text
            continue
        changed = Indel.normalized_distance(one.response.split(), text.split())
        if changed == 0 or changed > most_changed:
            yield Lost(one.id, "rewritten" if changed else "unchanged", slot=slot, keys=keys_of(outcome))
            continue
        name, keys = content_id("Example", one.id, text, outcome.key), keys_of(outcome)
        columns = {**one.columns, "was": one.response}
        origin = Origin((one.id,), teacher.name, keys)
        yield replace(one, id=name, response=text, asked=outcome.request.messages, columns=columns, origin=origin)


def hard(
    examples: Iterable[Example],
    teacher: Generates,
    *,
    low: int = 1,
    high: int = 10,
    gap: float = 1.0,
    easy: float = 1.0,
) -> Iterator[Example | Lost]:
    """What the student gets wrong, found by a referee: hard examples, and as many easy ones as `easy` says.

    The response is the student's answer, the reference the teacher's. Both are scored in one prompt, in both orders,
    and averaged; hard is a gap of `gap` or more in the teacher's favour. Columns: `gap`, `hard`. Easy ones are kept
    at the rate `easy` per hard one (a guard against forgetting), the rest lost as "easy"; unreadable verdicts as
    "verdict_<code>". Next: `expansion.evolve` with `operators: [breadth]`. Source: R12 (Lion), J5.
    """
    aspects = "First: {a}\nSecond: {b}"
    sampling = replace(teacher.sampling, n=1, temperature=0.0)
    hard_ones = easy_ones = 0

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

    for chunk in in_chunks(examples):
        known = [one for one in chunk if one.reference is not None]
        yield from (Lost(one.id, "no_reference") for one in chunk if one.reference is None)
        straight = list(read_each(known, teacher, prompt_of(False), read, sampling=sampling))
        swapped = read_each(known, teacher, prompt_of(True), read, sampling=sampling)
        for (one, slot, outcome, a), (_, _, other, b) in zip(straight, swapped, strict=True):
            if isinstance(a, Lost):
                yield a
                continue
            if isinstance(b, Lost):
                yield b
                continue
            difference = ((a[0] - a[1]) + (b[1] - b[0])) / 2
            is_hard = difference >= gap
            hard_ones, easy_ones = hard_ones + is_hard, easy_ones + (not is_hard)
            if not is_hard and easy_ones > easy * hard_ones:
                easy_ones -= 1
                yield Lost(one.id, "easy", slot=slot, keys=keys_of(outcome, other))
            else:
                yield _annotated(one, {"gap": difference, "hard": bool(is_hard)}, outcome, teacher.name)


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


def step_labels(
    examples: Iterable[Example], teacher: Generates, *, show_reference: bool = False
) -> Iterator[Example | Lost]:
    """Every step of an answer judged right or wrong.

    Steps are lines, or sentences where there is one line only. Columns: `steps`, `step_labels` (1 or 0), and `score`, the
    share of steps before the first mistake (1 where there is none). A judge that leaves out or repeats a step is not
    believed: "verdict_count". Sources: R24 (WizardMath's process reward), 3.5 (b), V-STaR's kin.
    """
    for chunk in in_chunks(examples):
        cut = {one.id: steps_of(one.response) for one in chunk}
        yield from (Lost(one.id, "no_steps") for one in chunk if not cut[one.id])
        whole = [one for one in chunk if cut[one.id]]

        def prompt_of(one: Example, cut: dict[str, list[str]] = cut) -> Prompt:
            return user(step_prompt(one, cut[one.id], show_reference))

        for one, slot, outcome, labels in read_each(whole, teacher, prompt_of, _labels_of):
            steps = cut[one.id]
            read = labels if isinstance(labels, Lost) else read_verdicts(labels, len(steps))
            if isinstance(read, Lost):
                yield read
            elif isinstance(read, Unparsed):
                yield lost(one, slot, outcome, read.reason, read.detail)
            else:
                good = read.index(False) if False in read else len(read)
                columns = {"steps": steps, "step_labels": [int(right) for right in read], "score": good / len(read)}
                yield _annotated(one, columns, outcome, teacher.name)


def _labels_of(text: str) -> str:
    """How many steps there must be depends on the answer judged, so that reading is done beside it."""
    return text


def step_verdicts(examples: Iterable[Example]) -> Iterator[Example | Lost]:
    """Labelled steps as a critic's lessons: the solution up to a step, and whether that step is right. No teacher is asked.

    Steps behind the first mistake are left out: whether they are right depends on what is meant. Lost: "no_step_labels".
    Source: R24 (a process reward model), R21 (V-STaR's verifier).
    """
    for one in examples:
        labels, steps = one.columns.get("step_labels"), one.columns.get("steps")
        if not labels or not steps:
            yield Lost(one.id, "no_step_labels")
            continue
        last = labels.index(0) + 1 if 0 in labels else len(labels)
        for number in range(1, last + 1):
            prompt = user(f"{prompt_text(one.prompt)}\n\n" + "\n".join(steps[:number]) + f"\n\n{IS_RIGHT}")
            response = "right" if labels[number - 1] else "wrong"
            columns = {k: v for k, v in one.columns.items() if k not in ("steps", "step_labels")} | {"step": number}
            name = content_id("Example", one.id, "step", number, response)
            origin = Origin((one.id,), one.origin.teacher, one.origin.keys)
            yield Example(name, prompt, response, response, one.asked, columns, origin)
