"""A model read whole by few operations gives the logits and the gradients of the library's module."""

import pytest
import torch
from llama_forms import OF_ANOTHER, OF_THE_FORM, SMALL, made
from transformers import LlamaConfig, LlamaForCausalLM

from stillhouse import inference, reading
from stillhouse.inference import readable
from stillhouse.narrow_attention import attended, unseen
from stillhouse.reading import read
from stillhouse.train.forward import show

LENGTHS = ((31, 9), (40,), (12, 17, 11), (40,), (39, 1))  # 200 tokens: they are filled up


def batch():
    """Rows of sequences that share them, half of their positions marked."""
    whole = [torch.arange(length) for row in LENGTHS for length in row]
    ids_RC = torch.cat([(at * 7 + number) % 60 for number, at in enumerate(whole)]).view(len(LENGTHS), -1)
    position_RC = torch.cat(whole).view_as(ids_RC)
    return ids_RC, position_RC, (ids_RC + position_RC) % 2 == 0


def by_the_library(model, ids_RC, marked_RC):
    """Each sequence by itself."""
    sequences = ids_RC.flatten().split([length for row in LENGTHS for length in row])
    return torch.cat([model(ids[None], use_cache=False).logits[0] for ids in sequences])[marked_RC.flatten()]


def learned(model, logits_NV):
    toward_NV = torch.cos(torch.arange(logits_NV.numel()).view_as(logits_NV))
    return torch.autograd.grad((logits_NV * toward_NV).sum(), list(model.parameters()))


@pytest.mark.parametrize("name", OF_THE_FORM)
@pytest.mark.parametrize("narrow", [True, False])
def test_logits_and_gradients_are_the_librarys(name, narrow, monkeypatch):
    if not narrow:
        monkeypatch.setattr(reading, "is_narrow", lambda *sizes: False)
    model, (ids_RC, position_RC, marked_RC) = made(OF_THE_FORM[name]), batch()
    assert readable(model)
    found_NV = model.lm_head(read(model, ids_RC, position_RC, marked_RC))
    expected_NV = by_the_library(model, ids_RC, marked_RC)
    torch.testing.assert_close(found_NV, expected_NV, rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(learned(model, found_NV), learned(model, expected_NV), strict=True):
        assert (ours - theirs).norm() <= 2e-5 * theirs.norm()


@pytest.mark.parametrize("name", OF_ANOTHER)
def test_what_is_not_known_to_be_the_same_stays_with_the_library(name):
    assert not readable(made(OF_ANOTHER[name]))


def test_what_is_to_be_done_beside_stays_with_the_library(monkeypatch):
    model = made(OF_THE_FORM["llama"]).train()
    assert readable(model)
    with torch.autocast("cpu", torch.bfloat16):
        assert not readable(model)
    for layer in model.model.layers:
        layer.gradient_checkpointing = True
    assert not readable(model)
    assert readable(model.eval())
    assert not readable(torch.nn.parallel.DataParallel(model))
    assert not readable(made(lambda: LlamaForCausalLM(LlamaConfig(**SMALL, attention_dropout=0.1))).train())
    monkeypatch.setattr(inference, "_SMALL", 1000)
    assert not readable(made(OF_THE_FORM["llama"]))


def test_frozen_weights_get_no_gradient():
    model, (ids_RC, position_RC, marked_RC) = made(OF_THE_FORM["llama"]), batch()
    model.model.layers[0].requires_grad_(False)
    model.model.norm.requires_grad_(False)
    show(model, ids_RC, position_RC, marked_RC).logits_NV.square().sum().backward()
    for name, weight in model.named_parameters():
        assert (weight.grad is not None) == weight.requires_grad, name
    with torch.no_grad():
        assert not show(model, ids_RC, position_RC, marked_RC).logits_NV.requires_grad


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0, 3000.0])
def test_attention_to_scores_of_any_size(size, shared):
    """Against a softmax in float64; with large ones all but one weight vanish, and powers of two would overflow."""
    rows, columns, heads, groups, width = 3, 20, 2, 3, 8
    made = torch.Generator().manual_seed(0)
    states = torch.randn(rows * columns, heads * (groups + 2) * width, generator=made) * size**0.5
    turns = torch.polar(torch.full((60, 1, 4), 0.5), torch.rand(60, 1, 4, generator=made) * 6)
    states.requires_grad_()
    sees = torch.ones(rows, 1, columns, columns, dtype=torch.bool).tril_()
    if shared:  # the last row holds two sequences
        sees[-1, :, 12:, :12] = False
    found = attended(states, turns, unseen(sees if shared else None, columns, groups), rows, heads)

    exact = states.detach().double().requires_grad_()
    turned = exact[:, : heads * (groups + 1) * width].view(rows * columns, -1, width // 2, 2)
    turned = torch.view_as_real(torch.view_as_complex(turned) * turns).view(rows, columns, heads, groups + 1, width)
    values = exact[:, heads * (groups + 1) * width :].view(rows, columns, heads, width)
    scores = torch.einsum("rqhgd,rkhd->rhgqk", turned[..., :-1, :], turned[..., -1, :]) * torch.tensor(2.0).log()
    weights = scores.masked_fill(~sees[:, :, None], -torch.inf).softmax(-1)
    expected = torch.einsum("rhgqk,rkhd->rqhgd", weights, values).reshape(rows * columns, -1)

    toward = torch.randn(expected.shape, generator=made)
    ours, theirs = (
        torch.autograd.grad((out * toward).sum(), into)[0] for out, into in ((found, states), (expected, exact))
    )
    # scores of thousands have lost three digits in float32, whoever adds them up
    tolerance = 1e-5 * max(1.0, size)
    assert (found - expected).norm() <= tolerance * expected.norm()
    assert (ours - theirs).norm() <= tolerance * theirs.norm()
