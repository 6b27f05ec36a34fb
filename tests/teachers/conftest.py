"""Every test that opens a store leaves it with balanced books: the fixture looks, so that no test can forget to."""

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stillhouse.teachers.asking.books import audit
from stillhouse.teachers.asking.wire import Clock
from stillhouse.teachers.calls import Calls


class JumpingClock(Clock):
    """A clock on which sleeping takes no time; it can be set forwards and backwards by hand."""

    def __init__(self) -> None:
        self.seconds, self.offset = 1000.0, 0.0
        self.slept: list[float] = []
        self._jitters = 0

    def now(self) -> float:
        return self.seconds

    def wall(self) -> float:
        return 1_800_000_000.0 + self.seconds + self.offset

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += max(0.0, seconds)
        await asyncio.sleep(0.001)

    def jitter(self) -> float:
        self._jitters += 1
        return (self._jitters * 0.6180339887 % 1.0) or 1.0


class SharedClock(JumpingClock):
    """The same, for many who sleep at once: they wait beside each other, and not one after the other.

    Time stands still for half a real second, so that answers on their way arrive before it jumps, on a busy machine too.
    """

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        until = self.seconds + max(0.0, seconds)
        await asyncio.sleep(0.5)
        self.seconds = max(self.seconds, until)


@pytest.fixture
def shared_clock() -> JumpingClock:
    return SharedClock()


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Calls]]:
    """Opens the test's store, as often as it likes; at the end all of them must balance."""
    made: list[Calls] = []

    def open_calls(**knobs: Any) -> Calls:
        for earlier in made:
            earlier.close()
        made.append(Calls(tmp_path / "store", **knobs))
        return made[-1]

    yield open_calls
    for one in made:
        one.close()
    if made:
        with Calls(tmp_path / "store") as last:
            assert audit(last.store, deep=True) == []
        for one in made:
            for name, counts in one.counts().items():
                assert counts.balanced(), f"{name}: {counts}"


@pytest.fixture
def data() -> Path:
    """The folder of test data made by others."""
    named = os.environ.get("STILLHOUSE_TEST_DATA")
    if not named:
        pytest.skip("STILLHOUSE_TEST_DATA names no folder of test data")
    return Path(named)
