"""For which models a `Decoder` and `reading.read` may stand: those of the form that are found, by trying, to say the same.

Llama, Qwen2, Qwen3 and Mistral without a window are of the form; float32 on a processor is where it has been measured to be
faster. All others are asked through their own modules, adapters and quantised layers among them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from stillhouse.continuous import Continuous
from stillhouse.decoder import Decoder
from stillhouse.products import faster_linears, untouched
from stillhouse.reading import read

# frequencies that depend on how much is read would have to be made anew for each token
_MOVING_ROPE = ("dynamic", "longrope")
_ROUNDING = 1e-4  # of the largest logit, of a gradient
_NOTHING = 1e-6  # of all gradients: what cancels out to this is rounding
_SMALL = 2**25  # weights of a model up to which the number of its operations matters in a pass over many tokens
_FOUND: "WeakKeyDictionary[Any, dict[str, tuple[tuple[object, ...], bool]]]" = WeakKeyDictionary()


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
    return Decoder(model) if form is not None and _known(model, form, "decoded", _decodes_the_same) else None


def readable(model: Any) -> bool:
    """Whether `read` gives what the model's own pass over many tokens would, and the same gradients where they are wanted."""
    form = None if _elsewhere(model) else _form(model)
    if form is None:
        return False
    if torch.is_grad_enabled():
        return _known(model, form, "learned", _learns_the_same)
    return _known(model, form, "read", _reads_the_same)


def _elsewhere(model: Any) -> bool:
    """Whether the pass is to do something beside: be cast, compiled, made again, or leave out at random."""
    config = getattr(model, "config", None)
    if config is None or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return True
    layers = getattr(getattr(model, "model", None), "layers", ())
    again = model.training and any(getattr(layer, "gradient_checkpointing", False) for layer in layers)
    return bool(again or getattr(config, "attention_dropout", 0))


def _known(model: Any, form: tuple[object, ...], what: str, tried: Callable[[Any], bool]) -> bool:
    verdicts = _FOUND.setdefault(model, {})
    if what not in verdicts or verdicts[what][0] != form:
        verdicts[what] = form, tried(model)
    return verdicts[what][1]


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
    plain = all(type(module) is nn.Linear for module in linears) and all(map(untouched, _within(model)))
    return (type(model), len(known), *((weight.shape, weight.requires_grad) for weight in weights)) if plain else None


def _within(module: nn.Module) -> Iterator[nn.Module]:
    """As `modules`, which takes longer than a step of generation to look for modules in two places."""
    yield module
    for part in module._modules.values():
        if part is not None:
            yield from _within(part)


@torch.no_grad()
def _decodes_the_same(model: Any) -> bool:
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
            if not _near(found[place], expected):
                return False
        if step < given:
            told = [rows[row][len(rows[row]) - given + step] for row in decoded.rows.tolist()]
            decoded.take(torch.tensor(told))
    return True


@torch.no_grad()
def _reads_the_same(model: Any) -> bool:
    """Where the model is small: in large ones the products are the cost."""
    return sum(weight.numel() for weight in model.parameters()) <= _SMALL and _near(*_both_read(model))


def _learns_the_same(model: Any) -> bool:
    if not _reads_the_same(model):
        return False
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    if not learned:
        return True
    with torch.inference_mode(False), torch.enable_grad():
        ours, theirs = (
            torch.autograd.grad((logits_NV * _toward(logits_NV)).sum(), learned, allow_unused=True)
            for logits_NV in _both_read(model)
        )
    if any((one is None) != (other is None) for one, other in zip(ours, theirs)):
        return False
    pairs = [(one, other) for one, other in zip(ours, theirs) if one is not None]
    nothing = _NOTHING * float(torch.stack([other.norm() for _, other in pairs]).norm())
    return all(float((one - other).norm()) <= _ROUNDING * float(other.norm()) + nothing for one, other in pairs)


def _both_read(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a row of 12 tokens and one of two sequences, by `read` and by the model's own passes over each."""
    vocabulary, head, lengths = model.lm_head.weight.shape[0], model.lm_head, (12, 7, 5)
    rows = [torch.arange(length) * 7 % vocabulary + number for number, length in enumerate(lengths)]
    ids_RC = torch.cat(rows).view(2, 12) % vocabulary
    position_RC = torch.cat([torch.arange(length) for length in lengths]).view(2, 12)
    states_NE = read(model, ids_RC, position_RC, torch.ones_like(ids_RC, dtype=torch.bool))
    with answering(model):
        whole = [model(input_ids=ids[None], use_cache=False).logits[0] for ids in ids_RC.flatten().split(lengths)]
    return nn.functional.linear(states_NE, head.weight, head.bias), torch.cat(whole)


def _toward(logits_NV: torch.Tensor) -> torch.Tensor:
    return torch.cos(torch.arange(logits_NV.numel()).view_as(logits_NV))


def _near(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((found - expected).abs().max() <= _ROUNDING * expected.abs().max().clamp(min=1e-6))
