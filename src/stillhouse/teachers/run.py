"""A student made earlier, as a teacher: chains such as a critic first, then the generator that uses it."""

import os
from collections.abc import Mapping
from pathlib import Path

from stillhouse.errors import TeacherError
from stillhouse.teachers import transformers

__all__ = ["Teacher"]


class Teacher(transformers.Teacher):
    """The student of the run folder `path`, on the transformers backend. Raises TeacherError where that run has none."""

    def __init__(
        self,
        *,
        path: str | os.PathLike[str],
        dtype: str = "auto",
        device: str = "auto",
        batch_size: int = 32,
        price: Mapping[str, float] | None = None,
    ) -> None:
        student = Path(path) / "student"
        if not (student / "config.json").is_file():
            raise TeacherError(
                f"the run {os.fspath(path)!r} has no student yet (no model in {student}); finish that run first"
            )
        super().__init__(model=student, dtype=dtype, device=device, batch_size=batch_size, price=price)
