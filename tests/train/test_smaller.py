"""Students made smaller: cut out of a larger model, rounded, or learning on top of four bits."""

import copy
import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

from stillhouse.check import check
from stillhouse.errors import RecipeError
from stillhouse.objectives import divergence, supervised
from stillhouse.objectives.quantisation import token_contrastive
from stillhouse.recipe import load_recipe
from stillhouse.render import render
from stillhouse.train.prune import prune
from stillhouse.train.quantise import FourBit, levels, quantise, rounded, ternary, to_dense, to_four_bits
from stillhouse.train.student import Student, load_student, save_student
from stillhouse.train.trainer import Term, train

IDS = torch.tensor([[1, 5, 9, 12, 7]])
SAME = Term("divergence.forward_kl", divergence.forward_kl, "x", teacher="t")


def learn(student, data, out, term=None, teachers=None, **arguments):
    given = {"max_steps": 20, "learning_rate": 0.01, "per_device_train_batch_size": 8, "logging_steps": 1, **arguments}
    term = term or Term("supervised.cross_entropy", supervised.cross_entropy, "x")
    return train(student, [term], {"x": data}, teachers=teachers or {}, arguments=given, out=out, seed=0)


def rows(student, examples):
    return [render(student.tokenizer, e.prompt, e.response).ids for e in examples]


def test_rounding_is_on_the_grid_and_the_gradient_passes():
    """J10: four bits have seven steps on either side of 0, of the row's largest magnitude."""
    values = torch.tensor([[0.7, -0.24, 0.1, 0.0], [7.0, 1.4, 1.6, -7.0]], requires_grad=True)
    out = rounded(values, 4)
    assert out.tolist() == [pytest.approx([0.7, -0.2, 0.1, 0.0]), pytest.approx([7.0, 1.0, 2.0, -7.0])]
    out.sum().backward()
    assert (values.grad == 1).all()


def test_a_student_learns_to_be_quantised_and_is_saved_rounded(student, tools, tmp_path):
    """R31: the teacher is the full-precision copy; what is saved says what was trained."""
    full = tools.white_box(copy.deepcopy(student.model), student.tokenizer)
    quantise(student.model, bits=3, activations=8, cache=8)
    done = learn(student, tools.examples(8), tmp_path / "o", SAME, {"t": full}, max_steps=30)
    assert done.history[0]["loss"] > 1e-3
    assert done.history[-1]["loss"] < 0.6 * done.history[0]["loss"]
    saved = AutoModelForCausalLM.from_pretrained(save_student(student, tmp_path / "saved"))
    weight = saved.model.layers[0].mlp.up_proj.weight
    assert all(len(row.unique()) <= 7 for row in weight)
    # without the rounding of activations both say the same
    for module in student.model.modules():
        module._forward_pre_hooks.clear()
        module._forward_hooks.clear()
    assert torch.allclose(saved(IDS).logits, student.model(IDS).logits, atol=1e-5)
    with pytest.raises(RecipeError, match="2 to 16"):
        quantise(student.model, bits=1)


def test_ternary_weights_by_hand():
    """R31 (TSLD): the mean magnitude is 1, so what is above .7 keeps its sign and gets the mean of those; gradients pass."""
    weight = torch.tensor([[0.5, -0.6, 0.9, -2.0], [1.0, 1.0, -1.0, 1.0]], dtype=torch.float64, requires_grad=True)
    got = ternary(weight)
    assert got.tolist() == [[0.0, 0.0, pytest.approx(1.45), pytest.approx(-1.45)], [1.0, 1.0, -1.0, 1.0]]
    (slope,) = torch.autograd.grad(got.sum(), weight)
    assert torch.equal(slope, torch.ones_like(weight))
    assert torch.allclose(ternary(got.detach()), got.detach(), rtol=1e-12)  # saved and rounded again it stays


