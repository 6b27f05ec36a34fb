"""Function calls: R47 and SK07, on hand-made calls and on real data sets."""

import json
import os
from pathlib import Path

import pytest

from stillhouse.graders import Grade
from stillhouse.graders.function_call import calls, match, subtree

DATA = os.environ.get("STILLHOUSE_TEST_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="STILLHOUSE_TEST_DATA is not set")
GOLD = '{"name": "get_weather", "arguments": {"city": "Oslo", "days": 2}}'


@pytest.mark.parametrize(
    "response",
    [
        GOLD,
        "get_weather(city='oslo', days=2)",
        "[get_weather(days=2.0, city='Oslo')]",
        "```json\n" + GOLD + "\n```",
        "<tool_call>" + GOLD + "</tool_call>",
        '{"function": {"name": "get_weather", "arguments": "{\\"city\\": \\"Oslo\\", \\"days\\": 2}"}}',
        "get_weather('Oslo', 2)",
    ],
)
def test_one_call_in_many_clothes(response: str) -> None:
    assert match([response], [GOLD]) == [Grade(1.0, "equal")]


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("It is sunny.", "no_call"),
        ("get_forecast(city='Oslo', days=2)", "wrong_function"),
        ("get_weather(city='Oslo')", "missing:days"),
        ("get_weather(city='Bergen', days=2)", "wrong_value:city"),
        ("get_weather(city='Oslo', days=2, unit='C')", "unexpected:unit"),
        ("get_weather(city='Oslo', days='2')", "wrong_value:days"),
        ("[get_weather(city='Oslo', days=2), stop()]", "wrong_count"),
        ("get_weather(city='Oslo', days=", "no_call"),
        ('{"name": "get_weather", "arguments": {"city": "Oslo", "city": "Rome", "days": 2}}', "no_call"),
    ],
)
def test_what_is_wrong_has_a_name(response: str, reason: str) -> None:
    assert match([response], [GOLD]) == [Grade(0.0, reason)]


def test_when_no_call_is_right() -> None:
    assert match(["No tool fits."], ["[]"], none="no tool fits") == [Grade(1.0, "equal")]
    assert match(["I will look it up."], ["[]"], none="no tool fits") == [Grade(0.0, "no_call")]
    assert match([GOLD], ["[]"]) == [Grade(0.0, "call_made")]
    assert match(['{"name": "get_weather", "argum'], ["[]"]) == [Grade(0.0, "call_made")]


def test_unreadable_references_are_not_the_response_s_fault() -> None:
    assert match([GOLD], [None]) == [Grade(None, "no_reference")]
    assert match([GOLD], ["?"]) == [Grade(None, "unreadable_reference")]
    assert subtree(["f()"], ["f(a=1); g()"]) == [Grade(None, "unreadable_reference")]


def rows(name: str) -> list[dict]:  # type: ignore[type-arg]
    return [json.loads(line) for line in (Path(DATA or "") / "tools" / name).read_text(encoding="utf-8").splitlines()]


@needs_data
def test_the_leaderboard_s_own_answers_match_and_broken_ones_do_not() -> None:
    """400 real rows with their allowed values; then each with one argument taken away, or another function."""
    answers = [row["ground_truth"] for row in rows("possible_answer/BFCL_v4_simple_python.json")]
    assert len(answers) == 400
    references = [json.dumps(answer) for answer in answers]
    right, short, other = [], [], []
    for answer in answers:
        ((name, allowed),) = answer[0].items()
        arguments = {k: values[0] for k, values in allowed.items() if values[0] != ""}
        right.append(json.dumps({"name": name, "arguments": arguments}))
        required = [k for k in arguments if "" not in allowed[k]]
        short.append(
            json.dumps({"name": name, "arguments": {k: v for k, v in arguments.items() if k not in required[:1]}})
        )
        other.append(json.dumps({"name": name + "_other", "arguments": arguments}))
    assert sum(g.value or 0 for g in match(right, references)) == 400
    assert {g.reason.split(":")[0] for g in match(short, references)} == {"missing"}
    assert {g.reason for g in match(other, references)} == {"wrong_function"}


@needs_data
def test_api_calls_inside_real_answers_by_syntax_tree() -> None:
    """R47 on TorchHub: each answer's text holds its call; a call of another model is no match."""
    data = rows("torchhub_eval.json")
    found = subtree(
        [row["code"] for row in data], [row["api_call"] for row in data], arguments=["repo_or_dir", "model"]
    )
    # 19 of the references are no Python at all (a positional argument behind a named one): nobody could tell
    assert [sum(g.value is None for g in found), sum(g.value == 1 for g in found), len(data)] == [19, 163, 186]
    shifted = [row["api_call"] for row in data[1:] + data[:1]]
    wrong = subtree([row["code"] for row in data], shifted, arguments=["repo_or_dir", "model"])
    same = sum(a["api_call"] == b for a, b in zip(data, shifted))
    assert sum(g.value or 0 for g in wrong) <= same + 3


def test_subtree_reads_calls_out_of_broken_text() -> None:
    reference = "hub.load(repo='a/b', model='resnet', pretrained=True)"
    texts = [
        "{'api': 'm = hub.load('a/b', 'resnet', pretrained=True)'}",
        "m = hub.load('a/b', model='vgg')",
        "m = myhub.load('a/b', model='resnet')",
        "m = hub.load(repo='a/b', model='resnet'",
    ]
    got = subtree(texts, [reference] * 4, arguments=["repo", "model"])
    assert [g.reason for g in got] == ["equal", "wrong_value:model", "wrong_function", "wrong_function"]


def test_prose_makes_no_call() -> None:
    assert calls("I would call f(x) here, but I am not sure.") == []
    assert calls("print the result") == []
