"""The weighted sum of a loss over positions, with its gradient made on the way forward.

Legend: N positions, V vocabulary, n positions of one chunk, b positions of one block of a chunk. A loss says what it
costs at some positions and how that changes with the logits there; this file walks over the positions that count, a few
at a time, so that nothing of size [N, V] exists beside what was given and the gradient asked for. Autograd never sees
the inside: the gradient is closed.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from stillhouse.errors import RecipeError

# A block is what the pointwise part takes at a time: on a CPU what stays in cache, on a GPU what makes launches rare.
CPU_ELEMENTS = 2**18
GPU_ELEMENTS = 2**27

# (rows of the chunk, which it owns and may overwrite: logits_bV) -> value_b and its derivative for the logits
Block = Callable[[slice, Tensor], tuple[Tensor, Tensor]]
# (indices of the positions of a chunk) -> what to do with its blocks
Loss = Callable[[Tensor], Block]


class Readable(Protocol):
    """Where logits come from."""

    positions: int
    width: int  # the last dimension, padding included
    dtype: torch.dtype  # of the computation

    def rows(self, rows: Tensor, vocabulary: int, dtype: torch.dtype) -> Tensor:
        """[n, vocabulary] for the caller to overwrite: fresh, or where the gradient that is then collected will lie."""
        ...


class LogitsSource(Readable, Protocol):
    """And where their gradient goes."""

    tensors: tuple[Tensor, ...]  # what autograd differentiates for

    def chunk_rows(self, vocabulary: int) -> int: ...

    def prepare(self, wanted: tuple[bool, ...], vocabulary: int) -> None:
        """Called once, before the first `collect`."""
        ...

    def collect(self, rows: Tensor, gradient_nV: Tensor) -> None: ...

    def gradients(self) -> tuple[Tensor | None, ...]: ...


class TensorLogits:
    """Logits that exist already, of any leading shape."""

    def __init__(self, logits: Tensor):
        self.tensors: tuple[Tensor, ...] = (logits,)
        self.width = logits.shape[-1]
        self.positions = logits.numel() // max(self.width, 1)
        self.dtype = compute_dtype(logits)
        self._logits_NV = logits.detach().reshape(-1, self.width)
        self._gradient_NV: Tensor | None = None

    def chunk_rows(self, vocabulary: int) -> int:
        return block_rows(vocabulary, self._logits_NV.device)

    def prepare(self, wanted: tuple[bool, ...], vocabulary: int) -> None:
        self._gradient_NV = torch.zeros_like(self._logits_NV) if wanted[0] else None

    def rows(self, rows: Tensor, vocabulary: int, dtype: torch.dtype) -> Tensor:
        own = self._gradient_NV
        if own is not None and own.dtype == dtype and vocabulary == self.width and (run := _run_of(rows)) is not None:
            return own[run].copy_(self._logits_NV[run])  # they become their gradient where it belongs
        return self._logits_NV[rows, :vocabulary].to(dtype)

    def collect(self, rows: Tensor, gradient_nV: Tensor) -> None:
        own = self._gradient_NV
        if own is not None and gradient_nV.untyped_storage().data_ptr() != own.untyped_storage().data_ptr():
            own[rows, : gradient_nV.shape[1]] = gradient_nV.to(own.dtype)

    def gradients(self) -> tuple[Tensor | None, ...]:
        gradient = self._gradient_NV
        return (None if gradient is None else gradient.view(self.tensors[0].shape),)


def _run_of(rows: Tensor) -> slice | None:
    """Ascending rows as a slice, where they follow each other. On a GPU the question would cost a wait."""
    if rows.device.type != "cpu" or not len(rows):
        return None
    first, last = int(rows[0]), int(rows[-1])
    return slice(first, last + 1) if last - first + 1 == len(rows) else None


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """float64 stays; everything else is computed in float32, converted before the softmax and not after it."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def block_rows(vocabulary: int, device: torch.device) -> int:
    """How many positions make a block."""
    elements = CPU_ELEMENTS if device.type == "cpu" else GPU_ELEMENTS
    return max(1, elements // max(vocabulary, 1))


def source_of(logits: Any) -> Any:
    """Logits as a tensor, or something that makes them chunk by chunk (`kernels.fused`): a LogitsSource for a student,
    a Readable for a teacher."""
    return TensorLogits(logits) if isinstance(logits, Tensor) else logits.source()


def weighted_sum(source: LogitsSource, loss: Loss, weight: Tensor, *, vocabulary: int) -> Tensor:
    """Sum over positions of weight * loss, a float32 (or float64) scalar. Positions of weight 0 are never looked at.

    `vocabulary` is the number of ids that can be addressed: columns beyond it are left out and get no gradient.
    Raises RecipeError where the weights and the logits do not have the same number of positions.
    """
    weight_N = weight.detach().reshape(-1).to(source.dtype)
    if weight_N.numel() != source.positions:
        raise RecipeError(
            f"the mask has {weight_N.numel()} positions and the student's logits have {source.positions}: "
            "give one weight per position of the logits"
        )

    def run(wanted: tuple[bool, ...]) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        source.prepare(wanted, vocabulary)
        total = _walk(source, loss, weight_N, vocabulary, any(wanted))
        return total.to(source.dtype), source.gradients()

    with torch.autocast(weight.device.type, enabled=False):  # it would round what was converted to float32 on purpose
        return _Sum.apply(run, torch.is_grad_enabled(), *source.tensors)


def _walk(source: LogitsSource, loss: Loss, weight_N: Tensor, vocabulary: int, gradient_wanted: bool) -> Tensor:
    # float64: thousands of positions in float32 would lose the digits that tell two runs apart
    total = torch.zeros((), dtype=torch.float64, device=weight_N.device)
    counted = weight_N.nonzero().squeeze(-1)
    block_size = block_rows(vocabulary, weight_N.device)
    for rows in counted.split(source.chunk_rows(vocabulary)):
        logits_nV = source.rows(rows, vocabulary, source.dtype)
        block_loss = loss(rows)
        for start in range(0, len(rows), block_size):
            part = slice(start, start + block_size)
            weight_b = weight_N[rows[part]]
            value_b, gradient_bV = block_loss(part, logits_nV[part])
            total += (weight_b * value_b).sum(dtype=torch.float64)
            torch.mul(gradient_bV, weight_b[:, None], out=logits_nV[part])
        if gradient_wanted:
            source.collect(rows, logits_nV)
    return total


class _Sum(torch.autograd.Function):
    """Autograd's view: a scalar, and for each tensor the gradient that was made with it."""

    @staticmethod
    def forward(ctx: Any, run: Callable, grad_enabled: bool, *tensors: Tensor) -> Tensor:
        total, gradients = run(tuple(grad_enabled and tensor.requires_grad for tensor in tensors))
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_total: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, *(None if g is None else _scaled(g, grad_total) for g in ctx.saved_tensors))


def _scaled(gradient: Tensor, factor: Tensor) -> Tensor:
    if factor.device.type == "cpu" and factor.item() == 1.0:
        return gradient  # spares a copy of the size of the head; on a GPU the question would cost a wait
    return gradient * factor.to(gradient.dtype)
