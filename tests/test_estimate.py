"""What a run will cost, told before it, held against what it then costs at a provider that bills."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from stillhouse.cli import main
from stillhouse.costs import ask_first
from stillhouse.errors import RecipeError, TermsRefused
from stillhouse.estimate import estimate
from stillhouse.recipe import Loaded, load_recipe
from stillhouse.run import Options, execute
from stillhouse.steps import Knowledge
from stillhouse.teachers.openai import Teacher
from stillhouse.testing.provider import FakeProvider

PRICE = {"in": 1000.0, "out": 3000.0}  # dollars per million: a tenth and three tenths of a cent a token
Made = Callable[..., Loaded]


def words(prompt: str) -> str:
    """Answers of 5 to 11 words, by the number in the prompt."""
    number = int("".join(filter(str.isdigit, prompt)) or 0)
    return " ".join(["word"] * (5 + number % 7))


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A recipe of `rows` seeds; `elicit` entries, the teacher's knobs and the rest as given."""

    def make(url: str, rows: int = 60, *, elicit: Any = None, teacher: Any = None, **rest: Any) -> Loaded:
        seeds = tmp_path / "seeds.jsonl"
        seeds.write_text("".join(json.dumps({"prompt": f"Tell me of {n}."}) + "\n" for n in range(rows)))
        recipe = {
            "name": "told", "use": {"purpose": "research", "distributes": []}, "store": str(tmp_path / "store"),
            "teachers": {
                "main": {"backend": "openai", "model": "fake", "base_url": url, "price": PRICE,
                         "sampling": {"max_tokens": 50}, "terms": {"own_rights": "ours"}, **(teacher or {})},
            },
            "knowledge": {
                "answers": {
                    "seeds": {"do": "file", "path": str(seeds), "prompt": "prompt"},
                    "elicit": elicit or [{"do": "labeling.answer", "teacher": "main"}],
                },
            },
            **rest,
        }  # fmt: skip
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe))
        return load_recipe(path)

    return make


def test_with_nothing_stored_the_assumption_is_said_and_the_worst_case_is_exact(made: Made, tmp_path: Path) -> None:
    loaded = made("http://127.0.0.1:9/v1", rows=10)
    (line,) = estimate(loaded).lines
    assert (line.requests, line.stored, line.missing.expected) == (10, 0, 10)
    prompt = sum(len(f"Tell me of {n}.") + 32 for n in range(10))  # a token a byte, and the frame of a turn
    assert line.worst_usd == pytest.approx((prompt * 1000 + 10 * 50 * 3000) / 1e6)
    assert (line.output_tokens.low, line.output_tokens.expected, line.output_tokens.high) == (0, 250, 500)
    assert "answers of half of max_tokens are assumed" in line.how
    assert line.usd.low <= line.usd.expected <= line.usd.high == pytest.approx(line.worst_usd)
    assert not (tmp_path / "store").exists()  # looking makes no store


def test_after_a_trial_the_rest_costs_what_was_told(made: Made, tmp_path: Path) -> None:
    with FakeProvider(words) as provider:
        loaded = made(provider.url)
        execute(loaded, tmp_path / "trial", Options(limit=25, quiet=True))
        (line,) = estimate(loaded).lines
        assert (line.requests, line.stored, line.missing.expected) == (60, 25, 35)
        assert "answers as long as 25 stored ones of this stage" in line.how
        before = provider.billed_input, provider.billed_output
        execute(loaded, tmp_path / "run", Options(quiet=True))
        bill = ((provider.billed_input - before[0]) * 1000 + (provider.billed_output - before[1]) * 3000) / 1e6
        assert line.usd.low <= bill <= line.usd.high
        assert line.usd.expected == pytest.approx(bill, rel=0.1)
        assert line.usd.high < line.worst_usd / 2
        after = estimate(loaded)
        assert (after.lines[0].stored, after.usd.high, after.worst_usd) == (60, 0.0, 0.0)
        assert len(provider.requests) == 60  # an estimate asks nobody


def test_some_seeds_stand_for_all_even_where_a_run_stopped_half_way(made: Made, tmp_path: Path) -> None:
    with FakeProvider(words) as provider:
        loaded = made(provider.url, rows=400)
        execute(loaded, tmp_path / "trial", Options(limit=200, quiet=True))
        (line,) = estimate(loaded, rows=40).lines
        assert line.requests == 400
        assert line.missing.low <= 200 <= line.missing.high
        assert line.missing.expected == pytest.approx(200, abs=20)
        assert "of 400 rows tried" in line.how


def test_answers_to_other_requests_tell_their_spread_and_no_more(made: Made, tmp_path: Path) -> None:
    with FakeProvider(words) as provider:
        execute(made(provider.url), tmp_path / "run", Options(quiet=True))
        (line,) = estimate(made(provider.url, elicit=[{"do": "labeling.reason", "teacher": "main"}])).lines
        assert line.missing.expected == 60 and "that fake gave to other requests" in line.how
        assert (line.output_tokens.low, line.output_tokens.high) == (60 * 6, 60 * 12)  # five to eleven words and an end


def test_a_later_step_is_assumed_until_the_one_before_it_is_answered(made: Made, tmp_path: Path) -> None:
    steps = [
        {"do": "labeling.answer", "teacher": "main", "sampling": {"n": 2, "temperature": 1.0}},
        {"do": "labeling.answer", "teacher": "main", "instruction": "Say it again.", "sampling": {"max_tokens": 90}},
    ]
    with FakeProvider(words) as provider:
        loaded = made(provider.url, rows=12, elicit=steps)
        first, second = estimate(loaded).lines
        assert (first.missing.expected, second.missing.expected) == (24, 24)
        assert second.how.startswith("one request to a row is assumed, because the step before it is not answered yet")
        execute(loaded, tmp_path / "trial", Options(quiet=True, limit=6))
        first, second = estimate(loaded).lines
        assert (first.missing.expected, first.stored) == (12, 12)
        assert second.requests == pytest.approx(first.requests * len(provider.requests[12:]) / 12)
        execute(loaded, tmp_path / "run", Options(quiet=True))
        assert estimate(loaded).worst_usd == 0


