"""Instances and forms of prompts (R01), and rewritings held against what they replace (R13)."""

from collections.abc import Callable
from typing import Any

import pytest

from stillhouse.elicit.accepting import answer, request
from stillhouse.elicit.instances import templated, written
from stillhouse.errors import RecipeError
from stillhouse.records import Example, Lost, Seed, user
from stillhouse.selection import influence

Scripted = Callable[..., Any]
SORT = Seed("s", user("Say whether the review is kind or unkind."))


def ends(results: Any) -> list[str]:
    return [each.reason if isinstance(each, Lost) else each.response for each in results]


def test_a_task_with_labels_is_written_label_first(scripted: Scripted) -> None:
    """R01: which path a task takes is asked; the same marks are read in the other order."""
    script = {
        "Answer with one word": "Yes",
        "For every label": "[Output] kind\n[Input] A warm place.\n[Output] unkind\n[Input] Never again.\n[Output] kind",
    }
    made = list(written([SORT], scripted(responses=script)))
    assert ends(made) == ["kind", "unkind"]  # the third has no text
    assert made[0].prompt == user("Say whether the review is kind or unkind.\n\nA warm place.")
    assert made[0].columns == {
        "instruction": SORT.prompt[0].content, "input": "A warm place.", "classification": True,
    }  # fmt: skip
    assert len({one.id for one in made}) == 2


@pytest.mark.parametrize(
    ("instances", "told"),
    [
        ("[Input] none\n[Output] Salt, and bread.", ["Salt, and bread."]),
        ("[Input] a\n[Output] 1\n[Input] a\n[Output] 2", ["contradicts_itself"]),
        (
            "[Input] a\n[Output] A!\n[Input] b\n[Output]\n[Input] c\n[Output] so:",
            ["same_as_input", "empty_output", "unfinished"],
        ),
        ("[Input] a\n[Output] x\n[Input] a\n[Output] x", ["x", "repeated"]),
        ("I cannot.", ["no_instance"]),
        ("[Input] 1\n[Output] p\n[Input] 2\n[Output] q\n[Input] 3\n[Output] r", ["p", "q"]),
    ],
)
def test_instances_that_teach_nothing_are_lost(scripted: Scripted, instances: str, told: list[str]) -> None:
    """R01: the released filters, each with its reason; at most `most` of a task."""
    script = {"Answer with one word": "No", "different cases": instances}
    assert ends(written([SORT], scripted(responses=script), most=3 if told[0] != "p" else 2)) == told


def test_neither_yes_nor_no(scripted: Scripted) -> None:
    """R01."""
    assert ends(written([SORT], scripted(reply="Perhaps."))) == ["no_verdict"]


def test_prompts_take_one_of_several_forms() -> None:
    """R01: drawn by the row; without an input its line is left out, and braces in a text stay as they are."""
    rows = [
        Example(
            f"e{i}",
            user(f"Add {i}.\n\n{{instruction}}"),
            "x",
            columns={"instruction": f"Add {i}.", "input": "{instruction}"},
        )
        for i in range(60)
    ]
    made = list(templated(rows))
    forms = {one.prompt[0].content.replace(old.columns["instruction"], "") for one, old in zip(made, rows, strict=True)}
    assert len(forms) == 7 and all("{instruction}" in form for form in forms)
    assert all(one.response == "x" and one.origin.parents == (old.id,) for one, old in zip(made, rows, strict=True))
    bare = [Example(f"b{i}", user("Name a tree."), "Oak.") for i in range(60)]
    assert {one.prompt[0].content for one in templated(bare)} == {
        "Name a tree.", "Task: Name a tree.", "Name a tree.\n\nOutput:", "Task: Name a tree.\n\nOutput:",
    }  # fmt: skip
    with pytest.raises(RecipeError, match="instruction"):
        list(templated(bare, templates=["{input}"]))


PAIR = Example("p", user("new request"), "new answer", columns={"was_request": "old request", "was": "old answer"})


