"""One forward pass over a packed batch that shows a model's logits, and its hidden states, at the targets only.

Legend: R rows of C tokens, N target positions, V vocabulary, H hidden width. The model's own code cuts the hidden
states before its head, so that scaling, soft caps, biases and adapters of the head are those of the model. Where the head is a
plain matrix, and measured to be no more than that, the logits can be left unmade: objectives then make them a few
positions at a time.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from stillhouse.apart import given_apart
from stillhouse.generate import answering
from stillhouse.inference import readable
from stillhouse.kernels.fused import Projected
from stillhouse.products import learned_linear
from stillhouse.reading import read
from stillhouse.render import encodes
from stillhouse.train.batch import Layer
from stillhouse.train.relations import heard_relations
from stillhouse.train.scoring import scores_at, scoring_head

# how far two ways to the same logits may be apart, relative to their size: rounding, not leaks
_ROUNDING = {torch.float32: 1e-4, torch.float64: 1e-8}


@dataclass(frozen=True, slots=True)
class Shown:
    """`logits_NV` is a tensor or a Projected; `hidden_NH` has the states of the layers that were asked for."""

    logits_NV: Any
    hidden_NH: dict[Layer, Tensor]

    def part(self, part: slice) -> "Shown":
        hidden_nH = {layer: states[part] for layer, states in self.hidden_NH.items()}
        return Shown(_rows(self.logits_NV, lambda rows: rows[part]), hidden_nH)

    def arranged(self, sizes: Sequence[int], order: Sequence[int]) -> "Shown":
        """Cut into pieces of these sizes and put in this order."""

        def arrange(rows: Tensor) -> Tensor:
            pieces = rows.split(list(sizes))
            return torch.cat([pieces[number] for number in order])

        return Shown(_rows(self.logits_NV, arrange), {layer: arrange(h) for layer, h in self.hidden_NH.items()})

    def taken(self, take: Callable[[Tensor], Tensor]) -> "Shown":
        """With `take` done to everything that has a row for each position."""
        return Shown(_rows(self.logits_NV, take), {layer: take(states) for layer, states in self.hidden_NH.items()})


def show(
    model: Any,
    ids_RC: Tensor,
    position_RC: Tensor,
    target_RC: Tensor,
    *,
    layers: Sequence[Layer] = (),
    fused: bool = False,
) -> Shown:
    """What the model says at the marked positions, row by row.

    No attention mask: causal attention never looks at the padding on the right, and sequences that share a row are
    told apart by their positions. An encoder-decoder gets each row in two parts; its hidden states are its decoder's.
    """
    inner = _innermost(model)
    if not layers and (shown := read_as_one(model, ids_RC, position_RC, target_RC, fused=fused)) is not None:
        return shown
    apart = inner.config.is_encoder_decoder
    given, at_RC = {"input_ids": ids_RC, "position_ids": position_RC}, target_RC
    if apart:
        given, at_RC = given_apart(inner, ids_RC, target_RC)
    how: dict[str, Any] = {"logits_to_keep": target_RC} if not apart and _cuts_logits(type(inner).forward) else {}
    whole = [layer for layer in layers if isinstance(layer, int)]
    if whole:
        how["output_hidden_states"] = True
    with _headless(inner) if fused else nullcontext() as its_head, heard_relations(inner, layers) as relations:
        out = model(**given, use_cache=False, **how)
    logits = out.logits if out.logits.dim() == 2 else out.logits[at_RC]
    states = (out.decoder_hidden_states if apart else out.hidden_states) if whole else ()
    hidden_NH: dict[Layer, Tensor] = {layer: states[layer][at_RC] for layer in whole}
    hidden_NH |= {layer: heard[target_RC] for layer, heard in relations.items()}
    return Shown(logits if its_head is None else Projected(logits, its_head.weight, its_head.bias), hidden_NH)


def read_as_one(model: Any, ids_RC: Tensor, position_RC: Tensor, target_RC: Tensor, *, fused: bool) -> Shown | None:
    """The same by fewer operations, in whatever mode the model is; None where that is not known to be the same."""
    if not readable(model):
        return None
    hidden_NH, head = read(model, ids_RC, position_RC, target_RC), model.lm_head
    if fused:
        return Shown(Projected(hidden_NH, head.weight, head.bias), {})
    return Shown(learned_linear(hidden_NH, head.weight, head.bias), {})


@torch.no_grad()
def packs_sequences(model: Any) -> bool:
    """Whether sequences that share a row are blind to each other in this model: measured, as no config says it.

    Never in an encoder, where each token sees all others whatever their positions say.
    """
    if model.config.is_encoder_decoder or encodes(model):
        return False
    device = model.device
    first, second = torch.arange(1, 6, device=device) % 4, torch.arange(2, 9, device=device) % 5
    row = torch.cat([first, second])[None].expand(2, -1)
    positions = torch.cat([torch.arange(5), torch.arange(7)]).to(device)[None].expand(2, -1)
    with answering(model):
        packed = _everywhere(model, row, positions)[1, 5:]
        alone = _everywhere(model, second[None], positions[:1, 5:])[0]
    return _equal(packed, alone, model.dtype)


def _everywhere(model: Any, ids_RC: Tensor, position_RC: Tensor) -> Tensor:
    if scoring_head(model) is None:
        return model(input_ids=ids_RC, position_ids=position_RC, use_cache=False).logits
    everywhere_RC = torch.ones_like(ids_RC, dtype=torch.bool)
    return scores_at(model, ids_RC, position_RC, everywhere_RC).view(*ids_RC.shape, -1)


@torch.no_grad()
def has_plain_head(model: Any) -> bool:
    """Whether this model's logits are its output embedding applied to what it gives in its place: measured.

    A scale on the logits passes through a matrix, so it does no harm; a soft cap does not.
    """
    head = _innermost(model).get_output_embeddings()
    if type(head) is not nn.Linear:
        return False
    ids = torch.arange(2, 9, device=model.device)[None] % 5
    marked = torch.ones_like(ids, dtype=torch.bool)
    marked[:, -1] = False  # nothing follows the last token
    position = torch.arange(7, device=model.device)[None]
    with answering(model):
        whole = show(model, ids, position, marked).logits_NV
        try:
            states = show(model, ids, position, marked, fused=True).logits_NV
        except RuntimeError:  # something behind the head (BART's bias) does not fit what the head is given
            return False
    return _equal(nn.functional.linear(states.hidden_NH, states.weight_VH, states.bias_V), whole, model.dtype)


def _equal(one: Tensor, other: Tensor, dtype: torch.dtype) -> bool:
    if one.shape != other.shape:
        return False
    tolerance = _ROUNDING.get(dtype, 2e-2) * float(other.float().abs().max().clamp(min=1e-6))
    return bool((one.float() - other.float()).abs().max() <= tolerance)


def _rows(logits: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(logits, Tensor):
        return change(logits)
    return Projected(change(logits.hidden_NH), logits.weight_VH, logits.bias_V)


@contextmanager
def _headless(model: Any) -> Iterator[nn.Linear]:
    """The model giving the inputs of its head in place of its logits. Its forward runs as always, hooks and all."""
    head = model.get_output_embeddings()
    name, holder = next(
        (name, holder) for holder in model.modules() for name, m in holder._modules.items() if m is head
    )
    setattr(holder, name, nn.Identity())
    try:
        yield head
    finally:
        setattr(holder, name, head)


def _innermost(model: Any) -> Any:
    model = getattr(model, "module", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@cache
def _cuts_logits(forward: Callable[..., Any]) -> bool:
    return "logits_to_keep" in inspect.signature(forward).parameters
