"""Small models of Llama's form, and of others that are near it."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

SMALL = {
    "vocab_size": 60, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "initializer_range": 0.3, "max_position_embeddings": 400,
}  # fmt: skip
OF_THE_FORM = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SMALL)),
    "llama, one key head a query": lambda: LlamaForCausalLM(LlamaConfig(**{**SMALL, "num_key_value_heads": 4})),
    "llama, tied": lambda: LlamaForCausalLM(LlamaConfig(**SMALL, tie_word_embeddings=True)),
    "llama, biases": lambda: LlamaForCausalLM(LlamaConfig(**SMALL, attention_bias=True, mlp_bias=True)),
    "llama 3's frequencies": lambda: LlamaForCausalLM(
        LlamaConfig(
            **SMALL,
            rope_parameters={
                "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
            },
        )
    ),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SMALL, sliding_window=None)),
    "qwen 2": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL)),
    "qwen 3": lambda: Qwen3ForCausalLM(Qwen3Config(**SMALL, head_dim=10)),
}  # fmt: skip
OF_ANOTHER = {
    "a window": lambda: MistralForCausalLM(MistralConfig(**SMALL, sliding_window=6)),
    "frequencies that move": lambda: LlamaForCausalLM(
        LlamaConfig(**SMALL, rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0})
    ),
    "another norm": lambda: GemmaForCausalLM(GemmaConfig(**SMALL, head_dim=6)),
    "scaled residuals": lambda: GraniteForCausalLM(GraniteConfig(**SMALL, residual_multiplier=0.5)),
    "other names": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=60, n_embd=24, n_layer=2, n_head=2)),
    "an adapter": lambda: get_peft_model(LlamaForCausalLM(LlamaConfig(**SMALL)), LoraConfig(target_modules=["q_proj"])),
    "half precision": lambda: LlamaForCausalLM(LlamaConfig(**SMALL)).bfloat16(),
    "double precision": lambda: LlamaForCausalLM(LlamaConfig(**SMALL)).double(),
}


def made(make):
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():  # norms and biases begin at one and zero, which hides much
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.3 * torch.randn_like(parameter)
    return model
