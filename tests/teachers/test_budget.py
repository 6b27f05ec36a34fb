"""The budget holds: reserve, dispatch, settle; wait where it does not fit, and refuse only when it never will (D22)."""

import asyncio
import random
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.errors import BudgetReached, RecipeError, RunFailed
from stillhouse.records import user
from stillhouse.teachers import openai
from stillhouse.teachers.asking.budget import Budget, Purse, Spent, budget_of
from stillhouse.teachers.asking.wire import Clock
from stillhouse.teachers.base import Answer, Request, Sampling
from stillhouse.testing.provider import FakeProvider

CAP = 16_000
PRICE = 10 / 1e6
WORST = Spent(CAP * PRICE, CAP)


def simulate(
    mode: Literal["soft", "hard"], dollars: float, *, out: int = 64, seed: int = 0, lengths: Any = None
) -> tuple[Purse, int]:
    """Answers of log-normal length (median 403, mean about 605 tokens) until the budget is reached: (purse, rows)."""
    draw, rows = random.Random(seed), 0
    purse = Purse(Budget(usd=dollars, mode=mode), Clock())
    lengths = lengths or (lambda: min(CAP, int(draw.lognormvariate(6.0, 0.9))))

    async def worker() -> None:
        nonlocal rows
        while True:
            planned = await purse.reserve("t", WORST)
            tokens = max(1, lengths())
            for _ in range(1 + tokens // 400):
                await asyncio.sleep(0)
            purse.settle("t", planned, WORST, Spent(tokens * PRICE, tokens))
            rows += 1

    async def all_of_them() -> None:
        ended = await asyncio.gather(*(worker() for _ in range(out)), return_exceptions=True)
        assert all(isinstance(error, BudgetReached) for error in ended)

    asyncio.run(all_of_them())
    return purse, rows


def test_hard_never_overshoots_and_leaves_little() -> None:
    purse, _ = simulate("hard", 5.0)
    assert 5.0 - WORST.usd <= purse.spent.usd <= 5.0
    assert purse.reserved.usd == pytest.approx(0.0, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.2, 3.0), st.integers(1, 40), st.integers(0, 10_000))
def test_hard_never_overshoots_whatever_the_lengths(dollars: float, out: int, seed: int) -> None:
    draw = random.Random(seed)
    purse, _ = simulate("hard", dollars, out=out, lengths=lambda: draw.choice([1, 5_000, CAP]))
    assert purse.spent.usd <= dollars + 1e-9


def test_soft_spends_the_budget_and_overshoots_by_little() -> None:
    """Lengths that do not drift: within half a per cent of the budget; no guarantee, a measurement."""
    for seed in range(3):
        purse, rows = simulate("soft", 5.0, seed=seed)
        assert 0.95 * 5.0 <= purse.spent.usd <= 1.005 * 5.0
        assert rows > 500


def test_a_budget_smaller_than_one_worst_case_starts_nothing() -> None:
    purse, rows = simulate("soft", WORST.usd / 2)
    assert (rows, purse.spent.usd) == (0, 0.0)


def test_waiting_is_not_refusing() -> None:
    """A worst case that pre-fills the budget delays the work and does not starve it."""
    _, rows = simulate("hard", 2.5 * WORST.usd, out=64, lengths=lambda: 10)
    assert rows > 1000


@pytest.mark.parametrize(
    ("limits", "words"),
    [({"tokens": 40}, "tokens"), ({"requests": 5}, "requests"), ({"hours": 0.5}, "hours")],
)
def test_other_limits(opened: Any, clock: Any, limits: dict[str, Any], words: str) -> None:
    with FakeProvider("one two three") as provider:
        calls = opened(budget=Budget(**limits), clock=clock)
        backend = openai.Teacher(model="m", base_url=provider.url)
        outcomes = calls.teacher("t", backend).ask(Request(user("q"), Sampling(max_tokens=8), i) for i in range(50))
        with pytest.raises(BudgetReached, match=words):
            for _ in outcomes:
                clock.seconds += 100.0
        assert len(provider.requests) < 50


def test_a_run_goes_on_with_a_larger_budget(opened: Any) -> None:
    requests = [Request(user(f"q{i}"), Sampling(max_tokens=8)) for i in range(40)]
    with FakeProvider("one two three") as provider:
        backend = openai.Teacher(model="m", base_url=provider.url, price={"in": 1e4, "out": 1e4})  # a cent per token
        calls = opened(run="r", budget=Budget(usd=2.0))
        with pytest.raises(BudgetReached, match=r"\$1\.\d\d of \$2\.00 spent"):
            list(calls.teacher("t", backend).ask(requests))
        paid = len(provider.requests)
        spent = calls.store.rows("SELECT total(usd) FROM spend")[0][0]
        assert 1.0 < spent <= 2.0
        calls = opened(run="r", budget=Budget(usd=100.0))
        outcomes = list(calls.teacher("t", backend).ask(requests))
        assert all(isinstance(outcome.result, Answer) for outcome in outcomes)
        assert len(provider.requests) == 40
        assert calls.counts()["t"].hits == paid
        assert calls.purse.spent.usd == pytest.approx(0.01 * (provider.billed_input + provider.billed_output))


