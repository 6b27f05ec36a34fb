"""Judges put to the test before they are believed: R36, R59, 12.7."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import knowledge, sums, write_jsonl

from stillhouse import distill
from stillhouse.elicit import trust
from stillhouse.elicit.feedback import compare, hard, option_logprobs, pairs, rank, rate, step_labels
from stillhouse.errors import RunFailed
from stillhouse.phases import _judged
from stillhouse.records import Example, Lost, Ranking, Seed, user
from stillhouse.selection import quality
from stillhouse.teachers.base import TokenBeliefs

Scripted = Callable[..., Any]
ASPECT = {"truth": "it is true"}
SEED = Seed("s1", user("Name a colour."), "Blue")
RIGHT = "|".join(answer[:-1] for _, answer in trust.KNOWN)


def answers(*texts: str) -> list[Example]:
    return [SEED.answered(text, asked=SEED.prompt, teacher="student") for text in texts]


def reader(constant: int = 1) -> dict[str, str]:
    """Rates what it knows to be right 5, the constant answer as told, everything else 2."""
    return {f"Answer:\n=====\n({RIGHT})": "truth: 5", "Answer:\n=====\nThank you": f"truth: {constant}"}


def chooser(favourite: str) -> dict[str, str]:
    return {rf"Answer {n}:\n=====\n({favourite})": f"Verdict: {n}" for n in (1, 2)}


def test_the_known_answers_are_what_they_are_said_to_be() -> None:
    plants = trust.known()
    assert len({plant.right.response for plant in plants}) == len(plants) == 10
    for plant in plants:
        assert plant.constant.response == trust.CONSTANT
        assert sorted(plant.wrong.response.split()) != sorted(plant.right.response.split())
        assert plant.wrong.response not in [other.right.response for other in plants]


def test_a_judge_that_reads_leaves_no_mark(scripted: Scripted) -> None:
    (rated,) = rate(answers("Blue"), scripted(responses=reader(), reply="truth: 2"), aspects=ASPECT)
    assert isinstance(rated, Example)
    assert rated.columns == {"truth": 2.0, "score": 2.0, "rater": 0}


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ({"reply": "truth: 4"}, "0 of 10 canaries right, a constant answer 4.00, right answers 4.00"),
        ({"reply": "I cannot tell."}, "0 of 10 canaries right, a constant answer 0.00, right answers 0.00"),
        (
            {"responses": reader(constant=5), "reply": "truth: 2"},
            "10 of 10 canaries right, a constant answer 5.00, right answers 5.00",
        ),
    ],
)
def test_r36_a_judge_that_a_constant_answer_beats_is_marked_or_refused(
    scripted: Scripted, script: dict[str, Any], said: str
) -> None:
    judge = scripted(**script)
    for one in rate(answers("Blue"), judge, aspects=ASPECT):
        assert isinstance(one, Lost) or one.columns["untrusted"] == said
    with pytest.raises(RunFailed, match=rf"'script' is not to be trusted \({said}\)"):
        list(rate(answers("Blue"), judge, aspects=ASPECT, untrusted="stop"))
    (unchecked,) = rate(answers("Blue"), scripted(reply="truth: 4"), aspects=ASPECT, untrusted="unchecked")
    assert isinstance(unchecked, Example)
    assert "untrusted" not in unchecked.columns


def test_the_bound_is_eight_of_ten() -> None:
    def rates(wrong_too: int) -> list[float | None]:
        return [each for n in range(10) for each in (5.0, 5.0 if n < wrong_too else 1.0, 1.0)]

    assert trust.of_ratings(lambda plants: rates(2)) == ""
    assert trust.of_ratings(lambda plants: rates(3)).startswith("7 of 10")


def test_r59_a_judge_of_pairs_is_tried_in_both_orders(scripted: Scripted) -> None:
    (ranked,) = compare(answers("Red", "Blue"), scripted(responses=chooser(f"{RIGHT}|Blue")))
    assert isinstance(ranked, Ranking)
    assert "untrusted" not in ranked.columns
    (fooled,) = compare(answers("Red", "Thank you"), scripted(name="fooled", responses=chooser("Thank you|of ")))
    assert isinstance(fooled, Ranking)
    assert "right answers beat a constant one 0 of 10 times" in fooled.columns["untrusted"]


def test_a_run_says_that_its_judge_is_in_doubt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STILLHOUSE_STORE", str(tmp_path / "store"))
    write_jsonl(tmp_path / "seeds.jsonl", sums(4))
    recipe = knowledge()
    recipe["teachers"]["flat"] = {"backend": "scripted", "reply": "truth: 4"}
    branch = next(iter(recipe["knowledge"].values()))
    branch["elicit"].append({"do": "feedback.rate", "teacher": "flat", "aspects": ASPECT})
    run = distill(recipe, out="run", quiet=True)
    assert [step["judge"][:8] for step in run.manifest["steps"] if "judge" in step] == ["0 of 10 "]
    assert "the judge is not to be trusted: 0 of 10 canaries right" in run.report.read_text()


def test_a_judge_in_doubt_is_no_reward(scripted: Scripted) -> None:
    def flat(examples: Any) -> Any:
        return rate(examples, scripted(reply="truth: 4"), aspects=ASPECT)

    with pytest.raises(RunFailed, match="the judge is not to be trusted"):
        _judged(flat, (), "score", answers("Blue"))


def test_a_judge_with_nothing_to_judge_is_not_tried(scripted: Scripted) -> None:
    judge = scripted(reply="truth: 4")
    assert list(rate([], judge, untrusted="stop")) == list(compare([], judge, untrusted="stop")) == []


def test_r37_a_judge_of_lists_is_tried_on_lists_of_two(scripted: Scripted) -> None:
    first = {rf"Answer \[{n}\]:\n=====\n({RIGHT}|Blue)": f"[{n}] > [{3 - n}]" for n in (1, 2)}
    (ranked,) = rank(answers("Red", "Blue"), scripted(responses=first))
    assert isinstance(ranked, Ranking)
    assert ranked.responses == ("Blue", "Red")
    assert "untrusted" not in ranked.columns
    (fixed,) = rank(answers("Red", "Blue"), scripted(name="fixed", reply="[1] > [2]"))
    assert isinstance(fixed, Ranking)
    assert "canaries right" in fixed.columns["untrusted"]


def solver(script: dict[str, str]) -> dict[str, str]:
    """Labels the known solutions as told, everything else right."""
    return {f"Problem:\n=====\n{re.escape(request)}": reply for request, reply in script.items()}


def test_a_judge_of_steps_is_tried_on_known_mistakes(scripted: Scripted) -> None:
    """12.7, R24: one that calls every step right misses the five mistakes; behind a mistake it may say what it likes."""
    solved = [Example("e", user("What is 1 plus 1?"), "One and one.\nThat is 2.")]
    said = {
        q: "\n".join(f"{i}: {'right' if right else 'wrong'}" for i, right in enumerate(known, 1))
        for q, _, known in trust.KNOWN_STEPS
    }
    said["What is 6 plus 1, times 2?"] = "1: wrong\n2: wrong"
    (believed,) = step_labels(solved, scripted(responses=solver(said), reply="1: right\n2: right"))
    (doubted,) = step_labels(solved, scripted(name="b", reply="1: right\n2: right"))
    assert isinstance(believed, Example)
    assert isinstance(doubted, Example)
    assert "untrusted" not in believed.columns
    assert doubted.columns["untrusted"] == "5 of 10 canaries right"
    (unchecked,) = step_labels(solved, scripted(name="c", reply="1: right\n2: right"), untrusted="unchecked")
    assert isinstance(unchecked, Example)
    assert "untrusted" not in unchecked.columns
    with pytest.raises(RunFailed, match="not to be trusted"):
        list(step_labels(solved, scripted(name="d", reply="1: right\n2: right"), untrusted="stop"))


def test_a_referee_is_tried_before_it_finds_hard_examples(scripted: Scripted) -> None:
    """12.7, R12: one that always scores the first answer higher has no gap in either order."""
    rows = [Example("e", user("Name a colour."), "hm", "Blue is a colour.")]
    good = f"First answer:\n=====\n({RIGHT}|Blue)"
    (believed,) = hard(rows, scripted(responses={good: "First: 9\nSecond: 1"}, reply="First: 1\nSecond: 9"))
    assert isinstance(believed, Example)
    assert (believed.columns["gap"], believed.columns["hard"]) == (8.0, True)
    assert "untrusted" not in believed.columns
    (doubted,) = hard(rows, scripted(name="b", reply="First: 9\nSecond: 1"), gap=0.0)
    assert isinstance(doubted, Example)
    assert str(doubted.columns["untrusted"]).startswith("0 of 10 canaries right")


def test_probabilities_of_options_are_tried_too() -> None:
    """12.7, R33: a judge that leans to one side whatever stands there prefers nothing when both orders are averaged."""

    class Leans:
        name = "leans"

        def tokenizer_fingerprint(self) -> str:
            return "fp"

        def top_logprobs(self, pairs: Any, *, k: int) -> Any:
            for _, response in pairs:
                yield TokenBeliefs(
                    np.array([1 if response == "1" else 2]), np.array([[1, 2]]), np.log(np.array([[0.75, 0.25]]))
                )

    (ranked,) = option_logprobs(answers("Red", "Blue"), Leans())
    assert isinstance(ranked, Ranking)
    assert str(ranked.columns["untrusted"]).startswith("0 of 10 canaries right")


def test_what_an_untrusted_judge_said_can_be_dropped() -> None:
    """12.7: `trusted` makes its scores no scores, in selectors and in pairs."""
    rows = [
        replace(one, columns={"score": value, **mark})
        for one, value, mark in zip(
            answers("a", "b", "c"), (1.0, 3.0, 5.0), ({}, {}, {"untrusted": "0 of 10"}), strict=True
        )
    ]
    assert [why for _, why in quality.score(rows, at_least=2)] == ["low_score", None, None]
    assert [why for _, why in quality.score(rows, at_least=2, trusted=True)] == ["low_score", None, "untrusted_judge"]
    assert [why for _, why in quality.score(rows, keep=1, trusted=True)] == ["low_score", None, "untrusted_judge"]
    assert [why for _, why in quality.best(rows)] == ["not_best", "not_best", None]
    assert [why for _, why in quality.best(rows, trusted=True)] == ["not_best", None, "untrusted_judge"]
    (pair,) = pairs(rows, trusted=True)
    assert isinstance(pair, Ranking)
    assert pair.responses == ("b", "a")
    (lost,) = pairs(rows[1:], trusted=True)
    assert isinstance(lost, Lost)
    assert lost.reason == "untrusted_judge"
