"""MinHash in batches, with an index that stays small: sorted arrays of band keys, merged as they grow.

Legend: D documents, S shingles of all documents, P permutations, B bands, R rows of a band, K keys.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stillhouse.selection.hashing import Runs, words_of

__all__: list[str] = []

_DOCUMENT = np.uint64(28)  # bits of an entry of the index that name the document; the other 36 are the key
_OF_DOCUMENT = (np.uint64(1) << _DOCUMENT) - np.uint64(1)


@dataclass(frozen=True, slots=True)
class Shingles:
    """The shingles of documents one after the other, repetitions left in, and where each document's end."""

    flat_S: np.ndarray
    ends_D: np.ndarray

    def __len__(self) -> int:
        return len(self.ends_D)

    def __getitem__(self, document: int) -> np.ndarray:
        return self.flat_S[self.ends_D[document - 1] if document else 0 : self.ends_D[document]]

    @property
    def counts(self) -> np.ndarray:
        return np.diff(self.ends_D, prepend=0)

    def of(self, chosen_D: np.ndarray) -> "Shingles":
        """Those of the documents that are marked."""
        counts = self.counts
        return Shingles(self.flat_S[np.repeat(chosen_D, counts)], np.cumsum(counts[chosen_D]))


def shingled(texts: Sequence[str], size: int) -> Shingles:
    """32-bit numbers of the runs of `size` words; a text with fewer words is one run."""
    words_W, lengths_D = words_of(texts)
    starts_D, counts_D = np.cumsum(lengths_D) - lengths_D, np.where(lengths_D, np.maximum(lengths_D - size + 1, 1), 0)
    ends_D, runs = np.cumsum(counts_D), Runs(words_W)
    numbers_S = np.empty(int(counts_D.sum()), dtype=np.uint64)
    words_S = np.arange(len(numbers_S)) + np.repeat(starts_D - ends_D + counts_D, counts_D)
    whole_S = np.repeat(lengths_D >= size, counts_D)
    numbers_S[whole_S] = runs.at(words_S[whole_S], size)
    for length in range(1, size):
        short = np.flatnonzero(lengths_D == length)
        numbers_S[ends_D[short] - 1] = runs.at(starts_D[short], length)
    return Shingles((numbers_S >> np.uint64(32)).astype(np.uint32), ends_D)


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
    """Band keys of documents: multiples modulo 2^32, the minimum over shingles, mixed per band."""

    def __init__(self, threshold: float, permutations: int, seed: int) -> None:
        self.B, self.R = bands(threshold, permutations)
        rng = np.random.default_rng(seed)
        # 32 bits: processors multiply eight of these at once and no 64-bit ones. The shingles are hashes: adding to them
        # what a linear hash adds would change nothing
        self._multiplier_P = rng.integers(0, 2**31, size=self.B * self.R, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
        self._multiplier_R = rng.integers(0, 2**63, size=self.R, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        self._salt_B = rng.integers(0, 2**63, size=self.B, dtype=np.uint64)

    def keys(self, shingles: Shingles) -> np.ndarray:
        """The band keys [B, D] of documents that have shingles, in the upper 36 bits."""
        keys_BD = np.repeat(self._salt_B[:, None], len(shingles), axis=1)
        hashed_S, starts_D = np.empty_like(shingles.flat_S), shingles.ends_D - shingles.counts
        minimum_D = np.empty(len(shingles), dtype=np.uint32)
        for band, keys_D in enumerate(
            keys_BD
        ):  # one permutation after the other: all of it stays in a processor's cache
            for row in range(self.R):
                np.multiply(shingles.flat_S, self._multiplier_P[band * self.R + row], out=hashed_S)
                np.minimum.reduceat(hashed_S, starts_D, out=minimum_D)
                keys_D += minimum_D * self._multiplier_R[row]
        return keys_BD & ~_OF_DOCUMENT


class Index:
    """Which document first had a band key. Memory: 8 bytes per distinct key, in sorted runs that merge as they grow."""

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []

    def owners(self, keys: np.ndarray) -> np.ndarray:
        """The document of each of the keys, which are sorted; -1 where one is new."""
        found = np.full(len(keys), -1, dtype=np.int64)
        for run in self._runs:
            at = np.searchsorted(run, keys)
            at[at == len(run)] = 0
            entries = run[at]
            hit = np.flatnonzero(((entries ^ keys) <= _OF_DOCUMENT) & (found < 0))
            found[hit] = (entries[hit] & _OF_DOCUMENT).astype(np.int64)
        return found

    def add(self, keys: np.ndarray, documents: np.ndarray) -> None:
        """Keys that it does not hold yet, each once and sorted, with their documents."""
        entries = keys | documents.astype(np.uint64)
        while self._runs and len(self._runs[-1]) <= 4 * len(entries):
            entries = _merged(self._runs.pop(), entries)
        if len(entries):
            self._runs.append(entries)


def _merged(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    merged = np.concatenate([a, b])
    merged.sort()
    return merged


class Kept:
    """The shingles of kept documents in one array: four bytes a shingle and eight a document."""

    def __init__(self) -> None:
        self._flat = np.empty(1 << 12, dtype=np.uint32)
        self._ends = array("q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, document: int) -> np.ndarray:
        return self._flat[self._ends[document] : self._ends[document + 1]]

    def add(self, shingles: Shingles) -> None:
        start = self._ends[-1]
        end = start + len(shingles.flat_S)
        if end > len(self._flat):
            self._flat = np.concatenate([self._flat[:start], np.empty(max(end, len(self._flat)), dtype=np.uint32)])
        self._flat[start:end] = shingles.flat_S
        self._ends.frombytes((start + shingles.ends_D).astype(np.int64).tobytes())


class NearDuplicates:
    """Tells of documents, batch by batch, which resemble one kept before: candidates by bands, verified by true Jaccard.

    A whole batch is looked up at once; only documents that share a band key with another are looked at one by one.
    """

    def __init__(self, threshold: float, permutations: int, seed: int) -> None:
        self._threshold = threshold
        self._signer, self._index, self._kept = Signer(threshold, permutations, seed), Index(), Kept()

    def __call__(self, documents: Shingles) -> np.ndarray:
        """For each document whether it is a near-duplicate; one without any shingle never is."""
        some_D = documents.counts > 0
        near_D = np.zeros(len(documents), dtype=bool)
        if some_D.any():
            near_D[some_D] = self._among(documents if some_D.all() else documents.of(some_D))
        return near_D

    def _among(self, documents: Shingles) -> np.ndarray:
        keys_BD = self._signer.keys(documents)
        B, D = keys_BD.shape
        # a key and its place in one number: numbers are sorted several times as fast as places by their keys
        sorted_K = (keys_BD | np.arange(B * D, dtype=np.uint64).reshape(D, B).T).ravel()
        sorted_K.sort()
        places_K = (sorted_K & _OF_DOCUMENT).astype(np.int64)
        keys_K = sorted_K & ~_OF_DOCUMENT
        owners_K, again_K = self._index.owners(keys_K), keys_K[1:] == keys_K[:-1]
        near_D = self._verified(documents, places_K, owners_K, again_K, B)
        kept_D = ~near_D
        numbers_D = np.cumsum(kept_D) - 1 + len(self._kept)
        new = np.flatnonzero((owners_K < 0) & kept_D[places_K // B])
        new = new[np.concatenate([[True], keys_K[new[1:]] != keys_K[new[:-1]]])] if len(new) else new
        self._index.add(keys_K[new], numbers_D[places_K[new] // B])
        self._kept.add(documents.of(kept_D))
        return near_D

    def _verified(
        self, documents: Shingles, places_K: np.ndarray, owners_K: np.ndarray, again_K: np.ndarray, bands: int
    ) -> np.ndarray:
        """Looks at the documents one by one, in their order, that have a key of a document kept before or of this batch."""
        near_D = np.zeros(len(documents), dtype=bool)
        shared_K = np.zeros(len(places_K), dtype=bool)
        shared_K[1:] = again_K
        shared_K[:-1] |= again_K
        telling = np.flatnonzero(shared_K | (owners_K >= 0))
        if not len(telling):
            return near_D
        telling = telling[np.argsort(places_K[telling])]
        groups = np.cumsum(np.concatenate([[True], ~again_K]))[telling] * shared_K[telling]
        rows = places_K[telling] // bands
        starts = np.flatnonzero(np.diff(rows, prepend=-1)).tolist()
        local: dict[int, int] = {}
        for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
            row = int(rows[start])
            shared = [group for group in groups[start:end].tolist() if group]
            here = {local[group] for group in shared if group in local}
            before = set(owners_K[telling[start:end]].tolist()) - {-1}
            others = [documents[other] for other in here] + [self._kept[other] for other in before]
            own = set(documents[row].tolist()) if others else set()
            if any(jaccard(own, set(other.tolist())) >= self._threshold for other in others):
                near_D[row] = True
                continue
            for group in shared:
                local.setdefault(group, row)
        return near_D
