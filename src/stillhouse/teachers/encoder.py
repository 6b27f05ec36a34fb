"""A local model that turns texts into vectors, for students that encode; it writes nothing."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from stillhouse.errors import TeacherError
from stillhouse.teachers.base import Capability, Identity, Outcome, Request

__all__ = ["Teacher"]


class Teacher:
    """A folder: an encoder (transformers or sentence-transformers layout), or static vectors (model2vec).

    Raises TeacherError where it is neither.
    """

    capabilities: frozenset[Capability] = frozenset({"embed"})

    def __init__(self, *, model: str | os.PathLike[str], batch_size: int = 32) -> None:
        self._folder, self._batch_size = Path(model), batch_size
        if not (self._folder / "config.json").is_file():
            raise TeacherError(f"{os.fspath(model)!r} is no model folder: it has no config.json; name one that encodes")
        self._loaded: Any = None

    def identity(self) -> Identity:
        from stillhouse.teachers.transformers import folder_digest

        return Identity("hf-local", self._folder.name, revision=folder_digest(self._folder))

    def ask(self, requests: Iterable[Request]) -> Iterator[Outcome]:
        raise TeacherError("a teacher that encodes writes no answers; name it in an objective of `embedding`")

    def vectors(self, texts: Sequence[str]) -> Any:
        """[T, E] float32."""
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded(texts)

    def _load(self) -> Any:
        import json

        if json.loads((self._folder / "config.json").read_text(encoding="utf-8")).get("model_type") == "model2vec":
            from model2vec import StaticModel

            return StaticModel.from_pretrained(self._folder).encode
        from stillhouse.embedding import Embedder

        return Embedder(self._folder, self._batch_size).vectors
