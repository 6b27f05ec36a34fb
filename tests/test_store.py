"""Records on disk come back as they were, and half-written files are never taken for whole ones."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse import store
from stillhouse.errors import RecipeError, RunFailed
from stillhouse.records import Example, Message, Origin, Ranking, Seed, TopLogprobs, user

ANY_TEXT = st.text(st.characters())  # lone surrogates too: a server may send them
MESSAGES = st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant", "tool"]), ANY_TEXT)).map(tuple)
ORIGINS = st.builds(Origin, st.lists(ANY_TEXT).map(tuple), ANY_TEXT, st.lists(ANY_TEXT).map(tuple), ANY_TEXT)
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), ANY_TEXT, st.lists(st.integers()))
COLUMNS = st.dictionaries(ANY_TEXT, PLAIN)
RECORDS = st.one_of(
    st.builds(Seed, ANY_TEXT, MESSAGES, st.none() | ANY_TEXT, COLUMNS, ORIGINS),
    st.builds(Example, ANY_TEXT, MESSAGES, ANY_TEXT, st.none() | ANY_TEXT, MESSAGES, COLUMNS, ORIGINS),
    st.builds(
        Ranking,
        ANY_TEXT,
        MESSAGES,
        st.lists(ANY_TEXT, min_size=2).map(tuple),
        st.lists(st.floats(allow_nan=False)).map(tuple),
        st.none() | ANY_TEXT,
        MESSAGES,
        COLUMNS,
        ORIGINS,
    ),
)


def beliefs(name: str, tokens: int, kept: int, start: int = 0) -> TopLogprobs:
    ids = np.arange(start, start + tokens, dtype=np.int32)
    top = np.arange(tokens * kept, dtype=np.int32).reshape(tokens, kept)
    return TopLogprobs(name, user("q"), "r", None, "f" * 16, ids, top, -top.astype(np.float32) / 7)


def interrupted(rows: int) -> Iterator[Seed]:
    yield from (Seed(str(i), user("x")) for i in range(rows))
    raise KeyboardInterrupt


@settings(max_examples=60, deadline=None)
@given(st.lists(RECORDS, max_size=5))
def test_every_record_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, records: list) -> None:
    path = tmp_path_factory.mktemp("round") / "out.jsonl"
    assert store.write_records(path, records) == len(records)
    assert list(store.Records(path)) == records
    assert [store.Records(path)[i] for i in range(len(records))] == records


def test_newlines_of_every_kind_stay_inside_their_record(tmp_path: Path) -> None:
    """Splitting by Unicode's line ends would tear such rows apart."""
    record = Example("a", user("one\u2028two\x85three\r\nfour\x0bfive"), "\x1c")
    store.write_records(tmp_path / "out.jsonl", [record, record])
    read = store.Records(tmp_path / "out.jsonl")
    assert len(read) == 2
    assert read[1] == record
    assert [row["prompt"][0]["content"] for _, row in store.read_jsonl(tmp_path / "out.jsonl")] == [
        record.prompt[0].content
    ] * 2


def test_arrays_are_found_again_in_whichever_shard_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SHARD_BYTES", 4000)
    records = [beliefs(f"r{i}", tokens=5 + i, kept=8, start=i) for i in range(30)]
    path = tmp_path / "out.jsonl"
    store.write_records(path, records)
    assert len(list(tmp_path.glob("out.arrays-*.safetensors"))) > 3
    read = store.Records(path)
    for index in (29, 0, 17):  # not in the order they were written
        for name in ("token_ids_T", "top_ids_TK", "top_logprobs_TK"):
            written, found = getattr(records[index], name), getattr(read[index], name)
            assert found.dtype == written.dtype
            assert np.array_equal(found, written)
    assert [record.id for record in read] == [record.id for record in records]


