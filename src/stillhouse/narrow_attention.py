"""Attention over few tokens with narrow heads: a few large products in place of many that are smaller than their calls.

All scores of a layer exist at once, laid out key by query, so that each product is long where a head is narrow, and
their exponentials are powers of two. On a processor this takes half the time of `scaled_dot_product_attention` at heads of
8 to 12, three quarters at 24.

Legend: R rows of C tokens, t = R x C, T of them with padding behind them all, K key-value heads, G queries to each of
them, b = R x K, M = G x C, D head width, W = K (G + 2) D.
"""

import math
from typing import Any

import torch
from torch import Tensor

_WIDTH, _COLUMNS, _SCORES = 32, 128, 2**21
# sums of powers of two in which nothing that counts was too large or too small for float32
_LEAST, _MOST = 2.0**-60, 2.0**100


def is_narrow(heads: int, columns: int, width: int) -> bool:
    """Whether this is worth it; `heads` of all rows."""
    return width <= _WIDTH and columns <= _COLUMNS and heads * columns**2 <= _SCORES


def attended(states_TW: Tensor, turns_t1d: Tensor, unseen_R1CM: Tensor, rows: int, heads: int) -> Tensor:
    """[T, K G D], differentiable for the states.

    `states_TW` has G queries and the key of each head and, behind them all, the values; pairs of numbers of queries and
    keys are multiplied by `turns_t1d` as complex ones, after which a score is their product in units of log 2.
    `unseen_R1CM` is what `unseen` makes, once for all layers.
    """
    return _Attended.apply(states_TW, turns_t1d, unseen_R1CM, rows, heads)


def unseen(sees_R1CC: Tensor | None, columns: int, groups: int) -> Tensor:
    """[1 or R, 1, C, M] to be added to scores, key by query; `sees_R1CC` None: each sees what is before it in its row."""
    if sees_R1CC is None:
        sees_R1CC = torch.ones(1, 1, columns, columns, dtype=torch.bool).tril_()
    hidden_R1CC = torch.zeros(sees_R1CC.shape).masked_fill_(~sees_R1CC, -torch.inf).transpose(-1, -2)
    return hidden_R1CC.repeat(1, 1, 1, groups)


class _Attended(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states_TW: Tensor, turns_t1d: Tensor, unseen_R1CM: Tensor, rows: int, heads: int) -> Tensor:
        (padded, size), (tokens, width) = states_TW.shape, (len(turns_t1d), 2 * turns_t1d.shape[-1])
        groups, columns = size // (heads * width) - 2, tokens // rows
        queries_keys, values = states_TW[:tokens].split([heads * (groups + 1) * width, heads * width], -1)
        pairs = torch.view_as_complex(queries_keys.view(tokens, heads * (groups + 1), -1, 2))
        turned = torch.view_as_real(pairs * turns_t1d).view(rows, columns, heads, groups + 1, width)
        keys_bCD = turned[..., -1, :].transpose(1, 2).reshape(-1, columns, width)
        queries_bMD = turned[..., :-1, :].permute(0, 2, 3, 1, 4).reshape(-1, groups * columns, width)
        values_bCD = values.view(rows, columns, heads, width).transpose(1, 2).reshape(-1, columns, width)
        weights_bCM, sums_b1M = _weights(unseen_R1CM, keys_bCD, queries_bMD)
        mixed_bDM = torch.bmm(values_bCD.transpose(1, 2), weights_bCM).div_(sums_b1M)
        ctx.save_for_backward(turns_t1d, keys_bCD, queries_bMD, values_bCD, weights_bCM, sums_b1M, mixed_bDM)
        ctx.sizes = rows, columns, heads, groups, width
        out = states_TW.new_empty(padded, heads * groups * width)
        by_heads = mixed_bDM.view(rows, heads, width, groups, columns).permute(0, 4, 1, 3, 2)
        out[:tokens].view(rows, columns, heads, groups, width).copy_(by_heads)
        out[tokens:] = 0
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        turns_t1d, keys_bCD, queries_bMD, values_bCD, weights_bCM, sums_b1M, mixed_bDM = ctx.saved_tensors
        rows, columns, heads, groups, width = ctx.sizes
        tokens = rows * columns
        by_heads = grad[:tokens].view(rows, columns, heads, groups, width).permute(0, 2, 4, 3, 1)
        grad_bDM = by_heads.reshape(mixed_bDM.shape) / sums_b1M
        along_b1M = (grad_bDM * mixed_bDM).sum(1, keepdim=True)
        back_values_bDC = torch.bmm(grad_bDM, weights_bCM.transpose(1, 2))
        scores_bCM = torch.bmm(values_bCD, grad_bDM).sub_(along_b1M).mul_(weights_bCM)
        back_keys_bDC = torch.bmm(queries_bMD.transpose(1, 2), scores_bCM.transpose(1, 2))
        back_queries_bDM = torch.bmm(keys_bCD.transpose(1, 2), scores_bCM)
        back_turned = torch.empty(rows, columns, heads, groups + 1, width)
        back_turned[..., -1, :] = back_keys_bDC.view(rows, heads, width, columns).permute(0, 3, 1, 2)
        back_turned[..., :-1, :] = back_queries_bDM.view(rows, heads, width, groups, columns).permute(0, 4, 1, 3, 2)
        turned_t = torch.view_as_complex(back_turned.view(tokens, heads * (groups + 1), -1, 2))
        back_TW = torch.empty(len(grad), heads * (groups + 2) * width)
        back_TW[tokens:] = 0
        queries_keys, values = back_TW[:tokens].split([heads * (groups + 1) * width, heads * width], -1)
        torch.mul(
            turned_t, turns_t1d.conj() * math.log(2),
            out=torch.view_as_complex(queries_keys.view(tokens, heads * (groups + 1), -1, 2)),
        )  # fmt: skip
        values.view(rows, columns, heads, width).copy_(
            back_values_bDC.view(rows, heads, width, columns).permute(0, 3, 1, 2)
        )
        return back_TW, None, None, None, None


def _weights(unseen_R1CM: Tensor, keys_bCD: Tensor, queries_bMD: Tensor) -> tuple[Tensor, Tensor]:
    """Powers of two of the scores, and their sums for each query.

    The largest score of a query is taken away only where it must be: it costs as much as all the rest.
    """
    powers_bCM = _scores(unseen_R1CM, keys_bCD, queries_bMD).exp2_()
    sums_b1M = powers_bCM.sum(1, keepdim=True)
    least, most = torch.aminmax(sums_b1M)
    if float(least) > _LEAST and float(most) < _MOST:
        return powers_bCM, sums_b1M
    scores_bCM = _scores(unseen_R1CM, keys_bCD, queries_bMD)
    powers_bCM = scores_bCM.sub_(scores_bCM.amax(1, keepdim=True)).exp2_()
    return powers_bCM, powers_bCM.sum(1, keepdim=True)


def _scores(unseen_R1CM: Tensor, keys_bCD: Tensor, queries_bMD: Tensor) -> Tensor:
    rows = len(unseen_R1CM)
    if rows == 1:
        return torch.baddbmm(unseen_R1CM[0], keys_bCD, queries_bMD.transpose(1, 2))
    # written out for each head, what is unseen would cost more than the product
    scores_bCM = torch.bmm(keys_bCD, queries_bMD.transpose(1, 2))
    scores_bCM.view(rows, -1, *scores_bCM.shape[1:]).add_(unseen_R1CM)
    return scores_bCM
