"""What a rounded student learns from its full-precision copy beside plain divergences (R31).

Legend: N positions, H hidden width. Rounding makes tokens alike and errors uneven: these look at tokens one by one. Sums over
positions of weight * loss; `sequence_N` is the sequence of each position, whose positions follow each other.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from stillhouse.errors import RecipeError
from stillhouse.kernels.beliefs import Beliefs
from stillhouse.objectives.divergence import forward_kl

__all__ = ["token_contrastive", "token_scaled"]


def token_scaled(
    student_logits_NV: Any,
    teacher_beliefs: Beliefs,
    teacher_logprobs_N: Tensor,
    sequence_N: Tensor,
    weight_N: Tensor,
    *,
    sharpness: float = 0.1,
    divergence: Callable[..., Tensor] = forward_kl,
) -> Tensor:
    """A divergence that counts a token the more, the less likely the teacher finds it: what it is sure of is learned anyway.

    The scales of a sequence are softmax(-`sharpness` * the token's log-probability under the teacher) times its counted
    tokens, 1 in the mean; a `sharpness` of 0 is the plain divergence. 0.1 is the released code's (it divides by 10); 1 weighs
    by 1/p, and the one least likely token of a sequence is most of what is learned. Source: R31 (TSLD, arXiv 2308.06744).
    """
    counted_N = weight_N != 0
    scale_N = torch.zeros_like(teacher_logprobs_N)
    for part in _sequences(sequence_N):
        surprise_n = (-sharpness * teacher_logprobs_N[part]).masked_fill(~counted_N[part], -torch.inf)
        scale_N[part] = surprise_n.softmax(-1).nan_to_num() * counted_N[part].sum()
    return divergence(student_logits_NV, teacher_beliefs, weight_N * scale_N)


class token_contrastive(nn.Module):  # noqa: N801, a recipe names it like the functions beside it
    """-log of the share that the teacher's state of a token has, by cosine, among its states of all tokens of the sequence.

    Keeps apart what rounding makes alike; the two widths must be equal, as those of a student and its full-precision copy
    are. Negatives are the sequence's other counted tokens and, with `memory`, the teacher's states of that many tokens of
    earlier steps (a frozen teacher would say the same of them now); of several processes the first one's. Source: R31
    (QuantGPT, arXiv 2203.10705).
    """

    kept_KH: Tensor
    seen: Tensor

    def __init__(self, *, teacher_width: int = 0, temperature: float = 0.1, memory: int = 0):
        super().__init__()
        if not temperature > 0 or memory < 0:
            raise RecipeError(
                f"quantisation.token_contrastive: temperature {temperature} must be above 0, e.g. 0.1, and memory {memory} not "
                "below; write 0 for none"
            )
        self.temperature, self.memory = temperature, memory
        self.register_buffer("kept_KH", torch.zeros(memory, teacher_width if memory else 0))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.before_KH = self.kept_KH[:0]

    def begin_step(self) -> None:
        """What was met up to here is what the next step looks at: the same however its rows are cut."""
        self.before_KH = self.kept_KH[: int(self.seen)].clone()

    def forward(
        self, student_hidden_NH: Tensor, teacher_hidden_NH: Tensor, sequence_N: Tensor, weight_N: Tensor
    ) -> Tensor:
        if student_hidden_NH.shape[-1] != teacher_hidden_NH.shape[-1]:
            raise RecipeError(
                f"quantisation.token_contrastive: widths {student_hidden_NH.shape[-1]} and {teacher_hidden_NH.shape[-1]} differ; "
                "use teacher: reference, or similarity.projected"
            )
        dtype = torch.promote_types(student_hidden_NH.dtype, torch.float32)
        own_NH, theirs_NH = (
            normalize(each.to(dtype), dim=-1) for each in (student_hidden_NH, teacher_hidden_NH.detach())
        )
        total, before_KH = own_NH.sum() * 0.0, self.before_KH.to(dtype)
        for part in _sequences(sequence_N):
            weight_n = weight_N[part]
            kept = weight_n != 0
            among = torch.cat([theirs_NH[part][kept], before_KH]) if self.memory else theirs_NH[part][kept]
            logits = own_NH[part][kept] @ among.T / self.temperature
            own_n = torch.arange(len(logits), device=logits.device)
            total = total + (weight_n[kept] * cross_entropy(logits, own_n, reduction="none")).sum()
        if self.memory:
            self._keep(theirs_NH[weight_N != 0])
        return total

    def _keep(self, fresh_nH: Tensor) -> None:
        """The newest last; the oldest go first."""
        held = torch.cat([self.kept_KH[: int(self.seen)], fresh_nH.to(self.kept_KH.dtype)])[-self.memory :]
        self.kept_KH[: len(held)] = held
        self.seen.fill_(len(held))


def _sequences(sequence_N: Tensor) -> list[slice]:
    ends = torch.unique_consecutive(sequence_N, return_counts=True)[1].cumsum(0).tolist()
    return [slice(start, end) for start, end in zip([0, *ends], ends)]
