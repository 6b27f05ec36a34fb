"""How far a run is: bars on a terminal, and always `progress.json` in the run folder."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from stillhouse.store import write_json

T = TypeVar("T")
_EVERY = 1.0  # seconds between two writes of progress.json: it is for people and monitors, not a log


class Task:
    """One long step. `advance` is cheap: it writes at most once a second."""

    def __init__(self, owner: "Progress", stage: str, total: int | None, bar: Any) -> None:
        self.stage, self.total, self.done = stage, total, 0
        self._owner, self._bar, self._started, self._note = owner, bar, time.monotonic(), ""

    def advance(self, amount: int = 1, note: str = "") -> None:
        self.done += amount
        self._note = note or self._note
        self._owner.changed(self)

    def state(self) -> dict[str, Any]:
        seconds = time.monotonic() - self._started
        rate = self.done / seconds if seconds > 0 else 0.0
        left = (self.total - self.done) / rate if self.total is not None and rate > 0 else None
        return {
            "stage": self.stage,
            "done": self.done,
            "total": self.total,
            "per_second": round(rate, 3),
            "seconds_left": None if left is None else round(max(left, 0.0), 1),
            "note": self._note,
        }


class Progress:
    """The bars of one run, and its `progress.json`. Quiet where nobody watches: `quiet`, or no terminal."""

    def __init__(self, folder: Path, *, quiet: bool = False) -> None:
        self._path = folder / "progress.json"
        self._quiet = quiet or not sys.stderr.isatty()
        self._written = 0.0
        self._bars: Any = None

    def __enter__(self) -> "Progress":
        if not self._quiet:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bars

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            rates = (TextColumn("{task.fields[rate]}/s"), TimeRemainingColumn(), TextColumn("[dim]{task.fields[note]}"))
            self._bars = Bars(*columns, *rates, console=Console(stderr=True), transient=False)
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars:
            self._bars.stop()

    def say(self, text: str) -> None:
        """A line for people, above the bars."""
        if self._bars:
            self._bars.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    @contextmanager
    def task(self, stage: str, total: int | None) -> Iterator[Task]:
        bar = self._bars.add_task(stage, total=total, rate="-", note="") if self._bars else None
        task = Task(self, stage, total, bar)
        self._write(task)
        yield task
        self._show(task)
        self._write(task)

    def over(self, items: Iterable[T], stage: str, total: int | None) -> Iterator[T]:
        with self.task(stage, total) as task:
            for item in items:
                yield item
                task.advance()

    def changed(self, task: Task) -> None:
        if time.monotonic() - self._written >= _EVERY:
            self._show(task)
            self._write(task)

    def finished(self, state: str) -> None:
        write_json(self._path, {"stage": state, "done": 1, "total": 1, "updated": time.time()})

    def _show(self, task: Task) -> None:
        if self._bars:
            state = task.state()
            self._bars.update(task._bar, completed=task.done, rate=state["per_second"], note=task._note)

    def _write(self, task: Task) -> None:
        self._written = time.monotonic()
        write_json(self._path, {**task.state(), "updated": time.time()})
