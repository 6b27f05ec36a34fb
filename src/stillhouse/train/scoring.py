"""Students with a scoring head: reward models, rerankers, classifiers (`AutoModelForSequenceClassification`).

Legend: R rows of C tokens, N target positions, L numbers of the head. The library's own forward pass runs as always, and
what its head says at every position is taken on the way, so that sequences can share rows.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from stillhouse.errors import RecipeError


def scores_at(model: Any, ids_RC: Tensor, position_RC: Tensor, at_RC: Tensor) -> Tensor:
    """scores_NL: what the head says at the marked positions, row by row."""
    with _heard(model) as said:
        model(input_ids=ids_RC, position_ids=position_RC, use_cache=False)
    return said[0][at_RC]


def own_positions(target_RC: Tensor) -> Tensor:
    """Marks the tokens of the responses themselves, where `target_RC` marks the positions before them."""
    return torch.roll(target_RC, 1, dims=1)


def scoring_head(model: Any) -> nn.Module | None:
    """The head of a model that scores sequences; None for one that writes."""
    model = getattr(model, "module", model)
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return getattr(inner, "score", None)


def require_scoring_head(model: Any, kind: str) -> None:
    if scoring_head(model) is None:
        raise RecipeError(
            f"student.kind: {type(model).__name__} has no scoring head that reads from left to right, as kind {kind} "
            "needs; take a decoder model (Llama, Qwen, GPT-2, ...)"
        )


@contextmanager
def _heard(model: Any) -> Iterator[list[Tensor]]:
    said: list[Tensor] = []
    head = scoring_head(model)
    assert head is not None
    handle = head.register_forward_hook(lambda module, given, out: said.append(out))
    try:
        yield said
    finally:
        handle.remove()
