"""What the guide to teachers shows is what the program does: its failures, its outputs, its recipes, its Python."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from stillhouse.check import check
from stillhouse.cli import main
from stillhouse.recipe import load_recipe
from stillhouse.testing.provider import BatchStep, FakeProvider, Step, status

GUIDE = (Path(__file__).parents[2] / "docs/guides/teachers.md").read_text(encoding="utf-8")
PRICE = {"in": 1000, "out": 3000, "batch": 0.5}
Still = Callable[..., tuple[int, str]]


@pytest.fixture
def still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Still:
    """Writes `NAME.yaml` over forty seeds with the given teacher, calls `still`, gives exit code and everything printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STILLHOUSE_STORE", str(tmp_path / "store"))
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    rows = [{"prompt": f"What is {n} plus 1?", "reference": str(n + 1)} for n in range(40)]
    (tmp_path / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(*words: str, **teacher: Any) -> tuple[int, str]:
        if teacher:
            main_teacher = {"backend": "openai", "model": "my-model", "terms": {"own_rights": "ours"}, **teacher}
            name = words[1].removesuffix(".yaml")
            recipe = {
                "name": name, "use": {"purpose": "research", "distributes": []}, "teachers": {"main": main_teacher},
                "knowledge": {
                    "answers": {
                        "seeds": {"do": "file", "path": "seeds.jsonl"},
                        "elicit": [{"do": "labeling.answer", "teacher": "main"}],
                    }
                },
            }  # fmt: skip
            (tmp_path / words[1]).write_text(yaml.safe_dump(recipe))
        monkeypatch.setattr(sys, "argv", ["still", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out + err

    return run


FAILURES: dict[str, tuple[list[Step], dict[str, Any], list[str]]] = {
    "wrong key": ([status(401)] * 9, {}, []),
    "no money": ([status(429, "insufficient_quota")] * 9, {}, []),
    "a day's wait asked for": ([status(429, retry_after="90000")] * 9, {}, []),
    "nobody listens": ([], {"base_url": "http://127.0.0.1:9/v1"}, []),
    "another model answers, `stop`": ([Step(model="cheap-1")] * 9, {"on_model_mismatch": "stop"}, []),
    "a key is missing": ([], {"base_url": "https://api.example.com/v1", "price": {"in": 1, "out": 1}}, []),
    "the budget": ([], {}, ["--budget", "10requests"]),
    "a teacher's budget": ([], {"budget": "10requests"}, []),
    "it may cost much": ([], {"base_url": "https://api.example.com/v1", "price": {"in": 1000, "out": 3000}}, []),
    "no price": ([], {"base_url": "https://api.example.com/v1"}, []),
}


def plain(text: str) -> str:
    """Without the port, which is another each time, and the date."""
    return re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "DATE", text))


@pytest.mark.parametrize("what", FAILURES)
def test_each_failure_of_the_table(still: Still, what: str) -> None:
    tape, knobs, options = FAILURES[what]
    (row,) = re.findall(rf"^\| {re.escape(what)} \| `(.+)` \| (\d+) \|$", GUIDE, re.MULTILINE)
    with FakeProvider("ok", tape=tape) as provider:
        code, told = still("run", "r.yaml", *options, **{"base_url": provider.url, **knobs})
    assert code == int(row[1])
    assert plain(row[0]) in plain(told)


def test_the_table_has_no_other_failures() -> None:
    table = GUIDE.partition("What a run says when something stops it")[2].partition("\n\n")[2].partition("\n\n")[0]
    assert {line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()[2:]} == set(FAILURES)


def shown(command: str) -> list[str]:
    """The lines that the guide shows under a command, the dots left out."""
    after = GUIDE.partition(f"$ still {command}\n")[2]
    lines = after.partition("```")[0].partition("\n$ ")[0].splitlines()
    assert lines, command
    return [line for line in lines if line != "..."]


def test_a_batch_and_what_it_cost(still: Still) -> None:
    tape = {"7 plus": [Step(finish="length")] * 9, "19 plus": [status(500)]}
    with FakeProvider("It is so.", by_prompt=tape, batches=[BatchStep(ends="expired", unanswered=5)]) as provider:
        knobs = {"base_url": provider.url, "price": PRICE, "transport": "batch", "sampling": {"max_tokens": 64}}
        code, told = still("run", "paid.yaml", "--yes", **knobs)
        assert code == 0
        for line in shown("run paid.yaml --yes"):
            assert line in told
        code, told = still("cost", "runs/paid")
        assert code == 0
        for line in shown("cost runs/paid"):
            assert line in told


def test_an_estimate_after_a_trial(still: Still) -> None:
    with FakeProvider(lambda prompt: " ".join(["word"] * (5 + int(prompt.split()[2]) % 7))) as provider:
        knobs = {"base_url": provider.url, "price": {"in": 1000, "out": 3000}, "sampling": {"max_tokens": 200}}
        assert still("run", "told.yaml", "--limit", "20", "--yes", **knobs)[0] == 0
        code, told = still("check", "told.yaml")
        assert code == 0
        for line in shown("check told.yaml"):
            assert line in told


def test_the_command_that_goes_on(still: Still) -> None:
    lines = [line for line in GUIDE.splitlines() if line.startswith("still: ")]
    with FakeProvider("ok") as provider:
        _, told = still("run", "my-recipe.yaml", base_url=provider.url, budget="10requests")
    assert lines and all(line in told for line in lines)


BLOCKS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.+?)```", GUIDE, re.DOTALL)]


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_recipes_are_recipes(still: Still, tmp_path: Path, number: int) -> None:
    """Each piece, with what a whole recipe needs besides, is one that `still check` does not refuse."""
    piece = BLOCKS[number]
    if "elicit" in piece:
        piece = {"knowledge": {"answers": {"seeds": {"do": "file", "path": "seeds.jsonl"}, **piece}}}
    teachers = {"company": {"backend": "pocket"}, **piece.get("teachers", {})}
    whole = {
        "name": "piece", "use": {"purpose": "research", "distributes": []},
        "knowledge": {"answers": {"seeds": {"do": "file", "path": "seeds.jsonl"}}}, **piece, "teachers": teachers,
    }  # fmt: skip
    (tmp_path / "piece.yaml").write_text(yaml.safe_dump(whole))
    assert check(load_recipe(tmp_path / "piece.yaml")).name == "piece"


def test_the_python_runs(still: Still, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.+?)```", GUIDE, re.DOTALL)
    exec(compile(code, "guide", "exec"), {})
    assert capsys.readouterr().out.startswith("4\n")
