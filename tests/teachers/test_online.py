"""A real server on loopback, real faults: what is asked again, what is kept, what stops the run (teacher-calls 6 and 11)."""

import json
import socket
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import pytest

from stillhouse.errors import RecipeError, RunFailed, TeacherError
from stillhouse.records import Message, user
from stillhouse.teachers import anthropic, openai
from stillhouse.teachers.asking.faults import bucket_wait, retry_after, status_fault
from stillhouse.teachers.asking.settling import same_model
from stillhouse.teachers.base import Answer, Outcome, Request, Sampling
from stillhouse.teachers.calls import Calls
from stillhouse.testing.provider import FakeProvider, Step, status

Open = Callable[..., Calls]
WIRES = ["chat", "completions", "messages"]


def teacher_at(wire: str, url: str, **knobs: Any) -> Any:
    if wire == "messages":
        return anthropic.Teacher(model="fake", base_url=url, **knobs)
    return openai.Teacher(model="fake", base_url=url, api=wire, **knobs)


def prompts(*texts: str, sampling: Sampling = Sampling(temperature=1.0, max_tokens=40)) -> list[Request]:
    return [Request(user(text), sampling) for text in texts]


def texts(outcomes: Iterator[Outcome]) -> list[str]:
    return [o.result.text if isinstance(o.result, Answer) else o.result.kind for o in outcomes]


def attempts(calls: Calls) -> list[str]:
    return [row[0] for row in calls.store.rows("SELECT outcome FROM attempt ORDER BY id")]


@pytest.mark.parametrize("wire", WIRES)
def test_answers_arrive_in_order_and_are_bought_once(opened: Open, wire: str) -> None:
    rows = [f"q{number}" for number in range(40)]
    with FakeProvider(lambda prompt: prompt.upper()) as provider:
        calls = opened()
        outcomes = list(calls.teacher("t", teacher_at(wire, provider.url)).ask(prompts(*rows)))
        assert texts(iter(outcomes)) == [row.upper() for row in rows]
        assert len(provider.requests) == 40
        counts = calls.counts()["t"]
        assert (counts.input_tokens, counts.output_tokens) == (provider.billed_input, provider.billed_output)
        again = list(opened().teacher("t", teacher_at(wire, provider.url)).ask(prompts(*rows)))
        assert again == outcomes
        assert len(provider.requests) == 40


# what the server does first -> how its attempt is written down; the next attempt is answered normally
PASSING = {
    "500": (status(500), "transient"),
    "529 overloaded": (status(529, "overloaded_error"), "transient"),
    "408": (status(408), "transient"),
    "HTML with status 200": (Step(body=b"<html>busy</html>", headers={"content-type": "text/html"}), "protocol"),
    "an error with status 200": (Step(body={"error": {"message": "no"}}), "protocol"),
    "a list": (Step(body=[]), "protocol"),
    "no choices": (Step(body={"id": "x", "choices": []}), "protocol"),
    "bad UTF-8": (Step(body=b'{"choices": "\xff'), "protocol"),
    "a stream nobody asked for": (
        Step(
            body=b'data: {"choices": [{"delta": {"content": "fi"}}]}\n\n', headers={"content-type": "text/event-stream"}
        ),
        "protocol",
    ),
    "cut inside a character": (Step(text="f\u00efne " * 9, disconnect=96), "unknown_after_send"),
    "closed before a byte": (Step(drop=True), "unknown_after_send"),
    "closed in the middle": (Step(disconnect=20), "unknown_after_send"),
    "429": (status(429, retry_after="0"), "rate_limit"),
}


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_tried_again(opened: Open, clock: Any, wire: str, name: str) -> None:
    """Bad inputs 8, 11, 12, 15; each attempt is in the ledger (D23)."""
    step, outcome = PASSING[name]
    with FakeProvider("fine", tape=[step]) as provider:
        calls = opened(clock=clock)
        assert texts(calls.teacher("t", teacher_at(wire, provider.url)).ask(prompts("a"))) == ["fine"]
        assert attempts(calls) == [outcome, "answered"]
        assert len(provider.requests) == 2


