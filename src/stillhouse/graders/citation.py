"""Citations: do the numbers in brackets name passages, and do the passages say so?

The reference holds the passages: a JSON list of texts, or text in which each passage begins with its number ("[1] ...").
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from stillhouse.graders import CANNOT_TELL_NO_REFERENCE, Grade, Grader

__all__ = ["named", "precision", "recall"]

_MARK = re.compile(r"\[(\d{1,3}(?:\s*[,;]\s*\d{1,3})*)\]")
_SENTENCE = re.compile(r"(?<=[.!?])((?:\s*\[[\d,; ]+\])*)\s+(?=[A-Z\"'(])|\n+")


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence without its marks, and the numbers that it cites."""

    text: str
    cited: tuple[int, ...]


def named(responses: Sequence[str], references: Sequence[str | None]) -> list[Grade]:
    """The share of an answer's citations that name a passage there is; an answer without any is worth 0 ("no_citation")."""
    return _each(responses, references, _named)


def recall(responses: Sequence[str], references: Sequence[str | None], *, grader: Grader) -> list[Grade]:
    """The share of an answer's sentences that follow from the passages they cite, taken together.

    `grader` tells entailment (`{do: entailment.follows, model: ...}`), from 0.5 on. A sentence that cites nothing, or a passage
    there is not, is not supported. Sources: R19 (IsSup), ALCE's citation recall.
    """
    return _each(responses, references, partial(_recall, grader=grader))


def precision(responses: Sequence[str], references: Sequence[str | None], *, grader: Grader) -> list[Grade]:
    """The share of an answer's citations whose passage alone supports the sentence; "no_citation" is worth 0.

    Source: ALCE's citation precision, without its allowance for passages that support only together.
    """
    return _each(responses, references, partial(_precision, grader=grader))


def _each(
    responses: Sequence[str],
    references: Sequence[str | None],
    score: Callable[[list[Statement], dict[int, str]], Grade],
) -> list[Grade]:
    grades = []
    for response, reference in zip(responses, references, strict=True):
        passages = passages_of(reference) if reference is not None else {}
        if passages:
            grades.append(score(statements(response), passages))
        else:
            grades.append(CANNOT_TELL_NO_REFERENCE if reference is None else Grade(None, "unreadable_reference"))
    return grades


def _named(found: list[Statement], passages: dict[int, str]) -> Grade:
    cited = [number for each in found for number in each.cited]
    return _share([number in passages for number in cited], "no_citation")


def _recall(found: list[Statement], passages: dict[int, str], grader: Grader) -> Grade:
    known = [each for each in found if each.cited and all(number in passages for number in each.cited)]
    joined = ["\n".join(passages[number] for number in each.cited) for each in known]
    grades = grader([each.text for each in known], joined) if known else []
    if any(grade.value is None for grade in grades):
        return Grade(None, "could_not_tell")
    supported = [bool(grade.value is not None and grade.value >= 0.5) for grade in grades]
    return _share(supported + [False] * (len(found) - len(known)), "empty")


def _precision(found: list[Statement], passages: dict[int, str], grader: Grader) -> Grade:
    cited = [(each.text, number) for each in found for number in each.cited]
    known = [(text, passages[number]) for text, number in cited if number in passages]
    grades = grader([text for text, _ in known], [passage for _, passage in known]) if known else []
    if any(grade.value is None for grade in grades):
        return Grade(None, "could_not_tell")
    supported = [bool(grade.value is not None and grade.value >= 0.5) for grade in grades]
    return _share(supported + [False] * (len(cited) - len(known)), "no_citation")


def _share(good: list[bool], none: str) -> Grade:
    if not good:
        return Grade(0.0, none)
    return Grade(sum(good) / len(good), "supported" if all(good) else "unsupported" if not any(good) else "in_part")


def statements(text: str) -> list[Statement]:
    """The sentences of an answer; marks behind the full stop belong to the sentence before."""
    found, start = [], 0
    for cut in [*_SENTENCE.finditer(text), None]:
        end = cut.start() + len(cut[1] or "") if cut else len(text)
        part = text[start:end]
        start = cut.end() if cut else end
        numbers = [int(each) for marks in _MARK.findall(part) for each in re.split(r"\s*[,;]\s*", marks)]
        bare = re.sub(r"\s+([.,;:!?])", r"\1", " ".join(_MARK.sub(" ", part).split()))
        if re.search(r"\w", bare):
            found.append(Statement(bare, tuple(dict.fromkeys(numbers))))
    return found


def passages_of(reference: str) -> dict[int, str]:
    """Passages by number, from 1."""
    try:
        given = json.loads(reference)
    except ValueError:
        parts = re.split(r"^[ \t]*\[(\d{1,3})\][ \t:]*", reference, flags=re.M)[1:]
        return {int(number): text.strip() for number, text in zip(parts[::2], parts[1::2], strict=True)}
    texts = [each.get("text") if isinstance(each, dict) else each for each in given] if isinstance(given, list) else []
    return {number: text for number, text in enumerate(texts, 1) if isinstance(text, str)}
