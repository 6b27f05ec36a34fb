"""Models of Llama's form read whole, with gradients: the same weights and the same function as the library's module.

A small model's pass in training is many small operations too: here a norm, an attention, a gate is one each, forward and
back, and what reads the same input is one product.

Legend: R rows of C tokens, T = R x C and some more that nobody sees, N marked positions, E hidden width, K key-value
heads, G queries to each of them, D head width, W = K (G + 2) D, I width of the MLP, J = 2 I, P positions, d = D / 2.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention, silu

from stillhouse.narrow_attention import attended, is_narrow, unseen
from stillhouse.products import learned_linear, until_recurring

# products of queries and keys come in units of log 2, as powers of two are a quarter of the cost of powers of e
_IN_TWOS = math.log2(math.e)


def read(model: Any, ids_RC: Tensor, position_RC: Tensor, target_RC: Tensor) -> Tensor:
    """[N, E]: what the head is given at the marked positions, differentiable for the model's weights.

    Sequences in one row are told apart by their positions; `inference.readable` says for which models this is right.
    """
    inner, shape = model.model, Shape(model, *ids_RC.shape)
    turns_T1d, sees_R1CC = shape.turns(inner, position_RC), same_sequence(position_RC)
    unseen_R1CM = unseen(sees_R1CC, shape.columns, shape.groups) if shape.is_narrow else None
    at_N = target_RC.flatten().nonzero()[:, 0]
    number = len(at_N)
    ids_T, at_N = (pad(each, (0, until_recurring(len(each)))) for each in (ids_RC.flatten(), at_N))
    x_TE = inner.embed_tokens(ids_T)
    for layer in inner.layers:
        normed_TE = _normed(x_TE, layer.input_layernorm)
        states_TW = _states(normed_TE, layer.self_attn, shape)
        mixed = _mixed(states_TW, turns_T1d, sees_R1CC, unseen_R1CM, shape)
        if layer is inner.layers[-1]:
            x_TE, mixed = x_TE.index_select(0, at_N), mixed.index_select(0, at_N)
        x_TE = x_TE + _linear(mixed, layer.self_attn.o_proj)
        mlp, normed_TE = layer.mlp, _normed(x_TE, layer.post_attention_layernorm)
        gate_up = _linear(normed_TE, mlp.gate_proj, mlp.up_proj)
        x_TE = x_TE + _linear(_gated(gate_up, mlp.act_fn), mlp.down_proj)
    return _normed(x_TE, inner.norm)[:number]


class Shape:
    """The sizes of a batch and of the model's attention."""

    def __init__(self, model: Any, rows: int, columns: int):
        self.rows, self.columns = rows, columns
        self.heads = model.config.num_key_value_heads
        self.groups = model.config.num_attention_heads // self.heads
        self.width = model.model.layers[0].self_attn.head_dim
        self.is_narrow = is_narrow(rows * self.heads * self.groups, columns, self.width)

    @property
    def turned(self) -> int:
        """Columns of queries and keys among the states."""
        return self.heads * (self.groups + 1) * self.width

    def turns(self, inner: Any, position_RC: Tensor) -> Tensor:
        """[R x C, 1, d] of complex numbers that turn queries and keys and bring the scale of their products with them."""
        at = torch.arange(int(position_RC.max()) + 1)[None]
        cos_PD, sin_PD = (table[0] for table in inner.rotary_emb(inner.embed_tokens.weight, at))
        half = self.width // 2
        turns_Pd = torch.complex(cos_PD[:, :half], sin_PD[:, :half]) * (self.width**-0.5 * _IN_TWOS) ** 0.5
        return turns_Pd.index_select(0, position_RC.flatten())[:, None]


def same_sequence(position_RC: Tensor) -> Tensor | None:
    """[R, 1, C, C]: whether one sees the other; None where each row is one sequence and sees what is before."""
    first_RC = position_RC == 0
    if int(first_RC.sum()) == len(position_RC):
        return None
    sequence_RC = first_RC.cumsum(-1)
    return (sequence_RC[:, :, None] == sequence_RC[:, None]).tril_()[:, None]


def _states(x_TE: Tensor, attention: Any, shape: Shape) -> Tensor:
    """[T, W]: G queries and the key of each head, the halves that are turned together side by side; then the values."""
    turned = (attention.q_proj, attention.k_proj)
    weight_WE = torch.cat([_by_heads([part.weight for part in turned], shape), attention.v_proj.weight])
    bias_W = None
    if attention.v_proj.bias is not None:
        bias_W = torch.cat([_by_heads([part.bias for part in turned], shape), attention.v_proj.bias])
    states_TW = learned_linear(x_TE, weight_WE, bias_W)
    if not hasattr(attention, "q_norm"):
        return states_TW
    queries_keys, values = states_TW.split([shape.turned, shape.heads * shape.width], -1)
    parts = queries_keys.unflatten(-1, (shape.heads, -1, shape.width)).split([shape.groups, 1], 2)
    eps, norms = attention.q_norm.variance_epsilon, (attention.q_norm.weight, attention.k_norm.weight)
    normed = [torch.rms_norm(part, (shape.width,), _paired(norm, shape.width), eps) for part, norm in zip(parts, norms)]
    return torch.cat([torch.cat(normed, 2).flatten(1), values], -1)


