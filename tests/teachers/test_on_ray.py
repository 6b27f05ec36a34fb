"""Generation on Ray: the same answers under the same keys, through the same store; a dead worker costs nothing.

A local Ray of two workers. Marked slow: starting a cluster and its workers takes most of a minute.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillhouse.errors import TeacherError
from stillhouse.records import user
from stillhouse.teachers import pocket, scripted
from stillhouse.teachers.asking.books import audit
from stillhouse.teachers.asking.on_ray import answered, on_ray
from stillhouse.teachers.base import Answer, Failure, Outcome, Request, Sampling
from stillhouse.teachers.calls import Calls

SAMPLING = Sampling(temperature=1.0, max_tokens=12, seed=3)


def requests(number: int) -> list[Request]:
    return [
        Request(user(f"How many apples are {index} apples and {index + 1} more?"), SAMPLING) for index in range(number)
    ]


def told(outcomes: Iterator[Outcome]) -> list[str]:
    return [o.result.text if isinstance(o.result, Answer) else o.result.kind for o in outcomes]


class Poisoned(scripted.Teacher):
    """Raises over a batch that holds the word poison, as a library does."""

    def ask(self, requests):  # type: ignore[no-untyped-def]
        held = list(requests)
        if any("poison" in request.messages[-1].content for request in held):
            raise ZeroDivisionError("a kernel of somebody's")
        return super().ask(held)


def test_one_failing_row_never_hurts_its_neighbours() -> None:
    """D4, below the call layer."""
    rows = [Request(user(text), expected=text) for text in ("a", "poison", "b")]
    results = answered(Poisoned(), rows)
    assert [type(result) for result in results] == [Answer, Failure, Answer]
    assert isinstance(results[1], Failure)
    assert (results[1].kind, results[1].state) == ("worker_failed", "not_attempted")
    assert "ZeroDivisionError" in results[1].detail


def test_a_teacher_that_cannot_work_at_all_stops_the_run() -> None:
    class Broken(scripted.Teacher):
        def ask(self, requests):  # type: ignore[no-untyped-def]
            raise TeacherError("no model")

    with pytest.raises(TeacherError, match="no model"):
        answered(Broken(), requests(2))


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(TeacherError, match=r"stillhouse\[ray\]"):
        next(on_ray(pocket.Teacher, {"batch_size": 2}).ask(requests(1)))


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray", reason="Ray is not installed (pip install stillhouse[ray])")
    os.environ["RAY_AUTH_MODE"] = "disabled"
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - 15 by default: beside other work it would hardly be served
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200_000_000)
    yield
    ray.shutdown()


def workers() -> list[int]:
    """The processes of this Ray that work at a map of ours."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and b"ray::MapWorker" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_two_workers_one_killed_half_way(tmp_path: Path, cluster: None) -> None:
    """All are answered, as the teacher answers here; a second run asks nobody, on Ray or not."""
    here, wanted = pocket.Teacher(batch_size=1), requests(64)
    spread = on_ray(pocket.Teacher, {"batch_size": 1})
    assert spread.identity() == here.identity()
    killed: list[int] = []

    def kill() -> None:
        """One of the two, once some of the answers are on disk."""
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            with Calls(tmp_path / "store") as looking:
                ((done,),) = looking.store.rows("SELECT count(*) FROM attempt")
            if done >= 8 and len(at_work := workers()) >= 2:
                os.kill(at_work[0], signal.SIGKILL)
                killed.append(at_work[0])
                return
            time.sleep(0.05)

    thread = threading.Thread(target=kill)
    thread.start()
    with Calls(tmp_path / "store") as calls:
        outcomes = told(calls.teacher("t", spread).ask(wanted))
        assert (calls.counts()["t"].attempts, calls.counts()["t"].balanced()) == (64, True)
    thread.join()
    assert len(killed) == 1
    with Calls(tmp_path / "elsewhere") as calls:
        assert told(calls.teacher("t", here).ask(wanted)) == outcomes
    with Calls(tmp_path / "store") as calls:
        assert told(calls.teacher("t", here).ask(wanted)) == outcomes
        assert calls.counts()["t"].attempts == 0
        assert audit(calls.store, deep=True) == []
