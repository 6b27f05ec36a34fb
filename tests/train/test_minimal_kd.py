"""The loop of docs/guides/minimal_kd.py and the trainer are the same computation."""

import copy
import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from stillhouse.objectives import divergence
from stillhouse.render import render
from stillhouse.train.batch import rendered
from stillhouse.train.plan import Plan
from stillhouse.train.student import Student, save_student
from stillhouse.train.trainer import Term, train

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "minimal_kd.py"


@pytest.fixture(scope="module")
def guide():
    spec = importlib.util.spec_from_file_location("minimal_kd", GUIDE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_guide_renders_as_the_library_does(guide, student, tools):
    for example in tools.examples(5):
        whole = render(student.tokenizer, example.prompt, example.response)
        assert guide.render(student.tokenizer, example.prompt[0].content, example.response) == (whole.ids, whole.start)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_guide_and_the_trainer_have_the_same_losses_and_weights(
    accumulate, guide, student, teacher, tools, tmp_path
):
    """In float64: Adam makes steps of full size out of the last bits of a gradient that is near zero."""
    student.model.double(), teacher.model.double()
    examples, steps, size = tools.examples(10), 6, 4
    branch = rendered("x", examples, student.tokenizer, max_length=None)
    plan = Plan({"x": branch}, seed=0, length=steps * accumulate, size=size)
    rows = [[(item.ids.tolist(), item.start) for item in plan[number]["x"]] for number in range(steps * accumulate)]
    by_step = [rows[at : at + accumulate] for at in range(0, len(rows), accumulate)]
    start = torch.cat([each.detach().flatten().clone() for each in student.model.parameters()])
    ours = Student(copy.deepcopy(student.model), student.tokenizer)
    term = Term("divergence.forward_kl", divergence.forward_kl, "x", teacher="t")
    arguments = {
        "max_steps": steps, "learning_rate": 0.01, "per_device_train_batch_size": size,
        "gradient_accumulation_steps": accumulate, "logging_steps": 1,
    }  # fmt: skip
    done = train(ours, [term], {"x": examples}, teachers={"t": teacher}, arguments=arguments, out=tmp_path, seed=0)
    losses = guide.distil(teacher.model, student.model, by_step, pad_id=0, learning_rate=0.01)
    assert [row["loss"] for row in done.history] == pytest.approx(losses, rel=1e-9)
    assert losses[-1] < 0.8 * losses[0]
    # as a share of the way they went
    mine, theirs = (torch.cat([p.detach().flatten() for p in m.parameters()]) for m in (ours.model, student.model))
    assert (mine - theirs).norm() < 1e-7 * (theirs - start).norm()


def test_the_guide_runs_as_a_script(guide, student, teacher, tools, tmp_path, monkeypatch, capsys):
    save_student(student, tmp_path / "student")
    save_student(Student(teacher.model, teacher.own_tokenizer), tmp_path / "teacher")
    rows = [{"prompt": e.prompt[0].content, "response": e.response} for e in tools.examples(6)]
    (tmp_path / "examples.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    places = [str(tmp_path / name) for name in ("teacher", "student", "examples.jsonl", "out")]
    monkeypatch.setattr(sys, "argv", ["minimal_kd.py", *places, "--steps", "30", "--learning-rate", "0.02"])
    guide.main()
    first, last = map(float, re.findall(r"\d+\.\d+", capsys.readouterr().out))
    assert last < 0.7 * first
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.vocab_size == len(student.tokenizer)


def test_the_guide_is_short_and_stands_alone():
    text = GUIDE.read_text()
    assert len(text.splitlines()) <= 150
    assert not re.search(r"^\s*(from|import) stillhouse", text, re.M)
