"""Training batches: pools of sequences, sorted by length so that little is padding.

Shapes: B sequences, T positions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from tools.pocket.chat import encode
from tools.pocket.item import Draw
from tools.pocket.mixture import books, items

# Pools in which half the tokens drill copying: before them the teacher knew the answers' form, but not whom to name.
DRILLS = range(32, 40)

Sequence = tuple[list[int], list[bool]]


@dataclass(frozen=True)
class Batch:
    ids_BT: torch.Tensor
    mask_BT: torch.Tensor  # the tokens to be predicted


class Source:
    """Pools of sequences; a pool is made from the seed and its number alone, so a run can be resumed at any pool."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, text: Path, *, seed: int, skills: bool):
        self.tokenizer, self.seed, self.skills = tokenizer, seed, skills
        self.book_ids = tokenizer(books(text), verbose=False)["input_ids"]

    def pool(self, number: int) -> list[Sequence]:
        draw = Draw(self.seed * 1_000_003 + number)
        if not self.skills:
            return [self.window(draw, 128) for _ in range(1600)]
        drill = number in DRILLS
        examples = encode(self.tokenizer, list(islice(items(draw), 800 if drill else 1600)))
        long = [self.window(draw, 512) for _ in range(8)]
        if drill:
            return examples + long + [self.window(draw, 128, repeats=0.9) for _ in range(800)]
        return examples + long + [self.window(draw, 128) for _ in range(100)]

    def window(self, draw: Draw, length: int, *, repeats: float = 0.5) -> Sequence:
        """Many windows say a short piece over and over: that teaches to copy, which plain text teaches very slowly."""
        start = draw.randrange(len(self.book_ids) - length)
        ids = self.book_ids[start : start + length]
        if draw.chance(repeats):
            piece = ids[: draw.randint(4, 24)]
            ids = (piece * (length // len(piece) + 1))[:length]
        return ids, [False] + [True] * (length - 1)

    def batches(self, number: int, tokens: int) -> Iterator[Batch]:
        """The pool's batches in random order, each of about `tokens` positions with its padding."""
        draw = Draw(self.seed * 1_000_003 + number + 500_000)
        sequences = sorted(self.pool(number), key=lambda sequence: len(sequence[0]))
        groups, group = [], []
        for sequence in sequences:
            if group and (len(group) + 1) * len(sequence[0]) > tokens:
                groups.append(group)
                group = []
            group.append(sequence)
        groups.append(group)
        draw.shuffle(groups)
        yield from (self.collate(group) for group in groups)

    def collate(self, group: list[Sequence]) -> Batch:
        longest = max(len(ids) for ids, _ in group)
        pad = self.tokenizer.pad_token_id
        # right padding under a causal mask: what is padded comes later and is never predicted
        ids_BT = torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in group])
        mask_BT = torch.tensor([mask + [False] * (longest - len(mask)) for _, mask in group])
        return Batch(ids_BT, mask_BT)
