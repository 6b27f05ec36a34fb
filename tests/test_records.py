"""The nouns: where ids come from, what a record is born with."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.records import Example, Message, Origin, Seed, content_id, stamped, user

SEED = Seed("s1", user("What is 2 + 2?"), "4", {"topic": "sums"})


def test_an_answer_keeps_the_learners_prompt_apart_from_the_asked_one() -> None:
    """R43: the student learns under the seed's prompt, whatever the teacher was told."""
    asked = (Message("system", "Be brief."), *SEED.prompt)
    made = SEED.answered("4", asked=asked, teacher="main", keys=("k1",))
    assert (made.prompt, made.asked, made.reference, made.columns) == (SEED.prompt, asked, "4", {"topic": "sums"})
    assert made.origin == Origin(("s1",), "main", ("k1",))


def test_ids_tell_answers_apart_and_repeat_themselves() -> None:
    def born(response: str, keys: tuple[str, ...]) -> str:
        return SEED.answered(response, asked=(), teacher="main", keys=keys).id

    assert born("4", ("a",)) == born("4", ("a",))
    assert len({born("4", ("a",)), born("4", ("b",)), born("5", ("a",))}) == 3


def test_beliefs_name_their_example_and_tokenizer() -> None:
    """O4: distributions lie beside the text they belong to."""
    example = Example("e1", user("q"), "r")
    arrays = {"token_ids_T": np.array([1]), "top_ids_TK": np.array([[1]]), "top_logprobs_TK": np.array([[-0.1]])}
    made = example.believed(**arrays, tokenizer="t", teacher="main")
    other = example.believed(**arrays, tokenizer="u", teacher="main")
    assert made.origin == Origin(("e1",), "main")
    assert made.id != other.id


def test_a_stamp_changes_the_step_and_nothing_else() -> None:
    record = stamped(SEED, "00-file")
    assert record.origin.step == "00-file"
    assert dataclasses.replace(record, origin=SEED.origin) == SEED


def test_records_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SEED.reference = "5"  # type: ignore[misc]


@given(st.lists(st.text(st.characters())))
def test_an_id_is_sixteen_hex_digits_of_the_parts_alone(parts: list[str]) -> None:
    found = content_id(*parts)
    assert found == content_id(*parts)
    assert len(found) == 16
    assert set(found) <= set("0123456789abcdef")


PARTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@given(st.lists(PARTS), st.text(st.characters()))
def test_an_id_is_the_hash_of_the_parts_as_json(parts: list[object], text: str) -> None:
    """The form is kept: stores and run folders hold ids made before."""
    whole = json.dumps([*parts, ["user", text]], ensure_ascii=False, sort_keys=True)
    expected = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    assert content_id(*parts, Message("user", text)) == expected


def test_ids_do_not_run_parts_together() -> None:
    assert content_id("ab", "c") != content_id("a", "bc")
    assert content_id(("a",), "b") != content_id("a", ("b",))


def test_an_array_counts_as_the_list_of_its_values() -> None:
    assert content_id("x", np.arange(3)) == content_id("x", [0, 1, 2])
