"""Preflight on small models made for the case: what is as it should be is ok, each known mistake is named."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_runs import sums, write_jsonl

from stillhouse.preflight.deep import Deep, deep
from stillhouse.preflight.turns import coloured, masked, own_turns
from stillhouse.recipe import load_recipe
from stillhouse.records import Example, user

TEMPLATE = (
    "<s>{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """`taught` learned one sentence, `fresh` is random; one tokenizer."""
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
    import torch
    from train_helpers import make_model, make_tokenizer

    tokenizer = make_tokenizer()
    for name, seed in (("taught", 0), ("fresh", 1)):
        model = make_model(tokenizer, seed=seed)
        if name == "taught":
            ids = torch.tensor(
                [[1, *tokenizer("the cow says moo and the dog says no", add_special_tokens=False)["input_ids"], 2]]
            )
            step = torch.optim.Adam(model.parameters(), 2e-2)
            for _ in range(60):
                step.zero_grad()
                model(input_ids=ids, labels=ids).loss.backward()
                step.step()
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    (tmp_path / "texts.txt").write_text("the cow says moo and the dog says no\n\n" * 12)
    return tmp_path


def recipe(folder: Path, teacher: str = "taught", student: str = "fresh", objective: str = "forward_kl") -> Any:
    own = {"terms": {"own_rights": "made here"}}
    told = {
        "name": "small",
        "use": {"purpose": "research", "distributes": []},
        "teachers": {"main": {"backend": "transformers", "model": str(folder / teacher), **own}},
        "knowledge": {
            "rows": {
                "seeds": {"do": "texts", "path": str(folder / "texts.txt"), "max_chars": 40},
                "elicit": [{"do": "feature.top_k", "teacher": "main", "k": 8}],
            }
        },
        "student": {"model": str(folder / student), **own},
        "train": {
            "objectives": [{"do": f"divergence.{objective}", "on": "rows"}],
            "args": {"max_steps": 10, "per_device_train_batch_size": 4},
        },
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(told, sort_keys=False))
    return load_recipe(path)


def looked(folder: Path, *models: str, **how: str) -> Deep:
    return deep(recipe(folder, *models, **how))


def verdicts(found: Deep) -> dict[str, str]:
    return {finding.about: finding.verdict for finding in found.findings}


def text(found: Deep, about: str) -> str:
    return next(finding.text for finding in found.findings if finding.about == about)


def test_a_teacher_that_knows_the_data_better_is_fine(models: Path) -> None:
    found = looked(models)
    said = verdicts(found)
    assert said["teacher on this data"] == said["vocabulary"] == said["chat template"] == said["memory"] == "ok"
    assert not found.refused
    assert "warning" not in said.values()
    assert "MiB stored signals" in text(found, "disk")
    assert len(found.shown) == 3


def test_p34_a_weaker_teacher_is_warned_about(models: Path) -> None:
    found = looked(models, "fresh", "taught")
    assert verdicts(found)["teacher on this data"] == "warning"
    assert "worse than the student" in text(found, "teacher on this data")
    assert "no better than" in text(looked(models, "taught", "taught"), "teacher on this data")


def test_mode_seeking_from_far_away_is_warned_about(models: Path) -> None:
    found = looked(models, objective="reverse_kl")
    assert verdicts(found)["distance to the teacher"] == "warning"
    assert "reverse_kl lost to plain text" in text(found, "distance to the teacher")


def test_p05_another_template_and_p03_another_end_are_named(models: Path) -> None:
    (models / "fresh" / "chat_template.jinja").write_text(TEMPLATE.replace("<s>", "<s>\n"))
    assert verdicts(looked(models))["chat template"] == "warning"
    (models / "fresh" / "chat_template.jinja").write_text(TEMPLATE.replace("<|end|>", "<pad>"))
    found = looked(models)
    assert verdicts(found)["end of turn"] == "refused"
    assert "the teacher ends a turn with <|end|>, the student with <pad>" in text(found, "end of turn")


def test_a_template_without_an_end_is_named(models: Path) -> None:
    (models / "fresh" / "chat_template.jinja").write_text(TEMPLATE.replace("<|end|>", ""))
    assert "writes no <|end|> after an answer" in text(looked(models), "student's end of turn")


def test_p32_a_doubled_beginning_and_p33_a_head_too_small_are_named(models: Path) -> None:
    from train_helpers import make_model, make_tokenizer

    doubled = make_tokenizer(TEMPLATE.replace("<s>", "<s><s>"))
    found = {each.about: each for each in own_turns("student", make_model(doubled), doubled)}
    assert "begins with <s> twice" in found["student's beginning"].text
    small = make_model(doubled, vocab_size=10)
    assert next(iter(own_turns("student", small, doubled))).verdict == "refused"


def test_another_tokenizer_is_refused_before_anything_is_loaded(models: Path, still: Callable[..., Any]) -> None:
    from train_helpers import make_tokenizer

    make_tokenizer(more="XYZ").save_pretrained(models / "fresh")
    recipe(models)
    told = still("check", "--deep", models / "recipe.yaml")
    assert told.returncode == 2 and "different tokenizers" in told.stderr


def test_what_is_learned_is_shown_by_position(models: Path) -> None:
    from train_helpers import make_tokenizer

    pieces = masked(make_tokenizer(), Example("a", user("hi"), "yes"))
    assert "".join(piece["token"] for piece in pieces if piece["learned"]) == "yes<|end|>"
    assert coloured(pieces, colour=False) == "<s><|user|>hi<|end|>⏎<|assistant|>«yes<|end|>»"
    assert "\x1b[1;32myes<|end|>" in coloured(pieces, colour=True)


@pytest.mark.slow
def test_the_command_prints_and_gives_json(models: Path, still: Callable[..., Any]) -> None:
    import json

    recipe(models)
    told = still("check", "--deep", "--json", models / "recipe.yaml")
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)["deep"]
    assert {"findings", "shown"} == set(found)
    measured = still("measure", "signals", models / "recipe.yaml", "--rows", "4", "--json")
    assert measured.returncode == 0, measured.stderr
    rows = json.loads(measured.stdout)["measured"]
    by = {(one["do"], str(one["knobs"])): one for one in rows}
    whole = by["feature.hidden_states", "{'dtype': 'bfloat16'}"]
    assert whole["kl"] < 1e-3 and whole["cosine"] > 0.999
    assert [one["bytes_per_token"] for one in rows] == sorted(one["bytes_per_token"] for one in rows)


def test_the_pocket_models_answer_the_questions_of_the_data(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "seeds.jsonl", sums(4))
    told = {
        "name": "sums",
        "use": {"purpose": "research", "distributes": []},
        "teachers": {"main": {"backend": "pocket", "sampling": {"max_tokens": 8}}},
        "knowledge": {
            "answers": {
                "seeds": {"do": "file", "path": str(tmp_path / "seeds.jsonl")},
                "elicit": [{"do": "labeling.answer", "teacher": "main"}],
                "select": [{"do": "quality.correct", "grader": {"do": "math.equal"}}],
            }
        },
        "student": {"model": "pocket"},
        "train": {"objectives": [{"do": "supervised.cross_entropy", "on": "answers"}], "args": {"max_steps": 2}},
    }
    found = deep(load_recipe(told, folder=tmp_path))
    assert verdicts(found)["teacher on this data"] == "note"
    assert "right by math.equal, of 4" in text(found, "teacher's answers")


def test_stories260k_beside_a_small_student(data: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=512,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            eos_token_id=2,
        )
    ).save_pretrained(tmp_path / "fresh")
    AutoTokenizer.from_pretrained(data / "stories260K" / "hf").save_pretrained(tmp_path / "fresh")
    shutil.copy(data / "text" / "tinystories_1000.json", tmp_path / "texts.json")
    told = recipe(tmp_path).data
    told["teachers"]["main"]["model"] = str(data / "stories260K" / "hf")
    told["knowledge"]["rows"]["seeds"] |= {"path": str(tmp_path / "texts.json"), "max_chars": 200}
    found = deep(load_recipe(told, folder=tmp_path))
    assert verdicts(found)["teacher on this data"] == "ok"
    assert "a little girl named Lily found a needle" in "".join(
        piece["token"] for pieces in found.shown for piece in pieces
    )
