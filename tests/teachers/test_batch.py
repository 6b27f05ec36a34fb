"""Batches against the fake provider's two batch interfaces: half price, matched by id, never sent twice (teacher-calls 10)."""

import os
import signal
import sqlite3
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stillhouse.errors import BudgetReached, RecipeError, TeacherError
from stillhouse.records import user
from stillhouse.teachers import anthropic, openai
from stillhouse.teachers.asking.answers import AnswerStore
from stillhouse.teachers.asking.anthropic_batch import AnthropicBatches
from stillhouse.teachers.asking.books import audit
from stillhouse.teachers.asking.openai_batch import OpenAIBatches
from stillhouse.teachers.base import Answer, Outcome, Request, Sampling
from stillhouse.teachers.calls import Budget, Calls
from stillhouse.testing.provider import BatchStep, FakeProvider, Step, status

Open = Callable[..., Calls]
WIRES = ["chat", "messages"]
PRICE = {"in": 1e6, "out": 1e6, "batch": 0.5}  # a dollar a token, half in a batch
QUIET: dict[str, Any] = {"say": lambda text: None}


def teacher_at(wire: str, url: str, **knobs: Any) -> Any:
    knobs = {"transport": "batch", "price": PRICE, **knobs}
    made = anthropic.Teacher if wire == "messages" else openai.Teacher
    return made(model="fake", base_url=url, **knobs)


def prompts(*texts: str, **sampling: Any) -> list[Request]:
    return [Request(user(text), Sampling(**{"temperature": 1.0, "max_tokens": 40, **sampling})) for text in texts]


def rows(number: int) -> list[Request]:
    return prompts(*(f"q{n}" for n in range(number)))


def texts(outcomes: Iterable[Outcome]) -> list[str]:
    return [o.result.text if isinstance(o.result, Answer) else o.result.kind for o in outcomes]


def sizes(provider: FakeProvider) -> list[int]:
    return [len(batch.items) for batch in provider.batches.made]


@pytest.mark.parametrize("wire", WIRES)
def test_answers_come_in_order_at_half_the_price(opened: Open, clock: Any, wire: str) -> None:
    with FakeProvider(lambda prompt: prompt.upper(), batches=[BatchStep(polls=3)]) as provider:
        said: list[str] = []
        calls = opened(clock=clock, say=said.append)
        outcomes = list(calls.teacher("t", teacher_at(wire, provider.url)).ask(rows(30)))
        assert texts(outcomes) == [f"Q{n}" for n in range(30)]
        assert sizes(provider) == [30]
        assert provider.batches.made[0].polled >= 4
        assert calls.counts()["t"].cost_usd == pytest.approx((provider.billed_input + provider.billed_output) / 2)
        assert calls.store.rows("SELECT DISTINCT transport, outcome, price_id FROM attempt") == [
            ("batch", "answered", "recipe, batch at 0.5")
        ]
        assert said == ["teacher 't': sent batch batch_1 of 30 requests"]
        assert list((calls.store.folder / "batches").iterdir()) == []
        # an answer bought by batch is the same answer: nobody is asked again, by whichever way
        again = opened(clock=clock).teacher("t", teacher_at(wire, provider.url, transport="online"))
        assert texts(again.ask(rows(30))) == texts(outcomes)
        assert len(provider.requests) == 30


@pytest.mark.parametrize("wire", WIRES)
def test_each_line_is_what_would_be_sent_online(opened: Open, clock: Any, wire: str) -> None:
    request = prompts("a", top_p=0.9, stop=("\n",))
    with FakeProvider("x") as provider:
        list(opened(clock=clock, **QUIET).teacher("t", teacher_at(wire, provider.url)).ask(request))
        online = Calls(opened().store.folder / "other")
        list(online.teacher("t", teacher_at(wire, provider.url, transport="online")).ask(request))
        online.close()
        batched, sent = provider.requests
        assert batched.body == sent.body
        assert batched.path == sent.path


