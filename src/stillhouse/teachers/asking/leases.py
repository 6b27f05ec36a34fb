"""Several processes on one store: who asks a request holds its lease, and the dead hold none.

A process is known by its host, id and start. A lease ends with its time, by the clock on the wall, and on the same host
with its process.
"""

import os
import socket
import sqlite3
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from stillhouse.teachers.asking.answers import AnswerStore

__all__ = ["BATCHED", "Lease", "alive", "owner", "release", "settle_dead", "take"]


@dataclass(frozen=True, slots=True)
class Lease:
    """Who asks a request, and until when at the latest."""

    owner: str
    until: float


_open: set[str] = set()  # the owners of leases that live in this process


def owner() -> str:
    """This process, as a lease names it: host, process id, when it started, and a random part."""
    name = f"{socket.gethostname()}|{os.getpid()}|{_started(os.getpid())}|{uuid.uuid4().hex[:8]}"
    _open.add(name)
    return name


def _started(process: int) -> str:
    """Tells a process from a later one with the same id, where the system says."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def alive(lease: Lease) -> bool:
    host, process, started, _ = lease.owner.split("|")
    if time.time() > lease.until:
        return False
    if host != socket.gethostname():
        return True
    if int(process) == os.getpid():
        return lease.owner in _open
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not started or _started(int(process)) == started


def settle_dead(store: AnswerStore, *, mine: str = "") -> int:
    """Attempts in flight whose process is gone may have been billed: settled at their worst case and flagged.

    So are those of the owner `mine`, who is about to leave and gives all its leases back. Gives how many there were.
    """
    sql = "SELECT a.id, a.run, a.teacher, a.reserved_usd, r.key, r.leased_by, r.lease_until FROM attempt a JOIN request r "
    dead = [
        row
        for row in store.rows(sql + "ON r.key = a.key WHERE a.outcome = 'in_flight'")
        if row[5] in (None, mine) or not alive(Lease(row[5], row[6] or 0.0))
    ]
    _open.discard(mine)
    with store.transaction() as db:
        db.execute("UPDATE request SET leased_by = NULL, lease_until = NULL WHERE leased_by = ?", (mine,))
        for attempt, run, teacher, reserved, key, _, _ in dead:
            changed = db.execute(
                "UPDATE attempt SET outcome = 'unknown_after_send', settled_usd = reserved_usd, flags = 'cost_uncertain', "
                "finished = ? WHERE id = ? AND outcome = 'in_flight'",
                (time.time(), attempt),
            ).rowcount
            if changed:
                db.execute("UPDATE request SET leased_by = NULL WHERE key = ?", (key,))
                db.execute(
                    "INSERT INTO spend VALUES (?, ?, 1, 0, 0, ?) ON CONFLICT(run, teacher) DO UPDATE SET "
                    "attempts = attempts + 1, usd = usd + excluded.usd",
                    (run, teacher, reserved or 0.0),
                )
    return len(dead)


BATCHED = Lease("", float("inf"))  # held by no process: the request lies in a batch that is out
_FREE = (
    "NOT EXISTS (SELECT 1 FROM batch_item i JOIN batch_job j ON j.local_id = i.local_id WHERE i.key = request.key "
    "AND i.attempt IS NULL AND j.state IN ('intent', 'submitted'))"
)


def take(store: AnswerStore, db: sqlite3.Connection, key: str, body: str, mine: str, until: float) -> Lease | None:
    """Takes the lease of a request by compare-and-set: None when it is this process's now, else the holder's (`BATCHED`
    for one that waits in a batch).
    """
    db.execute(
        "INSERT OR IGNORE INTO request(key, body, created) VALUES (?, ?, ?)",
        (key, store.packed_body(body), time.time()),
    )
    taken = db.execute(
        "UPDATE request SET leased_by = ?, lease_until = ? WHERE key = ? AND (leased_by IS NULL OR leased_by = ?) "
        f"AND {_FREE}",
        (mine, until, key, mine),
    ).rowcount
    if taken:
        return None
    holder = db.execute("SELECT leased_by, lease_until FROM request WHERE key = ?", (key,)).fetchone()
    return BATCHED if holder[0] in (None, mine) else Lease(holder[0], holder[1])


def release(db: sqlite3.Connection, key: str, holder: str) -> None:
    db.execute("UPDATE request SET leased_by = NULL, lease_until = NULL WHERE key = ? AND leased_by = ?", (key, holder))
