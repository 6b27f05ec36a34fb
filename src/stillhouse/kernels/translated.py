"""What a teacher with another tokenizer says, as a distribution over the student's ids.

Legend: N positions, U the teacher's vocabulary, V the student's, n positions of one chunk.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stillhouse.kernels.positions import Readable, source_of


@dataclass(frozen=True, slots=True, eq=False)
class Translated:
    """Logits of U tokens as log-probabilities of the `vocabulary` ids of the student that they count for.

    `student_ids_U` says which (`kernels.alignment.first_ids`); tokens that share an id are added up, and the mass of
    tokens that count for none, -1, is left out (what reads logits renormalises). Rows are positions where both have read
    the same bytes and both start a token; `Mapped` beliefs lose nothing, but cannot be mixed with those of other teachers.
    """

    logits_NU: Any
    student_ids_U: Tensor
    vocabulary: int

    def source(self) -> Readable:
        return _TranslatedLogits(self)


class _TranslatedLogits:
    def __init__(self, told: Translated):
        self._teacher = source_of(told.logits_NU)
        self._mapped_U, self._columns = told.student_ids_U >= 0, len(told.student_ids_U)
        self._ids_M = told.student_ids_U[self._mapped_U]
        self.positions, self.width, self.dtype = self._teacher.positions, told.vocabulary, self._teacher.dtype

    def rows(self, rows: Tensor, vocabulary: int, dtype: torch.dtype) -> Tensor:
        p_nU = self._teacher.rows(rows, self._columns, dtype).softmax(-1)
        p_nV = torch.zeros(len(rows), self.width, dtype=dtype, device=p_nU.device)
        return p_nV.index_add_(1, self._ids_M, p_nU[:, self._mapped_U]).log_()[:, :vocabulary]
