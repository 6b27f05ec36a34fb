"""The answer in words: from the intervals alone, for every way a run can turn out."""

from collections.abc import Callable

import pytest

from stillhouse.reporting.reading import RunFacts
from stillhouse.reporting.verdict import contrast, headline, role_of, scale_of, signed, taught_arm

from . import folders

Facts = Callable[..., RunFacts]


def test_a_clear_gain_says_by_how_much_over_whom(facts: Facts) -> None:
    said = headline(facts(folders.scores(half=0.05)))
    assert said.answer == "Yes"
    assert said.tone == "good"
    assert said.sentence == (
        "Yes: on qa the student taught as “beliefs” scores 50.0 %, +20.0 points (95 % interval +15.0 to +25.0) against "
        "the control arm; +38.0 points (95 % interval +33.0 to +43.0) against the untaught base (2 seeds, 200 items)."
    )
    assert said.explained.startswith("On qa the student")


def test_no_clear_difference_is_never_called_a_gain(facts: Facts) -> None:
    said = headline(facts(folders.scores({"base": 0.40, "beliefs": 0.44}, half=0.05)))
    assert said.answer == "Not shown"
    assert said.tone == "neutral"
    assert "+4.0 points (95 % interval −1.0 to +9.0) against the untaught base" in said.sentence
    assert "includes zero: no clear difference" in said.sentence


def test_an_interval_that_ends_at_zero_includes_it(facts: Facts) -> None:
    made = folders.scores({"base": 0.40, "beliefs": 0.45})
    made["comparisons"] = [folders.compared("beliefs", "base", 0.0625, half=0.0625)]
    assert made["comparisons"][0]["low"] == 0.0
    assert headline(facts(made)).answer == "Not shown"


def test_a_worse_student_gets_a_no(facts: Facts) -> None:
    said = headline(facts(folders.scores({"base": 0.40, "beliefs": 0.30}, half=0.05)))
    assert said.answer == "No"
    assert said.tone == "bad"
    assert "−10.0 points (95 % interval −15.0 to −5.0) against the untaught base" in said.sentence


def test_better_than_the_base_but_not_than_the_control_is_partly(facts: Facts) -> None:
    said = headline(facts(folders.scores({"base": 0.10, "control": 0.40, "beliefs": 0.41}, half=0.05)))
    assert said.answer == "Partly"
    assert (
        "+1.0 points (95 % interval −4.0 to +6.0) against the control arm, an interval that includes zero"
        in said.sentence
    )
    assert "+31.0 points" in said.sentence


def test_where_lower_is_better_a_fall_is_a_gain(facts: Facts) -> None:
    made = folders.scores({"base": 2.5, "beliefs": 2.3}, half=0.05)
    made["tasks"][0] |= {"metric": "nll", "higher_is_better": False}
    said = headline(facts(made))
    assert said.answer == "Yes"
    assert "has a loss of 2.300 nats per token, −0.200 nats per token (95 % interval −0.250 to −0.150)" in said.sentence


def test_what_beliefs_add_to_text_is_said_and_turned_round_when_stored_so(facts: Facts) -> None:
    made = folders.scores()
    pair = next(row for row in made["comparisons"] if (row["arm"], row["against"]) == ("beliefs", "text"))
    pair |= {"arm": "text", "against": "beliefs", "difference": -0.08, "low": -0.13, "high": -0.03}
    lines = [line for line in headline(facts(made)).more if "beliefs add" in line]
    assert lines == [
        "What the teacher's beliefs add to its text: “beliefs” minus “text” is +8.0 points (95 % interval +3.0 to +13.0)."
    ]


def test_arms_have_roles_from_what_they_read(facts: Facts) -> None:
    read = facts(folders.scores())
    roles = {arm: role_of(read, arm) for arm in ("base", "control", "text", "beliefs", "teacher:big")}
    assert roles == {
        "base": "base",
        "control": "control",
        "text": "taught",
        "beliefs": "taught",
        "teacher:big": "teacher",
    }
    assert not read.arms["control"].taught
    assert read.arms["beliefs"].beliefs
    assert not read.arms["text"].beliefs
    assert read.arms["text"].teachers == {"big"}
    assert read.arms["text"].reads == {"answers"}


def test_the_answer_is_about_a_taught_arm_even_when_a_control_was_chosen(facts: Facts) -> None:
    made = folders.scores(final={"arm": "control", "seed": 0})
    read = facts(made)
    assert taught_arm(read) == "beliefs", "the best taught arm on validation, not on the test items"
    assert any("is that of arm “control”" in line for line in headline(read).more)


@pytest.mark.parametrize(
    ("scores", "changes", "said"),
    [
        (None, {"state": "failed"}, "the run failed before its students were evaluated"),
        (None, {"state": "interrupted"}, "was interrupted before"),
        (None, {"students": []}, "it made data only"),
        (None, {}, "evaluated nothing"),
        (folders.scores(), {"students": [folders.student("control", 0)]}, "every arm of this run is a control"),
    ],
)
def test_what_was_not_measured_is_not_answered(facts: Facts, scores: dict, changes: dict, said: str) -> None:
    found = headline(facts(scores, **changes))
    assert found.answer == "Not measured"
    assert said in found.sentence


def test_one_seed_a_trial_and_an_unfinished_run_are_said(facts: Facts) -> None:
    made = folders.scores()
    for row in made["summary"]:
        row |= {"seeds": 1, "left_out": 3}
    said = " ".join(headline(facts(made, limit=20, state="interrupted")).more)
    assert "One seed: the interval covers the choice of items" in said
    assert "first 20 rows" in said
    assert "3 items could not be graded" in said
    assert "state: interrupted" in said


def test_further_tasks_each_get_their_own_sentence(facts: Facts) -> None:
    made, other = folders.scores(), folders.scores({"base": 0.5, "beliefs": 0.4}, half=0.02)
    for key in ("tasks", "summary", "comparisons"):
        made[key] += [{**row, "task": "second"} for row in other[key]]
    lines = [line for line in headline(facts(made)).more if line.startswith("On second: No:")]
    assert len(lines) == 1
    assert "−10.0 points" in lines[0]


def test_arms_that_were_not_compared_give_nothing(facts: Facts) -> None:
    made = folders.scores()
    assert contrast(made, scale_of(made["tasks"][0]), "beliefs", "nobody") is None


@pytest.mark.parametrize(
    ("number", "text"), [(1.25, "+1.2"), (-1.26, "−1.3"), (0.0, "0.0"), (-0.04, "0.0"), (0.04, "0.0"), (-0.06, "−0.1")]
)
def test_numbers_carry_their_sign_and_no_negative_zero(number: float, text: str) -> None:
    assert signed(number, 1) == text
