"""A file that is whole whenever anybody sees it, however many write it at once."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

__all__ = ["replacing", "write_durably", "writing_durably"]


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


@contextmanager
def writing_durably(path: Path) -> Iterator[BinaryIO]:
    """A file to write to: under another name, synced, renamed and its folder synced; makes the folder (not its parents)."""
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as part, part.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_durably(path: Path, content: bytes) -> None:
    """The same of what is there already."""
    with writing_durably(path) as file:
        file.write(content)
