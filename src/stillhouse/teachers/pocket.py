"""The embedded teacher: a small model that comes with the library, so that everything can be tried without a download."""

from collections.abc import Mapping

from stillhouse.teachers import transformers

__all__ = ["Teacher"]


class Teacher(transformers.Teacher):
    """The pocket teacher, on the transformers backend."""

    def __init__(self, *, batch_size: int = 32, price: Mapping[str, float] | None = None) -> None:
        from stillhouse.pocket import teacher_path

        super().__init__(model=teacher_path(), device="cpu", batch_size=batch_size, price=price)
