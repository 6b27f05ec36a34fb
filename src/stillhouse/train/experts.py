"""A mixture of adapters: low-rank changes of one model's feed-forward layers, of which a gate chooses by token (Owl, R66).

What learns are the adapters and the gates. A student must load by itself, so the model becomes a Mixtral: each expert is the
feed-forward layer with one adapter added, and that is what is saved. At the start all experts are the layer they came from.

Legend: E experts, r rank, O and I outputs and inputs of a layer.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from stillhouse.errors import RecipeError

_PROJECTIONS = ("gate_up_proj", "down_proj")
_SAME = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps", "use_cache", "pad_token_id",
    "bos_token_id", "eos_token_id", "tie_word_embeddings", "attention_dropout", "rope_parameters",
)  # fmt: skip


class _Adapted(nn.Module):
    """The weights of all experts, each with an adapter: scale 2, as alpha is twice the rank for a LoRA here."""

    def __init__(self, weight_EOI: Tensor, rank: int):
        super().__init__()
        experts, outputs, inputs = weight_EOI.shape
        self.down_ErI = nn.Parameter(torch.randn(experts, rank, inputs, dtype=weight_EOI.dtype) / inputs**0.5)
        self.up_EOr = nn.Parameter(torch.zeros(experts, outputs, rank, dtype=weight_EOI.dtype))

    def forward(self, weight_EOI: Tensor) -> Tensor:
        return weight_EOI + 2.0 * self.up_EOr @ self.down_ErI


def with_experts(model: Any, *, number: int, top: int, rank: int, seed: int) -> Any:
    """The model with `number` adapters on each feed-forward layer, of which each token uses `top`; everything else is frozen.

    A mixture made earlier (a phase that goes on) gets new adapters on its experts. The feed-forward layers are held `number`
    times. First weights come from `seed`. Raises RecipeError for any model but a Llama without biases.
    """
    if not 1 <= top <= number or number < 2 or rank < 1:
        raise RecipeError(
            f"student.experts: top {top} of {number} of rank {rank}; write at least 2, a top within them, a rank"
        )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = model if model.config.model_type == "mixtral" else _as_mixtral(model, number, top)
        if (held := made.config.num_local_experts) != number:
            raise RecipeError(f"student.experts.number: the model has {held} experts already, not {number}")
        made.requires_grad_(False)
        for layer in made.model.layers:
            layer.mlp.gate.weight.requires_grad_(True)
            for name in _PROJECTIONS:
                adapted = _Adapted(getattr(layer.mlp.experts, name), rank)
                parametrize.register_parametrization(layer.mlp.experts, name, adapted)
    return made


def _as_mixtral(model: Any, number: int, top: int) -> Any:
    from transformers import MixtralConfig, MixtralForCausalLM

    config = model.config
    if config.model_type != "llama" or config.attention_bias or config.mlp_bias:
        raise RecipeError(
            f"student.experts: {type(model).__name__} cannot be made a mixture here; take a Llama without biases, or `lora`"
        )
    same = {name: getattr(config, name) for name in _SAME}
    made = MixtralForCausalLM(MixtralConfig(**same, num_local_experts=number, num_experts_per_tok=top)).to(model.dtype)
    state = {name: value for name, value in model.state_dict().items() if ".mlp." not in name}
    for at, layer in enumerate(model.model.layers):
        place, mlp = f"model.layers.{at}.mlp", layer.mlp
        both = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]).detach()
        state[f"{place}.experts.gate_up_proj"] = both.expand(number, -1, -1)
        state[f"{place}.experts.down_proj"] = mlp.down_proj.weight.detach().expand(number, -1, -1)
        state[f"{place}.gate.weight"] = (
            torch.randn(number, config.hidden_size, dtype=model.dtype) * config.initializer_range
        )
    made.load_state_dict(state)
    made.generation_config = model.generation_config
    return made.eval()
