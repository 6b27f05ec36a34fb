"""Looking after stores: a merge is a union, verify finds damage, nothing that was paid is ever removed."""

import json
import random
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from stillhouse.cli import app
from stillhouse.errors import RecipeError
from stillhouse.records import user
from stillhouse.teachers import openai
from stillhouse.teachers.asking.answers import AnswerStore, AttemptRow
from stillhouse.teachers.asking.books import audit
from stillhouse.teachers.asking.upkeep import collect_garbage, merge, open_existing, verify
from stillhouse.teachers.base import Request, Sampling
from stillhouse.teachers.calls import Calls
from stillhouse.testing.provider import FakeProvider, Step, status

LONG = "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=200_000))


def asked(folder: Path, provider: FakeProvider, run: str, *texts: str) -> None:
    with Calls(folder, run=run, say=lambda text: None) as calls:
        backend = openai.Teacher(model="fake", base_url=provider.url, price={"in": 1.0, "out": 1.0})
        list(calls.teacher("t", backend).ask(Request(user(text), Sampling(max_tokens=20)) for text in texts))


@pytest.fixture
def stores(tmp_path: Path) -> tuple[Path, Path, FakeProvider]:
    """Two stores that share one request, with failures and a large raw answer in the second."""
    tape = {"c": [status(500)], "d": [Step(finish="length")] * 9, "e": [Step(text=LONG, finish="length")] * 9}
    with FakeProvider("x", by_prompt=tape) as provider:
        asked(tmp_path / "one", provider, "r1", "a", "b")
        asked(tmp_path / "two", provider, "r2", "b", "c", "d", "e")
        asked(tmp_path / "two", provider, "r1", "f")  # a shard of the same run
        return tmp_path / "one", tmp_path / "two", provider


def test_a_merge_is_a_union_and_twice_changes_nothing(stores: tuple[Path, Path, FakeProvider]) -> None:
    one, two, provider = stores
    into, other = AnswerStore(one), AnswerStore(two)
    usd = sum(store.rows("SELECT total(settled_usd) FROM attempt")[0][0] for store in (into, other))
    new = merge(into, other)
    assert new["answers"] == 3 - 1 + 0  # c and f; b was ours already, d and e gave none
    assert audit(into, deep=True) == [] and verify(into) == []
    assert into.rows("SELECT total(usd) FROM spend")[0][0] == pytest.approx(usd)
    assert into.rows("SELECT attempts FROM spend WHERE run = 'r1'") == [(3,)]
    assert merge(into, other) == {"requests": 0, "attempts": 0, "answers": 0}
    assert into.rows("SELECT total(usd) FROM spend")[0][0] == pytest.approx(usd)
    into.close()
    other.close()
    before = len(provider.requests)
    with Calls(one, run="r3") as calls:
        backend = openai.Teacher(model="fake", base_url=provider.url, price={"in": 1.0, "out": 1.0})
        asking = calls.teacher("t", backend).ask(Request(user(t), Sampling(max_tokens=20)) for t in "abcdef")
        assert [getattr(each.result, "text", "truncated") for each in asking] == [
            "x",
            "x",
            "x",
            *["truncated"] * 2,
            "x",
        ]
    assert len(provider.requests) == before  # remembered failures came along, too


def test_verify_names_what_is_damaged(stores: tuple[Path, Path, FakeProvider]) -> None:
    store = AnswerStore(stores[1])
    assert verify(store) == []
    for each in list((store.folder / "blobs").iterdir()):
        each.unlink()
    assert any("raw answers lie in files that are gone" in problem for problem in verify(store))
    with store.transaction() as db:
        db.execute("UPDATE request SET body = (SELECT body FROM request ORDER BY key DESC LIMIT 1)")
    assert any("requests do not match their key" in problem for problem in verify(store))
    store.close()


def test_garbage_is_only_what_nothing_names(stores: tuple[Path, Path, FakeProvider]) -> None:
    store = AnswerStore(stores[1])
    kept = sorted(path.name for path in (store.folder / "blobs").iterdir())
    assert kept
    (store.folder / "blobs" / ("0" * 64)).write_bytes(b"left by a crash")
    (store.folder / "batches").mkdir()
    (store.folder / "batches" / "gone.jsonl").write_bytes(b"{}\n")
    assert collect_garbage(store) == {"blobs": 1, "batch files": 1, "batches given up": 0}
    assert sorted(path.name for path in (store.folder / "blobs").iterdir()) == kept
    assert verify(store) == []
    store.close()


def test_a_file_that_is_about_to_be_named_is_no_garbage(stores: tuple[Path, Path, FakeProvider]) -> None:
    """A raw answer is on disk before the row that names it: who collects meanwhile waits for the row."""
    writer, other = AnswerStore(stores[1]), AnswerStore(stores[1])
    before = len(list((writer.folder / "blobs").iterdir()))
    raw = random.Random(0).randbytes(1 << 17)
    with ThreadPoolExecutor(1) as beside:
        with writer.transaction() as db:
            writer.write(db, "r", "t", AttemptRow("f" * 64, "protocol", raw=raw))
            collecting = beside.submit(collect_garbage, other)
            with pytest.raises(TimeoutError):
                collecting.result(timeout=0.3)
        assert collecting.result(timeout=60) == {"blobs": 0, "batch files": 0, "batches given up": 0}
    assert len(list((writer.folder / "blobs").iterdir())) == before + 1
    ((packed,),) = writer.rows("SELECT raw FROM attempt WHERE key = ?", ["f" * 64])
    assert writer.raw(packed) == raw
    writer.close()
    other.close()


def test_the_commands(stores: tuple[Path, Path, FakeProvider], tmp_path: Path, capsys: Any) -> None:
    one, two, _ = stores

    def still(*words: object) -> tuple[int, str]:
        code = app([str(word) for word in ("store", *words)], standalone_mode=False)
        return int(code or 0), capsys.readouterr().out

    assert still("verify", "--store", one) == (0, f"{one / 'store.sqlite'}: 2 answers, the books balance\n")
    assert still("merge", two, "--store", one)[1].startswith(f"{two}: ")
    assert still("export", tmp_path / "out.jsonl", "--store", one)[1].startswith("wrote 4 answers")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert sorted(row["request"]["messages"][0][1] for row in rows) == ["a", "b", "c", "f"]
    assert still("gc", "--store", one)[0] == 0
    with sqlite3.connect(one / "store.sqlite") as db:
        db.execute("UPDATE spend SET usd = 9")
    db.close()
    code, told = still("verify", "--store", one)
    assert code == 1 and "the ledger says 9.0 dollars" in told
    with pytest.raises(RecipeError, match="no store"):
        open_existing(tmp_path / "nowhere")
