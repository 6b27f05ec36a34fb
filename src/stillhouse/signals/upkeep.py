"""Looking after the signals beside a store of answers: looked through, two made into one, what a crash left removed."""

import json
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from stillhouse.errors import RunFailed, StillhouseError
from stillhouse.signals.codecs import SampledCodec, TopKCodec
from stillhouse.signals.contract import FILE
from stillhouse.signals.store import CODING, FIDELITY, HEAD, SignalReader, SignalWriter

__all__ = ["collect_garbage", "merge", "verify"]

_LEFT_S = 86400.0  # what nobody wrote to for a day belongs to no living writer


def verify(home: Path) -> list[str]:
    """What is wrong with the signals under `home`, one sentence each. Reads every row once."""
    return [problem for folder in _folders(home) for problem in _wrong(folder)]


def _wrong(folder: Path) -> Iterator[str]:
    try:
        reader = SignalReader(folder)
    except (StillhouseError, ValueError, KeyError, OSError) as error:
        yield f"signals {folder.name}: cannot be read ({error})"
        return
    if len(reader) and reader.codec is None:
        yield f"signals {folder.name}: {CODING} is gone, without which its rows cannot be read; delete {folder}"
    indexed = sum(path.stat().st_size for path in folder.glob("rows-*.index")) // reader.entries.dtype.itemsize
    if indexed > len(reader):
        yield f"signals {folder.name}: {indexed - len(reader)} rows that the index names are not there"
    damaged = sum(1 for place in range(len(reader)) if not reader.sound(place))
    if damaged:
        yield f"signals {folder.name}: {damaged} of {len(reader)} rows are damaged; delete {folder} and run the recipe again"


def merge(into: Path, other: Path) -> int:
    """Takes over every row under `other` that is not under `into`; how many there were. Twice changes nothing.

    Two stores of one teacher code its ids each by their own frequencies: rows are written anew in the code of `into`, bit
    for bit the same beliefs. Raises RunFailed for a damaged row.
    """
    taken = 0
    for folder in _folders(other):
        reader = SignalReader(folder)
        if reader.codec is None:
            continue
        target = into / folder.name
        target.mkdir(parents=True, exist_ok=True)
        for name in (HEAD, FIDELITY):
            if (folder / name).is_file() and not (target / name).exists():
                shutil.copy2(folder / name, target / name)
        with SignalWriter(into, reader.contract) as writer:
            coding = json.loads((folder / CODING).read_text(encoding="utf-8"))
            ours = writer.codec(partial(dict, coding))
            for place, entry in enumerate(reader.entries):
                key = f"{int(entry['key']):016x}"
                if key in writer:
                    continue
                row, tokens = reader.row(place), int(entry["tokens"])
                if isinstance(reader.codec, TopKCodec | SampledCodec) and reader.codec != ours:
                    assert isinstance(ours, TopKCodec | SampledCodec)
                    row = reader.codec.recoded(row, tokens, ours.ids)
                elif reader.codec != ours:
                    raise RunFailed(f"{folder}: its states are {reader.codec}, those of {target} {ours}")
                writer.add(key, int(entry["ids"]), row, tokens, float(entry["logprob"]))
                taken += 1
    return taken


def collect_garbage(home: Path) -> int:
    """Removes the files of writers that died before their first whole row; how many. Rows are never removed."""
    gone = 0
    for folder in _folders(home):
        for path in folder.iterdir():
            alone = path.suffix == ".bin" and not path.with_suffix(".index").exists()
            if (alone or path.suffix == ".part") and path.stat().st_mtime < time.time() - _LEFT_S:
                path.unlink()
                gone += 1
    return gone


def _folders(home: Path) -> list[Path]:
    return sorted(path.parent for path in home.glob(f"*/{FILE}"))
