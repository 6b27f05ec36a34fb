"""Two roles, one teacher (R09, R10)."""

from collections.abc import Callable
from typing import Any

import pytest

from stillhouse.elicit.labeling import dialogue
from stillhouse.errors import RecipeError
from stillhouse.records import Example, Lost, Seed, user

Scripted = Callable[..., Any]
SEED = Seed("s1", user("What is rain?"))


def responses(person: str) -> dict[str, str]:
    return {"You play a person": person, "": "Answer to: {prompt}"}


def test_exchanges_alternate_and_each_answer_is_learnt_under_what_came_before(scripted: Scripted) -> None:
    """R09 (UltraChat): n exchanges, the person's lines come from the other prompt."""
    script = {
        r"You play a person.*Assistant: one": "And snow?", r"And snow\?": "two", "You play": "never", r"What is rain\?": "one",
    }  # fmt: skip
    made = list(dialogue([SEED], scripted(responses=script), exchanges=2))
    assert [m.response for m in made] == ["one", "two"]  # type: ignore[union-attr]
    last = made[-1]
    assert isinstance(last, Example)
    assert [(m.role, m.content) for m in last.prompt] == [
        ("user", "What is rain?"), ("assistant", "one"), ("user", "And snow?"),
    ]  # fmt: skip
    assert last.columns["ended"] == "length"
    assert len(last.origin.keys) == 3


@pytest.mark.parametrize(
    ("said", "ended"),
    [
        ("[END]", "done"),
        ("Sure! How can I help you today?", "role_flip"),
        ("As an AI, I have no wishes.", "role_flip"),
        ("What is rain?", "repeats"),
        ("Thank you so much, bye!", "thanks"),
        ("Person: [END]", "done"),
    ],
)
def test_it_ends_where_the_person_is_done_or_out_of_role(scripted: Scripted, said: str, ended: str) -> None:
    """R10 (CAMEL): flipped roles, loops and mutual thanking end the talk; what was said before stays."""
    (made,) = dialogue([SEED], scripted(responses=responses(said)), exchanges=5)
    assert isinstance(made, Example)
    assert made.columns["ended"] == ended
    assert made.prompt == SEED.prompt


def test_roles_and_the_last_answer_only(scripted: Scripted) -> None:
    (made,) = dialogue(
        [SEED], scripted(responses=responses("Tell me more about it, please")),
        exchanges=2, person="a farmer", assistant="You are a weather expert.", learn="last",
    )  # fmt: skip
    assert isinstance(made, Example)
    assert made.prompt[0].content == "You are a weather expert."
    assert [m.role for m in made.prompt] == ["system", "user", "assistant", "user"]


def test_a_first_answer_that_fails_is_the_only_loss(scripted: Scripted) -> None:
    (lost,) = dialogue([SEED], scripted(fail={"refused": 1}))
    assert isinstance(lost, Lost)
    assert (lost.reason, lost.parent) == ("refused", "s1")
    (kept,) = dialogue([SEED], scripted(name="later", responses=responses("More?"), fail={"refused": 3}), exchanges=3)
    assert isinstance(kept, Example)
    assert kept.columns["ended"] == "refused"
    with pytest.raises(RecipeError, match="exchanges is 0"):
        list(dialogue([SEED], scripted(), exchanges=0))
