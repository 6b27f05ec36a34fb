"""Records and rows as lines of JSON, and back.

msgspec does the work wherever it gives what the standard library gives. What only the latter takes as it is (numbers that
are not finite, lone surrogates) or refuses (sets, bytes, dates: they would come back as something else) goes through it.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, fields
from functools import cache
from math import isfinite
from typing import TYPE_CHECKING, Any

import msgspec

from stillhouse.records import (
    Act,
    Example,
    Message,
    Origin,
    Ranking,
    Record,
    Seed,
    StoredSignal,
    TopLogprobs,
    Trajectory,
)

if TYPE_CHECKING:
    import numpy as np

KINDS: dict[str, type] = {
    kind.__name__: kind for kind in (Seed, Example, TopLogprobs, StoredSignal, Ranking, Trajectory)
}
_WITHOUT_ARRAYS = (Seed, Example, StoredSignal, Ranking, Trajectory)
_LINE = json.JSONEncoder(ensure_ascii=False)
_encoded = msgspec.json.Encoder().encode
_decoded = msgspec.json.Decoder().decode
_RECORD: dict[bytes, Callable[[bytes], Any]] = {
    kind.__name__.encode(): msgspec.json.Decoder(kind).decode for kind in _WITHOUT_ARRAYS
}
_HEAD: dict[type, bytes] = {kind: f'{{"kind":"{kind.__name__}",'.encode() for kind in _WITHOUT_ARRAYS}
_NUMBERED = (Ranking, Trajectory)
_SCALARS = frozenset((str, int, bool, type(None)))


def record_line(record: Record) -> bytes | None:
    """A record as a line; None where it has arrays, or holds what only `to_row` and `dump_line` write as it is."""
    kind = type(record)
    head = _HEAD.get(kind)
    if head is None or (record.columns and not _plain_data(record.columns)):
        return None
    if kind in _NUMBERED and not _plain_data((getattr(record, "scores", None), getattr(record, "reward", None))):
        return None
    try:
        return head + _encoded(record)[1:] + b"\n"
    except (UnicodeEncodeError, TypeError):
        return None


def read_record(line: bytes) -> Record | None:
    """The record that a line holds; None where it is to be read by `json` and `from_row`, which also say what is wrong."""
    parts = line.split(b'"', 4)
    decoded = _RECORD.get(parts[3]) if len(parts) == 5 and parts[1] == b"kind" else None
    if decoded is None:
        return None
    try:
        found: Record = decoded(line)
    except msgspec.MsgspecError:
        return None
    return found


def read_row(line: str | bytes) -> Any:
    """The JSON value of a line. Raises what `json.loads` raises."""
    try:
        return _decoded(line)
    except msgspec.MsgspecError:
        return json.loads(line)


def dump_line(row: dict[str, Any]) -> bytes:
    """One line of JSON as UTF-8; text that UTF-8 cannot hold (lone surrogates) is escaped, so that it comes back as it was."""
    try:
        return (_encoded(row) if _plain_data(row) else _LINE.encode(row).encode()) + b"\n"
    except UnicodeEncodeError:
        return json.dumps(row, ensure_ascii=True).encode() + b"\n"


def to_row(record: Any) -> tuple[dict[str, Any], "dict[str, np.ndarray]"]:
    """A record as plain JSON data and its arrays by field name."""
    import numpy as np

    kind: type = type(record)
    row: dict[str, Any] = {"kind": kind.__name__}
    arrays: dict[str, np.ndarray] = {}
    for name in names_of(kind):
        value = getattr(record, name)
        if isinstance(value, np.ndarray):
            arrays[name] = value
        else:
            row[name] = value if isinstance(value, str) else _plain(value)
    return row, arrays


def from_row(row: dict[str, Any], arrays: "dict[str, np.ndarray] | None" = None) -> Record:
    kind = KINDS[row["kind"]]
    values: dict[str, Any] = dict(arrays or {})
    for name in names_of(kind):
        if name in values:
            continue
        value: Any = row[name]
        if name in ("prompt", "asked"):
            value = tuple([Message(m["role"], m["content"]) for m in value])
        elif name == "acts":
            value = tuple(Act(**act) for act in value)
        elif name == "origin":
            value = Origin(tuple(value["parents"]), value["teacher"], tuple(value["keys"]), value["step"])
        elif isinstance(value, list):
            value = tuple(value)
        values[name] = value
    return kind(**values)


@cache
def names_of(kind: type) -> tuple[str, ...]:
    return tuple(each.name for each in fields(kind))


def _plain_data(value: Any) -> bool:
    """Whether both libraries write a value alike: JSON's own types, and no number that is not finite."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    if kind is float:
        return isfinite(value)
    if kind is dict:
        return all([type(name) is str and _plain_data(each) for name, each in value.items()])
    return kind in (list, tuple) and all([_plain_data(each) for each in value])


def _plain(value: Any) -> Any:
    if isinstance(value, Message):
        return {"role": value.role, "content": value.content}
    if isinstance(value, Origin):
        return {"parents": list(value.parents), "teacher": value.teacher, "keys": list(value.keys), "step": value.step}
    if isinstance(value, Act):
        return asdict(value)
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value
