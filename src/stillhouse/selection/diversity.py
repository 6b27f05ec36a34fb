"""Diversity: few records that cover what many say.

Legend: N records, K kept, D dimensions. Embeddings are held (4 N D bytes), records are read twice.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from stillhouse.errors import RecipeError
from stillhouse.records import Record
from stillhouse.selection import embedding
from stillhouse.selection.quality import score_of
from stillhouse.selection.texts import Side, replayed, text_of

__all__ = ["by_score", "facility_location", "k_center"]


def k_center(
    records: Iterable[Record], *, model: str, keep: int, on: Side = "prompt"
) -> Iterator[tuple[Record, str | None]]:
    """Keeps `keep` records so that no other lies far from all of them: farthest first, beginning nearest to the mean.

    Cosine distance of a static embedder's rows; a greedy choice is within twice the best radius. Reason: "covered".
    Sources: R60 (WaveCoder), O1 (MoDS).
    """
    records = replayed(records)
    rows_ND = _embedded(records, model, on)
    return _kept(records, set(farthest_first(rows_ND, keep)), "covered")


def farthest_first(rows_ND: np.ndarray, keep: int) -> list[int]:
    """Indices in the order of choice."""
    if not len(rows_ND) or keep < 1:
        return []
    chosen = [int(np.argmax(rows_ND @ rows_ND.mean(axis=0)))]
    nearest_N = rows_ND @ rows_ND[chosen[0]]
    while len(chosen) < min(keep, len(rows_ND)):
        nearest_N[chosen[-1]] = np.inf
        chosen.append(int(np.argmin(nearest_N)))
        nearest_N = np.maximum(nearest_N, rows_ND @ rows_ND[chosen[-1]])
    return chosen


def facility_location(
    records: Iterable[Record], *, model: str, keep: int, on: Side = "prompt"
) -> Iterator[tuple[Record, str | None]]:
    """Keeps `keep` records whose summed similarity to everything is greedily the largest.

    Maximises the sum over all records of the cosine to the nearest kept one (negative ones count as 0), which
    favours what is typical where `k_center` favours what is rare. N^2 products once, then few per choice. Reason:
    "covered". Source: R15 (Superfiltering's diversity pass).
    """
    records = replayed(records)
    rows_ND = _embedded(records, model, on)
    return _kept(records, set(most_typical(rows_ND, keep)), "covered")


def most_typical(rows_ND: np.ndarray, keep: int) -> list[int]:
    """Lazy greedy: gains only shrink as the set grows, so a stale gain is an upper bound."""
    covered_N = np.zeros(len(rows_ND), dtype=np.float32)
    gains: list[tuple[float, int]] = []
    for start in range(0, len(rows_ND), 512):
        block = np.clip(rows_ND[start : start + 512] @ rows_ND.T, 0, None).sum(axis=1)
        gains.extend((-float(gain), start + i) for i, gain in enumerate(block))
    heapq.heapify(gains)
    chosen: list[int] = []
    while gains and len(chosen) < keep:
        _, candidate = heapq.heappop(gains)
        similar_N = np.clip(rows_ND @ rows_ND[candidate], 0, None)
        gain = float(np.clip(similar_N - covered_N, 0, None).sum())
        if gains and gain < -gains[0][0] - 1e-6:
            heapq.heappush(gains, (-gain, candidate))
            continue
        chosen.append(candidate)
        covered_N = np.maximum(covered_N, similar_N)
    return chosen


def by_score(
    records: Iterable[Record],
    *,
    model: str,
    keep: int,
    columns: Sequence[str] = ("complexity", "quality"),
    threshold: float = 0.9,
    on: Side = "both",
) -> Iterator[tuple[Record, str | None]]:
    """Takes records in the order of their score, skipping what resembles one already taken, until `keep` are taken.

    The score is the product of `columns`, which earlier steps wrote; a record that lacks one is dropped as
    "no_score", never given a default. Too similar is a cosine of at least `threshold`. Other reasons:
    "same_meaning", "low_score". Source: R15 (DEITA: complexity times quality, cosine below 0.9).
    """
    if not columns:
        raise RecipeError("diversity.by_score: columns is empty; name the columns whose product is the score")
    records = replayed(records)
    rows_ND = _embedded(records, model, on)
    scores = [_product(record, columns) for record in records]
    order = sorted((i for i, value in enumerate(scores) if value is not None), key=lambda i: (-(scores[i] or 0), i))
    taken: list[int] = []
    reasons: dict[int, str] = {}
    for i in order:
        if len(taken) == keep:
            reasons[i] = "low_score"
        elif taken and float((rows_ND[taken] @ rows_ND[i]).max()) >= threshold:
            reasons[i] = "same_meaning"
        else:
            taken.append(i)
    for i, record in enumerate(records):
        yield record, "no_score" if scores[i] is None else reasons.get(i)


def _product(record: Record, columns: Sequence[str]) -> float | None:
    product = 1.0
    for column in columns:
        value = score_of(record, column)
        if value is None:
            return None
        product *= value
    return product


def _embedded(records: Iterable[Record], model: str, on: Side) -> np.ndarray:
    embedder = embedding.load(model)
    blocks = [
        embedding.unit_rows(embedder, [text_of(record, on) for record in chunk]) for chunk in embedding.chunks(records)
    ]
    return np.concatenate(blocks) if blocks else np.empty((0, 1), dtype=np.float32)


def _kept(records: Iterable[Record], chosen: set[int], reason: str) -> Iterator[tuple[Record, str | None]]:
    for number, record in enumerate(records):
        yield record, None if number in chosen else reason