@pytest.mark.parametrize("wire", WIRES)
def test_two_choices_where_one_was_asked_for(opened: Open, clock: Any, wire: str) -> None:
    """Bad input 15; several text blocks of one message are one answer, though."""
    with FakeProvider("fine", tape=[Step(choices=2)]) as provider:
        calls = opened(clock=clock)
        got = texts(calls.teacher("t", teacher_at(wire, provider.url)).ask(prompts("a")))
        assert got == (["finefine"] if wire == "messages" else ["fine"])
        assert attempts(calls) == (["answered"] if wire == "messages" else ["protocol", "answered"])


TERMINAL = {
    "content filter": (Step(finish="content_filter"), "refused"),
    "cut off": (Step(finish="length"), "truncated"),
    "no finish reason": (Step(finish=None), "truncated"),
    "unknown finish reason": (Step(finish="paused"), "truncated"),
    "reasoning only, cut off": (Step(text="", reasoning="hm", finish="length"), "reasoning_truncated"),
    "context length": (status(400, "context_length_exceeded"), "context_overflow"),
    "too large": (status(413), "context_overflow"),
    "content policy": (status(400, "content_policy_violation"), "refused"),
}


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("name", TERMINAL)
def test_what_would_repeat_itself_is_not_tried_again(opened: Open, wire: str, name: str) -> None:
    """Bad inputs 1, 7 (D14, D26): and the row's neighbours are answered."""
    step, kind = TERMINAL[name]
    if wire == "completions" and step.reasoning:
        kind = "truncated"  # that protocol has no place for it
    with FakeProvider("fine", by_prompt={"poison": [step] * 9}) as provider:
        calls = opened()
        teacher = calls.teacher("t", teacher_at(wire, provider.url), rungs=1)
        assert texts(teacher.ask(prompts("a", "poison", "b"))) == ["fine", kind, "fine"]
        assert len(provider.requests) == 3
        list(opened().teacher("t", teacher_at(wire, provider.url), rungs=1).ask(prompts("a", "poison", "b")))
        assert len(provider.requests) == 3  # paid once, remembered as what it was


@pytest.mark.parametrize("wire", WIRES)
def test_the_ladder_over_the_wire(opened: Open, wire: str) -> None:
    with FakeProvider("fine", tape=[Step(), Step(finish="length")]) as provider:
        calls = opened()
        teacher = calls.teacher("t", teacher_at(wire, provider.url))
        assert texts(teacher.ask(prompts("warm"))) == ["fine"]
        assert texts(teacher.ask(prompts("a"))) == ["fine"]
        assert [seen.body["max_tokens"] for seen in provider.requests] == [40, 40, 80]


@pytest.mark.parametrize("wire", WIRES)
def test_one_poison_row_among_64(opened: Open, clock: Any, wire: str) -> None:
    """D2: 63 kept, one not; it is tried as often as a row may be, and asked again by the next run."""
    rows = [f"row {number}" for number in range(63)]
    rows.insert(20, "poison")
    with FakeProvider("fine", by_prompt={"poison": [status(500)] * 6}) as provider:
        calls = opened(clock=clock)
        kinds = texts(calls.teacher("t", teacher_at(wire, provider.url)).ask(prompts(*rows)))
        assert kinds == ["fine"] * 20 + ["transient"] + ["fine"] * 43
        assert len(provider.requests) == 63 + 6
        assert calls.counts()["t"].not_attempted == 1
        assert texts(opened().teacher("t", teacher_at(wire, provider.url)).ask(prompts("poison"))) == ["fine"]


