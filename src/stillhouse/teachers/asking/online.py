"""Asks a server: one request at a time from outside, many at a time inside, every attempt on disk before and after.

One event loop in one thread serves all servers of a run. A request goes: look-up, lease, reservation, admission,
attempt (written down as in flight before the bytes leave), settlement. What happens next hangs on the fault alone.
"""

import asyncio
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from stillhouse.errors import StillhouseError, TeacherError
from stillhouse.teachers.asking.answers import AttemptRow
from stillhouse.teachers.asking.budget import Spent
from stillhouse.teachers.asking.gate import usable
from stillhouse.teachers.asking.keys import derived_seed, request_key
from stillhouse.teachers.asking.leases import BATCHED, Lease, alive, release, settle_dead, take
from stillhouse.teachers.asking.loop import Loop, Writer
from stillhouse.teachers.asking.pace import Pace, later
from stillhouse.teachers.asking.settling import FATAL, ROW, Asking, fatal_sentence, later_sentence
from stillhouse.teachers.asking.wire import Fault, Reply, WireBackend
from stillhouse.teachers.base import Answer, Failure, Outcome, Request

__all__ = ["Asker", "ask_bare", "batched_sentence"]

ATTEMPTS = 6
_BACKOFF_S, _BACKOFF_MOST_S = 1.0, 60.0
_DRAIN_S = 30.0
_COLUMNS = "key, run, teacher, transport, started, outcome, reserved_usd, stage"
_BEGIN = f"INSERT INTO attempt({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


