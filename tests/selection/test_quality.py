import pytest

from stillhouse.errors import RecipeError
from stillhouse.graders import Grade, math
from stillhouse.records import Ranking, user
from stillhouse.selection.quality import best, consensus, correct, length, score, vote


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


def test_score_never_invents_one(example) -> None:  # type: ignore[no-untyped-def]
    """R15 (AlpaGasus): a threshold, or the highest; "failed = missing, never a default"."""
    values = [4.5, 3.0, None, float("nan"), 5.0, 4.5, True]
    records = [example(str(i), "r", score=value) for i, value in enumerate(values)]
    assert [why for _, why in score(records, at_least=4.5)] == [
        None, "low_score", "no_score", "no_score", None, None, "no_score",
    ]  # fmt: skip
    assert [i for i, (_, why) in enumerate(score(iter(records), keep=2)) if why is None] == [0, 4]
    with pytest.raises(RecipeError, match="at_least"):
        list(score(records))


def test_best_of_n_keeps_one_of_each_seed(example) -> None:  # type: ignore[no-untyped-def]
    """R35 (best of 4): the earliest of the highest; a seed without any score keeps nothing."""
    a = [example("a", f"a{i}", score=s) for i, s in enumerate([1.0, 3.0, 3.0])]
    b = [example("b", "b0"), example("b", "b1", score=2.0)]
    c = [example("c", "c0")]
    assert [why for _, why in best([*a, *b, *c])] == ["not_best", None, "not_best", "no_score", None, "no_score"]


def test_vote_needs_no_reference(example) -> None:  # type: ignore[no-untyped-def]
    """R21 (LMSI): the majority's paths stay; 0.5 and 1/2 are one answer; a tie has no majority."""
    a = [example("a", f"Path {i}. The answer is {x}.") for i, x in enumerate(["1/2", "0.5", "3", "hm"])]
    b = [example("b", "The answer is 1."), example("b", "The answer is 2."), example("b", "I do not know")]
    assert [why for _, why in vote([*a, *b])] == [
        None,
        None,
        "minority",
        "minority",
        "no_majority",
        "no_majority",
        "no_answer",
    ]
    assert [why for _, why in vote(a, at_least=0.6)] == ["no_majority"] * 4


def test_consensus_keeps_the_answer_that_the_others_come_nearest_to(example) -> None:  # type: ignore[no-untyped-def]
    """R30 (Ensemble-Instruct), O3. By hand, ROUGE-L F1: 6/8, 4/8 and 4/6, so the means are 0.625, 0.708 and 0.583."""
    group = [example("x", text) for text in ("The red cat sat down.", "The red cat", "the cat ran")]
    alone = [example("y", "nobody else said anything")]
    whys = [why for _, why in consensus([*group, *alone], at_least=0.7)]
    assert whys == ["not_central", None, "not_central", "single_answer"]
    assert [why for _, why in consensus(group, at_least=0.71)] == ["no_consensus"] * 3
