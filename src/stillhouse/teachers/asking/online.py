"""Asks a server: one request at a time from outside, many at a time inside, every attempt on disk before and after.

One event loop in one thread serves all servers of a run. A request goes: look-up, lease, reservation, admission,
attempt (written down as in flight before the bytes leave), settlement. What happens next hangs on the fault alone.
"""

import asyncio
import os
import socket
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from stillhouse.errors import StillhouseError, TeacherError
from stillhouse.teachers.asking.answers import AnswerStore, AttemptRow
from stillhouse.teachers.asking.budget import Purse, Spent
from stillhouse.teachers.asking.gate import usable
from stillhouse.teachers.asking.keys import canonical_json, derived_seed, request_key, request_v1
from stillhouse.teachers.asking.pace import Pace
from stillhouse.teachers.asking.wire import Clock, Fault, Price, Reply, WireBackend
from stillhouse.teachers.base import Answer, Failure, Outcome, Request

__all__ = ["Asker", "Loop", "Writer", "ask_bare", "owner", "settle_dead"]

ATTEMPTS = 6
_GROUP, _GROUP_S = 64, 0.002
_BACKOFF_S, _BACKOFF_MOST_S = 1.0, 60.0
_JITTER_MOST_S = 30.0
_DRAIN_S = 30.0
_FATAL = ("quota", "auth", "refused_connection")
_ROW = {"bad_request": "bad_request", "context_overflow": "context_overflow", "refused": "refused"}


