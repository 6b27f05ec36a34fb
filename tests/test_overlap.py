"""Held-out items that were trained on: told, and the scores without them."""

import json
from pathlib import Path
from typing import Any

import pytest
from small_runs import knowledge, write_jsonl

from stillhouse import distill
from stillhouse.overlap import overlaps
from stillhouse.records import Example, user
from stillhouse.store import write_records

LONG = "Ann has {n} red apples and buys seven more on every day of the week; how many has she then?"


def rows(values: dict[str, list[float]], prompts: list[str]) -> list[dict[str, Any]]:
    return [
        {"task": "qa", "arm": arm, "seed": 0, "item": str(i), "split": "test", "prompt": prompts[i], "value": value}
        for arm, each in values.items()
        for i, value in enumerate(each)
    ]


def test_means_are_told_without_the_items_that_were_trained_on(tmp_path: Path) -> None:
    """R11, 12.7: one of four items stands in a training row; the mean is that of the other three."""
    prompts = [f"What is {n} plus {n}?" for n in range(4)]
    given = rows({"main": [1.0, 1.0, 0.0, 0.0], "base": [0.0, 0.0, 1.0, 0.0]}, prompts)
    write_records(tmp_path / "out.jsonl", [Example("a", user("What is 2 plus 2?"), ""), Example("b", user("Why?"), "")])
    (found,) = overlaps(["qa"], {"qa": given}, [tmp_path / "out.jsonl"])
    assert (found["items"], found["overlapping"], found["rows"]) == (4, 1, 1)
    told = {each["arm"]: (each["all"], each["mean"]) for each in found["without"]}
    assert told == {"main": (0.5, pytest.approx(2 / 3)), "base": (0.25, 0.0)}


def test_where_everything_overlaps_nothing_is_left_to_repeat_on(tmp_path: Path) -> None:
    write_records(tmp_path / "out.jsonl", [Example("a", user(LONG.format(n=2) + " Think!"), "x")])
    given = rows({"main": [1.0, 0.0]}, [LONG.format(n=2), LONG.format(n=3)])  # one wording, other numbers
    (found,) = overlaps(["qa"], {"qa": given}, [tmp_path / "out.jsonl"])
    assert (found["overlapping"], found["without"]) == (2, [])


def test_windows_of_text_are_compared_and_a_task_without_text_is_left_out(tmp_path: Path) -> None:
    write_records(tmp_path / "out.jsonl", [Example("a", (), "Before. " + LONG.format(n=2))])
    window = {"arm": "main", "seed": 0, "split": "test", "value": 1.0}
    given = {
        "stories": [window | {"item": "0", "text": LONG.format(n=2)}, window | {"item": "1", "text": "Nothing alike."}],
        "own_text": [window | {"item": "0"}],
    }
    (found,) = overlaps(list(given), given, [tmp_path / "out.jsonl"])
    assert (found["task"], found["items"], found["overlapping"]) == ("stories", 2, 1)


def test_the_control_and_the_coverage_stand_in_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STILLHOUSE_STORE", str(tmp_path / "store"))
    write_jsonl(tmp_path / "seeds.jsonl", [{"prompt": f"topic {n}"} for n in range(6)])
    write_jsonl(tmp_path / "held.jsonl", [{"question": LONG.format(n=3)}])
    recipe = knowledge(responses={"topic 2": "nothing listed", ".": f"1. {LONG.format(n=3)}\n2. What is rain?"})
    recipe["knowledge"]["answers"] |= {
        "elicit": [{"do": "curation.questions", "teacher": "main"}],
        "select": [{"do": "decontaminate.ngrams", "path": "held.jsonl", "on": "prompt"}],
    }
    run = distill(recipe, out="run", quiet=True)
    asked, selected = run.manifest["steps"][1:]
    assert asked["coverage"] == {"pieces": 6, "unused": 1, "most": 2, "times": {"0": 1, "2": 5}}
    rows = [json.loads(line) for line in (run.path / "knowledge/answers/01-curation.questions/coverage.jsonl").open()]
    assert [row["rows"] for row in rows] == [2, 2, 0, 2, 2, 2]
    assert selected["lost"] == {"overlap:held": 5}
    assert selected["control"] == {"texts": 1000, "dropped": 0}
    page = run.report.read_text()
    assert "of 1,000 texts put together by chance it would drop 0" in page
    assert "5 of 6 pieces of meta-information were used" in page
