"""Sentence embeddings by a static model (model2vec format): no GPU, thousands of texts a second."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from stillhouse.errors import RecipeError

__all__: list[str] = []

_AT_ONCE = 1024


def load(model: str) -> Any:
    """A model2vec folder or hub name. Raises RecipeError where the extra is not installed or nothing can be loaded."""
    try:
        from model2vec import StaticModel
    except ImportError:
        raise RecipeError("comparing meanings needs model2vec: install stillhouse[semantic]") from None
    try:
        return StaticModel.from_pretrained(model)
    except (OSError, ValueError, KeyError) as error:
        raise RecipeError(
            f"the embedder {model!r} cannot be loaded ({str(error).splitlines()[0]}); name a folder in model2vec's format, "
            "or such a model on the hub"
        ) from None


def unit_rows(model: Any, texts: Sequence[str]) -> np.ndarray:
    """One row of length 1 per text (a text without known words: a row of zeros, similar to nothing)."""
    # a half of a character (a lone surrogate) is no text to a tokenizer
    readable = [text.encode("utf-8", "replace").decode() for text in texts]
    rows = np.asarray(model.encode(readable), dtype=np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)


def chunks(items: Iterable[Any]) -> Iterator[list[Any]]:
    stream = iter(items)
    while chunk := list(islice(stream, _AT_ONCE)):
        yield chunk


class Grown:
    """Rows appended to one array that doubles, so that a stream of them costs no more than their memory."""

    def __init__(self, width: int) -> None:
        self._rows = np.empty((64, width), dtype=np.float32)
        self._count = 0

    @property
    def rows(self) -> np.ndarray:
        return self._rows[: self._count]

    def add(self, row: np.ndarray) -> None:
        if self._count == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        self._rows[self._count] = row
        self._count += 1