def test_a_learned_scale_and_its_gradients_by_hand():
    """R31 (QuantGPT): within -a to a on 2^bits - 1 levels; the factor's gradient is the rounding error, or the sign where cut."""
    layer = torch.nn.Linear(4, 1, bias=False).double()
    layer.weight.data = torch.tensor([[0.3, -0.4, 0.7, -3.0]], dtype=torch.float64)
    quantise(torch.nn.Sequential(layer), bits=3, scale="learned")
    rounds = layer.parametrizations.weight[0]
    rounds.factor.data.fill_(1.0 / 1.1)  # of the mean magnitude 1.1: from -1 to 1 in thirds
    thirds = [1 / 3, -1 / 3, 2 / 3, -1.0]
    assert layer.weight.tolist() == [pytest.approx(thirds, rel=1e-12)]
    factor, weight = torch.autograd.grad(layer.weight.sum(), (rounds.factor, layer.parametrizations.weight.original))
    errors = [1 / 3 - 0.3, -1 / 3 + 0.4, 2 / 3 - 0.7, -1.0]
    assert factor.item() == pytest.approx(1.1 * sum(errors), rel=1e-9)
    assert weight.tolist() == [[1.0, 1.0, 1.0, 0.0]]  # what is cut off is not pulled at


@pytest.mark.parametrize("told", [{"bits": 2, "scale": "ternary"}, {"bits": 2, "scale": "learned"}])
def test_two_bits_learn_and_are_saved(told, student, tools, tmp_path):
    """R31 (TSLD, QuantGPT): three values a channel, or a layer; the copy in full precision teaches them."""
    full = tools.white_box(copy.deepcopy(student.model), student.tokenizer)
    quantise(student.model, **told)
    learned = [p for name, p in student.model.named_parameters() if name.endswith(".factor")]
    before = [p.detach().clone() for p in learned]
    done = learn(student, tools.examples(8), tmp_path / "o", SAME, {"t": full}, max_steps=40)
    assert done.history[-1]["loss"] < 0.8 * done.history[0]["loss"]
    assert all(not torch.equal(was, now) for was, now in zip(before, learned))
    assert bool(learned) == (told["scale"] == "learned")
    saved = AutoModelForCausalLM.from_pretrained(save_student(student, tmp_path / "saved"))
    weight = saved.model.layers[0].mlp.up_proj.weight
    assert all(len(row.unique()) <= 3 for row in weight)
    assert torch.allclose(saved(IDS).logits, student.model(IDS).logits, atol=1e-5)
    with pytest.raises(RecipeError, match="two bits"):
        quantise(student.model, bits=3, scale="ternary")
    with pytest.raises(RecipeError, match=r"student\.quantise\.bits: ternary weights have two bits"):
        check(load_recipe("white_box/ternary", ["student.quantise.bits=3"]))


def test_a_memory_is_the_same_however_a_step_is_cut_and_after_a_stop(student, tools, tmp_path):
    """R31 (QuantGPT): one batch of four or four of one, and a training that goes on from its middle."""
    full = tools.white_box(copy.deepcopy(student.model), student.tokenizer)

    def losses(name, size):
        own = Student(copy.deepcopy(student.model), student.tokenizer)
        quantise(own.model, bits=4)
        term = Term("contrast", token_contrastive(teacher_width=16, memory=500), "x", teacher="t")
        cut = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 4 // size}
        told = {"max_steps": 4, "save_steps": 2, "save_total_limit": 3, **cut}
        return [
            row["loss"] for row in learn(own, tools.examples(4), tmp_path / name, term, {"t": full}, **told).history
        ]

    whole = losses("whole", 4)
    assert losses("cut", 1) == pytest.approx(whole, rel=1e-4)
    shutil.rmtree(tmp_path / "whole" / "checkpoint-4")
    assert losses("whole", 4) == whole
    assert whole[1] > whole[0]  # more to be told from


