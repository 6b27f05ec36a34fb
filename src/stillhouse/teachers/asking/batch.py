"""Asks a server in batches: half the price, an answer within a day, and no batch is ever sent or paid for twice.

A batch is written down before it is sent. Who finds one that a dead process wrote down asks the provider for it first, and
sends it only where the provider knows none. Results are matched by their ids; what expired, was cancelled or failed for
the moment goes into another batch, what failed for good is that failure.
"""

import json
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from stillhouse.errors import BudgetReached, StillhouseError, TeacherError
from stillhouse.teachers.asking import jobs
from stillhouse.teachers.asking.answers import AttemptRow
from stillhouse.teachers.asking.budget import Spent
from stillhouse.teachers.asking.jobs import Job, Wanted
from stillhouse.teachers.asking.keys import derived_seed
from stillhouse.teachers.asking.loop import Loop
from stillhouse.teachers.asking.pace import later
from stillhouse.teachers.asking.results import Results
from stillhouse.teachers.asking.settling import FATAL, ROW, Asking, fatal_sentence, later_sentence
from stillhouse.teachers.asking.wire import Fault, Reply
from stillhouse.teachers.base import Failure, Request

__all__ = ["Batcher"]

ROUNDS = 3  # batches that one request may go into before it is left to the next run
_POLL_S, _POLL_MOST_S = 5.0, 120.0
_BACKOFF_S, _BACKOFF_MOST_S = 1.0, 60.0
_LATEST_S = 30 * 3600.0  # of waiting: they promise 24 hours
_GROUP = 64  # results settled in one transaction
_T = TypeVar("_T")


