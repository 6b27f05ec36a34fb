"""A model read as few large operations, with prompts that join and leave, says what the library's module says."""

import pytest
import torch
from llama_forms import OF_ANOTHER, OF_THE_FORM, made
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from stillhouse import decoder as decoder_module
from stillhouse import generate as generate_module
from stillhouse.generate import generate, generate_sorted
from stillhouse.inference import decoder_of
from stillhouse.pocket import teacher_path
from stillhouse.products import faster_linears

PROMPTS = [[(7 * row + 3 * at) % 60 for at in range(1 + (row * 5) % 17)] for row in range(23)]
HOW = {"eos_ids": [3, 11, 40], "pad_id": 0, "temperature": 0.9}


def by_the_library(model, monkeypatch, **how):
    with monkeypatch.context() as patch:
        patch.setattr(generate_module, "decoder_of", lambda model: None)
        found = dict(generate_sorted(model, PROMPTS, **how))
    return [found[row] for row in range(len(PROMPTS))]


@pytest.mark.parametrize("name", OF_THE_FORM)
@pytest.mark.parametrize("joined", [True, False])
def test_answers_are_the_librarys_whoever_joins_and_leaves(name, joined, monkeypatch):
    monkeypatch.setattr(decoder_module, "_JOINED", 2**20 if joined else 0)
    model = made(OF_THE_FORM[name])
    assert decoder_of(model) is not None
    expected = by_the_library(model, monkeypatch, batch_size=23, max_new_tokens=15, **HOW)
    assert len({len(answer.ids) for answer in expected}) > 5
    for width in (4, 23):
        found = dict(generate_sorted(model, PROMPTS, batch_size=width, max_new_tokens=15, **HOW))
        assert [found[row] for row in range(len(PROMPTS))] == expected


def test_a_trained_model_answers_as_through_the_library(monkeypatch):
    """The pocket teacher, whose matrices are large enough to be copied in the order of their products."""
    model = AutoModelForCausalLM.from_pretrained(teacher_path(), dtype=torch.float32).eval()
    prompts = [[7 * row + 3 * at for at in range(5 + row)] for row in range(12)]
    how = {"max_new_tokens": 12, "eos_ids": [5], "pad_id": 0}
    found = generate(model, prompts, **how)
    monkeypatch.setattr(generate_module, "decoder_of", lambda model: None)
    assert found == generate(model, prompts, **how)


def test_long_answers_among_short_ones(monkeypatch):
    """Columns that nobody sees any more are given back, and a cache grows where all of it is seen."""
    model = made(OF_THE_FORM["llama"])
    how = {**HOW, "eos_ids": [3], "max_new_tokens": 150}
    expected = by_the_library(model, monkeypatch, batch_size=23, **how)
    assert max(len(answer.ids) for answer in expected) == 150
    found = dict(generate_sorted(model, PROMPTS, batch_size=3, **how))
    assert [found[row] for row in range(len(PROMPTS))] == expected


def test_answers_come_as_they_end():
    model = made(OF_THE_FORM["llama"])
    lengths = [
        len(answer.ids) for _, answer in generate_sorted(model, PROMPTS, batch_size=23, max_new_tokens=30, **HOW)
    ]
    assert lengths == sorted(lengths)


@pytest.mark.parametrize("name", OF_ANOTHER)
def test_what_is_not_known_to_be_the_same_stays_with_the_library(name):
    assert decoder_of(made(OF_ANOTHER[name])) is None


def test_a_model_that_was_changed_from_outside_stays_with_the_library():
    model = made(OF_THE_FORM["llama"])
    with faster_linears(model):
        assert decoder_of(model) is not None
    model(torch.tensor([[1, 2]]), output_hidden_states=True)  # leaves hooks that only listen
    assert decoder_of(model) is not None
    hook = model.model.layers[1].mlp.register_forward_hook(lambda module, given, out: 2 * out)
    assert decoder_of(model) is None
    hook.remove()
    model.model.layers[1].mlp.forward = lambda x: x
    assert decoder_of(model) is None


def test_weights_are_those_of_now():
    model = made(OF_THE_FORM["llama"])
    before = generate(model, PROMPTS[:3], max_new_tokens=9, **HOW)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 1.3
    after = generate(model, PROMPTS[:3], max_new_tokens=9, **HOW)
    assert before != after
    assert after == generate(made_again(model), PROMPTS[:3], max_new_tokens=9, **HOW)


def made_again(model):
    twin = LlamaForCausalLM(model.config).eval()
    twin.load_state_dict(model.state_dict())
    return twin
