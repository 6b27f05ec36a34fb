"""Models of Llama's form as few large operations: the same weights and the same function as the library's module, for reading.

What a small model costs on a processor is the number of its operations: a token of two layers is some 400 calls in
transformers and 40 here. Grouped products in place of one query at a time also halve the attention of larger ones.

Three things are laid out anew, once, to spare an operation in every step. The halves of a query or a key that are turned
together lie side by side, so that a turn is one product of complex numbers. Weights of a norm are multiplied into the
matrix behind it where that is small. And what runs through the layers has one more column, sqrt(E x eps), so that the
length of a row is what its norm divides by.

Legend: B rows, L tokens read at once, S columns of the cache, K key-value heads, G queries to each of them, b = B x K,
D head width, E hidden width, I width of the MLP, V vocabulary, P positions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from stillhouse.products import WORTH, for_many_products, linear

Weights = tuple[Tensor, Tensor | None]  # rows for each output, and their biases
Stream = tuple[Tensor, Tensor]  # [N, E + 1], and [N, E] of it

# weights of one matrix above which several are not copied into one: the calls that it saves no longer matter
_JOINED = 2**20
# weights of a matrix from which its order matters, and of a model up to which it may have a copy
_LAID_OUT, _COPIED = 2**15, 2**27


class Matrix:
    """Weights of a linear layer, without gradients; `often`: a copy in the order of the products is worth its memory."""

    def __init__(self, weight_OI: Tensor, bias: Tensor | None, *, often: bool):
        self.weight_OI, self.weight_IO, self.bias = weight_OI, weight_OI.t(), bias
        self._laid_out = for_many_products(weight_OI) if often and weight_OI.numel() >= _LAID_OUT else None
        self._worth = WORTH / weight_OI.shape[0]

    def __call__(self, x: Tensor) -> Tensor:
        if x.numel() >= self._worth:
            return linear(x, self.weight_OI, self.bias, laid_out=self._laid_out)
        return torch.mm(x, self.weight_IO) if self.bias is None else torch.addmm(self.bias, x, self.weight_IO)

    def add_to(self, total: Tensor, x: Tensor) -> None:
        if x.numel() >= self._worth:
            total += linear(x, self.weight_OI, self.bias, laid_out=self._laid_out)
            return
        total.addmm_(x, self.weight_IO)
        if self.bias is not None:
            total += self.bias


@dataclass(frozen=True, slots=True)
class Layer:
    """`query_key_value` and `gate_up` are one matrix each where they are small, or one for each of their names.

    As one, the rows of queries and keys lie head by head, G queries and the key, and the values behind them. A norm is
    None where it is part of the matrices behind it.
    """

    before_attention: Tensor | None
    query_key_value: tuple[Matrix, ...]
    query_norm: Tensor | None
    key_norm: Tensor | None
    out: Matrix
    before_mlp: Tensor | None
    gate_up: tuple[Matrix, ...]
    down: Matrix


class Decoder:
    """The weights as they are now; `inference.decoder_of` says of which models this is the same function."""

    def __init__(self, model: Any):
        inner, config = model.model, model.config
        self.vocabulary, self.hidden = model.lm_head.weight.shape
        self.heads = config.num_key_value_heads
        self.groups = config.num_attention_heads // self.heads
        self.width = inner.layers[0].self_attn.head_dim
        self.eps = inner.norm.variance_epsilon
        self.act = inner.layers[0].mlp.act_fn
        self.embedding_VE, self.rotary = inner.embed_tokens.weight.detach(), inner.rotary_emb
        matrix = partial(Matrix, often=sum(weight.numel() for weight in model.parameters()) <= _COPIED)
        self.layers = [self._layer(layer, matrix) for layer in inner.layers]
        self.norm, (self.head,) = self._behind(inner.norm, [_weights(model.lm_head)], _joined, matrix)

    def turns(self, positions: int) -> Tensor:
        """[P, 1, D/2] of complex numbers that turn queries and keys, and bring the scale of their products with them."""
        cos_PD, sin_PD = (table[0] for table in self.rotary(self.embedding_VE, torch.arange(positions)[None]))
        half = self.width // 2
        return torch.complex(cos_PD[:, None, :half], sin_PD[:, None, :half]) * self.width**-0.25

    def stream(self, rows: int) -> Stream:
        """Room for what runs through the layers."""
        whole_NF = torch.full((rows, self.hidden + 1), (self.hidden * self.eps) ** 0.5)
        return whole_NF, whole_NF[:, :-1]

    def remember(self, ids_nL: Tensor, turns_L1d: Tensor) -> list[tuple[Tensor, Tensor]]:
        """[n, L, K, D] keys and values of each layer, of rows that begin at position 0."""
        n, length = ids_nL.shape
        stream, kept = self.stream(n * length), []
        stream[1].copy_(self.embedding_VE.index_select(0, ids_nL.flatten()))
        turns = turns_L1d.repeat(n, 1, 1)
        for layer in self.layers:
            queries_keys, values = self._states(layer, stream, turns)
            queries_keys = queries_keys.view(n, length, self.heads, self.groups + 1, self.width)
            keys, values = queries_keys[..., -1, :], values.view(n, length, self.heads, self.width)
            kept.append((keys, values))
            if layer is not self.layers[-1]:
                mixed = _attended(queries_keys[..., :-1, :].flatten(2, 3), keys, values)
                self._after(layer, stream, mixed.flatten(0, 1))
        return kept

    def step(self, ids_B: Tensor, turns_B1d: Tensor, cache: "Cache", mask_b1S: Tensor | None) -> Tensor:
        """[B, V] logits after one more token of each row, whose keys and values go into the cache.

        The mask is added to the scores.
        """
        stream, (heads, groups, width) = cache.stream, (self.heads, self.groups, self.width)
        rows = stream[1].copy_(self.embedding_VE.index_select(0, ids_B)).shape[0]
        for number, layer in enumerate(self.layers):
            queries_keys, values = self._states(layer, stream, turns_B1d)
            turned_bhD = queries_keys.view(-1, groups + 1, width)
            keys_bDS, values_bSD = cache.put(number, turned_bhD.select(1, groups), values.view(-1, heads, width))
            queries_bGD = turned_bhD.narrow(1, 0, groups)
            if mask_b1S is None:
                scores_bGS = torch.bmm(queries_bGD, keys_bDS)
            else:
                scores_bGS = torch.baddbmm(mask_b1S, queries_bGD, keys_bDS)
            mixed_bGD = torch.bmm(scores_bGS.softmax(-1), values_bSD)
            self._after(layer, stream, mixed_bGD.view(rows, -1))
        return self.head(_normed(stream, self.norm))

    def _states(self, layer: Layer, stream: Stream, turns: Tensor) -> tuple[Tensor, Tensor]:
        """[..., K (G + 1), D] queries and keys with their position in them, head by head; [..., K D] values."""
        x = _normed(stream, layer.before_attention)
        rows, size = x.shape[0], self.heads * (self.groups + 1)
        if len(layer.query_key_value) == 1:
            states = layer.query_key_value[0](x)
            queries_keys = states.narrow(1, 0, size * self.width)
            values = states.narrow(1, size * self.width, self.heads * self.width)
        else:
            *turned, values = (matrix(x) for matrix in layer.query_key_value)
            halves = [each.view(rows, self.heads, -1, 2, self.width // 2) for each in turned]
            queries_keys = torch.cat(halves, 2).transpose(-1, -2).reshape(rows, -1)
        if layer.query_norm is not None and layer.key_norm is not None:
            by_heads = queries_keys.reshape(rows, self.heads, -1, self.width).split([self.groups, 1], 2)
            norms = layer.query_norm, layer.key_norm
            normed = [torch.rms_norm(x, norm.shape, norm, self.eps) for x, norm in zip(by_heads, norms)]
            queries_keys = torch.cat(normed, 2)
        turned = torch.view_as_complex(queries_keys.view(rows, size, -1, 2)) * turns
        return torch.view_as_real(turned).view(rows, size, self.width), values

    def _after(self, layer: Layer, stream: Stream, mixed: Tensor) -> None:
        x = stream[1]
        layer.out.add_to(x, mixed)
        inner = _normed(stream, layer.before_mlp)
        first, *second = layer.gate_up
        gate, up = (first(inner), second[0](inner)) if second else first(inner).chunk(2, -1)
        layer.down.add_to(x, self.act(gate).mul_(up))

    def _layer(self, layer: Any, matrix: Callable[..., Matrix]) -> Layer:
        attention, mlp = layer.self_attn, layer.mlp
        norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
        query_norm, key_norm = (None if norm is None else self._paired(norm.weight.detach()) for norm in norms)
        states = [_weights(part) for part in (attention.q_proj, attention.k_proj, attention.v_proj)]
        before_attention, query_key_value = self._behind(layer.input_layernorm, states, self._by_heads, matrix)
        inner = [_weights(part) for part in (mlp.gate_proj, mlp.up_proj)]
        before_mlp, gate_up = self._behind(layer.post_attention_layernorm, inner, _joined, matrix)
        return Layer(
            before_attention, query_key_value, query_norm, key_norm, matrix(*_weights(attention.o_proj)),
            before_mlp, gate_up, matrix(*_weights(mlp.down_proj)),
        )  # fmt: skip

    def _behind(
        self,
        norm: Any,
        parts: Sequence[Weights],
        join: Callable[[Sequence[Weights]], Weights],
        matrix: Callable[..., Matrix],
    ) -> tuple[Tensor | None, tuple[Matrix, ...]]:
        """What is read through a norm: together and with the norm in it where it is small."""
        scale_E = norm.weight.detach() * self.hidden**0.5
        if parts[0][0].numel() > _JOINED:
            return scale_E, tuple(matrix(*each) for each in parts)
        weight_OE, bias_O = join(parts)
        return None, (matrix(weight_OE * scale_E, bias_O),)

    def _by_heads(self, parts: Sequence[Weights]) -> Weights:
        *turned, value = parts

        def paired(rows: Sequence[Tensor]) -> Tensor:
            by_heads = [self._paired(each).unflatten(0, (self.heads, -1)) for each in rows]
            return torch.cat(by_heads, 1).flatten(0, 1)

        biases = [bias for _, bias in turned if bias is not None]
        return _joined([(paired([weight for weight, _ in turned]), paired(biases) if biases else None), value])

    def _paired(self, rows: Tensor) -> Tensor:
        """Of queries or keys, in the order 0, D/2, 1, D/2 + 1 ... of each head."""
        return rows.unflatten(0, (-1, 2, self.width // 2)).transpose(1, 2).flatten(0, 2)


class Cache:
    """Keys and values in columns that all rows share: a column is one moment, whatever each row's position in it.

    Rows see the columns from `first` to `end`, where the next token goes. All that is seen has been written, padding too.
    """

    def __init__(self, decoder: Decoder, rows: int, columns: int):
        self.heads, self.columns, self.first, self.end = decoder.heads, columns, 0, 0
        self.stream = decoder.stream(rows)
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

    def put(self, layer: int, key_bD: Tensor, value_BKD: Tensor) -> tuple[Tensor, Tensor]:
        """The token at `end`; returns what is seen from there, [b, D, S] and [b, S, D]."""
        keys, values, end = self.keys[layer], self.values[layer], self.end
        keys.select(2, end).copy_(key_bD)
        values.view(-1, self.heads, *values.shape[1:]).select(2, end).copy_(value_BKD)
        seen = end + 1 - self.first
        return keys.narrow(2, self.first, seen), values.narrow(1, self.first, seen)

    def keep(self, rows: Tensor) -> None:
        self.stream = self.stream[0][: len(rows)], self.stream[1][: len(rows)]
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


def _normed(stream: Stream, weight: Tensor | None) -> Tensor:
    """A root mean square norm without its factor sqrt(E), which is in the weights, here or behind."""
    whole_NF, x_NE = stream
    normed = x_NE / torch.linalg.vector_norm(whole_NF, 2, -1, True)
    return normed if weight is None else normed.mul_(weight)


def _attended(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """[n, L, heads x D] from [n, L, heads, D], causally."""
    q, k, v = (each.transpose(1, 2) for each in (queries, keys, values))
    mixed = scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0, enable_gqa=q.shape[1] > k.shape[1])
    return mixed.transpose(1, 2).flatten(2)


def _weights(module: Any) -> Weights:
    return module.weight.detach(), None if module.bias is None else module.bias.detach()


def _joined(parts: Sequence[Weights]) -> Weights:
    biases = [bias for _, bias in parts if bias is not None]
    return torch.cat([weight for weight, _ in parts]), torch.cat(biases) if biases else None
