"""Rows that go through a step as they are: routed to teachers, joined to a pool, cut to a number, drawn by chance, counted."""

from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from stillhouse.errors import RecipeError
from stillhouse.records import Lost, Record
from stillhouse.store import Records, Writer

Given = TypeVar("Given")


def routed(source: Records, names: Sequence[str], name: str, route: str, where: str) -> Iterable[Record]:
    """The records that go to one of several teachers: all, in turn, or by a column that names the teacher."""
    if route == "all" or len(names) == 1:
        return source
    if route == "round_robin":
        return islice(source, names.index(name), None, len(names))
    return (record for record in source if _column(record, route, names, where) == name)


def _column(record: Record, column: str, names: Sequence[str], where: str) -> str:
    value = record.columns.get(column)
    if value not in names:
        raise RecipeError(
            f"{where}.route: row {record.id} has {column} = {value!r}, which is none of the teachers {', '.join(names)}; "
            "write all, round_robin, or a column kept by `seeds.columns`"
        )
    return str(value)


def in_turn(parts: Sequence[Iterator[Given]]) -> Iterator[Given]:
    """One thing of each part in turn until all are used up; what stops one closes all."""
    with ExitStack() as closing:
        for part in parts:
            if isinstance(part, Generator):
                closing.callback(part.close)
        left = deque(parts)
        while left:
            part = left.popleft()
            try:
                given = next(part)
            except StopIteration:
                continue
            left.append(part)
            yield given


def first_rows(source: Records, rows: int) -> Iterator[Record | Lost]:
    for number, record in enumerate(source):
        yield record if number < rows else Lost(record.id, "beyond_keep")


def joined(pool: Iterable[Record], source: Records) -> Iterator[Record | Lost]:
    """The pool of earlier rounds and what this round adds to it; a row that is in it already is not added twice."""
    held: set[str] = set()
    for record in pool:
        held.add(record.id)
        yield record
    for record in source:
        yield Lost(record.id, "in_pool") if record.id in held else record


def random_rows(source: Records, rows: int, seed: int) -> Iterator[Record | Lost]:
    """As many rows as a selector kept, drawn by chance: what its choice is to be compared with."""
    import numpy as np

    drawn = set(np.random.default_rng(seed).permutation(len(source))[:rows].tolist())
    for number, record in enumerate(source):
        yield record if number in drawn else Lost(record.id, "not_drawn")


def coverage(folder: Path, source: Records) -> dict[str, Any]:
    """How often each piece of meta-information was used: `coverage.jsonl` has every one, the stamp the sums (R09, 3.3)."""
    used: Counter[str] = Counter()
    for record in Records(folder / "out.jsonl"):
        used.update(record.origin.parents)
    with Writer(folder / "coverage.jsonl") as out:
        for record in source:
            piece = record.prompt[-1].content if record.prompt else ""
            out.write_row({"id": record.id, "piece": piece[:200], "rows": used[record.id]})
    times = Counter(used[record.id] for record in source)
    spread = {str(number): pieces for number, pieces in sorted(times.items())}
    return {"pieces": len(source), "unused": times[0], "most": max(times, default=0), "times": spread}
