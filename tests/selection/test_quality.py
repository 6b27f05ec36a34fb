import pytest

from stillhouse.errors import RecipeError
from stillhouse.graders import Grade, math
from stillhouse.records import Ranking, user
from stillhouse.selection.quality import correct, length


def test_correct_says_why(example) -> None:  # type: ignore[no-untyped-def]
    records = [
        example("a", "The answer is 7.", "7"),
        example("b", "The answer is 8.", "7"),
        example("c", "The answer is 7.", None),
        example("d", "The answer is 7.", "a word"),
    ]
    assert [(r.prompt[0].content, why) for r, why in correct(records, grader=math.equal)] == [
        ("a", None),
        ("b", "wrong"),
        ("c", "no_reference"),
        ("d", "could_not_tell:unreadable_reference"),
    ]


def test_correct_grades_in_bounded_chunks_and_loses_nobody(example) -> None:  # type: ignore[no-untyped-def]
    sizes: list[int] = []

    def halves(responses, references):  # type: ignore[no-untyped-def]
        sizes.append(len(responses))
        return [Grade(0.5, "half") for _ in responses]

    records = [example(str(i), "r", "r") for i in range(600)]
    assert [why for _, why in correct(iter(records), grader=halves, at_least=0.5)] == [None] * 600
    assert [why for _, why in correct(iter(records), grader=halves)] == ["wrong"] * 600
    assert max(sizes) <= 256


def test_length_has_both_ends_included(example) -> None:  # type: ignore[no-untyped-def]
    records = [example("p", "x" * n) for n in (2, 3, 5, 6)]
    assert [why for _, why in length(records, min_chars=3, max_chars=5)] == ["too_short", None, None, "too_long"]
    assert [why for _, why in length([Ranking("r", user("p"), ("ab", "cd"))], min_chars=6)] == ["too_short"]
    assert [why for _, why in length(records, max_chars=1, on="prompt")] == [None] * 4
    with pytest.raises(RecipeError, match="min_chars"):
        list(length(records))
