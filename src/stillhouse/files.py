"""A file that is whole whenever anybody sees it, however many write it at once."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["replacing", "write_durably"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives another name to write under and moves it to `path` on a clean exit; of several writers the last one stays.

    The other name is this thread's own: two that wrote under one would move each other's file away.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def write_durably(path: Path, content: bytes) -> None:
    """Writes under another name, syncs, renames, syncs the folder; makes the folder (not its parents)."""
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as part, part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
