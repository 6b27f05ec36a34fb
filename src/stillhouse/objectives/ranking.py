"""Learning which of several responses is better (Eq. 14-16).

Legend: S sequences of the micro-batch, G groups (the responses to one prompt). A preference pair is a group of two.
- `student_logprobs_S`, `reference_logprobs_S`: summed natural-log probability of each response, its end included, under
  the student and under the frozen reference. `lengths_S`: its number of tokens.
- `scores_S`: more is better. Losses of pairs leave out equal scores, losses of whole rankings take them in the order
  given. `group_S`: the group of each sequence, 0 to G - 1.
- `student_scores_S`: what the student's scoring head says of each sequence (rankers).
- `weight_G` is 0 for groups that do not count. Each function returns the sum over groups of weight * loss. Where the
  source has a loss of one pair, a group costs the mean over its ordered pairs; where it has a loss of a ranking, that.
"""

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from stillhouse.errors import RecipeError
from stillhouse.kernels.beliefs import Distributions
from stillhouse.kernels.groups import best_first, better, group_sum, mean_of_pairs, sum_of_pairs
from stillhouse.objectives.divergence import skew_forward_kl, skew_reverse_kl

__all__ = [
    "contrastive",
    "dpo",
    "hinge",
    "ipo",
    "knowpat",
    "kto",
    "lambdaloss",
    "listnet",
    "pro",
    "pro_weighted",
    "ranknet",
    "rrhf",
    "simpo",
    "stable_alignment",
]