ITEMS = {
    "400": (status(400, "invalid_request_error"), "bad_request"),
    "413": (status(413, "request_too_large"), "context_overflow"),
    "content filter": (Step(finish="content_filter"), "refused"),
    "cut off": (Step(finish="length"), "truncated"),
    "no finish reason": (Step(finish=None), "truncated"),
    "empty": (Step(text=" "), "empty"),
}


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("name", ITEMS)
def test_a_bad_row_is_only_that_row(opened: Open, clock: Any, wire: str, name: str) -> None:
    """D2 in a batch, with the table of errors of single requests; what was billed is in the ledger (D13)."""
    step, kind = ITEMS[name]
    with FakeProvider("fine", by_prompt={"poison": [step] * 9}) as provider:
        calls = opened(clock=clock, **QUIET)
        asked = prompts("a", "poison", "b", temperature=0.0)
        assert texts(calls.teacher("t", teacher_at(wire, provider.url), rungs=1).ask(asked)) == ["fine", kind, "fine"]
        bill = (provider.billed_input + provider.billed_output) / 2
        assert calls.counts()["t"].cost_usd == pytest.approx(bill)
        assert sizes(provider) == [3]


@pytest.mark.parametrize("wire", WIRES)
def test_what_may_pass_goes_into_another_batch(opened: Open, clock: Any, wire: str) -> None:
    with FakeProvider("fine", by_prompt={"ill": [status(500), status(529)], "dead": [status(500)] * 9}) as provider:
        calls = opened(clock=clock, **QUIET)
        asked = prompts("a", "ill", "dead", "b")
        assert texts(calls.teacher("t", teacher_at(wire, provider.url)).ask(asked)) == [
            "fine", "fine", "transient", "fine",
        ]  # fmt: skip
        assert sizes(provider) == [4, 2, 2]
        assert calls.counts()["t"].not_attempted == 1


@pytest.mark.parametrize("wire", WIRES)
def test_the_ladder_climbs_a_batch_at_a_time(opened: Open, clock: Any, wire: str) -> None:
    with FakeProvider("fine", by_prompt={"long": [Step(finish="length")]}) as provider:
        calls = opened(clock=clock, **QUIET)
        assert texts(calls.teacher("t", teacher_at(wire, provider.url)).ask(prompts("a", "long"))) == ["fine", "fine"]
        assert sizes(provider) == [2, 1]
        assert provider.batches.made[1].items[0][2]["max_tokens"] == 80


@pytest.mark.parametrize("wire", WIRES)
def test_a_key_refused_inside_a_batch_ends_the_run_and_keeps_the_rest(opened: Open, clock: Any, wire: str) -> None:
    with FakeProvider("fine", by_prompt={"q3": [status(401)]}) as provider:
        calls = opened(clock=clock, **QUIET)
        with pytest.raises(TeacherError, match="refuses the key"):
            list(calls.teacher("t", teacher_at(wire, provider.url)).ask(rows(10)))
        assert calls.store.rows("SELECT count(*) FROM answer") == [(9,)]


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("ends", ["expired", "cancelled"])
def test_an_unfinished_batch_keeps_what_it_has(opened: Open, clock: Any, wire: str, ends: str) -> None:
    """Billed partials are taken, and only what is missing is asked again."""
    with FakeProvider("fine", batches=[BatchStep(ends=ends, unanswered=7)]) as provider:
        calls = opened(clock=clock, **QUIET)
        assert texts(calls.teacher("t", teacher_at(wire, provider.url)).ask(rows(20))) == ["fine"] * 20
        assert sizes(provider) == [20, 7]
        assert calls.counts()["t"].cost_usd == pytest.approx((provider.billed_input + provider.billed_output) / 2)
        assert calls.store.rows("SELECT count(*), sum(settled_usd) FROM attempt WHERE outcome = ?", [ends]) == [
            (7, 0.0)
        ]


@pytest.mark.parametrize("wire", WIRES)
def test_lines_too_many_and_too_few(opened: Open, clock: Any, wire: str) -> None:
    """Matched by id alone: unknown ones are told of, repeated ones count once, missing ones are asked again."""
    said: list[str] = []
    with FakeProvider(lambda p: p.upper(), batches=[BatchStep(unknown=2, repeated=3, missing=4)]) as provider:
        calls = opened(clock=clock, say=said.append)
        assert texts(calls.teacher("t", teacher_at(wire, provider.url)).ask(rows(20))) == [f"Q{n}" for n in range(20)]
        assert sizes(provider) == [20, 4]
        assert calls.store.rows("SELECT count(*) FROM attempt WHERE outcome = 'answered'") == [(20,)]
        assert any("2 lines with unknown ids, 3 repeated" in text for text in said)


