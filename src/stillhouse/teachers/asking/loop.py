"""An event loop in a thread, and the writer in it that groups commits."""

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from stillhouse.errors import StillhouseError
from stillhouse.teachers.asking.answers import AnswerStore
from stillhouse.teachers.asking.http import close_clients

__all__ = ["Ended", "Loop", "Writer"]

_GROUP = 64

Write = Callable[[sqlite3.Connection], Any]


class Ended:
    """How a task of the loop ended, for the one thread that waits for it: a `Future` would cost as much as a look-up."""

    __slots__ = ("_error", "_waiter", "done")

    def __init__(self) -> None:
        self.done = False
        self._error: BaseException | None = None
        self._waiter: threading.Lock | None = None

    def tell(self, task: "asyncio.Task[None]") -> None:
        self._error = CancelledError() if task.cancelled() else task.exception()
        self.done = True
        if self._waiter is not None:  # set before `done` was looked at, so that one of the two sees the other
            self._waiter.release()

    def result(self) -> None:
        """Waits, and raises what the task raised, or CancelledError."""
        if not self.done:
            waiter = threading.Lock()
            waiter.acquire()
            self._waiter = waiter
            if not self.done:
                waiter.acquire()
        if self._error is not None:
            raise self._error


class Loop:
    """An event loop in a thread of its own, started when first needed."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="stillhouse-calls", daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, Any]) -> "Future[Any]":
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def submit_all(self, works: Sequence[Coroutine[Any, Any, None]]) -> "list[Ended]":
        """The same for many at once: the loop is woken once and not once for each."""
        ended = [Ended() for _ in works]

        def start() -> None:
            for work, each in zip(works, ended):
                self.loop.create_task(work).add_done_callback(each.tell)

        self.loop.call_soon_threadsafe(start)
        return ended

    def close(self, last: Coroutine[Any, Any, None] | None = None) -> None:
        """Cancels what is still under way, does the `last` thing, and ends the thread."""
        self.submit(_ended(last)).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=10)
        self.loop.close()


async def _ended(last: Coroutine[Any, Any, None] | None) -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    if last is not None:
        await last
    await close_clients()


class Writer:
    """Groups the writes of many requests into commits; a write is on disk when `put` returns.

    The statements run in the loop. Committing, which waits for the disk, and opening where another process is writing run
    in a thread beside it, and what arrives meanwhile is the next group.
    """

    def __init__(self, store: AnswerStore) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(1, "stillhouse-store")
        self._waiting: deque[tuple[Write, asyncio.Future[Any]]] = deque()
        self._busy = False

    async def put(self, write: Write) -> Any:
        """What `write` gave. Raises RunFailed where the disk takes no more, and what a write of the same group raised."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((write, done))
        if not self._busy:
            self._busy = True
            asyncio.get_running_loop().call_soon(self._next)  # with what else this turn of the loop brings
        return await done

    async def idle(self) -> None:
        """Returns when nothing is left to write."""
        while self._busy:
            await asyncio.sleep(0.001)
        self._thread.shutdown()

    def _next(self) -> None:
        self._busy = bool(self._waiting)
        if not self._busy:
            return
        if self._store.begun_at_once():  # a thread's turn is as long as a request's whole processor time
            self._begun(None)
        else:
            self._then(self._store.begin, lambda opened: self._begun(opened.exception()))

    def _then(self, work: Callable[[], None], after: "Callable[[asyncio.Future[None]], None]") -> None:
        asyncio.get_running_loop().run_in_executor(self._thread, work).add_done_callback(after)

    def _begun(self, failed: BaseException | None) -> None:
        group = [self._waiting.popleft() for _ in range(min(_GROUP, len(self._waiting)))]
        if failed is not None:
            self._failed(group, failed)
            return
        try:
            results = [write(self._store.db) for write, _ in group]
        except (StillhouseError, sqlite3.Error, OSError, ValueError, TypeError, LookupError) as error:
            # the others of the group must hear of it and the lock be given back
            self._failed(group, self._store.give_up(error))
            return
        self._then(self._store.finish, partial(self._committed, group, results))

    def _committed(
        self, group: "list[tuple[Write, asyncio.Future[Any]]]", results: list[Any], ended: "asyncio.Future[None]"
    ) -> None:
        if error := ended.exception():
            self._failed(group, error)
            return
        for (_, done), result in zip(group, results):
            if not done.cancelled():
                done.set_result(result)
        self._next()

    def _failed(self, group: "list[tuple[Write, asyncio.Future[Any]]]", error: BaseException) -> None:
        for _, done in group:
            if not done.cancelled():
                done.set_exception(error)
        self._next()
