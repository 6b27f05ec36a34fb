"""Learning from given tokens (Eq. 9). Legend: N target positions, V vocabulary."""

from typing import Any

from torch import Tensor

from stillhouse.kernels.beliefs import Sampled
from stillhouse.objectives.divergence import forward_kl

__all__ = ["cross_entropy", "figa"]


def cross_entropy(student_logits_NV: Any, target_ids_N: Tensor, weight_N: Tensor) -> Tensor:
    """Negative log-likelihood of the target tokens, in nats, summed with their weights (Eq. 9).

    Example, message and token weights are all in `weight_N`; ids at positions of weight 0 may be anything (-100).
    `student_logits_NV` as in `divergence`: it is the forward KL from the one token that is there.
    """
    target = Sampled(target_ids_N[..., None], (weight_N != 0)[..., None])
    return forward_kl(student_logits_NV, target, weight_N)


def figa(student_logprobs_N: Tensor, weight_N: Tensor, *, confident_below: float = 0.6) -> Tensor:
    """Likelihood of a revision's changed tokens up, of the original's wrong tokens down (FIGA, arXiv 2311.04072, R42).

    `student_logprobs_N` is the log-probability of the token that is there. `weight_N` is positive on tokens that the
    revision added or substituted, negative on those of the original that it removed or substituted, 0 on all others.
    Negative weights count only where the student is confident: where its loss is below `confident_below`, 0.6 in the
    released code.
    """
    loss_N = -student_logprobs_N
    counted_N = (weight_N > 0) | ((weight_N < 0) & (loss_N.detach() < confident_below))
    return (weight_N[counted_N] * loss_N[counted_N]).sum()
