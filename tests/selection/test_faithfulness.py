"""Entailment, numbers, overlap and round trips (R54, R55), with a scripted judge of entailment."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from stillhouse.errors import RecipeError
from stillhouse.graders import Grade
from stillhouse.records import Example, user
from stillhouse.selection.faithfulness import entailed, numbers, overlap, round_trip

DATA = os.environ.get("STILLHOUSE_TEST_DATA")


def said(prompt: str, response: str, **columns: str) -> Example:
    return Example(f"{prompt}/{response}", user(prompt), response, None, (), dict(columns))


def contained(responses: Sequence[str], references: Sequence[str | None]) -> list[Grade]:
    """Follows from a text that holds all its words."""
    return [
        Grade(None, "empty") if not text else Grade(float(set(said.split()) <= set((text or "").split())), "scripted")
        for said, text in zip(responses, references, strict=True)
    ]


def test_r54_an_answer_must_follow_from_its_source_and_back() -> None:
    rows = [
        said("a b c", "a b"),
        said("a b c", "a d"),
        said("a b", "b a"),
        said("x", "y", text=""),
        said("x", "y", text="y z"),
    ]
    assert [why for _, why in entailed(rows[:3], grader=contained)] == [None, "not_entailed", None]
    assert [why for _, why in entailed(rows[:3], grader=contained, both=True)] == [
        "adds_nothing_back",
        "not_entailed",
        None,
    ]
    assert [why for _, why in entailed(rows[3:], grader=contained, source="text")] == ["no_source", None]


def test_what_cannot_be_told_is_not_kept() -> None:
    def never(responses: Sequence[str], references: Sequence[str | None]) -> list[Grade]:
        return [Grade(None, "crashed")] * len(responses)

    assert [why for _, why in entailed([said("a", "a")], grader=never)] == ["could_not_tell"]


@pytest.mark.parametrize(
    ("source", "answer", "why"),
    [
        ("It cost 1,200 dollars in 1999.", "In 1999 it cost 1200.0 dollars.", None),
        ("It cost 1,200 dollars.", "It cost 1,300 dollars.", "new_number:1300"),
        ("12 of them", "12% of them", "new_number:12%"),
        ("A B2 plane at -3.50 degrees", "-3.5 degrees", None),
        ("no number", "nothing", None),
    ],
)
def test_r54_numbers_are_those_of_the_source(source: str, answer: str, why: str | None) -> None:
    assert [each for _, each in numbers([said(source, answer)])] == [why]


def test_a_number_left_out_counts_where_asked() -> None:
    assert [why for _, why in numbers([said("3 and 4", "3")], both=True)] == ["lost_number:4"]


def test_r54_a_paraphrase_is_no_copy_and_about_as_long() -> None:
    text = "the old man walked slowly down to the river bank"
    rows = [
        said(text, "the old man walked slowly down to the river side"),
        said(text, "slowly, an aged fellow went to where the water ran"),
        said(text, "he walked"),
        said(text, text * 2),
    ]
    assert [why for _, why in overlap(rows)] == ["copied", None, "too_short", "too_long"]
    with pytest.raises(RecipeError, match="the first is the smaller"):
        list(overlap(rows, shortest=2, longest=1))


@pytest.mark.skipif(DATA is None, reason="STILLHOUSE_TEST_DATA is not set")
def test_r55_a_query_finds_its_document_or_goes() -> None:
    pytest.importorskip("model2vec")
    documents = [
        "Rice is cooked in twice its volume of water until the water is gone.",
        "The Eiffel tower in Paris is 330 metres tall.",
        "Hamlet is a tragedy that Shakespeare wrote around 1600.",
    ]
    queries = ["how to cook rice with water", "who wrote the play hamlet", "when did shakespeare write hamlet"]
    rows = [said(document, query) for document, query in zip(documents, queries, strict=True)]
    model = str(Path(DATA or "") / "potion-base-4M-int8")
    assert [why for _, why in round_trip(rows, model=model)] == [None, "not_found", None]
    assert [why for _, why in round_trip(rows, model=model, within=3)] == [None, None, None]


def test_r55_without_an_embedder_bm25_is_the_retriever() -> None:
    """R55: a query that another document answers better, or that no document shares a word with, goes."""
    rows = [
        said("bees dance in the hive", "hive of bees"),
        said("a lock lifts ships", "dance of bees"),
        said("rye grows", "zebra"),
    ]
    assert [why for _, why in round_trip(rows)] == [None, "not_found", "not_found"]
    assert [why for _, why in round_trip(rows, others=["the hive of bees"])] == ["not_found"] * 3