FATAL = {
    "401": (status(401), "refuses the key"),
    "403": (status(403), "refuses the key"),
    "404 model": (status(404, "model_not_found"), "model name"),
    "402": (status(402), "money is used up"),
    "429 quota": (status(429, "insufficient_quota"), "money is used up"),
    "400 whose message says temperature": (
        Step(status=400, body={"error": {"message": "temperature: too high, rate exceeded"}}),
        "does not accept",
    ),
}


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("name", FATAL)
def test_what_is_wrong_for_all_stops_after_one_attempt(opened: Open, wire: str, name: str) -> None:
    """D7: "rate" in a message is not a rate limit. One attempt, although eight may be out."""
    step, words = FATAL[name]
    with FakeProvider(tape=[step] * 50) as provider:
        calls = opened()
        with pytest.raises(TeacherError, match=words) as raised:
            list(calls.teacher("t", teacher_at(wire, provider.url)).ask(prompts(*map(str, range(30)))))
        assert provider.url in str(raised.value)
        assert len(provider.requests) == 1


def test_a_bad_request_after_good_ones_is_the_rows_own_fault(opened: Open) -> None:
    with FakeProvider("fine", by_prompt={"poison": [status(400), status(400)]}) as provider:
        teacher = opened().teacher("t", teacher_at("chat", provider.url))
        assert texts(teacher.ask(prompts("a"))) == ["fine"]
        assert texts(teacher.ask(prompts("b", "poison", "c"))) == ["fine", "bad_request", "fine"]


@pytest.mark.parametrize("jump", [-86400.0, 86400.0 * 365], ids=["backwards", "forwards"])
def test_the_clock_on_the_wall_jumps(opened: Open, clock: Any, jump: float) -> None:
    """Bad input 20: waits and leases are measured by the clock that cannot be set; a date in a header by the wall's."""

    def reply(prompt: str) -> str:
        clock.offset += jump
        return "fine"

    with FakeProvider(reply, tape=[Step(), status(429, retry_after="7"), Step(), status(503)]) as provider:
        calls = opened(clock=clock)
        assert texts(calls.teacher("t", teacher_at("chat", provider.url)).ask(prompts(*"abcdef"))) == ["fine"] * 6
        assert max(clock.slept) < 20
        assert calls.store.rows("SELECT count(*) FROM request WHERE leased_by IS NOT NULL") == [(0,)]


def test_a_key_revoked_in_the_middle_stops_and_keeps(opened: Open) -> None:
    rows = [str(number) for number in range(30)]
    with FakeProvider("fine", tape=[Step()] * 10 + [status(401)] * 30) as provider:
        with pytest.raises(TeacherError):
            list(opened().teacher("t", teacher_at("chat", provider.url)).ask(prompts(*rows)))
        before = len(provider.requests)
        provider._tape = []
        calls = opened()
        assert texts(calls.teacher("t", teacher_at("chat", provider.url)).ask(prompts(*rows))) == ["fine"] * 30
        assert len(provider.requests) - before == 20  # the ten answers were kept


def test_nobody_listening(opened: Open) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/v1"
    with pytest.raises(TeacherError, match="cannot be reached") as raised:
        list(opened().teacher("t", teacher_at("chat", url)).ask(prompts("a", "b")))
    assert url in str(raised.value)


@pytest.mark.parametrize("step", [Step(hang=True), Step(trickle=0.05)], ids=["hangs", "trickles"])
def test_a_reply_that_never_ends(opened: Open, clock: Any, step: Step) -> None:
    """Bad input 11: the whole reply has one deadline; it may have been billed, and is marked so."""
    with FakeProvider("fine", tape=[step]) as provider:
        calls = opened(clock=clock)
        backend = teacher_at("chat", provider.url, timeout=2.0, price={"in": 1.0, "out": 2.0})
        assert texts(calls.teacher("t", backend).ask(prompts("a"))) == ["fine"]
        rows = calls.store.rows("SELECT outcome, flags, reserved_usd, settled_usd FROM attempt ORDER BY id")
        assert rows[0][:2] == ("unknown_after_send", "cost_uncertain")
        assert rows[0][2] == rows[0][3] > rows[-1][3] > 0


