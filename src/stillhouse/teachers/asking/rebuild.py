"""A damaged store: every row that can still be read goes into a new one, and what was lost is said."""

import fcntl
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stillhouse.teachers.asking.schema import create

__all__ = ["opening", "rebuild"]

_COPIED = ("request", "attempt", "answer", "spend", "batch_job", "batch_item", "verdict")


@contextmanager
def opening(folder: Path, *, alone: bool = False) -> Iterator[None]:
    """Held while a store is opened; `alone` while one is mended: two that mend it would move each other's new store aside."""
    try:
        file = open(folder / "store.lock", "w")
    except OSError:  # read-only: nothing can be mended there, and SQLite says the rest
        yield
        return
    with file:
        fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


def rebuild(path: Path) -> str:
    """Moves a damaged database aside and makes a new one of every row that can still be read; says what was lost.

    The caller is `opening` the store alone.
    """
    aside = path.with_name(f"{path.name}.damaged-{int(time.time())}")
    while aside.exists():
        aside = aside.with_name(f"{aside.name}x")
    for suffix in ("", "-wal", "-shm"):
        source = path.with_name(path.name + suffix)
        if source.exists():
            source.replace(aside.with_name(aside.name + suffix))
    fresh = sqlite3.connect(path, isolation_level=None)
    fresh.execute("PRAGMA journal_mode=WAL")
    fresh.execute("BEGIN")
    create(fresh)
    kept, lost = {}, []
    damaged = sqlite3.connect(aside, isolation_level=None)
    damaged.text_factory = lambda raw: raw.decode("utf-8", "replace")
    for table in _COPIED:
        kept[table], whole = _copy_readable(damaged, fresh, table)
        if not whole:
            lost.append(table)
    said = f"the store {path} was damaged: kept {kept['answer']} answers and {kept['attempt']} attempts"
    said = f"{said}; rows were lost in {', '.join(lost) or 'no table'}; the damaged file is {aside}"
    fresh.execute("INSERT OR REPLACE INTO meta VALUES ('recovered', ?)", (said,))
    fresh.execute("COMMIT")
    fresh.close()
    damaged.close()
    return said


def _copy_readable(damaged: sqlite3.Connection, fresh: sqlite3.Connection, table: str) -> tuple[int, bool]:
    """Reads forwards until a page fails, then backwards from the end: (rows copied, whether all pages could be read)."""
    whole = True
    for order in ("ASC", "DESC"):
        try:
            by = "number" if table == "verdict" else "rowid"
            rows = damaged.execute(f"SELECT * FROM {table} ORDER BY {by} {order}")
            names = [column[0] for column in rows.description]
            sql = f"INSERT OR IGNORE INTO {table}({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
            for row in rows:
                fresh.execute(sql, row)
        except sqlite3.DatabaseError as error:
            whole = "no such table" in str(error)  # an older store had fewer
        if whole:
            break
    return fresh.execute(f"SELECT count(*) FROM {table}").fetchone()[0], whole
