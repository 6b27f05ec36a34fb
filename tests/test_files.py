"""Several threads and processes that write one file at the same time, each through a name of its own."""

import json
import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from stillhouse.files import replacing, write_durably
from stillhouse.reporting.markdown import write as write_markdown
from stillhouse.signals.contract import Contract
from stillhouse.store import write_json

CONTRACT = Contract("Sampled", {"draws": 3}, {"model": "here"}, "tokens")
WRITERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "json": (lambda home: write_json(home / "one.json", {"x": "y" * 5_000}), "one.json"),
    "durably": (lambda home: write_durably(home / "one.bin", b"z" * 5_000), "one.bin"),
    "markdown": (lambda home: write_markdown(home / "one.md", "w" * 5_000), "one.md"),
    "contract": (lambda home: CONTRACT.write(home), "contract.json"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_writers_at_once_never_take_each_others_file_away(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All have written before the first one moves its file into place: the order of events that a shared name dies of."""
    write, file = WRITERS[name]
    written, move = threading.Barrier(4, timeout=60), Path.replace

    def together(self: Path, target: Path) -> Path:
        written.wait()
        return move(self, target)

    monkeypatch.setattr(Path, "replace", together)
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(write, tmp_path) for _ in range(4)]:
            done.result()
    assert [path.name for path in tmp_path.iterdir()] == [file]
    assert len((tmp_path / file).read_bytes()) > 100


def test_what_breaks_off_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as part:
        part.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def _again(path: Path, number: int) -> None:
    for _ in range(50):
        write_json(path, {"by": number, "rest": "x" * 3_000})


def test_a_reader_sees_a_whole_file_whoever_wrote_it(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    write_json(path, {"by": -1, "rest": "x" * 3_000})
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_again, args=(path, number)) for number in range(3)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert len(json.loads(path.read_text())["rest"]) == 3_000
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert list(tmp_path.iterdir()) == [path]
