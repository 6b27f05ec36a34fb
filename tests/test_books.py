"""The audit finds what was tampered with, and a row's trail leads back to its seed."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillhouse.books import audit, why
from stillhouse.catalogue import cost_lines, trail_lines
from stillhouse.costs import cost_of
from stillhouse.errors import RecipeError
from stillhouse.store import read_json, read_jsonl


@pytest.fixture
def copy(trial: Any, tmp_path: Path) -> Path:
    shutil.copytree(trial.path, tmp_path / "run", ignore=shutil.ignore_patterns("students", "student"))
    return tmp_path / "run"


def lines(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    path.write_text("".join(change(path.read_text(encoding="utf-8").splitlines(keepends=True))), encoding="utf-8")


def stamp(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_an_honest_run_balances(trial: Any) -> None:
    found = audit(trial.path)
    assert found["problems"] == []
    assert found["balanced"]
    rows = {row["step"]: (row["in"], row["kept"]) for row in found["steps"]}
    assert rows["answers/00-file"] == rows["answers/02-quality.correct"] == rows["beliefs/02-feature.top_logprobs"]
    assert rows["answers/00-file"] == (24, 24)


ELICIT, SELECT = "answers/01-labeling.answer", "answers/02-quality.correct"
TAMPERED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a row removed": (
        lambda run: lines(run / ELICIT / "out.jsonl", lambda rows: rows[:3] + rows[4:]),
        "1 rows went in and neither came out nor were lost",
    ),
    "the last row removed": (
        lambda run: lines(run / SELECT / "out.jsonl", lambda rows: rows[:-1]),
        f"{SELECT}: the files hold 23 kept and {{}} lost, the stamp says 24 and {{}}",
    ),
    "a row written twice": (
        lambda run: lines(run / SELECT / "out.jsonl", lambda rows: [*rows, rows[0]]),
        f"{SELECT}: 1 rows share an id with another row",
    ),
    "a row kept and lost": (
        lambda run: lines(
            run / SELECT / "lost.jsonl",
            lambda _: [json.dumps({"parent": first_id(run), "reason": "x", "state": "dropped", "slot": 0}) + "\n"],
        ),
        "1 rows are both kept and lost, or twice there",
    ),
    "a row from nowhere": (
        lambda run: lines(
            run / SELECT / "out.jsonl", lambda rows: [rows[0].replace(first_id(run), "f" * 16), *rows[1:]]
        ),
        f"{SELECT}: 1 rows came from nowhere, for example {'f' * 16}",
    ),
    "another parent": (
        lambda run: lines(
            run / ELICIT / "out.jsonl", lambda rows: [rows[0].replace(seed_id(run), "e" * 16), *rows[1:]]
        ),
        f"{ELICIT}: 1 rows came from nowhere",
    ),
    "an edited stamp": (
        lambda run: stamp(run / ELICIT / "stamp.json", out=23),
        f"{ELICIT}: the files hold 24 kept and {{}} lost, the stamp says 23",
    ),
    "a reason made up": (
        lambda run: stamp(run / SELECT / "stamp.json", lost={"too_long": 1}),
        "the stamp says 24 and {'too_long': 1}",
    ),
    "no stamp": (lambda run: (run / SELECT / "stamp.json").unlink(), f"{SELECT}: not finished (no stamp)"),
    "an edited manifest": (
        lambda run: stamp(
            run.parent / "manifest.json",
            steps=[
                s | {"out": 7} if s["step"].startswith("02-q") else s
                for s in json.loads((run.parent / "manifest.json").read_text())["steps"]
            ],
        ),
        f"manifest.json and the folders disagree about {SELECT}",
    ),
    "a branch too many": (
        lambda run: shutil.copytree(run / "answers", run / "spare"),
        "manifest.json and the folders disagree about spare/",
    ),
    "a run that stopped": (
        lambda run: stamp(run.parent / "manifest.json", state="failed"),
        "the run is not done (state: failed)",
    ),
}


def first_id(run: Path) -> str:
    return next(row["id"] for _, row in read_jsonl(run / ELICIT / "out.jsonl"))


def seed_id(run: Path) -> str:
    return next(row["id"] for _, row in read_jsonl(run / "answers/00-file/out.jsonl"))


@pytest.mark.parametrize("what", TAMPERED)
def test_the_audit_finds(what: str, copy: Path) -> None:
    change, said = TAMPERED[what]
    change(copy / "knowledge")
    found = audit(copy)
    assert not found["balanced"]
    assert any(said in problem for problem in found["problems"]), found["problems"]


def test_why_leads_from_a_belief_to_its_seed(trial: Any) -> None:
    last = trial.records("beliefs")[5]
    trail = why(trial.path, last.id)
    assert [entry["step"] for entry in trail] == [
        "beliefs/00-file", "beliefs/01-labeling.answer", "beliefs/02-feature.top_logprobs",
    ]  # fmt: skip
    assert trail[0]["prompt"][0]["content"] == "What is 5 plus 11?"
    assert trail[1]["keys"]
    assert (trail[1]["teacher"], trail[2]["teacher"]) == ("main", "pocket")
    assert why(trial.path, last.id[:12]) == trail


def test_why_says_where_a_row_was_lost(copy: Path) -> None:
    lost = copy / "knowledge" / SELECT / "lost.jsonl"
    row = {
        "parent": first_id(copy / "knowledge"),
        "reason": "wrong",
        "state": "dropped",
        "slot": 0,
        "detail": "",
        "keys": [],
    }
    lost.write_text(json.dumps(row) + "\n")
    lines(copy / "knowledge" / SELECT / "out.jsonl", lambda rows: rows[1:])
    trail = why(copy, row["parent"])
    assert [(entry["step"], entry["state"]) for entry in trail if entry["step"].startswith("answers")][-1] == (
        SELECT,
        "dropped",
    )


def test_why_asks_for_more_of_an_id_that_begins_several(trial: Any) -> None:
    with pytest.raises(RecipeError, match="no row 'zz'"):
        why(trial.path, "zz")
    with pytest.raises(RecipeError, match=r"begins \d+ ids"):
        why(trial.path, "")


@pytest.fixture
def with_store(trial: Any, copy: Path, tmp_path: Path) -> tuple[Path, sqlite3.Connection]:
    """A copy of the run with a copy of its store, to be damaged."""
    manifest = json.loads((copy / "manifest.json").read_text())
    (tmp_path / "store").mkdir()
    source = sqlite3.connect(Path(manifest["store"]) / "store.sqlite")
    target = sqlite3.connect(tmp_path / "store" / "store.sqlite", isolation_level=None)
    source.backup(target)
    source.close()
    stamp(copy / "manifest.json", store=str(tmp_path / "store"))
    return copy, target


# what is done to the store of a run -> how the audit says it
BROKEN: dict[str, tuple[str, str]] = {
    "an attempt gone": ("DELETE FROM attempt WHERE id = (SELECT max(id) FROM attempt WHERE run = :run)", "the ledger says"),
    "a price changed afterwards": (
        "UPDATE attempt SET settled_usd = 1 WHERE id = (SELECT min(id) FROM attempt WHERE run = :run)",
        "dollars, the attempts 1.0",
    ),
    "a forgotten bill": ("UPDATE spend SET attempts = attempts + 1 WHERE run = :run", "attempts, the attempts"),
    "an answer gone": (
        "DELETE FROM answer WHERE key = (SELECT min(key) FROM attempt WHERE run = :run)",
        "answered attempts gave no answer",
    ),
    "an answer that was cut off": ("UPDATE answer SET finish_reason = 'length'", "answers were cut off or refused"),
    "a request gone": (
        "DELETE FROM request WHERE key = (SELECT min(key) FROM attempt WHERE run = :run)",
        "attempts belong to no request",
    ),
    "an attempt still out": (
        "INSERT INTO attempt(key, run, teacher, transport, started, outcome) SELECT key, run, teacher, 'online', 0, "
        "'in_flight' FROM attempt WHERE run = :run LIMIT 1",
        "attempts are in flight",
    ),
    "a verdict gone": ("DELETE FROM verdict WHERE number = 3 AND run = :run", "rows stand only in the files"),
    "a verdict too many": (
        "INSERT INTO verdict SELECT run, stage, number + 1000, row, keys, parser, parser_version, status, reason "
        "FROM verdict WHERE number = 0 AND run = :run",
        "rows stand only in the store",
    ),
    "another verdict": (
        "UPDATE verdict SET status = 'dropped', reason = 'wrong' WHERE number = 0 AND run = :run",
        "dropped (wrong)",
    ),
}  # fmt: skip


def test_a_run_with_its_store_balances(with_store: tuple[Path, sqlite3.Connection]) -> None:
    assert audit(with_store[0])["problems"] == []


@pytest.mark.parametrize("what", BROKEN)
def test_the_audit_holds_the_run_against_its_store(what: str, with_store: tuple[Path, sqlite3.Connection]) -> None:
    run, store = with_store
    change, said = BROKEN[what]
    # the store may hold other runs beside this one
    assert store.execute(change, {"run": read_json(run / "manifest.json")["run_id"]}).rowcount > 0
    store.close()
    found = audit(run)
    assert any(said in problem for problem in found["problems"]), found["problems"]
    assert not found["balanced"]


def test_a_row_taken_out_of_every_file_is_missed_by_the_store(with_store: tuple[Path, sqlite3.Connection]) -> None:
    """File, stamp and manifest changed alike: only the second book knows."""
    run, _ = with_store
    home = run / "knowledge" / "beliefs/01-labeling.answer"
    gone = json.loads((home / "out.jsonl").read_text().splitlines()[-1])["id"]
    for folder in home.parent.iterdir():
        path, earlier = folder / "out.jsonl", folder.name < home.name
        path.write_text("".join(row for row in path.open() if earlier or gone not in row))
        kept = len(path.read_text().splitlines())
        stamp(folder / "stamp.json", out=kept)
    lines(home.parent / "00-file" / "out.jsonl", lambda rows: rows[:-1])
    stamp(home.parent / "00-file" / "stamp.json", out=23)
    problems = audit(run)["problems"]
    assert any("01-labeling.answer: 1 rows stand only in the store" in problem for problem in problems), problems


def test_a_store_that_was_damaged_once_is_told_of(with_store: tuple[Path, sqlite3.Connection]) -> None:
    run, store = with_store
    store.execute("INSERT INTO meta VALUES ('recovered', 'the store was damaged: kept 7 answers')")
    store.close()
    assert audit(run)["notes"] == ["the store was damaged: kept 7 answers"]


def test_a_run_without_its_store_cannot_be_audited(copy: Path, tmp_path: Path) -> None:
    stamp(copy / "manifest.json", store=str(tmp_path / "nowhere"))
    assert any("is not here" in problem for problem in audit(copy)["problems"])
    assert not (tmp_path / "nowhere").exists()


def test_why_tells_each_attempt(trial: Any) -> None:
    entry = why(trial.path, trial.records("beliefs")[5].id)[1]
    (request,) = entry["requests"]
    assert request["key"] == entry["keys"][0]
    assert [attempt["outcome"] for attempt in request["attempts"]] == ["answered"]
    told = "\n".join(trail_lines([entry]))
    assert f"request {request['key']}" in told and "online, answered" in told


def test_costs_are_sums_over_the_same_attempts(trial: Any) -> None:
    found = cost_of(trial.path)
    views = [found["teachers"], found["stages"], found["outcomes"]]
    attempts = [sum(sum(each["attempts"].values()) for each in view.values()) for view in views]
    assert attempts[0] == attempts[1] == attempts[2] > 0
    assert "answers/01-labeling.answer" in found["stages"]
    assert "total 0.0000 usd" in "\n".join(cost_lines(found))
