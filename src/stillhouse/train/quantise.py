"""Students that learn to be quantised: weights, activations and cached keys and values are rounded on the way forward, and
the gradient passes as if they were not (LLM-QAT, R31, survey J10).

Rounding is symmetric, by the largest magnitude of each output channel of a weight and of each token of an activation; weights
can also be ternary (TSLD's), or rounded by scales that are learned (QuantGPT).
"""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from stillhouse.errors import RecipeError

_CACHED = ("k_proj", "v_proj")


def rounded(values: Tensor, bits: int) -> Tensor:
    """On the grid of 2^bits - 1 levels over the last axis: s * round(x / s), s = max|x| / (2^(bits-1) - 1)."""
    levels = 2 ** (bits - 1) - 1
    scale = values.detach().abs().amax(-1, keepdim=True).clamp(min=1e-12) / levels
    return values + ((values / scale).round() * scale - values).detach()  # straight through


class _Rounded(nn.Module):
    def __init__(self, bits: int):
        super().__init__()
        self.bits = bits

    def forward(self, weight: Tensor) -> Tensor:
        return rounded(weight, self.bits)


class _Ternary(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return ternary(weight)


def ternary(values: Tensor) -> Tensor:
    """-a, 0 or a over the last axis: 0 up to 0.7 of the mean magnitude, a the mean magnitude of the others (arXiv 1605.04711)."""
    size = values.detach().abs()
    kept = size > 0.7 * size.mean(-1, keepdim=True)
    scale = (size * kept).sum(-1, keepdim=True) / kept.sum(-1, keepdim=True).clamp(min=1)
    return values + (values.sign() * kept * scale - values).detach()  # straight through


class _Learned(nn.Module):
    """Rounds within -a to a, a the factor times the mean magnitude of the whole weight (QuantGPT's module-wise scale).

    The factor starts where rounding errs least, between a fiftieth of the largest magnitude and all of it.
    """

    def __init__(self, weight: Tensor, bits: int):
        super().__init__()
        self.levels = 2 ** (bits - 1) - 1
        size = weight.detach().abs()
        mean = size.mean().clamp(min=1e-12)
        tried = [size.max() * part / 50 for part in range(1, 51)]
        errors = [(weight.detach() - self._rounded(weight.detach(), each)).square().sum() for each in tried]
        self.factor = nn.Parameter(tried[int(torch.stack(errors).argmin())].clamp(min=1e-12) / mean)

    def forward(self, weight: Tensor) -> Tensor:
        return self._rounded(weight, self.factor * weight.detach().abs().mean().clamp(min=1e-12))

    def _rounded(self, weight: Tensor, scale: Tensor) -> Tensor:
        inside = (weight / scale.clamp(min=1e-12)).clamp(-1.0, 1.0)
        return scale * (inside + ((inside * self.levels).round() / self.levels - inside).detach())


def quantise(
    model: Any,
    *,
    bits: int,
    activations: int | None = None,
    cache: int | None = None,
    scale: Literal["largest", "ternary", "learned"] = "largest",
) -> None:
    """Every linear layer but the head rounds its weight to `bits`, its input to `activations`, keys and values to `cache`.

    `scale` is that of a weight: the largest magnitude of each channel; `ternary`, which has two bits; or one `learned` for each
    layer, a parameter of the model until it is saved. Raises RecipeError for fewer than 2 bits, for ternary weights of more, and
    for a model without linear layers.
    """
    if scale == "ternary" and bits != 2:
        raise RecipeError(
            f"student.quantise.bits: ternary weights have two bits, not {bits}; write 2, or another scale"
        )
    if cache is not None and not any(name.rpartition(".")[2] in _CACHED for name, _ in model.named_modules()):
        raise RecipeError(
            f"student.quantise.cache: {type(model).__name__} has no layers named {' and '.join(sorted(_CACHED))}, so "
            "nobody knows what it caches; leave out cache"
        )
    for name, value in (("bits", bits), ("activations", activations), ("cache", cache)):
        if value is not None and not 2 <= value <= 16:
            raise RecipeError(f"student.quantise.{name}: {value} bits; write 2 to 16")
    layers = list(_layers(model))
    if not layers:
        raise RecipeError(f"student.quantise: {type(model).__name__} has no linear layers that can be rounded")
    for name, layer in layers:
        made = {"largest": _Rounded(bits), "ternary": _Ternary()}.get(scale) or _Learned(layer.weight, bits)
        parametrize.register_parametrization(layer, "weight", made)
        if activations is not None:
            layer.register_forward_pre_hook(_rounds_input(activations))
        if cache is not None and name.rpartition(".")[2] in _CACHED:
            layer.register_forward_hook(_rounds_output(cache))


def settled(model: Any) -> dict[str, Tensor]:
    """The weights by their ordinary names, made ones in place of those that learned: what is saved is what was trained."""
    found = {}
    for name, value in model.state_dict().items():
        owner, _, part = name.partition(".parametrizations.")
        made = part.partition(".")[0]
        found[f"{owner}.{made}" if made else name] = (
            getattr(model.get_submodule(owner), made).detach() if made else value
        )
    return found


def is_made(model: Any) -> bool:
    """Whether some weights are made of others on the way: rounded, or of an expert and its adapter."""
    return any(parametrize.is_parametrized(module) for module in model.modules())


def _layers(model: Any) -> Iterator[tuple[str, nn.Linear]]:
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module is not head and name != "score":
            yield name, module


def _rounds_input(bits: int) -> Any:
    def hook(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (rounded(given[0], bits), *given[1:])

    return hook


def _rounds_output(bits: int) -> Any:
    def hook(module: nn.Module, given: Any, out: Tensor) -> Tensor:
        return rounded(out, bits)

    return hook


class FourBit(nn.Linear):
    """A frozen linear layer whose weight takes half a byte a number: NF4 in blocks of 64 (QLoRA, arXiv 2305.14314).

    The sixteen levels are quantiles of a normal distribution, scaled by the largest magnitude of each block. The weight
    is made anew for each product, forward and back; only a LoRA on top of it learns. Runs on any device.
    """

    BLOCK = 64

    def __init__(self, layer: nn.Linear):
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.bias = layer.in_features, layer.out_features, layer.bias
        packed, scale = _packed(layer.weight.detach(), self.BLOCK)
        self.register_buffer("packed", packed)
        self.register_buffer("scale", scale)

    @property
    def weight(self) -> Tensor:
        """Made on the way, in the precision of its scales."""
        return _unpacked(self.packed, self.scale, self.BLOCK, self.out_features, self.in_features)

    def forward(self, input: Tensor) -> Tensor:
        made = _FourBitProduct.apply(input, self)
        return made if self.bias is None else made + self.bias

    def dense(self) -> nn.Linear:
        """An ordinary layer of the same weight."""
        made = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        made.weight = nn.Parameter(self.weight.clone(), requires_grad=False)
        made.bias = self.bias
        return made


class _FourBitProduct(torch.autograd.Function):
    """input @ weight^T, without keeping the weight for the way back."""

    @staticmethod
    def forward(ctx: Any, given: Tensor, layer: FourBit) -> Tensor:
        ctx.layer = layer
        return nn.functional.linear(given, layer.weight.to(given.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ ctx.layer.weight.to(gradient.dtype), None


def to_four_bits(model: Any) -> None:
    """Every linear layer but the head becomes a `FourBit`, and everything is frozen."""
    model.requires_grad_(False)
    for name, layer in list(_layers(model)):
        parent = model.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], FourBit(layer))


def to_dense(model: Any) -> None:
    """The other way."""
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, FourBit)]
    for name, module in found:
        setattr(model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], module.dense())