def test_a_hundred_failures_open_the_breaker_and_end_the_run(opened: Open, clock: Any) -> None:
    """Bad input 10: a resumable end, and not a hundred requests."""
    rows = [str(number) for number in range(100)]
    with FakeProvider("fine", tape=[Step()] * 5 + [status(500)] * 1000) as provider:
        with pytest.raises(TeacherError, match="run the same command again"):
            list(opened(clock=clock).teacher("t", teacher_at("chat", provider.url)).ask(prompts(*rows)))
        assert 15 <= len(provider.requests) < 60
        provider._tape = []
        assert texts(opened().teacher("t", teacher_at("chat", provider.url)).ask(prompts(*rows))) == ["fine"] * 100


def test_a_server_that_only_ever_says_too_many_ends_the_run(opened: Open, clock: Any) -> None:
    with FakeProvider(tape=[status(429)], loop=True) as provider, pytest.raises(TeacherError, match="has failed for"):
        list(opened(clock=clock).teacher("t", teacher_at("chat", provider.url)).ask(prompts("a", "b", "c")))


def test_a_wait_longer_than_the_patience_ends_the_run_and_says_when(opened: Open, clock: Any) -> None:
    """A long Retry-After is never shortened."""
    with FakeProvider("fine", tape=[Step(), status(429, retry_after="86400")]) as provider:
        with pytest.raises(TeacherError, match=r"left alone until \d{4}-"):
            list(opened(clock=clock).teacher("t", teacher_at("chat", provider.url)).ask(prompts(*"abcdef")))
        assert sum(clock.slept) < 86400


def test_after_a_limit_all_wait_at_least_as_long_and_not_in_step(opened: Open, shared_clock: Any) -> None:
    """D21: fifty requests, one Retry-After of 30 s: nobody comes back earlier, and no two at the same instant."""
    tape = [Step()] + [status(429, retry_after="30")] * 50
    with FakeProvider("fine", tape=tape) as provider:
        backend = teacher_at("chat", provider.url, max_concurrency=50)
        calls = opened(clock=shared_clock)
        teacher = calls.teacher("t", backend)
        assert texts(teacher.ask(prompts("warm"))) == ["fine"]
        calls._paces[f"{backend.url} fake"][0].limit = 50
        assert texts(teacher.ask(prompts(*map(str, range(50))))) == ["fine"] * 50
        waits = [seconds for seconds in shared_clock.slept if seconds > 30]
        assert len(waits) >= 50
        assert len(set(waits)) == len(waits)
        assert max(waits) <= 36


HEADERS: list[tuple[dict[str, str], float | None]] = [
    ({"Retry-After": "7"}, 7.0),
    ({"retry-after": "0.5"}, 0.5),
    ({"retry-after": "-3"}, 0.0),
    ({"retry-after": "abc"}, None),
    ({"retry-after": "nan"}, None),
    ({"retry-after": "1000000000"}, 1e9),
    ({"retry-after": formatdate(1_800_000_020, usegmt=True)}, 20.0),
    ({"retry-after": formatdate(1_700_000_000, usegmt=True)}, 0.0),
    ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
    ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0s"}, 360.0),
    ({"x-ratelimit-reset-tokens": "120ms"}, 0.12),
    ({"anthropic-ratelimit-tokens-reset": "2027-01-15T08:00:30Z"}, 30.0),
    ({}, None),
]


@pytest.mark.parametrize(("headers", "seconds"), HEADERS)
def test_every_form_of_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    """Bad input 9."""
    assert retry_after(headers, wall=1_800_000_000.0) == pytest.approx(seconds)


CODES = [
    (429, "rate_limit_exceeded", "rate_limit"),
    (429, "rate_limit_error", "rate_limit"),
    (429, "insufficient_quota", "quota"),
    (400, "budget_exceeded", "quota"),
    (400, "invalid_request_error", "bad_request"),
    (403, "billing_error", "quota"),
    (404, "not_found_error", "auth"),
    (409, "", "transient"),
    (422, "", "bad_request"),
    (503, "", "transient"),
    (529, "overloaded_error", "transient"),
]


