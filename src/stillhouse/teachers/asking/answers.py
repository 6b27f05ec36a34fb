"""The store of answers: one SQLite file that loses nothing it has acknowledged and evicts nothing.

WAL with `synchronous=FULL`: a commit has reached the disk when it returns. Writers group their rows (at most 64, those
that came during the commit before) because a commit costs about as much as 60 rows. No pickle; raw answers are
compressed bytes.
"""

import hashlib
import json
import os
import secrets
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any

from stillhouse.errors import RunFailed
from stillhouse.files import write_durably
from stillhouse.teachers.asking.rebuild import opening, rebuild
from stillhouse.teachers.asking.schema import prepare, refuse_network_disk
from stillhouse.teachers.base import Answer

__all__ = ["AnswerStore", "AttemptRow", "Known", "default_store"]

TERMINAL = (
    "truncated",
    "reasoning_truncated",
    "refused",
    "empty",
    "context_overflow",
)  # asking again with the same key would give the same
_BLOB_LIMIT = 1 << 16  # larger raw answers become files beside the database
_CHECKED_BYTES = 1 << 29  # quick_check reads the whole file: 0.5 GB takes about a second
_PATIENCE = 60.0  # seconds that one process waits for another one to let go of the database
_PATIENCE_S = 60.0  # for another process's commit
_LOOKUP = 400  # keys per SELECT, under SQLite's oldest limit of 999 variables


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One attempt as it ended. `answer` is there only where `outcome` is "answered"."""

    key: str
    outcome: str
    answer: Answer | None = None
    detail: str = ""
    started: float = 0.0
    finished: float = 0.0
    transport: str = "online"
    http_status: int | None = None
    retry_after_s: float | None = None
    served_model: str = ""
    fingerprint: str = ""
    provider_id: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    reserved_usd: float | None = None
    settled_usd: float | None = None
    flags: str = ""
    price_id: str = ""
    raw: bytes = b""
    logprobs: bytes | None = None
    attempt: int | None = None  # the id of the row that was written as in flight before the bytes left
    stage: str = ""  # the step of the run that asked


@dataclass(frozen=True, slots=True)
class Known:
    """What the store knows about a key: an answer, or how it failed for good."""

    answer: Answer | None = None
    failure: str = ""
    detail: str = ""


def default_store() -> Path:
    """The folder named by STILLHOUSE_STORE, else one in the user's cache folder."""
    named = os.environ.get("STILLHOUSE_STORE")
    if named:
        return Path(named).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "stillhouse" / "store"


