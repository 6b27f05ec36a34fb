"""Asks a server: one request at a time from outside, many at a time inside, every attempt on disk before and after.

One event loop in one thread serves all servers of a run. A request goes: look-up, lease, reservation, admission,
attempt (written down as in flight before the bytes leave), settlement. What happens next hangs on the fault alone.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from stillhouse.errors import StillhouseError, TeacherError
from stillhouse.teachers.asking.answers import AnswerStore, AttemptRow
from stillhouse.teachers.asking.budget import Purse, Spent
from stillhouse.teachers.asking.gate import usable
from stillhouse.teachers.asking.keys import canonical_json, derived_seed, request_key, request_v1
from stillhouse.teachers.asking.leases import alive, release, settle_dead, take
from stillhouse.teachers.asking.loop import Loop, Writer
from stillhouse.teachers.asking.pace import Pace
from stillhouse.teachers.asking.wire import Clock, Fault, Price, Reply, WireBackend
from stillhouse.teachers.base import Answer, Failure, Outcome, Request

__all__ = ["Asker", "ask_bare"]

ATTEMPTS = 6
_BACKOFF_S, _BACKOFF_MOST_S = 1.0, 60.0
_JITTER_MOST_S = 30.0
_DRAIN_S = 30.0
_FATAL = ("quota", "auth", "refused_connection")
_ROW = {"bad_request": "bad_request", "context_overflow": "context_overflow", "refused": "refused"}


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
    stopped: bool = False
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
            holder = await self.writer.put(lambda db: take(self.store, db, key, body, self.owner, until))
            if holder is None:
                known = self.store.known([key]).get(key)
                if known is not None and known.answer is not None:
                    await self._released(key, self.owner)
                    return known.answer
                return None
            if not alive(holder):
                settle_dead(self.store)
                await self._released(key, holder.owner)
                continue
            await self.clock.sleep(0.2)

    async def _released(self, key: str, holder: str) -> None:
        await self.writer.put(lambda db: release(db, key, holder))

    def _ended(self, db: sqlite3.Connection, row: AttemptRow) -> None:
        self.store.write(db, self.run, self.teacher, row)
        release(db, row.key, self.owner)

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
