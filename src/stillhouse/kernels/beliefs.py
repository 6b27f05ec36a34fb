"""What a teacher believes about each position, in the forms it can be had: adaptors in front of one mathematics.

Legend: N positions, V vocabulary, K kept tokens, n and b positions of one chunk and of one block. A divergence is a
pair over buckets, a partition of the vocabulary (V tokens; or K tokens and a tail): from the log-probabilities and the
probabilities of teacher (p) and student (q) it gives the value and qg = q * dD/dq. An adaptor brings the student's logits to the
buckets and the derivative back to the logits:

    dz_i = (share of token i in its bucket) * (qg_bucket - q_bucket * sum(qg))        a bucket of one token: share 1

It is q * dD/dq and not dD/dq because that stays finite where q underflows, and nothing is ever divided by q.
Leading dimensions may be anything ([N, V] and [B, T, V] alike), as long as they are those of the weights.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stillhouse.errors import RecipeError
from stillhouse.kernels.positions import Block, Loss, source_of

# Log-probabilities below this count as this: an impossible token costs much, never infinity or nan.
FLOOR = -1e5

# (log p, p, log q, q) over buckets on the last axis, p to be overwritten -> value, q * dD/dq
Pair = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """The teacher's logits over the whole vocabulary, as a tensor or as a `kernels.fused.Projected`.

    `vocabulary` is the number of ids that the shared tokenizer can address. It is needed where teacher and student
    differ in their last dimension (padded heads of one family): columns beyond it are left out on both sides and the
    rest renormalised. `student_vocabulary` is given where the student's ids are those of another tokenizer: then nothing
    but `divergence.universal_logit` can read them.
    """

    logits_NV: Any
    vocabulary: int | None = None
    student_vocabulary: int | None = None

    @property
    def positions(self) -> int:
        return source_of(self.logits_NV).positions

    def addressable(self, student_width: int) -> int:
        teacher_width = source_of(self.logits_NV).width
        if self.student_vocabulary is not None:
            raise RecipeError("these logits are about another tokenizer's ids: use universal_logit, or Mapped beliefs")
        if self.vocabulary is None and teacher_width != student_width:
            raise RecipeError(
                f"teacher logits have {teacher_width} columns and student logits {student_width}: if both share one "
                "tokenizer give the beliefs vocabulary=<ids it can address>, if not use an objective of cross_tokenizer"
            )
        return _addressable(self.vocabulary, min(teacher_width, student_width))

    def loss(self, pair: Pair, *, temperature: float, vocabulary: int, dtype: torch.dtype) -> Loss:
        teacher = source_of(self.logits_NV)

        def at(rows_n: Tensor) -> Block:
            teacher_nV = teacher.rows(rows_n, vocabulary, dtype)

            def block(part: slice, logits_bV: Tensor) -> tuple[Tensor, Tensor]:
                log_q_bV, q_bV = _softmax_(logits_bV, temperature)
                value_b, qg_bV = pair(*_softmax_(teacher_nV[part], temperature), log_q_bV, q_bV)
                total_b1 = qg_bV.sum(-1, keepdim=True)
                gradient_bV = qg_bV.addcmul_(q_bV, total_b1, value=-1.0)
                return value_b * temperature**2, gradient_bV if temperature == 1.0 else gradient_bV.mul_(temperature)

            return block

        return at


@dataclass(frozen=True, slots=True, eq=False)
class TopK:
    """The teacher's most likely tokens; what is missing to 1 is one more bucket, the tail.

    `logprobs_NK` are natural-log probabilities at temperature 1. Where a position keeps fewer than K tokens pad with
    id -1. A divergence is at most what it is on the whole vocabulary, and equal to it once K reaches V.
    """

    ids_NK: Tensor
    logprobs_NK: Tensor
    vocabulary: int | None = None

    @property
    def positions(self) -> int:
        return self.ids_NK.numel() // max(self.ids_NK.shape[-1], 1)

    def addressable(self, student_width: int) -> int:
        return _addressable(self.vocabulary, student_width)

    def loss(self, pair: Pair, *, temperature: float, vocabulary: int, dtype: torch.dtype) -> Loss:
        _refuse_temperature(temperature, "the tail of a top-k")
        kept = self.ids_NK.shape[-1]
        ids_NK = self.ids_NK.reshape(-1, kept).long()
        logprobs_NK = self.logprobs_NK.detach().reshape(-1, kept)

        def at(rows_n: Tensor) -> Block:
            ids_nK = ids_NK[rows_n]
            padding_nK = ids_nK < 0
            log_p_nK = logprobs_NK[rows_n].to(dtype).masked_fill_(padding_nK, -torch.inf)
            log_p_nB = _with_teacher_tail(log_p_nK, has_tail=kept < vocabulary)
            # a padded slot points where the first one does and repeats what is written there
            ids_nK = torch.where(padding_nK, ids_nK[:, :1].clamp(min=0), ids_nK)

            def block(part: slice, logits_bV: Tensor) -> tuple[Tensor, Tensor]:
                return _on_partition(pair, log_p_nB[part], ids_nK[part], padding_nK[part], logits_bV)

            return block

        return at


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """Tokens drawn from the teacher, with how often each came (or importance weights); pad with count 0.

    The empirical distribution counts / sum(counts) stands for the teacher and nothing is renormalised: the gradient of
    the forward KL to it is unbiased. Its value is the KL to the sample, which differs from that to the teacher by what
    no student can change. Counts of equal ids in one position are added up; `distinct` says that there are none, as in a
    store of signals, and spares looking for them.
    """

    ids_NK: Tensor
    counts_NK: Tensor
    vocabulary: int | None = None
    distinct: bool = False

    @property
    def positions(self) -> int:
        return self.ids_NK.numel() // max(self.ids_NK.shape[-1], 1)

    def addressable(self, student_width: int) -> int:
        return _addressable(self.vocabulary, student_width)

    def loss(self, pair: Pair, *, temperature: float, vocabulary: int, dtype: torch.dtype) -> Loss:
        """`pair` is not asked: a sample gives the forward KL without bias and no other divergence."""
        _refuse_temperature(temperature, "a sample")
        kept = self.ids_NK.shape[-1]
        counts_NK = self.counts_NK.detach().reshape(-1, kept)
        ids_NK = self.ids_NK.reshape(-1, kept).long().masked_fill(counts_NK == 0, 0)

        def at(rows_n: Tensor) -> Block:
            ids_nK, counts_nK = ids_NK[rows_n], counts_NK[rows_n].to(dtype)
            share_nK = counts_nK / counts_nK.sum(-1, keepdim=True)
            log_p_nK = (share_nK if self.distinct else _merged(ids_nK, share_nK)).log()

            def block(part: slice, logits_bV: Tensor) -> tuple[Tensor, Tensor]:
                share_bK, ids_bK = share_nK[part], ids_nK[part]
                q_bV, log_sum_b1 = _normalised(logits_bV)
                log_q_bK = (logits_bV.gather(-1, ids_bK) - log_sum_b1).clamp_(min=FLOOR)
                gap_bK = log_p_nK[part].clamp(min=FLOOR) - log_q_bK
                return (share_bK * gap_bK).sum(-1), q_bV.scatter_add_(-1, ids_bK, -share_bK)

            return block

        return at


@dataclass(frozen=True, slots=True, eq=False)
class Mapped:
    """The logits of a teacher with another tokenizer, and the student's id that each of its U tokens counts for.

    `student_ids_U` is -1 for tokens that count for none. Teacher tokens that share a student's id are added up; the mass
    of unmapped teacher tokens is compared, as one bucket, with that of the student's ids nobody maps to. Nothing is
    dropped and nothing renormalised. Rows are positions where both have read the same bytes and both start a token.
    """

    logits_NU: Any
    student_ids_U: Tensor
    vocabulary: int | None = None

    @property
    def positions(self) -> int:
        return source_of(self.logits_NU).positions

    def addressable(self, student_width: int) -> int:
        return _addressable(self.vocabulary, student_width)

    def loss(self, pair: Pair, *, temperature: float, vocabulary: int, dtype: torch.dtype) -> Loss:
        teacher = source_of(self.logits_NU)
        mapped_U = self.student_ids_U >= 0
        ids_M, column_U = torch.unique(self.student_ids_U[mapped_U], return_inverse=True)
        # the last column is the bucket of everything unmapped
        bucket_U = torch.full_like(self.student_ids_U, len(ids_M)).masked_scatter(mapped_U, column_U)
        none_M = torch.zeros_like(ids_M, dtype=torch.bool)

        def at(rows_n: Tensor) -> Block:
            _, p_nU = _softmax_(teacher.rows(rows_n, len(bucket_U), dtype), temperature)
            p_nB = p_nU.new_zeros(len(rows_n), len(ids_M) + 1).index_add_(1, bucket_U, p_nU)
            log_p_nB = p_nB.log_().clamp_(min=FLOOR)

            def block(part: slice, logits_bV: Tensor) -> tuple[Tensor, Tensor]:
                ids_bM, none_bM = (x.expand(len(logits_bV), -1) for x in (ids_M, none_M))
                logits_bV = logits_bV.div_(temperature)
                value_b, gradient_bV = _on_partition(pair, log_p_nB[part], ids_bM, none_bM, logits_bV)
                return value_b * temperature**2, gradient_bV.mul_(temperature)

            return block

        return at


Distributions = Dense | TopK | Mapped
Beliefs = Distributions | Sampled


def _softmax_(logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities at a temperature, in place of the logits, and probabilities: one exponential for both."""
    if temperature != 1.0:
        logits = logits.div_(temperature)
    probs, log_sum = _normalised(logits)
    return logits.sub_(log_sum).clamp_(min=FLOOR), probs


