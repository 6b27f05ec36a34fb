"""A teacher as elicitors see it: looked up, asked where missing, settled, handed on in order."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from stillhouse.errors import BudgetReached, StillhouseError, TeacherError
from stillhouse.teachers.asking import jobs
from stillhouse.teachers.asking.answers import AttemptRow, Known
from stillhouse.teachers.asking.budget import Spent
from stillhouse.teachers.asking.gate import CUT, Counts, usable
from stillhouse.teachers.asking.keys import key_of, request_body, request_key, text_fault
from stillhouse.teachers.asking.loop import Ended, Loop
from stillhouse.teachers.asking.online import Asker, batched_sentence
from stillhouse.teachers.asking.refusals import refuses
from stillhouse.teachers.asking.seen import Seen
from stillhouse.teachers.asking.wire import WireBackend
from stillhouse.teachers.base import (
    Answer,
    Backend,
    Failure,
    Identity,
    Outcome,
    Request,
    Sampling,
)

if TYPE_CHECKING:
    from stillhouse.teachers.calls import Calls

__all__ = ["Asked", "Screen", "book"]

# what a request becomes before it is looked up or sent; a failure keeps it from both
Screen = Callable[[Request], Request | Failure]

_WINDOW = 256  # requests held at a time for a backend that names no chunk of its own
_STREAM = 1024  # and for a server: the first in line may be waiting for its turn to be tried again
_REDRAWN = 1 << 32  # a second draw after an empty answer lies beyond every planned sample_index


@dataclass(slots=True)
class _Slot:
    """One request on its way: `wanted` is what is asked for it now (another rung, another draw), `result` how it ended."""

    request: Request
    wanted: Request
    body: str = ""
    key: str = ""
    rung: int = 1
    redrawn: bool = False
    stored: bool = False  # answered, and the answer not read yet: a batch has more of them than memory should hold
    result: Answer | Failure | None = None
    ended: Ended | None = None


class Asked:
    """A backend as elicitors see it (the `Generates` protocol)."""

    def __init__(
        self,
        calls: "Calls",
        name: str,
        backend: Backend,
        sampling: Sampling,
        rungs: int,
        refusals: bool,
        screen: Screen | None,
        stage: str,
    ) -> None:
        self.name = name
        self.sampling = sampling
        self.backend = backend
        self._calls = calls
        self._rungs, self._refusals, self._screen, self._stage = rungs, refusals, screen, stage
        self._identity: Identity | None = None
        self._seen = Seen()

    def identity(self) -> Identity:
        """Everything about the teacher that can change its answers."""
        if self._identity is None:
            self._identity = self.backend.identity()
        return self._identity

    def ask(self, requests: Iterable[Request]) -> Iterator[Outcome]:
        """Outcomes in the order of `requests`, of which a bounded number is held at a time.

        Local teachers work in chunks fixed by the position of a request, and a chunk is committed whole: what a resumed
        run still has to generate is batched as it was the first time.
        """
        source = iter(requests)
        if self._batched:
            size = _wire(self.backend).batches().most_items
        elif hasattr(self.backend, "exchange"):
            yield from self._streamed(source, _wire(self.backend))
            return
        else:
            size = getattr(self.backend, "window", 0) or getattr(self.backend, "chunk", 0) or _WINDOW
        while chunk := list(islice(source, size)):
            yield from self._chunk(chunk)

    @property
    def _batched(self) -> bool:
        return getattr(self.backend, "transport", "online") == "batch"

    def _slot(self, request: Request) -> _Slot:
        if fault := text_fault(request):
            return _Slot(request, request, result=Failure("unencodable", fault))
        wanted = self._screen(request) if self._screen else request
        if isinstance(wanted, Failure):
            return _Slot(request, request, result=wanted)
        return _Slot(request, wanted)

    def _chunk(self, requests: list[Request]) -> Iterator[Outcome]:
        slots = [self._slot(request) for request in requests]
        stop: BudgetReached | None = None
        while not stop and (open_slots := [slot for slot in slots if slot.result is None and not slot.stored]):
            stop = self._batch_round(open_slots) if self._batched else self._round(open_slots)
        slots.reverse()
        while slots:
            part = [slots.pop() for _ in range(min(len(slots), _WINDOW))]
            self._read_back([slot for slot in part if slot.stored])
            for slot in part:
                if slot.result is None:
                    assert stop is not None
                    raise stop
                yield self._outcome(slot)

    def _read_back(self, slots: list[_Slot]) -> None:
        known = self._calls.store.known([slot.key for slot in slots]) if slots else {}
        for slot in slots:
            slot.result = known[slot.key].answer

    def _streamed(self, source: Iterator[Request], backend: WireBackend) -> Iterator[Outcome]:
        """Keeps a window of requests on their way and hands their outcomes on in order."""
        asker, loop = self._calls.asker(self.name, backend, self._stage)
        window: deque[_Slot] = deque()
        more = True
        try:
            while True:
                if more and 2 * len(window) <= _STREAM:
                    taken = [self._slot(request) for request in islice(source, _STREAM - len(window))]
                    more = bool(taken)
                    self._started(taken, asker, loop)
                    window.extend(taken)
                if not window:
                    return
                _finished(window[0], asker)
                yield self._outcome(window.popleft())
        except KeyboardInterrupt:
            self._calls.interrupted()
            raise
        except StillhouseError:
            self._calls.stop_asking()
            raise
        finally:
            if any(slot.ended is not None and not slot.ended.done for slot in window):
                self._calls.drain(asker)
            self._calls.askers.discard(asker)

    def _started(self, slots: list[_Slot], asker: Asker, loop: Loop) -> None:
        open_slots = [slot for slot in slots if slot.result is None]
        for slot in open_slots:
            self._named(slot)
        known = self._looked_up({slot.key: slot.wanted for slot in open_slots})
        for slot in open_slots:
            if slot.key in known:
                self._settle(slot, known[slot.key])
        missing = [slot for slot in open_slots if slot.result is None]
        if missing and self._from_batches([slot.key for slot in missing]):
            self._started(missing, asker, loop)
        elif missing:
            for slot, ended in zip(missing, loop.submit_all([self._obtain(slot, asker) for slot in missing])):
                slot.ended = ended

    def _from_batches(self, keys: list[str]) -> bool:
        """Whether batches that held some of these have just been settled. Raises TeacherError where one is still out."""
        if not jobs.pending(self._calls.store, keys):
            return False
        batcher = self._calls.batcher(self.name, _wire(self.backend), self._stage)
        if waiting := batcher.settle_ended(keys):
            raise TeacherError(batched_sentence(self.name, len(waiting), min(waiting.values())))
        return True

    async def _obtain(self, slot: _Slot, asker: Asker) -> None:
        """One slot to its end: the next rung, another draw, other attempts."""
        if slot.rung == 1 and not slot.redrawn:  # looked up a moment ago with its neighbours
            self._settle(slot, await asker(slot.key, slot.body, slot.wanted))
        while slot.result is None:
            self._named(slot)
            found = self._looked_up({slot.key: slot.wanted})
            self._settle(slot, found[slot.key] if found else await asker(slot.key, slot.body, slot.wanted))

    def _named(self, slot: _Slot) -> None:
        slot.body = request_body(self.identity(), slot.wanted)
        slot.key = key_of(slot.body)

    def _outcome(self, slot: _Slot) -> Outcome:
        result = slot.result or Failure("no_answer")
        if self._refusals and isinstance(result, Answer) and refuses(result.text):
            result = Failure("refused", f"begins: {result.text[:80]}")  # the store keeps the text for a better reader
        counts = self._calls.counts()[self.name]
        _count(counts, result, slot.rung)
        if slot.key:
            counts.same += self._seen.again(slot.key)
        return Outcome(slot.request, result, slot.key)

    def _round(self, slots: list[_Slot]) -> BudgetReached | None:
        """Looks the slots' requests up, asks what is missing, and settles each slot or gives it its next request.

        Gives the limit of the budget that kept some of them from being asked.
        """
        wanted: dict[str, Request] = {}
        for slot in slots:
            self._named(slot)
            wanted.setdefault(slot.key, slot.wanted)
        results = self._looked_up(wanted)
        missing = {key: request for key, request in wanted.items() if key not in results}
        missing, stop = self._affordable(missing)
        results |= self._asked(missing) if missing else {}
        for slot in slots:
            if slot.key in results:
                self._settle(slot, results[slot.key])
        return self._calls.purse.passed(self.name, Spent(), self._stage) if stop else None

    def _batch_round(self, slots: list[_Slot]) -> BudgetReached | None:
        """The same in batches."""
        wanted: dict[str, Request] = {}
        ended: dict[str, Failure | None] = {}
        for start in range(0, len(slots), _WINDOW):
            part = slots[start : start + _WINDOW]
            for slot in part:
                self._named(slot)
                slot.body = (
                    ""  # made again when its line is written: a batch has more text than memory should hold twice
                )
            wanted |= {slot.key: slot.wanted for slot in part}
            known = self._looked_up({slot.key: slot.wanted for slot in part})
            ended |= {key: found if isinstance(found, Failure) else None for key, found in known.items()}
        batcher = self._calls.batcher(self.name, _wire(self.backend), self._stage)
        if missing := {key: request for key, request in wanted.items() if key not in ended}:
            ended |= batcher(missing)
        for slot in slots:
            if slot.key in ended:
                failure = ended[slot.key]
                slot.stored = failure is None
                if failure is not None:
                    self._settle(slot, failure)
        return batcher.stop

    def _affordable(self, missing: dict[str, Request]) -> tuple[dict[str, Request], BudgetReached | None]:
        """As many of the missing as the budget still allows; a local teacher is limited by requests, tokens and hours."""
        purse, allowed, stop = self._calls.purse, {}, None
        for number, (key, request) in enumerate(missing.items(), 1):
            stop = purse.passed(self.name, Spent(requests=number), self._stage)
            if stop:
                break
            allowed[key] = request
        return allowed, stop

    def _looked_up(self, wanted: dict[str, Request]) -> dict[str, Answer | Failure]:
        counts = self._calls.counts()[self.name]
        found: dict[str, Answer | Failure] = {}
        for key, known in self._calls.store.known(list(wanted)).items():
            if known.answer is None and known.failure in self._calls.retry:
                continue
            found[key] = _result(known)
        with self._calls.counting:
            for answer in found.values():
                if isinstance(answer, Answer):
                    counts.hits += 1
                    counts.hit_input_tokens += answer.input_tokens
                    counts.hit_output_tokens += answer.output_tokens
                    counts.hit_cost_usd += answer.cost_usd or 0.0
        return found

    def _asked(self, missing: dict[str, Request]) -> dict[str, Answer | Failure]:
        """Asks the backend and commits what it gave, before an error too.

        A local teacher's unfinished chunk is not kept: the rest of it would be batched anew, and could differ. One that
        is given a window of many chunks has each of them committed when it is whole.
        """
        whole = self.backend.chunk if getattr(self.backend, "window", 0) else 0  # type: ignore[attr-defined]
        keys = {id(request): key for key, request in missing.items()}
        results: dict[str, Answer | Failure] = {}
        rows: list[AttemptRow] = []
        started, began = time.time(), time.monotonic()
        try:
            for outcome in self.backend.ask(list(missing.values())):
                key = keys.get(id(outcome.request)) or request_key(self.identity(), outcome.request)
                results[key] = usable(outcome.result) if isinstance(outcome.result, Answer) else outcome.result
                rows += _rows(key, outcome, results[key], started, self._stage)
                if whole and len(results) % whole == 0:
                    self._commit(rows, missing, results, time.monotonic() - began)
                    rows, started, began = [], time.time(), time.monotonic()
        except BaseException:
            if not getattr(self.backend, "chunk", 0):
                self._commit(rows, missing, results, time.monotonic() - began)
            raise
        self._commit(rows, missing, results, time.monotonic() - began)
        for key in missing:
            results.setdefault(key, Failure("no_answer", "the teacher gave nothing back for this request"))
        return results

    def _commit(
        self,
        rows: list[AttemptRow],
        missing: dict[str, Request],
        results: dict[str, Answer | Failure],
        seconds: float,
    ) -> None:
        """What a local teacher gave in so many seconds; where its hours have a price, the attempts share it equally."""
        if rows and (hourly := getattr(self.backend, "hourly_usd", None)) is not None:
            rows = [_priced(row, hourly * seconds / 3600 / len(rows)) for row in rows]
            results |= {row.key: row.answer for row in rows if row.answer is not None}
        bodies = [(row.key, request_body(self.identity(), missing[row.key])) for row in rows]
        self._calls.store.commit(self._calls.run, self.name, rows, bodies)
        counts = self._calls.counts()[self.name]
        counts.seconds += seconds if rows else 0.0
        for row in rows:
            book(counts, row)
            spent = Spent(row.settled_usd or 0.0, row.input_tokens + row.output_tokens)
            self._calls.purse.spend(self.name, spent, self._stage)

    def _settle(self, slot: _Slot, result: Answer | Failure) -> None:
        if isinstance(result, Failure) and result.kind in CUT and slot.rung < self._rungs:
            slot.rung += 1
            longer = replace(slot.wanted.sampling, max_tokens=2 * slot.wanted.sampling.max_tokens)
            slot.wanted = replace(slot.wanted, sampling=longer)
        elif (
            isinstance(result, Failure)
            and result.kind == "empty"
            and not slot.redrawn
            and slot.wanted.sampling.temperature > 0
        ):
            slot.redrawn = True
            slot.wanted = replace(slot.wanted, sample_index=_REDRAWN + slot.wanted.sample_index)
        else:
            slot.result = result


def _wire(backend: Any) -> WireBackend:
    return backend


def _result(known: Known) -> Answer | Failure:
    return known.answer if known.answer is not None else Failure(known.failure, known.detail)


def _rows(key: str, outcome: Outcome, result: Answer | Failure, started: float, stage: str) -> list[AttemptRow]:
    """The attempt to be written down; none where the teacher was not asked at all."""
    given = outcome.result
    finished = time.time()
    if isinstance(given, Failure):
        if given.state == "not_attempted":
            return []
        return [AttemptRow(key, given.kind, detail=given.detail, started=started, finished=finished, stage=stage)]
    failed = isinstance(result, Failure)
    return [
        AttemptRow(
            key,
            result.kind if isinstance(result, Failure) else "answered",
            None if failed else given,
            detail=result.detail if isinstance(result, Failure) else "",
            started=started,
            finished=finished,
            served_model=given.served_model,
            input_tokens=given.input_tokens,
            output_tokens=given.output_tokens,
            settled_usd=given.cost_usd,
            stage=stage,
            raw=given.text.encode("utf-8", "surrogatepass") if failed else b"",
            logprobs=outcome.logprobs,
        )
    ]


def _priced(row: AttemptRow, usd: float) -> AttemptRow:
    answer = None if row.answer is None else replace(row.answer, cost_usd=usd)
    return replace(row, answer=answer, settled_usd=usd, price_id="recipe, per hour")


def _count(counts: Counts, result: Answer | Failure, rung: int) -> None:
    counts.asked += 1
    if isinstance(result, Answer):
        counts.answered += 1
        counts.rungs[str(rung)] = counts.rungs.get(str(rung), 0) + 1
    elif result.state == "not_attempted":
        counts.not_attempted += 1
    else:
        counts.failed[result.kind] = counts.failed.get(result.kind, 0) + 1


def _finished(slot: _Slot, asker: Asker) -> None:
    """Waits for a slot; what stops the whole run is raised in place of what it did to this slot."""
    if slot.ended is None:
        return
    try:
        slot.ended.result()
    except (CancelledError, StillhouseError) as error:
        raise asker.fatal or error from None


def book(counts: Counts, row: AttemptRow) -> None:
    """Adds one attempt to what a teacher was asked."""
    counts.attempts += 1
    counts.cut += row.outcome in CUT
    counts.input_tokens += row.input_tokens
    counts.output_tokens += row.output_tokens
    counts.cost_usd += row.settled_usd or 0.0
    if row.served_model:
        counts.served[row.served_model] = counts.served.get(row.served_model, 0) + 1
    for name in row.answer.ignored if row.answer else ():
        counts.ignored[name] = counts.ignored.get(name, 0) + 1
