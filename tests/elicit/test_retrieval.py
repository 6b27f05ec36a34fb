"""Passages beside a prompt: what BM25 finds, who gets none, and the sentence that says what helped."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_runs import write_jsonl

from stillhouse.elicit import labeling, retrieval
from stillhouse.errors import RecipeError
from stillhouse.graders import Grade
from stillhouse.graders.text import contains
from stillhouse.records import Example, Lost, Ranking, Seed, user
from stillhouse.selection.influence import Meter

TEXTS = ["the mill by the river", "bees dance in the hive", "a lock on the canal", "the river and the canal"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "corpus.jsonl", [{"text": text} for text in TEXTS])


def seed(text: str, reference: str | None = None) -> Seed:
    return Seed(text, user(text), reference)


def test_the_score_is_bm25_in_lucenes_form() -> None:
    """J9: idf * tf / (tf + k1 (1 - b + b * length / mean length)), with idf = ln(1 + (N - n + .5) / (n + .5))."""
    index = retrieval.Index(TEXTS)
    mean = sum(len(text.split()) for text in TEXTS) / 4

    def by_hand(tf: int, holds: int, length: int) -> float:
        return math.log(1 + (4 - holds + 0.5) / (holds + 0.5)) * tf / (tf + 1.5 * (1 - 0.75 + 0.75 * length / mean))

    assert index.scores("River!").tolist() == pytest.approx([by_hand(1, 2, 5), 0, 0, by_hand(1, 2, 5)], abs=1e-6)
    assert index.best("hive canal", 3)[0][0] == 1  # the rarer word
    assert index.best("nothing of this", 3)[:0] == index.best("zebra", 3) == []


def test_what_is_found_stands_before_the_prompt_of_teacher_and_student(corpus: Path) -> None:
    """R17, SK03."""
    (found,) = retrieval.passages([seed("Where do bees dance?", "the hive")], path=corpus, count=2)
    assert found.prompt == user("Passage 1: bees dance in the hive\n\nWhere do bees dance?")
    assert found.reference == "the hive"
    assert found.columns["passages"] == ["bees dance in the hive"]
    assert found.origin.parents == ("Where do bees dance?",)


def test_a_teachers_reasoning_retrieves_what_the_question_cannot(corpus: Path) -> None:
    """R18 (KARD): the response is the query, and becomes what the student is held against."""
    thought = Example("e", user("What lifts ships?"), "A lock lifts ships.", None)
    (by_response,) = retrieval.passages([thought], path=corpus, count=1, by="response")
    assert by_response.columns["passages"] == ["a lock on the canal"]
    assert by_response.reference == "A lock lifts ships."
    (by_prompt,) = retrieval.passages([thought], path=corpus, count=1)
    assert by_prompt.columns["passages"] == []
    assert by_prompt.prompt == user("What lifts ships?")


def test_some_rows_get_fewer_passages_or_none(corpus: Path) -> None:
    """R17: one in five without, the others one to three."""
    many = [seed(f"{n} the river and the canal mill hive") for n in range(300)]
    sizes = [len(one.columns["passages"]) for one in retrieval.passages(many, path=corpus, fewer=True, none=0.2)]
    assert 35 <= sizes.count(0) <= 85
    assert all(sizes.count(size) > 40 for size in (1, 2, 3))
    assert sizes == [
        len(one.columns["passages"]) for one in retrieval.passages(many, path=corpus, fewer=True, none=0.2)
    ]


def test_a_verdict_about_the_passages_stands_before_the_answer() -> None:
    """R17 (SAIL, as released): the target says which results inform it."""
    columns = {"passages": ["a lock on the canal", "bees dance in the hive"]}
    told = Example("a", user("Where do bees dance?"), "They dance in the hive.", "in the hive", columns=columns)
    (one,) = retrieval.verdict_first([told])
    assert one.response == "Passage 2 helps. They dance in the hive."
    (none,) = retrieval.verdict_first([Example("b", user("Why?"), "Because of salt.", columns=columns)])
    assert none.response == "No passage helps. Because of salt."


def test_a_passage_may_be_written_from_several_fields(tmp_path: Path) -> None:
    """R47: the documentation of an API, put together."""
    path = write_jsonl(tmp_path / "apis.jsonl", [{"call": "f(x=1)", "does": "counts bees"}])
    (found,) = retrieval.passages([seed("count my bees")], path=path, template="{{ does }}: {{ call }}", label="API")
    assert found.prompt == user("API 1: counts bees: f(x=1)\n\ncount my bees")


def test_a_critics_verdict_becomes_part_of_the_answer() -> None:
    """R19 (Self-RAG): the generator learns to give the mark itself."""
    told = Example("a", user("Where?"), "In the hive.", "Relevant")
    kept, lost = retrieval.marked([told, Example("b", user("Why?"), "Because.")])
    assert isinstance(kept, Example)
    assert kept.response == "[Relevant] In the hive."
    assert isinstance(lost, Lost)
    assert lost.reason == "no_reference"


def test_what_cannot_be_retrieved_is_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"row 1: the template cannot be filled .*'body' is undefined"):
        list(retrieval.passages([seed("x")], path=corpus, field="body"))
    with pytest.raises(RecipeError, match="has no reference to look for; write by: prompt"):
        list(retrieval.passages([seed("x")], path=corpus, by="reference"))
    with pytest.raises(RecipeError, match="holds no word"):
        list(retrieval.passages([seed("x")], path=write_jsonl(tmp_path / "e.jsonl", [{"text": "!"}])))


def test_candidates_are_scored_by_what_the_reasoning_says(corpus: Path) -> None:
    """R18 (KARD): the question finds the river, the reasoning knows it is the lock; a single candidate is no ranking."""
    thought = Example("e", user("What lifts ships on the river?"), "A lock lifts ships.", None)
    (found,) = retrieval.reranked([thought], path=corpus)
    assert isinstance(found, Ranking)
    assert found.prompt == thought.prompt
    assert found.responses[0] == "a lock on the canal"
    index = retrieval.Index(TEXTS)
    assert found.scores == tuple(float(index.scores(thought.response)[TEXTS.index(text)]) for text in found.responses)
    (lost,) = retrieval.reranked([Example("f", user("bees?"), "hive", None)], path=corpus)
    assert isinstance(lost, Lost)
    assert lost.reason == "too_few_candidates"


def test_a_query_gets_its_document_and_hard_negatives(corpus: Path) -> None:
    """J9, R55: turned round, the document first, then what shares a word with the query, never the document again."""
    asked = Example("1", user(TEXTS[3]), "which river meets a canal")
    alone = Example("2", user(TEXTS[1]), "how do insects talk")
    found, lost = retrieval.negatives([asked, alone], path=corpus, count=2)
    assert isinstance(found, Ranking)
    assert (found.prompt, found.responses[0], found.scores) == (user(asked.response), TEXTS[3], (1.0, 0.0, 0.0))
    assert set(found.responses[1:]) == {TEXTS[0], TEXTS[2]}
    assert isinstance(lost, Lost) and lost.reason == "no_negative"


def contained(responses: Sequence[str], references: Sequence[str | None]) -> list[Grade]:
    """Entailment by script: follows from a text that names the hive."""
    return [Grade(float("hive" in (text or "")), "scripted") for text in references]


def test_r17_verdicts_come_from_any_entailment_model() -> None:
    """R17 (SAIL): the passage that entails the answer helps, whatever words it has."""
    columns = {"passages": ["they dance in the streets", "bees live in a hive"]}
    told = Example("a", user("Where do bees dance?"), "They dance.", "they dance", columns=columns)
    (by_words,) = retrieval.verdict_first([told])
    (by_model,) = retrieval.verdict_first([told], grader=contained)
    assert (by_words.response, by_model.response) == ("Passage 1 helps. They dance.", "Passage 2 helps. They dance.")


def test_r17_the_teacher_is_told_and_the_student_is_not(scripted: Any) -> None:
    """R17, as the survey has it: results with their labels go to the teacher, which writes the response."""
    rows = [Seed("s", user("Where?"), "the hive", {"passages": ["a hive"]}), Seed("t", user("Why?"))]
    made, lost = retrieval.informed(rows, scripted(reply="In the hive."), grader=contained)
    assert isinstance(made, Example)
    assert (made.prompt, made.asked) == (user("Where?"), user("Where?\n\nPassage 1 helps."))
    assert isinstance(lost, Lost)
    assert lost.reason == "no_reference"


def test_r57_a_student_without_search_learns_from_a_teacher_with_it(corpus: Path, scripted: Any) -> None:
    """R57 (QUILL)."""
    shown = list(retrieval.passages([seed("Where do bees dance?"), seed("zebra")], path=corpus, count=2))
    answers = [one for one in labeling.answer(shown, scripted(reply="There.")) if isinstance(one, Example)]
    assert [one.prompt for one in retrieval.erased(answers) if isinstance(one, Example)] == [
        user("Where do bees dance?"), user("zebra"),
    ]  # fmt: skip
    (lost,) = retrieval.erased([replace(answers[0], prompt=user("Something else."))])
    assert isinstance(lost, Lost)
    assert lost.reason == "not_there"


def test_r57_a_query_is_worth_what_it_finds(corpus: Path) -> None:
    """R57 (Rewrite-Retrieve-Read): a passage among the best that holds the known answer, as whole words."""
    rows = [
        Example(q, user("?"), q, a)
        for q, a in [("bees hive", "dance"), ("canal", "dan"), ("river", "mill"), ("x", None)]
    ]
    found = list(retrieval.hit(rows, path=corpus, within=2))
    assert [one.columns["score"] if isinstance(one, Example) else one.reason for one in found] == [
        1.0,
        0.0,
        1.0,
        "no_reference",
    ]


def test_r57_art_scores_are_the_models_own(corpus: Path) -> None:
    """R57: mean log-probability of the question behind each passage, by the meter that IFD uses."""
    (made,) = retrieval.by_likelihood([seed("the river and the mill")], path=corpus, model="pocket")
    assert isinstance(made, Ranking)
    losses = Meter("pocket").losses([(user(text), "the river and the mill") for text in made.responses])
    assert list(made.scores) == pytest.approx([-float(loss or 0) for loss in losses], abs=1e-5)


def test_r18_a_trained_reranker_orders_what_a_question_finds(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R18 (KARD at inference): candidates by BM25, order by the reranker."""

    class ByLength:
        def __init__(self, path: Path) -> None:
            assert path == Path("runs/reranker")

        def scores(self, pairs: Sequence[Any]) -> list[float]:
            return [float(-len(text)) for _, text in pairs]

    monkeypatch.setattr(retrieval, "Scorer", ByLength)
    (one,) = retrieval.passages([seed("the river canal")], path=corpus, count=2, reranker_path=Path("runs/reranker"))
    assert one.columns["passages"] == ["a lock on the canal", "the mill by the river"]


def test_r57_a_query_is_worth_what_a_reader_makes_of_it(corpus: Path, scripted: Any) -> None:
    """R57 (Rewrite-Retrieve-Read): the reader sees the question and what the query found."""
    rows = [Example(query, user("Where do they dance?"), query, "the hive") for query in ("bees dance", "canal")]
    reads = scripted(responses={"Passage 1: bees dance in the hive.*Where do they": "In the hive."}, reply="No idea.")
    found = [
        one for one in retrieval.reader(rows, reads, path=corpus, grader=contains, count=1) if isinstance(one, Example)
    ]
    assert [(one.columns["score"], one.columns["read"]) for one in found] == [(1.0, "In the hive."), (0.0, "No idea.")]
    assert [one.response for one in found] == ["bees dance", "canal"]
