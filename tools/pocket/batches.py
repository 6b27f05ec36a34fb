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

# Token ids, and how much the prediction of each counts.
Sequence = tuple[list[int], list[float]]
TEXT_WEIGHT = 0.15  # a window predicts every token, an answer a few: unweighted, the books would drown the skills


@dataclass(frozen=True)
class Batch:
    ids_BT: torch.Tensor
    weight_BT: torch.Tensor  # nought where nothing is to be predicted


class Source:
    """Pools of sequences; a pool is made from the seed and its number alone, so a run can be resumed at any pool."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, text: Path, *, seed: int, skills: bool):
        self.tokenizer, self.seed, self.skills = tokenizer, seed, skills
        self.book_ids = tokenizer(books(text), verbose=False)["input_ids"]

    def pool(self, number: int) -> list[Sequence]:
        draw = Draw(self.seed * 1_000_003 + number)
        if not self.skills:
            return [self.window(draw, 128) for _ in range(1600)]
        examples = encode(self.tokenizer, list(islice(items(draw), 1600)))
        skilled = [(ids, [float(said) for said in mask]) for ids, mask in examples]
        return skilled + [self.window(draw, 512) for _ in range(4)] + [self.window(draw, 128) for _ in range(60)]

    def window(self, draw: Draw, length: int) -> Sequence:
        """Many windows say a short piece over and over: that teaches to copy, which plain text teaches very slowly."""
        start = draw.randrange(len(self.book_ids) - length)
        ids = self.book_ids[start : start + length]
        if draw.chance(0.5):
            piece = ids[: draw.randint(4, 24)]
            ids = (piece * (length // len(piece) + 1))[:length]
        return ids, [0.0] + [TEXT_WEIGHT] * (length - 1)

    def batches(self, number: int, tokens: int) -> Iterator[Batch]:
        """The pool's batches in random order, each of about `tokens` positions with its padding."""
        draw = Draw(self.seed * 1_000_003 + number + 500_000)
        # sorted a little loosely, so that a batch holds several skills
        sequences = sorted(self.pool(number), key=lambda sequence: len(sequence[0]) * draw.uniform(0.85, 1.15))
        groups, group, longest = [], [], 0
        for sequence in sequences:
            longest = max(longest, len(sequence[0]))
            if group and (len(group) + 1) * longest > tokens:
                groups.append(group)
                group, longest = [], len(sequence[0])
            group.append(sequence)
        groups.append(group)
        draw.shuffle(groups)
        yield from (self.collate(group) for group in groups)

    def collate(self, group: list[Sequence]) -> Batch:
        longest = max(len(ids) for ids, _ in group)
        pad = self.tokenizer.pad_token_id
        # right padding under a causal mask: what is padded comes later and is never predicted
        ids_BT = torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in group])
        weight_BT = torch.tensor([weights + [0.0] * (longest - len(weights)) for _, weights in group])
        return Batch(ids_BT, weight_BT)
