"""Encoders that score: rerankers, reward models and classifiers on BERT's and RoBERTa's kind."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from apart_helpers import make_bert, make_t5, pair_tokenizer, plain_tokenizer
from train_helpers import make_examples

import stillhouse
from stillhouse.chatting import chat
from stillhouse.errors import RecipeError
from stillhouse.objectives.ranking import dpo
from stillhouse.objectives.reinforcement import bradley_terry, step_rewards
from stillhouse.objectives.supervised import cross_entropy
from stillhouse.records import Ranking, user
from stillhouse.render import render_pair
from stillhouse.scoring import Scorer
from stillhouse.train.student import Student, load_student, save_student
from stillhouse.train.trainer import Term, train

LABELS = ("no", "yes")


def ranked(number: int) -> list[Ranking]:
    rows = make_examples(number, longest=12)
    return [
        Ranking(row.id, row.prompt, (f"{row.response} good", f"{row.response} bad"), origin=row.origin) for row in rows
    ]


def fitted(student: Student, term: Term, rows: Any, out: Path, **arguments: Any) -> Any:
    told = {"max_steps": 3, "learning_rate": 0.01, "per_device_train_batch_size": 8, "logging_steps": 1, **arguments}
    return train(student, [term], {"rows": rows}, teachers={}, arguments=told, out=out, seed=0)


def based(folder: Path, kind: str, roberta: bool = False, **more: Any) -> Student:
    tokenizer = pair_tokenizer(typed=not roberta)
    labels = LABELS if kind == "classifier" else ()
    model = make_bert(tokenizer, roberta=roberta, labels=max(len(labels), 1))
    save_student(Student(model, tokenizer, kind, labels), folder)
    return load_student(folder, kind=kind, labels=labels, **more)


@pytest.mark.parametrize("roberta", [False, True])
def test_a_trained_reranker_scores_as_the_library_does(roberta: bool, tmp_path: Path) -> None:
    """Saved, loaded by its own scorer in batches, and by the library alone, one pair at a time, with its token types."""
    student = based(tmp_path / "base", "reranker", roberta)
    done = fitted(
        student, Term("bt", bradley_terry, "rows"), ranked(12), tmp_path / "out", max_steps=60, learning_rate=0.03
    )
    assert done.history[-1]["loss"] < 0.5 * done.history[0]["loss"]
    save_student(student, tmp_path / "end")
    pairs = [(row.prompt, said) for row in ranked(12) for said in row.responses]
    scores = Scorer(tmp_path / "end", batch_size=5).scores(pairs)
    assert all(good > bad for good, bad in zip(scores[::2], scores[1::2]))
    for (prompt, said), score in zip(pairs[:4], scores):
        given = student.tokenizer(prompt[-1].content, said, return_tensors="pt")
        assert ("token_type_ids" in given) != roberta
        assert student.model.eval()(**given).logits.item() == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize("kind", ["reward", "classifier"])
def test_a_step_is_the_same_however_it_is_cut(kind: str, tmp_path: Path) -> None:
    ends = []
    for pieces in (1, 4):
        student = based(tmp_path / "base", kind, lora={"rank": 4} if kind == "reward" else None)
        student.model.eval()
        for module in student.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        term = Term("bt", bradley_terry, "rows") if kind == "reward" else Term("ce", cross_entropy, "rows")
        rows = [replace(row, response=LABELS[at % 2]) for at, row in enumerate(make_examples(8))]
        done = fitted(
            student, term, ranked(8) if kind == "reward" else rows, tmp_path / str(pieces), max_steps=2,
            per_device_train_batch_size=8 // pieces, gradient_accumulation_steps=pieces,
        )  # fmt: skip
        ends.append(done.history)
    for whole, cut in zip(*ends, strict=True):
        assert whole["loss"] == pytest.approx(cut["loss"], rel=1e-5)
        assert whole["grad_norm"] == pytest.approx(cut["grad_norm"], rel=1e-3)


def test_a_pair_is_cut_where_the_second_text_begins() -> None:
    tokenizer = pair_tokenizer()
    whole = render_pair(tokenizer, user("ab"), "cd")
    assert tokenizer.convert_ids_to_tokens(whole.ids) == ["<s>", "a", "b", "<|end|>", "c", "d", "<|end|>"]
    assert whole.start == 4


def test_what_an_encoder_cannot_do_is_refused(tmp_path: Path) -> None:
    student = based(tmp_path / "base", "reward")
    steps = [replace(row, columns={"step_labels": [1]}) for row in make_examples(4)]
    with pytest.raises(RecipeError, match="step by step"):
        fitted(student, Term("steps", step_rewards, "rows"), steps, tmp_path / "out")
    with pytest.raises(RecipeError, match="objectives on its scores"):
        fitted(student, Term("dpo", dpo, "rows"), ranked(4), tmp_path / "out")
    tokenizer = plain_tokenizer()
    save_student(Student(make_t5(tokenizer), tokenizer, "seq2seq"), tmp_path / "t5")
    with pytest.raises(RecipeError, match="take a decoder"):
        load_student(tmp_path / "t5", kind="reward")


def test_a_classifier_from_a_recipe(tmp_path: Path) -> None:
    """R51's student: trained, held against its questions, described as what it is, and it refuses to chat."""
    based(tmp_path / "base", "classifier")
    rows = [{"prompt": f"is {n} odd", "reference": LABELS[n % 2]} for n in range(10)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "name": "odd", "use": {"purpose": "research", "distributes": []},
        "knowledge": {"rows": {"seeds": {"do": "file", "path": "rows.jsonl", "reference": "reference"},
                               "elicit": [{"do": "labeling.reference"}]}},
        "student": {"model": str(tmp_path / "base"), "kind": "classifier", "labels": list(LABELS),
                    "terms": {"record": "apache-2.0"}},
        "train": {"objectives": [{"do": "supervised.cross_entropy", "on": "rows"}],
                  "args": {"max_steps": 80, "learning_rate": 0.03, "per_device_train_batch_size": 10}},
        "evaluate": [{"do": "scored.labels", "path": "rows.jsonl"}],
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    run = stillhouse.distill(tmp_path / "recipe.yaml", out=tmp_path / "run", quiet=True)
    scores = json.loads((run.path / "evaluate" / "scores.json").read_text())
    assert scores["summary"][0]["mean"] >= 0.9
    card = (run.path / "student" / "README.md").read_text()
    assert "AutoModelForSequenceClassification" in card
    assert "writes no text" in card
    page = (run.path / "report.html").read_text()
    assert "nobody to compare with" in page
    assert "on the base" not in page
    assert "It writes no text" in page
    with pytest.raises(RecipeError, match="does not write"):
        chat(run.path / "student")
