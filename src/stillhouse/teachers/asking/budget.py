"""A budget that holds: money is reserved before a request leaves and settled when its answer is there.

`hard` reserves the worst case of each request and never overshoots, as long as the server enforces max_tokens, the
count of prompt tokens is an upper bound and the price is right; a settlement above its reservation is a finding, and
stops the run. `soft`, the default, reserves the 99th percentile of the answers seen (the worst case for the first 200)
and keeps room for one worst case: far faster near the end of a budget, and without a proven bound. What does not fit
waits for a settlement; only when nothing is out that could be settled is the budget reached.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from stillhouse.errors import BudgetReached, RecipeError, RunFailed
from stillhouse.teachers.asking.wire import Clock

__all__ = ["Budget", "Purse", "Spent"]

_LEARNING = 200
_SEEN = 2000
_PERCENTILE = 0.99


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of one run, over all its teachers; None is no limit. Raises RecipeError for a limit that is not positive."""

    usd: float | None = None
    tokens: int | None = None
    requests: int | None = None
    hours: float | None = None
    mode: Literal["soft", "hard"] = "soft"

    def __post_init__(self) -> None:
        for name in ("usd", "tokens", "requests", "hours"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise RecipeError(f"budget.{name} is more than 0, not {value!r}; leave it out for no limit")
        if self.mode not in ("soft", "hard"):
            raise RecipeError(f"budget.mode is soft or hard, not {self.mode!r}")


@dataclass(frozen=True, slots=True)
class Spent:
    """What one request may cost or did cost: dollars, tokens and attempts."""

    usd: float = 0.0
    tokens: int = 0
    requests: int = 1

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.usd + other.usd, self.tokens + other.tokens, self.requests + other.requests)

    def __sub__(self, other: "Spent") -> "Spent":
        return Spent(self.usd - other.usd, self.tokens - other.tokens, self.requests - other.requests)


@dataclass
class Purse:
    """The budget of a run and what is left of it; `spent` begins with what the same run spent before."""

    budget: Budget
    clock: Clock
    spent: Spent = Spent(requests=0)
    reserved: Spent = Spent(requests=0)
    overshot: str = ""
    _out: int = 0
    _started: float = 0.0
    _outputs: dict[str, deque[float]] = field(default_factory=dict)
    _settled: asyncio.Event | None = None

    def __post_init__(self) -> None:
        self._started = self.clock.now()

    async def reserve(self, teacher: str, worst: Spent) -> Spent:
        """The part of the budget set aside; waits until it fits. Raises BudgetReached when it never will."""
        while True:
            planned = self._planned(teacher, worst)
            reached = self.reached(self.spent + self.reserved + worst)
            if not reached:
                self.set_aside(planned)
                return planned
            if self._out == 0:
                raise BudgetReached(f"the budget is reached: {reached}; run again with a larger one to go on")
            self._settled = self._settled or asyncio.Event()
            self._settled.clear()
            await self._settled.wait()

    def try_reserve(self, worst: Spent) -> str:
        """Sets the worst case aside at once, for a batch: nothing of it settles before all is sent. Else the limit, in words."""
        reached = self.reached(self.spent + self.reserved + worst)
        if not reached:
            self.set_aside(worst)
        return reached

    def set_aside(self, planned: Spent) -> None:
        """Reserves without a question what is out already."""
        self.reserved, self._out = self.reserved + planned, self._out + 1

    def settle(self, teacher: str, planned: Spent, worst: Spent, actual: Spent) -> None:
        """Gives the reservation back and books what was really spent."""
        self.reserved, self._out = self.reserved - planned, self._out - 1
        self.spent += actual
        shares = [actual.tokens / worst.tokens if worst.tokens else 0.0, actual.usd / worst.usd if worst.usd else 0.0]
        if actual.tokens:  # what failed without being billed says nothing about the length of answers
            self._outputs.setdefault(teacher, deque(maxlen=_SEEN)).append(max(shares))
        if actual.usd > worst.usd * (1 + 1e-9) and not self.overshot:
            self.overshot = f"{teacher}: an answer cost ${actual.usd:.6f}, at most ${worst.usd:.6f} was expected"
        if self._settled is not None:
            self._settled.set()

    def check(self) -> None:
        """Raises RunFailed in hard mode once a settlement was larger than its reservation."""
        if self.overshot and self.budget.mode == "hard" and self.budget.usd is not None:
            raise RunFailed(
                f"budget.mode hard cannot hold: {self.overshot}; the server does not enforce max_tokens or the price is wrong: "
                "give the teacher its `price`, or use mode soft"
            )

    def spend(self, actual: Spent) -> None:
        """Books what a local teacher used."""
        self.spent += actual

    def reached(self, total: Spent) -> str:
        """Which limit `total` passes, in words; empty where none is passed."""
        limits = self.budget
        if limits.usd is not None and total.usd > limits.usd:
            more = total.usd - self.spent.usd
            return f"${self.spent.usd:.2f} of ${limits.usd:.2f} spent, and what comes next may cost ${more:.4f}"
        if limits.tokens is not None and total.tokens > limits.tokens:
            return f"{self.spent.tokens} of {limits.tokens} tokens used"
        if limits.requests is not None and total.requests > limits.requests:
            return f"{self.spent.requests} of {limits.requests} requests made"
        if limits.hours is not None and self.clock.now() - self._started > 3600 * limits.hours:
            return f"{limits.hours} hours have passed"
        return ""

    def _planned(self, teacher: str, worst: Spent) -> Spent:
        seen = self._outputs.get(teacher)
        if self.budget.mode == "hard" or seen is None or len(seen) < _LEARNING:
            return worst
        share = sorted(seen)[min(len(seen) - 1, int(_PERCENTILE * len(seen)))]
        return Spent(worst.usd * min(1.0, share), int(worst.tokens * min(1.0, share)))
