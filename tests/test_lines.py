"""Lines of JSON: the quick way gives what the standard library gives, and steps aside where it would not."""

import json
import math
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse import lines
from stillhouse.records import Act, Example, Message, Origin, Ranking, Seed, Trajectory, user

TEXT = st.text(st.characters())  # lone surrogates too
SCALAR = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXT)
DATA = st.recursive(SCALAR, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=8)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(TEXT, DATA))
def test_rows_come_back_as_they_were(row: dict[str, Any]) -> None:
    assert json.loads(lines.dump_line(row)) == row
    assert lines.read_row(lines.dump_line(row)) == row


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(TEXT, DATA), TEXT)
def test_a_record_is_written_as_its_row_is(columns: dict[str, Any], text: str) -> None:
    record = Example("a", user(text), text, None, user(text), columns, Origin(("p",), "t", ("k",), "s"))
    row = lines.to_row(record)[0]
    line = lines.record_line(record) or lines.dump_line(row)
    assert json.loads(line) == row
    assert (lines.read_record(line) or lines.from_row(json.loads(line))) == record


@pytest.mark.parametrize(
    "record",
    [
        Seed("s", (Message("system", "be brief"), Message("user", "q")), "7", {"a": [1, {"b": None}]}),
        Ranking("r", user("q"), ("a", "b"), (0.5, -1.0), None, user("asked"), {}, Origin(("p",), "t", ("k",), "s")),
        Trajectory("t", user("goal"), (Act("think", "find", "it"), Act("", "finish", "", "done")), 1.0),
    ],
)
def test_records_without_arrays_take_the_quick_way(record: Any) -> None:
    line = lines.record_line(record)
    assert line is not None
    assert lines.read_record(line) == record == lines.from_row(json.loads(line))


def test_a_line_of_an_earlier_version_is_read() -> None:
    """The standard library's spelling has blanks behind colons and commas."""
    seed = Seed("s", user("q"), None, {"x": 1})
    assert lines.read_record(json.dumps(lines.to_row(seed)[0]).encode()) == seed


@pytest.mark.parametrize("value", [math.nan, math.inf, [{"deep": -math.inf}]])
def test_numbers_that_are_not_finite_stay_what_they_are(value: Any) -> None:
    assert lines.record_line(Seed("s", user("q"), None, {"x": value})) is None
    line = lines.dump_line({"x": value})
    assert repr(lines.read_row(line)["x"]) == repr(value)
    seed = b'{"kind":"Seed","id":"s","prompt":[],"reference":null,"columns":{"x":NaN},"origin":{}}'
    assert lines.read_record(seed) is None


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", date(2026, 1, 1), object()])
def test_what_would_come_back_as_something_else_is_refused(value: Any) -> None:
    assert lines.record_line(Seed("s", user("q"), None, {"x": value})) is None
    with pytest.raises(TypeError):
        lines.dump_line({"x": value})


@pytest.mark.parametrize("text", ["", "{", "[1,]", '{"a": 01}', "NaN x"])
def test_what_is_no_json_raises_what_json_raises(text: str) -> None:
    with pytest.raises(json.JSONDecodeError):
        lines.read_row(text)
