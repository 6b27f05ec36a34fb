"""Quality: is the record right, and is it fit to learn from?"""

import heapq
import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from rapidfuzz.distance import Indel

from stillhouse.errors import RecipeError
from stillhouse.graders import Grader
from stillhouse.graders.final import MARKERS, last_marked
from stillhouse.graders.numbers import NotANumberError, read
from stillhouse.graders.text import normalised
from stillhouse.records import Example, Prompt, Record, StoredSignal, TopLogprobs, Trajectory
from stillhouse.selection.texts import Side, grouped, replayed, text_of
from stillhouse.selection.tokens import words

__all__ = ["best", "consensus", "correct", "drawn", "length", "rewarded", "score", "vote"]

_GRADED_AT_ONCE = 256  # graders work on lists; this bounds what is held


def correct(
    records: Iterable[Example | TopLogprobs | StoredSignal], *, grader: Grader, at_least: float = 1.0
) -> Iterator[tuple[Example | TopLogprobs | StoredSignal, str | None]]:
    """Keeps the examples whose response the grader finds right, against the record's reference.

    Reasons: "wrong" below `at_least`; "no_reference"; "could_not_tell" with the grader's own code behind a colon.
    What a grader cannot tell is never kept. Sources: R20-R23 (answer check), R21 (STaR).
    """
    stream = iter(records)
    while chunk := list(islice(stream, _GRADED_AT_ONCE)):
        grades = grader([record.response for record in chunk], [record.reference for record in chunk])
        for record, grade in zip(chunk, grades, strict=True):
            if grade.value is None:
                yield record, "no_reference" if record.reference is None else f"could_not_tell:{grade.reason}"
            else:
                yield record, None if grade.value >= at_least else "wrong"


def rewarded(
    records: Iterable[Trajectory], *, at_least: float = 1.0, per_goal: int | None = None
) -> Iterator[tuple[Trajectory, str | None]]:
    """Keeps the trajectories that reached their goal, by the environment's reward.

    `per_goal` is the most for one prompt, so that easy goals do not crowd out hard ones. Reasons: "no_reward", "low_reward",
    "enough". Source: R50 (FireAct and AgentTuning keep reward 1).
    """
    kept: Counter[Prompt] = Counter()
    for record in records:
        if record.reward is None:
            yield record, "no_reward"
        elif record.reward < at_least:
            yield record, "low_reward"
        elif per_goal is not None and kept[record.prompt] >= per_goal:
            yield record, "enough"
        else:
            kept[record.prompt] += 1
            yield record, None


def length(
    records: Iterable[Record], *, min_chars: int | None = None, max_chars: int | None = None, on: Side = "response"
) -> Iterator[tuple[Record, str | None]]:
    """Keeps the records whose text has between `min_chars` and `max_chars` characters, both included.

    Reasons: "too_short", "too_long". Sources: R01, R40, R54, R55.
    """
    if min_chars is None and max_chars is None:
        raise RecipeError("quality.length: neither min_chars nor max_chars is given; write one of them")
    for record in records:
        size = len(text_of(record, on))
        if min_chars is not None and size < min_chars:
            yield record, "too_short"
        elif max_chars is not None and size > max_chars:
            yield record, "too_long"
        else:
            yield record, None


def score(
    records: Iterable[Record],
    *,
    column: str = "score",
    at_least: float | None = None,
    keep: int | None = None,
    trusted: bool = False,
) -> Iterator[tuple[Record, str | None]]:
    """Keeps records by a score that an earlier step wrote into a column: those from `at_least`, or the `keep` highest.

    A record without a readable score is dropped as "no_score": a failed judgement is missing, never a default. Other
    reasons: "low_score". With both knobs both must hold. With `trusted` the word of a judge that failed its canaries (the
    column `untrusted`) is no score: "untrusted_judge". Sources: R15 (AlpaGasus keeps 4.5 of 5 and above), O1, 12.7.
    """
    if at_least is None and keep is None:
        raise RecipeError("quality.score: neither at_least nor keep is given; write one of them")
    records = replayed(records) if keep is not None else records
    chosen = _highest(records, column, keep, trusted) if keep is not None else None
    for number, record in enumerate(records):
        value = score_of(record, column, trusted)
        if value is None:
            yield record, _unscored(record, trusted)
        elif (at_least is not None and value < at_least) or (chosen is not None and number not in chosen):
            yield record, "low_score"
        else:
            yield record, None


def _highest(records: Iterable[Record], column: str, keep: int, trusted: bool) -> set[int]:
    scored = (
        (value, -number)
        for number, record in enumerate(records)
        if (value := score_of(record, column, trusted)) is not None
    )
    return {-negative for _, negative in heapq.nlargest(keep, scored)}


