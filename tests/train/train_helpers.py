"""A character-level tokenizer with a chat template and random Llamas of a few thousand weights: no file, no network."""

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from stillhouse.records import Example, TopLogprobs, content_id, user
from stillhouse.render import fingerprint, render

TEMPLATE = (
    "<s>{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<pad>", "<s>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]


def make_tokenizer(template: str | None = TEMPLATE, more: str = "") -> Any:
    letters = [*SPECIAL, *"\n abcdefghijklmnopqrstuvwxyz0123456789.?+=", *more]
    backend = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(letters)}, unk_token="."))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="<|end|>", pad_token="<pad>",
        additional_special_tokens=SPECIAL[3:],
    )  # fmt: skip
    tokenizer.chat_template = template
    return tokenizer


def make_model(tokenizer: Any, seed: int = 0, **config: Any) -> Any:
    torch.manual_seed(seed)
    given = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": 96, "initializer_range": 0.3, "vocab_size": len(tokenizer),
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    }  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**(given | config))).eval()


def make_examples(number: int, seed: int = 0, longest: int = 30) -> list[Example]:
    draw = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz "
    made = []
    for index in range(number):
        words = ["".join(draw.choices(letters, k=draw.randint(1, longest))) for _ in range(2)]
        made.append(Example(content_id(index, *words), user(words[0]), words[1]))
    return made


@dataclass
class WhiteBox:
    """A teacher that shows a given model."""

    model: Any
    own_tokenizer: Any

    def module(self) -> Any:
        return self.model

    def tokenizer(self) -> Any:
        return self.own_tokenizer


def believe(example: Example, teacher: WhiteBox, k: int) -> TopLogprobs:
    """What `feature.top_logprobs` stores, from one forward pass per example."""
    whole = render(teacher.own_tokenizer, example.prompt, example.response)
    with torch.no_grad():
        logits_TV = teacher.model(torch.tensor([whole.ids])).logits[0, whole.start - 1 : -1]
    top = torch.log_softmax(logits_TV, -1).topk(k, -1)
    return example.believed(
        token_ids_T=np.array(whole.response), top_ids_TK=top.indices.numpy(), top_logprobs_TK=top.values.numpy(),
        tokenizer=fingerprint(teacher.own_tokenizer), teacher="t",
    )  # fmt: skip
