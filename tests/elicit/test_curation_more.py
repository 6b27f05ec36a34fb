"""Textbooks, exercises and knowledge points (R11, 3.3)."""

import ast
from collections.abc import Callable
from typing import Any

import pytest

from stillhouse.elicit import curation
from stillhouse.elicit.asking import Unparsed
from stillhouse.elicit.curation_prompts import AUDIENCES
from stillhouse.elicit.parsing import function_parts
from stillhouse.records import Example, Lost, Seed, user

Scripted = Callable[..., Any]

BLOCK = """Here it is.
```python
def running_total(numbers):
    \"\"\"The sums of the first one, two, ... numbers: [1, 2] gives [1, 3].\"\"\"
    out, total = [], 0
    for n in numbers:
        total += n
        out.append(total)
    return out
```"""


def topics(*names: str) -> list[Seed]:
    return [Seed(name, user(name)) for name in names]


def test_r11_a_section_is_plain_text_for_an_audience(scripted: Scripted) -> None:
    text = "Water flows downhill. " * 20
    found = list(curation.textbook(topics("rivers", "lakes", "seas", "rain"), scripted(reply=text)))
    assert [one.prompt for one in found if isinstance(one, Example)] == [()] * 4
    assert {one.columns["topic"] for one in found} == {"rivers", "lakes", "seas", "rain"}
    for one in found:
        assert one.columns["audience"] in AUDIENCES
        assert one.columns["audience"] in one.asked[0].content  # what the teacher saw, not what is learned
    assert len({one.columns["audience"] for one in found}) > 1


def test_r11_a_section_of_a_line_is_lost(scripted: Scripted) -> None:
    assert [one.reason for one in curation.textbook(topics("rivers"), scripted(reply="Rivers flow."))] == ["too_short"]


def test_r11_an_exercise_is_cut_behind_its_docstring(scripted: Scripted) -> None:
    (one,) = curation.exercise(topics("running total"), scripted(reply=BLOCK))
    assert isinstance(one, Example)
    assert one.prompt[0].content.startswith("def running_total(numbers):")
    assert one.prompt[0].content.endswith('gives [1, 3]."""')
    assert one.response.startswith("    out, total = [], 0")
    assert one.columns["name"] == "running_total"
    names: dict[str, Any] = {}
    exec(compile(ast.parse(f"{one.prompt[0].content}\n{one.response}"), "exercise", "exec"), names)
    assert names["running_total"]([1, 2, 3]) == [1, 3, 6]


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        ("no code", "no_program"),
        ("```python\ndef f(:\n```", "not_python"),
        ("```python\ndef f():\n    return 1\n```", "no_docstring"),
        ("```python\nx = 1\n```", "no_docstring"),
        ('```python\ndef f():\n    """Says."""\n```', "no_body"),
    ],
)
def test_what_is_no_exercise(block: str, reason: str) -> None:
    found = function_parts(block)
    assert isinstance(found, Unparsed)
    assert found.reason == reason


def test_knowledge_points_come_once(scripted: Scripted) -> None:
    points = "1. Ratios\n2. Unit prices\n3. Division"
    found = list(curation.knowledge_points(topics("a", "b"), scripted(reply=points), count=2))
    assert [one.prompt[0].content for one in found if isinstance(one, Seed)] == ["Ratios", "Unit prices"]
    assert [(one.parent, one.reason, one.detail) for one in found if isinstance(one, Lost)] == [
        ("b", "repeated", "Ratios"), ("b", "repeated", "Unit prices"),
    ]  # fmt: skip


def test_every_point_leads_a_problem_with_others(scripted: Scripted) -> None:
    names = [f"point {i}" for i in range(6)]
    found = list(curation.from_points(topics(*names), scripted(reply="A problem."), points=3))
    assert [one.columns["points"][0] for one in found] == names
    assert all(len(set(one.columns["points"])) == 3 for one in found)
    assert [len(one.origin.parents) for one in found] == [3] * 6
    assert [one.reason for one in curation.from_points(topics("one"), scripted(reply="x"))] == ["no_partner"]
