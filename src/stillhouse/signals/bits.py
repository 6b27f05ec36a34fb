"""Whole numbers in as few bits as they need, packed and unpacked without a loop over them.

A stream of bits fills each byte from its lowest bit. Every number has a width of its own, at most 25 bits, so that one
32-bit word read at any byte holds all of it. Prefix: a class of two bits says which of four widths follows.
"""

from dataclasses import dataclass

import numpy as np

from stillhouse.errors import RecipeError

LARGEST_WIDTH = 25
_SLACK = 4  # bytes behind a stream, so that the word that begins in its last byte can be read


def packed(values: np.ndarray, widths: np.ndarray | int) -> bytes:
    """The stream of `values`, each in its width; ends on a whole byte."""
    widths = np.broadcast_to(np.asarray(widths, np.int64), values.shape)
    ends = np.cumsum(widths)
    bits = np.zeros(-(-int(ends[-1]) // 8) * 8 if len(ends) else 0, np.uint8)
    starts = ends - widths
    for place in range(int(widths.max(initial=0))):
        long_enough = widths > place
        bits[starts[long_enough] + place] = (values[long_enough] >> place) & 1
    return np.packbits(bits, bitorder="little").tobytes()


def unpacked(words: np.ndarray, starts: np.ndarray, widths: np.ndarray | int) -> np.ndarray:
    """The numbers that begin at the bits `starts` of a stream, as int64; `words` is what `words_of` made of it."""
    found = words.take(starts >> 3, mode="clip")
    found >>= (starts & 7).astype(np.uint32)
    found &= (np.uint32(1) << np.asarray(widths, np.uint32)) - np.uint32(1)
    return found.astype(np.int64)


def words_of(stream: np.ndarray) -> np.ndarray:
    """The 32 bits from each byte of a padded stream on, side by side: read where they lie they take three times as long."""
    return np.ndarray((max(len(stream) - 3, 0),), "<u4", stream, 0, (1,)).astype(np.uint32)


def padded(stream: bytes) -> np.ndarray:
    return np.frombuffer(stream + bytes(_SLACK), np.uint8)


def unary(values: np.ndarray) -> bytes:
    """Each number as so many zeros and a one; ends on a whole byte."""
    ends = np.cumsum(values + 1)
    bits = np.zeros(-(-int(ends[-1]) // 8) * 8 if len(ends) else 0, np.uint8)
    bits[ends - 1] = 1
    return np.packbits(bits, bitorder="little").tobytes()


def ones(stream: np.ndarray) -> np.ndarray:
    """The places of the set bits."""
    return np.flatnonzero(np.unpackbits(stream, bitorder="little").view(bool))


def bytes_of(bits: np.ndarray) -> np.ndarray:
    return (bits + 7) >> 3


def ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """starts[0], starts[0] + 1, ... counts[0] of them, then those of the next."""
    before = np.cumsum(counts) - counts
    return np.arange(int(counts.sum())) + np.repeat(starts - before, counts)


@dataclass(frozen=True, slots=True)
class PrefixCode:
    """Numbers below `limit` in four classes, the more frequent ones shorter: class c covers 2^widths[c] numbers."""

    widths: tuple[int, int, int, int]

    @classmethod
    def fitted(cls, sample: np.ndarray, limit: int) -> "PrefixCode":
        """The widths that cost `sample` the fewest bits and can still write every number below `limit`."""
        widest = max(int(limit - 1).bit_length(), 1)
        if widest > LARGEST_WIDTH:
            raise RecipeError(f"a vocabulary of {limit} tokens is more than {LARGEST_WIDTH} bits can number")
        below = np.concatenate([[0], np.cumsum(np.bincount(sample, minlength=limit))])
        best, found = np.inf, (widest,) * 4
        for a in range(widest + 1):
            for b in range(a, widest + 1):
                for c in range(b, widest + 1):
                    edges = np.minimum(np.cumsum([0, 1 << a, 1 << b, 1 << c]), limit)
                    counts = np.diff(below[[*edges, limit]])
                    bits = int((counts * (a, b, c, widest)).sum())
                    if bits < best:
                        best, found = bits, (a, b, c, widest)
        return cls(found)

    @property
    def bases(self) -> np.ndarray:
        return np.cumsum([0, *(1 << width for width in self.widths[:3])])

    def classes(self, values: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.bases, values, side="right") - 1

    def rest(self, values: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What follows the class: a number and its width."""
        return values - self.bases[classes], np.array(self.widths)[classes]
