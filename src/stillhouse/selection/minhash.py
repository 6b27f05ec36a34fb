"""MinHash in batches, with an index that stays small: sorted arrays of band keys, merged as they grow.

Legend: N documents, S shingles of a document, P permutations, B bands, R rows of a band.
"""

import zlib
from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import count

import numpy as np

__all__: list[str] = []

_MIX = np.uint64(0x9E3779B97F4A7C15)
_SHINGLES_AT_ONCE = 1 << 11  # a megabyte of hashes at 128 permutations
_WORDS_KNOWN = 1 << 20


class Shingler:
    """The shingles of many documents in one pass, repetitions left in: read each, then take what was read."""

    def __init__(self, size: int) -> None:
        # a word is known by its number, counted as it first comes: no Python is run for a word that came before
        self._size, self._known = size, defaultdict[str, int](count().__next__)
        self._words, self._lengths = array("Q"), list[int]()

    def __len__(self) -> int:
        """How many words were read and not taken."""
        return len(self._words)

    def read(self, tokens: Sequence[str]) -> None:
        known = self._known
        if len(known) < _WORDS_KNOWN:
            self._words.extend(map(known.__getitem__, tokens))
        else:  # a vocabulary has no end: what comes late is hashed each time
            self._words.extend([known[token] if token in known else _hashed(token) for token in tokens])
        self._lengths.append(len(tokens))

    def take(self) -> list[np.ndarray]:
        """The shingles of the documents read since the last time, in their order."""
        size, flat = self._size, np.frombuffer(self._words, dtype=np.uint64)
        mixed = _mixed(flat, size)
        found, start = [], 0
        for length in self._lengths:
            if length >= size or not length:
                found.append(mixed[start : start + max(length - size + 1, 0)])
            else:
                found.append(_mixed(flat[start : start + length], length))
            start += length
        self._words, self._lengths = array("Q"), []
        return found


def _hashed(token: str) -> int:
    return zlib.crc32(token.encode("utf-8", "surrogatepass")) | 1 << 32


def _mixed(hashes: np.ndarray, size: int) -> np.ndarray:
    """One hash for each run of `size`, at the place of its first word."""
    mixed = np.zeros(max(len(hashes) - size + 1, 0), dtype=np.uint64)
    for offset in range(size):
        mixed = (mixed ^ hashes[offset : offset + len(mixed)]) * _MIX
        mixed ^= mixed >> np.uint64(29)
    return (mixed >> np.uint64(32)).astype(np.uint32)


def jaccard(a: set[int], b: set[int]) -> float:
    """Of two sets of hashes, the shared among all."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


def bands(threshold: float, permutations: int, recall: float = 0.99) -> tuple[int, int]:
    """The most rows R per band (fewest false candidates), and then the fewest bands B, that find a pair with `recall`."""
    for rows in range(permutations, 1, -1):
        for number in range(1, permutations // rows + 1):
            if 1 - (1 - threshold**rows) ** number >= recall:
                return number, rows
    return permutations, 1


class Signer:
    """Band keys of documents: linear hashes modulo 2^32, the minimum over shingles, mixed per band to 64 bits."""

    def __init__(self, threshold: float, permutations: int, seed: int) -> None:
        self.B, self.R = bands(threshold, permutations)
        rng = np.random.default_rng(seed)
        # 32 bits: processors multiply eight of these at once and no 64-bit ones
        self._multiplier_P = rng.integers(0, 2**31, size=self.B * self.R, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
        self._shift_P = rng.integers(0, 2**32, size=self.B * self.R, dtype=np.uint32)
        self._salt_B = rng.integers(0, 2**63, size=self.B, dtype=np.uint64)

    def keys(self, documents: Sequence[np.ndarray]) -> np.ndarray:
        """The band keys of documents that have shingles, one row each."""
        parts = [self._keys(part) for part in _by_size(documents)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _keys(self, documents: Sequence[np.ndarray]) -> np.ndarray:
        starts = np.zeros(len(documents), dtype=np.int64)
        np.cumsum([len(shingles_S) for shingles_S in documents[:-1]], out=starts[1:])
        hashed_SP = np.multiply.outer(np.concatenate(documents), self._multiplier_P)
        hashed_SP += self._shift_P
        minimum_NP = np.minimum.reduceat(hashed_SP, starts, axis=0).astype(np.uint64)
        minimum_NBR = minimum_NP.reshape(len(documents), self.B, self.R)
        keys_NB = np.broadcast_to(self._salt_B, (len(documents), self.B))
        for row in range(self.R):
            keys_NB = (keys_NB ^ minimum_NBR[:, :, row]) * _MIX
            keys_NB = keys_NB ^ (keys_NB >> np.uint64(31))
        return keys_NB


def _by_size(documents: Sequence[np.ndarray]) -> Iterator[Sequence[np.ndarray]]:
    """Documents in parts whose hashes fit a processor's cache."""
    start = held = 0
    for end, shingles_S in enumerate(documents):
        held += len(shingles_S)
        if held > _SHINGLES_AT_ONCE and end > start:
            yield documents[start:end]
            start, held = end, len(shingles_S)
    yield documents[start:]