def test_keep_counts_the_seeds_it_starts_with_and_at_worst_all(made: Made) -> None:
    loaded = made("http://127.0.0.1:9/v1", rows=50)
    loaded = load_recipe(loaded.folder / "recipe.yaml", ["knowledge.answers.keep=10"])
    told = estimate(loaded)
    assert told.lines[0].missing.expected == 10
    assert told.worst_usd == pytest.approx(estimate(made("http://127.0.0.1:9/v1", rows=50)).worst_usd, rel=0.05)
    assert any("`keep` takes more seeds" in note for note in told.notes)


def test_rows_that_nobody_has_counted_are_no_rows_for_nothing(made: Made) -> None:
    loaded = made("https://api.example.com/v1")
    seeds = "knowledge.answers.seeds={do: hub, dataset: somebody/something, split: train%s}"
    told = estimate(load_recipe(loaded.folder / "recipe.yaml", [seeds % ""]))
    assert (told.lines, told.unknown) == ([], ["answers"])
    assert "is not known" in "".join(told.texts())
    with pytest.raises(RecipeError, match="nobody knows how many rows the hub has"):
        ask_first(told, limited=False)
    ask_first(told, limited=True)
    (line,) = estimate(load_recipe(loaded.folder / "recipe.yaml", [seeds % ", limit: 30"])).lines
    assert line.missing.expected == 30


def test_arms_that_ask_the_same_are_told_once(made: Made) -> None:
    dearer = {"teachers": {"main": {"sampling": {"max_tokens": 60}}}}
    assert len(estimate(made("http://127.0.0.1:9/v1", arms={"a": {}, "b": {"seed": 0}})).lines) == 1
    assert len(estimate(made("http://127.0.0.1:9/v1", arms={"a": {}, "b": dearer})).lines) == 2


def test_what_must_not_run_is_refused_before_anything_is_spent(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match="nobody knows what 'unheard-of' costs"):
        estimate(made("https://api.example.com/v1", teacher={"model": "unheard-of", "price": None}))
    loaded = made("https://api.example.com/v1", rows=3)
    with (loaded.folder / "seeds.jsonl").open("a") as seeds:
        key = "AKIA" + "IOSFODNN7EXAMPLF"
        seeds.write(json.dumps({"prompt": f"aws_access_key_id = {key} is mine"}) + "\n")
    with pytest.raises(TermsRefused, match="SECRET_FOUND:egress"):
        estimate(loaded)


def test_your_own_function_is_not_run(made: Made) -> None:
    loaded = made("http://127.0.0.1:9/v1", elicit=[{"do": "mine.py:ask", "teacher": "main"}])
    (loaded.folder / "mine.py").write_text(
        "from collections.abc import Iterable, Iterator\n"
        "from stillhouse.records import Example, Lost, Seed\nfrom stillhouse.teachers.base import Generates\n"
        "raise SystemExit('it was imported')\n"
        "def ask(seeds: Iterable[Seed], teacher: Generates) -> Iterator[Example | Lost]: ...\n"
    )
    (line,) = estimate(loaded).lines
    assert "your own function is not run before the run" in line.how
    assert line.missing.expected == 60


def test_an_elicitor_that_falls_over_is_assumed_and_not_in_the_way(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def falls(seeds: Any, teacher: Any) -> Any:
        raise KeyError("answer")

    original = Knowledge.bound
    monkeypatch.setattr(
        Knowledge, "bound", lambda self, kind, *rest: falls if kind == "elicit" else original(self, kind, *rest)
    )
    (line,) = estimate(made("http://127.0.0.1:9/v1")).lines
    assert "labeling.answer cannot be tried without answers (KeyError: 'answer')" in line.how
    assert line.missing.expected == 60


def test_a_teacher_of_this_machine_costs_nothing_and_is_not_loaded(made: Made) -> None:
    assert estimate(made("x", teacher={"backend": "pocket", "model": None})).lines == []


def test_check_and_run_print_it(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def still(*arguments: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["still", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        return capsys.readouterr()

    with FakeProvider(words) as provider:
        path = str(made(provider.url, rows=30).folder / "recipe.yaml")
        out, _ = still("check", path)
        assert "answers/01-labeling.answer by main: 30 requests to ask\n" in out
        _, err = still("run", path, "--out", str(tmp_path / "run"), "--limit", "20", "--yes")
        assert "estimated for teachers behind servers: 20 requests, " in err
        out, _ = still("check", path)
        assert "by main: 10 requests to ask (20 of 30 are stored)" in out
        told = json.loads(still("check", path, "--json")[0])["estimate"]
        assert told["lines"][0]["missing"]["expected"] == 10
        assert told["usd"]["low"] <= told["usd"]["expected"] <= told["usd"]["high"] <= told["worst_usd"]


def test_the_bound_of_a_prompt_is_the_backends_own() -> None:
    """What the worst case counts is what the budget sets aside."""
    from stillhouse.records import user
    from stillhouse.teachers.base import Request

    assert Teacher(model="m", base_url="http://127.0.0.1:9/v1").prompt_tokens(Request(user("a\u00e9"))) == 3 + 32
