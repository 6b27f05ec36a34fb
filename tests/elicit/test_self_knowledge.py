"""Self-knowledge on scripted students: R21 (STaR), R34 (RLCD), R38 (SPIN), R40 (Self-Align)."""

from collections.abc import Callable
from typing import Any

import pytest

from stillhouse.elicit.self_knowledge import contrast, principled, rationalise, self_play
from stillhouse.errors import RecipeError
from stillhouse.graders import math
from stillhouse.records import Example, Lost, Ranking, Seed, user

Scripted = Callable[..., Any]
SEEDS = [Seed("easy", user("3 + 4?"), "7"), Seed("tricky", user("17 * 23?"), "391"), Seed("open", user("Why?"))]


def reasons(results: Any) -> list[str]:
    return [end.reason for end in results if isinstance(end, Lost)]


def test_what_fails_is_tried_again_with_a_hint_that_leaves_no_trace(scripted: Scripted) -> None:
    """R21 (STaR): hint shown, answer checked, hint removed from what is trained on."""
    script = {
        "The answer is 391": "17 times 23 is 391. The answer is 391.",
        r"17 \* 23": "The answer is 400.",
        "3": "The answer is 7.",
    }
    results = list(rationalise(SEEDS, scripted(responses=script), grader=math.equal))
    made = [end for end in results if isinstance(end, Example)]
    assert [(m.response, m.columns["hinted"]) for m in made] == [
        ("The answer is 7.", False), ("17 times 23 is 391. The answer is 391.", True),
    ]  # fmt: skip
    assert made[1].prompt == SEEDS[1].prompt
    assert "391" in made[1].asked[-1].content
    assert "391" not in made[1].prompt[-1].content
    assert reasons(results) == ["no_reference"]


def test_a_hinted_answer_must_be_right_and_its_own(scripted: Scripted) -> None:
    wrong = scripted(reply="The answer is 5.")
    assert reasons(rationalise(SEEDS[:1], wrong, grader=math.equal)) == ["wrong"]
    script = {"told": "Do not say that you were told. The answer is 7.", "": "The answer is 5."}
    assert reasons(rationalise(SEEDS[:1], scripted(name="leak", responses=script), grader=math.equal)) == [
        "repeats_hint"
    ]


def test_contrasting_prompts_need_no_judge(scripted: Scripted) -> None:
    """R34 (RLCD): both affixes are gone from the prompt of the ranking."""
    affixes = [["(be kind)", "(be rude)"]]
    (ranked,) = contrast(
        SEEDS[:1], scripted(responses={"kind": "With pleasure: 7", "rude": "7, obviously"}), affixes=affixes
    )
    assert isinstance(ranked, Ranking)
    assert ranked.responses == ("With pleasure: 7", "7, obviously")
    assert ranked.prompt == SEEDS[0].prompt
    assert reasons(contrast(SEEDS[:1], scripted(name="e", reply="7"), affixes=affixes)) == ["equal"]
    with pytest.raises(RecipeError, match="list of pairs"):
        list(contrast(SEEDS, scripted(), affixes=[["one"]]))


def test_rules_and_thoughts_are_engraved_not_shown(scripted: Scripted) -> None:
    """R40 (Self-Align), R43: the rules shape the answer and are in neither prompt nor response."""
    replies = ["[Thought] Rule 2 matters.\n[Answer] I do not know.", "I do not know.", "[Thought] x\n[Answer]"]
    results = list(principled(SEEDS[:1], scripted(n=3, reply=replies)))
    assert isinstance(results[0], Example)
    assert (results[0].response, results[0].prompt) == ("I do not know.", SEEDS[0].prompt)
    assert "Be honest" in results[0].asked[0].content
    assert reasons(results) == ["sections", "empty_section"]


def test_self_play_prefers_the_known_answer(scripted: Scripted) -> None:
    """R38 (SPIN)."""
    results = list(self_play(SEEDS, scripted(responses={r"3 \+ 4": "7", "17": "400"})))
    rankings = [end for end in results if isinstance(end, Ranking)]
    assert [r.responses for r in rankings] == [("391", "400")]
    assert sorted(reasons(results)) == ["equal", "no_reference"]
