"""Judges' words: bad input 21, defects D8-D11."""

import pytest

from stillhouse.graders.verdicts import NoVerdictError, choice, score


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Score: 1", 1.0),
        ("Score: 10", 10.0),
        ("Score: 1/10", 1.0),
        ("Score: 1.", 1.0),
        ("**Score:** 7.5", 7.5),
        ("score is 3 out of 10", 3.0),
        ("[[8]]", 8.0),
        ("A score of 3 would be unfair. Score: 9", 9.0),
        ("Score: 7\n2. The second point", 7.0),
    ],
)
def test_scores(text: str, value: float) -> None:
    assert score(text, low=1, high=10) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Score: 85", "out_of_range"),
        ("Score: 0", "out_of_range"),
        ("Score: -1", "out_of_range"),
        ("Score: 1 0", "several_verdicts"),
        ("Score: 7-8", "several_verdicts"),
        ("Score: 4/5", "another_scale"),
        ("Score: 80/100", "another_scale"),
        ("It deserves ten.", "no_verdict"),
        ("There are 7 reasons.", "no_verdict"),
        ("[ERROR] code 7", "no_verdict"),
        ("Score: 1e5", "no_verdict"),
        ("Score: 4,5", "no_verdict"),
        ("Score: 9 %", "no_verdict"),
        ("Score: 9%", "no_verdict"),
        ("Score: 7th", "no_verdict"),
        ("", "no_verdict"),
    ],
)
def test_no_score_is_ever_made_up(text: str, reason: str) -> None:
    with pytest.raises(NoVerdictError, match=f"^{reason}$"):
        score(text, low=1, high=10)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("INCORRECT", "INCORRECT"),
        ("correct.", "CORRECT"),
        ("The first is correct, but... Verdict: incorrect", "INCORRECT"),
        ("Verdict: **CORRECT**", "CORRECT"),
    ],
)
def test_choices_are_whole_words(text: str, expected: str) -> None:
    """D10: CORRECT inside INCORRECT."""
    assert choice(text, ["CORRECT", "INCORRECT"]) == expected


@pytest.mark.parametrize(
    "text", ["It looks correct to me", "Verdict: correct or incorrect", "Verdict: correctly", "yes", ""]
)
def test_no_choice_out_of_prose(text: str) -> None:
    with pytest.raises(NoVerdictError):
        choice(text, ["CORRECT", "INCORRECT"])
