"""Curation on scripted teachers: R03, R09, R52, R55, R60, R64."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse.elicit.curation import (
    from_code,
    from_document,
    from_label,
    instructions_for,
    query,
    questions,
    snippet,
    subtopics,
)
from stillhouse.errors import RecipeError
from stillhouse.records import Example, Lost, Seed, user

Scripted = Callable[..., Any]


def reasons(results: Any) -> list[str]:
    return [end.reason for end in results if isinstance(end, Lost)]


def test_a_tree_of_topics_keeps_its_path(scripted: Scripted) -> None:
    """R09: topic -> subtopics -> questions, every row knows which piece of meta-information it came from."""
    teacher = scripted(responses={
        "Topic: Nature > Rivers": "1. Why do rivers bend?", "Topic: Nature > Seas": "1. Why is the sea salty?",
        "Topic: Nature": "1. Rivers.\n2. Seas\n3. rivers\n4. Nature",
    })  # fmt: skip
    level = list(subtopics([Seed("t", user("Nature"))], teacher, count=4))
    kept = [one for one in level if isinstance(one, Seed)]
    assert [one.columns["topic"] for one in kept] == ["Nature > Rivers", "Nature > Seas"]
    assert reasons(level) == ["repeated", "repeated"]
    asked = list(questions(kept, teacher))
    assert [(q.prompt[0].content, q.columns["topic"]) for q in asked if isinstance(q, Seed)] == [
        ("Why do rivers bend?", "Nature > Rivers"), ("Why is the sea salty?", "Nature > Seas"),
    ]  # fmt: skip


def test_question_and_answer_out_of_a_document(scripted: Scripted) -> None:
    """R64 (self-QA), R65: with the document in the prompt or learnt by heart."""
    reply = "[Question] When was the mill built?\n[Answer] In 1820."
    seed = Seed("d", user("The mill was built in 1820."))
    (by_heart,) = from_document([seed], scripted(reply=reply))
    assert isinstance(by_heart, Example)
    assert (by_heart.prompt, by_heart.response) == (user("When was the mill built?"), "In 1820.")
    assert by_heart.columns == {"document": "d"}
    assert by_heart.origin.parents == ("d",)
    (with_text,) = from_document([seed], scripted(name="t", reply=reply), keep_document=True)
    assert isinstance(with_text, Example)
    assert with_text.prompt[0].content.startswith("The mill was built")
    assert reasons(from_document([seed], scripted(name="u", reply="[Question] only"))) == ["sections"]


def test_requests_about_a_document_carry_it(scripted: Scripted) -> None:
    """R09 (assistance)."""
    made = list(
        instructions_for([Seed("d", user("A text."))], scripted(reply="1. Sum it up.\n2. Rewrite it."), count=2)
    )
    assert [m.prompt[0].content for m in made if isinstance(m, Seed)] == [
        "Sum it up.\n\nA text.",
        "Rewrite it.\n\nA text.",
    ]


SOLUTION = "Use a sum.\n```python\ndef add(a, b):\n    return a + b\n```"


def test_code_snippets_inspire_problems(scripted: Scripted) -> None:
    """R60 (OSS-Instruct) on this package's own source; what copies is dropped by name."""
    source = Path(stillhouse.__file__).with_name("records.py").read_text(encoding="utf-8")
    seed = Seed("f", user(source))
    assert 1 <= len(snippet(seed, 15, 0).splitlines()) <= 15
    assert snippet(seed, 15, 0) in source
    assert snippet(seed, 15, 0) == snippet(seed, 15, 0)
    sparse = Seed("sparse", user("\n" * 30 + "one = 1\n" + "\n" * 30 + "two = 2"))
    drawn = {snippet(sparse, 3, number) for number in range(20)}
    assert drawn == {"one = 1", "two = 2"}  # nothing is asked about lines that hold nothing
    (made,) = from_code([seed], scripted(reply=f"[Problem] Add two numbers.\n[Solution]\n{SOLUTION}"))
    assert isinstance(made, Example)
    assert (made.prompt, made.response) == (user("Add two numbers."), SOLUTION)
    assert snippet(seed, 15, 0) in made.asked[-1].content
    bad = {
        "no_program": "[Problem] Add.\n[Solution] Use plus.",
        "copies_seed": f"[Problem] {snippet(seed, 15, 0)}\n[Solution]\n{SOLUTION}",
        "solution_in_problem": "[Problem] Add: def add(a, b): return a + b\n[Solution]\n" + SOLUTION,
        "sections": "Add two numbers.",
    }
    for reason, reply in bad.items():
        assert reasons(from_code([seed], scripted(name=reason, reply=reply))) == [reason]


def test_texts_for_labels(scripted: Scripted) -> None:
    """R52 (ZeroGen, UDG): text -> label, no repeated text, none that names its label."""
    seed = Seed("l", user("a review by someone who liked the film"), "positive")
    replies = ["I would watch it again.", "I would  watch it again.", "A positive film."]
    results = list(from_label([seed], scripted(n=3, reply=replies), task="Review: {text}\nMood?"))
    assert isinstance(results[0], Example)
    assert (results[0].prompt[0].content, results[0].response) == ("Review: I would watch it again.\nMood?", "positive")
    assert results[0].reference == "positive"
    assert reasons(results) == ["repeated", "names_label"]
    with pytest.raises(RecipeError, match=r"needs \{text\}"):
        list(from_label([seed], scripted(), task="Mood?"))
    with pytest.raises(RecipeError, match="no reference"):
        list(from_label([Seed("l", user("x"))], scripted(name="n")))


def test_queries_for_documents(scripted: Scripted) -> None:
    """R55, J9: one line, three words or more, not copied."""
    seed = Seed("d", user("The old mill by the river was built in 1820 by Ann Lee."))
    replies = ['"age of the river mill"\nsecond line', "mill age", "the old mill by the river"]
    results = list(query([seed], scripted(n=3, reply=replies)))
    assert isinstance(results[0], Example)
    assert results[0].response == "age of the river mill"
    assert reasons(results) == ["too_short", "copied"]
