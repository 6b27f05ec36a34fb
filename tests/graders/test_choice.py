import pytest

from stillhouse.graders import Grade
from stillhouse.graders.choice import equal


@pytest.mark.parametrize(
    ("response", "reference"),
    [
        ("So the answer is (d) math problem.", "math problem"),
        ("So the answer is (d) math problem.", "(d) math problem"),
        ("So the answer is (d) math problem.", "d"),
        ("D", "(d) math problem"),
        ("d.", "D"),
        ("Answer: D) math problem", "math problem"),
        ("\\boxed{D}", "d"),
        ("Math problem", "math problem"),
    ],
)
def test_letter_or_text(response: str, reference: str) -> None:
    """R20: CommonsenseQA's options, by letter, text or both."""
    assert equal([response], [reference]) == [Grade(1.0, "equal")]


@pytest.mark.parametrize(
    ("response", "reference", "reason"),
    [
        ("So the answer is (c) train station.", "bridge", "different"),
        ("So the answer is (c) train station.", "(d) bridge", "different"),
        ("So the answer is either (a) aquarium or (e) pond.", "aquarium", "ambiguous"),
        (
            "The letters stand for many things and it takes time to say which of them all is meant here",
            "b",
            "unparsable",
        ),
    ],
)
def test_no_choice_or_the_wrong_one(response: str, reference: str, reason: str) -> None:
    assert equal([response], [reference]) == [Grade(0.0, reason)]


def test_a_letter_against_a_text_cannot_be_told() -> None:
    assert equal(["The answer is (b)."], ["bridge"]) == [Grade(None, "letter_against_text")]
    assert equal(["b"], [None]) == [Grade(None, "no_reference")]
    assert equal(["b"], ["..."]) == [Grade(None, "unreadable_reference")]


def test_choices_tie_letters_to_texts() -> None:
    choices = ["yes", "no", "maybe"]
    graded = equal(
        ["The answer is (b).", "no", "a", "Maybe it is yes, maybe no."], ["no", "b", "maybe", "a"], choices=choices
    )
    assert [g.value for g in graded] == [1.0, 1.0, 0.0, 0.0]
    assert graded[3].reason == "ambiguous"
    assert equal(["In our view the evidence says yes."], ["a"], choices=choices)[0].value == 1.0


def test_a_remark_behind_the_letter_does_not_matter() -> None:
    assert equal(["The answer is (b), because rain falls."], ["(b) rain"]) == [Grade(1.0, "equal_by_letter")]
