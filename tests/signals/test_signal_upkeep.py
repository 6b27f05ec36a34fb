"""Signals of several machines made one, looked through, and cleared of what a crash left."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_teacher import SmallTeacher
from test_signal_store import KINDS

from stillhouse.errors import RunFailed
from stillhouse.signals.bits import PrefixCode
from stillhouse.signals.store import SignalReader
from stillhouse.signals.upkeep import collect_garbage, merge, verify


def stored(home: Path, kind: Any, knobs: Any, examples: Any, teacher: SmallTeacher) -> SignalReader:
    rows = list(kind(examples, SmallTeacher(home, teacher.model, teacher.own), **knobs))
    return SignalReader(Path(rows[0].store))


def read(reader: SignalReader, keys: list[str]) -> list[np.ndarray]:
    told = reader.read(reader.places(keys))
    return [told] if isinstance(told, np.ndarray) else [getattr(told, name) for name in told.__dataclass_fields__]


@pytest.mark.parametrize(("kind", "knobs"), KINDS)
def test_a_merge_is_a_union_bit_for_bit_and_twice_changes_nothing(
    kind: Any, knobs: Any, examples: Any, teacher: SmallTeacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = stored(tmp_path / "one", kind, knobs, examples[:12], teacher)
    monkeypatch.setattr(PrefixCode, "fitted", lambda numbers, limit: PrefixCode((3, 5, 7, 9)))
    two = stored(tmp_path / "two", kind, knobs, examples[9:], teacher)
    if hasattr(one.codec, "ids"):
        assert one.codec != two.codec  # each codes the ids by its own rows
    assert merge(tmp_path / "one", tmp_path / "two") == 8
    assert merge(tmp_path / "one", tmp_path / "two") == 0
    assert verify(tmp_path / "one") == verify(tmp_path / "two") == []
    both = SignalReader(one.folder)
    assert len(both) == 20
    mine = [f"{int(key):016x}" for key in one.entries["key"]]
    theirs_alone = [key for key in (f"{int(key):016x}" for key in two.entries["key"]) if key not in mine]
    for source, keys in ((one, mine), (two, theirs_alone)):  # where both have a row ours stays
        assert (both.places(keys) >= 0).all()
        for ours, theirs in zip(read(both, keys), read(source, keys), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        for name in ("ids", "tokens", "logprob"):
            there = source.entries[name][source.places(keys)]
            np.testing.assert_array_equal(both.entries[name][both.places(keys)], there)
    fresh = tmp_path / "fresh"
    assert merge(fresh, tmp_path / "two") == 11
    assert sorted(
        path.name for path in (fresh / two.folder.name).iterdir() if not path.name.startswith("rows-")
    ) == sorted(path.name for path in two.folder.iterdir() if not path.name.startswith("rows-"))
    again = list(kind(examples, SmallTeacher(tmp_path / "one", teacher.model, teacher.own), **knobs))
    assert len(SignalReader(one.folder)) == len(again) == 20  # nothing was worked out again


def test_verify_names_what_is_damaged_and_a_merge_stops_at_it(
    examples: Any, teacher: SmallTeacher, tmp_path: Path
) -> None:
    kind, knobs = KINDS[0]
    home = tmp_path / "home"
    reader = stored(home, kind, knobs, examples, teacher)
    (rows,) = reader.folder.glob("rows-*.bin")
    content = bytearray(rows.read_bytes())
    content[len(content) // 2] ^= 1
    rows.write_bytes(bytes(content))
    (problem,) = verify(home)
    assert "1 of 20 rows are damaged" in problem
    with pytest.raises(RunFailed, match="a row is damaged"):
        merge(tmp_path / "other", home)
    rows.write_bytes(bytes(content[:-1]))
    assert any("1 rows that the index names are not there" in each for each in verify(home))
    (reader.folder / "coding.json").unlink()
    assert any("coding.json is gone" in each for each in verify(home))
    (reader.folder / "contract.json").write_text("{")
    assert any("cannot be read" in each for each in verify(home))


def test_garbage_is_what_a_dead_writer_left_and_never_a_row(
    examples: Any, teacher: SmallTeacher, tmp_path: Path
) -> None:
    kind, knobs = KINDS[0]
    home = tmp_path / "home"
    reader = stored(home, kind, knobs, examples, teacher)
    for name in ("rows-dead.bin", "rows-alive.bin", "rows-dead.part"):
        (reader.folder / name).write_bytes(b"half a row")
    for name in ("rows-dead.bin", "rows-dead.part", *(path.name for path in reader.folder.glob("rows-*.index"))):
        os.utime(reader.folder / name, (0, 0))
    assert collect_garbage(home) == 2
    assert (reader.folder / "rows-alive.bin").exists()
    assert len(SignalReader(reader.folder)) == 20
    assert verify(home) == []
