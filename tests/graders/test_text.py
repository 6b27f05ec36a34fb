from hypothesis import given
from hypothesis import strategies as st

from stillhouse.graders import Grade
from stillhouse.graders.text import contains, exact


def test_contains_finds_whole_words_only() -> None:
    assert contains(["It is CORRECT."], ["correct"]) == [Grade(1.0, "equal")]
    assert contains(["It is INCORRECT."], ["correct"]) == [Grade(0.0, "missing")]
    assert contains(["score: 10"], ["1"]) == [Grade(0.0, "missing")]
    assert contains(["pi is 3.14"], ["3"]) == [Grade(0.0, "missing")]


def test_exact_ignores_case_space_and_punctuation() -> None:
    assert exact(["  The  Bridge! "], ["the bridge"]) == [Grade(1.0, "equal")]
    assert exact(["the bridge over it"], ["the bridge"]) == [Grade(0.0, "different")]
    assert exact(["ﬁn"], ["fin"])[0].value == 1.0  # NFKC


def test_an_empty_reference_is_nobody_s_answer() -> None:
    assert contains(["anything"], ["..."]) == [Grade(None, "unreadable_reference")]
    assert exact([""], [None]) == [Grade(None, "no_reference")]


@given(st.text(), st.text(), st.text())
def test_a_text_contains_its_middle(before: str, middle: str, after: str) -> None:
    grade = contains([f"{before} {middle} {after}"], [middle])[0]
    assert grade.value in (1.0, None)
