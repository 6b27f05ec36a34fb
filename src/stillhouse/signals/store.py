"""Signals in a folder: rows appended by any number of writers, found by what they are about, read through a memory map.

Each writer has a pair of files of its own, `rows-<name>.bin` with the encoded rows and `rows-<name>.index`, 32 bytes for each;
the index is written after the rows, so that whatever kills a writer, what the index names is there, and the next
writer goes on with what is missing. Every row is checked against its checksum when it is read.
"""

import json
import mmap
import os
import uuid
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from stillhouse.errors import RunFailed
from stillhouse.signals.bits import PrefixCode, padded
from stillhouse.signals.codecs import SampledCodec, StatesCodec, TopKCodec
from stillhouse.signals.contract import Contract

CODING = "coding.json"
HEAD = "head.safetensors"
FIDELITY = "fidelity.json"
ENTRY = np.dtype(
    [("key", "<u8"), ("ids", "<u8"), ("size", "<u4"), ("tokens", "<u4"), ("crc", "<u4"), ("logprob", "<f4")]
)
_FLUSH_BYTES = 4 * 2**20

Codec = TopKCodec | SampledCodec | StatesCodec


class SignalWriter:
    """Adds rows to the store of `contract` under `home`; a context manager.

    `coding` is asked for the details of the codec (how often which id comes) when the store is new. Rows that are there are not
    written again (`key in writer`).
    """

    def __init__(self, home: Path, contract: Contract) -> None:
        self.folder, self.contract = home / contract.id, contract
        self._name = f"rows-{uuid.uuid4().hex[:12]}"
        self._rows: list[bytes] = []
        self._entries: list[tuple[Any, ...]] = []
        self._bytes = 0
        self._known: set[int] = set()
        self._files: tuple[int, int] | None = None

    def __enter__(self) -> "SignalWriter":
        if not (self.folder / "contract.json").is_file():
            self.contract.write(self.folder)
        self._known = set(_entries(self.folder)[0]["key"].tolist())
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None or issubclass(kind, GeneratorExit):
            self.flush()
        if self._files is not None:
            for file in self._files:
                os.fsync(file)
                os.close(file)

    def __contains__(self, key: str) -> bool:
        return int(key, 16) in self._known

    def codec(self, coding: Callable[[], dict[str, Any]]) -> Codec:
        """The codec of this store; the first writer decides the coding, and the others take it as it is."""
        path = self.folder / CODING
        if not path.is_file():
            part = path.with_name(f"{self._name}.part")
            part.write_text(json.dumps(coding()), encoding="utf-8")
            with suppress(FileExistsError):
                os.link(part, path)
            part.unlink()
        return codec_of(self.folder, self.contract)

    def add(self, key: str, ids: int, row: bytes, tokens: int, logprob: float) -> None:
        """`ids` is the hash of the response's token ids, `logprob` the teacher's own of the whole response (nan: not told)."""
        self._known.add(int(key, 16))
        self._rows.append(row)
        self._entries.append((int(key, 16), ids, len(row), tokens, zlib.crc32(row), logprob))
        self._bytes += len(row)
        if self._bytes >= _FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """What was added lies on disk afterwards, whatever happens to this process."""
        if not self._rows:
            return
        if self._files is None:
            how = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            first, second = (os.open(self.folder / f"{self._name}.{end}", how, 0o644) for end in ("bin", "index"))
            self._files = first, second
        _write(self._files[0], b"".join(self._rows))
        _write(self._files[1], np.array(self._entries, ENTRY).tobytes())
        self._rows, self._entries, self._bytes = [], [], 0


