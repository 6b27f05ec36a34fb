"""Encoder-decoder students: the same numbers as the library's own, trained, asked, saved and reported like any other."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from apart_helpers import make_bart, make_t5, plain_tokenizer
from train_helpers import WhiteBox, believe, make_examples, make_model, make_tokenizer

import stillhouse
from stillhouse.check import check
from stillhouse.errors import RecipeError
from stillhouse.generate import generate
from stillhouse.objectives.divergence import forward_kl, reverse_kl
from stillhouse.objectives.supervised import cross_entropy
from stillhouse.recipe import load_recipe
from stillhouse.records import user
from stillhouse.render import APART, reading_of, render_apart
from stillhouse.teachers.transformers import Teacher
from stillhouse.train.batch import rendered
from stillhouse.train.forward import has_plain_head, packs_sequences, show
from stillhouse.train.packing import pack
from stillhouse.train.quantise import quantise
from stillhouse.train.student import Student, load_student, save_student
from stillhouse.train.trainer import Rollouts, Term, train

CE = Term("supervised.cross_entropy", cross_entropy, "rows")
MAKES = {"t5": make_t5, "bart": make_bart}


def fitted(model: Any, tokenizer: Any, out: Path, terms: list[Term], rows: Any, **more: Any) -> Any:
    arguments = {"max_steps": 3, "learning_rate": 0.01, "per_device_train_batch_size": 8, "logging_steps": 1}
    arguments |= more.pop("arguments", {})
    student = Student(model, tokenizer, "seq2seq")
    more = {"teachers": {}, "seed": 0, **more}
    return student, train(student, terms, {"rows": rows}, arguments=arguments, out=out, **more)


@pytest.mark.parametrize("kind", MAKES)
def test_a_batch_says_what_each_row_says_alone(kind: str) -> None:
    """Against the library's own forward pass with labels, one row at a time, in float64."""
    tokenizer = plain_tokenizer()
    model = MAKES[kind](tokenizer).double()
    branch = rendered("rows", make_examples(6), tokenizer, max_length=None, reading=reading_of(model))
    batch = pack({"rows": [item for place in range(6) for item in branch.items(place)]}, pad=0, packing=False)
    arrays = [torch.from_numpy(each) for each in (batch.ids_RC, batch.position_RC, batch.target_RC)]
    shown, at = show(model, *arrays, layers=(-1,)), 0
    for item in batch.items["rows"]:
        ids = torch.tensor(item.ids[None]).long()
        alone = model(input_ids=ids[:, : item.start], labels=ids[:, item.start :])
        own = shown.logits_NV[at : at + item.targets]
        assert torch.allclose(own, alone.logits[0], atol=1e-10)
        at += item.targets
    assert shown.hidden_NH[-1].shape == (at, 16)
    assert not packs_sequences(model)
    assert has_plain_head(model) == (kind == "t5")  # BART adds a bias behind its head


@pytest.mark.parametrize("kind", MAKES)
def test_it_answers_as_the_library_does(kind: str) -> None:
    """Greedy, in one batch of unequal prompts; and what is drawn does not depend on the rows beside."""
    tokenizer = plain_tokenizer()
    model = MAKES[kind](tokenizer, seed=3)
    prompts = [render_apart(tokenizer, row.prompt, "a").ids[:-2] for row in make_examples(6, longest=20)]
    for prompt, ours in zip(prompts, generate(model, prompts, max_new_tokens=12, eos_ids=[2], pad_id=0)):
        told = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": 2}
        assert model.generate(input_ids=torch.tensor([prompt]), **told)[0, 1:].tolist() == ours.ids
    how = {"max_new_tokens": 30, "eos_ids": list(range(2, 12)), "pad_id": 0, "temperature": 1.0}
    drawn = generate(model, prompts, seeds=range(6), **how)
    assert len({len(each.ids) for each in drawn}) > 2  # rows end at different times and leave the batch
    assert drawn == [generate(model, [prompt], seeds=[seed], **how)[0] for seed, prompt in enumerate(prompts)]


def test_prompt_and_response_are_closed_as_the_tokenizer_closes_texts() -> None:
    tokenizer = plain_tokenizer()
    whole = render_apart(tokenizer, user("ab"), "cd")
    assert tokenizer.convert_ids_to_tokens(whole.ids) == ["a", "b", "<|end|>", "c", "d", "<|end|>"]
    assert whole.start == 3
    templated = render_apart(make_tokenizer(), user("ab"), "cd")
    tokens = make_tokenizer().convert_ids_to_tokens(templated.ids)
    assert tokens[templated.start :] == ["c", "d", "<|end|>"]
    assert tokens[templated.start - 1] == "<|assistant|>"


