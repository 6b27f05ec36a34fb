"""Which models a `Decoder` may stand for: those of its form that are found, by trying, to say the same.

Llama, Qwen2, Qwen3 and Mistral without a window are of the form; float32 on a processor is where it has been measured to be
faster. All others are asked through their own modules, adapters and quantised layers among them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from stillhouse.continuous import Continuous
from stillhouse.decoder import Decoder
from stillhouse.products import faster_linears, untouched

# frequencies that depend on how much is read would have to be made anew for each token
_MOVING_ROPE = ("dynamic", "longrope")
_ROUNDING = 1e-4  # of the largest logit
_FOUND: "WeakKeyDictionary[Any, tuple[tuple[object, ...], bool]]" = WeakKeyDictionary()


@contextmanager
def answering(model: Any) -> Iterator[None]:
    """Eval mode without gradient checkpointing, which would switch the cache off; everything as before afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    checkpointed = [module for module in model.modules() if getattr(module, "gradient_checkpointing", False)]
    try:
        model.eval()
        for module in checkpointed:
            module.gradient_checkpointing = False
        with faster_linears(model):
            yield
    finally:
        for module in checkpointed:
            module.gradient_checkpointing = True
        for module, training in modes:
            module.training = training


def decoder_of(model: Any) -> Decoder | None:
    """The model's weights as they are now as a Decoder; None where that is not known to be the same function."""
    form = _form(model)
    if form is None:
        return None
    known = _FOUND.get(model)
    if known is None or known[0] != form:
        known = _FOUND[model] = form, _says_the_same(model)
    return Decoder(model) if known[1] else None


def _form(model: Any) -> tuple[object, ...] | None:
    """What the verdict about a model depends on; None where it is of another form, or more than its weights."""
    config, inner, head = model.config, getattr(model, "model", None), getattr(model, "lm_head", None)
    layers = getattr(inner, "layers", None)
    if inner is None or not layers or head is None or model.device.type != "cpu":
        return None
    everywhere = set(getattr(config, "layer_types", [])) == {"full_attention"}
    windowed = getattr(config, "sliding_window", None) and not everywhere
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if windowed or rope in _MOVING_ROPE:
        return None
    linears, others = [head], [inner.norm, inner.embed_tokens]
    try:
        for layer in layers:
            attention, mlp = layer.self_attn, layer.mlp
            linears += [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
            linears += [mlp.gate_proj, mlp.up_proj, mlp.down_proj]
            together = [linears[-7:-4], linears[-3:-1]]  # become one matrix: all of them have a bias, or none
            if any(len({part.bias is None for part in parts}) > 1 for parts in together):
                return None
            others += [layer.input_layernorm, layer.post_attention_layernorm]
        known = inner.rotary_emb, inner.norm.variance_epsilon, layers[0].mlp.act_fn, layers[0].self_attn.head_dim
    except AttributeError:
        return None
    weights = [module.weight for module in (*linears, *others)]
    if any(type(weight) is not nn.Parameter or weight.dtype != torch.float32 for weight in weights):
        return None
    plain = all(type(module) is nn.Linear for module in linears) and all(map(untouched, (model, *model.modules())))
    return (type(model), len(known), *(tuple(weight.shape) for weight in weights)) if plain else None


@torch.no_grad()
def _says_the_same(model: Any) -> bool:
    """Rows of 9, 4 and 1 tokens, the last 3 of each read one at a time, against the model's own forward pass."""
    vocabulary, given = model.lm_head.weight.shape[0], 3
    rows = [[(row * 11 + at * 7 + 3) % vocabulary for at in range(size + given)] for row, size in enumerate((9, 4, 1))]
    decoded = Continuous(Decoder(model), [row[:-given] for row in rows], [given + 1] * 3, [], 3)
    with answering(model):
        whole = [model(input_ids=torch.tensor([row]), use_cache=False).logits[0] for row in rows]
    for step in range(given + 1):
        found = decoded.next_logits()
        for place, row in enumerate(decoded.rows.tolist()):
            expected = whole[row][len(rows[row]) - given - 1 + step]
            if not (found[place] - expected).abs().max() <= _ROUNDING * expected.abs().max().clamp(min=1e-6):
                return False
        if step < given:
            told = [rows[row][len(rows[row]) - given + step] for row in decoded.rows.tolist()]
            decoded.take(torch.tensor(told))
    return True
