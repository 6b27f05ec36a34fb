"""A budget that holds: money is reserved before a request leaves and settled when its answer is there.

A run, each of its teachers and each of its stages may have one; a request has to fit all that concern it.

`hard` reserves the worst case of each request and never overshoots, as long as the server enforces max_tokens, the
count of prompt tokens is an upper bound and the price is right; a settlement above its reservation is a finding, and
stops the run. `soft`, the default, reserves the 99th percentile of the answers seen (the worst case for the first 200)
and keeps room for one worst case: far faster near the end of a budget, and without a proven bound. What does not fit
waits for a settlement; only when nothing is out that could be settled is the budget reached.
"""

import asyncio
import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from stillhouse.errors import BudgetReached, RecipeError, RunFailed
from stillhouse.teachers.asking.wire import Clock

__all__ = ["Budget", "Purse", "Spent", "budget_of"]

_LEARNING = 200
_SEEN = 2000
_PERCENTILE = 0.99
_FRESH = 20
_AMOUNT = re.compile(
    r"^\s*([0-9]+(?:\.[0-9]+)?)\s*(usd|\$|tok|ktok|mtok|requests|h)\s*(?:,?\s*(soft|hard))?\s*$", re.IGNORECASE
)
_TOKENS = {"tok": 1, "ktok": 1_000, "mtok": 1_000_000}
_LIMITS = ("usd", "tokens", "requests", "hours")


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of a run, a teacher or a stage; None is no limit. `place` is where it stands in the recipe.

    Raises RecipeError for a limit that is not positive.
    """

    usd: float | None = None
    tokens: int | None = None
    requests: int | None = None
    hours: float | None = None
    mode: Literal["soft", "hard"] = "soft"
    place: str = field(default="budget", compare=False)

    def __post_init__(self) -> None:
        for name, value in self.limits().items():
            if not value > 0:
                raise RecipeError(f"{self.place}.{name} is more than 0, not {value!r}; leave it out for no limit")
        if self.mode not in ("soft", "hard"):
            raise RecipeError(f"{self.place}.mode is soft or hard, not {self.mode!r}")

    def limits(self) -> dict[str, float]:
        return {name: value for name in _LIMITS if (value := getattr(self, name)) is not None}

    def told(self) -> str:
        """The limits in words, as `5 usd, 2 hours, soft`."""
        return ", ".join([f"{value:g} {name}" for name, value in self.limits().items()] + [self.mode])

    def twice(self, name: str, least: float = 0.0) -> str:
        """The option of `still run` that gives twice the limit `name`, `least` at least, and leaves the others."""
        value = max(2 * self.limits()[name], least)
        unit = {"usd": "usd", "tokens": "tok", "requests": "requests", "hours": "h"}[name]
        if len(self.limits()) > 1:
            return f"--set {self.place}.{name}={value:g}"
        plain = f"{value:g}" if 1e-4 <= value < 1e6 else f"{value:.12f}".rstrip("0").rstrip(".")
        text = f"{plain}{unit}"
        text = f"'{text} hard'" if self.mode == "hard" else text
        return f"--budget {text}" if self.place == "budget" else f"--set {self.place}={text}"


def budget_of(text: str, place: str = "budget") -> Budget:
    """`5usd`, `2Mtok`, `300ktok`, `1000requests` or `2h`, with `hard` behind it for a budget that is never overshot.

    Raises RecipeError for anything else.
    """
    found = _AMOUNT.match(text)
    if found is None:
        raise RecipeError(f"{place}: {text!r} cannot be read; write for example 5usd, 2Mtok, 1000requests or 5usd hard")
    amount, unit, mode = float(found[1]), found[2].lower(), (found[3] or "soft").lower()
    known = Budget(mode=mode, place=place)  # type: ignore[arg-type]
    if unit in _TOKENS:
        return replace(known, tokens=round(amount * _TOKENS[unit]))
    if unit == "requests":
        return replace(known, requests=round(amount))
    return replace(known, hours=amount) if unit == "h" else replace(known, usd=amount)


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


def _dollars(amount: float) -> str:
    return f"${amount:.2f}" if amount == 0 or amount >= 0.01 else f"${amount:.2g}"


@dataclass
class _Account:
    """One budget, of the run (`of` is empty), a teacher or a stage, and what is left of it."""

    of: str
    budget: Budget
    clock: Clock
    spent: Spent = Spent(requests=0)
    reserved: Spent = Spent(requests=0)
    out: int = 0
    overshot: str = ""

    def __post_init__(self) -> None:
        self._started = self.clock.now()
        self.limited = bool(self.budget.limits())

    def passed(self, total: Spent) -> BudgetReached | None:
        """The error that tells which limit `total` passes; None where it passes none."""
        if not self.limited:
            return None
        limits, name, words, least = self.budget, "", "", 0.0
        if limits.usd is not None and total.usd > limits.usd:
            more = total.usd - self.spent.usd
            words = (
                f"{_dollars(self.spent.usd)} of {_dollars(limits.usd)} spent, and what comes next may cost ${more:.4f}"
            )
            name, least = "usd", 1.1 * total.usd
        elif limits.tokens is not None and total.tokens > limits.tokens:
            name, words = "tokens", f"{self.spent.tokens} of {limits.tokens} tokens used"
        elif limits.requests is not None and total.requests > limits.requests:
            name, words = "requests", f"{self.spent.requests} of {limits.requests} requests made"
        elif limits.hours is not None and self.clock.now() - self._started > 3600 * limits.hours:
            name, words = "hours", f"{limits.hours} hours have passed"
        if not name:
            return None
        whose = f"the budget of {self.of}" if self.of else "the budget"
        return BudgetReached(
            f"{whose} is reached: {words}; run again with a larger one to go on", limits.twice(name, least)
        )

    def settle(self, who: str, planned: Spent, worst: Spent, actual: Spent) -> None:
        self.reserved, self.out = self.reserved - planned, self.out - 1
        self.spent += actual
        hard = self.budget.mode == "hard" and self.budget.usd is not None
        if hard and actual.usd > worst.usd * (1 + 1e-9) and not self.overshot:
            self.overshot = f"{who}: an answer cost ${actual.usd:.6f}, at most ${worst.usd:.6f} was expected"


class Purse:
    """The budget of a run, and those of its teachers and stages; `spent` begins with what the same run spent before."""

    def __init__(self, budget: Budget, clock: Clock, spent: Spent = Spent(requests=0)) -> None:
        self.clock = clock
        self._run = _Account("", budget, clock, spent)
        self._others: dict[tuple[str, str], _Account] = {}
        self._shares: dict[str, deque[float]] = {}
        self._share: dict[str, tuple[int, float]] = {}  # the percentile, and for how many more reservations it will do
        self._settled: asyncio.Event | None = None

    @property
    def spent(self) -> Spent:
        return self._run.spent

    @property
    def reserved(self) -> Spent:
        return self._run.reserved

    def knows(self, kind: Literal["teacher", "stage"], name: str) -> bool:
        return (kind, name) in self._others

    def limit(self, kind: Literal["teacher", "stage"], name: str, budget: Budget, spent: Spent) -> None:
        """Gives a teacher or a stage a budget of its own, of which this run has `spent` some before."""
        self._others[kind, name] = _Account(f"{kind} {name!r}", budget, self.clock, spent)

    async def reserve(self, teacher: str, worst: Spent, stage: str = "") -> Spent:
        """The part of the budgets set aside; waits until it fits all. Raises BudgetReached when it never will."""
        accounts = self._accounts(teacher, stage)
        while True:
            planned = self._planned(teacher, worst, accounts)
            reached = [(each, error) for each in accounts if (error := each.passed(each.spent + each.reserved + worst))]
            if not reached:
                self.set_aside(teacher, planned, stage)
                return planned
            for account, error in reached:
                if account.out == 0:
                    raise error
            self._settled = self._settled or asyncio.Event()
            self._settled.clear()
            await self._settled.wait()

    def try_reserve(self, teacher: str, worst: Spent, stage: str = "") -> BudgetReached | None:
        """Sets the worst case aside at once, for a batch: nothing of it settles before all is sent. Else the limit passed."""
        for each in self._accounts(teacher, stage):
            if error := each.passed(each.spent + each.reserved + worst):
                return error
        self.set_aside(teacher, worst, stage)
        return None

    def set_aside(self, teacher: str, planned: Spent, stage: str = "") -> None:
        """Reserves without a question what is out already."""
        for each in self._accounts(teacher, stage):
            each.reserved, each.out = each.reserved + planned, each.out + 1

    def settle(self, teacher: str, planned: Spent, worst: Spent, actual: Spent, stage: str = "") -> None:
        """Gives the reservation back and books what was really spent."""
        for each in self._accounts(teacher, stage):
            each.settle(teacher, planned, worst, actual)
        shares = [actual.tokens / worst.tokens if worst.tokens else 0.0, actual.usd / worst.usd if worst.usd else 0.0]
        if actual.tokens:  # what failed without being billed says nothing about the length of answers
            self._shares.setdefault(teacher, deque(maxlen=_SEEN)).append(max(shares))
        if self._settled is not None:
            self._settled.set()

    def check(self) -> None:
        """Raises RunFailed in hard mode once a settlement was larger than its reservation."""
        for each in (self._run, *self._others.values()):
            if each.overshot:
                raise RunFailed(
                    f"{each.budget.place}: mode hard cannot hold: {each.overshot}; the server does not enforce max_tokens "
                    "or the price is wrong: give the teacher its `price`, or use mode soft"
                )

    def spend(self, teacher: str, actual: Spent, stage: str = "") -> None:
        """Books what a local teacher used."""
        for each in self._accounts(teacher, stage):
            each.spent += actual

    def passed(self, teacher: str, more: Spent, stage: str = "") -> BudgetReached | None:
        """The limit that a local teacher would pass with `more`."""
        errors: Iterable[BudgetReached | None] = (
            each.passed(each.spent + more) for each in self._accounts(teacher, stage)
        )
        return next((error for error in errors if error), None)

    def _accounts(self, teacher: str, stage: str) -> list[_Account]:
        others = (self._others.get(("teacher", teacher)), self._others.get(("stage", stage))) if self._others else ()
        return [self._run, *(each for each in others if each is not None)]

    def _planned(self, teacher: str, worst: Spent, accounts: list[_Account]) -> Spent:
        seen = self._shares.get(teacher)
        limited = [each.budget.mode for each in accounts if each.limited]
        if not limited or "hard" in limited or seen is None or len(seen) < _LEARNING:
            return worst
        left, share = self._share.get(teacher, (0, 1.0))
        if not left:  # sorting 2,000 numbers for every request would cost a tenth of it
            left, share = _FRESH, sorted(seen)[min(len(seen) - 1, int(_PERCENTILE * len(seen)))]
        self._share[teacher] = left - 1, share
        return Spent(worst.usd * min(1.0, share), int(worst.tokens * min(1.0, share)))