def _by_heads(parts: list[Tensor], shape: Shape) -> Tensor:
    by_heads = [_paired(part, shape.width).unflatten(0, (shape.heads, -1)) for part in parts]
    return torch.cat(by_heads, 1).flatten(0, 1)


def _paired(rows: Tensor, width: int) -> Tensor:
    """Rows of queries or keys in the order 0, D/2, 1, D/2 + 1 ... of each head."""
    return rows.unflatten(0, (-1, 2, width // 2)).transpose(1, 2).flatten(0, 2)


def _mixed(
    states_TW: Tensor, turns_T1d: Tensor, sees_R1CC: Tensor | None, unseen_R1CM: Tensor | None, shape: Shape
) -> Tensor:
    """[T, K G D]: what each position takes from those that it sees."""
    rows, columns, heads, groups, width = shape.rows, shape.columns, shape.heads, shape.groups, shape.width
    if unseen_R1CM is not None:
        return attended(states_TW, turns_T1d, unseen_R1CM, rows, heads)
    queries_keys, values = states_TW[: rows * columns].split([shape.turned, heads * width], -1)
    turned = torch.view_as_real(torch.view_as_complex(queries_keys.unflatten(-1, (-1, width // 2, 2))) * turns_T1d)
    by_heads = turned.view(rows, columns, heads, groups + 1, width)
    each = by_heads[..., :-1, :].flatten(2, 3), by_heads[..., -1, :], values.unflatten(-1, (heads, width))
    q, k, v = (x.view(rows, columns, -1, width).transpose(1, 2) for x in each)
    mixed = scaled_dot_product_attention(
        q, k, v, sees_R1CC, is_causal=sees_R1CC is None, scale=1 / _IN_TWOS, enable_gqa=groups > 1
    )
    return pad(mixed.transpose(1, 2).reshape(rows * columns, -1), (0, 0, 0, len(states_TW) - rows * columns))


def _linear(x: Tensor, *modules: Any) -> Tensor:
    """What all of `modules` make of x, side by side."""
    biases = [module.bias for module in modules if module.bias is not None]
    if len(modules) == 1:
        return learned_linear(x, modules[0].weight, modules[0].bias)
    weight = torch.cat([module.weight for module in modules])
    return learned_linear(x, weight, torch.cat(biases) if biases else None)


def _normed(x_TE: Tensor, norm: Any) -> Tensor:
    return _Norm.apply(x_TE, norm.weight, norm.variance_epsilon)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TE: Tensor, weight_E: Tensor, eps: float) -> Tensor:
        length_T1 = torch.linalg.vector_norm(x_TE, 2, -1, True)
        scale_T1 = length_T1.square_().div_(x_TE.shape[-1]).add_(eps).rsqrt_()
        normed_TE = x_TE * scale_T1
        ctx.save_for_backward(normed_TE, scale_T1, weight_E)
        return normed_TE * weight_E

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_TE: Tensor) -> tuple[Tensor | None, ...]:
        normed_TE, scale_T1, weight_E = ctx.saved_tensors
        along_TE = grad_TE * normed_TE
        mean_T1 = torch.mv(along_TE, weight_E).div_(-len(weight_E))[:, None]
        back_TE = (grad_TE * weight_E).addcmul_(normed_TE, mean_T1).mul_(scale_T1)
        return back_TE, along_TE.sum(0) if ctx.needs_input_grad[1] else None, None


def _gated(gate_up_TJ: Tensor, act: Any) -> Tensor:
    """[T, I] of the gate and what it lets through."""
    if isinstance(act, nn.SiLU):
        return _Gated.apply(gate_up_TJ)
    gate, up = gate_up_TJ.chunk(2, -1)
    return act(gate) * up


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up_TJ: Tensor) -> Tensor:
        gate_TI, up_TI = gate_up_TJ.chunk(2, -1)
        act_TI = silu(gate_TI)
        ctx.save_for_backward(gate_up_TJ, act_TI)
        return act_TI * up_TI

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_TI: Tensor) -> Tensor:
        gate_up_TJ, act_TI = ctx.saved_tensors
        gate_TI, up_TI = gate_up_TJ.chunk(2, -1)
        back_TJ = torch.empty_like(gate_up_TJ)
        back_gate_TI, back_up_TI = back_TJ.chunk(2, -1)
        torch.mul(grad_TI, act_TI, out=back_up_TI)
        back_gate_TI.copy_(torch.ops.aten.silu_backward(grad_TI * up_TI, gate_TI))
        return back_TJ