class Loop:
    """An event loop in a thread of its own, started when first needed."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="stillhouse-calls", daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, Any]) -> "Future[Any]":
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def close(self) -> None:
        """Cancels what is still under way, and ends the thread."""
        self.submit(_cancelled()).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=10)
        self.loop.close()


async def _cancelled() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class Writer:
    """Groups the writes of many requests into commits; a write is on disk when `put` returns."""

    def __init__(self, store: AnswerStore) -> None:
        self._store = store
        self._waiting: list[tuple[Callable[[sqlite3.Connection], Any], asyncio.Future[Any]]] = []
        self._timer: asyncio.TimerHandle | None = None

    async def put(self, write: Callable[[sqlite3.Connection], Any]) -> Any:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        self._waiting.append((write, done))
        if len(self._waiting) >= _GROUP:
            self._flush()
        elif self._timer is None:
            self._timer = loop.call_later(_GROUP_S, self._flush)
        return await done

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        group, self._waiting = self._waiting, []
        if not group:
            return
        try:
            with self._store.transaction() as db:
                results = [write(db) for write, _ in group]
        except (StillhouseError, sqlite3.Error) as error:
            for _, done in group:
                if not done.cancelled():
                    done.set_exception(error)
            return
        for (_, done), result in zip(group, results):
            if not done.cancelled():
                done.set_result(result)


@dataclass(frozen=True, slots=True)
class _Lease:
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


def _alive(lease: _Lease) -> bool:
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
        if row[5] in (None, mine) or not _alive(_Lease(row[5], row[6] or 0.0))
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


@dataclass
class Asker:
    """Asks one server through one store, for one teacher of one run."""

    backend: WireBackend
    store: AnswerStore
    writer: Writer
    pace: Pace
    purse: Purse
    clock: Clock
    price: Price
    run: str
    teacher: str
    owner: str
    seats: asyncio.Semaphore
    flying: dict[str, "asyncio.Future[Answer | Failure]"]
    booked: Callable[[AttemptRow], None]
    fatal: StillhouseError | None = None
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    exchanging: set[asyncio.Task[Any]] = field(default_factory=set)

    def stop(self, fatal: StillhouseError | None) -> None:
        """Nothing new leaves; what is out may come home."""
        self.fatal = self.fatal or fatal
        for task in self.tasks - self.exchanging - {asyncio.current_task()}:
            task.cancel()

    async def drain(self) -> None:
        """Stops, gives what is out 30 s to come home, and then leaves it to its lease."""
        self.stop(None)
        if self.exchanging:
            await asyncio.wait(set(self.exchanging), timeout=_DRAIN_S)
        for task in set(self.tasks):
            task.cancel()

    async def __call__(self, key: str, request: Request) -> Answer | Failure:
        """The answer, or why there is none; who asks the same while it is out waits for it instead of paying again.

        Raises TeacherError, BudgetReached or RunFailed where asking must stop.
        """
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            return await self._once(key, request)
        except StillhouseError as error:
            self.stop(error)
            raise
        finally:
            self.tasks.discard(task)

    async def _once(self, key: str, request: Request) -> Answer | Failure:
        while (first := self.flying.get(key)) is not None:
            await asyncio.wait([first])
            if not first.cancelled() and first.exception() is None:
                return first.result()
        mine = self.flying[key] = asyncio.get_running_loop().create_future()
        try:
            mine.set_result(await self._answered(key, request))
            return mine.result()
        finally:
            mine.cancel()
            del self.flying[key]

    async def _answered(self, key: str, request: Request) -> Answer | Failure:
        tries = waits = 0
        while True:
            if known := await self._leased(key, request):
                return known
            async with self.seats:
                row, fault = await self._attempt(key, request)
            if row.answer is not None:
                return row.answer
            if fault is None:
                return Failure(row.outcome, row.detail)
            if fault.kind in _ROW:
                return Failure(_ROW[fault.kind], fault.detail)
            tries, waits = tries + (fault.kind != "rate_limit"), waits + 1
            if tries >= ATTEMPTS:
                return Failure(fault.kind, f"{tries} attempts, the last: {fault.detail}", "not_attempted")
            await self._wait(fault, waits)

    async def _attempt(self, key: str, request: Request) -> tuple[AttemptRow, Fault | None]:
        """One attempt, on disk as in flight before and as it ended after; the lease goes with it."""
        worst = self._worst(request)
        planned = await self.purse.reserve(self.teacher, worst)
        settled = False
        try:
            await self._admitted()
            try:
                row, reply = await self._exchanged(key, request, worst)
            finally:
                self.pace.release()
            tokens = row.input_tokens + row.output_tokens
            self.purse.settle(self.teacher, planned, worst, Spent(row.settled_usd or 0.0, tokens))
            settled = True
            self.booked(row)
            self.purse.check()
        finally:
            if not settled:
                self.purse.settle(self.teacher, planned, worst, Spent(requests=0))
        return row, reply.result if isinstance(reply.result, Fault) else None

    async def _exchanged(self, key: str, request: Request, worst: Spent) -> tuple[AttemptRow, Reply]:
        """From the row "in flight" to the row as it ended: a task between the two is not cancelled while draining."""
        task = asyncio.current_task()
        assert task is not None
        self.exchanging.add(task)
        try:
            row = AttemptRow(key, "in_flight", started=self.clock.wall(), reserved_usd=worst.usd)
            attempt = await self.writer.put(lambda db: self._in_flight(db, row))
            began = self.clock.now()
            reply = await self.backend.exchange(request, derived_seed(key))
            self._learn(reply, self.clock.now() - began)
            ended = self._settled_row(replace(row, attempt=attempt), reply, worst)
            await self.writer.put(lambda db: self._ended(db, ended))
        finally:
            self.exchanging.discard(task)
        return ended, reply

    async def _admitted(self) -> None:
        self._check_stopped()
        await self.pace.admit()
        try:
            self._check_stopped()
        except StillhouseError:
            self.pace.release()
            raise

    def _check_stopped(self) -> None:
        if self.fatal is not None:
            raise self.fatal

    def _learn(self, reply: Reply, seconds: float) -> None:
        """Tells the pace, and stops everything where nothing more can be asked."""
        fault = reply.result
        if isinstance(fault, Answer):
            self.pace.succeeded(seconds)
        elif fault.kind in _FATAL or (fault.kind == "bad_request" and not self.pace.proven):
            if fault.kind == "refused_connection" and self.pace.proven:
                self.pace.failed()
            else:
                self.stop(TeacherError(_sentence(self.teacher, self.backend.url, fault)))
                self.pace.failed()
        elif fault.kind == "rate_limit":
            self.pace.limited(fault.retry_after_s)
            if (fault.retry_after_s or 0.0) > self.pace.max_stall:
                self.stop(TeacherError(_later(self.teacher, self.backend.url, fault, self.clock.wall())))
        elif fault.kind in _ROW:
            self.pace.succeeded(seconds)
        else:
            self.pace.failed()

    async def _wait(self, fault: Fault, waits: int) -> None:
        if self.fatal is not None:
            raise self.fatal
        if fault.retry_after_s is not None:
            extra = min(_JITTER_MOST_S, 0.2 * max(fault.retry_after_s, 1.0)) * self.clock.jitter()
            await self.clock.sleep(fault.retry_after_s + extra)
        else:
            most = min(_BACKOFF_MOST_S, _BACKOFF_S * 2.0 ** min(waits - 1, 10))
            await self.clock.sleep(most * self.clock.jitter())

    async def _leased(self, key: str, request: Request) -> Answer | Failure | None:
        """None when this process may ask; else what another process on the same store got meanwhile."""
        body = canonical_json(request_v1(self.backend.identity(), request))
        until = time.time() + 2 * self.backend.timeout + 600
        while True:
            self._check_stopped()
            holder = await self.writer.put(lambda db: _lease(self.store, db, key, body, self.owner, until))
            if holder is None:
                known = self.store.known([key]).get(key)
                if known is not None and known.answer is not None:
                    await self._released(key, self.owner)
                    return known.answer
                return None
            if not _alive(holder):
                settle_dead(self.store)
                await self._released(key, holder.owner)
                continue
            await self.clock.sleep(0.2)

    async def _released(self, key: str, holder: str) -> None:
        await self.writer.put(lambda db: _release(db, key, holder))

    def _ended(self, db: sqlite3.Connection, row: AttemptRow) -> None:
        self.store.write(db, self.run, self.teacher, row)
        _release(db, row.key, self.owner)

    def _in_flight(self, db: sqlite3.Connection, row: AttemptRow) -> int:
        sql = "INSERT INTO attempt(key, run, teacher, transport, started, outcome, reserved_usd) VALUES (?, ?, ?, ?, ?, ?, ?)"
        values = (row.key, self.run, self.teacher, row.transport, row.started, row.outcome, row.reserved_usd)
        return int(db.execute(sql, values).lastrowid or 0)

    def _worst(self, request: Request) -> Spent:
        prompt, output = self.backend.prompt_tokens(request), request.sampling.max_tokens
        return Spent(self.price.cost(prompt, output), prompt + output)

    def _settled_row(self, row: AttemptRow, reply: Reply, worst: Spent) -> AttemptRow:
        """What the attempt cost: the server's count; the worst case where it may have been billed and nobody said."""
        result, flags = reply.result, []
        answered = isinstance(result, Answer)
        outcome, detail, retry = "answered", "", None
        if isinstance(result, Fault):
            outcome, detail, retry = result.kind, result.detail, result.retry_after_s
        elif isinstance(checked := usable(result), Failure):
            outcome, detail = checked.kind, checked.detail
        usd = self.price.cost(reply.input_tokens, reply.output_tokens, reply.cached_tokens)
        if outcome == "unknown_after_send":
            usd, flags = worst.usd, ["cost_uncertain"]
        elif answered and not reply.counted:
            flags = ["cost_estimated"]
        answer = replace(result, cost_usd=usd) if isinstance(result, Answer) and outcome == "answered" else None
        return replace(
            row, outcome=outcome, answer=answer, detail=detail, finished=self.clock.wall(), http_status=reply.http_status,
            retry_after_s=retry, served_model=result.served_model if isinstance(result, Answer) else "",
            fingerprint=reply.fingerprint, provider_id=reply.provider_id, input_tokens=reply.input_tokens,
            output_tokens=reply.output_tokens, reasoning_tokens=reply.reasoning_tokens, cached_tokens=reply.cached_tokens,
            settled_usd=usd, flags=",".join(flags), price_id=self.price.id, raw=reply.raw, logprobs=reply.logprobs,
        )  # fmt: skip