@pytest.mark.parametrize("pieces", [2, 8])
def test_a_step_is_the_same_however_it_is_cut(pieces: int, tmp_path: Path) -> None:
    """P06 for an encoder-decoder, with weights on the rows and a teacher that reads rows in one piece."""
    tokenizer = plain_tokenizer()
    rows = [replace(row, columns={"weight": 1.0 + number % 3}) for number, row in enumerate(make_examples(8))]
    teacher = WhiteBox(make_model(tokenizer, 5), tokenizer)
    terms = [Term("ce", cross_entropy, "rows", weight_column="weight"), Term("kl", forward_kl, "rows", teacher="main")]
    ends = []
    for size in (1, pieces):
        arguments = {"max_steps": 2, "per_device_train_batch_size": 8 // size, "gradient_accumulation_steps": size}
        _, done = fitted(
            make_t5(tokenizer), tokenizer, tmp_path / str(size), terms, rows, arguments=arguments,
            teachers={"main": teacher},
        )  # fmt: skip
        ends.append([(row["loss"], row["grad_norm"]) for row in done.history])
    for (loss, norm), (other, its) in zip(*ends, strict=True):
        assert loss == pytest.approx(other, rel=1e-5)
        assert norm == pytest.approx(its, rel=1e-3)


def test_nothing_is_to_learn_from_a_teacher_that_is_the_student(tmp_path: Path) -> None:
    """P10 through the trainer: the divergence from its own start is 0, from another model it is not."""
    tokenizer = plain_tokenizer()
    teachers = {"same": WhiteBox(make_t5(tokenizer), tokenizer), "other": WhiteBox(make_t5(tokenizer, 1), tokenizer)}
    losses = {}
    for name in ("same", "other", "reference"):
        term = Term("kl", forward_kl, "rows", teacher=name)
        _, done = fitted(
            make_t5(tokenizer), tokenizer, tmp_path / name, [term], make_examples(8), teachers=teachers,
            arguments={"max_steps": 1},
        )  # fmt: skip
        losses[name] = done.history[0]["loss"]
    assert losses["same"] == pytest.approx(0, abs=1e-6)
    assert losses["reference"] == pytest.approx(0, abs=1e-6)
    assert losses["other"] > 1e-3


def test_stored_beliefs_of_a_teacher_of_its_kind(tmp_path: Path) -> None:
    """Top-k from `Teacher.top_logprobs` over the whole vocabulary is the dense divergence."""
    tokenizer = plain_tokenizer()
    folder = save_student(Student(make_t5(tokenizer, 1), tokenizer, "seq2seq"), tmp_path / "teacher")
    teacher = Teacher(model=folder, dtype="float32")
    rows = make_examples(6)
    told = list(teacher.top_logprobs([(row.prompt, row.response) for row in rows], k=len(tokenizer)))
    beliefs = [
        row.believed(
            token_ids_T=each.token_ids_T, top_ids_TK=each.top_ids_TK, top_logprobs_TK=each.top_logprobs_TK,
            tokenizer=teacher.tokenizer_fingerprint(), teacher="t",
        )
        for row, each in zip(rows, told)
    ]  # fmt: skip
    stored, online = Term("kl", forward_kl, "rows"), Term("kl", forward_kl, "rows", teacher="main")
    ends = [
        fitted(make_t5(tokenizer), tokenizer, tmp_path / str(number), [term], data, teachers={"main": teacher})[1]
        for number, (term, data) in enumerate([(stored, beliefs), (online, rows)])
    ]
    assert [row["loss"] for row in ends[0].history] == pytest.approx([row["loss"] for row in ends[1].history], rel=1e-4)


def test_beliefs_about_other_tokens_are_refused(tmp_path: Path) -> None:
    tokenizer = plain_tokenizer()
    row = make_examples(1)[0]
    wrong = believe(row, WhiteBox(make_model(tokenizer), tokenizer), 3)
    shifted = type(wrong)(
        **{f: getattr(wrong, f) for f in wrong.__dataclass_fields__} | {"response": row.response + "x"}
    )
    with pytest.raises(RecipeError, match="other tokens"):
        fitted(make_t5(tokenizer), tokenizer, tmp_path, [Term("kl", forward_kl, "rows")], [shifted])


def test_a_teacher_with_other_tokens(tmp_path: Path) -> None:
    """A decoder that cuts text differently teaches an encoder-decoder where both have read the same bytes."""
    foreign = make_tokenizer(more="ABC")
    term = Term("kl", forward_kl, "rows", teacher="foreign")
    _, done = fitted(
        make_t5(plain_tokenizer()), plain_tokenizer(), tmp_path, [term], make_examples(8),
        teachers={"foreign": WhiteBox(make_model(foreign), foreign)},
    )  # fmt: skip
    assert done.coverage["foreign"] == pytest.approx(1)
    assert done.history[-1]["loss"] < done.history[0]["loss"]


def test_it_learns_from_its_own_answers(tmp_path: Path) -> None:
    """GKD, as it was done on T5: reverse KL on what the student says; the same again after a stop."""
    tokenizer = plain_tokenizer()
    teacher = WhiteBox(make_t5(tokenizer, 1), tokenizer)
    term, rollouts = Term("kl", reverse_kl, "rollouts", teacher="main"), Rollouts(on="rows", max_new_tokens=8)
    _, done = fitted(
        make_t5(tokenizer), tokenizer, tmp_path, [term], make_examples(8), rollouts=rollouts, teachers={"main": teacher},
        arguments={"max_steps": 12},
    )  # fmt: skip
    assert all(math.isfinite(row["loss"]) for row in done.history)
    assert done.history[-1]["loss"] < 0.8 * done.history[0]["loss"]


@pytest.mark.parametrize("lora", [None, {"rank": 4}])
def test_saved_and_loaded_it_says_the_same(lora: Any, tmp_path: Path) -> None:
    tokenizer = plain_tokenizer()
    save_student(Student(make_t5(tokenizer), tokenizer, "seq2seq"), tmp_path / "base")
    student = load_student(tmp_path / "base", kind="seq2seq", lora=lora)
    rows = make_examples(8)
    arguments = {"max_steps": 5, "learning_rate": 0.05, "per_device_train_batch_size": 8}
    train(student, [CE], {"rows": rows}, teachers={}, arguments=arguments, out=tmp_path / "out", seed=0)
    save_student(student, tmp_path / "end")
    again = load_student(tmp_path / "end", kind="seq2seq")
    ids = torch.tensor([render_apart(tokenizer, rows[0].prompt, rows[0].response).ids])
    said = [each.model.eval()(input_ids=ids, labels=ids).logits for each in (student, again)]
    assert torch.allclose(*said, atol=1e-5)
    with pytest.raises(RecipeError, match="cannot be loaded as a"):
        load_student(tmp_path / "end", kind="causal_lm")


def recipe(folder: Path, **more: Any) -> Path:
    tokenizer = plain_tokenizer()
    save_student(Student(make_t5(tokenizer), tokenizer, "seq2seq"), folder / "base")
    rows = [{"q": f"{a}+{b}", "a": str(a + b), "why": f"{a} and {b}"} for a in (1, 2) for b in range(1, 5)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "held.jsonl").write_text(
        "".join(json.dumps({"prompt": r["q"], "reference": r["a"]}) + "\n" for r in rows)
    )

    def task(prefix: str, column: str) -> dict[str, Any]:
        seeds = {"do": "file", "path": "rows.jsonl", "reference": column, "template": prefix + " {{ q }}"}
        return {"seeds": seeds, "elicit": [{"do": "labeling.reference"}]}

    args = {"max_steps": 120, "learning_rate": 0.03, "per_device_train_batch_size": 8}
    told = {
        "name": "steps", "use": {"purpose": "research", "distributes": []},
        "knowledge": {"label": task("label", "a"), "rationale": task("explain", "why")},
        "student": {"model": str(folder / "base"), "kind": "seq2seq", "terms": {"record": "apache-2.0"}},
        "train": {
            "objectives": [{"do": "supervised.cross_entropy", "on": "label", "weight": 0.5},
                           {"do": "supervised.cross_entropy", "on": "rationale", "weight": 0.5}],
            "args": args,
        },
        "evaluate": [{"do": "qa", "path": "held.jsonl", "template": "label {{ prompt }}", "grader": {"do": "math.equal"},
                      "max_new_tokens": 4}],
    }  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**told, **more}))
    return path


