"""math.equal: hand-made cases, properties, and the gold answers of GSM8K."""

import contextlib
import json
import os
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.graders import Grade
from stillhouse.graders.final import last_marked
from stillhouse.graders.math import equal
from stillhouse.graders.numbers import NotANumberError, read

DATA = os.environ.get("STILLHOUSE_TEST_DATA")


def grade(response: str, reference: str | None, **knobs: object) -> Grade:
    return equal([response], [reference], **knobs)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("response", "reference"),
    [
        ("She has 4 and buys 3. The answer is 7.", "7"),
        ("The answer is (84 / 2).", "( 84.0 / 2.0 )"),
        ("... 17 + 15 = 32, 32 + 2 = 34. The answer is (17 + 15 + 2).", "34"),
        ("Hence the answer is 4 - 8 + 5 = 1. Answer: 1", "1"),
        ("Hence the answer is Answer: 56", "56"),
        ("Hence the answer is 33 dollars.", "( 165.0 / 5.0 )"),
        ("first \\boxed{3}, no: \\boxed{4}", "4"),
        ("work\n#### 1,250", "work\n#### 1250"),
        ("The answer is $1,250.00.", "1250"),
        ("The answer is: **12**", "12"),
        ("The answer is\n12", "12"),
        ("The answer is -3 degrees.", "-3"),
        ("The answer is 2 1/2 cups.", "2.5"),
        ("\\boxed{\\frac{1}{3}}", "1/3"),
        ("The answer is 1.5 \\times 10^{3} m.", "1500"),
        ("The answer is 50 %.", "0.5"),
        ("The answer is 50%.", "50"),
        ("twelve", "12"),
        ("The answer is 0.3.", "(0.1 + 0.2)"),
        ("x = 3", "3"),
    ],
)
def test_equal_numbers(response: str, reference: str) -> None:
    assert grade(response, reference) == Grade(1.0, "equal")


@pytest.mark.parametrize(
    ("response", "reference", "reason"),
    [
        ("The answer is 8.", "7", "different"),
        ("0.3333", "1/3", "different"),
        ("10^100 + 1", "10^100", "different"),
        ("The answer is (some - 8).", "7", "unparsable"),
        ("The answer is (9 * x).", "63", "unparsable"),
        ("The answer is 9 crackers and 9 cakes.", "9", "unparsable"),
        ("The answer is ((8 - 1", "7", "unparsable"),
        ("", "7", "unparsable"),
        ("I cannot say.", "7", "unparsable"),
        ("The answer is 1/0.", "7", "unparsable"),
    ],
)
def test_wrong_or_unreadable_is_worth_nothing(response: str, reference: str, reason: str) -> None:
    assert grade(response, reference, symbolic=False) == Grade(0.0, reason)


def test_last_number_is_a_stated_fallback() -> None:
    text = "Adding the 4 apples of the first day and the 3 of the second makes 7 in all, which she eats."
    assert grade(text, "7") == Grade(1.0, "equal_by_last_number")
    assert grade(text, "4") == Grade(0.0, "different_by_last_number")


def test_nobody_could_tell() -> None:
    assert grade("5", None) == Grade(None, "no_reference")
    assert grade("5", "").value is None
    assert grade("5", "a long story without a number").reason == "unreadable_reference"


def test_tolerance_is_relative() -> None:
    assert grade("0.3333", "1/3", tolerance=1e-3).value == 1.0
    assert grade("0.3333", "1/3", tolerance=1e-5).value == 0.0


def test_symbolic() -> None:
    """R22, R23: what is not a number goes to math-verify, whose "not equal" needs a second opinion."""
    cases = [
        ("\\boxed{2\\sqrt{3}}", "\\sqrt{12}", Grade(1.0, "equal_symbolically")),
        ("The answer is $(x+1)^2$.", "x^2+2x+1", Grade(1.0, "equal_symbolically")),
        ("\\boxed{\\{1,2\\}}", "\\{2,1\\}", Grade(1.0, "equal_symbolically")),
        ("\\boxed{2\\sqrt{3}}", "\\sqrt{13}", Grade(0.0, "different")),
        ("The answer is x^2.", "x^2+2x+1", Grade(0.0, "different")),
        ("The answer is ((8 - 1) and (9 - 1)).", "7", Grade(0.0, "different")),
        # only one verifier says so: unknown, not wrong
        ("\\boxed{(1,2)}", "[1,2]", Grade(None, "difference_unconfirmed")),
    ]
    given, references, expected = zip(*cases)
    # a loaded machine must not turn a verdict into a time-out
    assert equal(given, references, seconds=60.0) == list(expected)


def test_a_tower_of_powers_is_killed_and_says_so() -> None:
    """Bad input 25: in a process of its own, killed at its time; a time-out is no verdict."""
    graded = equal(["\\boxed{\\sqrt{16}}", "\\boxed{9^{9^{9^9}}}"], ["4", "x + 1"], seconds=3.0)
    assert graded[0].value == 1.0
    assert graded[1] in (Grade(None, "timed_out"), Grade(None, "verifier_failed"))


@given(st.fractions(max_denominator=1000), st.sampled_from(["{}", "({})", "$ {}", "{} apples", "it is {}", "x = {}"]))
def test_every_fraction_reads_back(value: Fraction, frame: str) -> None:
    assert read(frame.format(f"{value.numerator}/{value.denominator}")).value == value


@given(st.integers(-(10**12), 10**12))
def test_thousands_separators(value: int) -> None:
    assert read(f"{value:,}").value == value
    assert read(f"{value:,}.50").value == (abs(value) + Fraction(1, 2)) * (-1 if value < 0 else 1)


@given(st.text(max_size=60))
def test_any_text_is_a_number_or_is_not(text: str) -> None:
    with contextlib.suppress(NotANumberError):
        read(text)


@pytest.mark.skipif(DATA is None, reason="STILLHOUSE_TEST_DATA is not set")
def test_gsm8k_train_gold_against_itself_and_off_by_one() -> None:
    """R23: every gold answer of the train split equals itself; none equals itself plus one."""
    rows = map(json.loads, (Path(DATA or "") / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines())
    gold = [row["answer"] for row in rows]
    assert len(gold) == 7473
    assert set(equal(gold, gold)) == {Grade(1.0, "equal")}
    finals = [int(text.split("####")[1].strip().replace(",", "")) for text in gold]
    off_by_one = [f"Let me think. The answer is {value + 1:,} dollars." for value in finals]
    assert set(equal(off_by_one, gold)) == {Grade(0.0, "different")}


def test_a_text_that_opens_box_after_box_is_read_in_one_pass() -> None:
    """A student that goes round in circles: forty thousand openings took minutes where each was followed to the end."""
    assert last_marked("\\boxed{" * 40_000) is None
    assert last_marked("\\boxed{7}" + "\\boxed{" * 40_000).text == "7"  # type: ignore[union-attr]
    nested = last_marked("}so \\boxed{\\frac{1}{2}} and \\boxed{")
    assert nested is not None
    assert (nested.text, nested.start, nested.end) == ("\\frac{1}{2}", 4, 23)
