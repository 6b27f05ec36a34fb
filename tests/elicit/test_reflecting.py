"""Answers in segments with a critic's marks, and a student that writes and obeys them (R19, K3)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import write_jsonl

from stillhouse.elicit import retrieval
from stillhouse.evaluate.tasks import self_rag
from stillhouse.evaluate.tasks.self_rag import plain
from stillhouse.graders.text import contains
from stillhouse.pocket import student_path
from stillhouse.records import Example, Lost, Message, user
from stillhouse.teachers.transformers import Teacher

TEXTS = ["Bees dance in the hive.", "Bees were kept in Rome.", "A lock lifts ships."]
ANSWER = "Bees dance in the hive. I like them."


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "corpus.jsonl", [{"text": text} for text in TEXTS])


def critic(**more: str) -> dict[str, str]:
    return {
        **more,
        "looked up.*Next sentence: I like": "Class: No",
        "looked up": "Class: Yes",
        "Relevant.*Rome": "Class: Irrelevant",
        "Relevant": "Class: Relevant",
        "Fully.*Passage 1: Bees dance": "Class: Fully",
        "Fully": "Class: No",
        "it answers in full": "Class: 4",
    }


def test_r19_segments_are_looked_up_judged_and_marked(corpus: Path, scripted: Any) -> None:
    """R19, K3: two turns; the fully supporting passage is chosen over others, and is the user's words, never the student's."""
    told = Example("e", user("Where do bees dance?"), ANSWER, "the hive")
    first, second = retrieval.segmented([told], scripted(responses=critic()), path=corpus)
    assert isinstance(first, Example)
    assert isinstance(second, Example)
    assert (first.prompt, first.response) == (told.prompt, "[Retrieval]")
    paragraph = Message("user", "<paragraph>Bees dance in the hive.</paragraph>")
    assert second.prompt == (*told.prompt, Message("assistant", "[Retrieval]"), paragraph)
    assert second.response == (
        "[Relevant] Bees dance in the hive. [Fully supported] [No Retrieval] I like them. [Utility:4]"
    )
    assert plain(second.response) == ANSWER
    assert (second.columns["segment"], second.reference) == (2, "the hive")


def test_r19_nothing_fitting_stays_as_a_negative(tmp_path: Path, scripted: Any) -> None:
    """R19: irrelevant passages are kept and marked; a critic that cannot be read loses the row."""
    rome = write_jsonl(tmp_path / "rome.jsonl", [{"text": TEXTS[1]}])
    told = Example("e", user("Where do bees dance?"), "Bees dance in the hive.")
    _, second = retrieval.segmented([told], scripted(responses=critic()), path=rome)
    assert isinstance(second, Example)
    assert second.response == "[Irrelevant] Bees dance in the hive. [Utility:4]"
    (lost,) = retrieval.segmented([told], scripted(name="b", reply="Perhaps."), path=rome)
    assert isinstance(lost, Lost)
    assert (lost.reason, lost.detail, lost.state) == ("no_class", "retrieve", "quarantined")


def test_r19_chances_of_marks_are_the_models_own() -> None:
    """R19: softmax over the marks of their log-probabilities behind a text, against the model asked directly."""
    from stillhouse.render import render

    teacher = Teacher(model=student_path())
    model = self_rag._Model(teacher.module(), teacher.tokenizer(), 8)
    marks, told = ("[Relevant]", "[Irrelevant]"), user("Where do bees dance?")
    sums = []
    for mark in marks:
        whole = render(teacher.tokenizer(), told, mark)
        with torch.inference_mode():
            logprobs = teacher.module()(torch.tensor([whole.ids])).logits[0].double().log_softmax(-1)
        sums.append(sum(float(logprobs[at - 1, whole.ids[at]]) for at in range(whole.start, len(whole.ids) - 1)))
    expected = torch.tensor(sums).softmax(0).tolist()
    assert model.chances(told, "", marks) == pytest.approx(expected, abs=1e-4)


def test_r19_the_beam_goes_on_with_the_best_supported_way(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R19: segments are weighed by their marks; below the threshold nothing is looked up."""

    class Generator:
        def __init__(self, *_: Any) -> None:
            pass

        def said(self, told: Any) -> tuple[str, float]:
            last = told[-1].content
            if "kept in Rome" in last:
                return "[Irrelevant] In Rome. [No support] [Utility:2]", -0.1
            if "<paragraph>" in last:
                return "[Relevant] In the hive. [Fully supported] [Utility:5]", -0.5
            return "[No Retrieval] Nobody knows. [Utility:1]", -0.2

        def chances(self, told: Any, before: str, marks: tuple[str, ...]) -> list[float]:
            good = "dance in the hive" in told[-1].content
            if marks[0] == "[Retrieval]":
                return [0.6, 0.4]
            likely = 0 if (good or marks[0] == "[Retrieval]") else len(marks) - 1
            likely = len(marks) - 1 - likely if marks[0] == "[Utility:1]" else likely
            return [float(place == likely) for place in range(len(marks))]

    monkeypatch.setattr(self_rag, "_Model", Generator)
    path = write_jsonl(corpus.parent / "q.jsonl", [{"prompt": "Where do bees dance, in Rome?", "reference": "hive"}])
    asked: dict[str, Any] = {"path": path, "passages_path": corpus, "grader": contains}
    (found,) = self_rag.self_rag(None, None, **asked)
    assert (found.response, found.value) == ("In the hive.", 1.0)
    (alone,) = self_rag.self_rag(None, None, threshold=0.9, **asked)
    assert (alone.response, alone.value) == ("Nobody knows.", 0.0)


def test_r19_a_real_student_answers_to_the_end(corpus: Path) -> None:
    """R19: with the base student, which knows no marks: it answers, is graded, and nothing breaks."""
    teacher = Teacher(model=student_path())
    path = write_jsonl(corpus.parent / "q.jsonl", [{"prompt": "Where do bees dance?", "reference": "hive"}])
    (found,) = self_rag.self_rag(
        teacher.module(), teacher.tokenizer(), path=path, passages_path=corpus, grader=contains, max_new_tokens=8
    )
    assert found.value in (0.0, 1.0)