def test_a_second_writing_leaves_no_array_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SHARD_BYTES", 1000)
    path = tmp_path / "out.jsonl"
    store.write_records(path, [beliefs(f"r{i}", 10, 8) for i in range(9)])
    store.write_records(path, [beliefs("new", 3, 2)])
    assert [p.name for p in tmp_path.glob("*.safetensors")] == ["out.arrays-00000.safetensors"]
    assert store.Records(path)[0].top_ids_TK.shape == (3, 2)


def test_a_writer_that_dies_leaves_a_part_and_never_the_file(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    for rows in (3, 0):
        with pytest.raises(KeyboardInterrupt):
            store.write_records(path, interrupted(rows))
        assert not path.exists()
        assert path.with_name("out.jsonl.part").exists()
    store.write_records(path, [Seed("b", user("y"))])
    assert [record.id for record in store.Records(path)] == ["b"]
    assert not path.with_name("out.jsonl.part").exists()


def test_a_hundred_thousand_rows_are_not_held(tmp_path: Path) -> None:
    """Reading them takes 8 bytes a row, whatever a row weighs: the allocations are counted, not the clock."""
    import tracemalloc

    path, rows, text = tmp_path / "out.jsonl", 100_000, "x" * 400
    with store.Writer(path) as out:
        for i in range(rows):
            out.write_row({"kind": "Seed", "id": str(i), "prompt": [], "reference": text, "columns": {}, "origin": {}})
    with open(path, "rb") as file:
        tracemalloc.start()
        offsets = store.line_offsets(file)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert len(offsets) == rows
    with open(path, "rb") as file:
        file.seek(offsets[-1])
        assert json.loads(file.readline())["id"] == "99999"
    assert peak < 4 * 8 * rows


@pytest.mark.parametrize("size", [1, 7, 262_144])
def test_rows_are_counted_and_found_by_number_wherever_the_file_is_cut(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_PART", size)
    path = tmp_path / "out.jsonl"
    for content in (b"", b"a\n", b"a", b"a\n\nbc\n", b"a\n\nbc", b"\n"):
        path.write_bytes(content)
        lines = content.splitlines(keepends=True)
        with open(path, "rb") as file:
            assert store.line_count(file) == len(lines)
            assert store.line_offsets(file).tolist() == [sum(map(len, lines[:i])) for i in range(len(lines))]
            assert file.read() == content  # where the file stands is the reader's own


def test_a_sequence_of_records_is_of_the_file_that_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    store.write_records(path, (Seed(str(i), user("x")) for i in range(3)))
    records = store.Records(path)
    store.write_records(path, [Seed("later", user("a longer text than those before"))])
    assert (len(records), records[1].id, records[-1].id) == (3, "1", "2")


def test_iterating_holds_one_row_at_a_time(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "out.jsonl"
    store.write_records(path, (Seed(str(i), user("x" * 2000)) for i in range(5000)))
    records = store.Records(path)
    tracemalloc.start()
    assert sum(1 for _ in records) == 5000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000  # the file has 10


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"a": 1}\n{"a": \n', "line 2: not JSON"),
        (b'{"a": 1}\n\n[1]\n', "line 3: a list"),
        (b'{"a": "\xff"}\n', "not UTF-8 text at byte 7"),
        (b"[" * 5000 + b"\n", "line 1: not JSON"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "seeds.jsonl"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=said) as error:
        list(store.read_jsonl(path))
    assert str(path) in str(error.value)


def test_a_byte_order_mark_and_blank_lines_are_no_content(tmp_path: Path) -> None:
    path = tmp_path / "seeds.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n  \n{"a": 2}')
    assert list(store.read_jsonl(path)) == [(1, {"a": 1}), (4, {"a": 2})]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"null", b'"x"'])
def test_damage_is_said_and_a_damaged_stamp_only_means_doing_it_again(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "stamp.json"
    path.write_bytes(content)
    with pytest.raises(RunFailed, match="damaged"):
        store.read_json(path)
    assert store.read_stamp(path) is None
    store.write_json(path, {"hash": "a"})
    assert store.read_stamp(path) == {"hash": "a"}
    assert [p.name for p in tmp_path.iterdir()] == ["stamp.json"]
