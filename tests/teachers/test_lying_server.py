"""Every field of every reply replaced by what no server should send: the row's own fault, stored, and nobody else's."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stillhouse.records import user
from stillhouse.teachers import anthropic, openai
from stillhouse.teachers.asking.answers import AnswerStore, AttemptRow
from stillhouse.teachers.asking.beliefs import read_prompt_logprobs
from stillhouse.teachers.asking.faults import retry_after, status_fault
from stillhouse.teachers.asking.http import Received
from stillhouse.teachers.asking.keys import key_of, request_body
from stillhouse.teachers.asking.settling import Settling
from stillhouse.teachers.asking.wire import Clock, Fault, Reply
from stillhouse.teachers.base import Answer, Request, Sampling, TokenBeliefs
from stillhouse.teachers.calls import Calls
from stillhouse.testing.provider import FakeProvider, Step

Open = Callable[..., Calls]
URL = "http://127.0.0.1:9/v1"
OWN = {
    "chat": {
        "id": "x", "model": "m", "system_fingerprint": "f",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {
            "role": "assistant", "content": "hi", "reasoning_content": "r", "refusal": None}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "completion_tokens_details": {"reasoning_tokens": 1},
                  "prompt_tokens_details": {"cached_tokens": 1}},
    },
    "completions": {
        "id": "x", "model": "m", "choices": [{"index": 0, "finish_reason": "stop", "text": "hi"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    },
    "messages": {
        "id": "x", "type": "message", "model": "m", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "hi"}, {"type": "thinking", "thinking": "t"}],
        "usage": {"input_tokens": 3, "output_tokens": 1, "cache_read_input_tokens": 1, "cache_creation_input_tokens": 0},
    },
}  # fmt: skip
LIES: list[Any] = [
    None, True, False, 0, -1, 10**8, 10**40, 1.5, float("nan"), float("inf"), "", "x", "\x00", "\ud800", "a\udfff\x00b",
    "\u202e\U0001f600\ufeffe\u0301", [], [None], ["x"], [[]], {}, {"a": 1}, {"text": None}, {"type": "text"}, {"content": 3},
    [{"type": "text", "text": 3}], [{"text": "t"}], "x" * 100_000,
]  # fmt: skip
GONE = object()


def places(value: Any, behind: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield behind
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inside:
        yield from places(each, (*behind, name))


def lied(value: Any) -> Iterator[Any]:
    """The value with one thing in it replaced, or gone."""
    for place in places(value):
        for lie in [*LIES, GONE] if place else []:
            made = copy.deepcopy(value)
            at = made
            for name in place[:-1]:
                at = at[name]
            if lie is GONE:
                del at[place[-1]]
            else:
                at[place[-1]] = lie
            yield json.loads(json.dumps(made))


def teacher_at(wire: str, url: str = URL, **knobs: Any) -> Any:
    if wire == "messages":
        return anthropic.Teacher(model="m", base_url=url, **knobs)
    return openai.Teacher(model="m", base_url=url, api=wire, **knobs)


def stored(folder: Path, backend: Any, replies: Iterator[Reply]) -> list[AttemptRow]:
    """The attempts that the replies become, all of them on disk."""
    settling = Settling(backend, backend.price(), Clock(), "t", "s", lambda text: None)
    body = request_body(backend.identity(), REQUEST)
    rows = [settling.ended(key_of(body), None, 1.0, reply, settling.worst(REQUEST)) for reply in replies]
    store = AnswerStore(folder)
    store.commit("run", "t", rows, [(key_of(body), body)])
    assert store.rows("SELECT count(*) FROM attempt") == [(len(rows),)]
    for row in rows:
        row.detail.encode()  # can be printed
    store.close()
    return rows


REQUEST = Request(user("q"), Sampling(max_tokens=5, stop=("z",)), response_schema={"type": "object"})


@pytest.mark.parametrize("wire", OWN)
def test_no_field_of_a_reply_upsets_anything(tmp_path: Path, wire: str) -> None:
    backend = teacher_at(wire)
    replies = (backend.reply(REQUEST, Received(value, b"", {})) for value in lied(OWN[wire]))
    rows = stored(tmp_path, backend, replies)
    assert len(rows) > 250
    outcomes = {row.outcome for row in rows}
    assert {"answered", "protocol", "truncated", "empty", "malformed"} <= outcomes
    for row in rows:
        assert row.input_tokens >= 0 and row.output_tokens >= 0 and (row.settled_usd or 0.0) == 0.0
        assert row.outcome != "answered" or row.answer is not None


@pytest.mark.parametrize("wire", ["chat", "messages"])
def test_no_field_of_a_line_of_a_batch_upsets_anything(tmp_path: Path, wire: str) -> None:
    backend = teacher_at(wire, transport="batch")
    if wire == "chat":
        lines = [
            {"custom_id": "k", "response": {"status_code": 200, "request_id": "r", "body": OWN["chat"]}, "error": None},
            {"custom_id": "k", "response": None, "error": {"code": "batch_expired", "message": "late"}},
            {"custom_id": "k", "response": {"status_code": 400, "body": {"error": {"code": "c", "message": "m"}}}},
        ]
    else:
        lines = [
            {"custom_id": "k", "result": {"type": "succeeded", "message": OWN["messages"]}},
            {"custom_id": "k", "result": {"type": "expired"}},
            {"custom_id": "k", "result": {"type": "errored", "error": {"type": "error", "error": {"type": "t", "message": "m"}}}},
        ]  # fmt: skip
    replies = (backend.batches().read(line, REQUEST, b"") for whole in lines for line in lied(whole))
    assert {"answered", "protocol", "expired"} <= {row.outcome for row in stored(tmp_path, backend, replies)}


def test_no_error_can_end_the_run_by_its_words(tmp_path: Path) -> None:
    bodies = [
        *LIES,
        *({"error": lie} for lie in LIES),
        *({"error": dict.fromkeys(("code", "type", "message"), lie)} for lie in LIES),
    ]
    faults = [
        status_fault(status, json.dumps(body).encode("utf-8", "surrogatepass"), {"retry-after": "soon"}, wall=0.0)
        for body in bodies for status in (302, 400, 401, 429, 500, 999)
    ]  # fmt: skip
    stored(tmp_path, teacher_at("chat"), (Reply(fault, b"", 500) for fault in faults))


@pytest.mark.parametrize(
    "header", ["retry-after", "retry-after-ms", "x-ratelimit-reset-requests", "anthropic-ratelimit-tokens-reset"]
)
@pytest.mark.parametrize(
    "value",
    ["-5", "abc", "", "1e400", "nan", "1e9", "Wed, 21 Oct 99999 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:00 +99999999", "--",
     "\ud800", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "99999999999999999999m", "1" * 400, "\u0663"],
)  # fmt: skip
def test_no_time_to_wait_is_negative_or_endless(header: str, value: str) -> None:
    wait = retry_after({header: value}, wall=1e9)
    assert wait is None or 0 <= wait < float("inf")


@pytest.mark.parametrize("wire", OWN)
def test_a_lie_is_its_own_rows_alone(opened: Open, clock: Any, wire: str) -> None:
    """Commits are shared by many rows: what one of them cannot be stored with must not take the others with it."""
    reply = copy.deepcopy(OWN[wire])
    reply |= {"model": "m\ud800", "id": "\udfff\x00"}
    with FakeProvider("fine", by_prompt={"q7$": [Step(body=reply)]}) as provider:
        calls = opened(clock=clock, say=lambda text: text.encode())
        requests = [Request(user(f"q{n}"), Sampling(max_tokens=9)) for n in range(30)]
        outcomes = list(calls.teacher("t", teacher_at(wire, provider.url)).ask(requests))
        assert [outcome.result.text for outcome in outcomes if isinstance(outcome.result, Answer)].count("fine") == 29
        assert isinstance(outcomes[7].result, Answer) and outcomes[7].result.served_model == "m?"


@pytest.mark.parametrize(
    "entry",
    [{"5": {"logprob": None}}, {"5": {}}, {"5": 1}, {"5": {"logprob": "x"}}, {"5": {"logprob": float("nan")}},
     {"5": {"logprob": float("-inf")}}, {"5": {"logprob": 0.7}}, {"5": {"logprob": -1.0}, "x": {"logprob": -2.0}},
     {"5": {"logprob": -1.0}, "-1": {"logprob": -2.0}}, {"5": {"logprob": -1.0}, str(2**31): {"logprob": -2.0}},
     {"6": {"logprob": -1.0}}, [], None, 3],
)  # fmt: skip
def test_a_log_probability_that_cannot_be_is_refused(entry: Any) -> None:
    good = {"5": {"logprob": -1.0}}
    assert isinstance(read_prompt_logprobs([None, good], [4, 5], 1, 1), TokenBeliefs)
    assert isinstance(read_prompt_logprobs([None, entry], [4, 5], 1, 1), Fault)