def drawn(
    records: Iterable[Record], *, keep: int, column: str = "weight", trusted: bool = False, seed: int = 0
) -> Iterator[tuple[Record, str | None]]:
    """Keeps `keep` records drawn by chance, without putting back, each as likely as the weight in its column says.

    A weight of 0 or below is never drawn. Reasons: "not_drawn", "no_score", "untrusted_judge" as in `score`. Source: R52
    (SunGen draws its subset by the learned weights).
    """
    records = replayed(records)
    # the largest u^(1/w) are such a draw (Efraimidis and Spirakis): the smallest -log u / w
    chance = random.Random(seed)
    keys = []
    for number, record in enumerate(records):
        value, luck = score_of(record, column, trusted), chance.random()
        if value is not None and value > 0:
            keys.append((-math.log(1.0 - luck) / value, number))
    chosen = {number for _, number in heapq.nsmallest(keep, keys)}
    for number, record in enumerate(records):
        unscored = score_of(record, column, trusted) is None
        yield record, None if number in chosen else _unscored(record, trusted) if unscored else "not_drawn"


def _unscored(record: Record, trusted: bool) -> str:
    return "untrusted_judge" if trusted and record.columns.get("untrusted") else "no_score"


def score_of(record: Record, column: str, trusted: bool = False) -> float | None:
    """The number in a column, or None where there is none (or, where it must be `trusted`, a judge that is not to be)."""
    if trusted and record.columns.get("untrusted"):
        return None
    value = record.columns.get(column)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value == value else None


def best(
    records: Iterable[Example], *, column: str = "score", trusted: bool = False
) -> Iterator[tuple[Example, str | None]]:
    """Keeps the highest-scored of the samples of each seed (best of n); the earliest of equals.

    Samples of one seed must be neighbours, as elicitors give them. Reasons: "no_score", "not_best", and with
    `trusted` "untrusted_judge", as in `quality.score`. Sources: R08, R35, R44.
    """
    for group in grouped(records):
        scores = [score_of(record, column, trusted) for record in group]
        winner = max(
            (i for i, value in enumerate(scores) if value is not None), key=lambda i: (scores[i], -i), default=None
        )
        for i, record in enumerate(group):
            yield record, None if i == winner else _unscored(record, trusted) if scores[i] is None else "not_best"


def vote(
    records: Iterable[Example], *, at_least: float = 0.0, final: Sequence[str] = MARKERS
) -> Iterator[tuple[Example, str | None]]:
    """Keeps the samples of each seed that agree with its most frequent final answer; needs no reference.

    Numbers are compared as numbers, other answers as normalised text. `at_least` is the share of all samples of the
    seed that must agree. Reasons: "no_answer" (no final answer is marked), "minority", "no_majority" (a tie, or too
    small a share). Samples of one seed must be neighbours. Source: R21 (LMSI).
    """
    for group in grouped(records):
        answers = [voted(record.response, final) for record in group]
        counts = Counter(answer for answer in answers if answer is not None).most_common(2)
        agreed = (
            bool(counts) and counts[0][1] >= at_least * len(group) and (len(counts) < 2 or counts[0][1] > counts[1][1])
        )
        for record, answer in zip(group, answers, strict=True):
            if answer is None:
                yield record, "no_answer"
            elif not agreed:
                yield record, "no_majority"
            else:
                yield record, None if answer == counts[0][0] else "minority"


def consensus(records: Iterable[Example], *, at_least: float = 0.0) -> Iterator[tuple[Example, str | None]]:
    """Keeps the answer to each prompt that is most like the others: the highest mean ROUGE-L F1, the earliest of equals.

    For answers of several teachers (`feedback.gathered` first) or several samples of one; words of any script count.
    `at_least` bounds that mean. Reasons: "single_answer", "not_central", "no_consensus" (all of a prompt, below
    `at_least`). Answers to one prompt must be neighbours. Source: R30 (Ensemble-Instruct).
    """
    for group in grouped(records):
        if len(group) < 2:
            yield group[0], "single_answer"
            continue
        said = [words(record.response) for record in group]
        alike = [
            sum(Indel.normalized_similarity(one, other) for j, other in enumerate(said) if j != i) / (len(said) - 1)
            for i, one in enumerate(said)
        ]
        chosen = max(range(len(group)), key=lambda i: (alike[i], -i))
        for i, record in enumerate(group):
            yield record, "no_consensus" if alike[chosen] < at_least else None if i == chosen else "not_central"


def voted(response: str, final: Sequence[str] = MARKERS) -> object:
    """What an answer votes for: its marked final answer, as a number where it is one; None where none is marked."""
    found = last_marked(response, final)
    if found is None:
        return None
    try:
        return read(found.text).value
    except NotANumberError:
        return normalised(found.text) or None
