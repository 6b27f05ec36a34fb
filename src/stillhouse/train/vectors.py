"""Students that encode: what an objective may ask about the texts of a micro-batch, each a sequence of its own.

Legend: T texts, S passages (the responses), G records, H the student's width, E the teacher's.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stillhouse.embedding import pooled
from stillhouse.errors import RecipeError
from stillhouse.records import Ranking
from stillhouse.train.batch import Branch, Item
from stillhouse.train.packing import Packed
from stillhouse.train.terms import Term


class EmbeddingTeacher:
    """A teacher that encodes, asked once for each text. Raises RecipeError for one that does not."""

    same_tokens = True  # it reads texts

    def __init__(self, name: str, teacher: Any):
        if not hasattr(teacher, "vectors"):
            raise RecipeError(
                f"train: teacher {name!r} gives no vectors; name one that encodes (backend: encoder), or learn from scores"
            )
        self._teacher, self._known = teacher, dict[str, np.ndarray]()

    def place(self, device: torch.device, *, fused: bool) -> None:
        """It stays where it is."""

    def vectors(self, texts: Sequence[str]) -> Tensor:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, self._teacher.vectors(new), strict=True))
        return torch.from_numpy(np.stack([self._known[text] for text in texts]))


def vectors_at(model: Any, ids_RC: Tensor, target_RC: Tensor, pooling: str) -> Tensor:
    """vectors_TH: one for each row, whose text ends one token after the position that `target_RC` marks."""
    return pooled(model, ids_RC, target_RC.int().argmax(1) + 2, pooling)


class VectorArrays:
    """The named arrays of one group of a micro-batch. The first text of a record with a prompt is its query."""

    def __init__(self, branch: Branch, batch: Packed, name: str, vectors: Tensor, online: Mapping[str, Any]):
        self.branch, self.items, self.online = branch, batch.items[name], online
        self.text_vectors_TH = vectors[batch.parts[name]]
        order = list(dict.fromkeys(item.index for item in self.items))
        self.text_group_T = self._tensor(np.array([order.index(item.index) for item in self.items]))
        self._place = {index: number for number, index in enumerate(order)}

    def of(self, term: Term, layers: Any = None) -> list[Any]:
        """What `term` reads, in the order of its parameters."""
        return [self._array(name, term) for name in term.wants()]

    def _array(self, name: str, term: Term) -> Any:
        if name == "weight_G":
            return self._weights(term)
        if name == "scores_S":
            return self._scores()
        if name == "teacher_text_vectors_TE":
            teacher = self.online[term.teachers[0]]
            return teacher.vectors([self._text(item) for item in self.items]).to(self.text_vectors_TH.device)
        return getattr(self, name.replace("batch_", ""))

    @cached_property
    def query_vectors_GH(self) -> Tensor:  # noqa: N802, the name of an array
        return self.text_vectors_TH[self._queries]

    @cached_property
    def passage_vectors_SH(self) -> Tensor:  # noqa: N802
        return self.text_vectors_TH[self._passages]

    @cached_property
    def group_S(self) -> Tensor:  # noqa: N802
        return self.text_group_T[self._passages]

    @cached_property
    def text_S(self) -> Tensor:  # noqa: N802
        """Equal for equal passages."""
        seen: dict[bytes, int] = {}
        return self._tensor(np.array([seen.setdefault(i.ids.tobytes(), len(seen)) for i in self._of_passages()]))

    @property
    def query_T(self) -> Tensor:  # noqa: N802
        """The queries' places among the texts, record by record."""
        return self._queries

    @property
    def passage_T(self) -> Tensor:  # noqa: N802
        return self._passages

    @cached_property
    def _queries(self) -> Tensor:
        at = {self._place[item.index]: at for at, item in enumerate(self.items) if self._asks(item)}
        if len(at) < len(self._place):
            raise RecipeError(
                f"train: branch {self.branch.name!r} has rows without a prompt, and this objective needs a query for each; "
                "give them one, or use embedding.cosine, which needs texts alone"
            )
        return self._tensor(np.array([at[number] for number in range(len(at))]))

    @cached_property
    def _passages(self) -> Tensor:
        return self._tensor(np.array([at for at, item in enumerate(self.items) if not self._asks(item)]))

    def _asks(self, item: Item) -> bool:
        return item.slot == 0 and bool(self.branch.record(item.index).prompt)

    def _of_passages(self) -> list[Item]:
        return [item for item in self.items if not self._asks(item)]

    def _response(self, item: Item) -> int:
        return item.slot - bool(self.branch.record(item.index).prompt)

    def _text(self, item: Item) -> str:
        record: Any = self.branch.record(item.index)
        if self._asks(item):
            return "\n".join(message.content for message in record.prompt)
        return record.responses[self._response(item)] if isinstance(record, Ranking) else record.response

    def _scores(self) -> Tensor:
        found = []
        for item in self._of_passages():
            record, at = self.branch.record(item.index), self._response(item)
            found.append(record.scores[at] if isinstance(record, Ranking) and record.scores else -float(at))
        return self._tensor(np.array(found, np.float32))

    def _weights(self, term: Term) -> Tensor:
        weight_G = np.zeros(len(self._place), np.float32)
        for item in self.items:
            column = 1.0 if term.weight_column is None else self.branch.weights[term.weight_column][item.index]
            weight_G[self._place[item.index]] = item.weight * column
        return self._tensor(weight_G)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.text_vectors_TH.device)