@dataclass(eq=False)
class Asker(Asking):
    """Asks one server through one store, for one teacher of one run."""

    writer: Writer
    pace: Pace
    seats: asyncio.Semaphore
    flying: dict[str, "asyncio.Future[Answer | Failure]"]
    retry: Collection[str]
    fatal: StillhouseError | None = None
    stopped: bool = False
    leaving: bool = False  # set by the caller's thread: it is being drained
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    exchanging: set[asyncio.Task[Any]] = field(default_factory=set)

    def stop(self, fatal: StillhouseError | None) -> None:
        """Nothing new leaves; what is out may come home."""
        self.fatal, self.stopped = self.fatal or fatal, True
        for task in self.tasks - self.exchanging - {asyncio.current_task()}:
            task.cancel()

    async def drain(self) -> None:
        """Stops, gives what is out 30 s to come home, and then leaves it to its lease."""
        self.stop(None)
        if self.exchanging:
            await asyncio.wait(set(self.exchanging), timeout=_DRAIN_S)
        for task in set(self.tasks):
            task.cancel()

    async def __call__(self, key: str, body: str, request: Request) -> Answer | Failure:
        """The answer, or why there is none; who asks the same while it is out waits for it instead of paying again.

        Raises TeacherError, BudgetReached or RunFailed where asking must stop.
        """
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            return await self._once(key, body, request)
        except StillhouseError as error:
            self.stop(error)
            raise
        finally:
            self.tasks.discard(task)

    async def _once(self, key: str, body: str, request: Request) -> Answer | Failure:
        while (first := self.flying.get(key)) is not None:
            await asyncio.wait([first])
            if not first.cancelled() and first.exception() is None:
                return first.result()
        mine = self.flying[key] = asyncio.get_running_loop().create_future()
        try:
            mine.set_result(await self._answered(key, body, request))
            return mine.result()
        finally:
            mine.cancel()
            del self.flying[key]

    async def _answered(self, key: str, body: str, request: Request) -> Answer | Failure:
        tries = waits = 0
        while True:
            async with self.seats:
                ended = await self._attempt(key, body, request)
            if isinstance(ended, Lease):
                await self._given_back(key, ended)
                continue
            if not isinstance(ended, tuple):
                return ended
            row, fault = ended
            if row.answer is not None:
                return row.answer
            if row.outcome == "model_mismatch":
                raise self.settling.mismatch(row)
            if fault is None:
                return Failure(row.outcome, row.detail)
            if fault.kind in ROW:
                return Failure(fault.kind, fault.detail)
            tries, waits = tries + (fault.kind != "rate_limit"), waits + 1
            if tries >= ATTEMPTS:
                return Failure(fault.kind, f"{tries} attempts, the last: {fault.detail}", "not_attempted")
            await self._wait(fault, waits)

    async def _attempt(
        self, key: str, body: str, request: Request
    ) -> tuple[AttemptRow, Fault | None] | Lease | Answer | Failure:
        """One attempt, on disk as in flight before and as it ended after.

        None is made where another process holds the lease, which is given then, or has got the answer meanwhile.
        """
        worst, spent = self.settling.worst(request), Spent(requests=0)
        planned = await self.purse.reserve(self.teacher, worst, self.settling.stage)
        try:
            await self._admitted()
            ended = await self._exchanged(key, body, request, worst)
            if not isinstance(ended, tuple):
                return ended
            row, reply = ended
            spent = Spent(row.settled_usd or 0.0, row.input_tokens + row.output_tokens)
        finally:
            self.purse.settle(self.teacher, planned, worst, spent, self.settling.stage)
        self.booked(row)
        self.purse.check()
        return row, reply.result if isinstance(reply.result, Fault) else None

    async def _exchanged(
        self, key: str, body: str, request: Request, worst: Spent
    ) -> tuple[AttemptRow, Reply] | Lease | Answer | Failure:
        """From the row "in flight" to the row as it ended: a task between the two is not cancelled while draining."""
        task = asyncio.current_task()
        assert task is not None
        self.exchanging.add(task)
        try:
            try:
                started = self.clock.wall()
                attempt = await self.writer.put(lambda db: self._begun(db, key, body, started, worst))
                if not isinstance(attempt, int):
                    return attempt
                began = self.clock.now()
                reply = await self.backend.exchange(request, derived_seed(key))
                self._learn(reply, self.clock.now() - began)
            finally:
                self.pace.release()  # what is left to do is ours: the server has a place free
            row = self.settling.ended(key, attempt, started, reply, worst)
            await self.writer.put(lambda db: self._ended(db, row))
        finally:
            self.exchanging.discard(task)
        return row, reply

    async def _admitted(self) -> None:
        self._check_stopped()
        await self.pace.admit()
        try:
            self._check_stopped()
        except BaseException:
            self.pace.release()
            raise

    def _check_stopped(self) -> None:
        if self.fatal is not None:
            raise self.fatal
        if self.stopped:
            raise asyncio.CancelledError

    def _learn(self, reply: Reply, seconds: float) -> None:
        """Tells the pace, and stops everything where nothing more can be asked."""
        fault = reply.result
        if isinstance(fault, Answer):
            self.pace.succeeded(seconds)
            if reply.hold_s:
                self.pace.empty(min(reply.hold_s, self.pace.max_stall))
        elif fault.kind in FATAL or (fault.kind == "bad_request" and not self.pace.proven):
            if fault.kind == "refused_connection" and self.pace.proven:
                self.pace.failed()
            else:
                self.stop(TeacherError(fatal_sentence(self.teacher, self.backend.url, fault)))
                self.pace.failed()
        elif fault.kind == "rate_limit":
            self.pace.limited(fault.retry_after_s)
            if (fault.retry_after_s or 0.0) > self.pace.max_stall:
                self.stop(TeacherError(later_sentence(self.teacher, self.backend.url, fault, self.clock.wall())))
        elif fault.kind in ROW:
            self.pace.succeeded(seconds)
        else:
            self.pace.failed()

    async def _wait(self, fault: Fault, waits: int) -> None:
        if self.fatal is not None:
            raise self.fatal
        if fault.retry_after_s is not None:
            await self.clock.sleep(later(fault.retry_after_s, self.clock))
        else:
            most = min(_BACKOFF_MOST_S, _BACKOFF_S * 2.0 ** min(waits - 1, 10))
            await self.clock.sleep(most * self.clock.jitter())

    async def _given_back(self, key: str, lease: Lease) -> None:
        """Another process asks: it is given time, and one that died gives its lease back."""
        self._check_stopped()
        if lease is BATCHED:
            raise TeacherError(batched_sentence(self.teacher, 1, "that is out"))
        if alive(lease):
            await self.clock.sleep(0.2)
            return
        # in a thread: it waits for the store, whose writer needs this loop
        await asyncio.get_running_loop().run_in_executor(None, settle_dead, self.store)
        await self.writer.put(lambda db: release(db, key, lease.owner))

    def _begun(
        self, db: sqlite3.Connection, key: str, body: str, started: float, worst: Spent
    ) -> int | Lease | Answer | Failure:
        """The attempt as in flight, under this process's lease; or the lease or the end that another one got before."""
        until = time.time() + 2 * self.backend.timeout + 600
        if (holder := take(self.store, db, key, body, self.owner, until)) is not None:
            return holder
        known = self.store.state(db, key)
        if known is not None and known.failure not in self.retry:
            release(db, key, self.owner)
            return known.answer if known.answer is not None else Failure(known.failure, known.detail)
        values = (key, self.run, self.teacher, "online", started, "in_flight", worst.usd, self.settling.stage)
        return int(db.execute(_BEGIN, values).lastrowid or 0)

    def _ended(self, db: sqlite3.Connection, row: AttemptRow) -> None:
        self.store.write(db, self.run, self.teacher, row)
        release(db, row.key, self.owner)


def batched_sentence(teacher: str, number: int, batch: str) -> str:
    """What to say to who asks online for what lies in a batch."""
    return (
        f"teacher {teacher!r}: {number} of these requests wait in batch {batch}; set `transport: batch` to wait for it, or "
        "cancel it at the provider, and run again"
    )


def ask_bare(backend: WireBackend, requests: Iterable[Request]) -> Iterator[Outcome]:
    """One attempt for each request, without store, budget or retries; in their order."""
    identity, loop = backend.identity(), Loop()

    async def once(request: Request, seats: asyncio.Semaphore) -> Outcome:
        key = request_key(identity, request)
        async with seats:
            result = (await backend.exchange(request, derived_seed(key))).result
        if isinstance(result, Fault) and result.kind in FATAL:
            raise TeacherError(fatal_sentence(identity.model, backend.url, result))
        failed = Failure(result.kind, result.detail) if isinstance(result, Fault) else usable(result)
        return Outcome(request, failed, key)

    try:
        seats, source = asyncio.Semaphore(backend.max_concurrency), iter(requests)
        while window := list(islice(source, 4 * backend.max_concurrency)):
            for future in [loop.submit(once(request, seats)) for request in window]:
                yield future.result()
    finally:
        loop.close()
