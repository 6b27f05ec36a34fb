"""Reverse KL between whole answers, by policy gradient (MiniLLM, arXiv 2306.08543, R26, survey 4.4).

Legend: N target positions of sampled answers, V vocabulary, p teacher, q student, n a position of an answer.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from stillhouse.errors import RecipeError
from stillhouse.kernels.beliefs import Distributions
from stillhouse.kernels.groups import after, group_sum
from stillhouse.objectives.divergence import reverse_kl

__all__ = ["minillm"]


def minillm(
    student_logits_NV: Any,
    teacher_beliefs: Distributions,
    student_logprobs_N: Tensor,
    teacher_logprobs_N: Tensor,
    rollout_logprobs_N: Tensor,
    sequence_N: Tensor,
    weight_N: Tensor,
    *,
    importance: Literal["token", "sequence"] = "token",
    clip: float | None = 0.2,
    length_normalised: bool = True,
    count_current_step: bool = False,
) -> Tensor:
    """Exact reverse KL at each position plus the return that follows from it, for answers sampled by the student.

    With r_n = log p(y_n) - log q(y_n) and R_n+1 the sum of the later ones: sum_n w_n KL(q || p at n) - sum_n
    min(w_n R_n+1, clip(w_n) R_n+1), w = q / the distribution sampled from (`rollout_logprobs_N`: the student's, an
    older student's, or that of a mixture with the teacher, to whom the paper gives a share of 0.2).
    Without clipping, length normalisation and with `importance: sequence` (the product of the ratios of an answer) the
    gradient is exactly that of KL(q || p) over answers. The defaults trade that for less variance: the ratio of the
    token alone, clipped; R divided by the number of tokens left. `count_current_step` gives the released code's return
    from n, which counts the current step twice and is not the gradient.
    Arrays as in `divergence` and `reinforcement`. Returns the sum over positions of weight * loss; add language
    modelling on plain text, as the paper does, as a second objective.
    """
    if importance not in ("token", "sequence"):
        raise RecipeError(f"importance {importance!r} is not known: write token or sequence")
    counted_N = weight_N != 0
    weight_n, sequence_n = weight_N[counted_N], sequence_N[counted_N]
    log_ratio_n = (student_logprobs_N - rollout_logprobs_N.detach())[counted_N]
    r_n = (teacher_logprobs_N - student_logprobs_N).detach()[counted_N]
    return_n = _return(r_n, sequence_n, length_normalised, count_current_step)
    ratio_n = log_ratio_n.exp()
    if importance == "sequence":
        total_S = group_sum(log_ratio_n.detach(), sequence_n, int(sequence_N.max()) + 1 if len(sequence_N) else 0)
        # the other tokens' ratios are numbers: only the token's own is differentiated
        ratio_n = ratio_n * (total_S[sequence_n] - log_ratio_n.detach()).exp()
    single_weight_N = weight_N.to(ratio_n.dtype).masked_scatter(counted_N, weight_n * ratio_n.detach())
    gain_n = ratio_n * return_n
    if clip is not None:
        gain_n = torch.minimum(gain_n, ratio_n.clamp(1.0 - clip, 1.0 + clip) * return_n)
    return reverse_kl(student_logits_NV, teacher_beliefs, single_weight_N) - (weight_n * gain_n).sum()


def _return(r_n: Tensor, sequence_n: Tensor, length_normalised: bool, count_current_step: bool) -> Tensor:
    return_n = after(r_n, sequence_n) + (r_n if count_current_step else 0.0)
    if length_normalised:
        left_n = after(torch.ones_like(r_n), sequence_n) + (1.0 if count_current_step else 0.0)
        return_n = return_n / left_n.clamp(min=1.0)
    return return_n
