"""Learning from given tokens (Eq. 9). Legend: N target positions, V vocabulary."""

from typing import Any

from torch import Tensor

from stillhouse.kernels.beliefs import Sampled
from stillhouse.objectives.divergence import forward_kl

__all__ = ["cross_entropy"]


def cross_entropy(student_logits_NV: Any, target_ids_N: Tensor, weight_N: Tensor) -> Tensor:
    """Negative log-likelihood of the target tokens, in nats, summed with their weights (Eq. 9).

    Example, message and token weights are all in `weight_N`; ids at positions of weight 0 may be anything (-100).
    `student_logits_NV` as in `divergence`: it is the forward KL from the one token that is there.
    """
    target = Sampled(target_ids_N[..., None], (weight_N != 0)[..., None])
    return forward_kl(student_logits_NV, target, weight_N)
