"""Sums over the pairs and the rankings of groups of sequences.

Legend: S sequences of the micro-batch, G groups (responses to one prompt), R the most responses of any group.
`group_S` holds the group of each sequence, `scores_S` how good it is (more is better).
"""

import torch
from torch import Tensor


def better(scores_S: Tensor, group_S: Tensor) -> Tensor:
    """[S, S]: is the row's sequence better than the column's, in the same group?"""
    return (group_S[:, None] == group_S[None, :]) & (scores_S[:, None] > scores_S[None, :])


def group_sum(values_S: Tensor, group_S: Tensor, groups: int) -> Tensor:
    return values_S.new_zeros(groups).index_add(0, group_S, values_S)


def sum_of_pairs(loss_SS: Tensor, pairs_SS: Tensor, group_S: Tensor, weight_G: Tensor) -> Tensor:
    """Sum over groups of weight * the sum over their pairs."""
    per_sequence_S = torch.where(pairs_SS, loss_SS, 0.0).sum(-1)
    return (weight_G * group_sum(per_sequence_S, group_S, len(weight_G))).sum()


def mean_of_pairs(loss_SS: Tensor, pairs_SS: Tensor, group_S: Tensor, weight_G: Tensor) -> Tensor:
    """Sum over groups of weight * the mean over their pairs: a prompt counts once, however many answers it has."""
    pairs_G = group_sum(pairs_SS.sum(-1).to(weight_G.dtype), group_S, len(weight_G))
    return sum_of_pairs(loss_SS, pairs_SS, group_S, weight_G / pairs_G.clamp(min=1))


def best_first(scores_S: Tensor, group_S: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """[G, R] indices of the sequences of each group, best first, and whether there is one at that place."""
    order_S = scores_S.argsort(descending=True, stable=True)
    order_S = order_S[group_S[order_S].argsort(stable=True)]
    size_G = torch.bincount(group_S, minlength=groups)
    place_S = torch.arange(len(order_S), device=order_S.device) - (size_G.cumsum(0) - size_G)[group_S[order_S]]
    most = int(size_G.max()) if len(order_S) else 0
    index_GR = torch.zeros(groups, most, dtype=torch.long, device=order_S.device)
    index_GR[group_S[order_S], place_S] = order_S
    return index_GR, torch.arange(most, device=order_S.device) < size_G[:, None]


def after(values_N: Tensor, sequence_N: Tensor) -> Tensor:
    """For each position the sum over the later positions of its sequence; a sequence's positions follow each other."""
    up_to_N = values_N.cumsum(0)
    sequences = int(sequence_N.max()) + 1 if len(sequence_N) else 0
    total_S = group_sum(values_N, sequence_N, sequences)
    first_N = torch.ones_like(sequence_N, dtype=torch.bool)
    first_N[1:] = sequence_N[1:] != sequence_N[:-1]
    before_S = group_sum(torch.where(first_N, up_to_N - values_N, 0.0), sequence_N, sequences)
    return total_S[sequence_N] - (up_to_N - before_S[sequence_N])
