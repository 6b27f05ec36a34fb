"""ROUGE-L against a growing pool, without comparing every pair.

ROUGE-L F1 of token lists a and b is 2 LCS / (|a| + |b|), and LCS is at most the number of tokens they share. So F1 > t needs
t (|a| + |b|) / 2 shared tokens, which for any partner is at least r = t |a| / (2 - t). With one global order of tokens, rare
ones first, two such lists share at least k tokens among the first |a| - r + k of the one and |b| - r + k of the other (for k
up to r): only lists found there are compared exactly, by RapidFuzz, whose Indel similarity on token lists is ROUGE-L F1.
"""

import math
from array import array
from collections import Counter
from collections.abc import Sequence

import numpy as np
from rapidfuzz.distance import Indel

__all__: list[str] = []

_SHARED = 3  # k: a longer prefix reads more of the common tokens and leaves fewer lists to compare
_UNSEEN = 1 << 40  # tokens that came after the last indexing are rarer than all before
_REPEATS = 6  # bits for telling repetitions of a token apart


class Pool:
    """Token lists that were accepted; `nearest` finds one more similar than the threshold, if there is any.

    The order of rarity is that of the pool when it was last indexed; it is indexed anew each time it has doubled. Memory:
    eight bytes per token, and four for each of about half of them in the index.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._ids: dict[str, int] = {}
        self._lists: list[list[int]] = []
        self._lengths = array("I")
        self._order: dict[int, int] = {}
        self._postings: dict[int, array[int]] = {}
        self._next_indexing = 64

    def __len__(self) -> int:
        return len(self._lists)

    def nearest(self, tokens: list[str]) -> tuple[int, float] | None:
        """The position in the pool and the F1 of a member above the threshold, or None. An empty list resembles nothing."""
        ids = [self._ids.get(token, -1 - i) for i, token in enumerate(tokens)]  # an unknown word matches nothing
        for position in self._candidates(ids):
            similarity = Indel.normalized_similarity(ids, self._lists[position], score_cutoff=self.threshold)
            if similarity > self.threshold:
                return position, similarity
        return None

    def add(self, tokens: list[str]) -> None:
        self._lists.append([self._ids.setdefault(token, len(self._ids)) for token in tokens])
        self._lengths.append(len(tokens))
        if len(self._lists) >= self._next_indexing:
            self._next_indexing *= 2
            counts = Counter(i for ids in self._lists for i in ids)
            self._order = {i: rank for rank, (i, _) in enumerate(sorted(counts.items(), key=lambda item: item[::-1]))}
            self._postings = {}
            for position in range(len(self._lists)):
                self._index(position)
        else:
            self._index(len(self._lists) - 1)

    def _candidates(self, ids: Sequence[int]) -> list[int]:
        """Positions of the lists that share enough of their rare tokens and are neither too short nor too long."""
        lists = [found for key in self._prefix(ids) if (found := self._postings.get(key)) is not None]
        shared = self._shared(len(ids))
        if len(lists) < shared or not lists:
            return []
        listed = np.sort(np.concatenate([np.frombuffer(each, dtype=np.uint32) for each in lists]))
        near = listed[shared - 1 :][listed[shared - 1 :] == listed[: len(listed) - shared + 1]]
        low, high = self.threshold * len(ids) / (2 - self.threshold), (2 - self.threshold) * len(ids) / self.threshold
        lengths = np.frombuffer(self._lengths, dtype=np.uint32)[near]
        fits: list[int] = np.unique(near[(lengths >= low - 1e-9) & (lengths <= high + 1e-9)]).tolist()
        return fits

    def _index(self, position: int) -> None:
        for key in self._prefix(self._lists[position]):
            found = self._postings.get(key)
            if found is None:
                found = self._postings[key] = array("I")
            found.append(position)

    def _required(self, length: int) -> int:
        """The fewest tokens that a list of this length shares with any that is similar enough."""
        return max(math.ceil(self.threshold * length / (2 - self.threshold) - 1e-9), 1)

    def _shared(self, length: int) -> int:
        return min(_SHARED, self._required(length))

    def _prefix(self, ids: Sequence[int]) -> list[int]:
        """The rarest tokens of a list, of which any list similar enough shares `_shared`; repetitions are told apart."""
        order = self._order
        ranks = sorted([order.get(i, i - _UNSEEN) << _REPEATS for i in ids])
        length = len(ids) - self._required(len(ids)) + _SHARED
        if len(set(ids)) < len(ids):
            for place in range(1, len(ranks)):
                if ranks[place] >> _REPEATS == ranks[place - 1] >> _REPEATS:
                    ranks[place] = min(ranks[place - 1] + 1, ranks[place] | (1 << _REPEATS) - 1)
            # those past the last bit are one: whoever has it has all before it, which are enough
            return list(dict.fromkeys(ranks[:length]))
        return ranks[:length]
