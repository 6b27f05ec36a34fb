"""Preflight on students that are no decoders, and on arms that have others."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_runs import write_jsonl

from stillhouse.preflight.deep import Deep, deep
from stillhouse.recipe import load_recipe

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from apart_helpers import make_bert, make_t5, pair_tokenizer, plain_tokenizer

    for name, seed in (("t5", 0), ("big_t5", 1)):
        tokenizer = plain_tokenizer()
        make_t5(tokenizer, seed).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    tokenizer = pair_tokenizer()
    make_bert(tokenizer).bert.save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    rows = [{"prompt": f"is {n} odd", "reference": "yes" if n % 2 else "no"} for n in range(12)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    return tmp_path


def looked(folder: Path, student: dict[str, Any], objective: dict[str, Any], **more: Any) -> Deep:
    own = {"terms": {"own_rights": "made here"}}
    train = {"objectives": [{**objective, "on": "rows"}], "args": {"max_steps": 4, "per_device_train_batch_size": 4}}
    told: dict[str, Any] = {
        "name": "small",
        "use": {"purpose": "research", "distributes": []},
        "knowledge": {
            "rows": {
                "seeds": {"do": "file", "path": str(folder / "rows.jsonl")},
                "elicit": [{"do": "labeling.reference"}],
            }
        },
        "student": {**student, "model": str(folder / student["model"]), **own},
        "train": train,
        **more,
    }
    for entry in [
        *told.get("teachers", {}).values(),
        *(arm.get("student", {}) for arm in told.get("arms", {}).values()),
    ]:
        if entry:
            entry |= {**own, "model": str(folder / entry["model"])}
    if "arms" in told:
        told["arms"] = {name: {"train": train, **arm} for name, arm in told["arms"].items()}
        del told["train"]
    (folder / "recipe.yaml").write_text(yaml.safe_dump(told, sort_keys=False))
    return deep(load_recipe(folder / "recipe.yaml"))


def said(found: Deep) -> dict[str, tuple[str, str]]:
    return {finding.about: (finding.verdict, finding.text) for finding in found.findings}


def test_an_encoder_decoder_beside_another(folder: Path) -> None:
    """Both read prompt and answer apart; what is learned is the answer and its end."""
    teachers = {"main": {"backend": "transformers", "model": "big_t5"}}
    objective = {"do": "divergence.forward_kl", "teacher": "main"}
    found = looked(folder, {"model": "t5", "kind": "seq2seq"}, objective, teachers=teachers)
    told = said(found)
    assert told["vocabulary"][0] == "ok"
    assert {"teacher on this data", "distance to the teacher", "top-k mass", "time", "memory"} <= set(told)
    assert "".join(piece["token"] for piece in found.shown[0] if piece["learned"]).startswith("no")
    assert not found.refused


def test_a_classifier_is_told_how_its_rows_are_spread(folder: Path) -> None:
    student = {"model": "bert", "kind": "classifier", "labels": ["no", "yes"]}
    told = said(looked(folder, student, {"do": "supervised.cross_entropy"}))
    assert told["classes"] == ("ok", "of 12 rows no: 6, yes: 6")
    assert "begins at random" in told["student"][1]
    assert "time" in told
    write_jsonl(folder / "rows.jsonl", [{"prompt": f"is {n} odd", "reference": "yes"} for n in range(4)])
    assert said(looked(folder, student, {"do": "supervised.cross_entropy"}))["classes"][0] == "warning"
    write_jsonl(folder / "rows.jsonl", [{"prompt": "is it", "reference": "maybe"}])
    assert (
        "none of student.labels, the first 'maybe'"
        in said(looked(folder, student, {"do": "supervised.cross_entropy"}))["classes"][1]
    )


@pytest.mark.parametrize(("kind", "objective"), [("reranker", "ranking.ranknet"), ("encoder", "embedding.in_batch")])
def test_students_that_score_or_encode(kind: str, objective: str, folder: Path) -> None:
    found = looked(folder, {"model": "bert", "kind": kind}, {"do": objective})
    told = said(found)
    assert ("16 numbers by mean" if kind == "encoder" else "at random") in told["student"][1]
    assert {"time", "memory", "disk"} <= set(told)
    assert len(found.shown) == 3


def test_every_arm_with_another_student_is_looked_at(folder: Path) -> None:
    """Arms that share student, teacher and data are looked at once; of each the training is forecast."""
    arms: dict[str, Any] = {
        "small": {}, "longer": {},
        "other": {"student": {"model": "bert", "kind": "classifier", "labels": ["no", "yes"]}},
    }  # fmt: skip
    arms["longer"]["train"] = {
        "objectives": [{"do": "supervised.cross_entropy", "on": "rows"}],
        "args": {"max_steps": 400, "per_device_train_batch_size": 4},
    }
    told = said(looked(folder, {"model": "t5", "kind": "seq2seq"}, {"do": "supervised.cross_entropy"}, arms=arms))
    assert "student's end of turn (small, longer)" in told
    assert "classes (other)" in told
    assert "4 steps" in told["time of small (small, longer)"][1]
    assert "400 steps" in told["time of longer (small, longer)"][1]
