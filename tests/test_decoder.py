"""A model read as few large operations, with prompts that join and leave, says what the library's module says."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from stillhouse import decoder as decoder_module
from stillhouse import generate as generate_module
from stillhouse.generate import generate, generate_sorted
from stillhouse.inference import decoder_of
from stillhouse.pocket import teacher_path
from stillhouse.products import faster_linears

SMALL = {
    "vocab_size": 60, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "initializer_range": 0.3, "max_position_embeddings": 400,
}  # fmt: skip
OF_THE_FORM = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SMALL)),
    "llama, one key head a query": lambda: LlamaForCausalLM(LlamaConfig(**{**SMALL, "num_key_value_heads": 4})),
    "llama, tied": lambda: LlamaForCausalLM(LlamaConfig(**SMALL, tie_word_embeddings=True)),
    "llama, biases": lambda: LlamaForCausalLM(LlamaConfig(**SMALL, attention_bias=True, mlp_bias=True)),
    "llama 3's frequencies": lambda: LlamaForCausalLM(
        LlamaConfig(
            **SMALL,
            rope_parameters={
                "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
            },
        )
    ),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SMALL, sliding_window=None)),
    "qwen 2": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL)),
    "qwen 3": lambda: Qwen3ForCausalLM(Qwen3Config(**SMALL, head_dim=10)),
}  # fmt: skip
OF_ANOTHER = {
    "a window": lambda: MistralForCausalLM(MistralConfig(**SMALL, sliding_window=6)),
    "frequencies that move": lambda: LlamaForCausalLM(
        LlamaConfig(**SMALL, rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0})
    ),
    "another norm": lambda: GemmaForCausalLM(GemmaConfig(**SMALL, head_dim=6)),
    "scaled residuals": lambda: GraniteForCausalLM(GraniteConfig(**SMALL, residual_multiplier=0.5)),
    "other names": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=60, n_embd=24, n_layer=2, n_head=2)),
    "an adapter": lambda: get_peft_model(LlamaForCausalLM(LlamaConfig(**SMALL)), LoraConfig(target_modules=["q_proj"])),
    "half precision": lambda: LlamaForCausalLM(LlamaConfig(**SMALL)).bfloat16(),
    "double precision": lambda: LlamaForCausalLM(LlamaConfig(**SMALL)).double(),
}
PROMPTS = [[(7 * row + 3 * at) % 60 for at in range(1 + (row * 5) % 17)] for row in range(23)]
HOW = {"eos_ids": [3, 11, 40], "pad_id": 0, "temperature": 0.9}


def made(make):
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():  # norms and biases begin at one and zero, which hides much
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.3 * torch.randn_like(parameter)
    return model


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
