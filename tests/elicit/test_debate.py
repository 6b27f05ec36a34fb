"""Debates on a scripted teacher: who hears what, and what becomes of a debate with an answer missing. R45."""

from collections.abc import Callable
from typing import Any

import pytest

from stillhouse.elicit.debate import statement
from stillhouse.errors import RecipeError
from stillhouse.records import Example, Lost, Seed, user

Scripted = Callable[..., Any]
TOPIC = Seed("t", user("Should shops close on Sundays?"), None, {"point": "rest"})
SPEECHES = {
    r"You speak for it.*your opening": "FOR-1", r"You speak against it.*your opening": "AGAINST-1",
    r"You speak (\w+) it.*your rebuttal": "{1}-2", r"You speak (\w+) it.*your closing": "{1}-closes",
}  # fmt: skip


def test_a_side_closes_after_both_were_heard(scripted: Scripted) -> None:
    """R45 (DEBATunE): openings and rebuttals of both, the closing statement of one."""
    (one,) = statement([TOPIC], scripted(responses=SPEECHES), stances=["against"], argument="point")
    assert isinstance(one, Example)
    assert one.response == "against-closes"
    assert one.columns["debate"] == ["against: AGAINST-1", "for: FOR-1", "against: against-2", "for: for-2"]
    assert one.prompt == user(
        "Write a statement against this: Should shops close on Sundays?\nBuild it on this point: rest"
    )
    assert "The side for it said:\nfor-2" in one.asked[0].content
    assert (one.origin.parents, len(one.origin.keys)) == (("t",), 5)


def test_the_point_is_told_to_its_own_side_only(scripted: Scripted) -> None:
    teacher = scripted(responses={"Build your case on this point: rest.*You speak against": "built"}, reply="bare")
    (one,) = statement([TOPIC], teacher, stances=["against"], argument="point", rebuttals=0)
    assert isinstance(one, Example)
    assert one.columns["debate"] == ["against: built", "for: bare"]


def test_a_debate_with_an_answer_missing_is_lost(scripted: Scripted) -> None:
    found = list(statement([TOPIC], scripted(reply="")))
    assert [one.parent for one in found if isinstance(one, Lost)] == ["t", "t"]
    with pytest.raises(RecipeError, match="name at least one stance"):
        list(statement([TOPIC], scripted(), stances=[]))
