"""The divergences once more, as the formulas read, for autograd in float64 to differentiate: slow, plain, independent.

p and q are probabilities on the last axis, teacher and student; each formula gives one value per position. An
implementation is right when it agrees with these in value and gradient.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stillhouse.objectives import divergence

EVERY: dict[str, tuple[Callable, dict[str, float]]] = {
    "forward_kl": (divergence.forward_kl, {}),
    "reverse_kl": (divergence.reverse_kl, {}),
    "jensen_shannon": (divergence.jensen_shannon, {}),
    "generalised_jensen_shannon": (divergence.generalised_jensen_shannon, {"teacher_weight": 0.1}),
    "skew_forward_kl": (divergence.skew_forward_kl, {"skew": 0.1}),
    "skew_reverse_kl": (divergence.skew_reverse_kl, {"skew": 0.1}),
    "total_variation": (divergence.total_variation, {}),
    "alpha_beta": (divergence.alpha_beta, {"alpha": 0.2, "beta": 0.7}),
    "alpha_beta_no_alpha": (divergence.alpha_beta, {"alpha": 0.0, "beta": 0.7}),
    "alpha_beta_no_beta": (divergence.alpha_beta, {"alpha": 0.4, "beta": 0.0}),
    "adaptive_kl": (divergence.adaptive_kl, {}),
}


def kl(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(a > 0, a * (a / b).log(), 0.0).sum(-1)


def generalised_jensen_shannon(p: Tensor, q: Tensor, w: float) -> Tensor:
    m = w * p + (1 - w) * q
    return w * kl(p, m) + (1 - w) * kl(q, m)


def alpha_beta(p: Tensor, q: Tensor, a: float, b: float) -> Tensor:
    inner = p**a * q**b - a / (a + b) * p ** (a + b) - b / (a + b) * q ** (a + b)
    return -inner.sum(-1) / (a * b)


def alpha_beta_with_one(x: Tensor, y: Tensor, power: float) -> Tensor:
    """The limit where the other exponent is 0."""
    return ((x**power * (x**power / y**power).log() - x**power + y**power) / power**2).sum(-1)


def adaptive_kl(p: Tensor, q: Tensor) -> Tensor:
    shares = []
    for p_row, q_row in zip(p.detach().reshape(-1, p.shape[-1]), q.detach().reshape(-1, q.shape[-1]), strict=True):
        mass, head, gap = 0.0, 0.0, (p_row - q_row).abs()
        for i in p_row.argsort(descending=True).tolist():
            if mass >= 0.5:
                break
            mass, head = mass + p_row[i].item(), head + gap[i].item()
        shares.append(head / gap.sum().item() if gap.sum() > 0 else 0.5)
    share = torch.tensor(shares, dtype=p.dtype).reshape(p.shape[:-1])
    return share * kl(p, q) + (1 - share) * kl(q, p)


FORMULAS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "forward_kl": kl,
    "reverse_kl": lambda p, q: kl(q, p),
    "jensen_shannon": lambda p, q: generalised_jensen_shannon(p, q, 0.5),
    "generalised_jensen_shannon": lambda p, q: generalised_jensen_shannon(p, q, 0.1),
    "skew_forward_kl": lambda p, q: kl(p, 0.1 * p + 0.9 * q),
    "skew_reverse_kl": lambda p, q: kl(q, 0.1 * q + 0.9 * p),
    "total_variation": lambda p, q: 0.5 * (p - q).abs().sum(-1),
    "alpha_beta": lambda p, q: alpha_beta(p, q, 0.2, 0.7),
    "alpha_beta_no_alpha": lambda p, q: alpha_beta_with_one(q, p, 0.7),
    "alpha_beta_no_beta": lambda p, q: alpha_beta_with_one(p, q, 0.4),
    "adaptive_kl": adaptive_kl,
}


def naive(name: str, p: Tensor, q: Tensor) -> Tensor:
    """Value per position of the divergence called `name` in EVERY, with the knobs given there."""
    return FORMULAS[name](p, q)


def loss_and_gradient(function: Callable, student: Tensor, *args: Any, **knobs: Any) -> tuple[Tensor, Tensor]:
    """A loss of the student's logits, and its gradient for them."""
    student = student.detach().clone().requires_grad_()
    loss = function(student, *args, **knobs)
    (gradient,) = torch.autograd.grad(loss, student)
    return loss.detach(), gradient
