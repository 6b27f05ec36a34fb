"""Not forgetting what a student knew, beside an objective that teaches it something new.

Replay of old data is one more branch with an objective of its own, and closeness to the old model's distributions is any
divergence with `teacher: reference`. Here is closeness of the weights.
"""

from torch import Tensor

__all__ = ["l2_to_start"]


def l2_to_start(squared_distance: Tensor) -> Tensor:
    """The squared distance of the trained weights from where they started (L2-SP, arXiv 1802.01483).

    `squared_distance` is the sum over all trained weights; with LoRA that of the adapter from its own start. One number
    for the step, whatever its batches: the weight of this objective is the strength of the spring.
    """
    return squared_distance
