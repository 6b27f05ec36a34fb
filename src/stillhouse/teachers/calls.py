"""The one place where a teacher is asked: every request is looked up first, and only what is missing is asked and paid.

`Calls` opens the store; `Calls.teacher` wraps a backend, and what it gives is all that an elicitor ever sees. An answer
is on disk before it is handed on. A failure is never stored as an answer; one that would only repeat itself (cut off,
refused) is remembered as that failure. Answers come in the order of the requests.
"""

import asyncio
import logging
import os
import threading
import uuid
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import asdict
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from stillhouse.compliance.watch import Watch
from stillhouse.errors import RecipeError
from stillhouse.teachers.asking.answers import AnswerStore, AttemptRow, default_store
from stillhouse.teachers.asking.asked import Asked, book
from stillhouse.teachers.asking.batch import Batcher
from stillhouse.teachers.asking.books import spent_before
from stillhouse.teachers.asking.budget import Budget, Purse
from stillhouse.teachers.asking.gate import Counts
from stillhouse.teachers.asking.http import is_own
from stillhouse.teachers.asking.leases import owner, settle_dead
from stillhouse.teachers.asking.loop import Loop, Writer
from stillhouse.teachers.asking.online import Asker
from stillhouse.teachers.asking.pace import Pace
from stillhouse.teachers.asking.pilot import Pilot, Tally
from stillhouse.teachers.asking.scoring import Revealing, Scoring
from stillhouse.teachers.asking.settling import Settling
from stillhouse.teachers.asking.verdicts import Verdicts
from stillhouse.teachers.asking.wire import Clock, Price, WireBackend
from stillhouse.teachers.base import Answer, Backend, Failure, Reveals, Sampling, Scores

_CUT = 0.02  # of the attempts: more met their limit of tokens than bad luck explains
_SAME = 0.001  # of the requests: more than the filter takes for seen by mistake
_log = logging.getLogger("stillhouse.teachers")

__all__ = ["Asked", "Budget", "Calls", "Counts", "default_store"]


