"""Trains the byte-level BPE tokenizer that teacher and student share."""

from itertools import islice
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tools.pocket.chat import END, PAD, SPECIAL, TEMPLATE
from tools.pocket.item import Draw
from tools.pocket.mixture import books, items

VOCABULARY = 2048
CONTEXT = 1024
ITEMS = 20_000
BOOK_CHARACTERS = 5_000_000


def train(text: Path, *, seed: int) -> PreTrainedTokenizerFast:
    """Every digit and every newline is its own token: sums are then about digits, and turns never merge."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("\n"), "isolated"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(text, seed), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[token for token in SPECIAL if token not in (END, PAD)],
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
        padding_side="left",
        chat_template=TEMPLATE,
    )


def corpus(text: Path, seed: int) -> list[str]:
    whole = books(text)
    stride = len(whole) // BOOK_CHARACTERS + 1
    pieces = [whole[start : start + 1000] for start in range(0, len(whole), 1000 * stride)]
    said = [message["content"] for item in islice(items(Draw(seed)), ITEMS) for message in item.messages]
    return pieces + said
