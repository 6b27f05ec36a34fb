"""Random encoder-decoders (T5, BART) and encoders (BERT, RoBERTa) of a few thousand weights: no file, no network."""

from typing import Any

import torch
from tokenizers.processors import TemplateProcessing
from train_helpers import make_tokenizer
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)


def plain_tokenizer() -> Any:
    """Like T5's: no chat template, and every text is closed by the end token."""
    tokenizer = make_tokenizer(template=None)
    end = [("<|end|>", tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A <|end|>", special_tokens=end)
    return tokenizer


def pair_tokenizer(typed: bool = True) -> Any:
    """Like BERT's: <s> a <|end|>, and of two texts <s> a <|end|> b <|end|>; no end of sequence that a writer would need."""
    tokenizer = make_tokenizer(template=None)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A <|end|>", pair="<s> $A <|end|> $B:1 <|end|>:1", special_tokens=[("<s>", 1), ("<|end|>", 2)]
    )
    tokenizer.model_max_length = 94
    tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = [
        "input_ids",
        *(["token_type_ids"] if typed else []),
        "attention_mask",
    ]
    tokenizer.eos_token = None
    return tokenizer


def make_t5(tokenizer: Any, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.0}
    ids = {"decoder_start_token_id": 0, "eos_token_id": 2, "pad_token_id": 0}
    return T5ForConditionalGeneration(T5Config(vocab_size=len(tokenizer), **sizes, **ids)).eval()


def make_bart(tokenizer: Any, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    sizes = {f"{side}_{what}": 2 for side in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    sizes |= {"d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 96}
    ids = {"decoder_start_token_id": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = BartConfig(vocab_size=len(tokenizer), **sizes, **ids, init_std=0.3, dropout=0.0, forced_eos_token_id=None)
    return BartForConditionalGeneration(config).eval()


def make_bert(tokenizer: Any, seed: int = 0, roberta: bool = False, labels: int = 1) -> Any:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    rest = {"max_position_embeddings": 96, "pad_token_id": 0, "initializer_range": 0.3, "num_labels": labels}
    config, model = (
        (RobertaConfig, RobertaForSequenceClassification) if roberta else (BertConfig, BertForSequenceClassification)
    )
    types = 1 if roberta else 2
    return model(config(vocab_size=len(tokenizer), type_vocab_size=types, **sizes, **rest)).eval()