def test_a_quantised_training_goes_on_where_it_stopped(student, tools, tmp_path):
    ends = []
    for name, save in (("a", 100), ("b", 2)):
        own = Student(copy.deepcopy(student.model), student.tokenizer)
        quantise(own.model, bits=4)
        learn(own, tools.examples(8), tmp_path / name, max_steps=4, save_steps=save)
    (tmp_path / "b" / "checkpoint-4" / "trainer_state.json").unlink()
    for name in "ab":
        own = Student(copy.deepcopy(student.model), student.tokenizer)
        quantise(own.model, bits=4)
        learn(own, tools.examples(8), tmp_path / name, max_steps=4, save_steps=2)
        ends.append(dict(own.model.named_parameters()))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_four_bits_are_normal_floats_in_half_a_byte(student):
    """QLoRA: sixteen levels, 0 among them, both ends at 1; the numbers the paper's appendix prints."""
    values = levels()
    assert len(values.unique()) == 16
    assert (values[0], values[7], values[15]) == (-1, 0, 1)
    assert values[8].item() == pytest.approx(0.0795803, abs=1e-5)
    assert values[1].item() == pytest.approx(-0.6961928, abs=1e-5)
    layer = torch.nn.Linear(70, 33)
    four = FourBit(layer)
    assert four.packed.numel() + 4 * four.scale.numel() < 0.6 * layer.weight.numel() + 64
    scale = layer.weight.abs().max()
    assert (four.weight - layer.weight).abs().max() <= scale * (values[1:] - values[:-1]).max() / 2 + 1e-6
    given = torch.randn(5, 70, requires_grad=True)
    (four(given) ** 2).sum().backward()
    expected = torch.autograd.grad(((given @ four.weight.T + layer.bias) ** 2).sum(), given)[0]
    assert torch.allclose(given.grad, expected, atol=1e-4)


def test_a_lora_learns_on_four_bits_and_is_saved_merged(student, tools, tmp_path):
    folder = save_student(student, tmp_path / "base")
    own = load_student(folder, lora={"rank": 4, "base": "nf4"})
    done = learn(own, tools.examples(8), tmp_path / "o", learning_rate=0.05)
    assert done.history[-1]["loss"] < done.history[0]["loss"]
    saved = AutoModelForCausalLM.from_pretrained(save_student(own, tmp_path / "saved"))
    assert torch.allclose(saved(IDS).logits, own.model(IDS).logits, atol=1e-4)
    assert json.loads((tmp_path / "saved" / "adapter" / "adapter_config.json").read_text())["r"] == 4
    with pytest.raises(RecipeError, match="write nf4"):
        load_student(folder, lora={"base": "int3"})


def test_there_and_back_four_bits_change_nothing_more(student):
    to_four_bits(student.model)
    before = student.model(IDS).logits
    to_dense(student.model)
    assert torch.allclose(student.model(IDS).logits, before, atol=1e-5)


def test_the_parts_that_do_nothing_are_cut_first(tokenizer, tools):
    """Minitron: a block that adds nothing, neurons, heads and channels that are 0: without them the model is the same."""
    model = tools.model(tokenizer, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2)
    with torch.no_grad():
        model.model.layers[1].self_attn.o_proj.weight.zero_()
        model.model.layers[1].mlp.down_proj.weight.zero_()
        for block in model.model.layers:
            block.mlp.gate_proj.weight[5:17] = 0
            block.self_attn.v_proj.weight[:4] = 0  # the first of two heads of keys and values
    student = Student(model, tokenizer)
    before = model(IDS).logits
    prune(model, rows(student, tools.examples(4)), sizes={"layers": 2, "intermediate": 20, "heads": 1})
    assert model.config.num_hidden_layers == 2
    assert (model.config.num_attention_heads, model.config.num_key_value_heads) == (2, 1)
    assert torch.allclose(model(IDS).logits, before, atol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_a_pruned_student_is_saved_loaded_and_learns(tied, tokenizer, tools, tmp_path):
    """Prune, then distil from the whole model."""
    model = tools.model(tokenizer, hidden_size=16, tie_word_embeddings=tied)
    whole = tools.white_box(copy.deepcopy(model), tokenizer)
    student = Student(model, tokenizer)
    examples = tools.examples(8)
    prune(model, rows(student, examples), sizes={"layers": 1, "hidden": 12, "intermediate": 24})
    assert sum(p.numel() for p in model.parameters()) < 0.6 * sum(p.numel() for p in whole.model.parameters())
    done = learn(student, examples, tmp_path / "o", SAME, {"t": whole})
    assert done.history[-1]["loss"] < 0.8 * done.history[0]["loss"]
    again = AutoModelForCausalLM.from_pretrained(save_student(student, tmp_path / "saved"))
    assert torch.allclose(again(IDS).logits, student.model(IDS).logits, atol=1e-5)
    with pytest.raises(RecipeError, match="and the model has 12"):
        prune(model, [[1, 2]], sizes={"hidden": 13})
