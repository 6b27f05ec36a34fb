"""From a recipe and the command line against the fake provider: batches, retries, consent, and books that balance."""

import json
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from stillhouse import distill
from stillhouse.books import audit
from stillhouse.cli import main
from stillhouse.costs import ask_first, cost_of
from stillhouse.errors import BudgetReached, RecipeError, TeacherError
from stillhouse.estimate import estimate
from stillhouse.recipe import load_recipe
from stillhouse.run import Options, execute
from stillhouse.teachers.calls import Calls
from stillhouse.testing.provider import BatchStep, FakeProvider, Step, status


@pytest.fixture
def recipe_at(tmp_path: Path) -> Callable[..., Path]:
    """A recipe of twelve seeds, one elicitor and the given teacher (and `more` of them), with a store of its own."""

    def write(*more: dict[str, Any], **teacher: Any) -> Path:
        seeds = tmp_path / "seeds.jsonl"
        seeds.write_text(
            "".join(json.dumps({"prompt": f"What is {n} plus 1?", "answer": str(n + 1)}) + "\n" for n in range(12))
        )
        main = {"price": {"in": 1e3, "out": 1e3}, "terms": {"own_rights": "ours"}, **teacher}
        recipe = {
            "name": "paid",
            "use": {"purpose": "research", "distributes": []},
            "store": str(tmp_path / "store"),
            "teachers": {"main": main},
            "knowledge": {
                "answers": {
                    "seeds": {"do": "file", "path": str(seeds), "prompt": "prompt", "reference": "answer"},
                    "elicit": [{"do": "labeling.answer", "teacher": "main"}],
                },
            },
        }  # fmt: skip
        for number, each in enumerate(more, 2):
            recipe["teachers"][f"t{number}"] = {**main, **each}  # type: ignore[index]
            recipe["knowledge"]["answers"]["elicit"][0]["teacher"] = list(recipe["teachers"])  # type: ignore[index]
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe))
        return path

    return write


@pytest.mark.parametrize("backend", ["openai", "anthropic"])
def test_a_recipe_that_asks_in_batches(recipe_at: Callable[..., Path], tmp_path: Path, backend: str) -> None:
    price = {"in": 1e3, "out": 1e3, "batch": 0.5}
    with FakeProvider("It is 7.", batches=[BatchStep(ends="expired", unanswered=3)]) as provider:
        made = recipe_at(backend=backend, model="fake", base_url=provider.url, transport="batch", price=price)
        run = distill(made, out=tmp_path / "run", quiet=True)
        assert [len(batch.items) for batch in provider.batches.made] == [12, 3]
        assert audit(run.path)["problems"] == []
        found = cost_of(run.path)
        bill = (provider.billed_input + provider.billed_output) * 1e3 / 1e6 / 2
        assert found["usd"] == pytest.approx(bill)
        for view in ("teachers", "stages", "outcomes"):
            assert sum(each["usd"] for each in found[view].values()) == pytest.approx(bill)
        assert found["batches"]["usd"] == pytest.approx(bill)
        assert found["usd_per_kept"] == pytest.approx(bill / 12)
        assert found["retries"]["attempts"] == 3
        assert found["prices"]["main"]["id"] == "recipe, batch at 0.5"


def test_costs_count_what_failed(recipe_at: Callable[..., Path], tmp_path: Path) -> None:
    """Retries, refusals and cut-off answers are in the total, and the total is the provider's bill."""
    tape = {
        "3 plus": [status(500), status(500)],
        "5 plus": [Step(finish="content_filter")],
        "7 plus": [Step(finish="length")] * 9,
    }
    with FakeProvider("It is 7.", by_prompt=tape) as provider:
        made = recipe_at(backend="openai", model="fake", base_url=provider.url)
        run = distill(made, out=tmp_path / "run", quiet=True)
        found = cost_of(run.path)
        assert found["usd"] == pytest.approx((provider.billed_input + provider.billed_output) / 1e3)
        assert {name: sum(each["attempts"].values()) for name, each in found["outcomes"].items()} == {
            "answered": 10, "refused": 1, "transient": 2, "truncated": 3,
        }  # fmt: skip
        assert found["kept"] == 10
        assert found["teachers"]["main"]["rungs"] == {"1": 10}
        assert audit(run.path)["problems"] == []


def test_what_failed_is_asked_once_more_when_told_to(recipe_at: Callable[..., Path], tmp_path: Path) -> None:
    with FakeProvider("It is 7.", by_prompt={"7 plus": [Step(finish="length")] * 3}) as provider:
        made = load_recipe(recipe_at(backend="openai", model="fake", base_url=provider.url))
        first = execute(made, tmp_path / "run", Options(quiet=True))
        assert first.manifest["steps"][1]["lost"] == {"truncated": 1}
        asked = len(provider.requests)
        execute(made, tmp_path / "run", Options(quiet=True))
        assert len(provider.requests) == asked
        again = execute(made, tmp_path / "run", Options(quiet=True, retry=("truncated",)))
        assert (again.manifest["steps"][1]["lost"], again.manifest["steps"][1]["out"]) == ({}, 12)
        assert len(provider.requests) == asked + 1
        assert audit(again.path)["problems"] == []
        execute(made, tmp_path / "run", Options(quiet=True))
        assert len(provider.requests) == asked + 1