def test_distilling_step_by_step_from_a_recipe(tmp_path: Path) -> None:
    """R20 on a T5, as the paper did it: label and rationale as two tasks of one student, then asked, reported, asked again."""
    run = stillhouse.distill(recipe(tmp_path), out=tmp_path / "run", quiet=True)
    scores = json.loads((run.path / "evaluate" / "scores.json").read_text())
    means = {row["arm"]: row["mean"] for row in scores["summary"]}
    assert means["main"] >= means["base"] + 0.3
    card = (run.path / "student" / "README.md").read_text()
    assert "AutoModelForSeq2SeqLM" in card
    assert "labels" not in card
    assert reading_of(load_student(run.path / "student", kind="seq2seq").model) is APART


def test_a_cache_nobody_knows_is_not_rounded_in_silence() -> None:
    with pytest.raises(RecipeError, match="leave out cache"):
        quantise(make_t5(plain_tokenizer()), bits=4, cache=8)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"student": {"model": "base", "kind": "seq2seq", "prune": {"on": "label", "layers": 1}}},
            "only a causal_lm is cut",
        ),
        ({"student": {"model": "base", "kind": "encoder"}}, "a student of kind encoder learns from"),
        ({"evaluate": [{"do": "language_model", "path": "held.jsonl"}]}, "an encoder-decoder cannot"),
        ({"evaluate": [{"do": "scored.labels", "path": "held.jsonl"}]}, "use one of qa"),
    ],
)
def test_what_it_cannot_do_is_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=said):
        check(load_recipe(recipe(tmp_path, **change)))