class Index:
    """Which document first had a band key. Memory: 12 bytes per distinct key, in sorted runs that merge as they grow."""

    def __init__(self) -> None:
        self._runs: list[tuple[np.ndarray, np.ndarray]] = []

    def owners(self, keys_NB: np.ndarray) -> np.ndarray:
        """The document of each key, -1 where it is new; keys of any shape."""
        return self.looked_up(keys_NB)[0]

    def looked_up(self, keys_NB: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The document of each key, -1 where it is new, and which keys stand in the array more than once."""
        flat = keys_NB.ravel()
        order = np.argsort(flat)
        wanted, found = flat[order], np.full(len(flat), -1, dtype=np.int64)
        equal = wanted[1:] == wanted[:-1]
        twice = np.zeros(len(flat), dtype=bool)
        twice[order[1:][equal]] = True
        twice[order[:-1][equal]] = True
        for keys, documents in self._runs:
            at = np.searchsorted(keys, wanted)
            at[at == len(keys)] = 0
            hit = np.flatnonzero((keys[at] == wanted) & (found < 0))
            found[hit] = documents[at[hit]]
        out = np.empty_like(found)
        out[order] = found
        return out.reshape(keys_NB.shape), twice.reshape(keys_NB.shape)

    def add(self, keys: np.ndarray, documents: np.ndarray) -> None:
        """Keys that it does not hold yet, in the order of their documents; of equal ones the first counts."""
        keys, first = np.unique(keys, return_index=True)
        documents = documents[first].astype(np.uint32)
        while self._runs and len(self._runs[-1][0]) <= 4 * len(keys):
            older_keys, older_documents = self._runs.pop()
            keys, documents = np.concatenate([older_keys, keys]), np.concatenate([older_documents, documents])
            order = np.argsort(keys, kind="stable")  # two sorted halves: a merge
            keys, documents = keys[order], documents[order]
        if len(keys):
            self._runs.append((keys, documents))


class Kept:
    """The shingles of kept documents in one array: four bytes a shingle and eight a document."""

    def __init__(self) -> None:
        self._flat = np.empty(1 << 12, dtype=np.uint32)
        self._ends = array("q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, document: int) -> np.ndarray:
        return self._flat[self._ends[document] : self._ends[document + 1]]

    def add(self, documents: Sequence[np.ndarray]) -> None:
        start = self._ends[-1]
        lengths = list(map(len, documents))
        end = start + sum(lengths)
        if end > len(self._flat):
            self._flat = np.concatenate([self._flat[:start], np.empty(max(end, len(self._flat)), dtype=np.uint32)])
        if documents:
            np.concatenate(documents, out=self._flat[start:end])
        self._ends.extend((start + np.cumsum(lengths)).tolist())


class NearDuplicates:
    """Tells of documents, batch by batch, which resemble one kept before: candidates by bands, verified by true Jaccard.

    A whole batch is looked up at once; only documents that share a band key with another are looked at one by one.
    """

    def __init__(self, threshold: float, permutations: int, seed: int) -> None:
        self._threshold = threshold
        self._signer, self._index, self._kept = Signer(threshold, permutations, seed), Index(), Kept()

    def __call__(self, documents: Sequence[np.ndarray]) -> list[bool]:
        """For each document's shingles (repetitions allowed) whether it is a near-duplicate; one without any never is."""
        rows = [row for row, shingles_S in enumerate(documents) if len(shingles_S)]
        near = [False] * len(documents)
        if not rows:
            return near
        keys_NB = self._signer.keys([documents[row] for row in rows])
        owners_NB, twice_NB = self._index.looked_up(keys_NB)
        local: dict[int, int] = {}
        doubtful = np.flatnonzero(((owners_NB >= 0) | twice_NB).any(axis=1))
        for n in doubtful.tolist():
            shared = keys_NB[n][twice_NB[n]].tolist()
            here = {local[key] for key in shared if key in local}
            before = np.unique(owners_NB[n][owners_NB[n] >= 0]).tolist()
            own = set(documents[rows[n]].tolist())
            others = [documents[rows[other]] for other in here] + [self._kept[other] for other in before]
            if any(jaccard(own, set(other.tolist())) >= self._threshold for other in others):
                near[rows[n]] = True
                continue
            for key in shared:
                local.setdefault(key, n)
        self._take([n for n in range(len(rows)) if not near[rows[n]]], rows, documents, keys_NB, owners_NB)
        return near

    def _take(
        self,
        kept: list[int],
        rows: list[int],
        documents: Sequence[np.ndarray],
        keys_NB: np.ndarray,
        owners_NB: np.ndarray,
    ) -> None:
        first = len(self._kept)
        self._kept.add([documents[rows[n]] for n in kept])
        new_NB = owners_NB[kept] < 0
        numbers_NB = np.broadcast_to(np.arange(first, first + len(kept))[:, None], new_NB.shape)
        self._index.add(keys_NB[kept][new_NB], numbers_NB[new_NB])