@pytest.mark.parametrize("step", [BatchStep(lose_reply=True), BatchStep(lose_reply=True, forget=True)], ids=str)
@pytest.mark.parametrize("wire", WIRES)
def test_a_batch_whose_receipt_was_lost_is_found(opened: Open, clock: Any, wire: str, step: BatchStep) -> None:
    """D12: by its metadata, by its file, or (messages) by its size and its results; it is not sent again."""
    with FakeProvider("fine", batches=[step]) as provider:
        calls = opened(clock=clock, **QUIET)
        assert texts(calls.teacher("t", teacher_at(wire, provider.url)).ask(rows(20))) == ["fine"] * 20
        assert sizes(provider) == [20]
        assert len(provider.requests) == 20


@pytest.mark.parametrize("wire", WIRES)
def test_a_batch_is_found_on_a_later_page_of_the_list(opened: Open, clock: Any, wire: str) -> None:
    """The receipt was lost and others have sent batches since, on the same key."""
    with FakeProvider("x", batches=[BatchStep(lose_reply=True)]) as provider:
        provider.batches.page = 2

        original = provider.batches._taken

        def taken(kind: str, items: Any) -> Any:
            made = original(kind, items)
            if len(provider.batches.made) == 1:
                for _ in range(5):
                    original(kind, items[:1])
            return made

        provider.batches._taken = taken  # type: ignore[method-assign]
        calls = opened(clock=clock, **QUIET)
        assert texts(calls.teacher("t", teacher_at(wire, provider.url)).ask(rows(6))) == ["x"] * 6
        assert sizes(provider) == [6, 1, 1, 1, 1, 1]


def test_a_strangers_batch_of_the_same_size_is_not_ours(opened: Open, clock: Any) -> None:
    """The messages interface takes no metadata; the ids of the results tell."""
    with FakeProvider("fine", batches=[BatchStep(), BatchStep(lose_reply=True)]) as provider:
        other = Calls(opened().store.folder / "other", clock=clock, **QUIET)
        list(other.teacher("t", teacher_at("messages", provider.url)).ask(prompts(*"abcde")))
        other.close()
        calls = opened(clock=clock, **QUIET)
        provider.batches.made.append(provider.batches.made.pop(0))  # the stranger's looks like the newest
        teacher = calls.teacher("t", teacher_at("messages", provider.url))
        original = AnthropicBatches.submit

        async def submit(self: Any, submission: Any) -> Any:
            sent = await original(self, submission)
            provider.batches.made.sort(key=lambda batch: batch.id, reverse=True)
            return sent

        AnthropicBatches.submit = submit  # type: ignore[method-assign]
        try:
            assert texts(teacher.ask(rows(5))) == ["fine"] * 5
        finally:
            AnthropicBatches.submit = original  # type: ignore[method-assign]
        assert sizes(provider) == [5, 5]


CALLS = {
    "chat": ["POST /v1/files", "POST /v1/batches", "GET /v1/batches/", "GET /v1/files/"],
    "messages": ["POST /v1/messages/batches", "GET /v1/messages/batches/", "GET /v1/messages/batches/.*/results"],
}


@pytest.mark.parametrize(
    "step", [status(500), status(429, retry_after="3"), Step(drop=True)], ids=["500", "429", "cut"]
)
@pytest.mark.parametrize(("wire", "call"), [(wire, call) for wire in WIRES for call in CALLS[wire]])
def test_every_call_of_the_interface_may_fail_for_a_while(
    opened: Open, clock: Any, wire: str, call: str, step: Step
) -> None:
    with FakeProvider("fine", by_path={call: [step] * 3}) as provider:
        calls = opened(clock=clock, **QUIET)
        assert texts(calls.teacher("t", teacher_at(wire, provider.url)).ask(rows(5))) == ["fine"] * 5
        assert sizes(provider) == [5]


