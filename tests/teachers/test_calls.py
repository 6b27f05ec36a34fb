"""Looked up first, committed before it is handed on, failures never stored as answers (D3, D5, D15, D17, D18, D19, D20)."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from stillhouse.errors import BudgetReached, RecipeError, RunFailed, TeacherError
from stillhouse.records import Message, user
from stillhouse.teachers import scripted
from stillhouse.teachers.asking.books import audit, trail
from stillhouse.teachers.base import (
    Answer,
    Capability,
    Failure,
    Generates,
    Identity,
    Outcome,
    Request,
    Reveals,
    Sampling,
    Scores,
)
from stillhouse.teachers.calls import Budget, Calls

Open = Callable[..., Calls]


class Counting:
    """A local teacher that upper-cases, and notes in which chunks it was asked."""

    capabilities: frozenset[Capability] = frozenset({"generate"})
    chunk = 4

    def __init__(self, dies_at: str = "", version: str = "1") -> None:
        self.asked: list[list[str]] = []
        self._dies_at, self._version = dies_at, version

    def identity(self) -> Identity:
        return Identity("hf-local", "counting", revision=self._version)

    def ask(self, requests: Iterable[Request]) -> Iterator[Outcome]:
        batch = list(requests)
        self.asked.append([request.messages[-1].content for request in batch])
        for request in reversed(batch):  # another order than asked
            if request.messages[-1].content == self._dies_at:
                raise TeacherError("the power is gone")
            text = request.messages[-1].content.upper() + str(request.sample_index or "")
            yield Outcome(request, Answer(text, input_tokens=2, output_tokens=1))


def prompts(*texts: str) -> list[Request]:
    return [Request(user(text)) for text in texts]


def texts(outcomes: Iterable[Outcome]) -> list[str]:
    return [o.result.text if isinstance(o.result, Answer) else o.result.kind for o in outcomes]


def test_a_second_run_asks_nothing_and_gives_the_same(opened: Open) -> None:
    first, second = Counting(), Counting()
    requests = prompts(*"abcdefghij")
    once = list(opened().teacher("t", first).ask(requests))
    calls = opened()
    again = list(calls.teacher("t", second).ask(requests))
    assert texts(once) == list("ABCDEFGHIJ")  # in the order of the requests
    assert again == once
    assert second.asked == []
    assert (calls.counts()["t"].asked, calls.counts()["t"].hits, calls.counts()["t"].attempts) == (10, 10, 0)
    assert calls.counts()["t"].hit_input_tokens == 20  # a hit carries the usage it was paid with


def test_an_edited_seed_costs_one_request(opened: Open) -> None:
    """D5, D17: an edit in the middle, and an added row, cost one request each."""
    rows = [f"question {number}" for number in range(40)]
    list(opened().teacher("t", Counting()).ask(prompts(*rows)))
    rows[20] = "edited"
    teacher = Counting()
    list(opened().teacher("t", teacher).ask(prompts(*rows, "added")))
    assert teacher.asked == [["edited"], ["added"]]


def test_chunks_are_fixed_by_position(opened: Open) -> None:
    """After a crash the rows still missing are batched as they were the first time."""
    broken, resumed = Counting(dies_at="f"), Counting()
    requests = prompts(*"abcdefghij")
    with pytest.raises(TeacherError):
        list(opened().teacher("t", broken).ask(requests))
    list(opened().teacher("t", resumed).ask(requests))
    assert broken.asked == [["a", "b", "c", "d"], ["e", "f", "g", "h"]]
    assert resumed.asked == [["e", "f", "g", "h"], ["i", "j"]]  # a chunk is committed whole or not at all


def test_requests_stream(opened: Open) -> None:
    """Never more than one chunk of requests is held."""
    taken = 0

    def endless() -> Iterator[Request]:
        nonlocal taken
        while True:
            taken += 1
            yield Request(user(str(taken)))

    outcomes = opened().teacher("t", Counting()).ask(endless())
    for _ in range(6):
        next(outcomes)
    assert taken == 8


def test_equal_requests_share_one_answer_and_samples_do_not(opened: Open) -> None:
    """D20: samples of one prompt never collide on one key."""
    teacher = Counting()
    requests = prompts("a", "a", "b") + [Request(user("a"), sample_index=index) for index in (1, 2)]
    outcomes = list(opened().teacher("t", teacher).ask(requests))
    assert texts(outcomes) == ["A", "A", "B", "A1", "A2"]
    assert [len(batch) for batch in teacher.asked] == [3, 1]
    assert len({outcome.key for outcome in outcomes}) == 4


def test_retrained_weights_are_another_teacher(opened: Open) -> None:
    list(opened().teacher("t", Counting()).ask(prompts("a")))
    retrained = Counting(version="2")
    list(opened().teacher("t", retrained).ask(prompts("a")))
    assert retrained.asked == [["a"]]


@pytest.mark.parametrize(
    ("finish", "kind"),
    [
        ("length", "truncated"),
        ("unknown", "truncated"),
        ("refusal", "refused"),
        ("content_filter", "refused"),
        ("stop", None),
    ],
)
def test_only_complete_answers_pass(opened: Open, finish: str, kind: str | None) -> None:
    """D15: each way to say "cut off", and saying nothing, is no answer; the cut text is kept, apart."""

    class Ends(Counting):
        def ask(self, requests: Iterable[Request]) -> Iterator[Outcome]:
            for request in requests:
                yield Outcome(request, Answer("half a", finish))  # type: ignore[arg-type]

    calls = opened()
    (outcome,) = calls.teacher("t", Ends()).ask(prompts("a"))
    assert texts([outcome]) == [kind or "half a"]
    assert calls.store.rows("SELECT count(*) FROM answer")[0][0] == (kind is None)
    (raw,) = calls.store.rows("SELECT raw FROM attempt")[0]
    assert calls.store.raw(raw) == (b"" if kind is None else b"half a")


@pytest.mark.parametrize(
    ("text", "kind"), [("", "empty"), (" \n", "empty"), ("a\x00", "malformed"), ("\ud83d", "malformed")]
)
def test_unusable_texts_are_no_answers(opened: Open, text: str, kind: str) -> None:
    class Says(Counting):
        def ask(self, requests: Iterable[Request]) -> Iterator[Outcome]:
            for request in requests:
                yield Outcome(request, Answer(text))

    assert texts(opened().teacher("t", Says()).ask(prompts("a"))) == [kind]


def test_a_failure_is_not_an_answer_the_next_time(opened: Open) -> None:
    """D19: fail once, then succeed: the second run asks again."""
    failing = scripted.Teacher(reply="x", fail={"timeout": 1})
    assert texts(opened().teacher("t", failing).ask(prompts("a"))) == ["timeout"]

    class Recovered(scripted.Teacher):
        def identity(self) -> Identity:
            return failing.identity()

    assert texts(opened().teacher("t", Recovered(reply="x")).ask(prompts("a"))) == ["x"]


def test_what_would_repeat_itself_is_remembered_as_the_failure_it_was(opened: Open) -> None:
    """D3: a cut-off answer is paid once, and asked again only when somebody says so."""
    cut = scripted.Teacher(reply="a long answer", fail={"truncated": 1})
    assert texts(opened().teacher("t", cut).ask(prompts("a"))) == ["truncated"]
    calls = opened()
    assert texts(calls.teacher("t", cut).ask(prompts("a"))) == ["truncated"]
    assert calls.counts()["t"].attempts == 0
    calls = opened(retry=["truncated"])
    list(calls.teacher("t", cut).ask(prompts("a")))
    assert calls.counts()["t"].attempts == 1


def test_the_ladder_asks_with_twice_the_limit(opened: Open) -> None:
    """Each rung is a request of its own; the answer belongs to the rung that gave it."""

    class Needs(Counting):
        def ask(self, requests: Iterable[Request]) -> Iterator[Outcome]:
            for request in requests:
                enough = request.sampling.max_tokens >= 32
                yield Outcome(request, Answer("all of it" if enough else "all", "stop" if enough else "length"))

    calls = opened()
    sampling = Sampling(max_tokens=8)
    request = Request(user("a"), sampling)
    (outcome,) = calls.teacher("t", Needs(), sampling, rungs=3).ask([request])
    assert texts([outcome]) == ["all of it"]
    assert outcome.request is request
    assert trail(calls.store, outcome.key) is not None
    assert [row[0] for row in calls.store.rows("SELECT outcome FROM attempt ORDER BY id")] == ["truncated"] * 2 + [
        "answered"
    ]
    calls = opened()
    assert texts(calls.teacher("t", Needs(), sampling, rungs=2).ask([request])) == ["truncated"]
    assert calls.counts()["t"].attempts == 0  # both rungs are known


def test_an_empty_answer_is_drawn_once_more(opened: Open) -> None:
    """The second draw has an index no planned sample can have."""

    class Shy(Counting):
        def ask(self, requests: Iterable[Request]) -> Iterator[Outcome]:
            for request in requests:
                yield Outcome(request, Answer("" if request.sample_index < 2**32 else "here"))

    warm = Sampling(temperature=1.0)
    calls = opened()
    assert texts(calls.teacher("t", Shy(), warm).ask([Request(user("a"), warm)])) == ["here"]
    assert texts(calls.teacher("t", Shy()).ask(prompts("a"))) == ["empty"]  # greedy: the same again


def test_a_bad_request_harms_nobody_else(opened: Open) -> None:
    """D2: one row of 64 cannot be written down; the others are answered."""
    requests = prompts(*(f"row {number}" for number in range(63)))
    requests.insert(30, Request(user("half \ud83d")))
    kinds = texts(opened().teacher("t", Counting()).ask(requests))
    assert kinds.count("unencodable") == 1 and kinds[30] == "unencodable"
    assert len([kind for kind in kinds if kind.startswith("ROW")]) == 63


def test_a_teacher_that_forgets_a_row_is_found_out(opened: Open) -> None:
    class Forgets(Counting):
        def ask(self, requests: Iterable[Request]) -> Iterator[Outcome]:
            yield from (Outcome(request, Answer("x")) for request in list(requests)[1:])

    assert texts(opened().teacher("t", Forgets()).ask(prompts("a", "b"))) == ["no_answer", "x"]


def test_text_survives_as_it_is(opened: Open) -> None:
    """D6 and bad input 5, 14: nothing is mended on the way through the store."""
    odd = "\ufeff a\\nb \r\n tab\t 😀 e\u0301 \u2028 \u202eabc " + "x" * 10_000
    teacher = scripted.Teacher(replies={"q": odd})
    assert texts(opened().teacher("t", teacher).ask(prompts("q"))) == [odd]
    assert texts(opened().teacher("t", teacher).ask(prompts("q"))) == [odd]


def test_the_wrapper_offers_what_the_backend_offers(opened: Open) -> None:
    calls = opened()
    plain = calls.teacher("t", Counting())
    assert isinstance(plain, Generates)
    assert not isinstance(plain, Scores)
    assert not isinstance(plain, Reveals)


def test_budget_of_requests_stops_and_goes_on(opened: Open) -> None:
    requests = prompts(*"abcdef")
    outcomes = opened(run="r", budget=Budget(requests=3)).teacher("t", Counting()).ask(requests)
    assert texts(next(outcomes) for _ in range(3)) == ["A", "B", "C"]
    with pytest.raises(BudgetReached, match="3 of 3 requests"):
        next(outcomes)
    with pytest.raises(BudgetReached):  # the same run has spent it already
        list(opened(run="r", budget=Budget(requests=3)).teacher("t", Counting()).ask(requests))
    calls = opened(run="r", budget=Budget(requests=6))
    assert texts(calls.teacher("t", Counting()).ask(requests)) == list("ABCDEF")
    assert calls.counts()["t"].attempts == 3


@pytest.mark.parametrize("sampling", [Sampling(temperature=-1), Sampling(top_p=0), Sampling(max_tokens=0)])
def test_impossible_sampling_is_refused(opened: Open, sampling: Sampling) -> None:
    with pytest.raises(RecipeError, match="teacher 't'"):
        opened().teacher("t", Counting(), sampling)


def test_what_a_person_should_know_is_said(opened: Open) -> None:
    """Section 7 and 3: more than 2 % cut off, and samples that cannot differ."""
    said: list[str] = []
    calls = opened(say=said.append)
    cut = scripted.Teacher(reply="x", fail={"truncated": 10})
    list(calls.teacher("t", cut, Sampling(n=3)).ask(prompts(*map(str, range(20)))))
    calls.close()
    assert said == [
        "teacher 't': 3 answers at temperature 0 are one answer paid 3 times; raise it",
        "teacher 't': 10 % of 20 attempts were cut off; raise sampling.max_tokens",
    ]


def test_trail_tells_what_was_asked_and_what_came(opened: Open) -> None:
    calls = opened(run="r")
    (outcome,) = calls.teacher("t", Counting()).ask([Request((Message("system", "s"), Message("user", "q")))])
    found = trail(calls.store, outcome.key)
    assert found is not None
    assert '["system","s"],["user","q"]' in found["request"]
    assert [(a["run"], a["teacher"], a["outcome"], a["output_tokens"]) for a in found["attempts"]] == [
        ("r", "t", "answered", 1)
    ]
    assert found["answer"]["text"] == "Q"
    assert trail(calls.store, "0" * 64) is None


def test_audit_sees_each_kind_of_imbalance(tmp_path: Path) -> None:
    """The audit itself must be able to fail: each kind of damage, done by hand, is named."""
    damages = {
        "the ledger says": "UPDATE spend SET usd = usd + 1",
        "belong to no run": "DELETE FROM spend",
        "come from no answered attempt": "UPDATE attempt SET outcome = 'truncated'",
        "gave no answer": "DELETE FROM answer",
        "were cut off": "UPDATE answer SET finish_reason = 'length'",
        "belong to no request": "DELETE FROM request",
        "do not match their key": "UPDATE request SET body = (SELECT body FROM request LIMIT 1)",
        "are in flight": "INSERT INTO attempt(key, run, teacher, transport, started, outcome) "
        "SELECT key, 'x', 't', 'online', 0, 'in_flight' FROM request LIMIT 1",
    }
    for number, (words, sql) in enumerate(damages.items()):
        with Calls(tmp_path / str(number)) as calls:
            list(calls.teacher("t", Counting()).ask(prompts("a", "b")))
            assert audit(calls.store, deep=True) == []
            with calls.store.transaction() as db:
                db.execute(sql)
            assert any(words in finding for finding in audit(calls.store, deep=True)), words


def test_a_store_that_takes_no_more_stops_cleanly_and_keeps_what_it_has(tmp_path: Path) -> None:
    """Bad input 19: a full disk (SQLite's own limit stands in for it) and a file that may only be read."""
    with Calls(tmp_path) as calls:
        teacher = calls.teacher("t", Counting())
        assert len(list(teacher.ask(prompts(*"abcd")))) == 4
        pages = calls.store.rows("PRAGMA page_count")[0][0]
        calls.store.db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(RunFailed, match="free the disk"):
            list(teacher.ask(prompts(*(f"{n} " + "x" * 3000 for n in range(400)))))
    with Calls(tmp_path) as calls:
        assert audit(calls.store, deep=True) == []
        assert texts(calls.teacher("t", Counting()).ask(prompts(*"abcd"))) == list("ABCD")
        calls.store.db.execute("PRAGMA query_only = 1")
        with pytest.raises(RunFailed, match="cannot be written"):
            list(calls.teacher("t", Counting()).ask(prompts("new")))
        calls.store.db.execute("PRAGMA query_only = 0")


def test_a_store_from_the_future_is_refused(tmp_path: Path) -> None:
    Calls(tmp_path).close()
    with sqlite3.connect(tmp_path / "store.sqlite") as db:
        db.execute("UPDATE meta SET value = '99' WHERE name = 'schema_version'")
    db.close()
    with pytest.raises(RunFailed, match="newer stillhouse"):
        Calls(tmp_path)


def damaged_with_answers(home: Path) -> list[Request]:
    """The 200 requests whose answers lie in a store with a page that is none."""
    requests = prompts(*(f"{number} " + "x" * 500 for number in range(200)))
    with Calls(home) as calls:
        list(calls.teacher("t", Counting()).ask(requests))
        calls.store.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    path = home / "store.sqlite"
    damaged = bytearray(path.read_bytes())
    middle = len(damaged) // 2 // 4096 * 4096
    damaged[middle : middle + 4096] = b"\xff" * 4096
    path.write_bytes(damaged)
    return requests


def test_a_damaged_store_is_put_aside_and_its_readable_rows_are_kept(tmp_path: Path) -> None:
    """D16: never silently from the beginning."""
    requests = damaged_with_answers(tmp_path)
    with Calls(tmp_path) as calls:
        assert "was damaged" in calls.store.recovered
        assert list(tmp_path.glob("store.sqlite.damaged-*"))
        teacher = Counting()
        assert texts(calls.teacher("t", teacher).ask(requests)) == [r.messages[0].content.upper() for r in requests]
        assert calls.counts()["t"].hits > 100
        assert calls.counts()["t"].hits + sum(map(len, teacher.asked)) == 200


def test_a_damaged_store_is_mended_once_however_many_open_it(tmp_path: Path) -> None:
    """The second to find the damage must not move aside what the first has made."""
    damaged_with_answers(tmp_path)
    script = (
        "import sys\nfrom stillhouse.teachers.asking.answers import AnswerStore\nsys.stdin.readline()\n"
        f"store = AnswerStore({str(tmp_path)!r})\nprint(store.rows('SELECT count(*) FROM answer')[0][0], bool(store.recovered))\n"
    )
    command = [sys.executable, "-c", script]
    opening = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for each in opening:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    told = [each.communicate(timeout=120)[0].split() for each in opening]
    assert sorted(mended for _, mended in told) == ["False"] * 3 + ["True"]
    # the page in the middle is the answers' or another table's: by how the commits fell
    assert len({count for count, _ in told}) == 1 and 100 < int(told[0][0]) <= 200
    assert (
        len([each for each in tmp_path.glob("store.sqlite.damaged-*") if not each.name.endswith(("-wal", "-shm"))]) == 1
    )


def test_a_store_of_the_first_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    """Answers that were bought before the schema changed are still there, and asked for no second time."""
    with Calls(tmp_path) as calls:
        list(calls.teacher("t", Counting()).ask(prompts("a", "b")))
    with sqlite3.connect(tmp_path / "store.sqlite") as db:
        db.execute("ALTER TABLE attempt DROP COLUMN stage")
        for table in ("batch_job", "batch_item", "verdict"):
            db.execute(f"DROP TABLE {table}")
        db.execute("UPDATE meta SET value = '1' WHERE name = 'schema_version'")
    db.close()
    teacher = Counting()
    with Calls(tmp_path) as calls:
        assert texts(calls.teacher("t", teacher).ask(prompts("a", "b", "c"))) == ["A", "B", "C"]
        assert audit(calls.store, deep=True) == []
    assert teacher.asked == [["c"]]


def test_a_file_that_is_no_database_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite").write_bytes(
        b"this is no database, and long enough not to be taken for an empty one" * 40
    )
    with Calls(tmp_path) as calls:
        assert "kept 0 answers" in calls.store.recovered
        assert calls.store.rows("SELECT value FROM meta WHERE name = 'recovered'") == [(calls.store.recovered,)]
        assert texts(calls.teacher("t", Counting()).ask(prompts("a"))) == ["A"]


def test_large_raw_answers_become_files(opened: Open) -> None:
    import random

    letters = "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=200_000))
    calls = opened()
    cut = scripted.Teacher(reply=letters + letters, fail={"truncated": 1})
    list(calls.teacher("t", cut).ask(prompts("a")))
    (raw,) = calls.store.rows("SELECT raw FROM attempt")[0]
    assert raw.startswith(b"file:")
    assert calls.store.raw(raw) == letters.encode()
    assert isinstance(next(iter(calls.teacher("t", cut).ask(prompts("a")))).result, Failure)


def test_a_write_begins_at_once_only_where_nobody_else_writes(tmp_path: Path) -> None:
    with Calls(tmp_path) as calls:
        other = sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert not calls.store.begun_at_once()
        other.execute("COMMIT")
        other.close()
        assert calls.store.begun_at_once()
        assert not calls.store.begun_at_once(), "a thread of this process is writing"
        calls.store.finish()
        assert calls.store.db.execute("PRAGMA busy_timeout").fetchone() == (60_000,)
