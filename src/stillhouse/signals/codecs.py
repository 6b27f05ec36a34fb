"""How the beliefs about one response become bytes, and those of many responses arrays again, all at once.

Legend: R rows (responses), N positions of all of them, T positions of one row, n kept tokens of all positions, H hidden
width. A row is a run of sections, each beginning on a whole byte, so that rows can be decoded together wherever they lie.

Top-k: the likeliest tokens in falling order, as many as each position needs. Log-probabilities are counted in steps of
1/16 nat and stored as differences (Golomb-Rice); the mass that is left is exact to 1 in 4,000, and the kept ones
are scaled to what it leaves. Samples: the distinct tokens by id, as gaps, and how often each came. Hidden
states: as they are, in bfloat16, or in one byte each with a scale per position.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from stillhouse.signals.bits import PrefixCode, bytes_of, ones, packed, padded, ranges, unary, unpacked, words_of

STEP = 1 / 16  # nats
_TAIL_STEP = 1 / 2048  # nats of the log of the tail
_NO_TAIL = 2**16 - 1
_RICE = 6  # the largest number of low bits tried for a difference


@dataclass(frozen=True, slots=True)
class Kept:
    """Ragged beliefs: `counts_N` tokens for each position, likeliest first, natural-log probabilities; the rest of 1 is tail."""

    counts_N: np.ndarray
    ids_n: np.ndarray
    logprobs_n: np.ndarray

    def padded(self) -> tuple[np.ndarray, np.ndarray]:
        """ids_NK (-1 where there is none) and logprobs_NK."""
        return _rectangle(self.counts_N, self.ids_n, -1), _rectangle(self.counts_N, self.logprobs_n, -np.inf)


@dataclass(frozen=True, slots=True)
class Draws:
    """Ragged samples: `counts_N` distinct tokens for each position, and how often each was drawn."""

    counts_N: np.ndarray
    ids_n: np.ndarray
    times_n: np.ndarray

    def padded(self) -> tuple[np.ndarray, np.ndarray]:
        """ids_NK and times_NK (0 where there is none)."""
        return _rectangle(self.counts_N, self.ids_n, 0), _rectangle(self.counts_N, self.times_n, 0)


@dataclass(frozen=True, slots=True)
class TopKCodec:
    """At most `most` tokens a position."""

    most: int
    ids: PrefixCode

    def encode(self, kept: Kept) -> bytes:
        """One row. Every position keeps at least one token."""
        firsts_T = np.cumsum(kept.counts_N) - kept.counts_N
        steps_n = np.rint(-kept.logprobs_n.astype(np.float64) / STEP).astype(np.int64)
        differences_n = np.diff(steps_n, prepend=0)
        differences_n[firsts_T] = steps_n[firsts_T]
        low = min(range(_RICE + 1), key=lambda bits: len(steps_n) * bits + int((differences_n >> bits).sum()))
        mass_T = np.add.reduceat(np.exp(kept.logprobs_n.astype(np.float64)), firsts_T)
        return b"".join(
            (
                bytes([low]),
                packed(kept.counts_N, self._count_width),
                packed(_tail_code(1 - mass_T), 16),
                _coded(kept.ids_n, self.ids),
                packed(differences_n & ((1 << low) - 1), low),
                unary(differences_n >> low),
            )
        )

    def decode(self, stream: np.ndarray, starts_R: np.ndarray, ends_R: np.ndarray, tokens_R: np.ndarray) -> Kept:
        """The rows that lie in `stream` (`bits.padded`) from the bytes `starts_R` to `ends_R`."""
        words = words_of(stream)
        low_R, at_R = stream[starts_R].astype(np.int64), starts_R + 1
        counts_N, at_R = _section(words, at_R, tokens_R, self._count_width)
        tail_N, at_R = _section(words, at_R, tokens_R, 16)
        kept_R = np.add.reduceat(counts_N, np.cumsum(tokens_R) - tokens_R)
        ids_n, at_R = _prefixed(words, at_R, kept_R, self.ids)
        low_n = np.repeat(low_R, kept_R)
        rest_n, at_R = _section(words, at_R, kept_R, low_R)
        high_n = _gaps(stream, at_R, ends_R, kept_R) - 1
        firsts_N = np.cumsum(counts_N) - counts_N
        steps_n = _restarted_sum((high_n << low_n) | rest_n, counts_N, firsts_N)
        # differences of whole steps: the float32 exponentials of 16 values a nat
        p_n = np.exp(steps_n.astype(np.float32) * np.float32(-STEP))
        tail_N = np.where(tail_N == _NO_TAIL, 0.0, np.exp(-_TAIL_STEP * tail_N))
        shift_N = (np.log1p(-tail_N) - np.log(np.add.reduceat(p_n, firsts_N))).astype(np.float32)
        return Kept(counts_N, ids_n, np.repeat(shift_N, counts_N) - steps_n.astype(np.float32) * np.float32(STEP))

    def recoded(self, row: bytes, tokens: int, ids: PrefixCode) -> bytes:
        """The same row with its ids in another code; nothing else of it is touched."""
        words, at_R, tokens_R = words_of(padded(row)), np.array([1]), np.array([tokens])
        counts_N, at_R = _section(words, at_R, tokens_R, self._count_width)
        _, begin_R = _section(words, at_R, tokens_R, 16)
        ids_n, end_R = _prefixed(words, begin_R, np.array([counts_N.sum()]), self.ids)
        return row[: begin_R[0]] + _coded(ids_n, ids) + row[end_R[0] :]

    @property
    def _count_width(self) -> int:
        return self.most.bit_length()


@dataclass(frozen=True, slots=True)
class SampledCodec:
    """`draws` tokens a position."""

    draws: int
    ids: PrefixCode

    def encode(self, drawn: Draws) -> bytes:
        """One row; ids rise within a position."""
        return unary(drawn.times_n - 1) + _coded(id_gaps(drawn), self.ids)

    def decode(self, stream: np.ndarray, starts_R: np.ndarray, ends_R: np.ndarray, tokens_R: np.ndarray) -> Draws:
        sizes_R = bytes_of(tokens_R * self.draws)
        part = _joined(stream, starts_R, sizes_R)
        place_n = ones(part)
        # a position is exactly `draws` bits of its row, each run of them ending in a one
        row_bits_R = (np.cumsum(sizes_R) - sizes_R) * 8
        first_bit_N = np.repeat(row_bits_R, tokens_R) + ranges(np.zeros_like(tokens_R), tokens_R) * self.draws
        counts_N = np.diff(np.searchsorted(place_n, np.append(first_bit_N, len(part) * 8)))
        firsts_N = np.cumsum(counts_N) - counts_N
        times_n = np.diff(place_n, prepend=-1)
        times_n[firsts_N] = place_n[firsts_N] - first_bit_N + 1
        kept_R = np.add.reduceat(counts_N, np.cumsum(tokens_R) - tokens_R)
        gaps_n, _ = _prefixed(words_of(stream), starts_R + sizes_R, kept_R, self.ids)
        ids_n = _restarted_sum(gaps_n + 1, counts_N, firsts_N) - 1
        return Draws(counts_N, ids_n, times_n)

    def recoded(self, row: bytes, tokens: int, ids: PrefixCode) -> bytes:
        """The same row with its ids in another code; nothing else of it is touched."""
        begin = int(bytes_of(np.array(tokens * self.draws)))
        kept_R = np.array([len(ones(np.frombuffer(row[:begin], np.uint8)))])
        gaps_n, _ = _prefixed(words_of(padded(row)), np.array([begin]), kept_R, self.ids)
        return row[:begin] + _coded(gaps_n, ids)


@dataclass(frozen=True, slots=True)
class StatesCodec:
    """Hidden states of `width`; `dtype` is float32, bfloat16 (upper half of a float32) or int8 with a scale."""

    width: int
    dtype: str

    def encode(self, hidden_TH: np.ndarray) -> bytes:
        hidden_TH = np.ascontiguousarray(hidden_TH, np.float32)
        if self.dtype == "float32":
            return hidden_TH.tobytes()
        if self.dtype == "bfloat16":
            bits_TH = hidden_TH.view(np.uint32)
            # to the nearest, ties to even; the states of a bfloat16 model come back as they were
            return ((bits_TH + 0x7FFF + ((bits_TH >> 16) & 1)) >> 16).astype("<u2").tobytes()
        scale_T = np.abs(hidden_TH).max(1).clip(min=1e-30) / 127
        whole_TH = np.rint(hidden_TH / scale_T[:, None]).astype(np.int8)
        return scale_T.astype("<f4").tobytes() + whole_TH.tobytes()

    def decode(self, stream: np.ndarray, starts_R: np.ndarray, ends_R: np.ndarray, tokens_R: np.ndarray) -> np.ndarray:
        """hidden_NH in float32."""
        part = _joined(stream, starts_R, ends_R - starts_R)
        if self.dtype == "float32":
            return part.view("<f4").reshape(-1, self.width)
        if self.dtype == "bfloat16":
            return (part.view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(-1, self.width)
        scale = _joined(stream, starts_R, 4 * tokens_R).view("<f4")
        whole = _joined(stream, starts_R + 4 * tokens_R, self.width * tokens_R).view(np.int8)
        return whole.reshape(-1, self.width) * scale[:, None]


def _coded(ids_n: np.ndarray, code: PrefixCode) -> bytes:
    classes_n = code.classes(ids_n)
    return packed(classes_n, 2) + packed(*code.rest(ids_n, classes_n))


def id_gaps(drawn: Draws) -> np.ndarray:
    """How many ids are passed over before each one, within its position."""
    firsts_N = np.cumsum(drawn.counts_N) - drawn.counts_N
    gaps_n = np.diff(drawn.ids_n, prepend=0) - 1
    gaps_n[firsts_N] = drawn.ids_n[firsts_N]
    return gaps_n


def _tail_code(tail_T: np.ndarray) -> np.ndarray:
    code_T = np.rint(-np.log(tail_T.clip(1e-30, 1.0)) / _TAIL_STEP)
    return np.where(tail_T > 1e-13, code_T.clip(1, _NO_TAIL - 1), _NO_TAIL).astype(np.int64)


def _joined(stream: np.ndarray, starts_R: np.ndarray, sizes_R: np.ndarray) -> np.ndarray:
    """So many bytes of each row, one after the other."""
    return np.concatenate([stream[start : start + size] for start, size in zip(starts_R.tolist(), sizes_R.tolist())])


def _section(
    words: np.ndarray, at_R: np.ndarray, numbers_R: np.ndarray, width: int | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """So many numbers of each row, `width` bits each (one for all, or by row), and where the next section begins."""
    width_R = np.broadcast_to(np.asarray(width, np.int64), numbers_R.shape)
    widths = width if isinstance(width, int) else np.repeat(width_R, numbers_R)
    ends_R = np.cumsum(numbers_R)
    begin_n = np.repeat(at_R * 8 - (ends_R - numbers_R) * width_R, numbers_R)
    return unpacked(words, np.arange(ends_R[-1]) * widths + begin_n, widths), at_R + bytes_of(numbers_R * width_R)


def _prefixed(
    words: np.ndarray, at_R: np.ndarray, numbers_R: np.ndarray, code: PrefixCode
) -> tuple[np.ndarray, np.ndarray]:
    classes_n, at_R = _section(words, at_R, numbers_R, 2)
    widths_n = np.array(code.widths)[classes_n]
    ends_n = np.cumsum(widths_n)
    firsts_R = np.cumsum(numbers_R) - numbers_R
    before_R = ends_n[firsts_R] - widths_n[firsts_R]
    starts_n = ends_n - widths_n + np.repeat(at_R * 8 - before_R, numbers_R)
    bits_R = np.diff(np.append(before_R, ends_n[-1]))
    return unpacked(words, starts_n, widths_n) + code.bases[classes_n], at_R + bytes_of(bits_R)


def _gaps(stream: np.ndarray, at_R: np.ndarray, ends_R: np.ndarray, numbers_R: np.ndarray) -> np.ndarray:
    """The distances between the ones of each row's last section, the first counted from its beginning."""
    sizes_R = ends_R - at_R
    place_n = ones(_joined(stream, at_R, sizes_R))
    firsts_R = np.cumsum(numbers_R) - numbers_R
    gaps_n = np.diff(place_n, prepend=-1)
    gaps_n[firsts_R] = place_n[firsts_R] - (np.cumsum(sizes_R) - sizes_R) * 8 + 1
    return gaps_n


def _restarted_sum(values_n: np.ndarray, counts_N: np.ndarray, firsts_N: np.ndarray) -> np.ndarray:
    """Running sums that begin anew at each position."""
    total_n = np.cumsum(values_n)
    return total_n - np.repeat(total_n[firsts_N] - values_n[firsts_N], counts_N)


def _rectangle(counts_N: np.ndarray, values_n: np.ndarray, fill: Any) -> np.ndarray:
    made = np.full((len(counts_N), int(counts_N.max(initial=1))), fill, values_n.dtype)
    made[np.arange(made.shape[1]) < counts_N[:, None]] = values_n
    return made
