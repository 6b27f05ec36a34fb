"""A smaller student cut out of a larger model, by what matters on real text (Minitron, arXiv 2407.14679).

Depth: the blocks that change their input least are left out. Width: the channels, neurons and heads with the smallest
activations are. Distil afterwards, from the model it was cut from: a pruned model that has not learned again is broken.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from stillhouse.errors import RecipeError
from stillhouse.generate import answering

KNOBS = ("layers", "hidden", "intermediate", "heads")


def prune(model: Any, rows: Sequence[Sequence[int]], *, sizes: Mapping[str, int]) -> None:
    """Cuts the model in place to `sizes` (layers, hidden, intermediate, heads: those of keys and values).

    `rows` are token ids to measure importance on. Raises RecipeError for a size that is no smaller, and for a model that
    is not built like Llama (q_proj ... o_proj, gate_proj, up_proj, down_proj).
    """
    inner, config = model.model, model.config
    if not all(hasattr(inner, name) for name in ("layers", "embed_tokens", "norm")) or not hasattr(
        inner.layers[0].mlp, "gate_proj"
    ):
        raise RecipeError(f"student.prune: {type(model).__name__} is not built like Llama, whose parts can be cut out")
    own = {
        "layers": config.num_hidden_layers, "hidden": config.hidden_size, "intermediate": config.intermediate_size,
        "heads": config.num_key_value_heads,
    }  # fmt: skip
    for name, size in sizes.items():
        if not 0 < size <= own[name]:
            raise RecipeError(f"student.prune.{name}: {size}, and the model has {own[name]}; write a smaller number")
    head_dim = inner.layers[0].self_attn.head_dim
    with answering(model), torch.no_grad():
        seen = _Importance(model, head_dim)
        for row in rows:
            seen.read(torch.tensor([list(row)], device=model.device))
    if "layers" in sizes:
        _keep_layers(model, _best(seen.layers(), sizes["layers"]))
    kept = list(range(own["layers"])) if "layers" not in sizes else _best(seen.layers(), sizes["layers"]).tolist()
    for block, number in zip(inner.layers, kept):
        if "intermediate" in sizes:
            _keep_neurons(block.mlp, _best(seen.neurons[number], sizes["intermediate"]))
        if "heads" in sizes:
            _keep_heads(block.self_attn, _best(seen.heads[number], sizes["heads"]), head_dim, config)
    if "hidden" in sizes:
        _keep_channels(model, _best(seen.channels, sizes["hidden"]))
    if "intermediate" in sizes:
        config.intermediate_size = sizes["intermediate"]
    if "heads" in sizes:
        groups = config.num_attention_heads // config.num_key_value_heads
        config.num_key_value_heads, config.num_attention_heads = sizes["heads"], sizes["heads"] * groups
    config.head_dim = head_dim


class _Importance:
    """Sums over what is read: how much each block moves its input, and how large each activation is."""

    def __init__(self, model: Any, head_dim: int):
        self.model, self.head_dim, self.tokens = model, head_dim, 0
        blocks, config = model.model.layers, model.config
        self.moved = torch.zeros(len(blocks), dtype=torch.float64)
        self.channels = torch.zeros(config.hidden_size, dtype=torch.float64)
        self.neurons = torch.zeros(len(blocks), config.intermediate_size, dtype=torch.float64)
        self.heads = torch.zeros(len(blocks), config.num_key_value_heads, dtype=torch.float64)

    def read(self, ids_1T: Tensor) -> None:
        blocks, handles = self.model.model.layers, []
        for number, block in enumerate(blocks):
            handles.append(block.mlp.down_proj.register_forward_pre_hook(self._adds(self.neurons[number], 1)))
            heads = self.heads[number]
            width = block.self_attn.o_proj.in_features // len(heads)
            handles.append(block.self_attn.o_proj.register_forward_pre_hook(self._adds(heads, width)))
        try:
            states = self.model(input_ids=ids_1T, output_hidden_states=True, use_cache=False).hidden_states
        finally:
            for handle in handles:
                handle.remove()
        # the last state has gone through the final norm, which no block before it has: its block is compared by it
        for number, (before, after) in enumerate(pairwise(states)):
            self.moved[number] += (1 - nn.functional.cosine_similarity(before, after, dim=-1)).double().sum().cpu()
            self.channels += after.double().abs().sum((0, 1)).cpu()
        self.tokens += ids_1T.numel()

    def layers(self) -> Tensor:
        return self.moved / self.tokens

    @staticmethod
    def _adds(total: Tensor, width: int) -> Any:
        def hook(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            sizes = given[0].double().abs().sum((0, 1)).cpu()
            total.add_(sizes.view(-1, width).sum(-1))

        return hook


def _best(values: Tensor, number: int) -> Tensor:
    """The places of the largest values, in their old order."""
    return values.topk(number).indices.sort().values


def _keep_layers(model: Any, kept: Tensor) -> None:
    blocks = [model.model.layers[number] for number in kept.tolist()]
    for number, block in enumerate(blocks):
        block.self_attn.layer_idx = number
    model.model.layers = nn.ModuleList(blocks)
    model.config.num_hidden_layers = len(blocks)
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = [model.config.layer_types[number] for number in kept.tolist()]


def _keep_neurons(mlp: Any, kept: Tensor) -> None:
    _cut(mlp.gate_proj, rows=kept)
    _cut(mlp.up_proj, rows=kept)
    _cut(mlp.down_proj, columns=kept)


def _keep_heads(attention: Any, kept: Tensor, head_dim: int, config: Any) -> None:
    groups = config.num_attention_heads // config.num_key_value_heads
    own = (kept[:, None] * head_dim + torch.arange(head_dim)).flatten()
    width = groups * head_dim
    asked = (kept[:, None] * width + torch.arange(width)).flatten()
    _cut(attention.q_proj, rows=asked)
    _cut(attention.k_proj, rows=own)
    _cut(attention.v_proj, rows=own)
    _cut(attention.o_proj, columns=asked)


def _keep_channels(model: Any, kept: Tensor) -> None:
    width = model.config.hidden_size
    tied = model.lm_head.weight is model.model.embed_tokens.weight
    for module in model.modules():
        if isinstance(module, nn.Linear) and not (tied and module is model.lm_head):
            _cut(
                module,
                rows=kept if module.out_features == width and _writes(model, module) else None,
                columns=kept if module.in_features == width and not _writes(model, module) else None,
            )
        elif getattr(module, "weight", None) is not None and module.weight.shape == (width,):
            module.weight = nn.Parameter(module.weight.detach()[kept].clone())
    embedding = model.model.embed_tokens
    embedding.weight = nn.Parameter(embedding.weight.detach()[:, kept].clone())
    embedding.embedding_dim = len(kept)
    if tied:
        model.lm_head.weight, model.lm_head.in_features = embedding.weight, len(kept)
    model.config.hidden_size = len(kept)


def _writes(model: Any, module: nn.Linear) -> bool:
    """Whether a layer gives back channels of the stream and not reads them."""
    return any(module is block.self_attn.o_proj or module is block.mlp.down_proj for block in model.model.layers)


def _cut(layer: nn.Linear, *, rows: Tensor | None = None, columns: Tensor | None = None) -> None:
    weight = layer.weight.detach()
    if rows is not None:
        weight = weight[rows]
        if layer.bias is not None:
            layer.bias = nn.Parameter(layer.bias.detach()[rows].clone())
    if columns is not None:
        weight = weight[:, columns]
    layer.weight = nn.Parameter(weight.clone())
    layer.out_features, layer.in_features = weight.shape
