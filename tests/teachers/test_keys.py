"""The key of a request: all that can change the answer, nothing else; pinned, because users' stores hang on it (D1, D20)."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.records import Message, user
from stillhouse.teachers.asking.keys import (
    canonical_json,
    derived_seed,
    normalised_url,
    request_body,
    request_key,
    request_v1,
    text_fault,
)
from stillhouse.teachers.base import Identity, Request, Sampling

CHAT = Identity("openai-chat", "some-model", "https://api.example.com/v1", settings=(("effort", "low"),))
LOCAL = Identity("hf-local", "tiny", revision="a" * 64, settings=(("dtype", "auto"),))
ASKED = Request(
    (Message("system", "Be brief."), Message("user", "2 + 2 = ?")),
    Sampling(temperature=0.7, top_p=0.9, max_tokens=64, n=4, stop=("\n",), seed=3),
    sample_index=1,
)


def test_golden_keys() -> None:
    """If this fails, every answer in every user's store is paid again: change the form only with a new KEY_SCHEMA."""
    assert request_key(CHAT, ASKED) == "cfb5ea2b1e265b23d2c3bf9a8c1a819df99ecc0f696cfe6a47bf65a5d756f6da"
    assert request_key(LOCAL, ASKED) == "894b2dded1f25b750684a0e6411286a743303d49ac68e998121b233c3aa1ff8f"
    schema = {"type": "object", "properties": {"score": {"type": "integer"}}}
    assert (
        request_key(CHAT, replace(ASKED, response_schema=schema))
        == "6e6c42a2a591eda83343f84dd7c0f00e46816e918f3a1a800df991a1ee4ab9f5"
    )
    assert (
        request_key(Identity("scripted", "scripted"), replace(ASKED, expected="4"))
        == "27ba688f9f149a5c43277d580471f0f7054fa1639c566f8ea0d313036d30351f"
    )
    assert derived_seed("cfb5ea2b1e265b23d2c3bf9a8c1a819df99ecc0f696cfe6a47bf65a5d756f6da") == 4161605654080208859


CHANGES = {
    "wire": (replace(CHAT, wire="openai-completions"), ASKED),
    "model": (replace(CHAT, model="other"), ASKED),
    "endpoint": (replace(CHAT, endpoint="https://b.example.com/v1"), ASKED),
    "revision": (replace(CHAT, revision="2"), ASKED),
    "settings": (replace(CHAT, settings=(("effort", "high"),)), ASKED),
    "system prompt": (CHAT, replace(ASKED, messages=(Message("system", "Be long."), ASKED.messages[1]))),
    "role": (CHAT, replace(ASKED, messages=(Message("user", "Be brief."), ASKED.messages[1]))),
    "question": (CHAT, replace(ASKED, messages=(ASKED.messages[0], Message("user", "2 + 2 = ? ")))),
    "temperature": (CHAT, replace(ASKED, sampling=replace(ASKED.sampling, temperature=0.8))),
    "top_p": (CHAT, replace(ASKED, sampling=replace(ASKED.sampling, top_p=1.0))),
    "rung": (CHAT, replace(ASKED, sampling=replace(ASKED.sampling, max_tokens=128))),
    "stop": (CHAT, replace(ASKED, sampling=replace(ASKED.sampling, stop=()))),
    "seed": (CHAT, replace(ASKED, sampling=replace(ASKED.sampling, seed=4))),
    "sample": (CHAT, replace(ASKED, sample_index=2)),
    "schema": (CHAT, replace(ASKED, response_schema={"type": "object"})),
    "log-probs of the answer": (CHAT, replace(ASKED, top_logprobs=5)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_can_change_the_answer_changes_the_key(name: str) -> None:
    assert request_key(*CHANGES[name]) != request_key(CHAT, ASKED)


def test_all_changes_give_different_keys() -> None:
    assert len({request_key(*change) for change in CHANGES.values()}) == len(CHANGES)


@pytest.mark.parametrize(
    "request_",
    [
        replace(ASKED, tag="row 17"),
        replace(ASKED, expected="4"),
        replace(ASKED, sampling=replace(ASKED.sampling, n=1)),
        replace(ASKED, sampling=replace(ASKED.sampling, top_p=0.90)),
    ],
    ids=["tag", "expected", "n", "the same number"],
)
def test_what_cannot_change_the_answer_leaves_the_key(request_: Request) -> None:
    assert request_key(CHAT, request_) == request_key(CHAT, ASKED)


def test_numbers_have_one_spelling() -> None:
    whole, floating = Sampling(temperature=1, max_tokens=8), Sampling(temperature=1.0, max_tokens=8)
    assert request_key(CHAT, replace(ASKED, sampling=whole)) == request_key(CHAT, replace(ASKED, sampling=floating))


def test_local_weights_are_known_by_content_and_not_by_folder() -> None:
    assert request_key(replace(LOCAL, model="moved"), ASKED) == request_key(LOCAL, ASKED)
    assert request_key(replace(LOCAL, revision="b" * 64), ASKED) != request_key(LOCAL, ASKED)


def test_dropped_parameters_leave_the_key() -> None:
    dropping = replace(CHAT, settings=(("dropped", "temperature,top_p"),))
    warm, cold = replace(ASKED.sampling, temperature=1.0, top_p=1.0), replace(ASKED.sampling, temperature=0.0)
    assert request_key(dropping, replace(ASKED, sampling=warm)) == request_key(dropping, replace(ASKED, sampling=cold))
    assert request_key(CHAT, replace(ASKED, sampling=warm)) != request_key(CHAT, replace(ASKED, sampling=cold))


texts = st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), texts), max_size=3), st.data())
def test_key_is_injective_on_messages(turns: list[tuple[str, str]], data: st.DataObject) -> None:
    """Moving a border between two messages is another request, whatever characters they hold (D1)."""
    other = data.draw(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), texts), max_size=3))
    first = request_key(CHAT, Request(tuple(Message(role, text) for role, text in turns)))  # type: ignore[arg-type]
    second = request_key(CHAT, Request(tuple(Message(role, text) for role, text in other)))  # type: ignore[arg-type]
    assert (first == second) == (turns == other)


