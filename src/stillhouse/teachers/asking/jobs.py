"""Batches as the store knows them: what was meant to be sent, what was sent, which lines came back.

A batch is written down as an intent before it is sent (its lines in a file, its keys in the store, all leased), again
with the provider's id after, and each of its results once: a second download of the same lines changes nothing.
"""

import hashlib
import json
import sqlite3
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stillhouse.files import writing_durably
from stillhouse.teachers.asking.answers import AnswerStore, AttemptRow
from stillhouse.teachers.asking.keys import request_body
from stillhouse.teachers.asking.leases import BATCHED, Lease, alive, release, take
from stillhouse.teachers.asking.wire import Submission
from stillhouse.teachers.base import Identity, Request, Sampling

__all__ = [
    "Job", "Wanted", "adopt", "collect", "failed", "intend", "keys_of", "open_jobs", "other_ids", "pending", "reopen",
    "requests_of", "results_file", "submission", "submitted",
]  # fmt: skip

_LEASE_S = 30 * 3600.0  # a day in the provider's queue, and some
_LOOKUP = 400


@dataclass(frozen=True, slots=True)
class Job:
    """A batch: whose it is, what it was sent for, and the provider's id once it is known."""

    local_id: str
    state: str  # intent, submitted, collected, failed
    run: str
    teacher: str
    stage: str
    owner: str
    provider_id: str
    input_sha: str
    number: int
    created: float
    found: int = 0  # the provider's id was not written down when it was sent, but found again
    not_ours: str = ""  # ids that looked like this batch and were not it


@dataclass(frozen=True, slots=True)
class Wanted:
    """One request of a batch and what is set aside for it."""

    key: str
    request: Request
    reserved_usd: float


_JOB = "local_id, state, run, teacher, stage, owner, provider_id, input_sha, number, created, found, not_ours"
_OPEN = "state IN ('intent', 'submitted')"
_ADD_ITEM = "INSERT INTO batch_item(local_id, key, reserved_usd) VALUES (?, ?, ?)"


def open_jobs(store: AnswerStore, identity: Identity) -> list[Job]:
    """The batches of one endpoint and model that are not settled yet, oldest first."""
    sql = f"SELECT {_JOB} FROM batch_job WHERE {_OPEN} AND wire = ? AND endpoint = ? AND model = ? ORDER BY created"
    return [Job(*row) for row in store.rows(sql, [identity.wire, identity.endpoint, identity.model])]


def pending(store: AnswerStore, keys: Sequence[str]) -> dict[str, str]:
    """Key -> local id of the open batch it waits in."""
    if not store.rows(f"SELECT 1 FROM batch_job WHERE {_OPEN} LIMIT 1"):
        return {}
    found: dict[str, str] = {}
    for start in range(0, len(keys), _LOOKUP):
        part = list(keys[start : start + _LOOKUP])
        sql = (
            f"SELECT i.key, i.local_id FROM batch_item i JOIN batch_job j ON j.local_id = i.local_id WHERE j.{_OPEN} "
            f"AND i.attempt IS NULL AND i.key IN ({', '.join('?' * len(part))})"
        )
        found |= dict(store.rows(sql, part))
    return found


def intend(
    store: AnswerStore, job: Job, identity: Identity, wanted: Iterable[Wanted], line: Callable[[Wanted], bytes]
) -> list[str]:
    """Writes the batch down before it is sent, in one transaction; gives the keys of the requests that are in it.

    A request that another living process has in hand is left out. The lines, each made by `line` when it is written, lie in
    the store's folder before the row.
    """
    mine: list[str] = []
    path, hashed = _path(store, job.local_id), hashlib.sha256()
    with store.transaction() as db:
        with writing_durably(path) as file:
            for each in wanted:
                if _leased(store, db, each.key, request_body(identity, each.request), job.owner):
                    row = line(each) + b"\n"
                    hashed.update(row)
                    file.write(row)
                    db.execute(_ADD_ITEM, (job.local_id, each.key, each.reserved_usd))
                    mine.append(each.key)
        if mine:
            values = (
                job.local_id, "intent", identity.wire, identity.endpoint, identity.model, job.run, job.teacher, job.stage,
                job.owner, "", hashed.hexdigest(), len(mine), job.created, 0, "", "",
            )  # fmt: skip
            db.execute(f"INSERT INTO batch_job VALUES ({', '.join('?' * len(values))})", values)
    if not mine:
        path.unlink()
    return mine


def submitted(store: AnswerStore, job: Job, provider_id: str, *, found: bool = False) -> None:
    """Writes the provider's id down: from now on the batch is asked for by it."""
    sql = "UPDATE batch_job SET state = 'submitted', provider_id = ?, found = ? WHERE local_id = ?"
    with store.transaction() as db:
        db.execute(sql, (provider_id, int(found), job.local_id))


def reopen(store: AnswerStore, job: Job) -> None:
    """The batch that was taken for this one was somebody else's: back to the intent."""
    sql = "UPDATE batch_job SET state = 'intent', provider_id = '', not_ours = not_ours || ? WHERE local_id = ?"
    with store.transaction() as db:
        db.execute(sql, (f" {job.provider_id}", job.local_id))


def adopt(store: AnswerStore, job: Job, mine: str) -> bool:
    """Takes over a batch whose process is gone; false where it lives or another was quicker."""
    if job.owner != mine and alive(Lease(job.owner, job.created + _LEASE_S)):
        return False
    with store.transaction() as db:
        sql = "UPDATE batch_job SET owner = ? WHERE local_id = ? AND owner = ?"
        return db.execute(sql, (mine, job.local_id, job.owner)).rowcount == 1


