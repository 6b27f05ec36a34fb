"""Students with a scoring head: reward models, rerankers, classifiers (`AutoModelForSequenceClassification`).

Legend: R rows of C tokens, N target positions, L numbers of the head. A decoder's own forward pass runs as always, and
what its head says at every position is taken on the way, so that sequences can share rows. An encoder (BERT and its kin)
says its numbers once for each row: they stand at all of the row's positions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from stillhouse.errors import RecipeError
from stillhouse.render import encodes
from stillhouse.scoring import scores_of_rows


def scores_at(model: Any, ids_RC: Tensor, position_RC: Tensor, at_RC: Tensor) -> Tensor:
    """scores_NL: what the head says at the marked positions, row by row."""
    with _heard(model) as said:
        model(input_ids=ids_RC, position_ids=position_RC, use_cache=False)
    return said[0][at_RC]


def encoder_scores_at(model: Any, ids_RC: Tensor, target_RC: Tensor, *, paired: bool, typed: bool) -> Tensor:
    """scores_NL of an encoder at the marked positions, where `target_RC` marks the position before each target.

    `paired`: the targets are a second text that it reads; else they are classes, and what it reads ends before them.
    `typed`: the tokens of a second text are of a type of their own.
    """
    own_RC = own_positions(target_RC)
    size_R = target_RC.int().argmax(1) + 1
    if paired:
        size_R = size_R + target_RC.sum(1)
    scores_RL = scores_of_rows(model, ids_RC, size_R, own_RC if paired and typed else None)
    return scores_RL.repeat_interleave(target_RC.sum(1), 0)


def own_positions(target_RC: Tensor) -> Tensor:
    """Marks the tokens of the responses themselves, where `target_RC` marks the positions before them."""
    return torch.roll(target_RC, 1, dims=1)


def scoring_head(model: Any) -> nn.Module | None:
    """The head of a decoder that scores sequences; None for any other model."""
    model = getattr(model, "module", model)
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return getattr(inner, "score", None)


def require_scoring_head(model: Any, kind: str) -> None:
    """Raises RecipeError for a model whose scores nobody knows how to read."""
    if model.config.is_encoder_decoder or (scoring_head(model) is None and not encodes(model)):
        raise RecipeError(
            f"student.kind: {type(model).__name__} has no scoring head that can be read, as kind {kind} needs; "
            "take a decoder (Llama, Qwen, GPT-2, ...) or an encoder (BERT, RoBERTa, ...)"
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