def _normalised(logits: Tensor) -> tuple[Tensor, Tensor]:
    """softmax and [..., 1] the log of its sum. The softmax is one pass in the cache, at two thirds of an exponential's time;
    the sum is read off its largest probability, which is never small.
    """
    probs = logits.softmax(-1)
    return probs, logits.amax(-1, keepdim=True).sub_(probs.amax(-1, keepdim=True).log_())


def _with_teacher_tail(log_p_nK: Tensor, *, has_tail: bool) -> Tensor:
    """The kept log-probabilities and, as the last bucket, the log of what they leave."""
    kept_n1 = log_p_nK.logsumexp(-1, keepdim=True).clamp(max=0.0)
    tail_n1 = (-torch.expm1(kept_n1)).log() if has_tail else torch.full_like(kept_n1, -torch.inf)
    return torch.cat([log_p_nK, tail_n1], -1).clamp_(min=FLOOR)


def _on_partition(
    pair: Pair, log_p_bB: Tensor, ids_bK: Tensor, padding_bK: Tensor, logits_bV: Tensor
) -> tuple[Tensor, Tensor]:
    """A divergence over K tokens and a tail. The tail is summed directly: 1 minus the kept mass has no digits left."""
    kept_bK = logits_bV.gather(-1, ids_bK)
    highest_b1 = logits_bV.scatter_(-1, ids_bK, -torch.inf).amax(-1, keepdim=True)
    # a student that rules out the whole tail has no token to move there: a kept one, written over below, stands in
    logits_bV.scatter_(-1, ids_bK[:, :1], torch.where(highest_b1 == -torch.inf, 0.0, -torch.inf).to(logits_bV.dtype))
    share_bV = logits_bV.softmax(-1)
    tail_b1 = highest_b1 - share_bV.amax(-1, keepdim=True).log_()
    log_q_bB = torch.cat([kept_bK.masked_fill_(padding_bK, -torch.inf), tail_b1], -1)
    log_q_bB = log_q_bB.sub_(log_q_bB.logsumexp(-1, keepdim=True)).clamp_(min=FLOOR)
    q_bB = log_q_bB.exp()
    value_b, qg_bB = pair(log_p_bB, log_p_bB.exp(), log_q_bB, q_bB)
    back_bB = qg_bB - q_bB * qg_bB.sum(-1, keepdim=True)
    gradient_bV = share_bV.mul_(back_bB[:, -1:])
    back_bK = torch.where(padding_bK, back_bB[:, :1], back_bB[:, :-1])
    return value_b, gradient_bV.scatter_(-1, ids_bK, back_bK)


def _merged(ids_nK: Tensor, share_nK: Tensor) -> Tensor:
    """For each slot the share of its id in the position, wherever it is repeated."""
    if ids_nK.shape[-1] == 1:
        return share_nK
    same_nKK = ids_nK[:, :, None] == ids_nK[:, None, :]
    return (same_nKK * share_nK[:, None, :]).sum(-1)


def _addressable(vocabulary: int | None, available: int) -> int:
    if vocabulary is not None and vocabulary > available:
        raise RecipeError(
            f"vocabulary={vocabulary} is more than the {available} columns of the logits: give the ids in use"
        )
    return vocabulary or available


def _refuse_temperature(temperature: float, what: str) -> None:
    if temperature != 1.0:
        raise RecipeError(
            f"temperature {temperature} needs the whole distribution, and {what} was made at temperature 1: "
            "use temperature 1, or beliefs made of logits"
        )
