"""Learning from rewards: reward models, policy gradients, and divergences estimated on samples (Eq. 12-13).

Legend: N target positions, S sequences of the micro-batch, G groups (the sequences of one prompt).
- `student_logprobs_N` (with gradient), `rollout_logprobs_N`, `reference_logprobs_N`, `teacher_logprobs_N`: natural-log
  probability of the token that is there, under the student as it is now, the distribution it was sampled from, the
  frozen start, the teacher. `sequence_N` is the sequence of each position, 0 to S - 1; a sequence's positions follow
  each other. `weight_N` is 0 at masked positions.
- `rewards_S`, `scores_S`: one number per sequence, more is better; `group_S`: the group of each sequence, 0 to G - 1.
- `student_scores_S`: what the student's scalar head says of each sequence (reward models).

Functions of positions return the sum over positions of weight * loss; those with `weight_G` over groups. No gradient
runs through sampling, rewards, the reference or the teacher. The value of a policy-gradient loss means
nothing; its gradient does.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid
from torch.nn.utils.rnn import pad_sequence

from stillhouse.errors import RecipeError
from stillhouse.kernels.groups import best_first, better, group_sum, mean_of_pairs
from stillhouse.objectives.ranking import plackett_luce

__all__ = [
    "bradley_terry",
    "bradley_terry_listwise",
    "bradley_terry_soft",
    "group_advantage",
    "leave_one_out",
    "policy_gradient",
    "ppo",
    "reference_kl",
    "rlmec",
    "sampled_reverse_kl",
    "step_rewards",
]


def bradley_terry(
    student_scores_S: Tensor, scores_S: Tensor, group_S: Tensor, weight_G: Tensor, *, centre: float = 0.0
) -> Tensor:
    """-log sigmoid of the gap of the student's scores, the mean over the ordered pairs of a prompt (Eq. 12).

    Equal scores are no pair. `centre` times the squared mean of the two scores keeps rewards around 0.
    """
    d_SS = student_scores_S[:, None] - student_scores_S[None, :]
    middle_SS = 0.5 * (student_scores_S[:, None] + student_scores_S[None, :])
    loss_SS = -logsigmoid(d_SS) + centre * middle_SS**2
    return mean_of_pairs(loss_SS, better(scores_S, group_S), group_S, weight_G)


def bradley_terry_soft(student_scores_S: Tensor, scores_S: Tensor, group_S: Tensor, weight_G: Tensor) -> Tensor:
    """Bradley-Terry with how sure the judge was: -s log sigmoid(d) - (1 - s) log sigmoid(-d) (Eq. 12, RLAIF).

    s = score / (score + the other's). `scores_S` are not negative: the judge's probability of each answer (R33), or exp
    of a teacher's rewards. Ties stay, with s = 1/2.
    """
    if bool((scores_S < 0).any()):
        raise RecipeError("bradley_terry_soft takes no negative scores: give probabilities, or exp of rewards")
    share_SS = (scores_S[:, None] / (scores_S[:, None] + scores_S[None, :]).clamp(min=1e-30)).to(student_scores_S.dtype)
    d_SS = student_scores_S[:, None] - student_scores_S[None, :]
    loss_SS = -share_SS * logsigmoid(d_SS) - (1.0 - share_SS) * logsigmoid(-d_SS)
    once_SS = (group_S[:, None] == group_S[None, :]).triu(1)
    return mean_of_pairs(loss_SS, once_SS, group_S, weight_G)


def bradley_terry_listwise(student_scores_S: Tensor, scores_S: Tensor, group_S: Tensor, weight_G: Tensor) -> Tensor:
    """Plackett-Luce likelihood of the whole order of a prompt's answers; a pair gives Bradley-Terry (Eq. 12, 16)."""
    index_GR, there_GR = best_first(scores_S, group_S, len(weight_G))
    return (weight_G * plackett_luce(student_scores_S[index_GR], there_GR)).sum()


def step_rewards(student_step_logits_N: Tensor, step_labels_N: Tensor, weight_N: Tensor) -> Tensor:
    """Binary cross-entropy of each step being right: a process reward model (survey 4.7).

    `step_labels_N` in [0, 1], soft ones too; `weight_N` is 1 at the last token of each step and 0 elsewhere.
    """
    loss_N = binary_cross_entropy_with_logits(
        student_step_logits_N, step_labels_N.to(student_step_logits_N.dtype), reduction="none"
    )
    return (weight_N * loss_N).sum()


def policy_gradient(
    student_logprobs_N: Tensor,
    rollout_logprobs_N: Tensor,
    advantages_N: Tensor,
    weight_N: Tensor,
    *,
    clip: float = 0.2,
) -> Tensor:
    """PPO's clipped surrogate: -min(ratio A, clip(ratio) A) (Eq. 13, survey 4.8).

    The KL of Eq. 13 is a second objective, `reference_kl`, whose weight is beta.
    """
    weight_n, student_n, rollout_n, advantages_n = _counted(
        weight_N, student_logprobs_N, rollout_logprobs_N, advantages_N
    )
    ratio_n = (student_n - rollout_n.detach()).exp()
    clipped_n = ratio_n.clamp(1.0 - clip, 1.0 + clip)
    return -(weight_n * torch.minimum(ratio_n * advantages_n.detach(), clipped_n * advantages_n.detach())).sum()


def group_advantage(
    student_logprobs_N: Tensor,
    rollout_logprobs_N: Tensor,
    sequence_N: Tensor,
    rewards_S: Tensor,
    group_S: Tensor,
    weight_N: Tensor,
    *,
    divide_by_deviation: bool = True,
    clip: float = 0.2,
) -> Tensor:
    """GRPO: each answer against the mean of its prompt's answers, in units of their deviation (arXiv 2402.03300).

    The deviation is that of a sample (n - 1), plus 1e-4; `divide_by_deviation: false` leaves it out, which favours
    neither easy nor hard prompts. A prompt whose answers all earn the same teaches nothing.
    """
    rewards_S = rewards_S.to(student_logprobs_N.dtype)
    groups = int(group_S.max()) + 1 if len(group_S) else 0
    size_G = group_sum(torch.ones_like(rewards_S), group_S, groups)
    advantage_S = rewards_S - (group_sum(rewards_S, group_S, groups) / size_G.clamp(min=1))[group_S]
    if divide_by_deviation:
        variance_G = group_sum(advantage_S**2, group_S, groups) / (size_G - 1).clamp(min=1)
        advantage_S = advantage_S / (variance_G.sqrt() + 1e-4)[group_S]
    return policy_gradient(student_logprobs_N, rollout_logprobs_N, advantage_S[sequence_N], weight_N, clip=clip)


def leave_one_out(
    student_logprobs_N: Tensor,
    rollout_logprobs_N: Tensor,
    sequence_N: Tensor,
    rewards_S: Tensor,
    group_S: Tensor,
    weight_N: Tensor,
    *,
    clip: float = 0.2,
) -> Tensor:
    """RLOO: each answer against the mean of the other answers to its prompt, no critic (arXiv 2402.14740).

    An answer that is alone has nothing to be compared with and teaches nothing.
    """
    rewards_S = rewards_S.to(student_logprobs_N.dtype)
    groups = int(group_S.max()) + 1 if len(group_S) else 0
    size_S = group_sum(torch.ones_like(rewards_S), group_S, groups)[group_S]
    others_S = (group_sum(rewards_S, group_S, groups)[group_S] - rewards_S) / (size_S - 1).clamp(min=1)
    advantage_S = torch.where(size_S > 1, rewards_S - others_S, 0.0)
    return policy_gradient(student_logprobs_N, rollout_logprobs_N, advantage_S[sequence_N], weight_N, clip=clip)


class ppo(nn.Module):  # noqa: N801, a recipe names it like the functions beside it
    """PPO with a critic: the clipped surrogate on generalised advantages, and a value head's squared error (Eq. 13, 4.8).

    A token's reward is -`kl_weight` * (log student - log reference) where it was drawn, the last one's the answer's reward
    too; so no `reference_kl` beside it. Advantages are GAE with `discount` and `trace`, made anew from the values of each
    pass; the values' target is advantage + value, weighed by `critic_weight`. The head, a linear map of the last hidden
    states that starts at 0, is trained and restored by the trainer and shapes the student's states. `clip` bites where
    answers serve several steps (`rollouts: {epochs: 4}`) or were drawn with a teacher. No entropy bonus, no whitening.
    """

    def __init__(
        self,
        *,
        student_width: int = 0,
        kl_weight: float = 0.05,
        discount: float = 1.0,
        trace: float = 0.95,
        clip: float = 0.2,
        critic_weight: float = 0.1,
    ):
        super().__init__()
        if not (0 < discount <= 1 and 0 <= trace <= 1):
            raise RecipeError(f"discount {discount} and trace {trace} must be at most 1, discount above 0")
        self.kl_weight, self.discount, self.trace, self.clip = kl_weight, discount, trace, clip
        self.critic_weight = critic_weight
        self.critic = nn.Linear(student_width, 1)
        nn.init.zeros_(self.critic.weight)
        nn.init.zeros_(self.critic.bias)

    def forward(
        self,
        student_hidden_NH: Tensor,
        student_logprobs_N: Tensor,
        rollout_logprobs_N: Tensor,
        reference_logprobs_N: Tensor,
        sequence_N: Tensor,
        rewards_S: Tensor,
        weight_N: Tensor,
    ) -> Tensor:
        values_N = self.critic(student_hidden_NH.to(self.critic.weight.dtype))[:, 0].to(student_logprobs_N.dtype)
        earned_N = -self.kl_weight * (rollout_logprobs_N - reference_logprobs_N).detach()
        last_N = torch.ones_like(sequence_N, dtype=torch.bool)
        last_N[:-1] = sequence_N[1:] != sequence_N[:-1]
        earned_N = earned_N + torch.where(last_N, rewards_S.to(earned_N.dtype)[sequence_N], 0.0)
        advantages_N = generalised_advantages(
            earned_N, values_N.detach(), sequence_N, discount=self.discount, trace=self.trace
        )
        actor = policy_gradient(student_logprobs_N, rollout_logprobs_N, advantages_N, weight_N, clip=self.clip)
        weight_n, values_n, target_n = _counted(weight_N, values_N, advantages_N + values_N.detach())
        return actor + self.critic_weight * (weight_n * (values_n - target_n).square()).sum()


def generalised_advantages(
    rewards_N: Tensor, values_N: Tensor, sequence_N: Tensor, *, discount: float = 1.0, trace: float = 0.95
) -> Tensor:
    """A_t = sum over k of (discount trace)^k (r + discount V(next) - V), V behind a sequence being 0 (GAE, arXiv 1506.02438)."""
    sizes = torch.bincount(sequence_N).tolist()
    reward_ST, value_ST = (pad_sequence(list(each.split(sizes)), batch_first=True) for each in (rewards_N, values_N))
    advantage_ST, following_S = torch.zeros_like(reward_ST), torch.zeros_like(reward_ST[:, 0])
    next_ST = torch.cat([value_ST[:, 1:], torch.zeros_like(value_ST[:, :1])], 1)
    gap_ST = reward_ST + discount * next_ST - value_ST
    # what fills a row up comes after its end and is 0, so nothing flows back from it
    for at in reversed(range(reward_ST.shape[1])):
        following_S = gap_ST[:, at] + discount * trace * following_S
        advantage_ST[:, at] = following_S
    return torch.cat([row[:size] for row, size in zip(advantage_ST, sizes)])


def reference_kl(
    student_logprobs_N: Tensor,
    rollout_logprobs_N: Tensor,
    reference_logprobs_N: Tensor,
    weight_N: Tensor,
    *,
    estimator: Literal["k1", "k3"] = "k1",
) -> Tensor:
    """The KL that keeps a policy near its start, from sampled tokens; its weight is Eq. 13's beta.

    k1 treats log(student / reference) as a cost of the token, a number: unbiased in value and gradient for
    KL(student || reference). k3, exp(l) - 1 - l with l = log(reference / student), is differentiated as GRPO does:
    never negative, the same KL in value, but its gradient is that of KL(reference || student).
    """
    if estimator not in ("k1", "k3"):
        raise RecipeError(f"estimator {estimator!r} is not known: write k1 or k3")
    if estimator == "k1":
        return sampled_reverse_kl(student_logprobs_N, rollout_logprobs_N, reference_logprobs_N, weight_N)
    weight_n, student_n, reference_n = _counted(weight_N, student_logprobs_N, reference_logprobs_N)
    l_n = reference_n.detach() - student_n
    return (weight_n * (torch.expm1(l_n) - l_n)).sum()


def sampled_reverse_kl(
    student_logprobs_N: Tensor, rollout_logprobs_N: Tensor, teacher_logprobs_N: Tensor, weight_N: Tensor
) -> Tensor:
    """KL(student || teacher) from the teacher's log-probability of the sampled token alone: 4 bytes a token.

    On-policy distillation as a policy gradient with advantage log p - log q and discount 0. Value and gradient are
    unbiased for tokens sampled from `rollout_logprobs_N`'s distribution, which need not be the student as it is now.
    Its variance is high: where the teacher can be had in the form of logits or a top-k use `divergence.reverse_kl`.
    """
    weight_n, student_n, rollout_n, teacher_n = _counted(
        weight_N, student_logprobs_N, rollout_logprobs_N, teacher_logprobs_N
    )
    cost_n = (student_n - teacher_n).detach()
    return (weight_n * (student_n - rollout_n.detach()).exp() * cost_n).sum()


def rlmec(
    student_logprobs_N: Tensor,
    rollout_logprobs_N: Tensor,
    judge_probabilities_N: Tensor,
    right_N: Tensor,
    weight_N: Tensor,
    *,
    clip: float = 0.3,
) -> Tensor:
    """Token rewards from a generative reward model's probability of each token (RLMEC, arXiv 2401.06081, R42).

    `judge_probabilities_N` is how likely the teacher, which learned to rewrite (`preferences.rewriting`), finds each token when
    it is shown the answer and asked to write it again. Right samples (`right_N`) earn clip(P - 0.5, 0, 0.5) at a token, wrong
    ones clip(P - 0.5, -0.1, 0); the clipped ratio times that is a fixed weight of the log-likelihood. To average as the release
    does, over tokens with a reward, give the others weight 0. Its second half, imitation of the rewritten answer with weight 1 on
    edited tokens and 0.5 elsewhere, is `supervised.edited`.
    """
    weight_n, student_n, rollout_n, judge_n, right_n = _counted(
        weight_N, student_logprobs_N, rollout_logprobs_N, judge_probabilities_N, right_N
    )
    above_n = judge_n.detach() - 0.5
    reward_n = torch.where(right_n.bool(), above_n.clamp(0.0, 0.5), above_n.clamp(-0.1, 0.0))
    ratio_n = (student_n - rollout_n).detach().exp()
    fixed_n = torch.minimum(ratio_n * reward_n, ratio_n.clamp(1.0 - clip, 1.0 + clip) * reward_n)
    return -(weight_n * fixed_n * student_n).sum()


def _counted(weight_N: Tensor, *arrays_N: Tensor) -> tuple[Tensor, ...]:
    """All arrays at the positions that count: the others may hold anything."""
    counted_N = weight_N != 0
    return tuple(array[counted_N] for array in (weight_N, *arrays_N))
