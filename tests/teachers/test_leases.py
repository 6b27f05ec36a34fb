"""Who holds a request and for how long: a lease ends with its process or its time, and is then anybody's."""

import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stillhouse.records import user
from stillhouse.teachers import openai
from stillhouse.teachers.asking.answers import AnswerStore
from stillhouse.teachers.asking.keys import key_of, request_body
from stillhouse.teachers.asking.leases import Lease, alive, owner, release, take
from stillhouse.teachers.base import Answer, Request, Sampling
from stillhouse.teachers.calls import Calls
from stillhouse.testing.provider import FakeProvider

HERE, LATER, BEFORE = socket.gethostname(), time.time() + 3600, time.time() - 1


def test_a_lease_ends_with_its_process_or_its_time() -> None:
    mine = owner()
    host, process, started, _ = mine.split("|")
    assert (host, int(process)) == (HERE, os.getpid())
    assert alive(Lease(mine, LATER))
    assert not alive(Lease(mine, BEFORE))
    assert not alive(Lease(f"{HERE}|{process}|{started}|someone", LATER)), "of this process, and given up"
    assert alive(Lease("elsewhere|1|2|x", LATER)), "nobody can look into another machine"
    assert not alive(Lease("elsewhere|1|2|x", BEFORE))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        begun = Path(f"/proc/{other.pid}/stat").read_text().rpartition(")")[2].split()[19]
        assert alive(Lease(f"{HERE}|{other.pid}|{begun}|x", LATER))
        assert not alive(Lease(f"{HERE}|{other.pid}|{int(begun) + 1}|x", LATER)), "another process of the same number"
        assert other.stdin is not None
        other.stdin.close()
    assert not alive(Lease(f"{HERE}|{other.pid}|{begun}|x", LATER))


def test_of_two_who_want_it_one_has_it_until_it_is_given_back(tmp_path: Path) -> None:
    one, two = AnswerStore(tmp_path), AnswerStore(tmp_path)

    def taken(store: AnswerStore, who: str) -> Lease | None:
        with store.transaction() as db:
            return take(store, db, "k", "body", who, LATER)

    assert taken(one, "elsewhere|1|2|a") is None
    assert taken(two, "elsewhere|1|2|b") == Lease("elsewhere|1|2|a", LATER)
    assert taken(one, "elsewhere|1|2|a") is None, "it may be taken again by who has it"
    with two.transaction() as db:
        release(db, "k", "elsewhere|1|2|b")
    assert taken(two, "elsewhere|1|2|b") == Lease("elsewhere|1|2|a", LATER), "nobody gives back what is another's"
    with one.transaction() as db:
        release(db, "k", "elsewhere|1|2|a")
    assert taken(two, "elsewhere|1|2|b") is None
    one.close()
    two.close()


@pytest.mark.parametrize("holder", ["elsewhere|1|2|x", f"{HERE}|{2**22 + 1}|5|dead"])
def test_who_waits_for_another_asks_when_the_lease_has_ended(tmp_path: Path, holder: str) -> None:
    """Held elsewhere it is waited for until its time is over; of a dead process it is taken at once."""
    with FakeProvider("fine") as provider, Calls(tmp_path, run="r") as calls, ThreadPoolExecutor(1) as beside:
        backend = openai.Teacher(model="m", base_url=provider.url)
        request = Request(user("q"), Sampling(max_tokens=9))
        body = request_body(backend.identity(), request)
        with calls.store.transaction() as db:
            assert take(calls.store, db, key_of(body), body, holder, LATER) is None
        asking = beside.submit(lambda: list(calls.teacher("t", backend).ask([request])))
        if holder.startswith("elsewhere"):
            with pytest.raises(TimeoutError):
                asking.result(timeout=0.5)
            assert provider.requests == []
            with calls.store.transaction() as db:
                db.execute("UPDATE request SET lease_until = ?", (BEFORE,))
        (outcome,) = asking.result(timeout=120)
        assert isinstance(outcome.result, Answer) and len(provider.requests) == 1
        assert calls.store.rows("SELECT leased_by FROM request") == [(None,)]
