"""A selector in the middle of a branch, where what follows should not be spent on what it drops."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from stillhouse.records import Lost, Record

__all__ = ["rows"]


def rows(records: Iterable[Record], *, selector: Callable[..., Any]) -> Iterator[Record | Lost]:
    """Drops here, in the middle of a branch, what a selector drops, with its reasons.

    `{do: filter.rows, selector: {do: quality.correct, grader: ...}}`; under `select:` they run when all is elicited.
    Sources: R18 (reasoning is checked before it retrieves), 12.3.
    """
    for record, reason in selector(records):
        yield record if reason is None else Lost(record.id, reason)
