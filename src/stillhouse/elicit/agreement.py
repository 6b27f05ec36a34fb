"""Two judges of one list: where student and teacher agree on an order, the next lists are shown it (R37, CycleAlign)."""

import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from stillhouse.elicit.asking import in_chunks, lost, read_each
from stillhouse.elicit.comparing import from_scores
from stillhouse.elicit.judge_prompts import CRITERION, RANK
from stillhouse.errors import RecipeError
from stillhouse.graders import permutation
from stillhouse.records import Example, Lost, Origin, Prompt, Ranking, content_id, user
from stillhouse.selection.influence import Meter
from stillhouse.selection.texts import grouped, prompt_text
from stillhouse.teachers.base import Generates, Reveals

__all__ = ["likely", "ranked"]

SHOWN = "Here is how it was done before.\n\n{shown}\n\n"
ONE = "Request:\n=====\n{prompt}\n=====\n{answers}Order: {order}"


def likely(examples: Iterable[Example], teacher: Reveals) -> Iterator[Example | Lost]:
    """How likely each answer is to a local model, as the column `likelihood`: the mean log-probability of its tokens, in nats.

    With `teacher: student` the student ranks its own answers by its own belief. Lost: "no_score" where nothing can be
    scored. Raises RecipeError for a teacher that is no local model. Sources: R37 (CycleAlign), 4.9 (RRHF's p).
    """
    if not isinstance(teacher, Reveals):
        raise RecipeError("agreement.likely: this teacher is no local model; use transformers, pocket, run or student")
    meter = Meter("", loaded=(teacher.module(), teacher.tokenizer()))
    name = getattr(teacher, "name", "")
    for chunk in in_chunks(examples):
        for one, loss in zip(chunk, meter.losses([(one.prompt, one.response) for one in chunk]), strict=True):
            if loss is None:
                yield Lost(one.id, "no_score")
            else:
                identity = content_id("Example", one.id, "likelihood", loss, name)
                origin = Origin((one.id,), one.origin.teacher, one.origin.keys)
                yield replace(one, id=identity, columns={**one.columns, "likelihood": -loss}, origin=origin)


def ranked(
    examples: Iterable[Example],
    teacher: Generates,
    *,
    column: str = "likelihood",
    demonstrations: int = 2,
    at_once: int = 8,
    criterion: str = CRITERION,
    seed: int = 0,
) -> Iterator[Ranking | Lost]:
    """The answers to one prompt ranked by the teacher, who is shown lists on which it and the student agreed.

    The student's own order goes by the `column` that `agreement.likely` wrote. The longest run of answers that stand in the
    same order in both, two or more, is what they agree on; the latest `demonstrations` of these stand before the lists that
    follow. They are exchanged after every `at_once` prompts, in order, so that a run gives the same requests again. The
    scores are the number of answers ranked below; the column `agreed` says how many the two agree on. Answers to one prompt
    must be neighbours. Lost: "single_answer", "no_permutation", "no_score". Next: `ranking.rrhf` or `ranking.pro`, in
    `rounds:`. Source: R37 (CycleAlign).
    """
    if at_once < 1:
        raise RecipeError(f"agreement.ranked: at_once is {at_once}; write 1 or more")
    held: deque[str] = deque(maxlen=demonstrations)
    for groups in in_chunks(_groups(examples), at_once):
        first = {members[0].id: _shuffled(members, seed) for members in groups}
        before = SHOWN.format(shown="\n\n".join(held)) if held else ""

        def prompt_of(one: Example, first: dict[str, list[Example]] = first, before: str = before) -> Prompt:
            members = first[one.id]
            example = " > ".join(f"[{i}]" for i in range(len(members), 0, -1))
            fields = {"prompt": prompt_text(one.prompt), "answers": _listed(members), "example": example}
            return user(before + RANK.format(criterion=criterion, **fields))

        asked = [members[0] for members in groups if len(members) > 1]
        yield from (Lost(members[0].id, "single_answer") for members in groups if len(members) < 2)
        judge = replace(teacher.sampling, n=1)
        for one, slot, outcome, text in read_each(asked, teacher, prompt_of, str.strip, sampling=judge):
            members = first[one.id]
            if isinstance(text, Lost):
                yield text
                continue
            order = permutation.listed(text)
            if sorted(order) != list(range(1, len(members) + 1)):
                yield lost(one, slot, outcome, "no_permutation", text[-80:])
                continue
            own = sorted(range(1, len(members) + 1), key=lambda i: -_score(members[i - 1], column))
            agreed = common(order, own)
            if len(agreed) > 1:
                told = [members[i - 1] for i in sorted(agreed)]
                listed = " > ".join(f"[{sorted(agreed).index(i) + 1}]" for i in agreed)
                held.append(ONE.format(prompt=prompt_text(one.prompt), answers=_listed(told), order=listed))
            best = [members[i - 1] for i in order]
            ranking = from_scores(best, [float(len(best) - 1 - i) for i in range(len(best))], [outcome], teacher.name)
            yield replace(ranking, columns={**ranking.columns, "agreed": len(agreed)})


def common(one: Sequence[int], other: Sequence[int]) -> list[int]:
    """The longest subsequence that two orders share; the earliest in `one` among equals."""
    best: list[list[list[int]]] = [[[] for _ in range(len(other) + 1)] for _ in range(len(one) + 1)]
    for i in range(len(one) - 1, -1, -1):
        for j in range(len(other) - 1, -1, -1):
            if one[i] == other[j]:
                best[i][j] = [one[i], *best[i + 1][j + 1]]
            else:
                best[i][j] = max(best[i][j + 1], best[i + 1][j], key=len)
    return best[0][0]


def _groups(examples: Iterable[Example]) -> Iterator[list[Example]]:
    for members in grouped(examples):
        yield list({one.response: one for one in members}.values())


def _shuffled(members: list[Example], seed: int) -> list[Example]:
    shown = list(members)
    random.Random(content_id(seed, members[0].id)).shuffle(shown)
    return shown


def _listed(members: Sequence[Example]) -> str:
    return "".join(f"Answer [{i}]:\n=====\n{one.response}\n=====\n" for i, one in enumerate(members, 1))


def _score(one: Example, column: str) -> float:
    if column not in one.columns:
        raise RecipeError(f"agreement.ranked: row {one.id} has no column {column!r}; put agreement.likely before")
    return float(one.columns[column])
