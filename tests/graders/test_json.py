"""Strict JSON: the bad inputs 1-4 of the parser's table, and schemas."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.errors import RecipeError
from stillhouse.graders import Grade
from stillhouse.graders.json_schema import equal, valid
from stillhouse.graders.strict_json import _COMMANDS, NotStrictError, read

WHOLE = '{"question": "Why do tides rise?", "answer": "The moon pulls the sea.", "level": [1, 2]}'


@pytest.mark.parametrize("cut", range(1, len(WHOLE)))
def test_a_cut_answer_is_never_completed(cut: int) -> None:
    with pytest.raises(NotStrictError):
        read(WHOLE[:cut])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1} {"a": 2}', "several_objects"),
        ('Either {"a": 1} or {"a": 2}.', "several_objects"),
        ('```json\n{"a": 1}\n```\n```json\n{"a": 2}\n```', "several_objects"),
        ('{"a": 1, "a": 9}', "duplicate_key"),
        ('{"a": NaN}', "not_a_number"),
        ('{"a": 1e400}', "not_a_number"),
        ("[" * 10_000 + "]" * 10_000, "too_deep"),
        ("I am sorry.", "no_json"),
        ("", "no_json"),
        ('{"a": "' + "x" * (1 << 20) + '"}', "too_long"),
    ],
)
def test_what_is_ambiguous_is_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(NotStrictError, match=f"^{reason}$"):
        read(text)


@pytest.mark.parametrize(
    "text",
    [
        WHOLE,
        f"Sure! {WHOLE}",
        f"```json\n{WHOLE}\n```",
        f"Here:\n```\n{WHOLE}\n```\nBye.",
        "\ufeff" + WHOLE,
        f"  {WHOLE}\n",
    ],
)
def test_one_object_is_found_in_its_surroundings(text: str) -> None:
    assert read(text) == json.loads(WHOLE)


@pytest.mark.parametrize("command", [*_COMMANDS.split("|"), "alpha", "sum", "sqrt", "pi", "leq", "cdot", "lambda"])
def test_latex_survives(command: str) -> None:
    """Bad input 4: a model writes one backslash where JSON needs two."""
    once, twice = "\\" + command, "\\\\" + command
    assert read('{"a": "' + once + '{1}"}') == {"a": once + "{1}"}
    assert read('{"a": "' + twice + ' x"}') == {"a": once + " x"}  # written rightly: unchanged


def test_real_white_space_stays_white_space() -> None:
    assert read('{"a": "one\\ntwo\\tthree\\u00e9"}') == {"a": "one\ntwo\tthree\u00e9"}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_what_json_writes_is_read_back(value: object) -> None:
    wrapped = {"value": value}
    text = json.dumps(wrapped)
    if "\\\\" not in text and not any(f"\\{c}" in text for c in "bfnrtu"):
        assert read(text) == wrapped


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name"],
    "additionalProperties": False,
}


def test_schema_by_knob_or_by_reference() -> None:
    texts = ['{"name": "Ann", "age": 3}', '{"age": 3}', '{"name": 3}', '{"name": "Ann", "x": 1}', "no"]
    expected = ["valid", "schema:root", "schema:name", "schema:root", "no_json"]
    assert [g.reason for g in valid(texts, [None] * 5, schema=SCHEMA)] == expected
    assert [g.reason for g in valid(texts, [json.dumps(SCHEMA)] * 5)] == expected
    assert valid(["{}"], [None]) == [Grade(None, "no_reference")]
    assert valid(["{}"], ["not a schema"]) == [Grade(None, "unreadable_reference")]
    with pytest.raises(RecipeError, match="is none"):
        valid(["{}"], [None], schema={"type": "strange"})


def test_equal_values_not_equal_texts() -> None:
    reference = '{"a": [1, 2], "b": true}'
    texts = ['{"b": true, "a": [1, 2.0]}', '{"a": [2, 1], "b": true}', '{"a": [1, 2], "b": 1}', '{"a": [1, 2]']
    assert [g.reason for g in equal(texts, [reference] * 4)] == ["equal", "different", "different", "no_json"]
