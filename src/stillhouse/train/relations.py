"""Queries, keys and values of an attention block, taken on the way (MiniLM v2: what its relations are made of).

Legend: R rows of C tokens, H the width of the projection.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from stillhouse.errors import RecipeError

RELATIONS = ("queries", "keys", "values")
_NAMES = {"queries": ("q_proj", "query"), "keys": ("k_proj", "key"), "values": ("v_proj", "value")}
_JOINED = ("c_attn",)  # one projection for all three, of equal widths


@contextmanager
def heard_relations(model: Any, layers: Sequence[Any]) -> Iterator[dict[Any, Tensor]]:
    """Of each (block, relation) in `layers` the projection [R, C, H] of the forward pass inside."""
    found: dict[Any, Tensor] = {}
    handles = [_listen(model, layer, found) for layer in layers if not isinstance(layer, int)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _listen(model: Any, layer: tuple[int, str], found: dict[Any, Tensor]) -> Any:
    number, relation = layer
    wanted = _NAMES[relation]
    alone = [m for name, m in model.named_modules() if name.rpartition(".")[2] in wanted and _projects(m)]
    joined = [m for name, m in model.named_modules() if name.rpartition(".")[2] in _JOINED and _projects(m)]
    blocks = alone or joined
    if not blocks or not -len(blocks) <= number < len(blocks):
        have = f"has {len(blocks)} blocks of them" if blocks else "names its attention in a way not known here"
        raise RecipeError(
            f"train: layer {number} of {type(model).__name__} has no {relation} to compare, it {have}; "
            "name another layer, or compare hidden states (similarity.cka)"
        )

    def keep(module: nn.Module, given: Any, out: Tensor) -> None:
        found[layer] = out if alone else out.chunk(3, -1)[RELATIONS.index(relation)]

    return blocks[number].register_forward_hook(keep)


def _projects(module: nn.Module) -> bool:
    return hasattr(module, "weight") or hasattr(module, "base_layer")