@pytest.mark.parametrize(("code", "error", "kind"), CODES)
def test_table_of_codes(code: int, error: str, kind: str) -> None:
    for body in ({"error": {"type": error}}, {"error": {"code": error}}, {"type": error}):
        assert status_fault(code, json.dumps(body).encode(), {}, wall=0.0).kind == kind


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"\xff", b"[" * 5000, b'{"error": [1]}', b'{"error": {"code": 400}}', b"3"]
)
def test_no_error_body_upsets_the_table(body: bytes) -> None:
    assert status_fault(500, body, {}, wall=0.0).kind == "transient"


USAGES = [
    None,
    {},
    {"prompt_tokens": -4, "completion_tokens": 2},
    {"prompt_tokens": 10**12, "completion_tokens": 1},
    "much",
]


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("usage", USAGES)
def test_usage_that_cannot_be_is_estimated_and_flagged(opened: Open, wire: str, usage: Any) -> None:
    """Bad input 16."""
    with FakeProvider("four words are here", tape=[Step(usage=usage)]) as provider:
        calls = opened()
        (outcome,) = calls.teacher("t", teacher_at(wire, provider.url)).ask(prompts("how many words?"))
        assert isinstance(outcome.result, Answer)
        assert outcome.result.estimated
        assert 0 < outcome.result.input_tokens < 50 and 0 < outcome.result.output_tokens < 50
        assert calls.store.rows("SELECT flags FROM attempt") == [("cost_estimated",)]


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("<think>so</think>four", "so", "four"),
        ("so</think>\n\nfour", "so", "four"),
        ("<think>so, four", "so, four", None),
        ("the tag <think> starts it", "", "the tag <think> starts it"),
        ("four", "", "four"),
    ],
)
def test_reasoning_is_kept_apart(opened: Open, text: str, reasoning: str, answer: str | None) -> None:
    """Either tag may be missing; an answer that is only reasoning is none (bad input 7)."""
    with FakeProvider(text) as provider:
        cold = Sampling(max_tokens=40)
        (outcome,) = opened().teacher("t", teacher_at("chat", provider.url)).ask(prompts("a", sampling=cold))
        if answer is None:
            assert texts(iter([outcome])) == ["empty"]
        else:
            assert isinstance(outcome.result, Answer)
            assert (outcome.result.reasoning, outcome.result.text) == (reasoning, answer)


@pytest.mark.parametrize("wire", ["chat", "messages"])
def test_reasoning_in_a_field_of_its_own(opened: Open, wire: str) -> None:
    with FakeProvider("four", tape=[Step(reasoning="so")]) as provider:
        (outcome,) = opened().teacher("t", teacher_at(wire, provider.url)).ask(prompts("a"))
        assert isinstance(outcome.result, Answer)
        assert (outcome.result.reasoning, outcome.result.text) == ("so", "four")


def test_fields_the_server_passed_over_are_told(opened: Open) -> None:
    """D25: nothing is dropped without a word."""
    sampling = Sampling(max_tokens=3, stop=("two",))
    request = Request(user("a"), sampling, response_schema={"type": "object"})
    with FakeProvider("one two three four") as provider:
        calls = opened()
        (outcome,) = calls.teacher("t", teacher_at("chat", provider.url)).ask([request])
        assert isinstance(outcome.result, Answer)
        assert outcome.result.ignored == ("stop", "max_tokens", "response_format")
        assert calls.counts()["t"].ignored == {"stop": 1, "max_tokens": 1, "response_format": 1}


def test_which_model_answered_is_told(opened: Open) -> None:
    """Bad input 17, D27."""
    with FakeProvider("x", tape=[Step(model="fake-2"), Step(), Step()]) as provider:
        calls = opened()
        list(calls.teacher("t", teacher_at("chat", provider.url)).ask(prompts("a", "b", "c")))
        assert calls.counts()["t"].served == {"fake-2": 1, "fake": 2}


