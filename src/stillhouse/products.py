"""Matrix products on a processor, by the faster of the two libraries that torch carries.

For float32 torch.mm asks MKL, which on processors that Intel did not make runs at half the speed of oneDNN (measured on an
AMD EPYC: 92 against 190 GFLOP/s a core, the same sums to the last bits of float32). torch reaches oneDNN's
float32 products through an operator that it keeps for its own compiler, so it is looked up and not relied on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

# Multiplications below which MKL is as fast, as oneDNN's way in costs 10 microseconds; weights too small ever to reach it.
WORTH = 2**21
SMALLEST = 2**11
_TURNED = 2**17  # weights up to which a copy of their gradient costs less than the order of its product
_ONCE = 128  # rows below which they are those of a step of generation, which come again by themselves
_LISTENING = "transformers.utils.output_capturing"


def _onednn(name: str) -> Any:
    if not torch.backends.mkldnn.is_available():
        return None
    return getattr(torch.ops.mkldnn, name, None)


_LINEAR, _LAY_OUT = _onednn("_linear_pointwise"), _onednn("_reorder_linear_weight")


def product(left_nK: Tensor, right_KM: Tensor) -> Tensor:
    """left @ right, a tensor of their dtype that nobody else has."""
    if _LINEAR is None or left_nK.dtype != torch.float32 or left_nK.device.type != "cpu" or not len(left_nK):
        return left_nK @ right_KM
    return _of_rows(left_nK, right_KM.T, None)


def _of_rows(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    size = x.shape[:-1].numel()
    if (more := until_recurring(size)) == 0:
        return _LINEAR(x, weight, bias, "none", [], "")
    padded = nn.functional.pad(x.reshape(size, -1), (0, 0, 0, more))
    return _LINEAR(padded, weight, bias, "none", [], "")[:size].view(*x.shape[:-1], -1)


def until_recurring(rows: int) -> int:
    """How many rows of zeros make their number one that comes again.

    oneDNN compiles a product for each size it meets, at the cost of two or three small products, and texts seldom make the
    same number of tokens twice.
    """
    return 0 if rows < _ONCE else -rows % (1 << (rows.bit_length() - 4))


def add_product_(total_nM: Tensor, left_nK: Tensor, right_KM: Tensor) -> None:
    """total += left @ right; the sum is kept in the dtype of the total, whatever that of the factors."""
    if total_nM.device.type != "cpu" and left_nK.dtype == total_nM.dtype:
        total_nM.addmm_(left_nK, right_KM)
    else:
        total_nM += product(left_nK, right_KM)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _of_rows(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad_NO, x_NI = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        if more := until_recurring(len(x_NI)):
            grad_NO, x_NI = (nn.functional.pad(each, (0, 0, 0, more)) for each in (grad_NO, x_NI))
        for_x, for_weight, for_bias = ctx.needs_input_grad
        return (
            product(grad_NO, weight)[: x.shape[:-1].numel()].view(x.shape) if for_x else None,
            _of_weight(grad_NO, x_NI) if for_weight else None,
            grad_NO.sum(0) if for_bias else None,
        )


def _of_weight(grad_NO: Tensor, x_NI: Tensor) -> Tensor:
    """[O, I]: a small product is up to twice as fast where its columns are the longer side."""
    outputs, inputs = grad_NO.shape[1], x_NI.shape[1]
    if inputs < outputs <= _TURNED // inputs:
        return _LINEAR(x_NI.T, grad_NO.T, None, "none", [], "").T
    return _LINEAR(grad_NO.T, x_NI.T, None, "none", [], "")


@contextmanager
def faster_linears(model: Any) -> Iterator[None]:
    """The linear layers of a float32 model on a processor by the faster library, forward and back, where it is worth it."""
    chosen = [module for module in model.modules() if _worthwhile(module)]
    for module in chosen:
        module.forward = partial(_linear, module)
    try:
        yield
    finally:
        for module in chosen:
            module.__dict__.pop("forward", None)


def _worthwhile(module: Any) -> bool:
    if type(module) is not nn.Linear or "forward" in module.__dict__ or _LINEAR is None:
        return False
    weight = module.weight
    return type(weight) is nn.Parameter and weight.numel() >= SMALLEST and _plain(weight)


def _plain(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu"


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, laid_out: Tensor | None = None) -> Tensor:
    """x @ weight^T + bias without a gradient; `laid_out` is what `for_many_products` made of the weight."""
    if _small(x, weight) or _LINEAR is None or not (_plain(x) and _plain(weight)):
        return nn.functional.linear(x, weight, bias)
    return _of_rows(x, weight if laid_out is None else laid_out, bias)


def learned_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight^T + bias, differentiable."""
    if _small(x, weight) or _LINEAR is None or not (_plain(x) and _plain(weight)):
        return nn.functional.linear(x, weight, bias)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return _Linear.apply(x, weight, bias)
    return _of_rows(x, weight, bias)


def for_many_products(weight: Tensor) -> Tensor | None:
    """The weight as the faster library lays it out for itself at every product: a fifth to a third of those of few rows."""
    if _LAY_OUT is None or _LINEAR is None or not _plain(weight):
        return None
    return _LAY_OUT(weight.detach())


def untouched(module: Any) -> bool:
    """Whether calling `module` is what its class says: only our own way in, and no hooks but those that listen."""
    own = module.__dict__.get("forward")
    ours = own is None or (isinstance(own, partial) and own.func is _linear)
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    return ours and all(hook.__module__ == _LISTENING for hook in hooks)


def _small(x: Tensor, weight: Tensor) -> bool:
    return x.numel() // max(x.shape[-1], 1) * weight.numel() < WORTH


def _linear(module: nn.Linear, x: Tensor) -> Tensor:
    if torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return nn.functional.linear(x, module.weight, module.bias)
    return learned_linear(x, module.weight, module.bias)