def test_composed_and_decomposed_text_stay_apart() -> None:
    assert request_key(CHAT, Request(user("\u00e9"))) != request_key(CHAT, Request(user("e\u0301")))


def test_canonical_json_refuses_what_has_no_spelling() -> None:
    assert canonical_json({"b": 1, "a": ["é", None]}) == '{"a":["é",null],"b":1}'
    with pytest.raises(ValueError):
        canonical_json({"a": float("nan")})


@pytest.mark.parametrize(
    ("text", "fault"),
    [("plain", None), ("😀 é \ufeff", None), ("a\x00b", "NUL"), ("a\ud83d", "surrogate at character 1")],
)
def test_text_that_cannot_be_stored_is_stopped_at_the_door(text: str, fault: str | None) -> None:
    found = text_fault(Request(user(text)))
    assert found is None if fault is None else fault in str(found)


@pytest.mark.parametrize(
    ("given_", "normal"),
    [
        ("HTTPS://API.Example.com:443/v1/", "https://api.example.com/v1"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        ("http://user:secret@host/v1", "http://host/v1"),
        ("http://host/v1?api-version=2", "http://host/v1?api-version=2"),
        ("http://[::1]:80/V1", "http://[::1]/V1"),
    ],
)
def test_one_endpoint_has_one_spelling(given_: str, normal: str) -> None:
    assert normalised_url(given_) == normal


def test_derived_seed_fits_63_bits_and_depends_on_the_key() -> None:
    seeds = {derived_seed(request_key(CHAT, replace(ASKED, sample_index=index))) for index in range(50)}
    assert len(seeds) == 50
    assert all(0 <= seed < 2**63 for seed in seeds)


@given(
    st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), st.text()), max_size=4),
    st.text(),
    st.integers(0, 2**40),
)
def test_the_body_written_piece_by_piece_is_the_canonical_one(
    turns: list[tuple[str, str]], setting: str, sample: int
) -> None:
    """Also where a setting looks like the places that are cut out of the frame."""
    messages = tuple(Message(role, text) for role, text in turns)  # type: ignore[arg-type]
    settings = (("x", setting), ("y", '"messages":[],"sample_index":0'), ("dropped", "temperature"))
    for wire in ("openai-chat", "hf-local", "scripted"):
        identity = Identity(wire, setting, "http://x", settings=settings)
        request = Request(messages, Sampling(stop=('"sample_index":0',)), sample)
        assert request_body(identity, request) == canonical_json(request_v1(identity, request))
