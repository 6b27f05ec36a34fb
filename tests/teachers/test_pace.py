"""How near the pace comes to a ceiling that nobody announces, in virtual time: no test sleeps, no busy machine disturbs."""

import asyncio
import random
from typing import Any

import pytest

from stillhouse.teachers.asking.pace import Pace
from stillhouse.teachers.asking.wire import Clock

LATENCY_S = 0.2


class VirtualLoop(asyncio.SelectorEventLoop):
    """Where nothing is ready, the clock jumps to what comes next."""

    def __init__(self) -> None:
        super().__init__()
        self.moment = 0.0

    def time(self) -> float:
        return self.moment

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self.moment = max(self.moment, self._scheduled[0]._when)  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


class LoopClock(Clock):
    def __init__(self) -> None:
        self._random = random.Random(0)

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def jitter(self) -> float:
        return 1.0 - self._random.random()


class Provider:
    """Answers after its latency; more than `ceiling` at once are refused at once, without a hint."""

    def __init__(self, ceiling: int) -> None:
        self.ceiling, self.out, self.refused = ceiling, 0, 0

    async def __call__(self) -> bool:
        if self.out >= self.ceiling:
            self.refused += 1
            return False
        self.out += 1
        await asyncio.sleep(LATENCY_S)
        self.out -= 1
        return True


async def finished(pace: Pace, provider: Provider, number: int, *, lower_to: int = 0) -> float:
    """Seconds until `number` requests are answered, each asked again after a refusal as the asker does."""

    async def one() -> None:
        waits = 0
        while True:
            await pace.admit()
            try:
                if await provider():
                    pace.succeeded(LATENCY_S)
                    return
                pace.limited(None)
            finally:
                pace.release()
            waits += 1
            await asyncio.sleep(min(60.0, 2.0 ** (waits - 1)) * pace.clock.jitter())

    if lower_to:
        asyncio.get_running_loop().call_later(10.0, lambda: setattr(provider, "ceiling", lower_to))
    window = asyncio.Semaphore(1024)

    async def held() -> None:
        async with window:
            await one()

    await asyncio.gather(*(held() for _ in range(number)))
    return asyncio.get_running_loop().time()


def simulated(work: Any) -> float:
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


@pytest.mark.parametrize("ceiling", [8, 24, 64])
def test_5000_requests_take_little_longer_than_the_ceiling_allows(ceiling: int) -> None:
    """1.15 of the ideal is the target; and the provider is not hammered."""
    provider = Provider(ceiling)
    seconds = simulated(finished(Pace("u", 256, LoopClock()), provider, 5000))
    assert seconds / (5000 / ceiling * LATENCY_S) <= 1.15
    assert provider.refused <= 0.02 * 5000


def test_without_a_ceiling_all_places_are_soon_taken() -> None:
    seconds = simulated(finished(Pace("u", 64, LoopClock()), Provider(10**9), 5000))
    assert seconds / (5000 / 64 * LATENCY_S) <= 1.1


def test_a_ceiling_that_falls_is_followed() -> None:
    """From 64 to 16 after ten seconds: few refusals, no collapse."""
    provider = Provider(64)
    seconds = simulated(finished(Pace("u", 256, LoopClock()), provider, 6000, lower_to=16))
    done_before = 10.0 / LATENCY_S * 64
    ideal = 10.0 + (6000 - done_before) / 16 * LATENCY_S
    assert seconds / ideal <= 1.25
    assert provider.refused <= 0.05 * 6000
