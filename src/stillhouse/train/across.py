"""A teacher with another tokenizer: where both sides have read the same bytes, and which of its tokens mean which of ours.

Legend: N target positions of the student, M of the teacher, P aligned spans, U the teacher's vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stillhouse.kernels.alignment import aligned_spans, first_ids, matched_ids, token_bytes
from stillhouse.render import end_ids


@dataclass(frozen=True, slots=True)
class Aligned:
    """Of one response: `teacher_at_N` is the teacher's position about the same text, -1 where there is none.

    Bytes: both have read the same and both start a token there. `span_N` and `span_M` number the shortest runs that
    spell the same, -1 outside of any.
    """

    teacher_at_N: np.ndarray
    span_N: np.ndarray
    span_M: np.ndarray
    spans: int


class Bridge:
    """Between two tokenizers. `matched_U` and `first_U` map the teacher's ids to the student's (survey 4.6, R30)."""

    def __init__(self, student_tokenizer: Any, teacher_tokenizer: Any):
        self.student_bytes, self.teacher_bytes = token_bytes(student_tokenizer), token_bytes(teacher_tokenizer)
        self.student_ends, self.teacher_ends = end_ids(student_tokenizer), end_ids(teacher_tokenizer)
        self._special = _shared_special(student_tokenizer, teacher_tokenizer)
        self.matched_U = self._with_special(matched_ids(self.student_bytes, self.teacher_bytes))
        self.first_U = self._with_special(first_ids(self.student_bytes, self.teacher_bytes))

    @property
    def shared(self) -> float:
        """The share of the teacher's tokens that the student has too, byte for byte."""
        return float((self.matched_U >= 0).float().mean())

    def aligned(self, student: Sequence[int], teacher: Sequence[int], *, by: str = "bytes") -> Aligned:
        """The tokens of one response as both cut it. What comes after a difference in their bytes is not aligned."""
        N, M = len(student), len(teacher)
        if by == "count":
            at_N = np.where(np.arange(N) < M, np.arange(N), -1)
            return Aligned(at_N, np.full(N, -1), np.full(M, -1), 0)
        ours = _without_blank([self.student_bytes[i] for i in student], [self.teacher_bytes[i] for i in teacher])
        theirs = _without_blank([self.teacher_bytes[i] for i in teacher], [self.student_bytes[i] for i in student])
        n, m = _agreed(ours, theirs)
        at_N, span_N, span_M = np.full(N, -1), np.full(N, -1), np.full(M, -1)
        spans = aligned_spans(ours[:n], theirs[:m])
        for number, (mine, other) in enumerate(spans):
            at_N[mine.start] = other.start
            span_N[mine], span_M[other] = number, number
        if n == N and m == M and student[-1] in self.student_ends and teacher[-1] in self.teacher_ends:
            at_N[N - 1] = M - 1
        return Aligned(at_N, span_N, span_M, len(spans))

    def _with_special(self, ids_U: Tensor) -> Tensor:
        """Ends of a turn mean each other; other special tokens those of the same name."""
        for theirs, ours in self._special.items():
            ids_U[theirs] = ours
        for end in self.teacher_ends:
            ids_U[end] = self._special.get(end, self.student_ends[0])
        return ids_U


def _shared_special(student_tokenizer: Any, teacher_tokenizer: Any) -> dict[int, int]:
    ours = dict(zip(student_tokenizer.all_special_tokens, student_tokenizer.all_special_ids))
    theirs = zip(teacher_tokenizer.all_special_tokens, teacher_tokenizer.all_special_ids)
    return {number: ours[name] for name, number in theirs if name in ours}


def gathered(values: Tensor, at_N: np.ndarray) -> Tensor:
    """The teacher's rows in the student's order; where there is none, some row, which nothing may read."""
    return values[torch.from_numpy(at_N.clip(min=0)).to(values.device)]


def _without_blank(tokens: list[bytes], others: list[bytes]) -> list[bytes]:
    """Some tokenizers put a blank before the first word of a text: it is no part of it."""
    first = next((at for at, token in enumerate(tokens) if token), None)
    if first is None or not tokens[first].startswith(b" ") or b"".join(others).startswith(b" "):
        return tokens
    return [*tokens[:first], tokens[first][1:], *tokens[first + 1 :]]


def _agreed(ours: Sequence[bytes], theirs: Sequence[bytes]) -> tuple[int, int]:
    """How many tokens of each side spell the longest common beginning at which both end a token."""
    one, other = b"".join(ours), b"".join(theirs)
    if one == other:
        return len(ours), len(theirs)
    common = next((at for at, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))
    ends_n, ends_m = np.cumsum([len(t) for t in ours]), np.cumsum([len(t) for t in theirs])
    both = [int(end) for end in np.intersect1d(ends_n, ends_m) if 0 < end <= common]
    if not both:
        return 0, 0
    return int(np.searchsorted(ends_n, both[-1])) + 1, int(np.searchsorted(ends_m, both[-1])) + 1