def test_budgets_that_make_no_sense() -> None:
    with pytest.raises(RecipeError, match=r"budget\.usd"):
        Budget(usd=0)
    with pytest.raises(RecipeError, match="soft or hard"):
        Budget(mode="strict")  # type: ignore[arg-type]


def test_hard_stops_where_its_promise_cannot_be_kept() -> None:
    purse = Purse(Budget(usd=1.0, mode="hard"), Clock())
    purse.settle("t", Spent(), Spent(0.1, 10), Spent(0.2, 20))
    with pytest.raises(RunFailed, match="cost"):
        purse.check()
    soft = Purse(Budget(usd=1.0), Clock())
    soft.settle("t", Spent(), Spent(0.1, 10), Spent(0.2, 20))
    soft.check()


def test_a_request_has_to_fit_every_budget_that_concerns_it() -> None:
    """Teachers and stages beside the run: who passes a limit waits or stops, the others go on."""
    purse = Purse(Budget(usd=100.0), Clock())
    purse.limit("teacher", "dear", Budget(usd=1.0, place="teachers.dear.budget"), Spent(0.3, 0, 1))
    purse.limit("stage", "b/01-rate", Budget(requests=3, place="knowledge.b.elicit.0.budget"), Spent(requests=0))

    async def work() -> None:
        half = Spent(0.5, 10)
        planned = await purse.reserve("dear", half)
        with pytest.raises(TimeoutError):  # 0.3 + 0.5 + 0.5 does not fit, but something is out that may settle
            await asyncio.wait_for(purse.reserve("dear", half), 0.05)
        await purse.reserve("other", half)  # nobody else waits for that teacher
        purse.settle("dear", planned, half, Spent(0.4, 8))
        with pytest.raises(
            BudgetReached, match=r"the budget of teacher 'dear' is reached: \$0\.70 of \$1\.00"
        ) as error:
            await purse.reserve("dear", half)
        assert error.value.larger == "--set teachers.dear.budget=2usd"
        for _ in range(3):
            purse.settle("other", await purse.reserve("other", half, "b/01-rate"), half, half, "b/01-rate")
        with pytest.raises(BudgetReached, match="the budget of stage 'b/01-rate' is reached: 3 of 3 requests"):
            await purse.reserve("other", half, "b/01-rate")
        await purse.reserve("other", half, "b/02-other")

    asyncio.run(work())
    assert purse.spent.usd == pytest.approx(0.4 + 1.5)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.2, 2.0), st.floats(0.2, 2.0), st.integers(0, 10_000))
def test_hard_budgets_of_teachers_hold_beside_a_soft_one_of_the_run(first: float, second: float, seed: int) -> None:
    draw = random.Random(seed)
    purse = Purse(Budget(usd=50.0), Clock())
    limits = {"a": first, "b": second}
    for name, dollars in limits.items():
        purse.limit("teacher", name, Budget(usd=dollars, mode="hard"), Spent(requests=0))
    used = dict.fromkeys(limits, 0.0)

    async def worker(name: str) -> None:
        while True:
            planned = await purse.reserve(name, WORST)
            tokens = draw.choice([1, 5_000, CAP])
            await asyncio.sleep(0)
            purse.settle(name, planned, WORST, Spent(tokens * PRICE, tokens))
            used[name] += tokens * PRICE

    async def all_of_them() -> None:
        ended = await asyncio.gather(*(worker(name) for name in limits for _ in range(8)), return_exceptions=True)
        assert all(isinstance(error, BudgetReached) for error in ended)

    asyncio.run(all_of_them())
    assert all(max(0.0, dollars - WORST.usd) <= used[name] <= dollars + 1e-9 for name, dollars in limits.items())


@pytest.mark.parametrize(
    ("text", "budget", "larger"),
    [
        ("5usd", Budget(usd=5), "--budget 10usd"),
        ("$3 hard", None, ""),
        ("3$ hard", Budget(usd=3, mode="hard"), "--budget '6usd hard'"),
        ("2Mtok", Budget(tokens=2_000_000), "--budget 4000000tok"),
        ("1000requests soft", Budget(requests=1000), "--budget 2000requests"),
        ("1.5h", Budget(hours=1.5), "--budget 3h"),
    ],
)
def test_budgets_as_people_write_them(text: str, budget: Budget | None, larger: str) -> None:
    if budget is None:
        with pytest.raises(RecipeError, match="cannot be read; write for example 5usd"):
            budget_of(text)
        return
    assert budget_of(text) == budget
    option = budget.twice(next(iter(budget.limits())))
    assert option == larger
    assert budget_of(option.partition(" ")[2].strip("'")).limits() == {
        name: 2 * v for name, v in budget.limits().items()
    }


def test_the_command_that_goes_on_can_be_read_and_is_enough(clock: Any) -> None:
    """A budget far too small for one request: twice of it would not do, and 2e-07 is no amount."""
    account = Purse(Budget(usd=1e-7), clock)
    reached = account.try_reserve("t", Spent(0.5, 10))
    assert reached is not None and "$0.00 of $1e-07 spent" in str(reached)
    option = reached.larger.removeprefix("--budget ")
    assert 0.5 < (budget_of(option).usd or 0.0) < 1
    assert Budget(usd=1e-7).twice("usd") == "--budget 0.0000002usd"
    assert budget_of("0.0000002usd").usd == pytest.approx(2e-7)