def _lease(store: AnswerStore, db: sqlite3.Connection, key: str, body: str, mine: str, until: float) -> _Lease | None:
    """Takes the lease of a request by compare-and-set: None when it is this process's now, else the holder's."""
    db.execute(
        "INSERT OR IGNORE INTO request(key, body, created) VALUES (?, ?, ?)",
        (key, store.packed_body(body), time.time()),
    )
    taken = db.execute(
        "UPDATE request SET leased_by = ?, lease_until = ? WHERE key = ? AND (leased_by IS NULL OR leased_by = ?)",
        (mine, until, key, mine),
    ).rowcount
    if taken:
        return None
    holder = db.execute("SELECT leased_by, lease_until FROM request WHERE key = ?", (key,)).fetchone()
    return _Lease(holder[0], holder[1])


def _release(db: sqlite3.Connection, key: str, holder: str) -> None:
    db.execute("UPDATE request SET leased_by = NULL, lease_until = NULL WHERE key = ? AND leased_by = ?", (key, holder))


def _sentence(teacher: str, url: str, fault: Fault) -> str:
    what = {
        "auth": "refuses the key, the model name or the settings: check them",
        "quota": "says that the quota or the money is used up: top it up",
        "refused_connection": "cannot be reached: start the server or correct base_url",
        "bad_request": "does not accept the first request: check the model name and the settings",
    }[fault.kind]
    return f"teacher {teacher!r}: {url} {what}, then run again ({fault.detail})"


def _later(teacher: str, url: str, fault: Fault, wall: float) -> str:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(wall + min(fault.retry_after_s or 0.0, 10 * 365 * 86400.0)))
    return f"teacher {teacher!r}: {url} asks to be left alone until {when}; what was answered is kept: run again then"


def ask_bare(backend: WireBackend, requests: Iterable[Request]) -> Iterator[Outcome]:
    """One attempt for each request, without store, budget or retries; in their order."""
    identity, loop = backend.identity(), Loop()

    async def once(request: Request, seats: asyncio.Semaphore) -> Outcome:
        key = request_key(identity, request)
        async with seats:
            result = (await backend.exchange(request, derived_seed(key))).result
        if isinstance(result, Fault) and result.kind in _FATAL:
            raise TeacherError(_sentence(identity.model, backend.url, result))
        failed = Failure(result.kind, result.detail) if isinstance(result, Fault) else usable(result)
        return Outcome(request, failed, key)

    try:
        seats, source = asyncio.Semaphore(backend.max_concurrency), iter(requests)
        while window := list(islice(source, 4 * backend.max_concurrency)):
            for future in [loop.submit(once(request, seats)) for request in window]:
                yield future.result()
    finally:
        loop.close()
