"""Duplicates and near-duplicates: the first of them is kept."""

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np

from stillhouse.errors import RecipeError
from stillhouse.records import Example, Record
from stillhouse.selection import embedding
from stillhouse.selection.minhash import NearDuplicates, shingled
from stillhouse.selection.novelty import Pool
from stillhouse.selection.texts import Side, replayed, text_of
from stillhouse.selection.tokens import words

_CHARACTERS_AT_ONCE, _TEXTS_AT_ONCE = 1 << 19, 1 << 14

__all__ = ["conflicting", "exact", "minhash", "rouge", "semantic"]


def exact(
    records: Iterable[Record], *, on: Side = "both", ignore_whitespace: bool = False
) -> Iterator[tuple[Record, str | None]]:
    """Drops a record whose text was seen before, character by character.

    `ignore_whitespace` compares without any white space, as code sets do (R60). Memory: 16 bytes of hash per distinct
    text (about 100 bytes in a Python set). Reason: "duplicate".
    """
    seen: set[bytes] = set()
    for record in records:
        text = text_of(record, on)
        if ignore_whitespace:
            text = "".join(text.split())
        digest = _digest(text)
        yield record, "duplicate" if digest in seen else None
        seen.add(digest)


def conflicting(records: Iterable[Example], *, at_most: int = 1) -> Iterator[tuple[Example, str | None]]:
    """Drops all examples of a prompt that has more than `at_most` different answers: at least one of them is wrong.

    For sets with one answer to a prompt (instances of a task), not for samples that are to be ranked. Read twice; held: a hash
    per prompt and answer. Reason: "conflicting". Source: R01 (same input, different outputs: the task is dropped).
    """
    again = replayed(records)
    answers: dict[bytes, set[bytes]] = {}
    for record in again:
        answers.setdefault(_digest(text_of(record, "prompt")), set()).add(_digest(text_of(record, "response").strip()))
    for record in again:
        several = len(answers[_digest(text_of(record, "prompt"))]) > at_most
        yield record, "conflicting" if several else None  # type: ignore[misc]


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def rouge(
    records: Iterable[Record], *, threshold: float = 0.7, on: Side = "prompt"
) -> Iterator[tuple[Record, str | None]]:
    """Drops a record whose text has a ROUGE-L F1 above `threshold` with one kept before.

    0.7 is Self-Instruct's. Words of any script count; an empty text resembles nothing. Memory: about four bytes per
    word kept, and the index. Reason: "not_novel". Sources: R01, R02, R12.
    """
    _between_0_and_1(threshold, "dedup.rouge")
    pool = Pool(threshold)
    for record in records:
        tokens = words(text_of(record, on))
        if pool.nearest(tokens) is not None:
            yield record, "not_novel"
            continue
        pool.add(tokens)
        yield record, None


def minhash(
    records: Iterable[Record],
    *,
    threshold: float = 0.8,
    shingle: int = 3,
    permutations: int = 128,
    on: Side = "both",
    seed: int = 0,
) -> Iterator[tuple[Record, str | None]]:
    """Drops a record whose word shingles have a Jaccard similarity of at least `threshold` with one kept before.

    Candidates come from MinHash bands chosen to find 99 % of pairs at the threshold; each is verified with the true
    Jaccard of its `shingle`-word runs, so nothing below the threshold is ever dropped. Memory per kept record: 8
    bytes per distinct band key and 4 per shingle. Reason: "near_duplicate". Source: R60.
    """
    _between_0_and_1(threshold, "dedup.minhash")
    resembles = NearDuplicates(threshold, permutations, seed)

    def judged(batch: list[Record], texts: list[str]) -> Iterator[tuple[Record, str | None]]:
        for record, near in zip(batch, resembles(shingled(texts, shingle)).tolist(), strict=True):
            yield record, "near_duplicate" if near else None

    batch: list[Record] = []  # so many at a time that they are looked up at once and held in some megabytes
    texts: list[str] = []
    held = 0
    for record in records:
        text = text_of(record, on)
        batch.append(record)
        texts.append(text)
        held += len(text) + 1
        if held >= _CHARACTERS_AT_ONCE or len(batch) >= _TEXTS_AT_ONCE:
            yield from judged(batch, texts)
            batch, texts, held = [], [], 0
    yield from judged(batch, texts)


def semantic(
    records: Iterable[Record], *, model: str, threshold: float = 0.9, on: Side = "prompt"
) -> Iterator[tuple[Record, str | None]]:
    """Drops a record whose embedding has a cosine of at least `threshold` with one kept before.

    `model` is a static embedder (model2vec format, needs stillhouse[semantic]). Every kept row is compared with:
    exact, and fast to some 10^5 rows. Reason: "same_meaning". Source: R15 (DEITA's 0.9), O1.
    """
    _between_0_and_1(threshold, "dedup.semantic")
    embedder = embedding.load(model)
    kept: embedding.Grown | None = None
    for chunk in embedding.chunks(records):
        rows = embedding.unit_rows(embedder, [text_of(record, on) for record in chunk])
        kept = kept or embedding.Grown(rows.shape[1])
        start = len(kept.rows)
        nearest = (rows @ kept.rows.T).max(axis=1) if start else np.full(len(chunk), -1.0)
        for record, row, similarity in zip(chunk, rows, nearest, strict=True):
            here = kept.rows[start:]
            if max(similarity, float((here @ row).max()) if len(here) else -1.0) >= threshold:
                yield record, "same_meaning"
                continue
            kept.add(row)
            yield record, None


def _between_0_and_1(threshold: float, where: str) -> None:
    if not 0 < threshold <= 1:
        raise RecipeError(f"{where}: threshold is {threshold}; write a number above 0, up to 1")