@pytest.mark.parametrize("wire", WIRES)
def test_another_model_than_asked(opened: Open, wire: str) -> None:
    """Bad input 17: told once and kept with its name, or the end of the run, nothing of it kept as an answer."""
    other = [Step(), Step(model="cheap-1"), Step(model="cheap-1")]
    with FakeProvider("x", tape=other) as provider:
        said: list[str] = []
        calls = opened(say=said.append)
        list(calls.teacher("t", teacher_at(wire, provider.url)).ask(prompts("a", "b", "c")))
        assert said == ["teacher 't': 'fake' was asked and 'cheap-1' answers"]
        assert calls.store.rows("SELECT count(*) FROM attempt WHERE flags = 'model_mismatch'") == [(2,)]
    with FakeProvider("x", tape=other) as provider:
        calls = opened(say=said.append)
        stopping = calls.teacher("t", teacher_at(wire, provider.url, on_model_mismatch="stop"))
        with pytest.raises(TeacherError, match="'fake' was asked and 'cheap-1' answered"):
            list(stopping.ask(prompts("d", "e", "f", "g")))
        joined = "FROM attempt t LEFT JOIN answer a ON a.attempt = t.id"
        mine = f"SELECT count(*) {joined} WHERE t.run = ? AND t.served_model = 'cheap-1'"
        assert calls.store.rows(f"{mine} AND t.outcome = 'model_mismatch'", [calls.run])[0][0] >= 1
        assert calls.store.rows(f"{mine} AND a.key IS NOT NULL", [calls.run]) == [(0,)]


