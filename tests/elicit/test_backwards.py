"""Problems asked backwards (R23) on hand cases and on GSM8K."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stillhouse.elicit import expansion
from stillhouse.elicit.backwards import masked_numbers, numbers_of
from stillhouse.records import Lost, Seed, user

Scripted = Callable[..., Any]
EGGS = Seed("eggs", user("Janet sells 16 eggs at $2 each. How much does she make?"), "16 * 2 = 32\n#### 32")


def test_r23_a_number_becomes_the_unknown_and_the_answer_is_told() -> None:
    found = list(expansion.backward([EGGS], most=5))
    assert {one.reference for one in found} == {"16", "2"}
    for one in found:
        assert isinstance(one, Seed)
        problem, told = one.prompt[0].content.split("\n\n")
        assert problem.replace("x eggs", "16 eggs").replace("$x", "$2") == EGGS.prompt[0].content
        assert told == "The answer to this question is 32. What is the value of the unknown x?"
        assert one.origin.parents == ("eggs",)


def test_a_number_that_is_still_told_is_not_asked_for() -> None:
    text = "Tom has 3 cats and 3 dogs and 4 fish."
    assert [number for _, number in masked_numbers(text, "x", 9, "salt")] == ["4"]
    assert numbers_of("It cost $1,200.50 in 2nd place, 1/2 of 16.") == {"1,200.50", "16"}


def test_without_a_number_or_an_answer_nothing_is_asked() -> None:
    seeds = [Seed("a", user("Who?"), "me"), Seed("b", user("3 or 4?"))]
    assert [(one.parent, one.reason) for one in expansion.backward(seeds) if isinstance(one, Lost)] == [
        ("a", "no_number"), ("b", "no_reference"),
    ]  # fmt: skip


def test_r23_the_statement_must_hold_the_answer_and_a_number_of_the_problem(scripted: Scripted) -> None:
    good = scripted(reply="Janet sells 16 eggs at $2 each and makes 32 dollars.")
    (one,) = expansion.restated_backward([EGGS], good)
    assert isinstance(one, Seed)
    assert one.reference in ("16", "2")
    assert "32 dollars. What is the value of the unknown x?" in one.prompt[0].content
    missing = expansion.restated_backward([EGGS], scripted(reply="She sells 16 eggs at $2."))
    assert [each.reason for each in missing] == ["answer_missing"]
    none = expansion.restated_backward([EGGS], scripted(reply="She makes 32 dollars."))
    assert [each.reason for each in none] == ["no_number"]


def test_r23_gsm8k_backwards(data: Path) -> None:
    """Every question made says the unknown once, and its reference gives the original back."""
    rows = [json.loads(line) for line in (data / "gsm8k" / "train.jsonl").read_text().splitlines()]
    seeds = [Seed(str(i), user(row["question"]), row["answer"]) for i, row in enumerate(rows)]
    found = list(expansion.backward(seeds, unknown="[X]"))
    made = [one for one in found if isinstance(one, Seed)]
    assert len(found) == len(rows) == 7473
    assert len(made) > 0.93 * len(rows)
    for one in made:
        original = rows[int(one.origin.parents[0])]["question"]
        assert one.prompt[0].content.partition("\n\nThe answer to")[0].replace("[X]", one.reference or "") == original
        assert re.fullmatch(r"[\d,.]+", one.reference or "")