class AnswerStore:
    """Opens (and makes) the store in `folder`. Raises RunFailed where the file is damaged, newer, or on a network disk."""

    def __init__(self, folder: Path | str | None = None) -> None:
        self.folder = Path(folder) if folder is not None else default_store()
        self._writing, self._reading = threading.Lock(), threading.Lock()
        self.folder.mkdir(parents=True, exist_ok=True)
        refuse_network_disk(self.folder)
        self.path = self.folder / "store.sqlite"
        self.recovered = ""
        self.db = self._open()
        self._reader = self._connected()  # beside the writer: a look-up waits for nobody's commit

    def known(self, keys: Sequence[str]) -> dict[str, Known]:
        """What is known about each of `keys`; a key nobody asked, or that failed only for the moment, is absent."""
        found: dict[str, Known] = {}
        for start in range(0, len(keys), _LOOKUP):
            part = list(keys[start : start + _LOOKUP])
            for row in self._select(f"SELECT {_ANSWER} FROM answer WHERE key IN ({_marks(part)})", part):
                found[row[0]] = Known(_answer(row))
            missing = [key for key in part if key not in found]
            if not missing:
                continue
            failed = f"SELECT key, outcome, detail FROM attempt WHERE key IN ({_marks(missing)})"
            query = f"{failed} AND outcome IN ({_marks(TERMINAL)})"
            for key, outcome, detail in self._select(query, [*missing, *TERMINAL]):
                found[key] = Known(None, outcome, detail)
        return found

    def commit(
        self, run: str, teacher: str, rows: Sequence[AttemptRow], bodies: Iterable[tuple[str, str]] = ()
    ) -> None:
        """Attempts, their answers and the ledger, in one transaction: on disk when this returns."""
        packed = [(key, self.packed_body(body), time.time()) for key, body in bodies]
        with self.transaction() as db:
            db.executemany("INSERT OR IGNORE INTO request(key, body, created) VALUES (?, ?, ?)", packed)
            for row in rows:
                self.write(db, run, teacher, row)

    def write(self, db: sqlite3.Connection, run: str, teacher: str, row: AttemptRow) -> None:
        """One attempt inside a transaction of the caller's."""
        values = (*_attempt_values(row), self._packed(row.raw))
        attempt = row.attempt
        if attempt is None:
            attempt = db.execute(
                _INSERT_ATTEMPT, (row.key, run, teacher, row.transport, row.started, row.stage, *values)
            ).lastrowid
        else:
            db.execute(_UPDATE_ATTEMPT, (*values, attempt))
        if row.answer is not None:
            db.execute(
                "INSERT OR IGNORE INTO answer VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                _answer_row(row.key, int(attempt or 0), row.answer, row.logprobs),
            )
        spent = (run, teacher, row.input_tokens, row.output_tokens, row.settled_usd or 0.0)
        db.execute(_ADD_SPEND, spent)

    def state(self, db: sqlite3.Connection, key: str) -> Known | None:
        """What is known about a key inside a transaction of the caller's, who may be about to ask."""
        row = db.execute(f"SELECT {_ANSWER} FROM answer WHERE key = ?", (key,)).fetchone()
        if row is not None:
            return Known(_answer(row))
        for outcome, detail in db.execute("SELECT outcome, detail FROM attempt WHERE key = ?", (key,)):
            if outcome in TERMINAL:
                return Known(None, outcome, detail)
        return None

    def begin(self) -> None:
        """Opens a transaction on `db`; `finish` or `give_up` ends it, in whichever thread. Raises RunFailed."""
        self._writing.acquire()
        try:
            self.db.execute("BEGIN IMMEDIATE")
        except BaseException as error:
            self._writing.release()
            raise self._said(error) from error

    def begun_at_once(self) -> bool:
        """Opens a transaction on `db` where nobody else is writing; waits for nobody."""
        if not self._writing.acquire(blocking=False):
            return False
        try:
            self.db.execute("PRAGMA busy_timeout = 0")
            self.db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:  # `begin` waits, and says what else may be wrong
            self._writing.release()
            return False
        finally:
            self.db.execute(f"PRAGMA busy_timeout = {int(1000 * _PATIENCE_S)}")
        return True

    def finish(self) -> None:
        """Commits: what was written is on disk when this returns. Raises RunFailed for a full or read-only disk."""
        try:
            self.db.execute("COMMIT")
        except BaseException as error:
            raise self.give_up(error) from error
        self._writing.release()

    def give_up(self, error: BaseException) -> BaseException:
        """Rolls back because of `error`, and gives what is to be raised: a disk that takes no more in words."""
        try:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
        finally:
            self._writing.release()
        return self._said(error)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """BEGIN IMMEDIATE ... COMMIT; a full or read-only disk is a clean stop that keeps all earlier commits."""
        self.begin()
        try:
            yield self.db
        except BaseException as error:
            said = self.give_up(error)
            if said is error:
                raise
            raise said from error
        self.finish()

    def _said(self, error: BaseException) -> BaseException:
        if not isinstance(error, sqlite3.OperationalError):
            return error
        return RunFailed(
            f"the store {self.path} cannot be written ({error}); answers committed before are kept: "
            "free the disk or name another folder in STILLHOUSE_STORE, then run again"
        )

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a SELECT."""
        return self._select(sql, list(values))

    def packed_body(self, body: str) -> bytes:
        """A request as `request.body` holds it."""
        return zlib.compress(body.encode("utf-8"), 1)

    def raw(self, packed: bytes | None) -> bytes:
        """A raw answer as it came, from the bytes of `attempt.raw`."""
        if not packed:
            return b""
        if packed.startswith(b"file:"):
            packed = (self.folder / "blobs" / packed[5:].decode("ascii")).read_bytes()
        return zlib.decompress(packed)

    def salt(self) -> bytes:
        """Random bytes of this store, made once: a hash made with them cannot be looked up by trying values."""
        wanted = "SELECT value FROM meta WHERE name = 'salt'"
        if not self.rows(wanted):
            with self.transaction() as db:
                db.execute("INSERT OR IGNORE INTO meta VALUES ('salt', ?)", (secrets.token_hex(16),))
        return bytes.fromhex(self.rows(wanted)[0][0])

    def close(self) -> None:
        with self._writing, self._reading:
            self._reader.close()
            self.db.close()

    def _select(self, sql: str, values: list[Any]) -> list[tuple[Any, ...]]:
        with self._reading:
            return self._reader.execute(sql, values).fetchall()

    def _packed(self, raw: bytes) -> bytes | None:
        if not raw:
            return None
        packed = zlib.compress(raw, 1)
        return packed if len(packed) <= _BLOB_LIMIT else self._as_file(packed)

    def _as_file(self, packed: bytes) -> bytes:
        """A large blob as a content-addressed file, durable before the row that names it."""
        name = hashlib.sha256(packed).hexdigest()
        target = self.folder / "blobs" / name
        if not target.exists():
            write_durably(target, packed)
        return b"file:" + name.encode("ascii")

    def _open(self) -> sqlite3.Connection:
        with opening(self.folder):
            try:
                return self._connect()
            except sqlite3.DatabaseError as error:
                self._unless_damaged(error)
        with opening(self.folder, alone=True):
            try:
                return self._connect()  # another process may have been first to mend it
            except sqlite3.DatabaseError as error:
                self._unless_damaged(error)
            self.recovered = rebuild(self.path)
            return self._connect()

    def _unless_damaged(self, error: sqlite3.DatabaseError) -> None:
        if isinstance(error, sqlite3.OperationalError):
            raise RunFailed(
                f"the store {self.path} cannot be opened ({error}); name another folder in STILLHOUSE_STORE"
            ) from error

    def _connected(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)

    def _connect(self) -> sqlite3.Connection:
        db = self._connected()
        try:
            _write_ahead(db)
            db.execute("PRAGMA synchronous=FULL")
            if self.path.stat().st_size <= _CHECKED_BYTES:
                verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
                if verdict != "ok":
                    raise sqlite3.DatabaseError(verdict)
            prepare(db, self.path)
        except BaseException:
            db.close()
            raise
        return db


def _write_ahead(db: sqlite3.Connection) -> None:
    """Waits itself: where several processes open a new store at once, SQLite refuses the change of mode without waiting."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            db.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


