"""Making the student's inner states resemble the teacher's (Eq. 11, Table 2).

Legend: N positions, H width of the hidden states (teacher's and student's own), B sequences, T positions, A relation
heads, D their width. `student_hidden_NH` and `teacher_hidden_NH` are states of one layer each at the same positions;
no gradient runs into the teacher. Functions with `weight_N` return the sum over positions of weight * distance; those
with `mask_N` compare the positions as one set, return one number for the batch, and cannot be accumulated over
micro-batches.
Where the widths differ put `projected` in front, or use `cka` or `attention_relations`, which do not need it.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from stillhouse.errors import RecipeError
from stillhouse.kernels.fused import Projected
from stillhouse.objectives.supervised import cross_entropy as cross_entropy_of

__all__ = ["attention_relations", "cka", "cosine", "cross_entropy", "l1", "l2", "mmd", "projected", "task_aware"]


def l2(student_hidden_NH: Tensor, teacher_hidden_NH: Tensor, weight_N: Tensor, *, normalise: bool = False) -> Tensor:
    """Mean squared difference over the width, at each position (Table 2; TinyBERT, TED).

    `normalise` divides both by their root mean square first: otherwise a few outlier dimensions decide.
    """
    student_nH, teacher_nH, weight_n = _counted(student_hidden_NH, teacher_hidden_NH, weight_N, normalise)
    return (weight_n * (student_nH - teacher_nH).square().mean(-1)).sum()


def l1(student_hidden_NH: Tensor, teacher_hidden_NH: Tensor, weight_N: Tensor, *, normalise: bool = False) -> Tensor:
    """Mean absolute difference over the width, at each position (Table 2).

    `normalise` as in `l2`.
    """
    student_nH, teacher_nH, weight_n = _counted(student_hidden_NH, teacher_hidden_NH, weight_N, normalise)
    return (weight_n * (student_nH - teacher_nH).abs().mean(-1)).sum()


def cosine(student_hidden_NH: Tensor, teacher_hidden_NH: Tensor, weight_N: Tensor) -> Tensor:
    """One minus the cosine of the two states, whatever their size (DistilBERT)."""
    student_nH, teacher_nH, weight_n = _counted(student_hidden_NH, teacher_hidden_NH, weight_N)
    return (weight_n * (1.0 - nn.functional.cosine_similarity(student_nH, teacher_nH, dim=-1))).sum()


def cross_entropy(
    student_hidden_NH: Tensor, teacher_hidden_NH: Tensor, weight_N: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """Cross-entropy of the states read as distributions over the width: softmax on both sides (Table 2).

    `temperature` divides both; nothing is multiplied back.
    """
    student_nH, teacher_nH, weight_n = _counted(student_hidden_NH, teacher_hidden_NH, weight_N)
    p_nH = (teacher_nH / temperature).softmax(-1)
    return -(weight_n * (p_nH * (student_nH / temperature).log_softmax(-1)).sum(-1)).sum()


def mmd(
    student_hidden_NH: Tensor,
    teacher_hidden_NH: Tensor,
    mask_N: Tensor,
    *,
    bandwidths: Sequence[float] | None = None,
) -> Tensor:
    """Squared maximum mean discrepancy of the two sets of states, biased, mean over Gaussian kernels (Table 2).

    Kernels are exp(-d^2 / (2 bandwidth^2)); by default half, one and two times the teacher's median distance. Blind to
    which state belongs to which position. One number for the batch.
    """
    student_nH, teacher_nH, _ = _counted(student_hidden_NH, teacher_hidden_NH, mask_N)
    if len(student_nH) == 0:
        return student_nH.sum()
    if bandwidths is None:
        median = torch.cdist(teacher_nH, teacher_nH).median().clamp(min=1e-6).item()
        bandwidths = (0.5 * median, median, 2.0 * median)
    return gaussian_mmd(student_nH, teacher_nH, bandwidths)


def gaussian_mmd(x_nH: Tensor, y_mH: Tensor, bandwidths: Sequence[float]) -> Tensor:
    """The same of two sets that may differ in size."""

    def mean_kernel(a: Tensor, b: Tensor) -> Tensor:
        squared = (a.square().sum(-1)[:, None] + b.square().sum(-1)[None] - 2.0 * a @ b.T).clamp(min=0.0)
        return torch.stack([(-squared / (2.0 * width**2)).exp().mean() for width in bandwidths]).mean()

    return mean_kernel(x_nH, x_nH) + mean_kernel(y_mH, y_mH) - 2.0 * mean_kernel(x_nH, y_mH)


def cka(student_hidden_NH: Tensor, teacher_hidden_NH: Tensor, mask_N: Tensor) -> Tensor:
    """One minus the linear centred kernel alignment of the two sets of states, of any widths (arXiv 1905.00414).

    Give at least four positions per dimension: with fewer anything looks aligned. One number for the batch.
    """
    counted_N = mask_N != 0
    student_nH, teacher_nH = _float(student_hidden_NH[counted_N]), _float(teacher_hidden_NH.detach()[counted_N])
    if len(student_nH) == 0:
        return student_nH.sum()
    student_nH, teacher_nH = student_nH - student_nH.mean(0), teacher_nH - teacher_nH.mean(0)
    cross = (teacher_nH.T @ student_nH).square().sum()
    own = (student_nH.T @ student_nH).norm() * (teacher_nH.T @ teacher_nH).norm()
    return 1.0 - cross / own.clamp(min=torch.finfo(own.dtype).tiny)


def attention_relations(
    student_relations_BTH: Tensor, teacher_relations_BTH: Tensor, weight_BT: Tensor, *, heads: int = 1
) -> Tensor:
    """KL, teacher to student, of how the positions of a sequence relate to each other (MiniLM v2, arXiv 2012.15828).

    Give the queries, the keys or the values of one layer (one objective each; the last layer of a small teacher, an
    upper middle one of a large teacher). The widths may differ: both are cut into `heads` relation heads, the relation
    is softmax(A A^T / sqrt(d)) over the positions that count, and the KL is averaged over heads.
    """
    student_BATD, teacher_BATD = (
        _relation_heads(student_relations_BTH, heads),
        _relation_heads(teacher_relations_BTH.detach(), heads),
    )
    hidden_B11T = (weight_BT == 0)[:, None, None, :]
    log_q, log_p = (_log_relations(states, hidden_B11T) for states in (student_BATD, teacher_BATD))
    kl_BAT = (log_p.exp() * (log_p - log_q)).masked_fill(hidden_B11T, 0.0).sum(-1)
    return (weight_BT * kl_BAT.mean(1).masked_fill(weight_BT == 0, 0.0)).sum()


class projected(nn.Module):  # noqa: N801, a recipe names it like the functions beside it
    """A learned linear map from the student's width to the teacher's in front of a distance (Eq. 11's Phi; TED, R29).

    The trainer optimises, saves and restores the map, and fills in the widths where they are left out. It starts as an
    orthogonal one, which keeps distances.
    """

    def __init__(self, *, student_width: int = 0, teacher_width: int = 0, distance: Callable[..., Tensor] = l2):
        super().__init__()
        self.distance = distance
        self.map = _orthogonal(student_width, teacher_width)

    def forward(self, student_hidden_NH: Tensor, teacher_hidden_NH: Tensor, weight_N: Tensor) -> Tensor:
        student_NH = self.map(student_hidden_NH.to(self.map.weight.dtype))
        return self.distance(student_NH, teacher_hidden_NH, weight_N)


class task_aware(nn.Module):  # noqa: N801
    """TED's filters of a layer: what in its states serves the task, and a student's made like a teacher's (R29).

    Stage 1, a phase of its own: a linear filter and a head on either side learn to tell the target token from frozen
    states; neither model changes. Stage 2, the phase after it: `distance` between the filtered states, the teacher's
    filter frozen. The filters go on from one phase to the next where `do` and `layers` are the same. `width` is that
    of the filtered states, by default the student's (arXiv 2210.01351).
    """

    def __init__(
        self,
        *,
        stage: Literal[1, 2],
        student_width: int = 0,
        teacher_width: int = 0,
        vocabulary: int = 0,
        width: int = 0,
        distance: Callable[..., Tensor] = l2,
    ):
        super().__init__()
        if stage not in (1, 2):
            raise RecipeError(f"stage {stage} is not known: write 1 (learn the filters) or 2 (make the states alike)")
        self.stage, self.distance = stage, distance
        width = width or student_width
        self.student_filter = _orthogonal(student_width, width)
        self.teacher_filter = _orthogonal(teacher_width, width)
        self.student_head = nn.Linear(width, vocabulary, bias=False)
        self.teacher_head = nn.Linear(width, vocabulary, bias=False)

    def forward(
        self, student_hidden_NH: Tensor, teacher_hidden_NH: Tensor, target_ids_N: Tensor, weight_N: Tensor
    ) -> Tensor:
        student_NH, teacher_NH = _float(student_hidden_NH), _float(teacher_hidden_NH.detach())
        if self.stage == 2:
            return self.distance(self.student_filter(student_NH), self.teacher_filter(teacher_NH).detach(), weight_N)
        student_NH, teacher_NH = self.student_filter(student_NH.detach()), self.teacher_filter(teacher_NH)
        told = cross_entropy_of(Projected(student_NH, self.student_head.weight), target_ids_N, weight_N)
        return told + cross_entropy_of(Projected(teacher_NH, self.teacher_head.weight), target_ids_N, weight_N)


def _orthogonal(width: int, to: int) -> nn.Linear:
    made = nn.Linear(width, to, bias=False)
    if width and to:
        nn.init.orthogonal_(made.weight)
    return made


def _counted(
    student_NH: Tensor, teacher_NH: Tensor, weight_N: Tensor, normalise: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """States and weights at the positions that count, in float32: the others may hold anything."""
    if student_NH.shape != teacher_NH.shape:
        raise RecipeError(
            f"student states are {tuple(student_NH.shape)} and teacher states {tuple(teacher_NH.shape)}: "
            "put similarity.projected in front, or use similarity.cka"
        )
    counted_N = weight_N != 0
    student_nH, teacher_nH = _float(student_NH[counted_N]), _float(teacher_NH.detach()[counted_N])
    if normalise:
        student_nH, teacher_nH = _unit_size(student_nH), _unit_size(teacher_nH)
    return student_nH, teacher_nH, weight_N[counted_N]


def _unit_size(states: Tensor) -> Tensor:
    return states * states.square().mean(-1, keepdim=True).clamp(min=1e-12).rsqrt()


def _float(states: Tensor) -> Tensor:
    return states if states.dtype == torch.float64 else states.float()


def _relation_heads(states_BTH: Tensor, heads: int) -> Tensor:
    batch, length, width = states_BTH.shape
    if width % heads:
        raise RecipeError(
            f"{heads} relation heads do not divide a width of {width}: give a number that divides both widths"
        )
    return _float(states_BTH).view(batch, length, heads, width // heads).transpose(1, 2)


def _log_relations(states_BATD: Tensor, hidden_B11T: Tensor) -> Tensor:
    scores = states_BATD @ states_BATD.transpose(-1, -2) / states_BATD.shape[-1] ** 0.5
    return scores.masked_fill(hidden_B11T, -1e30).log_softmax(-1)
