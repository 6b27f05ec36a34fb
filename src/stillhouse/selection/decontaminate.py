"""Decontamination: nothing that is evaluated on may be trained on."""

import gzip
import json
import random
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np

from stillhouse.errors import RecipeError
from stillhouse.records import Example, Record, user
from stillhouse.selection import embedding
from stillhouse.selection.texts import Side, text_of
from stillhouse.selection.tokens import words

__all__ = ["ngrams", "semantic"]

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_FEWEST = 5  # words of a text that counts as one run


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
    for chunk in embedding.chunks(records):
        for record, hits in zip(chunk, index.of_many([text_of(record, on) for record in chunk]), strict=True):
            yield record, f"overlap:{index.items[hits[0]][0]}" if hits else None


@dataclass(frozen=True, slots=True)
class Overlaps:
    """Sorted hashes of all runs of all items, each beside its owner; `items[owner]` is (file name, row number).

    `numbers` holds the words of the items, counted from 1: a run of a text that has any other word is in no item.
    """

    n: int
    hashes: np.ndarray
    owners: np.ndarray
    items: list[tuple[str, int]]
    numbers: dict[str, int]

    @staticmethod
    def read(paths: Sequence[str], fields: Sequence[str], n: int) -> "Overlaps":
        if n < 5:
            raise RecipeError(f"decontaminate.ngrams: n is {n}; runs of fewer than 5 words are in every text")
        texts = (
            (path.name.split(".")[0], number, text)
            for path in map(Path, paths)
            for number, text in texts_of(path, fields)
        )
        found = Overlaps.of_texts(texts, n)
        if not len(found.hashes):
            raise RecipeError(
                f"decontaminate.ngrams: no row of {', '.join(map(str, paths))} has any of {', '.join(fields)}"
            )
        return found

    @staticmethod
    def of_texts(texts: Iterable[tuple[str, int, str]], n: int) -> "Overlaps":
        """Of (name, number, text); several texts of one item lie beside each other."""
        items: list[tuple[str, int]] = []
        owner: list[int] = []
        documents: list[list[str]] = []
        numbers: dict[str, int] = {}
        for name, number, text in texts:
            tokens = words(text)
            if len(tokens) < _FEWEST:
                continue
            if not items or items[-1] != (name, number):
                items.append((name, number))
            owner.append(len(items) - 1)
            documents.append(tokens)
            for token in tokens:
                numbers.setdefault(token, len(numbers) + 1)
        hashes, of_text = runs(documents, numbers, n)
        owned = np.array(owner, dtype=np.uint32)[of_text]
        order = np.lexsort((owned, hashes))
        hashes, owned = hashes[order], owned[order]
        again = np.zeros(len(hashes), dtype=bool)
        again[1:] = (hashes[1:] == hashes[:-1]) & (owned[1:] == owned[:-1])
        return Overlaps(n, hashes[~again], owned[~again], items, numbers)

    def of(self, text: str) -> list[int]:
        """Positions in `items` of the evaluation items that a text shares a run with."""
        return self.of_many([text])[0]

    def of_many(self, texts: Sequence[str]) -> list[list[int]]:
        """The same for many texts, looked up at once."""
        found: list[list[int]] = [[] for _ in texts]
        flat, of_text = runs(map(words, texts), self.numbers, self.n)
        if not len(self.hashes) or not len(flat):
            return found
        at = np.searchsorted(self.hashes, flat)
        at[at == len(self.hashes)] = 0
        hits = np.flatnonzero(self.hashes[at] == flat)
        ends_at = np.searchsorted(self.hashes, flat[hits], side="right")  # one run may stand in several items
        for text, first, end in zip(of_text[hits].tolist(), at[hits].tolist(), ends_at.tolist(), strict=True):
            found[text].extend(self.owners[first:end].tolist())
        return [sorted(set(each)) if each else each for each in found]

    def share(self, texts: Iterable[str]) -> float:
        """The share of texts that hit anything: on texts that cannot be contaminated, the false-positive rate."""
        hits = [bool(each) for each in self.of_many(list(texts))]
        return sum(hits) / len(hits) if hits else 0.0


def runs(documents: Iterable[Sequence[str]], numbers: Mapping[str, int], n: int) -> tuple[np.ndarray, np.ndarray]:
    """64-bit hashes of the runs of n numbered words, and in which document each stands.

    A document of 5 to n - 1 words is one run. A run with a word that has no number is left out.
    """
    numbered, lengths = array("Q"), list[int]()
    for tokens in documents:
        numbered.extend(map(numbers.get, tokens, repeat(0)))
        lengths.append(len(tokens))
    flat_W, lengths_D = np.frombuffer(numbered, dtype=np.uint64), np.array(lengths, dtype=np.int64)
    of_document_W = np.repeat(np.arange(len(lengths)), lengths_D)
    starts_D = np.cumsum(lengths_D) - lengths_D
    unknown_W = np.zeros(len(flat_W) + 1, dtype=np.int64)  # how many words without a number stand before
    np.cumsum(flat_W == 0, out=unknown_W[1:])
    found = []
    for length in range(_FEWEST, n + 1):
        if length < n:
            starts = starts_D[lengths_D == length]
        else:
            last_W = np.arange(max(len(flat_W) - n + 1, 0))
            starts = last_W[of_document_W[: len(last_W)] == of_document_W[n - 1 :][: len(last_W)]]
        starts = starts[unknown_W[starts + length] == unknown_W[starts]]
        found.append((_mixed(flat_W, starts, length), of_document_W[starts]))
    hashes, of_document = (np.concatenate(each) for each in zip(*found, strict=True))
    return hashes, of_document


def _mixed(numbers_W: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    mixed = np.zeros(len(starts), dtype=np.uint64)
    for offset in range(length):
        mixed ^= numbers_W[starts + offset]
        mixed *= _MULTIPLIER
        mixed ^= mixed >> np.uint64(32)
    return mixed


def chance(records: Sequence[Record], count: int = 1000, seed: int = 0) -> list[Example]:
    """Texts that cannot be contaminated: words of the records put together by chance, in their lengths.

    What a decontaminating selector drops of them is its false-positive rate. Source: 12.7 (contamination scan), peers 5.10.
    """
    draw = random.Random(seed)
    texts = [words(text_of(record, "both")) for record in records]
    pool = [word for tokens in texts for word in tokens]
    if not pool:
        return []
    made = []
    for number in range(count):
        text = " ".join(draw.choices(pool, k=max(len(texts[number % len(texts)]), 1)))
        made.append(Example(f"chance-{number}", user(text), text))
    return made


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