def submission(store: AnswerStore, job: Job) -> Submission:
    """The batch as it was or would be sent. Raises RunFailed where its lines are gone or are not the ones written down."""
    from stillhouse.errors import RunFailed

    path = _path(store, job.local_id)
    if not path.is_file() or _hashed(path) != job.input_sha:
        raise RunFailed(
            f"{path}: the lines of a batch that is out are gone or were changed; put the file back, or ask for those "
            "requests anew after `still store gc --give-up-batches`"
        )
    return Submission(job.local_id, path, job.input_sha, job.number, job.created)


def _hashed(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def keys_of(store: AnswerStore, job: Job) -> frozenset[str]:
    """The requests of a batch."""
    return frozenset(row[0] for row in store.rows("SELECT key FROM batch_item WHERE local_id = ?", [job.local_id]))


def requests_of(store: AnswerStore, job: Job, *, after: str = "", number: int = -1) -> dict[str, Request]:
    """Key -> the request of every line of the batch that is not settled yet; of `number` of them in the order of keys,
    those behind the key `after`.
    """
    sql = (
        "SELECT i.key, r.body FROM batch_item i JOIN request r ON r.key = i.key WHERE i.local_id = ? AND i.attempt IS NULL "
        "AND i.key > ? ORDER BY i.key LIMIT ?"
    )
    rows = store.rows(sql, [job.local_id, after, number])
    return {key: request_of(json.loads(zlib.decompress(body))) for key, body in rows}


def request_of(body: dict[str, Any]) -> Request:
    """A request as its stored body tells it: enough to read a reply by. Of a schema only that there was one."""
    from stillhouse.records import Message

    default = Sampling()
    sampling = Sampling(
        temperature=body.get("temperature", default.temperature),
        top_p=body.get("top_p", default.top_p),
        max_tokens=body.get("max_tokens", default.max_tokens),
        stop=tuple(body.get("stop", ())),
    )
    messages = tuple(Message(role, content) for role, content in body["messages"])
    return Request(messages, sampling, body["sample_index"], response_schema={} if "response_schema" in body else None)


def collect(store: AnswerStore, job: Job, rows: Iterable[tuple[AttemptRow, bytes]], note: str = "") -> list[AttemptRow]:
    """Settles results, in one transaction: each request of the batch once, however often its line comes. Gives the new ones.

    With `note` these are the last: the batch is closed with them.
    """
    settled = []
    with store.transaction() as db:
        for row, line in rows:
            mark = hashlib.sha256(line).hexdigest()
            sql = "UPDATE batch_item SET attempt = 0, line_sha = ? WHERE local_id = ? AND key = ? AND attempt IS NULL"
            if db.execute(sql, (mark, job.local_id, row.key)).rowcount:
                attempt = _begun(db, job, row)
                db.execute(
                    "UPDATE batch_item SET attempt = ? WHERE local_id = ? AND key = ?", (attempt, job.local_id, row.key)
                )
                store.write(db, job.run, job.teacher, replace(row, attempt=attempt))
                release(db, row.key, job.owner)
                settled.append(row)
        if note:
            _close(db, job, "collected", note)
    if note:
        _path(store, job.local_id).unlink(missing_ok=True)
    return settled


def _begun(db: sqlite3.Connection, job: Job, row: AttemptRow) -> int:
    sql = (
        "INSERT INTO attempt(key, run, teacher, transport, started, outcome, stage) VALUES (?, ?, ?, 'batch', ?, ?, ?)"
    )
    values = (row.key, job.run, job.teacher, row.started, row.outcome, job.stage)
    return int(db.execute(sql, values).lastrowid or 0)


def failed(store: AnswerStore, job: Job, note: str) -> None:
    """Closes a batch of which the provider took nothing, gives its leases back and removes its lines."""
    with store.transaction() as db:
        _close(db, job, "failed", note)
    _path(store, job.local_id).unlink(missing_ok=True)


def _close(db: sqlite3.Connection, job: Job, state: str, note: str) -> None:
    db.execute("UPDATE batch_job SET state = ?, note = ? WHERE local_id = ?", (state, note, job.local_id))
    for (key,) in db.execute("SELECT key FROM batch_item WHERE local_id = ?", (job.local_id,)).fetchall():
        release(db, key, job.owner)


def other_ids(store: AnswerStore, job: Job) -> Collection[str]:
    """The provider's ids that are not this batch: of all others of this store, and what proved to be a stranger's."""
    sql = "SELECT provider_id FROM batch_job WHERE provider_id != '' AND local_id != ?"
    strangers = store.rows("SELECT not_ours FROM batch_job WHERE local_id = ?", [job.local_id])[0][0]
    return {row[0] for row in store.rows(sql, [job.local_id])} | set(strangers.split())


def _leased(store: AnswerStore, db: sqlite3.Connection, key: str, body: str, mine: str) -> bool:
    until = time.time() + _LEASE_S
    while True:
        holder = take(store, db, key, body, mine, until)
        if holder is None:
            return True
        if holder is BATCHED or alive(holder):
            return False
        release(db, key, holder.owner)


def results_file(store: AnswerStore, job: Job) -> Path:
    """Where the lines that came back lie while they are settled."""
    return _path(store, job.local_id).with_suffix(".results")


def _path(store: AnswerStore, local_id: str) -> Path:
    return store.folder / "batches" / f"{local_id}.jsonl"