@pytest.mark.parametrize("wire", WIRES)
def test_a_provider_that_stays_down_ends_the_run_and_the_next_collects(opened: Open, clock: Any, wire: str) -> None:
    polls = CALLS[wire][-2]
    with FakeProvider("fine", by_path={polls: [status(503)] * 500}) as provider:
        with pytest.raises(TeacherError, match="run the same command again to collect it"):
            list(opened(clock=clock, **QUIET).teacher("t", teacher_at(wire, provider.url)).ask(rows(5)))
        provider._by_path = []
        said: list[str] = []
        calls = opened(clock=clock, say=said.append)
        assert texts(calls.teacher("t", teacher_at(wire, provider.url)).ask(rows(5))) == ["fine"] * 5
        assert sizes(provider) == [5]
        assert said == ["teacher 't': goes on with a batch of 5 requests that was out"]


def test_a_full_queue_halves_the_batches(opened: Open, clock: Any) -> None:
    full = BatchStep(ends="failed", error="token_limit_exceeded")
    with FakeProvider("fine", batches=[full, full]) as provider:
        calls = opened(clock=clock, **QUIET)
        assert texts(calls.teacher("t", teacher_at("chat", provider.url)).ask(rows(20))) == ["fine"] * 20
        assert sizes(provider) == [20, 10, 10, 5, 5]
        assert len(provider.requests) == 20


@pytest.mark.parametrize(
    ("error", "words"), [("billing_hard_limit_reached", "money is used up"), ("invalid_url", "not accept.*invalid_url")]
)
def test_a_batch_that_is_turned_away_ends_the_run(opened: Open, clock: Any, error: str, words: str) -> None:
    with FakeProvider("fine", batches=[BatchStep(ends="failed", error=error)]) as provider:
        calls = opened(clock=clock, **QUIET)
        with pytest.raises(TeacherError, match=words):
            list(calls.teacher("t", teacher_at("chat", provider.url)).ask(rows(5)))
        assert calls.purse.reserved.usd == 0
        assert texts(opened(clock=clock, **QUIET).teacher("t", teacher_at("chat", provider.url)).ask(rows(5)))


@pytest.mark.parametrize("wire", WIRES)
def test_a_wrong_key_is_refused_before_anything_is_sent(opened: Open, clock: Any, wire: str) -> None:
    with FakeProvider("fine", by_path={"POST": [status(401)]}) as provider:
        with pytest.raises(TeacherError, match="refuses the key"):
            list(opened(clock=clock, **QUIET).teacher("t", teacher_at(wire, provider.url)).ask(rows(5)))
        assert sizes(provider) == []


