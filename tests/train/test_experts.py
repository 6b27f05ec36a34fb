"""A mixture of adapters (R66, Owl): the model it starts as, what learns, and what is saved."""

import copy
import shutil

import pytest
import torch
from scripted_recipes import trained
from train_helpers import make_examples, make_model, make_tokenizer
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from stillhouse.check import check
from stillhouse.errors import RecipeError
from stillhouse.objectives import divergence, supervised
from stillhouse.recipe import load_recipe
from stillhouse.records import user
from stillhouse.teachers.base import Answer, Request, Sampling
from stillhouse.teachers.transformers import Teacher
from stillhouse.train.experts import with_experts
from stillhouse.train.student import Student, load_student, save_student
from stillhouse.train.trainer import Term, train

IDS = torch.tensor([[1, 5, 9, 12, 7]])


def test_a_mixture_starts_as_the_model_it_is_made_of(student):
    """R66: whatever the gates say, all experts say the same."""
    plain = student.model(IDS).logits
    mixed = with_experts(student.model, number=3, top=2, rank=4, seed=0)
    assert torch.allclose(mixed(IDS).logits, plain, atol=1e-5)
    learning = {name for name, p in mixed.named_parameters() if p.requires_grad}
    assert all(".mlp.gate." in name or name.endswith(("_ErI", "_EOr")) for name in learning)
    assert len(learning) == 2 * 5  # of each layer a gate, and two adapters of two parts


def test_it_is_by_token_what_its_gate_says(student):
    """R66: the top of the softmax, normalised over them, each expert with its own change; a plain loop."""
    mixed = with_experts(student.model, number=3, top=2, rank=4, seed=0)
    block = mixed.model.layers[0].mlp
    adapters = block.experts.parametrizations
    for each in (adapters.gate_up_proj, adapters.down_proj):
        torch.nn.init.normal_(each[0].up_EOr)
    states = torch.randn(1, 5, 16)
    got, base = block(states)[0], {name: getattr(adapters, name).original for name in ("gate_up_proj", "down_proj")}

    def expert(e, x):
        both, down = (base[n][e] + 2 * p[0].up_EOr[e] @ p[0].down_ErI[e] for n, p in adapters.items())
        gate, up = (both @ x).chunk(2)
        return down @ (torch.nn.functional.silu(gate) * up)

    for x, found in zip(states[0], got, strict=True):
        chances = (block.gate.weight @ x).softmax(-1)
        best = chances.topk(2)
        wanted = sum(c * expert(int(e), x) for c, e in zip(best.values / best.values.sum(), best.indices))
        assert torch.allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_a_mixture_learns_and_is_saved_as_a_model_of_its_own(student, tools, tmp_path):
    """R66: frozen is what the adapters stand on; what is saved loads by itself, says the same, and goes on."""
    full = tools.white_box(copy.deepcopy(student.model), student.tokenizer)
    mixed = Student(with_experts(student.model, number=3, top=2, rank=4, seed=0), student.tokenizer)
    kept = mixed.model.model.layers[0].self_attn.q_proj.weight.detach().clone()
    terms = [
        Term("ce", supervised.cross_entropy, "x"),
        Term("kl", divergence.forward_kl, "x", weight=0.1, teacher="t"),
    ]
    arguments = {"max_steps": 30, "learning_rate": 0.02, "per_device_train_batch_size": 8, "logging_steps": 1}
    told = {"teachers": {"t": full}, "arguments": arguments, "out": tmp_path / "o", "seed": 0}
    done = train(mixed, terms, {"x": make_examples(8)}, **told)
    assert done.history[-1]["loss"] < 0.9 * done.history[0]["loss"]
    assert torch.equal(kept, mixed.model.model.layers[0].self_attn.q_proj.weight)
    saved = AutoModelForCausalLM.from_pretrained(save_student(mixed, tmp_path / "saved"))
    assert saved.config.model_type == "mixtral"
    mixed.model.eval()
    assert torch.allclose(saved(IDS).logits, mixed.model(IDS).logits, atol=1e-5)
    experts = saved.model.layers[0].mlp.experts.down_proj
    assert not torch.allclose(experts[0], experts[1])
    again = load_student(tmp_path / "saved", adapt=lambda m, _: with_experts(m, number=3, top=2, rank=4, seed=1))
    assert torch.allclose(again.model(IDS).logits, saved(IDS).logits, atol=1e-5)
    with pytest.raises(RecipeError, match="3 experts already"):
        with_experts(saved, number=4, top=2, rank=4, seed=0)


def test_what_cannot_be_mixed_is_refused():
    with pytest.raises(RecipeError, match="take a Llama"):
        with_experts(GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1)), number=2, top=1, rank=2, seed=0)
    with pytest.raises(RecipeError, match="a top within them"):
        with_experts(make_model(make_tokenizer()), number=2, top=3, rank=2, seed=0)
    told = load_recipe("verticals/misc/operations").data
    assert check(load_recipe(told)).arms
    told["student"]["lora"] = {"rank": 8}
    with pytest.raises(RecipeError, match="leave out lora"):
        check(load_recipe(told))


def test_the_recipe_trains_a_mixture_that_answers(tmp_path, monkeypatch):
    """R66 (Owl): from the shipped recipe by a script, one step; the student answers like any other."""
    monkeypatch.setenv("STILLHOUSE_STORE", str(tmp_path / "store"))
    run = trained("verticals/misc/operations", tmp_path)
    backend = Teacher(model=run.student)
    (outcome,) = backend.ask([Request(user("The disk is full."), Sampling(max_tokens=4))])
    assert isinstance(outcome.result, Answer)
    assert backend.module().config.num_local_experts == 4


@pytest.mark.parametrize("adapted", [True, False])
def test_a_stopped_mixture_goes_on_to_the_same_weights(adapted, student, tools, tmp_path):
    """R66, and any model with experts: a checkpoint is found again by the names that it was written under."""

    def ends(name):
        model = with_experts(copy.deepcopy(student.model), number=2, top=1, rank=2, seed=0)
        if not adapted:
            save_student(Student(model, student.tokenizer), tmp_path / "start")
            model = AutoModelForCausalLM.from_pretrained(tmp_path / "start")
        arguments = {
            "max_steps": 4, "learning_rate": 0.01, "per_device_train_batch_size": 4, "save_steps": 2, "save_total_limit": 3,
        }  # fmt: skip
        terms, told = [Term("ce", supervised.cross_entropy, "x")], {"teachers": {}, "arguments": arguments, "seed": 0}
        train(Student(model, student.tokenizer), terms, {"x": make_examples(8)}, out=tmp_path / name, **told)
        return {key: value.detach().clone() for key, value in model.named_parameters()}

    whole = ends("a")
    shutil.rmtree(tmp_path / "a" / "checkpoint-4")
    again = ends("a")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
