"""Decontamination: nothing that is evaluated on may be trained on."""

import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

import numpy as np

from stillhouse.errors import RecipeError
from stillhouse.records import Record
from stillhouse.selection import embedding
from stillhouse.selection.texts import Side, text_of
from stillhouse.selection.tokens import words

__all__ = ["ngrams", "semantic"]

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def ngrams(
    records: Iterable[Record],
    *,
    path: str | Sequence[str],
    fields: Sequence[str] = ("prompt", "question", "reference", "answer", "text"),
    n: int = 10,
    on: Side = "both",
) -> Iterator[tuple[Record, str | None]]:
    """Drops a record that shares a run of `n` words with an evaluation item.

    `path` names JSONL files (also .gz) of evaluation sets, `fields` the columns of theirs to look at (those a row
    has); a text shorter than `n` words counts as one run when it has at least five. 64-bit hashes: false hits are
    below one in 10^9 runs. Reason: "overlap:<file name>". `Overlaps.of` tells the items. Sources: R11, R60.
    """
    index = Overlaps.read([path] if isinstance(path, str | Path) else path, fields, n)
    for record in records:
        hits = index.of(text_of(record, on))
        yield record, f"overlap:{index.items[hits[0]][0]}" if hits else None


@dataclass(frozen=True, slots=True)
class Overlaps:
    """Sorted hashes of all runs of all items; `items[owner]` is (file name, row number) of a run's first owner."""

    n: int
    hashes: np.ndarray
    owners: np.ndarray
    items: list[tuple[str, int]]

    @staticmethod
    def read(paths: Sequence[str], fields: Sequence[str], n: int) -> "Overlaps":
        if n < 5:
            raise RecipeError(f"decontaminate.ngrams: n is {n}; runs of fewer than 5 words are in every text")
        items: list[tuple[str, int]] = []
        blocks: list[np.ndarray] = []
        owners: list[np.ndarray] = []
        for path in map(Path, paths):
            for number, text in texts_of(path, fields):
                block = runs(words(text), n, short=True)
                if not len(block):
                    continue
                if not items or items[-1] != (path.name.split(".")[0], number):
                    items.append((path.name.split(".")[0], number))
                blocks.append(block)
                owners.append(np.full(len(block), len(items) - 1, dtype=np.uint32))
        if not blocks:
            raise RecipeError(
                f"decontaminate.ngrams: no row of {', '.join(map(str, paths))} has any of {', '.join(fields)}"
            )
        hashes, first = np.unique(np.concatenate(blocks), return_index=True)
        return Overlaps(n, hashes, np.concatenate(owners)[first], items)

    def of(self, text: str) -> list[int]:
        """Positions in `items` of the evaluation items that a text shares a run with."""
        return np.unique(self._owners(runs(words(text), self.n, short=True))).tolist()

    def share(self, texts: Iterable[str]) -> float:
        """The share of texts that hit anything: on texts that cannot be contaminated, the false-positive rate."""
        hits = [bool(self.of(text)) for text in texts]
        return sum(hits) / len(hits) if hits else 0.0

    def _owners(self, block: np.ndarray) -> np.ndarray:
        at = np.searchsorted(self.hashes, block)
        at[at == len(self.hashes)] = 0
        return self.owners[at[self.hashes[at] == block]]


def runs(tokens: Sequence[str], n: int, *, short: bool = False) -> np.ndarray:
    """64-bit hashes of the runs of n words; with `short`, a text of 5 to n - 1 words is one run."""
    if len(tokens) < n:
        if not short or len(tokens) < 5:
            return np.empty(0, dtype=np.uint64)
        n = len(tokens)
    hashes = np.fromiter(map(_hash, tokens), dtype=np.uint64, count=len(tokens))
    mixed = np.zeros(len(hashes) - n + 1, dtype=np.uint64)
    for offset in range(n):
        mixed = (mixed ^ hashes[offset : offset + len(mixed)]) * _MULTIPLIER
        mixed ^= mixed >> np.uint64(32)
    return mixed


@lru_cache(maxsize=1 << 18)
def _hash(token: str) -> int:
    return int.from_bytes(blake2b(token.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def texts_of(path: Path, fields: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Row numbers from 1 and the texts of a JSONL file of evaluation items."""
    opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8")
    with opened as source:
        for number, line in enumerate(source, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                raise RecipeError(f"{path}, line {number}: not JSON") from None
            for field in fields:
                if isinstance(row.get(field), str):
                    yield number, row[field]


def semantic(
    records: Iterable[Record],
    *,
    path: str | Sequence[str],
    model: str,
    fields: Sequence[str] = ("prompt", "question", "text"),
    threshold: float = 0.9,
    on: Side = "prompt",
) -> Iterator[tuple[Record, str | None]]:
    """Drops a record whose embedding has a cosine of at least `threshold` with an evaluation item.

    Finds rewordings that share no run of words; run it behind `ngrams`. Reason: "same_meaning:<file name>". Source:
    R11.
    """
    embedder = embedding.load(model)
    names, texts = [], []
    for each in map(Path, [path] if isinstance(path, str | Path) else path):
        for _, text in texts_of(each, fields):
            names.append(each.name.split(".")[0])
            texts.append(text)
    if not texts:
        raise RecipeError(f"decontaminate.semantic: no row of {path} has any of {', '.join(fields)}")
    items_ND = embedding.unit_rows(embedder, texts)
    for chunk in embedding.chunks(records):
        similar = embedding.unit_rows(embedder, [text_of(record, on) for record in chunk]) @ items_ND.T
        for record, row in zip(chunk, similar, strict=True):
            nearest = int(row.argmax())
            yield record, f"same_meaning:{names[nearest]}" if row[nearest] >= threshold else None