@pytest.mark.parametrize(
    ("asked", "served", "same"),
    [
        ("gpt-4o-mini", "gpt-4o-mini-2024-07-18", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4o", "gpt-4o-mini-2024-07-18", False),
        ("claude-3-5-haiku-latest", "claude-3-5-haiku-20241022", True),
        ("claude-3-5-haiku-20241022", "claude-3-5-haiku-20240101", False),
        ("Qwen/Qwen3-4B", "qwen3-4b", True),
        ("Qwen/Qwen3-4B", "Qwen3-4B-AWQ", False),
        ("any", "", True),
    ],
)
def test_which_names_are_the_same_model(asked: str, served: str, same: bool) -> None:
    assert same_model(asked, served) == same


def test_what_is_sent(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sesame")
    asked = Request(
        (Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Ho"), Message("user", "Hm")),
        Sampling(temperature=0.5, top_p=0.9, max_tokens=7, stop=("\n",)),
    )
    with FakeProvider("x") as provider:
        calls = opened()
        for wire in WIRES:
            backend = teacher_at(wire, provider.url, api_key_env="MY_KEY", extra_body={"effort": "low"})
            list(calls.teacher("t", backend).ask([asked]))
        chat, completions, messages = provider.requests
    turns = [{"role": m.role, "content": m.content} for m in asked.messages]
    seed = chat.body.pop("seed")
    assert 0 <= seed < 2**63
    shared = {"model": "fake", "temperature": 0.5, "top_p": 0.9, "max_tokens": 7, "effort": "low"}
    assert chat.body == {**shared, "messages": turns, "stop": ["\n"]}
    assert chat.headers["authorization"] == "Bearer sesame"
    assert completions.body["prompt"] == "Be brief.\nHi\nHo\nHm"
    assert messages.body == {**shared, "system": "Be brief.", "messages": turns[1:], "stop_sequences": ["\n"]}
    assert messages.headers["x-api-key"] == "sesame"
    assert "authorization" not in messages.headers


def test_the_key_of_no_request_holds_the_api_key(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeProvider("x") as provider:
        for secret in ("one", "two"):
            monkeypatch.setenv("OPENAI_API_KEY", secret)
            calls = opened()
            list(calls.teacher("t", teacher_at("chat", provider.url)).ask(prompts("a")))
        assert len(provider.requests) == 1
        dump = "".join(calls.store.db.iterdump())
        assert "one" not in dump.replace("online", "") and "two" not in dump


def test_dropped_parameters_are_not_sent(opened: Open) -> None:
    with FakeProvider("x") as provider:
        backend = teacher_at("chat", provider.url, allow_drop=["temperature", "seed"])
        list(opened().teacher("t", backend).ask(prompts("a")))
        assert {"temperature", "seed"}.isdisjoint(provider.requests[0].body)
    with pytest.raises(RecipeError, match="allow_drop"):
        openai.Teacher(model="m", allow_drop=["temprature"])


def test_a_missing_key_and_a_missing_price_are_refused(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """D22: unknown prices never pass; a server of one's own costs nothing."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    calls = opened()
    with pytest.raises(RecipeError, match="price"):
        calls.teacher("t", openai.Teacher(model="nobody-knows-it", base_url="https://api.example.com/v1"))
    paid = openai.Teacher(model="m", base_url="https://api.example.com/v1", price={"in": 1.0, "out": 2.0})
    with pytest.raises(TeacherError, match="OPENAI_API_KEY"):
        list(calls.teacher("t", paid).ask(prompts("a")))
    with pytest.raises(RecipeError, match="in dollars per million"):
        calls.teacher("t", openai.Teacher(model="m", price={"input": 1.0}))


def test_listed_prices_reach_the_ledger() -> None:
    known = openai.Teacher(model="gpt-4o-mini").price()
    assert known is not None
    assert (known.input_usd, known.output_usd) == (0.15, 0.6)
    assert known.cost(1_000_000, 1_000_000) == pytest.approx(0.75)
    assert anthropic.Teacher(model="claude-3-5-haiku-latest").price() is not None


def test_the_ledger_is_the_bill(opened: Open, clock: Any) -> None:
    """D13, D23: with failures, cut-off answers and refusals among them, the dollars are the provider's."""
    tape = [
        Step(),
        Step(finish="length"),
        Step(finish="content_filter"),
        status(500),
        Step(text=" "),
        Step(finish=None),
    ] * 5
    with FakeProvider("some words here", tape=tape) as provider:
        calls = opened(clock=clock)
        backend = teacher_at("chat", provider.url, price={"in": 1e6, "out": 1e6})
        list(calls.teacher("t", backend).ask(prompts(*map(str, range(40)))))
        bill = provider.billed_input + provider.billed_output
        assert calls.counts()["t"].cost_usd == pytest.approx(bill)
        assert calls.store.rows("SELECT sum(usd) FROM spend")[0][0] == pytest.approx(bill)


def test_equal_requests_in_one_window_are_paid_once(opened: Open) -> None:
    with FakeProvider("x") as provider:
        assert texts(opened().teacher("t", teacher_at("chat", provider.url)).ask(prompts(*["same"] * 20))) == ["x"] * 20
        assert len(provider.requests) == 1


def test_leaving_early_keeps_what_was_out(opened: Open) -> None:
    """Who stops reading pays for nothing more than what had left."""
    rows = list(map(str, range(200)))
    with FakeProvider("x", tape=[Step(delay=0.02)] * 1000) as provider:
        calls = opened()
        outcomes = calls.teacher("t", teacher_at("chat", provider.url, max_concurrency=4)).ask(prompts(*rows))
        for _ in range(5):
            next(outcomes)
        outcomes.close()
        answered = attempts(calls).count("answered")
        assert 5 <= answered == len(provider.requests) < 200
        assert "in_flight" not in attempts(calls)


def test_no_more_are_out_than_allowed(opened: Open) -> None:
    with FakeProvider("x", tape=[Step(delay=0.04)] * 400) as provider:
        backend = teacher_at("chat", provider.url, max_concurrency=5)
        list(opened().teacher("t", backend).ask(prompts(*map(str, range(80)))))
        assert 1 < provider.most_out <= 5


def test_hard_budget_notices_a_server_that_does_not_stop(opened: Open) -> None:
    """A settlement above its reservation is a finding, and in hard mode the end."""
    from stillhouse.teachers.calls import Budget

    long = {"prompt_tokens": 5, "completion_tokens": 5000, "total_tokens": 5005}
    with FakeProvider("x", tape=[Step(usage=long)]) as provider:
        backend = teacher_at("chat", provider.url, price={"in": 1.0, "out": 1.0})
        calls = opened(budget=Budget(usd=1.0, mode="hard"))
        with pytest.raises(RunFailed, match="does not enforce max_tokens"):
            list(calls.teacher("t", backend).ask(prompts("a")))


def test_asking_a_backend_without_a_store() -> None:
    with FakeProvider(lambda prompt: prompt * 2) as provider:
        assert texts(teacher_at("chat", provider.url).ask(prompts("a", "b"))) == ["aa", "bb"]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": "60s"}, 0.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360.0),
        (
            {
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "1m0s",
            },
            1.0,
        ),
        (
            {
                "X-RateLimit-Limit-Tokens": "1100",
                "X-RateLimit-Remaining-Tokens": "100",
                "X-RateLimit-Reset-Tokens": "10s",
            },
            4.0,
        ),
        (
            {
                "anthropic-ratelimit-output-tokens-remaining": "0",
                "anthropic-ratelimit-output-tokens-reset": "2027-01-15T08:00:30Z",
            },
            30.0,
        ),
        ({"x-ratelimit-remaining-requests": "0"}, 0.0),
        ({"x-ratelimit-remaining-requests": "abc", "x-ratelimit-reset-requests": "6m0s"}, 0.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "-5"}, 0.0),
    ],
)
def test_buckets_that_a_reply_tells_of(headers: dict[str, str], seconds: float) -> None:
    assert bucket_wait(headers, 500, wall=1_800_000_000.0) == pytest.approx(seconds)


def test_nobody_leaves_while_a_bucket_is_empty(opened: Open, clock: Any) -> None:
    """Before anybody was refused: the reply itself says that nothing more is taken for seven seconds."""
    empty = Step(headers={"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "7s"})
    with FakeProvider("fine", tape=[Step(), empty]) as provider:
        calls = opened(clock=clock)
        teacher = calls.teacher("t", teacher_at("chat", provider.url, max_concurrency=1))
        assert texts(teacher.ask(prompts("a", "b", "c"))) == ["fine"] * 3
        assert 7.0 <= max(clock.slept) <= 7.0 * 1.2
        assert attempts(calls) == ["answered"] * 3


def test_equal_prompts_by_accident_are_said(opened: Open) -> None:
    said: list[str] = []
    with FakeProvider("fine") as provider:
        calls = opened(say=said.append)
        twice = prompts(*(f"q{number % 30}" for number in range(40)))
        assert len(texts(calls.teacher("t", teacher_at("chat", provider.url)).ask(twice))) == 40
        assert (calls.counts()["t"].same, len(provider.requests)) == (10, 30)
        samples = [Request(user("q"), Sampling(temperature=1.0, max_tokens=40), index) for index in range(5)]
        list(calls.teacher("t", teacher_at("chat", provider.url)).ask(samples))  # samples are meant
        assert calls.counts()["t"].same == 10
        calls.close()
    assert [text for text in said if "10 of 45 requests are those of an earlier row again" in text]


def test_the_share_of_each_rung_is_counted(opened: Open) -> None:
    longer = {
        "long": [Step(finish="length")],
        "vast": [Step(finish="length"), Step(text="", reasoning="hm", finish="length")],
    }
    with FakeProvider("fine", by_prompt=longer) as provider:
        calls = opened(say=lambda text: None)
        asked = prompts("short", "vast", "long", "b")
        assert texts(calls.teacher("t", teacher_at("chat", provider.url)).ask(asked)) == ["fine"] * 4
        assert calls.counts()["t"].rungs == {"1": 2, "2": 1, "3": 1}
        assert sorted(attempts(calls)) == ["answered"] * 4 + ["reasoning_truncated"] + ["truncated"] * 2
