"""Decontamination: nothing that is evaluated on may be trained on."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stillhouse.errors import RecipeError
from stillhouse.records import Example, Record, user
from stillhouse.rows import rows
from stillhouse.selection import embedding
from stillhouse.selection.hashing import Runs, words_of
from stillhouse.selection.texts import Side, text_of
from stillhouse.selection.tokens import words

__all__ = ["ngrams", "semantic"]

_FEWEST = 5  # words of a text that counts as one run
_ROOM = 8  # marks for each hash: a run that is in no item is taken for one that may be about once in eight times


def ngrams(
    records: Iterable[Record],
    *,
    path: str | Sequence[str],
    fields: Sequence[str] = ("prompt", "question", "reference", "answer", "text"),
    n: int = 10,
    on: Side = "both",
) -> Iterator[tuple[Record, str | None]]:
    """Drops a record that shares a run of `n` words with an evaluation item.

    `path` names files of evaluation sets (JSONL, also .gz, JSON, CSV, TSV, Parquet), `fields` the columns of theirs to
    look at (those a row has); a text shorter than `n` words counts as one run when it has at least five. 64-bit
    hashes: false hits are below one in 10^9 runs. Reason: "overlap:<file name>". `Overlaps.of` tells the items.
    Sources: R11, R60.
    """
    index = Overlaps.read([path] if isinstance(path, str | Path) else path, fields, n)
    for chunk in embedding.chunks(records):
        for record, hits in zip(chunk, index.of_many([text_of(record, on) for record in chunk]), strict=True):
            yield record, f"overlap:{index.items[hits[0]][0]}" if hits else None


@dataclass(frozen=True, slots=True)
class Overlaps:
    """Sorted hashes of all runs of all items, each beside its owner; `items[owner]` is (file name, row number).

    `seen` marks the leading bits of the hashes: most runs of a text are in no item, and one look tells so.
    """

    n: int
    hashes: np.ndarray
    owners: np.ndarray
    items: list[tuple[str, int]]
    seen: np.ndarray

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
        hashes, owners = [np.empty(0, dtype=np.uint64)], [np.empty(0, dtype=np.uint32)]
        for chunk in embedding.chunks(texts):
            owner = []
            for name, number, _ in chunk:
                if not items or items[-1] != (name, number):
                    items.append((name, number))
                owner.append(len(items) - 1)
            of_chunk, of_text = runs([text for _, _, text in chunk], n)
            hashes.append(of_chunk)
            owners.append(np.array(owner, dtype=np.uint32)[of_text])
        flat, owned = np.concatenate(hashes), np.concatenate(owners)
        order = np.lexsort((owned, flat))
        flat, owned = flat[order], owned[order]
        again = np.zeros(len(flat), dtype=bool)
        again[1:] = (flat[1:] == flat[:-1]) & (owned[1:] == owned[:-1])
        seen = np.zeros(1 << max(int(len(flat) * _ROOM).bit_length(), 1), dtype=bool)
        seen[_leading(flat, seen)] = True
        return Overlaps(n, flat[~again], owned[~again], items, seen)

    def of(self, text: str) -> tuple[int, ...]:
        """Positions in `items` of the evaluation items that a text shares a run with."""
        return self.of_many([text])[0]

    def of_many(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """The same for many texts, looked up at once."""
        found: list[tuple[int, ...]] = [()] * len(texts)
        flat, of_text = runs(texts, self.n)
        likely = np.flatnonzero(self.seen[_leading(flat, self.seen)])
        if not len(likely):
            return found
        flat, of_text = flat[likely], of_text[likely]
        at = np.searchsorted(self.hashes, flat)
        at[at == len(self.hashes)] = 0
        hits = np.flatnonzero(self.hashes[at] == flat)
        ends_at = np.searchsorted(self.hashes, flat[hits], side="right")  # one run may stand in several items
        owners: dict[int, set[int]] = {}
        for text, first, end in zip(of_text[hits].tolist(), at[hits].tolist(), ends_at.tolist(), strict=True):
            owners.setdefault(text, set()).update(self.owners[first:end].tolist())
        for text, those in owners.items():
            found[text] = tuple(sorted(those))
        return found

    def share(self, texts: Iterable[str]) -> float:
        """The share of texts that hit anything: on texts that cannot be contaminated, the false-positive rate."""
        hits = [bool(each) for each in self.of_many(list(texts))]
        return sum(hits) / len(hits) if hits else 0.0


def _leading(hashes: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """The place of each hash among marks, whose number is a power of two."""
    return (hashes >> np.uint64(65 - len(marked).bit_length())).astype(np.int64)


def runs(texts: Sequence[str], n: int) -> tuple[np.ndarray, np.ndarray]:
    """64-bit hashes of the runs of n words, and in which text each stands. A text of 5 to n - 1 words is one run."""
    words_W, lengths_D = words_of(texts)
    numbers, of_text_W = Runs(words_W), np.repeat(np.arange(len(texts)), lengths_D)
    starts_D = np.cumsum(lengths_D) - lengths_D
    starts = np.flatnonzero(of_text_W[n - 1 :] == of_text_W[: max(len(of_text_W) - n + 1, 0)])
    hashes, owners = [numbers.at(starts, n)], [of_text_W[starts]]
    for length in range(_FEWEST, n):
        short = np.flatnonzero(lengths_D == length)
        hashes.append(numbers.at(starts_D[short], length))
        owners.append(short)
    return np.concatenate(hashes), np.concatenate(owners)


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
    """Row numbers and the texts of a file of evaluation items."""
    for number, row in rows(path):
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
