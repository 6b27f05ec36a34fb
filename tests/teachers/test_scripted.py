"""The teacher that follows a script: what tests of everything else rest on."""

import pytest

from stillhouse.errors import RecipeError
from stillhouse.records import user
from stillhouse.teachers import scripted
from stillhouse.teachers.base import Answer, Request


def said(teacher: scripted.Teacher, *requests: Request) -> list[str]:
    results = [outcome.result for outcome in teacher.ask(requests)]
    return [result.text if isinstance(result, Answer) else result.kind for result in results]


def test_the_reference_is_the_default_and_its_absence_is_told() -> None:
    assert said(scripted.Teacher(), Request(user("2+2"), expected="4"), Request(user("?"))) == ["4", "no_reference"]


def test_order_of_the_rules() -> None:
    teacher = scripted.Teacher(
        replies={"exactly this": "by prompt"},
        responses={r"add (\d+) and (\d+)": "sum of {1} and {2} is {reference}", "add": "other"},
        reply="else {prompt} {index}",
    )
    requests = [
        Request(user("exactly this")),
        Request(user("please add 2 and 3"), expected="5"),
        Request(user("add it")),
        Request(user("hm"), sample_index=2),
    ]
    assert said(teacher, *requests) == ["by prompt", "sum of 2 and 3 is 5", "other", "else hm 2"]


def test_braces_and_backslashes_that_are_no_places_stay() -> None:
    teacher = scripted.Teacher(responses={"q": r'{"a": "\frac{1}{2}"} {3}'})
    assert said(teacher, Request(user("q"))) == [r'{"a": "\frac{1}{2}"} {3}']


def test_in_order_and_by_sample() -> None:
    teacher = scripted.Teacher(replies=["one", "two"])
    assert said(teacher, *[Request(user("q"))] * 3) == ["one", "two", "script_ended"]
    teacher = scripted.Teacher(reply=["a", "b"])
    assert said(teacher, *(Request(user("q"), sample_index=i) for i in range(3))) == ["a", "b", "a"]


def test_every_kth_fails() -> None:
    teacher = scripted.Teacher(reply="long answer", fail={"truncated": 2, "timeout": 3})
    outcomes = [outcome.result for outcome in teacher.ask([Request(user("q"))] * 6)]
    kinds = [r.finish_reason if isinstance(r, Answer) else r.kind for r in outcomes]
    assert kinds == ["stop", "length", "timeout", "length", "stop", "length"]


def test_scripts_are_told_apart_by_everything_they_say() -> None:
    scripts = [
        {"reply": "a"},
        {"reply": "b"},
        {"replies": {"q": "a"}},
        {"replies": ["a"]},
        {"responses": {"a": "1", "b": "2"}},
        {"responses": {"b": "2", "a": "1"}},
        {"fail": {"empty": 2}},
    ]
    assert len({scripted.Teacher(**script).identity() for script in scripts}) == len(scripts)  # type: ignore[arg-type]


def test_broken_scripts_are_refused() -> None:
    with pytest.raises(RecipeError, match="no regular expression"):
        scripted.Teacher(responses={"(": "x"})
    with pytest.raises(RecipeError, match=r"fail\.empty"):
        scripted.Teacher(fail={"empty": 0})