@dataclass
class Batcher(Asking):
    """Asks one server through one store, for one teacher of one run.

    It runs in the caller's thread; exchanges, sleeping and the purse belong to the event loop, which others may use.
    """

    say: Callable[[str], None]
    max_stall: float
    loop: Loop
    stop: BudgetReached | None = None  # the limit that kept some requests from being sent
    fatal: StillhouseError | None = None
    _results: dict[str, Failure | None] = field(default_factory=dict)  # None: answered
    _rounds: dict[str, int] = field(default_factory=dict)
    _most: int = 0

    def __call__(self, wanted: dict[str, Request]) -> dict[str, Failure | None]:
        """How each request ended: None where its answer is in the store now. Those that the budget has no room for are
        missing; `stop` then says why.

        Raises TeacherError where asking must stop; what came before is kept.
        """
        self._results, self._rounds, self.stop = {}, {}, None
        self._most = self._most or self.backend.batches().most_items
        while missing := {key: request for key, request in wanted.items() if key not in self._results}:
            self._answered_elsewhere(missing)
            missing = {key: request for key, request in missing.items() if key not in self._results}
            going, out = self._adopted(missing)
            going += self._sent({key: request for key, request in missing.items() if key not in out})
            for job in going:
                self._check_fatal()
                self._finished(job)
            self._check_fatal()
            if missing and not going:
                if self.stop:
                    return self._results
                self._do(self.clock.sleep(1.0))  # another process has them in hand
        return self._results

    def _check_fatal(self) -> None:
        """What is out stays out: the next run collects it."""
        if self.fatal is not None:
            raise self.fatal

    def settle_ended(self, keys: list[str]) -> dict[str, str]:
        """Settles the batches that hold `keys` and have ended; gives where those still out are waiting (key -> batch)."""
        waiting: dict[str, str] = {}
        found = jobs.pending(self.store, keys)
        for job in jobs.open_jobs(self.store, self.backend.identity()):
            if job.local_id not in found.values() or not jobs.adopt(self.store, job, self.owner):
                continue
            taken = self._mine(job)
            batch = self._identified(taken)
            state = self._tried(partial(self.backend.batches().state, batch))
            if state.ended:
                self._finished(taken)
            else:
                waiting |= {key: batch for key, local in found.items() if local == job.local_id}
        return waiting

    def _answered_elsewhere(self, missing: dict[str, Request]) -> None:
        keys = list(missing)
        for start in range(0, len(keys), _GROUP):
            for key, known in self.store.known(keys[start : start + _GROUP]).items():
                if known.answer is not None:
                    self._results[key] = None

    def _adopted(self, missing: dict[str, Request]) -> tuple[list[Job], set[str]]:
        """The open batches of dead processes that hold some of `missing`, now ours; and which keys wait in any batch."""
        found = jobs.pending(self.store, list(missing))
        taken = []
        if found:
            for job in jobs.open_jobs(self.store, self.backend.identity()):
                if job.local_id in found.values() and jobs.adopt(self.store, job, self.owner):
                    mine = self._mine(job)
                    self.say(f"teacher {self.teacher!r}: goes on with a batch of {job.number} requests that was out")
                    self._identified(mine)
                    taken.append(self._again(mine))
        return taken, set(found)

    def _sent(self, missing: dict[str, Request]) -> list[Job]:
        """New batches of as many of `missing` as the budget has room for."""
        made = []
        for part in self._parts(self._affordable(missing)):
            job = Job(
                uuid.uuid4().hex,
                "intent",
                self.run,
                self.teacher,
                self.settling.stage,
                self.owner,
                "",
                "",
                len(part),
                time.time(),
            )
            taken = set(jobs.intend(self.store, job, self.backend.identity(), part, self._line))
            for each in part:
                if each.key not in taken:
                    self._give_back(missing[each.key])
            if taken:
                job = self._again(job)
                batch = self._submitted(job)
                if batch is not None:
                    self.say(f"teacher {self.teacher!r}: sent batch {batch} of {len(taken)} requests")
                    made.append(self._again(job))
        return made

    def _affordable(self, missing: dict[str, Request]) -> Iterator[tuple[str, Request]]:
        self.stop = None
        for key, request in missing.items():
            worst = self.settling.worst(request)
            reached = self._do(_now(partial(self.purse.try_reserve, self.teacher, worst, self.settling.stage)))
            if reached:
                self.stop = reached
                return
            yield key, request

    def _parts(self, affordable: Iterator[tuple[str, Request]]) -> Iterator[list[Wanted]]:
        """Cut by the number of requests and by bytes."""
        most_bytes, size = self.backend.batches().most_bytes, 0
        part: list[Wanted] = []
        for key, request in affordable:
            wanted = Wanted(key, request, self.settling.worst(request).usd)
            more = len(self._line(wanted)) + 1  # made again when it is written: 200 MB of lines are not held
            if part and (len(part) >= self._most or size + more > most_bytes):
                yield part
                part, size = [], 0
            part.append(wanted)
            size += more
        if part:
            yield part

    def _line(self, wanted: Wanted) -> bytes:
        return self.backend.batches().line(wanted.key, wanted.request, derived_seed(wanted.key))

    def _submitted(self, job: Job) -> str | None:
        """Sends a batch that is written down; asks for it first after any reply that leaves its fate open.

        None where the provider takes none of it; `fatal` then says why.
        """
        sent = jobs.submission(self.store, job)
        waits, began = 0, self.clock.now()
        while True:
            got: str | Fault | None = self._do(self.backend.batches().submit(sent))
            if isinstance(got, str):
                jobs.submitted(self.store, job, got)
                return got
            assert got is not None
            if got.kind in FATAL or got.kind in ROW:
                self._refused(job, got)
                return None
            if self.clock.now() - began > self.max_stall:
                raise TeacherError(
                    f"teacher {self.teacher!r}: no batch could be sent to {self.backend.url} ({got.detail})"
                )
            waits += 1
            self._wait(got, waits)
            if got.kind != "rate_limit":  # it may have arrived
                found = self._tried(lambda: self.backend.batches().find(sent, jobs.other_ids(self.store, job)))
                if found is not None:
                    jobs.submitted(self.store, job, found, found=True)
                    return found

    def _identified(self, job: Job) -> str:
        """The provider's id of a batch that a dead process wrote down: known, found, or sent now."""
        if job.provider_id:
            return job.provider_id
        sent = jobs.submission(self.store, job)
        found = self._tried(lambda: self.backend.batches().find(sent, jobs.other_ids(self.store, job)))
        if found is None:
            found = self._submitted(job)
            if found is None:
                assert self.fatal is not None
                raise self.fatal
        else:
            jobs.submitted(self.store, job, found, found=True)
        return found

    def _finished(self, job: Job) -> None:
        """Waits for the end of a batch and settles every line of it, and every request it has no line for."""
        waits, began = 0, self.clock.now()
        while True:
            state = self._tried(lambda: self.backend.batches().state(job.provider_id))
            if state.ended:
                break
            if self.clock.now() - began > _LATEST_S:
                raise TeacherError(
                    f"teacher {self.teacher!r}: batch {job.provider_id} is still {state.told or 'without a state'} after "
                    f"{_LATEST_S / 3600:.0f} hours, and a day was promised: look at it at the provider; it stays written down, "
                    "so run again to ask for it, or cancel it there first"
                )
            waits += 1
            self._do(self.clock.sleep(min(_POLL_MOST_S, _POLL_S * 1.5 ** min(waits - 1, 20))))
        if state.fault is not None:
            self._turned_away(job, state.fault)
            return
        with Results(jobs.results_file(self.store, job)) as results:
            self._tried(partial(self._downloaded, job, results))
            results.match(jobs.keys_of(self.store, job))
            strangers = job.found and results.unknown and not len(results)
            if not strangers:
                self._settle(job, results, f"{state.told}, {results.told}")
        if strangers:
            jobs.reopen(self.store, job)  # a batch of the same size and time that somebody else sent
            self._identified(self._again(job))
            self._finished(self._again(job))
        elif results.unknown or results.repeated:
            self.say(f"teacher {self.teacher!r}: batch {job.provider_id}: {results.told}")

    async def _downloaded(self, job: Job, results: Results) -> bool | Fault:
        fault = await self.backend.batches().results(job.provider_id, results.emptied())
        return True if fault is None else fault

    def _settle(self, job: Job, results: Results, note: str) -> None:
        """A group at a time: neither the lines nor the requests of a batch are ever held whole."""
        after, more = "", True
        while more:
            asked = jobs.requests_of(self.store, job, after=after, number=_GROUP + 1)
            if more := len(asked) > _GROUP:  # the last results and the end of the batch are one commit
                asked.popitem()
            group: list[tuple[AttemptRow, bytes]] = []
            paid: list[tuple[Spent, Spent]] = []
            for key, request in asked.items():
                line = results.line(key)
                reply = Reply(Fault("protocol", "the batch ended without a line for this request"))
                if line:
                    reply = self.backend.batches().read(json.loads(line), request, line)
                worst = self.settling.worst(request)
                ended = self.settling.ended(key, None, job.created, reply, worst, transport="batch")
                self._outcome(key, ended, reply)
                group.append((ended, line))
                paid.append((worst, Spent(ended.settled_usd or 0.0, ended.input_tokens + ended.output_tokens)))
            after = max(asked, default="")
            settled = jobs.collect(self.store, job, group, "" if more else note)
            if job.run == self.run:
                for each in settled:
                    self.booked(each)
                self._paid(paid)

    def _outcome(self, key: str, row: AttemptRow, reply: Reply) -> None:
        """What a result means for its request: an answer, a failure of its own, or another batch."""
        fault = reply.result if isinstance(reply.result, Fault) else None
        if row.answer is not None:
            self._results[key] = None
        elif fault is None:
            self._results[key] = Failure(row.outcome, row.detail)
        elif fault.kind in ROW:
            self._results[key] = Failure(fault.kind, fault.detail)
        else:
            self._rounds[key] = self._rounds.get(key, 0) + 1
            if self._rounds[key] >= ROUNDS:
                told = f"{self._rounds[key]} batches, the last: {fault.detail}"
                self._results[key] = Failure(fault.kind, told, "not_attempted")
        if row.outcome == "model_mismatch":
            self.fatal = self.fatal or self.settling.mismatch(row)
        if fault is not None and fault.kind in FATAL:
            self.fatal = self.fatal or TeacherError(fatal_sentence(self.teacher, self.backend.url, fault))

    def _turned_away(self, job: Job, fault: Fault) -> None:
        """The provider looked at the batch and took none of it: nothing was billed."""
        if fault.kind == "rate_limit" and job.number > 1:
            self._most = max(1, job.number // 2)
            told = f"its queue is full; the next batches hold {self._most} requests at most"
            self.say(f"teacher {self.teacher!r}: batch {job.provider_id} was not taken ({fault.detail}): {told}")
            self._closed(job, fault)
            self._do(self.clock.sleep(_POLL_MOST_S))
        else:
            self._refused(job, fault)

    def _refused(self, job: Job, fault: Fault) -> None:
        self._closed(job, fault)
        kind = "bad_request" if fault.kind in ROW or fault.kind == "rate_limit" else fault.kind
        self.fatal = self.fatal or TeacherError(
            fatal_sentence(self.teacher, self.backend.url, Fault(kind, f"a batch was not taken: {fault.detail}"))
        )

    def _closed(self, job: Job, fault: Fault) -> None:
        for request in jobs.requests_of(self.store, job).values():
            if job.run == self.run:
                self._give_back(request)
        jobs.failed(self.store, job, fault.detail)

    def _again(self, job: Job) -> Job:
        return next(
            each for each in jobs.open_jobs(self.store, self.backend.identity()) if each.local_id == job.local_id
        )

    def _mine(self, job: Job) -> Job:
        """A batch taken over from a dead process; of the same run, its money is set aside again."""
        if job.run == self.run:
            worst = [self.settling.worst(request) for request in jobs.requests_of(self.store, job).values()]

            def set_aside() -> None:
                for each in worst:
                    self.purse.set_aside(self.teacher, each, self.settling.stage)

            self._do(_now(set_aside))
        return self._again(job)

    def _give_back(self, request: Request) -> None:
        self._paid([(self.settling.worst(request), Spent(requests=0))])

    def _paid(self, rows: list[tuple[Spent, Spent]]) -> None:
        """What was set aside and what was spent, of each."""

        def settle() -> None:
            for worst, actual in rows:
                self.purse.settle(self.teacher, worst, worst, actual, self.settling.stage)
            self.purse.check()

        self._do(_now(settle))

    def _do(self, work: Coroutine[Any, Any, _T]) -> _T:
        future = self.loop.submit(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _tried(self, call: Callable[[], Coroutine[Any, Any, _T | Fault]]) -> _T:
        """The result of a call that may be repeated without harm. Raises TeacherError after `max_stall` in vain."""
        waits, began = 0, self.clock.now()
        while True:
            got = self._do(call())
            if not isinstance(got, Fault):
                return got
            if got.kind in FATAL or got.kind in ROW:
                raise TeacherError(fatal_sentence(self.teacher, self.backend.url, got))
            if self.clock.now() - began > self.max_stall:
                raise TeacherError(
                    f"teacher {self.teacher!r}: {self.backend.url} has failed for {self.max_stall / 60:.0f} minutes "
                    f"({got.detail}); the batch goes on there: run the same command again to collect it"
                )
            waits += 1
            self._wait(got, waits)

    def _wait(self, fault: Fault, waits: int) -> None:
        if fault.retry_after_s is None:
            most = min(_BACKOFF_MOST_S, _BACKOFF_S * 2.0 ** min(waits - 1, 10))
            self._do(self.clock.sleep(most * self.clock.jitter()))
        elif fault.retry_after_s > self.max_stall:
            raise TeacherError(later_sentence(self.teacher, self.backend.url, fault, self.clock.wall()))
        else:
            self._do(self.clock.sleep(later(fault.retry_after_s, self.clock)))


async def _now(work: Callable[[], _T]) -> _T:
    return work()
