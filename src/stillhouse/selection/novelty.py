"""ROUGE-L against a growing pool, without comparing every pair.

ROUGE-L F1 of token lists a and b is 2 LCS / (|a| + |b|), and LCS is at most the number of tokens they share. So F1 >
t needs at least t (|a| + |b|) / 2 shared tokens, hence for any partner at least t |a| / (2 - t) of a's own. With one
global order of tokens, rare ones first, two such lists must share a token among their first |a| - ceil(t |a| / (2 -
t)) + 1: only lists found there are compared exactly (by RapidFuzz, whose Indel similarity on token lists is ROUGE-L
F1).
"""

import math
from collections import Counter

from rapidfuzz.distance import Indel

__all__: list[str] = []


class Pool:
    """Token lists that were accepted; `nearest` finds one more similar than the threshold, if there is any.

    The order of rarity is that of the pool when it was last indexed; it is indexed anew each time it has doubled.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._ids: dict[str, int] = {}
        self._lists: list[list[int]] = []
        self._rarity: Counter[int] = Counter()
        self._postings: dict[tuple[int, int], list[int]] = {}
        self._next_indexing = 64

    def __len__(self) -> int:
        return len(self._lists)

    def nearest(self, tokens: list[str]) -> tuple[int, float] | None:
        """The position in the pool and the F1 of a member above the threshold, or None. An empty list resembles
        nothing.
        """
        ids = [self._ids.get(token, -1 - i) for i, token in enumerate(tokens)]  # an unknown word matches nothing
        m, t = len(ids), self.threshold
        checked: set[int] = set()
        for key in self._prefix(ids):
            for position in self._postings.get(key, ()):
                if position in checked:
                    continue
                checked.add(position)
                other = self._lists[position]
                if not t * m / (2 - t) <= len(other) <= (2 - t) * m / t:
                    continue
                similarity = Indel.normalized_similarity(ids, other, score_cutoff=t)
                if similarity > t:
                    return position, similarity
        return None

    def add(self, tokens: list[str]) -> None:
        self._lists.append([self._ids.setdefault(token, len(self._ids)) for token in tokens])
        if len(self._lists) >= self._next_indexing:
            self._next_indexing *= 2
            self._rarity = Counter(i for ids in self._lists for i in ids)
            self._postings = {}
            for position in range(len(self._lists)):
                self._index(position)
        else:
            self._index(len(self._lists) - 1)

    def _index(self, position: int) -> None:
        for key in self._prefix(self._lists[position]):
            self._postings.setdefault(key, []).append(position)

    def _prefix(self, ids: list[int]) -> list[tuple[int, int]]:
        """The rarest tokens of a list that any list similar enough must share one of; repeats are told apart by a
        count.
        """
        if not ids:
            return []
        seen: Counter[int] = Counter()
        keys = []
        for i in ids:
            keys.append((i, seen[i]))
            seen[i] += 1
        keys.sort(key=lambda key: (self._rarity[key[0]], key))
        required = math.ceil(self.threshold * len(ids) / (2 - self.threshold) - 1e-9)
        return keys[: len(ids) - max(required, 1) + 1]