_ENDED = (
    "finished", "outcome", "detail", "http_status", "retry_after_s", "served_model", "fingerprint", "provider_id",
    "input_tokens", "output_tokens", "reasoning_tokens", "cached_tokens", "reserved_usd", "settled_usd", "flags", "price_id",
)  # fmt: skip
_attempt_values = attrgetter(*_ENDED)
_BORN = ("key", "run", "teacher", "transport", "started", "stage")
_ANSWER = "key, text, reasoning, finish_reason, served_model, input_tokens, output_tokens, estimated, ignored, cost_usd"


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


_INSERT_ATTEMPT = (
    f"INSERT INTO attempt({', '.join((*_BORN, *_ENDED, 'raw'))}) VALUES ({_marks((*_BORN, *_ENDED, 'raw'))})"
)
_UPDATE_ATTEMPT = f"UPDATE attempt SET {', '.join(f'{name} = ?' for name in (*_ENDED, 'raw'))} WHERE id = ?"
_ADD_SPEND = (
    "INSERT INTO spend VALUES (?, ?, 1, ?, ?, ?) ON CONFLICT(run, teacher) DO UPDATE SET attempts = attempts + 1, "
    "input_tokens = input_tokens + excluded.input_tokens, output_tokens = output_tokens + excluded.output_tokens, "
    "usd = usd + excluded.usd"
)


def _answer(row: tuple[Any, ...]) -> Answer:
    _, text, reasoning, finish, served, input_tokens, output_tokens, estimated, ignored, cost = row
    return Answer(text, finish, reasoning, served, input_tokens, output_tokens, bool(estimated), _fields(ignored), cost)


@lru_cache(maxsize=64)
def _fields(ignored: str) -> tuple[str, ...]:
    """The names in `answer.ignored`: the answers of one server share a few lists."""
    return tuple(json.loads(ignored))


def _answer_row(key: str, attempt: int, answer: Answer, logprobs: bytes | None) -> tuple[Any, ...]:
    return (
        key, attempt, answer.text, answer.reasoning, answer.finish_reason, answer.served_model, answer.input_tokens,
        answer.output_tokens, int(answer.estimated), json.dumps(list(answer.ignored)), answer.cost_usd, logprobs,
    )  # fmt: skip
