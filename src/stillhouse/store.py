"""Records on disk: JSONL with arrays beside it, written once and read lazily (architecture, section 3).

A file of records is `out.jsonl` plus `out.arrays-00000.safetensors`, `-00001` ...: array fields of a record lie in the shard
that its line names, under `<id>/<field>`. Readers keep 8 bytes per row in memory, not the rows.
"""

import gzip
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, overload

from stillhouse.errors import RecipeError, RunFailed
from stillhouse.files import replacing
from stillhouse.lines import KINDS, dump_line, from_row, names_of, read_record, read_row, record_line, to_row
from stillhouse.records import Lost, Record

if TYPE_CHECKING:
    import numpy as np

SHARD_BYTES = 64 * 2**20
_PART = 1 << 18


class Writer:
    """Writes records or plain rows to `path` and puts the file in place on a clean exit only; a killed writer leaves `.part`."""

    def __init__(self, path: Path) -> None:
        self.path, self.count = path, 0
        self._part = path.with_name(path.name + ".part")
        self._arrays: dict[str, np.ndarray] = {}
        self._bytes = self._shards = 0

    def __enter__(self) -> "Writer":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for old in self.path.parent.glob(f"{self.path.stem}.arrays-*.safetensors"):
            old.unlink()
        self._file = open(self._part, "wb")
        return self

    def write(self, record: Record) -> None:
        if (line := record_line(record)) is not None:
            self._file.write(line)
            self.count += 1
            return
        row, arrays = to_row(record)
        if arrays:
            row["arrays"] = self._shards
            for name, array in arrays.items():
                self._arrays[f"{record.id}/{name}"] = array
                self._bytes += array.nbytes
        self.write_row(row)
        if self._bytes >= SHARD_BYTES:
            self._flush_arrays()

    def write_row(self, row: dict[str, Any]) -> None:
        self._file.write(dump_line(row))
        self.count += 1

    def _flush_arrays(self) -> None:
        import numpy as np
        from safetensors.numpy import save_file

        if self._arrays:
            contiguous = {name: np.ascontiguousarray(array) for name, array in self._arrays.items()}
            save_file(contiguous, shard_path(self.path, self._shards))
            self._arrays, self._bytes, self._shards = {}, 0, self._shards + 1

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            if kind is None:
                self._flush_arrays()
                self._file.flush()
                os.fsync(self._file.fileno())
        finally:
            self._file.close()
        if kind is None:
            os.replace(self._part, self.path)


def lost_row(lost: Lost) -> dict[str, Any]:
    return {name: getattr(lost, name) for name in names_of(Lost)}


def shard_path(path: Path, shard: int) -> Path:
    return path.with_name(f"{path.stem}.arrays-{shard:05d}.safetensors")


class Records(Sequence[Record]):
    """The records of a file as a sequence: rows are read when asked for, and offsets only where one is asked for by number."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open(path, "rb")
        self._shards: dict[int, Any] = {}

    @cached_property
    def _offsets(self) -> "np.ndarray":
        return line_offsets(self._file)

    @cached_property
    def _count(self) -> int:
        if "_offsets" in self.__dict__:
            return len(self._offsets)
        return line_count(self._file)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        self._file.seek(self._offsets[index])
        return self._record(self._file.readline())

    def __iter__(self) -> Iterator[Record]:
        with open(self.path, "rb") as file:
            for line in file:
                yield self._record(line)

    def _record(self, line: bytes) -> Record:
        if (found := read_record(line)) is not None:
            return found
        row = json.loads(line)
        if "arrays" not in row:
            return from_row(row)
        shard = self._shard(row["arrays"])
        names = [name for name in names_of(KINDS[row["kind"]]) if name not in row]
        return from_row(row, {name: shard.get_tensor(f"{row['id']}/{name}") for name in names})

    def _shard(self, number: int) -> Any:
        from safetensors import safe_open

        if number not in self._shards:
            self._shards[number] = safe_open(shard_path(self.path, number), framework="numpy")
        return self._shards[number]


def line_count(file: BinaryIO) -> int:
    """How many lines a file has; it is read beside whoever else reads it."""
    count, end = 0, b"\n"
    for _, part in _parts(file):
        count, end = count + part.count(b"\n"), part[-1:]
    return count + (end != b"\n")


def line_offsets(file: BinaryIO) -> "np.ndarray":
    """Where each line of a file starts, in bytes."""
    import numpy as np

    found, size = [np.zeros(1, dtype=np.int64)], 0
    for position, part in _parts(file):
        found.append(np.flatnonzero(np.frombuffer(part, dtype=np.uint8) == ord("\n")) + (position + 1))
        size = position + len(part)
    starts = np.concatenate(found)
    return starts if starts[-1] < size else starts[:-1]


def _parts(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    position = 0
    while part := os.pread(file.fileno(), _PART, position):
        yield position, part
        position += len(part)


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers (from 1) and objects of a JSONL file (also .gz) that a person wrote.

    Raises `RecipeError` naming file and line where a line is not a JSON object; blank lines are passed over.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", errors="strict") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _object(path, number, line)
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text at byte {error.start}; save it as UTF-8") from None
    except (gzip.BadGzipFile, EOFError) as error:
        raise RecipeError(f"{path}: not a whole gzip file ({error})") from None


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        value = read_row(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise RecipeError(f"{path}, line {number}: not JSON ({error}); every line must be one JSON object") from None
    if not isinstance(value, dict):
        raise RecipeError(f"{path}, line {number}: a {type(value).__name__}, but every line must be a JSON object")
    return value


def write_json(path: Path, value: Any) -> None:
    """Replaces a JSON file in one move, so that a reader or a kill never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, part.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, ensure_ascii=False, default=str)
        file.flush()
        os.fsync(file.fileno())


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object that the program wrote. Raises `RunFailed` where something else has become of the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file; is this a run folder?") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RunFailed(f"{path}: damaged ({error}); delete it and run again") from None
    if not isinstance(value, dict):
        raise RunFailed(f"{path}: damaged (a {type(value).__name__} instead of an object); delete it and run again")
    return value


def read_stamp(path: Path) -> dict[str, Any] | None:
    """The stamp of finished work; a missing or damaged one says only that the work is to be done again."""
    if not path.is_file():
        return None
    try:
        stamp = read_json(path)
    except RunFailed:
        return None
    return stamp if "hash" in stamp else None


def write_records(path: Path, records: Iterable[Record]) -> int:
    with Writer(path) as out:
        for record in records:
            out.write(record)
    return out.count