def levels() -> Tensor:
    """NF4's sixteen values in [-1, 1]: evenly spaced quantiles of a normal distribution, eight up, seven down, and 0."""
    normal = torch.distributions.Normal(0.0, 1.0)
    offset = 0.9677083  # so that both ends have a finite quantile; the paper's released code
    up = normal.icdf(torch.linspace(offset, 0.5, 9, dtype=torch.float64)[:-1])
    down = -normal.icdf(torch.linspace(offset, 0.5, 8, dtype=torch.float64)[:-1])
    values = torch.cat([up, down, torch.zeros(1, dtype=torch.float64)]).sort().values
    return (values / values.abs().max()).float()


def _packed(weight: Tensor, block: int) -> tuple[Tensor, Tensor]:
    flat = weight.float().flatten()
    flat = nn.functional.pad(flat, (0, -len(flat) % block)).view(-1, block)
    scale = flat.abs().amax(-1, keepdim=True).clamp(min=1e-12)
    middles = (levels()[1:] + levels()[:-1]) / 2
    index = torch.bucketize(flat / scale, middles.to(flat.device)).to(torch.uint8)
    return index[:, ::2] << 4 | index[:, 1::2], scale


def _unpacked(packed: Tensor, scale: Tensor, block: int, rows: int, columns: int) -> Tensor:
    index = torch.stack([packed >> 4, packed & 15], -1).view(-1, block).int()
    return (levels().to(scale.device)[index] * scale).flatten()[: rows * columns].view(rows, columns)