def dpo(
    student_logprobs_S: Tensor,
    reference_logprobs_S: Tensor,
    scores_S: Tensor,
    group_S: Tensor,
    weight_G: Tensor,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> Tensor:
    """-log sigmoid of beta times the gap of the log-ratios to the reference (Eq. 14, arXiv 2305.18290).

    `label_smoothing` is the probability that a preference is the wrong way round. 0.1 is the paper's beta. SPIN is this
    with the gold response above the student's own (R38).
    """
    if not 0.0 <= label_smoothing < 0.5:
        raise RecipeError(f"label_smoothing {label_smoothing} must be at least 0 and below 0.5")
    margin_SS = _gaps(beta * (student_logprobs_S - reference_logprobs_S))
    loss_SS = -(1.0 - label_smoothing) * logsigmoid(margin_SS) - label_smoothing * logsigmoid(-margin_SS)
    return mean_of_pairs(loss_SS, better(scores_S, group_S), group_S, weight_G)


def ipo(
    student_logprobs_S: Tensor,
    reference_logprobs_S: Tensor,
    scores_S: Tensor,
    group_S: Tensor,
    weight_G: Tensor,
    *,
    beta: float = 0.1,
) -> Tensor:
    """(gap of log-ratios - 1 / (2 beta))^2: does not run away on certain preferences (arXiv 2310.12036).

    The log-probabilities are summed, as in the paper; some libraries average them over the tokens.
    """
    gap_SS = _gaps(student_logprobs_S - reference_logprobs_S)
    return mean_of_pairs((gap_SS - 1.0 / (2.0 * beta)) ** 2, better(scores_S, group_S), group_S, weight_G)


def hinge(
    student_logprobs_S: Tensor,
    reference_logprobs_S: Tensor,
    scores_S: Tensor,
    group_S: Tensor,
    weight_G: Tensor,
    *,
    beta: float = 0.1,
) -> Tensor:
    """max(0, 1 - beta * gap of log-ratios): stops once a pair is clear (SLiC, arXiv 2305.10425; a form of SPIN)."""
    margin_SS = _gaps(beta * (student_logprobs_S - reference_logprobs_S))
    return mean_of_pairs((1.0 - margin_SS).clamp(min=0.0), better(scores_S, group_S), group_S, weight_G)


def simpo(
    student_logprobs_S: Tensor,
    lengths_S: Tensor,
    scores_S: Tensor,
    group_S: Tensor,
    weight_G: Tensor,
    *,
    beta: float = 2.0,
    margin: float = 1.0,
) -> Tensor:
    """-log sigmoid(beta * gap of mean token log-probabilities - margin), without a reference (arXiv 2405.14734).

    Usual: beta 2 to 10, margin 0.3 to 0.5 of beta, a very small learning rate.
    """
    margin_SS = _gaps(beta * student_logprobs_S / lengths_S) - margin
    return mean_of_pairs(-logsigmoid(margin_SS), better(scores_S, group_S), group_S, weight_G)


def kto(
    student_logprobs_S: Tensor,
    reference_logprobs_S: Tensor,
    student_mismatched_logprobs_S: Tensor,
    reference_mismatched_logprobs_S: Tensor,
    scores_S: Tensor,
    weight_S: Tensor,
    *,
    beta: float = 0.1,
    desirable_above: float = 0.5,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Responses judged alone: good ones above, bad ones below a reference point (KTO, arXiv 2402.01306).

    The reference point is the batch's mean log-ratio of mismatched responses (the answer of another prompt under this
    one: `*_mismatched_logprobs_S`), not below 0 and without gradient; give batches of 8 or more. A response is
    desirable where its score is above `desirable_above`. Sum over sequences of weight * loss.
    """
    mismatched_S = (student_mismatched_logprobs_S - reference_mismatched_logprobs_S).detach()
    point = ((weight_S * mismatched_S).sum() / weight_S.sum().clamp(min=1e-6)).clamp(min=0.0)
    gap_S = beta * (student_logprobs_S - reference_logprobs_S - point)
    desirable_S = scores_S > desirable_above
    loss_S = torch.where(
        desirable_S,
        desirable_weight * torch.sigmoid(-gap_S),
        undesirable_weight * torch.sigmoid(gap_S),
    )
    return (weight_S * loss_S).sum()


def rrhf(
    student_logprobs_S: Tensor,
    lengths_S: Tensor,
    scores_S: Tensor,
    group_S: Tensor,
    weight_G: Tensor,
    *,
    length_penalty: float = 1.0,
    best_weight: float = 0.0,
) -> Tensor:
    """Sum over the pairs the student has the wrong way round of how far (Eq. 15; RRHF, arXiv 2304.05302, R37).

    p = log-probability / length^length_penalty, 1 in the released code and unmentioned in the survey. `best_weight`
    adds the mean token loss of the best response; the released recipe weighs the ranking 100 times as much as that.
    """
    p_S = student_logprobs_S / lengths_S**length_penalty
    wrong_SS = (-_gaps(p_S)).clamp(min=0.0)
    loss = sum_of_pairs(wrong_SS, better(scores_S, group_S), group_S, weight_G)
    return loss + best_weight * _best(student_logprobs_S / lengths_S, scores_S, group_S, weight_G)


def pro(
    student_logprobs_S: Tensor,
    lengths_S: Tensor,
    scores_S: Tensor,
    group_S: Tensor,
    weight_G: Tensor,
    *,
    best_weight: float = 0.0,
) -> Tensor:
    """Each response against all worse ones, one softmax after another (Eq. 16; PRO, arXiv 2306.17492, R37).

    p is the mean token log-probability. `best_weight` adds that many times (n - 1)^2 the loss of the best of n.
    """
    p_S = student_logprobs_S / lengths_S
    index_GR, there_GR = best_first(scores_S, group_S, len(weight_G))
    loss_G = plackett_luce(p_S[index_GR], there_GR)
    return (weight_G * loss_G).sum() + best_weight * _pro_imitation(p_S, scores_S, group_S, weight_G)


def pro_weighted(
    student_logprobs_S: Tensor,
    lengths_S: Tensor,
    scores_S: Tensor,
    group_S: Tensor,
    weight_G: Tensor,
    *,
    best_weight: float = 0.0,
) -> Tensor:
    """PRO as released: each contrast sharpened by the gap of the scores (arXiv 2306.17492, R37).

    At stage k the gap r_k - r_i multiplies p_i, and the largest of these gaps multiplies p_k.
    """
    p_S = student_logprobs_S / lengths_S
    index_GR, there_GR = best_first(scores_S, group_S, len(weight_G))
    p_GR, r_GR = p_S[index_GR], scores_S[index_GR].to(p_S.dtype)
    places = p_GR.shape[1]
    worse_GRR = there_GR[:, None, :] & torch.ones(places, places, dtype=torch.bool, device=p_GR.device).triu(1)
    gap_GRR = (r_GR[:, :, None] - r_GR[:, None, :]).masked_fill(~worse_GRR, 0.0)
    own_GR = gap_GRR.amax(-1) * p_GR
    others_GRR = (gap_GRR * p_GR[:, None, :]).masked_fill(~worse_GRR, -torch.inf)
    total_GR = torch.cat([own_GR[..., None], others_GRR], -1).logsumexp(-1)
    loss_G = torch.where(worse_GRR.any(-1) & there_GR, total_GR - own_GR, 0.0).sum(-1)
    return (weight_G * loss_G).sum() + best_weight * _pro_imitation(p_S, scores_S, group_S, weight_G)


def stable_alignment(
    student_logprobs_S: Tensor,
    lengths_S: Tensor,
    scores_S: Tensor,
    group_S: Tensor,
    weight_G: Tensor,
    *,
    ratio: float,
    margin: float,
    scale: float,
    aggregate: Literal["mean", "max"] = "mean",
) -> Tensor:
    """The best response imitated, the others kept at a distance that grows with the rating gap (SANDBOX, R41).

    CE_best + ratio * max(0, mean or max over the others of CE_best - CE_i + margin (r_best - r_i) / scale), CE the mean
    token loss. `scale` is the width of the rating scale.
    """
    ce_S = -student_logprobs_S / lengths_S
    index_GR, there_GR = best_first(scores_S, group_S, len(weight_G))
    ce_GR, r_GR = ce_S[index_GR], scores_S[index_GR].to(ce_S.dtype)
    gap_GR = (ce_GR[:, :1] - ce_GR + margin * (r_GR[:, :1] - r_GR) / scale)[:, 1:]
    others_GR = there_GR[:, 1:]
    if aggregate == "max":
        gap_G = torch.cat([gap_GR.masked_fill(~others_GR, -torch.inf), torch.zeros_like(ce_GR[:, :1])], -1).amax(-1)
    else:
        gap_G = gap_GR.masked_fill(~others_GR, 0.0).sum(-1) / others_GR.sum(-1).clamp(min=1)
    loss_G = ce_GR[:, 0] + ratio * gap_G.clamp(min=0.0)
    return (weight_G * torch.where(there_GR[:, 0], loss_G, 0.0)).sum()


def knowpat(
    student_logprobs_S: Tensor, lengths_S: Tensor, scores_S: Tensor, group_S: Tensor, weight_G: Tensor
) -> Tensor:
    """Each response raised and the mean of the worse ones lowered, weighted by the student's own scores (R45).

    s is the mean token log-probability, n responses in order: the sum over i < n of
    w_i [softplus(-s_i) + mean over j > i of softplus(s_j)], w the min-max normalised s without gradient (KnowPAT,
    arXiv 2311.06503). The released recipe adds the cross-entropy of the best response.
    """
    s_S = student_logprobs_S / lengths_S
    index_GR, there_GR = best_first(scores_S, group_S, len(weight_G))
    s_GR = s_S[index_GR]
    fixed_GR = s_GR.detach()
    low_G1 = fixed_GR.masked_fill(~there_GR, torch.inf).amin(-1, keepdim=True)
    high_G1 = fixed_GR.masked_fill(~there_GR, -torch.inf).amax(-1, keepdim=True)
    share_GR = ((fixed_GR - low_G1) / (high_G1 - low_G1).clamp(min=torch.finfo(s_GR.dtype).tiny)).masked_fill(
        ~there_GR, 0.0
    )
    lowered_GR = softplus(s_GR).masked_fill(~there_GR, 0.0)
    below_GR = lowered_GR.flip(-1).cumsum(-1).flip(-1) - lowered_GR
    places_GR = there_GR.sum(-1, keepdim=True) - 1 - torch.arange(s_GR.shape[1], device=s_GR.device)
    terms_GR = share_GR * (softplus(-s_GR) + below_GR / places_GR.clamp(min=1))
    return (weight_G * torch.where(places_GR > 0, terms_GR, 0.0).sum(-1)).sum()


def contrastive(
    student_logits_NV: Any,
    teacher_beliefs: Distributions,
    self_generated_N: Tensor,
    weight_N: Tensor,
    *,
    skew: float = 0.1,
    temperature: float = 1.0,
) -> Tensor:
    """Skew forward KL on the teacher's answers, skew reverse KL on the student's own (DistiLLM-2, arXiv 2503.07067).

    `self_generated_N` says which positions belong to answers of the student. Half the sum of the two, over positions,
    with one fixed `skew` (the paper also adapts it to each answer).
    """
    own_N = self_generated_N.to(weight_N.dtype)
    pull = partial(skew_forward_kl, skew=skew, temperature=temperature)
    push = partial(skew_reverse_kl, skew=skew, temperature=temperature)
    taught = pull(student_logits_NV, teacher_beliefs, weight_N * (1.0 - own_N))
    return 0.5 * (taught + push(student_logits_NV, teacher_beliefs, weight_N * own_N))


def ranknet(student_scores_S: Tensor, scores_S: Tensor, group_S: Tensor, weight_G: Tensor) -> Tensor:
    """Logistic loss on every ordered pair of a list (RankNet; RankGPT's students, R55)."""
    return mean_of_pairs(softplus(-_gaps(student_scores_S)), better(scores_S, group_S), group_S, weight_G)


def listnet(
    student_scores_S: Tensor, scores_S: Tensor, group_S: Tensor, weight_G: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """KL from the teacher's softmax over a list to the student's: the ranker KL of QUILL and KARD (ListNet, top one).

    `temperature` divides the teacher's scores only: they are on a scale of their own.
    """
    log_p_S = _log_softmax_by_group(scores_S.to(student_scores_S.dtype) / temperature, group_S, len(weight_G))
    log_q_S = _log_softmax_by_group(student_scores_S, group_S, len(weight_G))
    return (weight_G * group_sum(log_p_S.exp() * (log_p_S - log_q_S), group_S, len(weight_G))).sum()


def lambdaloss(student_scores_S: Tensor, scores_S: Tensor, group_S: Tensor, weight_G: Tensor) -> Tensor:
    """Logistic loss on pairs, each weighted by what swapping it does to NDCG (LambdaLoss, LambdaRank's weights).

    Gains are 2^score - 1, so that scores are relevance grades; ranks are the student's own, without gradient.
    """
    index_GR, there_GR = best_first(student_scores_S.detach(), group_S, len(weight_G))
    ideal_GR, _ = best_first(scores_S, group_S, len(weight_G))
    gain_S = torch.exp2(scores_S.to(student_scores_S.dtype)) - 1.0
    discount_R = 1.0 / torch.log2(torch.arange(index_GR.shape[1], device=gain_S.device, dtype=gain_S.dtype) + 2.0)
    discount_S = torch.zeros_like(gain_S)
    discount_S[index_GR[there_GR]] = discount_R.expand(index_GR.shape)[there_GR]
    ideal_G = (gain_S[ideal_GR] * discount_R * there_GR).sum(-1)
    swap_SS = (_gaps(gain_S) * _gaps(discount_S)).abs() / ideal_G.clamp(min=1e-12)[group_S][:, None]
    return sum_of_pairs(swap_SS * softplus(-_gaps(student_scores_S)), better(scores_S, group_S), group_S, weight_G)


def plackett_luce(p_GR: Tensor, there_GR: Tensor) -> Tensor:
    """Negative log-likelihood of each order, best first: every place a softmax over it and what follows."""
    p_GR = p_GR.masked_fill(~there_GR, -1e30)  # not -inf, whose differences are nan
    followers_GR = p_GR.flip(-1).logcumsumexp(-1).flip(-1)
    return torch.where(there_GR, followers_GR - p_GR, 0.0).sum(-1)


def _gaps(values_S: Tensor) -> Tensor:
    """[S, S]: the row's value minus the column's."""
    return values_S[:, None] - values_S[None, :]


def _best(values_S: Tensor, scores_S: Tensor, group_S: Tensor, weight_G: Tensor) -> Tensor:
    """Minus the value of the best of each group, summed."""
    index_GR, there_GR = best_first(scores_S, group_S, len(weight_G))
    return -(weight_G * torch.where(there_GR[:, 0], values_S[index_GR[:, 0]], 0.0)).sum()


def _pro_imitation(p_S: Tensor, scores_S: Tensor, group_S: Tensor, weight_G: Tensor) -> Tensor:
    size_G = group_sum(torch.ones_like(p_S), group_S, len(weight_G))
    return _best(p_S, scores_S, group_S, weight_G * (size_G - 1.0) ** 2)


def _log_softmax_by_group(values_S: Tensor, group_S: Tensor, groups: int) -> Tensor:
    highest_G = values_S.new_full((groups,), -torch.inf).scatter_reduce(0, group_S, values_S.detach(), "amax")
    centred_S = values_S - highest_G[group_S]
    return centred_S - group_sum(centred_S.exp(), group_S, groups).log()[group_S]
