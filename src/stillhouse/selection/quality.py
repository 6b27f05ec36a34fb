"""Quality: is the record right, and is it fit to learn from?"""

from collections.abc import Iterable, Iterator
from itertools import islice

from stillhouse.errors import RecipeError
from stillhouse.graders import Grader
from stillhouse.records import Example, Record
from stillhouse.selection.texts import Side, text_of

__all__ = ["correct", "length"]

_GRADED_AT_ONCE = 256  # graders work on lists; this bounds what is held


def correct(
    records: Iterable[Example], *, grader: Grader, at_least: float = 1.0
) -> Iterator[tuple[Example, str | None]]:
    """Keeps the examples whose response the grader finds right, against the record's reference.

    Reasons: "wrong" below `at_least`; "no_reference"; "could_not_tell" with the grader's own code behind a colon. What
    a grader cannot tell is never kept. Sources: R20-R23 (answer check), R21 (STaR).
    """
    stream = iter(records)
    while chunk := list(islice(stream, _GRADED_AT_ONCE)):
        grades = grader([record.response for record in chunk], [record.reference for record in chunk])
        for record, grade in zip(chunk, grades, strict=True):
            if grade.value is None:
                yield record, "no_reference" if record.reference is None else f"could_not_tell:{grade.reason}"
            else:
                yield record, None if grade.value >= at_least else "wrong"


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
