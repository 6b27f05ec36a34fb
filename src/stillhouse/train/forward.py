"""One forward pass over a packed batch that gives logits at its targets only.

Legend: R rows of C tokens, N target positions, V vocabulary. The model's own code cuts the hidden states before its
head, so that scaling, soft caps, biases and adapters of the head are those of the model.
"""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

# how far packed logits may be from those of a sequence alone, relative to their size: rounding, not leaks
_ROUNDING = {torch.float32: 1e-4, torch.float64: 1e-8}


def forward_targets(model: Any, ids_RC: Tensor, position_RC: Tensor, target_RC: Tensor) -> Tensor:
    """logits_NV at the marked positions, row by row.

    No attention mask: causal attention never looks at the padding on the right, and sequences that share a row are
    told apart by their positions.
    """
    cut = {"logits_to_keep": target_RC} if _cuts_logits(type(_innermost(model)).forward) else {}
    logits = model(input_ids=ids_RC, position_ids=position_RC, use_cache=False, **cut).logits
    return logits if logits.dim() == 2 else logits[target_RC]


@torch.no_grad()
def packs_sequences(model: Any) -> bool:
    """Whether sequences that share a row are blind to each other in this model: measured, as no config says it."""
    was_training = model.training
    model.eval()
    try:
        first = torch.arange(1, 6, device=model.device) % 4
        second = torch.arange(2, 9, device=model.device) % 5
        row = torch.cat([first, second])[None].expand(2, -1)
        positions = torch.cat([torch.arange(5), torch.arange(7)]).to(model.device)[None].expand(2, -1)
        packed = model(input_ids=row, position_ids=positions, use_cache=False).logits[1, 5:].float()
        alone = model(input_ids=second[None], use_cache=False).logits[0].float()
    finally:
        model.train(was_training)
    tolerance = _ROUNDING.get(model.dtype, 2e-2) * float(alone.abs().max().clamp(min=1e-6))
    return bool((packed - alone).abs().max() <= tolerance)


def _innermost(model: Any) -> Any:
    model = getattr(model, "module", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@cache
def _cuts_logits(forward: Callable[..., Any]) -> bool:
    return "logits_to_keep" in inspect.signature(forward).parameters