class SignalReader:
    """The rows of a store. Holds 40 bytes a row; the rows themselves stay on disk, shared by all processes that read them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.contract = folder, Contract.read(folder)
        self.codec = codec_of(folder, self.contract) if (folder / CODING).is_file() else None
        self.entries, self._places, self._files = _entries(folder)
        self._order = np.argsort(self.entries["key"], kind="stable")
        self._maps: dict[int, mmap.mmap] = {}

    def __len__(self) -> int:
        return len(self.entries)

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])  # type: ignore[misc]

    def places(self, keys: Sequence[str]) -> np.ndarray:
        """Where the rows of these keys are, -1 for what is not there."""
        wanted = np.array([int(key, 16) for key in keys], np.uint64)
        found = np.full(len(wanted), -1)
        if len(self.entries):
            held = self.entries["key"][self._order]
            at = np.searchsorted(held, wanted).clip(max=len(held) - 1)
            found = np.where(held[at] == wanted, self._order[at], -1)
        return found

    def read(self, places: Sequence[int] | np.ndarray) -> Any:
        """Rows together: `Kept`, `Draws` or hidden_NH, by the form of the store. Raises RunFailed for a damaged row."""
        assert self.codec is not None
        rows = [self.row(int(place)) for place in places]
        sizes = np.array([len(row) for row in rows], np.int64)
        ends = np.cumsum(sizes)
        tokens = self.entries["tokens"][np.asarray(places)].astype(np.int64)
        return self.codec.decode(padded(b"".join(rows)), ends - sizes, ends, tokens)

    def told(self) -> dict[str, Any]:
        """What a report says: rows, tokens, bytes per token with index and head, the teacher's mean NLL where it is known."""
        tokens = int(self.entries["tokens"].sum())
        size = sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file())
        known = np.isfinite(self.entries["logprob"])
        fidelity = self.folder / FIDELITY
        scored = int(self.entries["tokens"][known].sum())
        return {
            "path": str(self.folder),
            "form": self.contract.form,
            "settings": self.contract.settings,
            "rows": len(self.entries),
            "tokens": tokens,
            "bytes": size,
            "bytes_per_token": round(size / tokens, 2) if tokens else None,
            "fidelity": json.loads(fidelity.read_text(encoding="utf-8")) if fidelity.is_file() else None,
            "teacher_nll": round(-float(self.entries["logprob"][known].sum(dtype=np.float64)) / scored, 4)
            if scored
            else None,
        }

    def row(self, place: int) -> bytes:
        """One row as it was written. Raises RunFailed where it is damaged."""
        row = self._bytes(place)
        if zlib.crc32(row) != self.entries["crc"][place]:
            number = int(self._places["file"][place])
            raise RunFailed(f"{self._files[number]}: a row is damaged; delete {self.folder} and run the recipe again")
        return row

    def sound(self, place: int) -> bool:
        """Whether a row is what was written."""
        return zlib.crc32(self._bytes(place)) == int(self.entries["crc"][place])

    def _bytes(self, place: int) -> bytes:
        number, start = int(self._places["file"][place]), int(self._places["start"][place])
        if number not in self._maps:
            with open(self._files[number], "rb") as file:
                self._maps[number] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._maps[number][start : start + int(self.entries["size"][place])]


def codec_of(folder: Path, contract: Contract) -> Codec:
    told = json.loads((folder / CODING).read_text(encoding="utf-8"))
    if contract.form == "Dense":
        return StatesCodec(told["width"], contract.settings["dtype"])
    ids = PrefixCode(tuple(told["ids"]))
    if contract.form == "Sampled":
        return SampledCodec(contract.settings["draws"], ids)
    return TopKCodec(contract.settings["k"], ids)


_PLACE = np.dtype([("file", "<u4"), ("start", "<u8")])


def _entries(folder: Path) -> tuple[np.ndarray, np.ndarray, list[Path]]:
    """All rows that are whole, where each lies, and the files they lie in."""
    found, places = [np.zeros(0, ENTRY)], [np.zeros(0, _PLACE)]
    files: list[Path] = []
    for index in sorted(folder.glob("rows-*.index")):
        rows = index.with_suffix(".bin")
        entries = np.fromfile(index, ENTRY, count=index.stat().st_size // ENTRY.itemsize)
        ends = np.cumsum(entries["size"].astype(np.int64))
        entries = entries[ends <= rows.stat().st_size]
        place = np.zeros(len(entries), _PLACE)
        place["file"], place["start"] = len(files), ends[: len(entries)] - entries["size"]
        found.append(entries)
        places.append(place)
        files.append(rows)
    return np.concatenate(found), np.concatenate(places), files


def _write(file: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]
