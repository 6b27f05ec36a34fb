"""Looking after stores: two made into one, one looked through, one written out as text, what nobody needs removed."""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stillhouse.errors import RecipeError
from stillhouse.files import write_durably
from stillhouse.teachers.asking.answers import AnswerStore
from stillhouse.teachers.asking.books import audit
from stillhouse.teachers.asking.leases import settle_dead

__all__ = ["collect_garbage", "export_rows", "merge", "verify"]

_BLOB = "file:"  # how an attempt names a raw answer that lies in a file


def open_existing(folder: Path) -> AnswerStore:
    """Raises RecipeError where there is no store: looking after one never makes one."""
    if not (folder / "store.sqlite").is_file():
        raise RecipeError(f"{folder}: no store (store.sqlite) lies here; name the folder that STILLHOUSE_STORE had")
    return AnswerStore(folder)


def merge(into: AnswerStore, other: AnswerStore) -> dict[str, int]:
    """Takes over everything that `other` has; how many requests, attempts and answers were new.

    Keys are contents, so this is a union: merging twice changes nothing, and where both have an answer to one request
    ours stays. Attempts whose process died are settled first. Raises RecipeError while a process works on `other`.
    """
    settle_dead(other)
    if other.rows("SELECT count(*) FROM attempt WHERE outcome = 'in_flight'")[0][0]:
        raise RecipeError(f"{other.path}: a process is asking through this store; merge when it has ended")
    before = _sizes(into)
    with into.transaction() as db:
        for blob in sorted((other.folder / "blobs").glob("*")):
            if not (into.folder / "blobs" / blob.name).exists():
                write_durably(into.folder / "blobs" / blob.name, blob.read_bytes())
        columns = [row[1] for row in db.execute("PRAGMA table_info(attempt)") if row[1] != "id"]
        names = ", ".join(columns)
        requests = other.rows("SELECT key, body, created FROM request")
        db.executemany("INSERT OR IGNORE INTO request(key, body, created) VALUES (?, ?, ?)", requests)
        moved: dict[int, int] = {}
        same = "key = ? AND run = ? AND teacher = ? AND started = ? AND finished IS ? AND outcome = ?"
        for identity, *values in other.rows(f"SELECT id, {names} FROM attempt ORDER BY id"):
            told = dict(zip(columns, values))
            given = [told[name] for name in ("key", "run", "teacher", "started", "finished", "outcome")]
            found = db.execute(f"SELECT id FROM attempt WHERE {same}", given).fetchone()
            if found is None:
                marks = ", ".join("?" * len(columns))
                found = (db.execute(f"INSERT INTO attempt({names}) VALUES ({marks})", values).lastrowid,)
            moved[identity] = int(found[0] or 0)
        for row in other.rows("SELECT * FROM answer"):
            marks = ", ".join("?" * len(row))
            db.execute(f"INSERT OR IGNORE INTO answer VALUES ({marks})", [row[0], moved[row[1]], *row[2:]])
        for table, place in (("batch_job", None), ("batch_item", 3), ("verdict", None)):
            for row in other.rows(f"SELECT * FROM {table}"):
                values = [moved.get(value, value) if place == at and value else value for at, value in enumerate(row)]
                db.execute(f"INSERT OR IGNORE INTO {table} VALUES ({', '.join('?' * len(values))})", values)
        for run, teacher in other.rows("SELECT run, teacher FROM spend"):
            db.execute("DELETE FROM spend WHERE run = ? AND teacher = ?", (run, teacher))
            db.execute(
                "INSERT INTO spend SELECT run, teacher, count(*), sum(input_tokens), sum(output_tokens), total(settled_usd) "
                "FROM attempt WHERE run = ? AND teacher = ? AND outcome != 'in_flight' GROUP BY 1, 2",
                (run, teacher),
            )
    after = _sizes(into)
    return {name: after[name] - before[name] for name in after}


def _sizes(store: AnswerStore) -> dict[str, int]:
    return {
        f"{table}s": store.rows(f"SELECT count(*) FROM {table}")[0][0] for table in ("request", "attempt", "answer")
    }


def verify(store: AnswerStore) -> list[str]:
    """What is wrong with a store, one sentence each: its books, its pages, its files. Reads everything once."""
    found = audit(store, deep=True)
    found += [f"damaged: {row[0]}" for row in store.rows("PRAGMA integrity_check") if row[0] != "ok"]
    missing = [name for name in _blobs(store) if not (store.folder / "blobs" / name).is_file()]
    if missing:
        found.append(f"{len(missing)} raw answers lie in files that are gone, for example blobs/{missing[0]}")
    return found


def export_rows(store: AnswerStore) -> Iterator[dict[str, Any]]:
    """Every request that has an answer, with who gave it and what it cost."""
    sql = (
        "SELECT r.key, r.body, a.text, a.reasoning, a.finish_reason, a.served_model, a.input_tokens, a.output_tokens, "
        "a.cost_usd FROM answer a JOIN request r ON r.key = a.key ORDER BY r.key"
    )
    names = ("text", "reasoning", "finish_reason", "served_model", "input_tokens", "output_tokens", "cost_usd")
    for key, body, *values in store.rows(sql):
        yield {"key": key, "request": json.loads(zlib.decompress(body)), **dict(zip(names, values))}


def collect_garbage(store: AnswerStore, *, give_up_batches: bool = False) -> dict[str, int]:
    """Removes files that no row names (a crash between a file and its row leaves one); answers are never removed.

    `give_up_batches` closes the batches that are still out, so that their requests may be asked anew, and paid again.
    """
    given_up = 0
    if give_up_batches:
        with store.transaction() as db:
            sql = "UPDATE batch_job SET state = 'failed', note = 'given up by hand' WHERE state IN ('intent', 'submitted')"
            given_up = db.execute(sql).rowcount
    with store.transaction():  # files are written inside the transaction that names them: now nobody is between the two
        named = set(_blobs(store))
        out = {row[0] for row in store.rows("SELECT local_id FROM batch_job WHERE state IN ('intent', 'submitted')")}
        blobs = [path for path in (store.folder / "blobs").glob("*") if path.name not in named]
        lines = [path for path in (store.folder / "batches").glob("*") if path.stem not in out]
        for path in (*blobs, *lines):
            path.unlink()
    return {"blobs": len(blobs), "batch files": len(lines), "batches given up": given_up}


def _blobs(store: AnswerStore) -> list[str]:
    sql = "SELECT raw FROM attempt WHERE substr(raw, 1, 5) = CAST(? AS BLOB)"
    return [bytes(row[0])[len(_BLOB) :].decode("ascii") for row in store.rows(sql, [_BLOB])]
