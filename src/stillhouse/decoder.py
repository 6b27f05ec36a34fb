"""Models of Llama's form as few large operations: the same weights and the same function as the library's module, for reading.

What a small model costs on a processor is the number of its operations: a token of two layers is some 400 calls in
transformers and 50 here. Grouped products in place of one query at a time also halve the attention of larger ones.

Legend: B rows, L tokens read at once, S columns of the cache, K key-value heads, G queries to each of them, b = B x K,
D head width, E hidden width, V vocabulary, P positions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear as plain_linear
from torch.nn.functional import scaled_dot_product_attention

from stillhouse.products import WORTH, for_many_products, linear

# weights of one matrix above which several are not copied into one: the calls that it saves no longer matter
_JOINED = 2**20
# weights of a matrix from which its order matters, and of a model up to which it may have a copy
_LAID_OUT, _COPIED = 2**15, 2**27


class Matrix:
    """Weights of a linear layer, without gradients; `often`: a copy in the order of the products is worth its memory."""

    def __init__(self, weight: Tensor, bias: Tensor | None, *, often: bool):
        self.weight, self.bias = weight, bias
        self._laid_out = for_many_products(weight) if often and weight.numel() >= _LAID_OUT else None

    def __call__(self, x: Tensor) -> Tensor:
        if x.numel() * self.weight.shape[0] < WORTH:
            return plain_linear(x, self.weight, self.bias)
        return linear(x, self.weight, self.bias, laid_out=self._laid_out)


@dataclass(frozen=True, slots=True)
class Layer:
    """`query_key_value` and `gate_up` are one matrix each where they are small, or one for each of their names.

    As one, the rows of `query_key_value` lie head by head: G queries, the key, the value.
    """

    before_attention: Tensor
    query_key_value: tuple[Matrix, ...]
    query_norm: Tensor | None
    key_norm: Tensor | None
    out: Matrix
    before_mlp: Tensor
    gate_up: tuple[Matrix, ...]
    down: Matrix


class Decoder:
    """The weights as they are now; `reading.decoder_of` says of which models this is the same function."""

    def __init__(self, model: Any):
        inner, config = model.model, model.config
        self.vocabulary = model.lm_head.weight.shape[0]
        self.heads = config.num_key_value_heads
        self.groups = config.num_attention_heads // self.heads
        self.width = inner.layers[0].self_attn.head_dim
        self.scale, self.eps = self.width**-0.5, inner.norm.variance_epsilon
        self.act = inner.layers[0].mlp.act_fn
        self.embedding_VE, self.rotary = inner.embed_tokens.weight.detach(), inner.rotary_emb
        matrix = partial(Matrix, often=sum(weight.numel() for weight in model.parameters()) <= _COPIED)
        self.layers = [self._layer(layer, matrix) for layer in inner.layers]
        self.norm, self.head = inner.norm.weight.detach(), matrix(*_weights(model.lm_head))

    def angles(self, positions: int) -> Tensor:
        """[P, 2, D]: cosines, and sines with the sign that turning a vector by half its length asks for."""
        cos_PD, sin_PD = (table[0] for table in self.rotary(self.embedding_VE, torch.arange(positions)[None]))
        half = self.width // 2
        return torch.stack([cos_PD, torch.cat([-sin_PD[:, :half], sin_PD[:, half:]], -1)], 1)

    def remember(self, ids_nL: Tensor, angles_L2D: Tensor) -> list[tuple[Tensor, Tensor]]:
        """[n, L, K, D] keys and values of each layer, of rows that begin at position 0."""
        cos, sin = (angles_L2D[:, None, None, at] for at in (0, 1))
        x_nLE, kept = self.embedding_VE[ids_nL], []
        for layer in self.layers:
            states = self._states(layer, x_nLE)
            turned = self._turned(layer, states, cos, sin)
            keys, values = turned[..., -1, :], states[..., -1, :]
            kept.append((keys, values))
            if layer is not self.layers[-1]:
                mixed = _attended(turned[..., :-1, :].flatten(2, 3), keys, values)
                x_nLE = self._after(layer, x_nLE, mixed)
        return kept

    def step(self, ids_B: Tensor, angles_b2D: Tensor, cache: "Cache", mask_b1S: Tensor | None) -> Tensor:
        """[B, V] logits after one more token of each row, whose keys and values go into the cache.

        The mask is added to the scores.
        """
        x_BE = self.embedding_VE.index_select(0, ids_B)
        cos, sin = angles_b2D[:, :1], angles_b2D[:, 1:]
        for number, layer in enumerate(self.layers):
            states_bhD = self._states(layer, x_BE).view(-1, self.groups + 2, self.width)
            turned_bhD = self._turned(layer, states_bhD, cos, sin)
            keys_bDS, values_bSD = cache.put(number, turned_bhD[:, -1], states_bhD[:, -1])
            if mask_b1S is None:
                scores_bGS = torch.bmm(turned_bhD[:, :-1], keys_bDS).mul_(self.scale)
            else:
                scores_bGS = torch.baddbmm(mask_b1S, turned_bhD[:, :-1], keys_bDS, alpha=self.scale)
            mixed_bGD = torch.bmm(scores_bGS.softmax(-1), values_bSD)
            x_BE = self._after(layer, x_BE, mixed_bGD.view(len(ids_B), -1))
        return self.head(self._normed(x_BE, self.norm))

    def _states(self, layer: Layer, x: Tensor) -> Tensor:
        """[..., K, G queries + key + value, D]."""
        x = self._normed(x, layer.before_attention)
        shape = *x.shape[:-1], self.heads, -1, self.width
        if len(layer.query_key_value) == 1:
            return layer.query_key_value[0](x).view(shape)
        return torch.cat([matrix(x).view(shape) for matrix in layer.query_key_value], -2)

    def _turned(self, layer: Layer, states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Queries and key, their position in them."""
        turned = states[..., :-1, :]
        if layer.query_norm is not None and layer.key_norm is not None:
            queries, key = turned[..., :-1, :], turned[..., -1:, :]
            turned = torch.cat([self._normed(queries, layer.query_norm), self._normed(key, layer.key_norm)], -2)
        return torch.addcmul(turned * cos, turned.roll(self.width // 2, -1), sin)

    def _after(self, layer: Layer, x: Tensor, mixed: Tensor) -> Tensor:
        x = layer.out(mixed).add_(x)
        inner = self._normed(x, layer.before_mlp)
        first, *second = layer.gate_up
        gate, up = (first(inner), second[0](inner)) if second else first(inner).chunk(2, -1)
        return x.add_(layer.down(self.act(gate).mul_(up)))

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return torch.rms_norm(x, weight.shape, weight, self.eps)

    def _layer(self, layer: Any, matrix: Callable[..., Matrix]) -> Layer:
        attention, mlp = layer.self_attn, layer.mlp
        norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
        query_norm, key_norm = (None if norm is None else norm.weight.detach() for norm in norms)
        states = [_weights(part) for part in (attention.q_proj, attention.k_proj, attention.v_proj)]
        gate_up = [_weights(part) for part in (mlp.gate_proj, mlp.up_proj)]
        if states[0][0].numel() <= _JOINED:
            states = [_joined(states, self._by_heads)]
        if gate_up[0][0].numel() <= _JOINED:
            gate_up = [_joined(gate_up, torch.cat)]
        return Layer(
            layer.input_layernorm.weight.detach(), tuple(matrix(*each) for each in states), query_norm, key_norm,
            matrix(*_weights(attention.o_proj)), layer.post_attention_layernorm.weight.detach(),
            tuple(matrix(*each) for each in gate_up), matrix(*_weights(mlp.down_proj)),
        )  # fmt: skip

    def _by_heads(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([part.view(self.heads, -1, *part.shape[1:]) for part in parts], 1).flatten(0, 1)


class Cache:
    """Keys and values in columns that all rows share: a column is one moment, whatever each row's position in it.

    Rows see the columns from `first` to `end`, where the next token goes. All that is seen has been written, padding too.
    """

    def __init__(self, decoder: Decoder, rows: int, columns: int):
        self.heads, self.columns, self.first, self.end = decoder.heads, columns, 0, 0
        b, width = rows * decoder.heads, decoder.width
        self.keys = [torch.empty(b, width, columns) for _ in decoder.layers]
        self.values = [torch.empty(b, columns, width) for _ in decoder.layers]

    @property
    def free(self) -> bool:
        return self.end < self.columns

    def fill(self, rows: Tensor, kept: Sequence[tuple[Tensor, Tensor]], order: Tensor, length: int) -> None:
        """What `rows` have read (`remember`), its tokens in `order`, into the columns before `end`."""
        at_b, part = self._of_heads(rows), slice(self.end - length, self.end)
        for keys, values, read in zip(self.keys, self.values, kept):
            keys_nLKD, values_nLKD = (
                each.flatten(0, 1).index_select(0, order).view(len(rows), length, *each.shape[2:]) for each in read
            )
            keys[at_b, :, part] = keys_nLKD.permute(0, 2, 3, 1).flatten(0, 1)
            values[at_b, part] = values_nLKD.transpose(1, 2).flatten(0, 1)

    def put(self, layer: int, key_bD: Tensor, value_bD: Tensor) -> tuple[Tensor, Tensor]:
        """The token at `end`; returns what is seen from there, [b, D, S] and [b, S, D]."""
        keys, values, end = self.keys[layer], self.values[layer], self.end
        keys.select(2, end).copy_(key_bD)
        values.select(1, end).copy_(value_bD)
        seen = end + 1 - self.first
        return keys.narrow(2, self.first, seen), values.narrow(1, self.first, seen)

    def keep(self, rows: Tensor) -> None:
        at_b = self._of_heads(rows)
        self.keys = [keys.index_select(0, at_b) for keys in self.keys]
        self.values = [values.index_select(0, at_b) for values in self.values]

    def make_room(self, least: int) -> int:
        """Free columns at `end`, which stays at `least` or above; returns by how many all have moved down."""
        by = max(min(self.first, self.end - least), 0)
        held = self.end - by
        if held > self.columns // 2:
            self.columns += self.columns // 2 + 1
        for layer, (keys, values) in enumerate(zip(self.keys, self.values)):
            b, width = keys.shape[:2]
            self.keys[layer] = keys.new_empty(b, width, self.columns)
            self.keys[layer][:, :, :held] = keys[:, :, by : self.end]
            self.values[layer] = values.new_empty(b, self.columns, width)
            self.values[layer][:, :held] = values[:, by : self.end]
        self.end = held
        return by

    def _of_heads(self, rows: Tensor) -> Tensor:
        return (rows[:, None] * self.heads + torch.arange(self.heads)).flatten()


def _attended(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """[n, L, heads x D] from [n, L, heads, D], causally."""
    q, k, v = (each.transpose(1, 2) for each in (queries, keys, values))
    mixed = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] > k.shape[1])
    return mixed.transpose(1, 2).flatten(2)


def _weights(module: Any) -> tuple[Tensor, Tensor | None]:
    return module.weight.detach(), None if module.bias is None else module.bias.detach()


def _joined(
    parts: Sequence[tuple[Tensor, Tensor | None]], join: Callable[[list[Tensor]], Tensor]
) -> tuple[Tensor, Tensor | None]:
    biases = [bias for _, bias in parts if bias is not None]
    return join([weight for weight, _ in parts]), join(biases) if biases else None