class Calls:
    """Opens the store in the folder `store` (STILLHOUSE_STORE, else the user's cache folder) and asks teachers through it.

    `run` names the run in the ledger: what it spent before counts against its `budget`. `retry` lists failures
    (truncated, refused, empty, context_overflow) to be asked again instead of being remembered. `max_stall` is how many
    seconds an endpoint may be down before the run stops. `watch` screens what leaves. `say` tells a person what they should
    know while it happens (a batch was sent, another model answers). `on` "ray" spreads what local teachers generate. With a
    `pilot` nobody is asked: what is not stored is counted there.
    Close it, or use it as a context manager.
    """

    def __init__(
        self,
        store: Path | str | None = None,
        *,
        run: str = "",
        budget: Budget | None = None,
        retry: Collection[str] = (),
        max_stall: float = 900.0,
        clock: Clock | None = None,
        watch: Watch | None = None,
        say: Callable[[str], None] = _log.warning,
        on: Literal["ray"] | None = None,
        pilot: Tally | None = None,
    ) -> None:
        self.store, self.on, self.pilot = AnswerStore(store), on, pilot
        self.watch, self.say = watch or Watch(), say
        self.watch.salt = self.store.salt()
        self.run = run or f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.retry = frozenset(retry)
        self.clock = clock or Clock()
        settle_dead(self.store)
        self.purse = Purse(budget or Budget(), self.clock, spent_before(self.store, self.run))
        self._max_stall, self._owner, self._writer = max_stall, owner(), Writer(self.store)
        self._counts: dict[str, Counts] = {}
        self.counting = threading.Lock()  # counts are added to by the caller's thread and by the event loop's
        self._paces: dict[str, tuple[Pace, asyncio.Semaphore]] = {}
        self._flying: dict[str, asyncio.Future[Answer | Failure]] = {}
        self.askers: set[Asker] = set()  # one for each stream of answers that is being read
        self._draining: list[Future[None]] = []
        self._loop: Loop | None = None
        self._said: set[str] = set()
        self._prices: dict[str, dict[str, Any]] = {}
        if self.store.recovered:
            self.say(self.store.recovered)

    def teacher(
        self,
        name: str,
        backend: Backend,
        sampling: Sampling | None = None,
        *,
        rungs: int | None = None,
        refusals: bool | None = None,
        stage: str = "",
        budget: Budget | None = None,
        stage_budget: Budget | None = None,
    ) -> Asked:
        """The teacher an elicitor is given. It scores and reveals where its backend does.

        `rungs`: how many limits a cut-off answer may be given, each twice the one before (backend's own default if
        None). `refusals`: an answer that begins by saying it will not be given is `refused` (None: of servers, not of
        local teachers). What is asked of somebody else's server is screened first. `budget` is this teacher's own in the
        whole run, `stage_budget` that of `stage`. Raises RecipeError for sampling that cannot be, and for a server whose
        price nobody knows.
        """
        sampling = sampling or Sampling()
        online = hasattr(backend, "exchange")
        if sampling.n > 1 and sampling.temperature == 0:
            self._once(
                f"teacher {name!r}: {sampling.n} answers at temperature 0 are one answer paid {sampling.n} times; raise it"
            )
        if not 0 <= sampling.temperature < inf or not 0 < sampling.top_p <= 1 or sampling.max_tokens < 1:
            raise RecipeError(
                f"teacher {name!r}: sampling needs a temperature from 0 on, 0 < top_p <= 1 and max_tokens >= 1, not {sampling}"
            )
        if online:
            self._prices[name] = asdict(_known_price(name, backend))
        elif (hourly := getattr(backend, "hourly_usd", None)) is not None:
            self._prices[name] = {"hourly_usd": hourly, "id": "recipe, per hour"}
        if budget is not None and not self.purse.knows("teacher", name):
            self.purse.limit("teacher", name, budget, spent_before(self.store, self.run, teacher=name))
        if stage_budget is not None and not self.purse.knows("stage", stage):
            self.purse.limit("stage", stage, stage_budget, spent_before(self.store, self.run, stage=stage))
        kind = Revealing if isinstance(backend, Reveals) else Scoring if isinstance(backend, Scores) else Asked
        kind = kind if self.pilot is None else Pilot
        leaves = self.watch.leaving if online and not is_own(backend.url) else None  # type: ignore[attr-defined]
        self._counts.setdefault(name, Counts())
        steps = getattr(backend, "rungs", 1) if rungs is None else rungs
        return kind(self, name, backend, sampling, steps, online if refusals is None else refusals, leaves, stage)

    def _once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self.say(text)

    def verdicts(self, stage: str, parser: str, version: str) -> Verdicts:
        """The book of what becomes of each slot of a step of this run."""
        return Verdicts(self.store, self.run, stage, parser, version)

    def prices(self) -> dict[str, dict[str, Any]]:
        """What each server was taken to cost, in dollars per million tokens, a local teacher by the hour; and where from."""
        return self._prices

    def counts(self) -> dict[str, Counts]:
        """What each teacher was asked, answered and cost since this object was made."""
        return self._counts

    def batcher(self, name: str, backend: WireBackend, stage: str) -> Batcher:
        """Asks one server in batches."""
        self._loop = self._loop or Loop()
        who = self._asking(name, backend, stage)
        return Batcher(**who, say=self.say, max_stall=self._max_stall, loop=self._loop)

    def asker(self, name: str, backend: WireBackend, stage: str) -> tuple[Asker, Loop]:
        """Asks one server; pace and seats are shared by all who ask the same endpoint for the same model."""
        self._loop = self._loop or Loop()
        endpoint = f"{backend.url} {backend.identity().model}"
        if endpoint not in self._paces:
            pace = Pace(backend.url, backend.max_concurrency, self.clock, self._max_stall)
            self._paces[endpoint] = (pace, asyncio.Semaphore(backend.max_concurrency))
        pace, seats = self._paces[endpoint]
        who = self._asking(name, backend, stage)
        made = Asker(**who, writer=self._writer, pace=pace, seats=seats, flying=self._flying, retry=self.retry)
        self.askers.add(made)
        return made, self._loop

    def stop_asking(self) -> int:
        """Nothing new leaves for any server; gives how many requests are out, which have 30 s to come home."""
        assert self._loop is not None
        going = [asker for asker in self.askers if not asker.leaving]
        for asker in going:
            asker.leaving = True
            self._draining.append(self._loop.submit(asker.drain()))
        return sum(len(asker.exchanging) for asker in going)

    def interrupted(self) -> None:
        """Stops all and waits for what is out; who is interrupted again, while being told or while waiting, waits no more."""
        try:
            out = self.stop_asking()
            self.say(f"waiting for {out} requests that are out; Ctrl-C again quits at once")
            for each in self._draining:
                each.result()
        finally:
            self._draining = []

    def drain(self, asker: Asker) -> None:
        """Waits for what this asker has out, and all others where all were stopped."""
        assert self._loop is not None
        if not asker.leaving:
            self._loop.submit(asker.drain()).result()
        waiting, self._draining = self._draining, []
        for each in waiting:
            each.result()

    def _asking(self, name: str, backend: WireBackend, stage: str) -> dict[str, Any]:
        """The fields of `Asking`."""

        def booked(row: AttemptRow) -> None:
            with self.counting:
                book(self._counts[name], row)

        return {
            "backend": backend, "store": self.store, "purse": self.purse, "clock": self.clock, "run": self.run,
            "settling": Settling(backend, _known_price(name, backend), self.clock, name, stage, self.say),
            "teacher": name, "owner": self._owner, "booked": booked,
        }  # fmt: skip

    def close(self) -> None:
        for name, counts in self._counts.items():
            if counts.cut > _CUT * counts.attempts:
                share = 100 * counts.cut / counts.attempts
                self.say(
                    f"teacher {name!r}: {share:.0f} % of {counts.attempts} attempts were cut off; raise sampling.max_tokens"
                )
            if counts.same > _SAME * counts.asked:
                self.say(
                    f"teacher {name!r}: {counts.same} of {counts.asked} requests are those of an earlier row again and share its "
                    "answer; for several answers to one prompt write `sampling: {n: ...}` and a temperature"
                )
            for field, number in counts.ignored.items():
                self.say(f"teacher {name!r}: the server passed over {field} in {number} of {counts.attempts} answers")
        if self._loop is not None:
            self._loop.close(self._writer.idle())
            self._loop = None
            settle_dead(self.store, mine=self._owner)
        self.store.close()

    def __enter__(self) -> "Calls":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _known_price(name: str, backend: Any) -> Price:
    price = backend.price()
    if price is None:
        raise RecipeError(
            f"teacher {name!r}: nobody knows what {backend.identity().model!r} costs at {backend.url}; give the teacher "
            "`price: {in: ..., out: ...}` in dollars per million tokens (0 for a server of your own)"
        )
    return price
