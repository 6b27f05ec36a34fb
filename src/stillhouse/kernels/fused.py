"""Logits that are made a few positions at a time: from hidden states and a head, or from several teachers.

Legend: N positions, V vocabulary, H hidden width, M teachers, n positions of one chunk. Every objective that takes logits
takes these in their place. The head's products are made in float32 from bfloat16 inputs and their gradient is added
up in float32: rounding logits to bfloat16 first would cost 40 % of the gradient at a KL of 0.006.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stillhouse.errors import RecipeError
from stillhouse.kernels.positions import LogitsSource, Readable, compute_dtype, source_of
from stillhouse.products import add_product_, product

# How many positions share one product with the head: enough to be worth a GEMM, few enough that [rows, V] stays small.
CPU_CHUNK_ROWS = 128
GPU_CHUNK_ELEMENTS = 2**28
# How many rows of the head a processor takes at a time: their part of the logits is then still in its cache.
CPU_HEAD_ROWS = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Projected:
    """Hidden states after the final norm, and the head that turns them into logits.

    logits = softcap * tanh(scale * (hidden @ weight^T + bias) / softcap), each part where the model has it. Masked
    positions are never projected. A head that needs no gradient (frozen, or under LoRA) costs no gradient of its size;
    a tied embedding is simply the weight.
    """

    hidden_NH: Tensor
    weight_VH: Tensor
    bias_V: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def source(self) -> LogitsSource:
        return _ProjectedLogits(self)


@dataclass(frozen=True, slots=True, eq=False)
class Blended:
    """Several teachers in one, with the share each has at each position: mean logits, or log of the mean probabilities."""

    logits: tuple[Any, ...]
    shares_NM: Tensor
    of_logits: bool = False

    def source(self) -> Readable:
        return _BlendedLogits(self)


def token_logprobs(student_logits_NV: Any, target_ids_N: Tensor, weight_N: Tensor) -> Tensor:
    """[N] log-probability of each target, differentiable, 0 where the weight is 0; [N, V] is made again, never kept.

    What the objectives on samples take: `student_logprobs_N`, and summed per sequence `student_logprobs_S`.
    """
    source = source_of(student_logits_NV)
    with torch.autocast(weight_N.device.type, enabled=False):
        return _TokenLogprobs.apply(student_logits_NV, target_ids_N, weight_N, *source.tensors)


@torch.no_grad()
def target_logprobs(logits: Any, target_ids_N: Tensor, weight_N: Tensor, *, vocabulary: int | None = None) -> Tensor:
    """The same as numbers, of a teacher or a reference."""
    source = source_of(logits)
    vocabulary = vocabulary or source.width
    logprobs_N = torch.zeros(weight_N.numel(), dtype=source.dtype, device=weight_N.device)
    target_n = target_ids_N.reshape(-1)
    for rows in weight_N.reshape(-1).nonzero().squeeze(-1).split(_chunk_rows(vocabulary, weight_N.device)):
        logits_nV = source.rows(rows, vocabulary, source.dtype)
        hit_n = logits_nV.gather(-1, target_n[rows, None])[:, 0]
        logprobs_N[rows] = hit_n - logits_nV.logsumexp(-1)
    return logprobs_N.view(weight_N.shape)


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Any, target_ids_N: Tensor, weight_N: Tensor, *tensors: Tensor) -> Tensor:
        ctx.logits = logits
        ctx.save_for_backward(target_ids_N, weight_N, *tensors)
        return target_logprobs(logits, target_ids_N, weight_N)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor | None, ...]:
        target_N, weight_N = (x.reshape(-1) for x in ctx.saved_tensors[:2])
        source = source_of(ctx.logits)
        source.prepare(ctx.needs_input_grad[3:], source.width)
        with torch.autocast(weight_N.device.type, enabled=False):
            for rows in weight_N.nonzero().squeeze(-1).split(_chunk_rows(source.width, weight_N.device)):
                grad_n = grad_N.reshape(-1)[rows]
                gradient_nV = source.rows(rows, source.width, source.dtype).softmax(-1).mul_(-grad_n[:, None])
                source.collect(rows, gradient_nV.scatter_add_(-1, target_N[rows, None], grad_n[:, None]))
        return (None, None, None, *source.gradients())


class _ProjectedLogits:
    def __init__(self, head: Projected):
        self._head = head
        self.width, hidden_width = head.weight_VH.shape
        if head.hidden_NH.shape[-1] != hidden_width:
            raise RecipeError(
                f"hidden states of width {head.hidden_NH.shape[-1]} and a head for {hidden_width} do not belong together"
            )
        self.tensors: tuple[Tensor, ...] = (head.hidden_NH, head.weight_VH)
        if head.bias_V is not None:
            self.tensors += (head.bias_V,)
        self.dtype = compute_dtype(head.hidden_NH)
        self._hidden_NH = head.hidden_NH.detach().reshape(-1, hidden_width)
        self._weight_VH = head.weight_VH.detach()
        self.positions = len(self._hidden_NH)
        self._gradients: tuple[Tensor | None, ...] = ()
        self._slope_nV: Tensor | None = None
        self._buffer = torch.empty(0)

    def chunk_rows(self, vocabulary: int) -> int:
        return _chunk_rows(vocabulary, self._hidden_NH.device)

    def prepare(self, wanted: tuple[bool, ...], vocabulary: int) -> None:
        # each row of the hidden states is written once, the head is added to by every chunk: in float32
        shapes = [(self._hidden_NH, self._hidden_NH.dtype), *((tensor, self.dtype) for tensor in self.tensors[1:])]
        self._gradients = tuple(
            torch.zeros_like(tensor, dtype=dtype, requires_grad=False) if want else None
            for want, (tensor, dtype) in zip(wanted, shapes, strict=True)
        )

    def rows(self, rows: Tensor, vocabulary: int, dtype: torch.dtype) -> Tensor:
        logits_nV = self._projected(self._hidden_NH[rows], self._weight_VH[:vocabulary], dtype)
        head = self._head
        if head.bias_V is not None:
            logits_nV += head.bias_V.detach()[:vocabulary].to(dtype)
        if head.scale != 1.0:
            logits_nV *= head.scale
        if head.softcap is not None:
            logits_nV.div_(head.softcap).tanh_()
            self._slope_nV = 1.0 - logits_nV.square()
            logits_nV *= head.softcap
        return logits_nV

    def _projected(self, hidden_nH: Tensor, weight_VH: Tensor, dtype: torch.dtype) -> Tensor:
        """hidden @ weight^T, never rounded below `dtype`, without a copy of the head in it."""
        if weight_VH.device.type != "cpu":
            mixed = hidden_nH.dtype == weight_VH.dtype != dtype == torch.float32 and weight_VH.is_cuda
            if mixed:  # half-precision factors, float32 sums
                return torch.mm(hidden_nH, weight_VH.T, out_dtype=dtype)
            return hidden_nH.to(dtype) @ weight_VH.to(dtype).T
        # one buffer for all chunks: fresh pages cost as much as the arithmetic on them
        size = len(hidden_nH) * len(weight_VH)
        if self._buffer.numel() < size or self._buffer.dtype != dtype:
            self._buffer = torch.empty(size, dtype=dtype)
        logits_nV = self._buffer[:size].view(len(hidden_nH), len(weight_VH))
        hidden_nH = hidden_nH.to(dtype)
        for part in _parts_of_head(len(weight_VH), weight_VH.device):
            logits_nV[:, part] = product(hidden_nH, weight_VH[part].to(dtype).T)
        return logits_nV

    def collect(self, rows: Tensor, gradient_nV: Tensor) -> None:
        head, vocabulary = self._head, gradient_nV.shape[1]
        if self._slope_nV is not None:
            gradient_nV *= self._slope_nV
        if head.scale != 1.0:
            gradient_nV *= head.scale
        hidden_gradient, weight_gradient, *bias_gradient = self._gradients
        for gradient in bias_gradient:
            if gradient is not None:
                gradient[:vocabulary] += gradient_nV.sum(0)
        hidden_nH = self._hidden_NH[rows]
        # the factors of a bfloat16 head's gradients may be rounded, 0.2 % each at random; their sums are not
        half = self._weight_VH.dtype == hidden_nH.dtype == torch.bfloat16
        low = torch.bfloat16 if half else self.dtype
        hidden_nH, back_nH = hidden_nH.to(low), torch.zeros_like(hidden_nH, dtype=self.dtype)
        for part in _parts_of_head(vocabulary, rows.device):
            gradient_nP = gradient_nV[:, part].to(low)
            if hidden_gradient is not None:
                add_product_(back_nH, gradient_nP, self._weight_VH[part].to(low))
            if weight_gradient is not None:
                add_product_(weight_gradient[part], gradient_nP.T, hidden_nH)
        if hidden_gradient is not None:
            hidden_gradient[rows] = back_nH.to(hidden_gradient.dtype)

    def gradients(self) -> tuple[Tensor | None, ...]:
        return tuple(
            None if gradient is None else gradient.to(tensor.dtype).view(tensor.shape)
            for gradient, tensor in zip(self._gradients, self.tensors, strict=True)
        )


class _BlendedLogits:
    def __init__(self, blend: Blended):
        self._sources = [source_of(logits) for logits in blend.logits]
        self._shares_NM, self._of_logits = blend.shares_NM, blend.of_logits
        self.positions = len(blend.shares_NM)
        self.width = min(source.width for source in self._sources)
        self.dtype = self._sources[0].dtype
        if any(source.positions != self.positions for source in self._sources):
            raise RecipeError(f"fused teachers must all cover the same {self.positions} positions")

    def rows(self, rows: Tensor, vocabulary: int, dtype: torch.dtype) -> Tensor:
        total_nV = torch.zeros(len(rows), vocabulary, dtype=dtype, device=rows.device)
        for m, source in enumerate(self._sources):
            share_n = self._shares_NM[rows, m].to(dtype)
            heard = share_n.nonzero().squeeze(-1)
            logits_hV = source.rows(rows[heard], vocabulary, dtype)
            if not self._of_logits:
                logits_hV = logits_hV.softmax(-1)
            total_nV.index_add_(0, heard, logits_hV.mul_(share_n[heard, None]))
        return total_nV if self._of_logits else total_nV.log_()


def _chunk_rows(vocabulary: int, device: torch.device) -> int:
    return CPU_CHUNK_ROWS if device.type == "cpu" else max(1, GPU_CHUNK_ELEMENTS // max(vocabulary, 1))


def _parts_of_head(vocabulary: int, device: torch.device) -> list[slice]:
    size = CPU_HEAD_ROWS if device.type == "cpu" else vocabulary
    return [slice(start, min(start + size, vocabulary)) for start in range(0, vocabulary, size)]
