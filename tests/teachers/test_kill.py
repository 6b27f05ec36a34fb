"""kill -9 at any commit loses nothing that was acknowledged and pays again at most for what was out (promises 2 and 9)."""

import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stillhouse.records import user
from stillhouse.teachers import openai
from stillhouse.teachers.asking.answers import AnswerStore
from stillhouse.teachers.asking.books import audit
from stillhouse.teachers.base import Answer, Request, Sampling
from stillhouse.teachers.calls import Calls
from stillhouse.testing import FakeProvider, Step, status

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks")

ROWS = 30
OUT = 4
TAPE = [Step(), status(500), Step(finish="length"), Step(text=" "), status(429, retry_after="0")]


def requests() -> list[Request]:
    return [Request(user(f"q{number}"), Sampling(temperature=1.0, max_tokens=30)) for number in range(ROWS)]


def run(store: Path, url: str, name: str = "r") -> list[str]:
    with Calls(store, run=name) as calls:
        backend = openai.Teacher(model="fake", base_url=url, max_concurrency=OUT, price={"in": 1.0, "out": 1.0})
        outcomes = calls.teacher("t", backend).ask(requests())
        return [o.result.text if isinstance(o.result, Answer) else o.result.kind for o in outcomes]


def in_child(work: Callable[[], object]) -> int:
    """Forks, does the work, and gives the child's process id."""
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except BaseException:
        os._exit(1)


def dying(store: Path, url: str, at: int, before: bool) -> Callable[[], None]:
    """The run, in a process that is killed at its `at`-th commit, just before or just after it."""

    def work() -> None:
        commits = 0
        original = AnswerStore.finish

        def counted(self: AnswerStore) -> None:
            nonlocal commits
            commits += 1
            if before and commits == at:
                os.kill(os.getpid(), signal.SIGKILL)
            original(self)
            if commits == at:
                os.kill(os.getpid(), signal.SIGKILL)

        AnswerStore.finish = counted  # type: ignore[method-assign]
        run(store, url)

    return work


@pytest.mark.parametrize("before", [True, False], ids=["before the commit", "after it"])
@pytest.mark.parametrize("at", [1, 2, 3, 4, 5, 8, 13, 21, 34, 55])
def test_killed_at_a_commit(tmp_path: Path, at: int, before: bool) -> None:
    with FakeProvider(lambda prompt: prompt.upper(), tape=TAPE) as provider:
        openai.Teacher(model="warm", base_url=provider.url)  # imported before the fork
        child = in_child(dying(tmp_path, provider.url, at, before))
        _, how = os.waitpid(child, 0)
        assert os.WIFSIGNALED(how) or (at > 21 and os.WEXITSTATUS(how) == 0)  # commits of a fast run hold many rows
        before_resuming = sqlite3.connect(tmp_path / "store.sqlite")
        kept = dict(before_resuming.execute("SELECT key, text FROM answer"))
        before_resuming.close()
        assert run(tmp_path, provider.url) == [f"Q{number}" for number in range(ROWS)]
        again = {seen.prompt for seen in provider.requests}
        assert again == {f"q{number}" for number in range(ROWS)}
        assert len(provider.requests) <= ROWS + len(TAPE) - 1 + OUT
        with Calls(tmp_path) as calls:
            assert audit(calls.store, deep=True) == []
            now = dict(calls.store.rows("SELECT key, text FROM answer"))
            assert kept.items() <= now.items()
            uncertain = calls.store.rows(
                "SELECT count(*), min(settled_usd = reserved_usd) FROM attempt WHERE flags = 'cost_uncertain'"
            )
            assert uncertain[0][0] <= OUT
            assert uncertain[0][1] in (1, None)


def test_a_second_run_after_the_first_asks_nobody(tmp_path: Path) -> None:
    """D18: the store is still there after success."""
    with FakeProvider(lambda prompt: prompt.upper()) as provider:
        first = run(tmp_path, provider.url)
        before = len(provider.requests)
        assert run(tmp_path, provider.url, "another run") == first
        assert len(provider.requests) == before


def test_a_new_store_is_opened_by_several_processes_at_once(tmp_path: Path) -> None:
    """SQLite refuses a change to the write-ahead log without waiting: found by two processes starting together."""
    for attempt in range(20):
        waiting, gate = os.pipe()

        def open_it(folder: Path = tmp_path / str(attempt), waiting: int = waiting, gate: int = gate) -> None:
            os.close(gate)
            os.read(waiting, 1)  # ends when the last end of the gate is closed: for all of them at once
            AnswerStore(folder).close()

        children = [in_child(open_it) for _ in range(6)]
        os.close(gate)
        os.close(waiting)
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 6


def test_two_processes_on_one_store_pay_once(tmp_path: Path) -> None:
    """Leases: what one process has asked, the other waits for."""
    with FakeProvider(lambda prompt: prompt.upper(), tape=[Step(delay=0.03)] * 500) as provider:
        AnswerStore(tmp_path).close()
        children = [in_child(lambda name=name: run(tmp_path, provider.url, name)) for name in "abc"]  # type: ignore[misc]
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
        assert sorted(seen.prompt for seen in provider.requests) == sorted(f"q{number}" for number in range(ROWS))
        with Calls(tmp_path) as calls:
            assert audit(calls.store, deep=True) == []
            assert calls.store.rows("SELECT count(*) FROM request WHERE leased_by IS NOT NULL") == [(0,)]


def test_three_processes_on_one_store_one_of_them_killed(tmp_path: Path) -> None:
    """Writing at once: the other two have every answer, the books balance, and only what was out is asked again."""
    with FakeProvider(lambda prompt: prompt.upper(), tape=[Step(delay=0.02)] * 500) as provider:
        AnswerStore(tmp_path).close()
        openai.Teacher(model="warm", base_url=provider.url)
        doomed = in_child(dying(tmp_path, provider.url, 6, False))
        others = [in_child(lambda name=name: run(tmp_path, provider.url, name)) for name in "ab"]  # type: ignore[misc]
        assert os.WIFSIGNALED(os.waitpid(doomed, 0)[1])
        assert [os.waitpid(child, 0)[1] for child in others] == [0, 0]
        assert {seen.prompt for seen in provider.requests} == {f"q{number}" for number in range(ROWS)}
        assert len(provider.requests) <= ROWS + OUT
        with Calls(tmp_path) as calls:
            assert audit(calls.store, deep=True) == []
            assert calls.store.rows("SELECT count(*) FROM answer") == [(ROWS,)]
            assert calls.store.rows("SELECT count(*) FROM request WHERE leased_by IS NOT NULL") == [(0,)]


def test_the_lease_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    """It held a request when it was killed; nobody waits for its lease to end."""
    with FakeProvider(
        lambda prompt: prompt.upper(), tape=[Step(), Step(hang=True)] + [Step(hang=True)] * OUT
    ) as provider:
        child = in_child(lambda: run(tmp_path, provider.url))
        for _ in range(200):
            if len(provider.requests) > 2:
                break
            time.sleep(0.02)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        provider._tape = []
        began = time.monotonic()
        assert run(tmp_path, provider.url) == [f"Q{number}" for number in range(ROWS)]
        assert time.monotonic() - began < 60
        with Calls(tmp_path) as calls:
            assert audit(calls.store, deep=True) == []
            (lost, dollars), *_ = calls.store.rows(
                "SELECT count(*), total(settled_usd) FROM attempt WHERE flags = 'cost_uncertain'"
            )
            assert 1 <= lost <= OUT
            assert dollars > 0
