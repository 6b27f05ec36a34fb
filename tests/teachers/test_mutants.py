"""Mutation tests of the finish-reason gate and the state machine: each change of one thing in them must be noticed.

A table beside each function says what it decides. At least `NUMBER` changes are made to it; none may go unnoticed.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from teachers.mutants import mutants

from stillhouse.errors import TeacherError
from stillhouse.records import user
from stillhouse.teachers import anthropic, openai
from stillhouse.teachers.asking.answers import AttemptRow
from stillhouse.teachers.asking.asked import Asked
from stillhouse.teachers.asking.faults import status_fault
from stillhouse.teachers.asking.gate import usable
from stillhouse.teachers.asking.leases import Lease
from stillhouse.teachers.asking.online import Asker
from stillhouse.teachers.asking.settling import Settling
from stillhouse.teachers.asking.wire import Clock, Fault, Price, Reply
from stillhouse.teachers.base import Answer, Failure, Request, Sampling

# finish reason, text, reasoning -> the kind of failure, "" for a complete answer, and a word of what is said about it
GATE = [
    ("stop", "text", "", ""), ("stop", "text", "why", ""), ("tool_calls", "text", "", ""),
    ("stop", "\u00e9\U0001f600\ud7ff\ue000", "", ""),
    ("length", "text", "", "truncated"), ("length", "", "", "truncated"), ("length", "text", "why", "truncated"),
    ("length", "", "why", "reasoning_truncated"), ("length", " \n", "why", "reasoning_truncated"),
    ("unknown", "text", "", "truncated"), ("unknown", "", "", "truncated"), ("length", "a\x00", "", "truncated"),
    ("refusal", "text", "", "refused"), ("content_filter", "text", "", "refused"), ("refusal", "", "", "refused"),
    ("stop", "", "", "empty: no text"), ("stop", " \n", " ", "empty: no text"), ("stop", "", "why", "empty: only reasoning"),
    ("stop", "a\x00b", "", "malformed"), ("stop", "a", "\x00", "malformed"), ("stop", "\ud800", "", "malformed"),
    ("stop", "a\udfff", "", "malformed"), ("stop", "\udbff", "", "malformed"), ("stop", "a", "\udc00", "malformed"),
]  # fmt: skip


def gate(function: Any) -> None:
    for finish, text, reasoning, expected in GATE:
        answer = Answer(text, finish, reasoning)  # type: ignore[arg-type]
        result = function(answer)
        if not expected:
            assert result is answer, (finish, text)
            continue
        kind, _, word = expected.partition(": ")
        assert isinstance(result, Failure) and (result.kind, result.state) == (kind, "quarantined"), (finish, text)
        assert word in result.detail


def ladder(function: Any) -> None:
    """What a slot asks for next: (rung, max_tokens, sample_index), or that it has ended."""
    complete = Answer("text", "stop")
    for rungs in (1, 3):
        for temperature in (0.0, 1.0):
            for redrawn in (False, True):
                for rung in (1, 2, 3):
                    for result in (complete, *map(Failure, ("truncated", "reasoning_truncated", "empty", "refused"))):
                        wanted = Request(user("q"), Sampling(temperature=temperature, max_tokens=10), 7)
                        slot = SimpleNamespace(wanted=wanted, rung=rung, redrawn=redrawn, result=None)
                        function(SimpleNamespace(_rungs=rungs), slot, result)
                        kind = result.kind if isinstance(result, Failure) else ""
                        if kind in ("truncated", "reasoning_truncated") and rung < rungs:
                            longer = replace(wanted, sampling=Sampling(temperature=temperature, max_tokens=20))
                            assert (slot.wanted, slot.rung, slot.redrawn, slot.result) == (
                                longer,
                                rung + 1,
                                redrawn,
                                None,
                            )
                        elif kind == "empty" and not redrawn and temperature > 0:
                            again = replace(wanted, sample_index=(1 << 32) + 7)
                            assert (slot.wanted, slot.rung, slot.redrawn, slot.result) == (again, rung, True, None)
                        else:
                            assert (slot.wanted, slot.rung, slot.redrawn, slot.result) == (
                                wanted,
                                rung,
                                redrawn,
                                result,
                            )


ANSWER, REFUSED = Answer("text", "stop"), AttemptRow("k", "refused", detail="why")
GOT = (AttemptRow("k", "answered", ANSWER), None)
LEASE = Lease("host|1|2|3", 0.0)


def fault(kind: Any) -> tuple[AttemptRow, Fault]:
    return AttemptRow("k", kind), Fault(kind, "told")


# how the attempts go -> what comes of it, how often it was waited, how often a lease was waited for
ATTEMPTS: list[tuple[list[Any], Any, int, int]] = [
    ([GOT], ANSWER, 0, 0),
    ([(REFUSED, None)], Failure("refused", "why"), 0, 0),
    *(([fault(kind)], Failure(kind, "told"), 0, 0) for kind in ("bad_request", "context_overflow", "refused")),
    ([fault("transient")] * 5 + [GOT], ANSWER, 5, 0),
    ([fault("transient")] * 6, Failure("transient", "6 attempts, the last: told", "not_attempted"), 5, 0),
    ([fault("protocol")] * 5 + [fault("unknown_after_send")],
     Failure("unknown_after_send", "6 attempts, the last: told", "not_attempted"), 5, 0),
    ([fault("rate_limit")] * 20 + [GOT], ANSWER, 20, 0),
    ([fault("rate_limit"), *[fault("transient")] * 6], Failure("transient", "6 attempts, the last: told", "not_attempted"), 6, 0),
    ([LEASE, LEASE, GOT], ANSWER, 0, 2),
    ([ANSWER], ANSWER, 0, 0),
    ([Failure("empty")], Failure("empty"), 0, 0),
    ([(AttemptRow("k", "model_mismatch"), None)], TeacherError, 0, 0),
]  # fmt: skip


def attempts(function: Any) -> None:
    for tape, expected, waited, given_back in ATTEMPTS:
        asyncio.run(_attempted(function, list(tape), expected, waited, given_back))


async def _attempted(function: Any, tape: list[Any], expected: Any, waited: int, given_back: int) -> None:
    waits: list[int] = []
    leases: list[Lease] = []
    seats = asyncio.Semaphore(1)

    async def attempt(key: str, body: str, request: Request) -> Any:
        assert (key, body, request.sample_index) == ("k", "body", 7) and seats.locked()
        assert tape, "asked more often than it should be"
        return tape.pop(0)

    async def wait(told: Fault, number: int) -> None:
        assert told.detail == "told" and not seats.locked(), "who waits holds no seat"
        waits.append(number)

    async def back(key: str, lease: Lease) -> None:
        assert key == "k" and not seats.locked()
        leases.append(lease)

    settling = SimpleNamespace(mismatch=lambda row: TeacherError(row.outcome))
    asker = SimpleNamespace(seats=seats, _attempt=attempt, _wait=wait, _given_back=back, settling=settling)
    try:
        result = await function(asker, "k", "body", Request(user("q"), Sampling(), 7))
    except TeacherError:
        result = TeacherError
    assert result == expected and not tape
    assert waits == list(range(1, waited + 1)) and leases == [LEASE] * given_back


def settled(function: Any) -> None:
    """The attempt that a reply becomes: outcome, cost, flags."""
    said: list[str] = []
    backend: Any = SimpleNamespace(on_model_mismatch="warn", identity=lambda: SimpleNamespace(model="m"))
    made = Settling(backend, Price(1e6, 2e6, 5e5, "table"), Clock(), "t", "stage", said.append)
    worst = SimpleNamespace(usd=99.0)

    def ended(result: Any, **more: Any) -> AttemptRow:
        reply = Reply(result, b"raw", 200, "id", "print", 10, 4, 3, 2, **{"counted": True, **more})
        return function(made, "k", 5, 1.0, reply, worst, transport="batch")

    plain = ended(Answer("text", "stop", served_model="m"))
    assert plain.answer == Answer("text", "stop", served_model="m", cost_usd=8 * 1 + 4 * 2 + 2 * 0.5)
    assert (plain.outcome, plain.settled_usd, plain.reserved_usd, plain.flags, plain.detail) == (
        "answered",
        17.0,
        99.0,
        "",
        "",
    )
    assert (plain.key, plain.attempt, plain.started, plain.transport, plain.stage) == ("k", 5, 1.0, "batch", "stage")
    assert (plain.http_status, plain.provider_id, plain.fingerprint, plain.price_id) == (200, "id", "print", "table")
    assert (plain.input_tokens, plain.output_tokens, plain.reasoning_tokens, plain.cached_tokens) == (10, 4, 3, 2)
    assert (plain.raw, plain.served_model, plain.retry_after_s) == (b"raw", "m", None)
    assert ended(Answer("text", "stop"), counted=False).flags == "cost_estimated"
    cut = ended(Answer("text", "length"))
    assert (cut.outcome, cut.answer, cut.settled_usd) == ("truncated", None, 17.0) and "cut" in cut.detail
    limited = ended(Fault("rate_limit", "told", 7.0))
    assert (limited.outcome, limited.detail, limited.retry_after_s, limited.answer) == ("rate_limit", "told", 7.0, None)
    assert (limited.settled_usd, limited.flags, limited.served_model) == (17.0, "", "")
    lost = ended(Fault("unknown_after_send", "told"))
    assert (lost.outcome, lost.settled_usd, lost.flags) == ("unknown_after_send", 99.0, "cost_uncertain")
    other = ended(Answer("text", "stop", served_model="other"))
    assert (other.outcome, other.flags, other.answer is None, len(said)) == ("answered", "model_mismatch", False, 1)
    both = ended(Answer("text", "stop", served_model="other"), counted=False)
    assert both.flags == "cost_estimated,model_mismatch"
    online = function(made, "k", None, 1.0, Reply(Answer("text", "stop"), counted=True), worst)
    assert (online.transport, online.attempt) == ("online", None)
    backend.on_model_mismatch = "stop"
    stopped = ended(Answer("text", "stop", served_model="other"))
    assert (stopped.outcome, stopped.answer, len(said)) == ("model_mismatch", None, 1) and "other" in stopped.detail


def faulted(function: Any) -> None:
    codes = {"insufficient_quota": "quota", "context_length_exceeded": "context_overflow", "content_filter": "refused"}
    for code, kind in codes.items():
        found = function(429, b'{"error": {"code": "%s"}}' % code.encode(), {"retry-after": "3"}, wall=0.0)
        assert (found.kind, found.retry_after_s) == (kind, None) and "HTTP 429" in found.detail and code in found.detail
    statuses = {400: "bad_request", 401: "auth", 402: "quota", 404: "auth", 413: "context_overflow",
                418: "bad_request",
                429: "rate_limit", 499: "transient", 500: "transient", 502: "transient", 529: "transient",
                599: "transient"}  # fmt: skip
    for status, kind in statuses.items():
        found = function(
            status, b'{"error": {"message": "temperature rate %s"}}' % (b"x" * 300), {"retry-after": "3"}, wall=0.0
        )
        assert found.kind == kind and found.retry_after_s == (3.0 if kind in ("rate_limit", "transient") else None)
        assert "temperature" in found.detail and len(found.detail) <= 500
    long = function(500, b'{"error": {"code": "%s", "type": "%s"}}' % (b"x" * 300, b"y" * 300), {}, wall=0.0)
    assert len(long.detail) == 500


TABLES: dict[str, tuple[Callable[..., Any], Callable[[Any], None]]] = {
    "gate": (usable, gate),
    "ladder": (Asked._settle, ladder),
    "attempts": (Asker._answered, attempts),
    "settled": (Settling.ended, settled),
    "faulted": (status_fault, faulted),
}


NUMBER = {"gate": 34, "ladder": 17, "attempts": 29, "settled": 26, "faulted": 21}


@pytest.mark.parametrize("name", TABLES)
def test_every_change_is_noticed(name: str) -> None:
    function, table = TABLES[name]
    table(function)
    number, survived = 0, set()
    for told, mutant in mutants(function):
        number += 1
        try:
            table(mutant)
        # whatever a changed function throws is noticed
        except Exception:
            continue
        survived.add(told)
    assert survived == set()
    assert number >= NUMBER[name], "so that a generator that changes nothing is noticed"


# a finish reason as each protocol writes it -> ours; none of the words is read in another protocol by accident
WORDS = {
    "openai": {"stop": "stop", "eos": "stop", "stop_sequence": "stop", "length": "length", "max_tokens": "length",
               "content_filter": "content_filter", "refusal": "refusal", "tool_calls": "tool_calls",
               "function_call": "tool_calls"},
    "anthropic": {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "model_context_window_exceeded": "length",
                  "refusal": "refusal", "tool_use": "tool_calls"},
}  # fmt: skip


def test_the_words_of_each_protocol_are_these_and_no_others() -> None:
    assert {"openai": openai._FINISH, "anthropic": anthropic._FINISH} == WORDS
