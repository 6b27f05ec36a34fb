"""Preferences and rewards without an essay of a judge."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest

from stillhouse.elicit.preferences import conditioned, corrected, expected, known
from stillhouse.errors import RecipeError
from stillhouse.records import Example, Lost, Prompt, Seed, user
from stillhouse.teachers.base import TokenBeliefs


class Leaning:
    """A teacher with a fixed probability for each option, and none for the others."""

    name = "leaning"

    def __init__(self, **chances: float):
        self.chances, self.asked = chances, []

    def tokenizer_fingerprint(self) -> str:
        return "letters"

    def top_logprobs(self, pairs: Iterable[tuple[Prompt, str]], *, k: int) -> Iterator[TokenBeliefs]:
        ids = {option: number for number, option in enumerate(self.chances)}
        order = sorted(self.chances, key=lambda option: -self.chances[option])[:k]
        for prompt, option in pairs:
            self.asked.append(prompt[0].content)
            top = np.array([[ids[each] for each in order]])
            yield TokenBeliefs(np.array([ids[option]]), top, np.log([[self.chances[each] for each in order]]))


def seed(**columns: Any) -> Seed:
    return Seed("s", user("q"), "gold", columns)


def test_rankings_are_read_from_columns() -> None:
    (pair,) = known([seed(chosen="yes", rejected="no")], responses=["chosen", "rejected"])
    assert (pair.responses, pair.scores, pair.reference, pair.origin.parents) == (("yes", "no"), (), "gold", ("s",))
    (listed,) = known([seed(all=["a", "b", "c"], marks=[1, 3, 2])], responses=["all"], scores="marks")
    assert (listed.responses, listed.scores) == (("b", "c", "a"), (3.0, 2.0, 1.0))
    (lost,) = known([seed(chosen="same", rejected="same")], responses=["chosen", "rejected"])
    assert isinstance(lost, Lost)
    with pytest.raises(RecipeError, match="has no column 'rejected'; keep it with `columns:`"):
        list(known([seed(chosen="yes")], responses=["chosen", "rejected"]))
    with pytest.raises(RecipeError, match="has 3 responses and 2 marks"):
        list(known([seed(all=["a", "b", "c"], marks=[1, 3])], responses=["all"], scores="marks"))


def test_a_correction_is_preferred_to_what_it_corrected() -> None:
    """R42."""
    mended = Example("e", user("q"), "2 + 2 is 4", columns={"was": "2 + 2 is 5"})
    (pair,) = corrected([mended])
    assert (pair.responses, pair.origin.parents) == (("2 + 2 is 4", "2 + 2 is 5"), ("e",))
    (lost,) = corrected([Example("e", user("q"), "same", columns={"was": "same"})])
    assert lost.reason == "unchanged"


def test_a_class_is_told_by_a_prefix_and_a_weight() -> None:
    """R16: the prefix stands in the user's turn, behind a system message."""
    told = {"column": "source", "prefixes": {"gpt4": "Expert: ", "gpt3": "Amateur: "}, "weights": {"gpt3": 0.1}}
    strong, weak, other = (Example(s, user("Why?"), "So.", columns={"source": s}) for s in ("gpt4", "gpt3", "human"))
    found = list(conditioned([strong, weak, other], **told))
    assert [one.prompt[0].content for one in found[:2]] == ["Expert: Why?", "Amateur: Why?"]
    assert [one.columns["weight"] for one in found[:2]] == [1.0, 0.1]
    assert (found[2].reason, found[2].detail) == ("no_class", "human")


def test_a_rating_is_expected_from_probabilities() -> None:
    """R33 (d-RLAIF) on -1 to 1, and R44: the chance of a yes among yes and no."""
    answer = Example("e", user("Name a fruit."), "Pear.")
    (rated,) = expected([answer], Leaning(**{str(digit): 0.1 for digit in range(1, 9)}, **{"9": 0.2}))
    assert rated.columns["score"] == pytest.approx((sum((d - 5) / 4 for d in range(1, 9)) * 0.1 + 0.2) / 1.0)
    teacher = Leaning(yes=0.3, no=0.1, maybe=0.6)
    options = {"yes": 1.0, "no": 0.0}
    (told,) = expected([answer], teacher, question="Is it a fruit?", options=options, column="fruit")
    assert told.columns["fruit"] == pytest.approx(0.75)
    assert "Is it a fruit?" in teacher.asked[0]
    assert "Pear." in teacher.asked[0]
    (lost,) = expected([answer], teacher, options=options, k=2)
    assert lost.reason == "option_missing"
    with pytest.raises(RecipeError, match=r"use feedback\.rate"):
        list(expected([answer], object()))  # type: ignore[arg-type]
