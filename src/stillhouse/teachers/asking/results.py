"""The lines of a batch that has ended, in a file beside the store while they are settled: they may be more than memory holds."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

__all__ = ["Results"]


class Results:
    """A context manager; the file is gone when it ends. `match` says which line belongs to which request."""

    unknown = 0  # lines of no request of this batch
    repeated = 0  # of a request that had one already

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> "Results":
        self._file = self._path.open("wb+")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def __len__(self) -> int:
        return len(self._places)

    @property
    def told(self) -> str:
        return f"{self.unknown} lines with unknown ids, {self.repeated} repeated"

    def emptied(self) -> BinaryIO:
        """The file to write to; what an earlier try brought is gone."""
        self._file.seek(0)
        self._file.truncate()
        return self._file

    def match(self, keys: Collection[str]) -> None:
        """By the ids alone: the order of lines means nothing. Of several lines for one request the first counts."""
        place = 0
        self._file.seek(0)
        for line in self._file:
            at, place = place, place + len(line)
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                value = None
            key = value.get("custom_id") if isinstance(value, dict) else None
            if not isinstance(key, str) or key not in keys:
                self.unknown += 1
            elif key in self._places:
                self.repeated += 1
            else:
                self._places[key] = at, len(line)

    def line(self, key: str) -> bytes:
        """The line of a request; empty where there is none."""
        if key not in self._places:
            return b""
        place, size = self._places[key]
        self._file.seek(place)
        return self._file.read(size).rstrip(b"\n")
