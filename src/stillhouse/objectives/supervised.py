"""Learning from given tokens (Eq. 9). Legend: N target positions, V vocabulary."""

from typing import Any

import torch
from torch import Tensor

from stillhouse.kernels.beliefs import Sampled
from stillhouse.objectives.divergence import forward_kl

__all__ = ["cross_entropy", "edited", "figa"]


def cross_entropy(student_logits_NV: Any, target_ids_N: Tensor, weight_N: Tensor) -> Tensor:
    """Negative log-likelihood of the target tokens, in nats, summed with their weights (Eq. 9).

    Example, message and token weights are all in `weight_N`; ids at positions of weight 0 may be anything (-100).
    `student_logits_NV` as in `divergence`: it is the forward KL from the one token that is there.
    """
    target = Sampled(target_ids_N[..., None], (weight_N != 0)[..., None])
    return forward_kl(student_logits_NV, target, weight_N)


def edited(
    student_logprobs_N: Tensor, edit_N: Tensor, weight_N: Tensor, *, changed: float = 1.0, kept: float = 0.5
) -> Tensor:
    """Likelihood of a corrected answer, its changed tokens weighing more than those it kept (RLMEC's imitation, R42).

    `edit_N` as in `figa`; what a correction took out (-1) is not learned. The defaults are those of the released code.
    """
    share_N = torch.where(edit_N > 0, changed, torch.where(edit_N == 0, kept, 0.0))
    counted_N = (weight_N != 0) & (share_N != 0)
    return -(weight_N[counted_N] * share_N[counted_N] * student_logprobs_N[counted_N]).sum()


def figa(
    student_logprobs_N: Tensor,
    edit_N: Tensor,
    weight_N: Tensor,
    *,
    confident_below: float = 0.6,
    removed_weight: float = 1.0,
) -> Tensor:
    """Likelihood of a revision's changed tokens up, of the original's wrong tokens down (FIGA, arXiv 2311.04072, R42).

    `student_logprobs_N` is the log-probability of the token that is there. `edit_N` is 1 on tokens that the revision
    added or substituted, -1 on those of the original that it removed or substituted, 0 on all others. Removed tokens
    count `removed_weight` times, and only where the student is confident: where its loss is below `confident_below`,
    0.6 in the released code. Sum over positions of weight * sign * loss.
    """
    loss_N = -student_logprobs_N
    removed_N = (edit_N < 0) & (loss_N.detach() < confident_below)
    counted_N = (weight_N != 0) & ((edit_N > 0) | removed_N)
    signed_N = torch.where(edit_N < 0, -removed_weight, 1.0) * weight_N
    return (signed_N[counted_N] * loss_N[counted_N]).sum()