@pytest.mark.parametrize(
    ("budgets", "whose", "option"),
    [
        (["budget=7requests"], "the budget is", "--budget 14requests"),
        (
            ["teachers.main.budget=7requests"],
            "the budget of teacher 'main' is",
            "--set teachers.main.budget=14requests",
        ),
        (
            ["knowledge.answers.elicit.0.budget={requests: 7}"],
            "the budget of stage 'answers/01-labeling.answer' is",
            "--set knowledge.answers.elicit.0.budget=14requests",
        ),
        (
            ["budget=100usd", "teachers.main.budget={requests: 7, hours: 3}"],
            "the budget of teacher 'main' is",
            "--set teachers.main.budget.requests=14",
        ),
    ],
)
@pytest.mark.parametrize("transport", ["online", "batch"])
def test_a_budget_of_run_teacher_or_stage_ends_with_6_and_the_command_printed_goes_on(
    recipe_at: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    budgets: list[str],
    whose: str,
    option: str,
    transport: str,
) -> None:
    with FakeProvider("It is 7.") as provider:
        made = recipe_at(backend="openai", model="fake", base_url=provider.url, transport=transport)
        command = ["run", str(made), "--yes", "--out", str(tmp_path / "run")]
        command += [word for budget in budgets for word in ("--set", budget)]
        assert _still(monkeypatch, command) == 6
        assert len(provider.requests) == 7
        _, error = capsys.readouterr()
        assert f"still: {whose} reached: 7 of 7 requests made" in error
        (line,) = [line for line in error.splitlines() if line.startswith("still: for example: still ")]
        assert line.endswith(option)
        again = shlex.split(line.removeprefix("still: for example: still "))
        assert _still(monkeypatch, again) == 0
        assert len(provider.requests) == 12
        assert audit(tmp_path / "run")["problems"] == []
        stamp = (tmp_path / "run/knowledge/answers/01-labeling.answer/stamp.json").stat().st_mtime_ns
        assert _still(monkeypatch, command[:5]) == 0  # what may be spent is in no hash: nothing is done again
        assert (tmp_path / "run/knowledge/answers/01-labeling.answer/stamp.json").stat().st_mtime_ns == stamp