@pytest.mark.parametrize("wire", WIRES)
def test_batches_are_cut_by_number_and_by_bytes(
    opened: Open, clock: Any, wire: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = AnthropicBatches if wire == "messages" else OpenAIBatches
    assert (kind.most_items, kind.most_bytes) == {"chat": (50_000, 200_000_000), "messages": (100_000, 256_000_000)}[
        wire
    ]
    monkeypatch.setattr(kind, "most_items", 8)
    with FakeProvider("fine") as provider:
        list(opened(clock=clock, **QUIET).teacher("t", teacher_at(wire, provider.url)).ask(rows(20)))
        assert sizes(provider) == [8, 8, 4]
        monkeypatch.setattr(kind, "most_bytes", 900)
        list(opened(clock=clock, **QUIET).teacher("t", teacher_at(wire, provider.url)).ask(prompts(*"abcdefgh")))
        assert max(sizes(provider)[3:]) < 8
        assert sum(sizes(provider)) == 28


@pytest.mark.parametrize("wire", WIRES)
def test_the_budget_holds_and_goes_on(opened: Open, clock: Any, wire: str) -> None:
    with FakeProvider("fine") as provider:
        calls = opened(run="r", budget=Budget(requests=12), clock=clock, **QUIET)
        outcomes = calls.teacher("t", teacher_at(wire, provider.url)).ask(rows(20))
        assert texts(next(outcomes) for _ in range(12)) == ["fine"] * 12
        with pytest.raises(BudgetReached, match="12 of 12 requests"):
            next(outcomes)
        assert sizes(provider) == [12]
        calls = opened(run="r", budget=Budget(requests=20), clock=clock, **QUIET)
        assert texts(calls.teacher("t", teacher_at(wire, provider.url)).ask(rows(20))) == ["fine"] * 20
        assert sizes(provider) == [12, 8]


@pytest.mark.parametrize("wire", WIRES)
def test_an_interrupted_wait_is_taken_up_again(opened: Open, clock: Any, wire: str) -> None:
    with FakeProvider("fine", batches=[BatchStep(polls=3)]) as provider:
        with pytest.raises(RuntimeError, match="interrupted"):
            list(opened(clock=BrokenOff(), **QUIET).teacher("t", teacher_at(wire, provider.url)).ask(rows(5)))
        calls = opened(clock=clock, **QUIET)
        assert texts(calls.teacher("t", teacher_at(wire, provider.url)).ask(rows(5))) == ["fine"] * 5
        assert sizes(provider) == [5]


class BrokenOff:
    """A clock on which somebody loses patience at the first wait."""

    def now(self) -> float:
        return 0.0

    def wall(self) -> float:
        return 0.0

    def jitter(self) -> float:
        return 0.5

    async def sleep(self, seconds: float) -> None:
        raise RuntimeError("interrupted")


@pytest.mark.parametrize("wire", WIRES)
def test_who_asks_online_for_what_lies_in_a_batch_pays_nothing_twice(opened: Open, clock: Any, wire: str) -> None:
    with FakeProvider("fine", batches=[BatchStep(polls=2)]) as provider:
        with pytest.raises(RuntimeError):
            list(opened(clock=BrokenOff(), **QUIET).teacher("t", teacher_at(wire, provider.url)).ask(rows(5)))
        online = teacher_at(wire, provider.url, transport="online")
        with pytest.raises(TeacherError, match="5 of these requests wait in batch batch_1; set `transport: batch`"):
            list(opened(clock=clock, **QUIET).teacher("t", online).ask(rows(6)))
        # it has ended meanwhile: it is settled, and only what was not in it is asked
        assert texts(opened(clock=clock, **QUIET).teacher("t", online).ask(rows(6))) == ["fine"] * 6
        assert sorted(seen.prompt for seen in provider.requests) == [f"q{n}" for n in range(6)]


def test_knobs_that_cannot_be(opened: Open) -> None:
    with pytest.raises(RecipeError, match="transport is online or batch"):
        openai.Teacher(model="m", transport="bulk")  # type: ignore[arg-type]


def test_batch_prices_come_from_the_table() -> None:
    full = openai.Teacher(model="gpt-4o-mini").price()
    half = openai.Teacher(model="gpt-4o-mini", transport="batch").price()
    assert full is not None and half is not None
    assert (half.input_usd, half.output_usd) == (full.input_usd / 2, full.output_usd / 2)
    assert half.id == f"{full.id}, batch"


# ---- kill -9

ROWS = 12


def run(store: Path, wire: str, url: str) -> list[str]:
    with Calls(store, run="r", **QUIET) as calls:
        return texts(calls.teacher("t", teacher_at(wire, url)).ask(rows(ROWS)))


def dying(store: Path, wire: str, url: str, at: int, before: bool) -> int:
    """The run in a process that is killed at its `at`-th commit, just before or just after it; its exit status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    commits = 0
    original = AnswerStore.transaction

    @contextmanager
    def counted(self: AnswerStore) -> Iterator[sqlite3.Connection]:
        nonlocal commits
        commits += 1
        with original(self) as db:
            yield db
            if before and commits == at:
                os.kill(os.getpid(), signal.SIGKILL)
        if commits == at:
            os.kill(os.getpid(), signal.SIGKILL)

    AnswerStore.transaction = counted  # type: ignore[method-assign]
    try:
        run(store, wire, url)
        os._exit(0)
    except BaseException:
        os._exit(1)


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.parametrize("before", [True, False], ids=["before the commit", "after it"])
@pytest.mark.parametrize("wire", WIRES)
def test_killed_at_each_commit(tmp_path: Path, wire: str, before: bool) -> None:
    """Until a run lives through: one batch at the provider each time, one bill, the same data, balanced books."""
    at = 0
    survived = False
    while not survived:
        at += 1
        store = tmp_path / str(at)
        with FakeProvider(lambda prompt: prompt.upper(), by_prompt={"q5": [Step(finish="length")]}) as provider:
            teacher_at(wire, provider.url)._clock.wall()  # imported before the fork
            survived = os.WIFEXITED(dying(store, wire, provider.url, at, before))
            assert run(store, wire, provider.url) == [f"Q{n}" for n in range(ROWS)]
            assert sizes(provider) == [ROWS, 1], f"killed at commit {at}"
            assert len(provider.requests) == ROWS + 1
            with Calls(store) as calls:
                assert audit(calls.store, deep=True) == []
                spent = calls.store.rows("SELECT sum(usd), sum(attempts) FROM spend")[0]
                assert spent == (pytest.approx((provider.billed_input + provider.billed_output) / 2), ROWS + 1)
                assert calls.store.rows("SELECT count(*) FROM batch_job WHERE state != 'collected'") == [(0,)]
    assert at > 6


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.parametrize("wire", WIRES)
def test_killed_between_sending_and_writing_the_receipt_down(tmp_path: Path, wire: str) -> None:
    """D12: the provider has the batch, the store only knows that one was meant to be sent."""
    with FakeProvider(lambda prompt: prompt.upper()) as provider:
        child = os.fork()
        if not child:
            from stillhouse.teachers.asking import jobs

            jobs.submitted = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
            run(tmp_path, wire, provider.url)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        assert sizes(provider) == [ROWS]
        assert run(tmp_path, wire, provider.url) == [f"Q{n}" for n in range(ROWS)]
        assert sizes(provider) == [ROWS]


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_two_processes_send_one_batch(tmp_path: Path) -> None:
    """Leases: what one process has in a batch, the other waits for."""
    with FakeProvider(lambda prompt: prompt.upper(), batches=[BatchStep(polls=1)]) as provider:
        AnswerStore(tmp_path).close()
        children = []
        for _ in range(2):
            child = os.fork()
            if not child:
                os._exit(run(tmp_path, "chat", provider.url) != [f"Q{n}" for n in range(ROWS)])
            children.append(child)
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
        assert sum(sizes(provider)) == ROWS == len(provider.requests)
        with Calls(tmp_path) as calls:
            assert audit(calls.store, deep=True) == []


@pytest.mark.parametrize("wire", WIRES)
def test_a_wait_longer_than_the_patience_ends_the_run(opened: Open, clock: Any, wire: str) -> None:
    with FakeProvider("fine", by_path={"POST": [status(429, retry_after="86400")]}) as provider:
        with pytest.raises(TeacherError, match="left alone until"):
            list(opened(clock=clock, **QUIET).teacher("t", teacher_at(wire, provider.url)).ask(rows(5)))
        assert (
            texts(opened(clock=clock, **QUIET).teacher("t", teacher_at(wire, provider.url)).ask(rows(5)))
            == ["fine"] * 5
        )
        assert sizes(provider) == [5]


def test_a_batch_is_never_held_whole(tmp_path: Path) -> None:
    """20 MB of prompts and 40 MB of answers pass through a few: from memory to a file, to the wire, from there to another
    file, to the store and to who asked.
    """
    script = (
        "import sys\nfrom stillhouse.testing.provider import FakeProvider\n"
        "with FakeProvider(lambda prompt: prompt[:9] + ' word' * 8000) as provider:\n"
        "    print(provider.url, flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None and server.stdout is not None
        backend = teacher_at("messages", server.stdout.readline().decode().strip(), price={"in": 0, "out": 0})
        with Calls(tmp_path / "store", **QUIET) as calls:
            teacher = calls.teacher("t", backend)
            list(teacher.ask(rows(1)))  # what is imported and connected on the way is not counted
            asked = prompts(*(f"q{n} {'x' * 20_000}" for n in range(1000)))
            tracemalloc.start()
            try:
                number = 0
                for outcome in teacher.ask(asked):
                    assert isinstance(outcome.result, Answer) and len(outcome.result.text) > 40_000
                    number += 1
                most = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
                server.stdin.close()
        assert number == 1000
        assert most < 25e6, f"{most / 1e6:.0f} MB"
        assert not list((tmp_path / "store" / "batches").iterdir())
