"""What a token and an hour cost: prices that cannot be are refused, and a local teacher's seconds balance with the books."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stillhouse.costs import cost_of
from stillhouse.errors import BudgetReached, RecipeError
from stillhouse.recipe import load_recipe
from stillhouse.records import user
from stillhouse.run import Options, execute
from stillhouse.teachers import anthropic, openai, pocket
from stillhouse.teachers.base import Answer, Identity, Outcome, Request, Sampling
from stillhouse.teachers.calls import Budget, Calls

Open = Callable[..., Calls]


class Local:
    """A local teacher in chunks of four; every fifth answer is cut off, and that costs too."""

    capabilities = frozenset({"generate"})
    rungs, chunk = 1, 4

    def __init__(self, hourly_usd: float | None) -> None:
        self.hourly_usd = hourly_usd

    def identity(self) -> Identity:
        return Identity("hf-local", "local", revision="1")

    def ask(self, requests: Iterable[Request]) -> Iterator[Outcome]:
        for request in requests:
            cut = request.messages[0].content.endswith("4")
            yield Outcome(request, Answer("text", "length" if cut else "stop", output_tokens=3))


def asked(number: int) -> list[Request]:
    return [Request(user(f"q{n}"), Sampling(max_tokens=8)) for n in range(number)]


def test_every_attempt_has_its_share_of_the_hours(opened: Open) -> None:
    calls = opened()
    outcomes = list(calls.teacher("t", Local(3600.0)).ask(asked(10)))
    counts = calls.counts()["t"]
    paid = [row[0] for row in calls.store.rows("SELECT settled_usd FROM attempt ORDER BY id")]
    assert counts.seconds > 0 and counts.cost_usd == pytest.approx(counts.seconds)  # a dollar a second
    assert sum(paid) == pytest.approx(counts.cost_usd)
    assert [paid[0]] * 4 + [paid[4]] * 4 + [paid[8]] * 2 == paid
    assert calls.store.rows("SELECT usd FROM spend") == [(pytest.approx(sum(paid)),)]
    assert calls.prices() == {"t": {"hourly_usd": 3600.0, "id": "recipe, per hour"}}
    again = opened()
    assert (
        list(again.teacher("t", Local(7200.0)).ask(asked(10))) == outcomes
    )  # at what they cost, by whatever price now
    assert (again.counts()["t"].cost_usd, again.counts()["t"].attempts) == (0.0, 0)


def test_without_a_price_the_seconds_are_counted_all_the_same(opened: Open) -> None:
    calls = opened()
    list(calls.teacher("t", Local(None)).ask(asked(5)))
    assert calls.counts()["t"].seconds > 0
    assert calls.store.rows("SELECT DISTINCT settled_usd, price_id FROM attempt") == [(None, "")]
    assert calls.prices() == {}


def test_a_budget_in_dollars_ends_a_local_teacher_after_a_chunk(opened: Open) -> None:
    calls = opened(budget=Budget(usd=1e-9))
    got = []
    with pytest.raises(BudgetReached):
        for outcome in calls.teacher("t", Local(3600.0)).ask(asked(10)):
            got.append(outcome)
    assert len(got) == 4
    assert len(list(opened().teacher("t", Local(3600.0)).ask(asked(10)))) == 10


def test_still_cost_shows_what_the_hours_cost(tmp_path: Path) -> None:
    (tmp_path / "seeds.jsonl").write_text('{"prompt": "one"}\n{"prompt": "two"}\n')
    recipe = {
        "name": "hours",
        "use": {"purpose": "research", "distributes": []},
        "store": str(tmp_path / "store"),
        "teachers": {"main": {"backend": "pocket", "price": {"per_hour": 36000}, "sampling": {"max_tokens": 4}}},
        "knowledge": {
            "answers": {
                "seeds": {"do": "file", "path": str(tmp_path / "seeds.jsonl")},
                "elicit": [{"do": "labeling.answer", "teacher": "main"}],
            }
        },
    }
    run = execute(load_recipe(recipe), tmp_path / "run", Options(quiet=True))
    found = cost_of(run.path)
    assert found["usd"] == pytest.approx(10 * found["teachers"]["main"]["seconds"])
    assert found["usd"] == pytest.approx(run.manifest["calls"]["main"]["cost_usd"]) and found["usd"] > 0
    assert found["prices"] == {"main": {"hourly_usd": 36000.0, "id": "recipe, per hour"}}


@pytest.mark.parametrize(
    "price",
    [{}, {"per_hour": -1}, {"per_hour": float("nan")}, {"per_hour": float("inf")}, {"per_hour": "2"}, {"per_hour": True},
     {"in": 1, "out": 1}, {"per_hour": 1, "in": 1}],
)  # fmt: skip
def test_an_hour_costs_an_amount(price: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="price of a local teacher"):
        pocket.Teacher(price=price)


@pytest.mark.parametrize("made", [openai.Teacher, anthropic.Teacher])
@pytest.mark.parametrize(
    "price",
    [{}, {"in": 1}, {"in": 1, "out": float("nan")}, {"in": float("inf"), "out": 1}, {"in": -1, "out": 1}, {"in": "1", "out": 1},
     {"in": 1, "out": None}, {"in": 1, "out": 1, "batch": float("nan")}, {"in": 1, "out": 1, "per_hour": 1}],
)  # fmt: skip
def test_tokens_cost_an_amount(opened: Open, made: Any, price: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="price is"):
        opened().teacher("t", made(model="m", base_url="http://127.0.0.1:9/v1", price=price))


@pytest.mark.parametrize("made", [openai.Teacher, anthropic.Teacher])
@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), 1e9])
def test_a_time_out_that_can_never_be_met_is_refused(made: Any, timeout: float) -> None:
    with pytest.raises(RecipeError, match="timeout is more than 0"):
        made(model="m", base_url="http://127.0.0.1:9/v1", timeout=timeout)


@pytest.mark.parametrize(
    "sampling", [Sampling(temperature=float("nan")), Sampling(temperature=float("inf")), Sampling(temperature=-1.0)]
)
def test_a_temperature_is_a_number(opened: Open, sampling: Sampling) -> None:
    with pytest.raises(RecipeError, match="a temperature from 0 on"):
        opened().teacher("t", openai.Teacher(model="m", base_url="http://127.0.0.1:9/v1"), sampling)


@pytest.mark.parametrize("made", [openai.Teacher, anthropic.Teacher])
@pytest.mark.parametrize(
    "knobs",
    [*({"base_url": url} for url in ("", "not one", "ftp://host/v1", "http://", "http://h:99999/v1", "http://[::1", "a:80/v1")),
     *({"extra_body": body} for body in ({"n": 2}, {"stream": True}, {"model": "other"}, {"a": float("nan")}, {"a": object()}))],
)  # fmt: skip
def test_what_no_server_can_be_asked_by_is_refused(made: Any, knobs: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=r"no address of a server|extra_body"):
        made(**{"model": "m", "base_url": "http://127.0.0.1:9/v1", **knobs})
