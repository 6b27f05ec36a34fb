"""Answers of several teachers to one prompt: brought together, ranked by who gave them, and talks whose roles come from rows."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from stillhouse.elicit.feedback import by_teacher, gathered
from stillhouse.elicit.labeling import dialogue
from stillhouse.errors import RecipeError
from stillhouse.records import Example, Lost, Ranking, Seed, user

ONE, TWO = Seed("1", user("One?")), Seed("2", user("Two?"))


def said(seed: Seed, text: str, teacher: str) -> Example:
    return seed.answered(text, asked=seed.prompt, teacher=teacher)


def test_a_pool_of_models_is_brought_together_by_prompt() -> None:
    """R36: `teacher: [a, b]` gives all of a's answers first; judges look at neighbours."""
    given = [said(ONE, "a1", "a"), said(TWO, "a2", "a"), said(ONE, "b1", "b"), said(TWO, "b2", "b")]
    assert [one.response for one in gathered(given)] == ["a1", "b1", "a2", "b2"]


def test_answers_rank_by_who_gave_them() -> None:
    """R35 (ALMoST): the larger, better-prompted model is assumed to answer better; no judge is asked."""
    given = [
        said(ONE, "small", "small"),
        said(TWO, "same", "small"),
        said(ONE, "large", "large"),
        said(TWO, "same", "large"),
    ]
    first, second = by_teacher(given, order=["large", "medium", "small"])
    assert isinstance(first, Ranking)
    assert (first.responses, first.scores) == (("large", "small"), (3.0, 1.0))
    assert isinstance(second, Lost)
    assert second.reason == "single_answer"
    with pytest.raises(RecipeError, match="by 'small', who is not in `order`"):
        list(by_teacher(given, order=["large"]))


def test_the_roles_of_a_talk_come_from_its_row(scripted: Callable[..., Any]) -> None:
    """R10 (CAMEL): pairs of roles, each row its own."""
    seed = replace(ONE, columns={"who": "a baker", "expert": "a tax adviser"})
    teacher = scripted(responses={"You play a person": "And then?"}, reply="First this.")
    found = list(dialogue([seed], teacher, exchanges=2, person="{who}", assistant="You are {expert}."))
    assert all(isinstance(one, Example) for one in found)
    assert found[0].prompt[0].content == "You are a tax adviser."
    assert found[-1].prompt[-1] == user("And then?")[0]
