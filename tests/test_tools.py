"""Tools and the world that is made of them."""

from pathlib import Path

import pytest
from small_runs import write_jsonl

from stillhouse.environments import toolbox
from stillhouse.errors import RecipeError
from stillhouse.records import Act, Seed, user
from stillhouse.tools import ToolFaultError, calculator, calendar, search

GOAL = Seed("g", user("What is it?"), "7")


@pytest.mark.parametrize(
    ("asked", "said"),
    [("3 + 4", "7"), ("400/1400", "0.29"), ("(1,200 - 200) * 2 =", "2000"), ("-7 // 2", "-4"), ("10 / 4", "2.5")],
)
def test_a_calculator_rounds_to_two_digits(asked: str, said: str) -> None:
    """R46."""
    assert calculator(asked) == said


@pytest.mark.parametrize(
    "asked", ["", "3 +", "2 ** 9", "open('x')", "1 / 0", "'a' * 9", "True + 1", "9" * 300, "1e308 * 1e308 // 1"]
)
def test_a_calculator_refuses_what_is_no_arithmetic(asked: str) -> None:
    with pytest.raises(ToolFaultError):
        calculator(asked)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("", "Saturday, 2026-11-21"),
        ("2026-02-27 + 3 days", "Monday, 2026-03-02"),
        ("today - 1", "Friday, 2026-11-20"),
        ("2026-01-01 to today", "324 days"),
    ],
)
def test_a_calendar_has_its_today_from_the_recipe(asked: str, said: str) -> None:
    """R46."""
    assert calendar(asked, today="2026-11-21") == said


@pytest.mark.parametrize("asked", ["soon", "2026-02-30", "9999-12-31 + 2"])
def test_a_calendar_says_what_it_cannot_tell(asked: str) -> None:
    with pytest.raises(ToolFaultError):
        calendar(asked, today="2026-11-21")


def test_a_search_reads_a_collection(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "c.jsonl", [{"text": "bees dance in the hive"}, {"text": "a lock on the canal"}])
    assert search("Which canal?", path=path) == "a lock on the canal"
    with pytest.raises(ToolFaultError, match="nothing was found"):
        search("zebra", path=path)
    with pytest.raises(RecipeError, match="row 1: no text in the field 'body'"):
        search("bees", path=path, field="body")


def test_a_toolbox_answers_errors_and_ends_the_episode() -> None:
    """R48, R50: an agent is told what there is, and of a wrong call what was wrong."""
    world = toolbox(GOAL, tools=[calculator])
    assert world.actions.splitlines()[0].startswith("calculator[...]: The value of an arithmetic expression")
    assert world.observe((), Act("", "calculator", "3 + 4")).text == "7"
    assert world.observe((), Act("", "calculator", "three")).text == "Error: 'three' is no arithmetic expression"
    assert (
        world.observe((), Act("", "look", "x")).text == "Error: there is no action look; there are calculator, finish"
    )
    assert (world.observe((), Act("", "finish", "7")).over, world.observe((), Act("", "finish", "7")).reward) == (
        True,
        None,
    )
    assert world.observe((), Act("", "give_up", "")).reward == 0.0
    with pytest.raises(RecipeError, match="tools is empty"):
        toolbox(GOAL, tools=[])
