"""MinHash with an index that stays small: sorted arrays of band keys, merged as they grow.

Legend: S shingles of a document, P permutations, B bands, R rows of a band.
"""

import zlib
from collections.abc import Sequence

import numpy as np

__all__: list[str] = []

_MIX = np.uint64(0x9E3779B97F4A7C15)


def shingles(tokens: Sequence[str], size: int, known: dict[str, int]) -> np.ndarray:
    """Distinct 32-bit hashes of the runs of `size` words, sorted; a shorter text is one. `known` caches words."""
    return np.unique(all_shingles([tokens], size, known)[0])


def all_shingles(documents: Sequence[Sequence[str]], size: int, known: dict[str, int]) -> list[np.ndarray]:
    """The same for many documents in one pass, repetitions left in."""
    flat = [_word_hash(token, known) for tokens in documents for token in tokens]
    mixed = _mixed(np.array(flat, dtype=np.uint64), size)
    found, start = [], 0
    for tokens in documents:
        end = start + len(tokens)
        if len(tokens) >= size or not tokens:
            found.append(mixed[start : max(end - size + 1, start)])
        else:
            found.append(_mixed(np.array(flat[start:end], dtype=np.uint64), len(tokens)))
        start = end
    return found


def _mixed(hashes: np.ndarray, size: int) -> np.ndarray:
    """One hash for each run of `size`, at the place of its first word."""
    mixed = np.zeros(max(len(hashes) - size + 1, 0), dtype=np.uint64)
    for offset in range(size):
        mixed = (mixed ^ hashes[offset : offset + len(mixed)]) * _MIX
        mixed ^= mixed >> np.uint64(29)
    return (mixed >> np.uint64(32)).astype(np.uint32)


def _word_hash(token: str, known: dict[str, int]) -> int:
    value = known.get(token)
    if value is None:
        value = known[token] = zlib.crc32(token.encode("utf-8", "surrogatepass"))
    return value


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Of two sorted sets of distinct hashes."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


def bands(threshold: float, permutations: int, recall: float = 0.99) -> tuple[int, int]:
    """The most rows R per band (fewest false candidates) that still find a pair at the threshold with `recall`."""
    for rows in range(permutations, 1, -1):
        count = permutations // rows
        if 1 - (1 - threshold**rows) ** count >= recall:
            return count, rows
    return permutations, 1


class Signer:
    """Band keys of documents: multiply-shift hashes, the minimum over shingles, mixed per band to 64 bits."""

    def __init__(self, threshold: float, permutations: int, seed: int) -> None:
        self.B, self.R = bands(threshold, permutations)
        rng = np.random.default_rng(seed)
        self._multiplier_P = rng.integers(0, 2**63, size=self.B * self.R, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        self._shift_P = rng.integers(0, 2**63, size=self.B * self.R, dtype=np.uint64)
        self._salt_B = rng.integers(0, 2**63, size=self.B, dtype=np.uint64)

    def keys(self, documents: Sequence[np.ndarray]) -> np.ndarray:
        """The band keys of documents that have shingles, one row each."""
        starts = np.cumsum([0, *(len(shingles_S) for shingles_S in documents[:-1])])
        wide_S1 = np.concatenate(documents).astype(np.uint64)[:, None] * _MIX
        hashed_SP = (wide_S1 * self._multiplier_P + self._shift_P) >> np.uint64(32)
        minimum_NBR = np.minimum.reduceat(hashed_SP, starts, axis=0).reshape(len(documents), self.B, self.R)
        keys_NB = np.broadcast_to(self._salt_B, (len(documents), self.B))
        for row in range(self.R):
            keys_NB = (keys_NB ^ minimum_NBR[:, :, row]) * _MIX
            keys_NB = keys_NB ^ (keys_NB >> np.uint64(31))
        return keys_NB


class Index:
    """Which document first had a band key. Memory: 12 bytes per key, in sorted runs that merge as they grow."""

    def __init__(self) -> None:
        self._fresh: dict[int, int] = {}
        self._runs: list[tuple[np.ndarray, np.ndarray]] = []

    def candidates(self, keys_B: np.ndarray) -> set[int]:
        found = {self._fresh[key] for key in keys_B.tolist() if key in self._fresh}
        for keys, documents in self._runs:
            at = np.searchsorted(keys, keys_B)
            at[at == len(keys)] = 0
            found.update(documents[at[keys[at] == keys_B]].tolist())
        return found

    def add(self, keys_B: np.ndarray, document: int) -> None:
        for key in keys_B.tolist():
            self._fresh.setdefault(key, document)
        if len(self._fresh) >= 1 << 16:
            self._flush()

    def _flush(self) -> None:
        keys = np.fromiter(self._fresh.keys(), dtype=np.uint64, count=len(self._fresh))
        documents = np.fromiter(self._fresh.values(), dtype=np.uint32, count=len(self._fresh))
        self._fresh = {}
        while True:
            order = np.argsort(keys, kind="stable")
            keys, documents = keys[order], documents[order]
            if not self._runs or len(self._runs[-1][0]) > 2 * len(keys):
                break
            older_keys, older_documents = self._runs.pop()
            keys, documents = np.concatenate([older_keys, keys]), np.concatenate([older_documents, documents])
        self._runs.append((keys, documents))
