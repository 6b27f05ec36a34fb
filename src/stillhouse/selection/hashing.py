"""The words of many texts as 64-bit numbers, in a few passes over their bytes: no Python is run for a word.

Legend: C bytes of all texts, W words of all texts, D documents.
"""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from stillhouse.selection.tokens import TO_WORDS, written

__all__: list[str] = []

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_BASE = 0xD6E8FEB86659FD93  # of the polynomial; odd, so that it can be divided by
_INVERSE = pow(_BASE, -1, 1 << 64)
_BLANK = 32
_EIGHT = 8
_LONGEST = 64  # bytes of a word that are read eight at a time; what is longer (a base64 text, say) is hashed by itself
_FIRST = np.array([(1 << 8 * kept) - 1 for kept in range(_EIGHT + 1)], dtype=np.uint64)  # masks of the first bytes


def words_of(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(a number for each word of all texts, how many words each text has). Words of up to eight bytes never collide."""
    parts = [written(text) for text in texts]
    bytes_C = np.frombuffer(b"".join([b" ", b" ".join(parts).translate(TO_WORDS), b" " * _LONGEST]), dtype=np.uint8)
    inside_C = bytes_C != _BLANK
    borders = np.flatnonzero(inside_C[1:] != inside_C[:-1]) + 1
    starts_W, ends_W = borders[::2], borders[1::2]
    ends_D = np.cumsum(np.fromiter(map(len, parts), dtype=np.int64, count=len(parts)) + 1)
    return _numbers(bytes_C, starts_W, ends_W - starts_W), np.diff(np.searchsorted(starts_W, ends_D), prepend=0)


def _numbers(bytes_C: np.ndarray, starts_W: np.ndarray, lengths_W: np.ndarray) -> np.ndarray:
    eights_C = np.ndarray((len(bytes_C) - _EIGHT + 1,), dtype="<u8", buffer=bytes_C.data, strides=(1,))
    numbers_W = eights_C[starts_W] & _FIRST[np.minimum(lengths_W, _EIGHT)]
    for read in range(_EIGHT, _LONGEST, _EIGHT):
        longer = np.flatnonzero(lengths_W > read)
        if not len(longer):
            return _spread(numbers_W)
        more = eights_C[starts_W[longer] + read] & _FIRST[np.minimum(lengths_W[longer] - read, _EIGHT)]
        numbers_W[longer] = _spread(numbers_W[longer]) ^ more
    for word in np.flatnonzero(lengths_W > _LONGEST).tolist():
        text = bytes_C[starts_W[word] : starts_W[word] + lengths_W[word]].tobytes()
        numbers_W[word] = int.from_bytes(blake2b(text, digest_size=8).digest(), "little")
    return _spread(numbers_W)


def _spread(numbers: np.ndarray) -> np.ndarray:
    """In place, without two becoming one: every bit of a number counts in its leading ones."""
    numbers *= _MULTIPLIER
    numbers ^= numbers >> np.uint64(32)
    return numbers


class Runs:
    """Numbers of runs of words: a polynomial modulo 2^64 whose beginnings are summed once, so that a run is a difference."""

    def __init__(self, words_W: np.ndarray) -> None:
        self._inverse_W = _powers(_INVERSE, len(words_W))
        self._sums_W = np.zeros(len(words_W) + 1, dtype=np.uint64)
        np.cumsum(words_W * _powers(_BASE, len(words_W)), out=self._sums_W[1:])

    def at(self, starts: np.ndarray, length: int) -> np.ndarray:
        """The numbers of the runs of `length` words that begin there."""
        numbers = self._sums_W[starts + length] - self._sums_W[starts]
        numbers *= self._inverse_W[starts]
        return _spread(numbers)


def _powers(base: int, count: int) -> np.ndarray:
    """base^0, base^1, ... modulo 2^64."""
    powers = np.full(count, base, dtype=np.uint64)
    powers[:1] = 1
    return np.cumprod(powers, out=powers)
