"""An event loop in a thread, and the writer in it that groups commits."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

from stillhouse.errors import StillhouseError
from stillhouse.teachers.asking.answers import AnswerStore

__all__ = ["Loop", "Writer"]

_GROUP, _GROUP_S = 64, 0.002


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
