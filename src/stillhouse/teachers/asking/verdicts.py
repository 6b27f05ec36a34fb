"""What became of each slot of a step, written in the store beside the answers: a second book to hold the run folder against.

Reading an answer is a pure function of the stored text, so a verdict names the function and the version of its source:
a better reader writes new verdicts about the same answers, and nothing is asked again.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from stillhouse.teachers.asking.answers import AnswerStore

__all__ = ["Verdicts", "verdicts_of"]

_GROUP = 4096
_INSERT = "INSERT INTO verdict VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"


class Verdicts:
    """Writes the verdicts of one step of a run, in place of what an earlier pass over it wrote. `flush` ends it."""

    def __init__(self, store: AnswerStore, run: str, stage: str, parser: str, version: str) -> None:
        self._store, self._head, self._parser = store, (run, stage), (parser, version)
        self._rows: list[tuple[Any, ...]] = []
        self.count = 0
        with store.transaction() as db:
            db.execute("DELETE FROM verdict WHERE run = ? AND stage = ?", self._head)

    def add(self, row: str, status: str, reason: str, keys: Iterable[str]) -> None:
        """`row` is the id of a kept row, or of the parent of a lost one; `status` kept, dropped, quarantined, not_attempted."""
        self._rows.append((*self._head, self.count, row, " ".join(keys), *self._parser, status, reason))
        self.count += 1
        if len(self._rows) >= _GROUP:
            self.flush()

    def flush(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            with self._store.transaction() as db:
                db.executemany(_INSERT, rows)


def verdicts_of(store: AnswerStore, run: str, stage: str) -> Counter[tuple[str, str, str]]:
    """How often each (row, status, reason) stands in the book of a step."""
    sql = "SELECT row, status, reason, count(*) FROM verdict WHERE run = ? AND stage = ? GROUP BY 1, 2, 3"
    return Counter({(row, status, reason): number for row, status, reason, number in store.rows(sql, [run, stage])})
