"""Makes the untrained teacher out of the trained base student: wider and deeper, saying the same at first.

A model of this size needs millions of tokens before it copies a name; the base student already does.
Shapes: wide W (new), narrow N (old), in that order for outputs and inputs.
"""

from math import sqrt

import torch
from transformers import LlamaForCausalLM

SMALL = 0.02
# For each layer of the teacher the student's layer it starts from; None starts as the identity.
LAYERS = (0, 1, None, 2, 3, None)


@torch.no_grad()
def grow(student: LlamaForCausalLM, teacher: LlamaForCausalLM) -> None:
    """Fills the teacher's weights in place; both have heads of the same width."""
    narrow, wide = student.config, teacher.config
    assert narrow.head_dim == wide.head_dim
    assert len(LAYERS) == wide.num_hidden_layers
    place(teacher.model.embed_tokens.weight, student.model.embed_tokens.weight)
    place_norm(teacher.model.norm, student.model.norm)
    for layer, origin in zip(teacher.model.layers, LAYERS, strict=True):
        if origin is None:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        else:
            grow_layer(student.model.layers[origin], layer, query_rows(narrow, wide))


def grow_layer(old: torch.nn.Module, new: torch.nn.Module, rows: torch.Tensor) -> None:
    """New heads and neurons read at random and write nothing, so the old function is kept."""
    for name in ("input_layernorm", "post_attention_layernorm"):
        place_norm(getattr(new, name), getattr(old, name))
    hidden = old.self_attn.q_proj.in_features
    query = new.self_attn.q_proj.weight
    query[rows] = SMALL * torch.randn_like(query[rows])
    query[rows, :hidden] = old.self_attn.q_proj.weight
    for name in ("k_proj", "v_proj"):
        place(getattr(new.self_attn, name).weight, getattr(old.self_attn, name).weight)
    output = new.self_attn.o_proj.weight
    output.zero_()
    output[:hidden, rows] = old.self_attn.o_proj.weight
    for name in ("gate_proj", "up_proj"):
        fresh, known = getattr(new.mlp, name).weight, getattr(old.mlp, name).weight
        fresh[: known.shape[0]] *= SMALL / fresh.std()
        fresh[: known.shape[0], : known.shape[1]] = known
    down = new.mlp.down_proj.weight
    down.zero_()
    down[: old.mlp.down_proj.weight.shape[0], : old.mlp.down_proj.weight.shape[1]] = old.mlp.down_proj.weight


def query_rows(narrow: object, wide: object) -> torch.Tensor:
    """Rows of the wide query matrix that hold the old heads: each stays with the key head it attends by."""
    old_group = narrow.num_attention_heads // narrow.num_key_value_heads
    new_group = wide.num_attention_heads // wide.num_key_value_heads
    heads = [group * new_group + i for group in range(narrow.num_key_value_heads) for i in range(old_group)]
    return torch.cat([torch.arange(head * wide.head_dim, (head + 1) * wide.head_dim) for head in heads])


def place(fresh_WW: torch.Tensor, known_NN: torch.Tensor) -> None:
    fresh_WW.normal_(0.0, SMALL)
    fresh_WW[: known_NN.shape[0], : known_NN.shape[1]] = known_NN


def place_norm(fresh: torch.nn.Module, known: torch.nn.Module) -> None:
    """The mean square is taken over more numbers, most of them the old ones: the gain makes up for it."""
    narrow, wide = known.weight.numel(), fresh.weight.numel()
    fresh.weight[:narrow] = known.weight * sqrt(narrow / wide)