def _still(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> int:
    """The exit code of `still` called with these arguments, in this process."""
    monkeypatch.setattr(sys, "argv", ["still", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("budget=5 dollars", r"budget: value error, '5 dollars' cannot be read; write for example 5usd"),
        ("teachers.main.budget={euros: 5}", r"budget\.euros: unknown key.*known: hours, mode, requests, tokens, usd"),
        ("teachers.main.budget={usd: 0}", r"budget\.usd: input should be greater than 0"),
        ("knowledge.answers.elicit.0.budget={mode: strict}", r"elicit\.0\.budget\.mode: .*'soft' or 'hard'"),
    ],
)
def test_a_budget_that_cannot_be_is_refused_by_check(recipe_at: Callable[..., Path], change: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_recipe(recipe_at(backend="openai", model="m", base_url="http://127.0.0.1:9/v1"), [change])


def test_a_run_that_may_cost_much_is_asked_about_first(recipe_at: Callable[..., Path]) -> None:
    price = {"in": 2e3, "out": 2e3}
    made = load_recipe(recipe_at(backend="openai", model="m", base_url="https://api.example.com/v1", price=price))
    told = estimate(made)
    assert told.worst_usd > 12 * 512 * 2e3 / 1e6
    with pytest.raises(RecipeError, match=r"up to about \$.*, \$6.* as estimated.*--yes, or limit it with --budget"):
        ask_first(told, limited=False)
    ask_first(told, limited=True)
    ask_first(estimate(made, limit=1), limited=False)
    free = load_recipe(recipe_at(backend="openai", model="m", base_url="http://127.0.0.1:9/v1", price=None))
    assert estimate(free).worst_usd == 0


def interrupted(
    recipe: Path, out: Path, providers: list[FakeProvider], presses: int, waited_for: Callable[[], None] = lambda: None
) -> tuple[int, str]:
    """`still run` in a process of its own, interrupted when four of eight requests are out at providers that answer late;
    once more when it says that it waits for them, which `waited_for` is told.
    """
    script = (
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job inherits it ignored
        "from stillhouse.teachers.asking import online\n"
        f"online._DRAIN_S = {30.0 if presses == 1 else 1e6}\n"  # who waits for it after the second would never end
        "from stillhouse.cli import main\nmain()\n"
    )
    command = [sys.executable, "-c", script, "run", str(recipe), "--out", str(out), "--yes"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        deadline = time.monotonic() + 120
        while not all(len(each.requests) == 8 and each.out == 4 for each in providers):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        told = []
        for line in process.stderr:
            told.append(line)
            if f"waiting for {4 * len(providers)} requests that are out" in line:
                waited_for()
                if presses == 2:
                    process.send_signal(signal.SIGINT)
        return process.wait(timeout=120), "".join(told)


def test_ctrl_c_waits_for_what_is_out_and_keeps_it(recipe_at: Callable[..., Path], tmp_path: Path) -> None:
    seen: list[str] = []
    released = threading.Event()

    def late(prompt: str) -> str:
        seen.append(prompt)
        assert len(seen) <= 4 or released.wait(120)
        return "It is 7."

    with FakeProvider(late) as provider:
        made = recipe_at(backend="openai", model="fake", base_url=provider.url, max_concurrency=4)
        code, told = interrupted(made, tmp_path / "run", [provider], 1, released.set)
        assert code == 130 and "interrupted; the same command again goes on from here" in told
        paid = len(provider.requests)
        assert paid < 12
        with Calls(tmp_path / "store") as calls:
            assert calls.store.rows("SELECT count(*) FROM answer") == [(paid,)]
            assert calls.store.rows("SELECT count(*) FROM attempt WHERE flags != ''") == [(0,)]
        run = distill(made, out=tmp_path / "run", quiet=True)
        assert len(provider.requests) == 12
        assert audit(run.path)["problems"] == []


def test_a_second_ctrl_c_quits_at_once_and_loses_nothing_that_came(
    recipe_at: Callable[..., Path], tmp_path: Path
) -> None:
    tape = [Step()] * 4 + [Step(hang=True)] * 4
    with FakeProvider("It is 7.", tape=tape) as one, FakeProvider("It is 8.", tape=tape) as two:
        made = recipe_at({"base_url": two.url}, backend="openai", model="fake", base_url=one.url, max_concurrency=4)
        code, _ = interrupted(made, tmp_path / "run", [one, two], 2)
        assert code == 130
        with Calls(tmp_path / "store") as calls:
            assert calls.store.rows("SELECT count(*) FROM answer") == [(8,)]
            uncertain = "SELECT count(*) FROM attempt WHERE flags = 'cost_uncertain' AND settled_usd = reserved_usd"
            assert calls.store.rows(uncertain) == [(8,)]  # they may have been billed
        run = distill(made, out=tmp_path / "run", quiet=True)
        assert len(one.requests) == len(two.requests) == 12 + 4
        assert audit(run.path)["problems"] == []


def test_several_teachers_answer_at_the_same_time(recipe_at: Callable[..., Path], tmp_path: Path) -> None:
    """Each server holds what it was asked last until the other has been asked for all: one after the other would not end."""
    asked = [threading.Barrier(2), threading.Barrier(2)]
    seen: list[list[str]] = [[], []]

    def answers(number: int) -> Callable[[str], str]:
        def reply(prompt: str) -> str:
            seen[number].append(prompt)
            if len(seen[number]) in (4, 8):
                asked[len(seen[number]) // 4 - 1].wait(timeout=120)
            return f"{number}"

        return reply

    with FakeProvider(answers(0)) as one, FakeProvider(answers(1)) as two:
        common = {"backend": "openai", "model": "fake", "max_concurrency": 1}
        made = recipe_at({"base_url": two.url}, base_url=one.url, **common)
        run = distill(made, out=tmp_path / "run", quiet=True)
        rows = list(run.records("answers"))
        assert [row.response for row in rows] == ["0", "1"] * 12  # whole rows first
        assert len(one.requests) == len(two.requests) == 12
        assert audit(run.path)["problems"] == []
        again = distill(made, out=tmp_path / "again", quiet=True)
        assert list(again.records("answers")) == rows
        assert len(one.requests) == len(two.requests) == 12


def test_a_teacher_that_stops_the_run_stops_its_neighbours(recipe_at: Callable[..., Path], tmp_path: Path) -> None:
    with FakeProvider("a", tape=[Step()] * 5 + [status(401)]) as one, FakeProvider("b") as two:
        common = {"backend": "openai", "model": "fake", "max_concurrency": 1}
        made = recipe_at({"base_url": two.url}, base_url=one.url, **common)
        with pytest.raises(TeacherError):
            distill(made, out=tmp_path / "run", quiet=True)
        run = distill(made, out=tmp_path / "run", quiet=True)
        assert (len(one.requests), len(two.requests)) == (12 + 1, 12)
        assert audit(run.path)["problems"] == []


def test_a_budget_is_shared_by_teachers_that_answer_at_the_same_time(
    recipe_at: Callable[..., Path], tmp_path: Path
) -> None:
    with FakeProvider("a") as one, FakeProvider("b") as two:
        made = recipe_at({"base_url": two.url}, backend="openai", model="fake", base_url=one.url)
        with pytest.raises(BudgetReached):
            execute(load_recipe(made), tmp_path / "run", Options(budget="7requests", quiet=True))
        assert len(one.requests) + len(two.requests) == 7
        run = distill(made, out=tmp_path / "run", quiet=True)
        assert len(one.requests) + len(two.requests) == 24
        assert audit(run.path)["problems"] == []