@pytest.mark.parametrize(
    ("new", "old", "kept"),
    [(0.9, 0.5, "new"), (0.4, 0.5, "old"), (1.2, 0.5, "old"), (1.2, 1.1, "ifd_too_high"), (None, 0.5, "no_score")],
)
def test_a_rewritten_pair_must_be_harder(
    monkeypatch: pytest.MonkeyPatch, new: float | None, old: float, kept: str
) -> None:
    """R13: IFD(new) > IFD(old) and below 1; where not, the old pair comes back."""
    monkeypatch.setattr("stillhouse.elicit.accepting.Meter", lambda model: model)
    values = {"new answer": new, "old answer": old}
    monkeypatch.setattr(
        "stillhouse.elicit.accepting.difficulties", lambda _, rows: [values[one.response] for one in rows]
    )
    (result,) = request([PAIR], model="pocket")
    if isinstance(result, Lost):
        assert result.reason == kept
    else:
        assert (result.columns["kept"], result.response, result.prompt) == (
            kept,
            f"{kept} answer",
            user(f"{kept} request"),
        )
        assert (result.columns["ifd"], result.columns["was_ifd"]) == (new, old)


@pytest.mark.parametrize(
    ("new", "old", "otherwise", "kept"),
    [
        (0.4, 0.5, "drop", "new"), (0.6, 0.5, "drop", "reverse_ifd_not_lower"), (0.6, 0.5, "old", "old"),
        (1.5, 1.6, "drop", "reverse_ifd_too_high"), (1.5, 0.9, "old", "old"), (1.5, 1.2, "old", "reverse_ifd_too_high"),
    ],
)  # fmt: skip
def test_a_revised_answer_must_give_its_request_away(
    monkeypatch: pytest.MonkeyPatch, new: float, old: float, otherwise: Any, kept: str
) -> None:
    """R13: r-IFD(new) < r-IFD(old) and below 1."""
    monkeypatch.setattr("stillhouse.elicit.accepting.Meter", lambda model: model)
    values = {"new answer": new, "old answer": old}
    monkeypatch.setattr(
        "stillhouse.elicit.accepting.reverse_difficulties", lambda _, rows: [values[one.response] for one in rows]
    )
    (result,) = answer([PAIR], model="pocket", otherwise=otherwise)
    assert (result.reason if isinstance(result, Lost) else result.columns["kept"]) == kept
    if not isinstance(result, Lost):
        assert (result.prompt, result.response) == (PAIR.prompt, f"{kept} answer")


def test_the_statistics_are_those_of_the_selectors() -> None:
    """R13, R15: on the shipped student; a pair is chosen as its IFD says."""
    rows = [
        Example("a", user("A shop has 9 chairs. 5 are sold. How many are left?"), "The answer is 4.",
                columns={"was_request": "What is left?", "was": "9 - 5 = 4. The answer is 4."}),
        Example("b", user("zx qv"), "The answer is 12.", columns={"was_request": "How many?", "was": "The answer is 12."}),
    ]  # fmt: skip
    meter = influence.Meter("pocket")
    values = influence.difficulties(meter, rows)
    found = list(request(rows, model="pocket", below=50.0))
    assert [one.columns["ifd"] for one in found] == pytest.approx(values)  # type: ignore[union-attr]
    for one in found:
        assert (one.columns["kept"] == "new") == (one.columns["ifd"] > one.columns["was_ifd"])  # type: ignore[union-attr]


def test_a_brief_look_changes_what_is_hard() -> None:
    """R15 (Cherry): after some of the data, answers of that kind are easier; without a warm-up nothing is trained."""
    rows = [Example(f"e{i}", user(f"Shout the word number {i}."), f"LOUD {i} LOUD {i} LOUD") for i in range(12)]
    cold = influence.Meter("pocket").losses([(one.prompt, one.response) for one in rows])
    meter = influence._warmed_up(rows, "pocket", 8, None, 1e-2, 4, 0)
    warm = meter.losses([(one.prompt, one.response) for one in rows])
    assert sum(warm) < 0.8 * sum(cold)  # type: ignore[arg-type]
    kept = [reason for _, reason in influence.ifd_by_losses(rows, model="pocket", share=0.5, below=9, warm_up=8)]
    assert kept.count(None) == 6
