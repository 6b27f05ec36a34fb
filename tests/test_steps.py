"""The knowledge of a run: what is done again and what is not, in which order, and that nothing is lost without a reason."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_runs import knowledge, sums, write_jsonl

from stillhouse import distill
from stillhouse.books import audit
from stillhouse.errors import GoalNotMet, RecipeError
from stillhouse.recipe import load_recipe
from stillhouse.run import Options, execute
from stillhouse.steps import file_hash
from stillhouse.store import read_jsonl

Recipe = dict[str, Any]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STILLHOUSE_STORE", str(tmp_path / "store"))
    write_jsonl(tmp_path / "seeds.jsonl", sums(10))
    return tmp_path


def attempts(here: Path) -> dict[str, int]:
    """How often each request was answered."""
    with sqlite3.connect(here / "store" / "store.sqlite") as db:
        return dict(db.execute("SELECT key, count(*) FROM attempt WHERE outcome = 'answered' GROUP BY key"))


def files(run: Path, name: str = "out.jsonl") -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in sorted((run / "knowledge").rglob(name))}


def lost(run: Path, step: str) -> list[dict[str, Any]]:
    return [row for _, row in read_jsonl(run / "knowledge" / "answers" / step / "lost.jsonl")]


def test_steps_in_order_with_lineage_from_answer_to_seed(here: Path) -> None:
    run = distill(knowledge(), out="run", quiet=True)
    steps = [f"{s['branch']}/{s['step']}" for s in run.manifest["steps"]]
    assert steps == ["answers/00-file", "answers/01-labeling.answer", "answers/02-quality.correct"]
    kept = list(run.records("answers"))
    assert [record.response for record in kept] == [f"The answer is {3 * n + 1}." for n in range(10)]
    seeds = {row["id"] for _, row in read_jsonl(here / "run/knowledge/answers/00-file/out.jsonl")}
    assert all(record.origin.parents[0] in seeds and record.origin.keys[0] in attempts(here) for record in kept)
    # a selector keeps rows as they are, and stamps them
    assert {record.origin.step for record in kept} == {"02-quality.correct"}


def test_a_second_run_does_nothing_and_changes_nothing(here: Path) -> None:
    run = distill(knowledge(), out="run", quiet=True)
    before, stamps = files(run.path), files(run.path, "stamp.json")
    times = {p: p.stat().st_mtime_ns for p in run.path.rglob("out.jsonl")}
    distill(knowledge(), out="run", quiet=True)
    assert files(run.path) == before
    assert files(run.path, "stamp.json") == stamps
    assert {p: p.stat().st_mtime_ns for p in run.path.rglob("out.jsonl")} == times
    assert set(attempts(here).values()) == {1}
    assert audit(run.path)["balanced"]


def test_one_edited_seed_costs_one_request(here: Path) -> None:
    distill(knowledge(), out="run", quiet=True)
    rows = sums(10)
    rows[4]["prompt"] = "What is 4 plus 9, please?"
    write_jsonl(here / "seeds.jsonl", rows)
    run = distill(knowledge(), out="run", quiet=True)
    assert len(attempts(here)) == 11
    assert set(attempts(here).values()) == {1}
    assert run.manifest["calls"]["main"]["hits"] == 9
    assert audit(run.path)["balanced"]


@pytest.mark.parametrize(
    ("change", "redone"),
    [
        (lambda r: r["knowledge"]["answers"]["select"][0].update(grader={"do": "text.contains"}), 1),
        (lambda r: r["knowledge"]["answers"]["elicit"][0].update(instruction="Briefly."), 2),
        (lambda r: r["teachers"]["main"].update(reply="So the answer is {reference}."), 2),
        (lambda r: r["teachers"]["main"].update(sampling={"temperature": 0.5}), 2),
        (lambda r: r["knowledge"]["answers"]["seeds"].update(limit=9), 3),
        (lambda r: r.update(name="other", budget="1usd", final="main"), 0),
    ],
)
def test_what_changed_is_redone_and_what_follows_from_it(
    here: Path, change: Callable[[Recipe], object], redone: int
) -> None:
    run = distill(knowledge(), out="run", quiet=True)
    before = [step["hash"] for step in run.manifest["steps"]]
    recipe = knowledge()
    change(recipe)
    after = [step["hash"] for step in distill(recipe, out="run", quiet=True).manifest["steps"]]
    assert [old == new for old, new in zip(before, after)] == [True] * (3 - redone) + [False] * redone


def test_your_own_code_is_part_of_the_stamp_and_kept_beside_the_run(here: Path) -> None:
    own = here / "own.py"
    own.write_text("def some(records, *, word='a'):\n    '''Some.'''\n    for r in records:\n        yield r, None\n")
    recipe = knowledge()
    recipe["knowledge"]["answers"]["select"] = [{"do": "own.py:some"}]
    first = distill(recipe, out="run", quiet=True)
    assert len(first.records("answers")) == 10
    assert (first.path / "code" / "own.py").read_text() == own.read_text()
    own.write_text(own.read_text().replace("yield r, None", "yield r, ('odd' if len(r.response) % 2 else None)"))
    second = distill(recipe, out="run", quiet=True)
    odd = sum(len(f"The answer is {3 * n + 1}.") % 2 for n in range(10))
    assert 0 < odd < 10
    assert len(second.records("answers")) == 10 - odd
    assert [row["reason"] for row in lost(second.path, "02-own.some")] == ["odd"] * odd


def test_a_step_the_recipe_no_longer_has_is_cleared_away(here: Path) -> None:
    run = distill(knowledge(), out="run", quiet=True)
    recipe = knowledge()
    recipe["knowledge"]["answers"]["select"] = []
    recipe["knowledge"]["more"] = recipe["knowledge"].pop("answers")
    distill(recipe, out="run", quiet=True)
    assert list(files(run.path)) == ["knowledge/more/00-file/out.jsonl", "knowledge/more/01-labeling.answer/out.jsonl"]
    assert audit(run.path)["balanced"]


def test_every_failure_has_its_reason_and_its_state(here: Path) -> None:
    """Cut off, refused and empty answers are never parsed; the rows they cost are named."""
    recipe = knowledge(fail={"truncated": 4, "refused": 5})
    run = distill(recipe, out="run", quiet=True)
    rows = lost(run.path, "01-labeling.answer")
    # the scripted teacher counts from one: requests 4 and 8 are cut off, 5 and 10 refused
    assert sorted(row["reason"] for row in rows) == ["refused", "refused", "truncated", "truncated"]
    assert {row["state"] for row in rows} == {"quarantined"}
    assert len(run.records("answers")) == 6
    assert audit(run.path)["balanced"]
    # what failed for good is remembered as that failure, not asked again
    before = run.manifest["calls"]["main"]["attempts"]
    again = distill(recipe, out="other", quiet=True)
    assert before == 10
    assert again.manifest["calls"]["main"]["attempts"] == 0
    assert files(again.path) == files(run.path)


def test_several_samples_are_several_slots(here: Path) -> None:
    recipe = knowledge(
        responses={"is 0 plus": ["The answer is 1.", "The answer is 7.", "The answer is 1."]}, sampling={"n": 3}
    )
    run = distill(recipe, out="run", quiet=True)
    step = run.manifest["steps"][1]
    assert (step["in"], step["out"], step["samples"]) == (10, 30, 3)
    assert sum(run.manifest["steps"][2]["lost"].values()) == 1
    assert audit(run.path)["balanced"]


@pytest.mark.parametrize("route", ["all", "round_robin", "who"])
def test_routes(here: Path, route: str) -> None:
    write_jsonl(here / "seeds.jsonl", [{**row, "who": "b" if n < 3 else "a"} for n, row in enumerate(sums(10))])
    recipe = knowledge()
    recipe["teachers"] = {name: {"backend": "scripted", "reply": f"{name}: {{reference}}"} for name in ("a", "b")}
    recipe["knowledge"]["answers"] |= {
        "seeds": {"do": "file", "path": "seeds.jsonl", "columns": ["who"]},
        "elicit": [{"do": "labeling.answer", "teacher": ["a", "b"], "route": route}],
        "select": [],
    }
    run = distill(recipe, out="run", quiet=True)
    told = [record.origin.teacher for record in run.records("answers")]
    assert {name: told.count(name) for name in "ab"} == {
        "all": {"a": 10, "b": 10},
        "round_robin": {"a": 5, "b": 5},
        "who": {"a": 7, "b": 3},
    }[route]
    assert audit(run.path)["balanced"]


def test_the_best_of_several_teachers_is_kept(here: Path) -> None:
    """R36: with `route: all` the answers to one prompt are brought together before they are compared."""
    recipe = knowledge()
    recipe["teachers"] = {
        "a": {"backend": "scripted", "responses": {"is [0-4] plus": "The answer is {reference}.", ".": "No idea."}},
        "b": {"backend": "scripted", "responses": {"is [5-9] plus": "The answer is {reference}.", ".": "No idea."}},
    }
    recipe["knowledge"]["answers"] |= {
        "elicit": [
            {"do": "labeling.answer", "teacher": ["a", "b"], "route": "all"},
            {"do": "feedback.gathered"},
            {"do": "feedback.graded", "grader": {"do": "math.equal"}},
        ],
        "select": [{"do": "quality.best"}],
    }
    run = distill(recipe, out="run", quiet=True)
    rows = list(run.records("answers"))
    assert [row.origin.teacher for row in rows] == ["a"] * 5 + ["b"] * 5
    assert all(row.columns["score"] == 1.0 for row in rows)
    recipe["knowledge"]["answers"]["elicit"][2:] = []
    recipe["knowledge"]["answers"]["select"] = [{"do": "quality.vote"}]
    voted = distill(recipe, out="voted", quiet=True)
    assert [row.response for row in voted.records("answers")] == [f"The answer is {3 * n + 1}." for n in range(10)]
    assert audit(voted.path)["balanced"]


def test_a_route_to_nobody_is_said(here: Path) -> None:
    recipe = knowledge()
    recipe["teachers"]["b"] = {"backend": "scripted"}
    recipe["knowledge"]["answers"]["elicit"] = [{"do": "labeling.answer", "teacher": ["main", "b"], "route": "who"}]
    with pytest.raises(
        RecipeError, match=r"elicit\.route: row .* has who = None, which is none of the teachers main, b"
    ):
        distill(recipe, out="run", quiet=True)


def test_keep_asks_for_more_until_enough_are_kept(here: Path) -> None:
    write_jsonl(here / "seeds.jsonl", sums(40))
    recipe = knowledge(fail={"refused": 2})
    recipe["knowledge"]["answers"]["keep"] = 12
    run = distill(recipe, out="run", quiet=True)
    assert len(run.records("answers")) == 12
    assert 24 <= run.manifest["steps"][0]["out"] < 40  # half are refused, and not all seeds were needed
    assert audit(run.path)["balanced"]
    assert set(attempts(here).values()) == {1}


def test_too_few_rows_are_a_goal_not_met_with_everything_kept(here: Path) -> None:
    recipe = knowledge(fail={"refused": 2})
    recipe["knowledge"]["answers"]["keep"] = 9
    with pytest.raises(
        GoalNotMet, match=r"5 of 9 rows were kept and all 10 seeds are used; 01-labeling\.answer lost 5 refused"
    ):
        distill(recipe, out="run", quiet=True)
    assert len(files(here / "run")["knowledge/answers/02-quality.correct/out.jsonl"].splitlines()) == 5


def test_a_stated_bound_ends_the_topping_up(here: Path) -> None:
    """Exactly N: by the share kept so far, at most four times as many seeds as before, and never more than `attempts`."""
    write_jsonl(here / "seeds.jsonl", sums(400))
    recipe = knowledge(fail={"refused": 1})
    recipe["knowledge"]["answers"] |= {"keep": 10, "attempts": 100}
    with pytest.raises(
        GoalNotMet, match=r"0 of 10 rows were kept and all 100 seeds are used, as many as `attempts` allows"
    ):
        distill(recipe, out="run", quiet=True)
    recipe["knowledge"]["answers"].pop("keep")
    with pytest.raises(RecipeError, match="attempts: it bounds `keep`"):
        distill(recipe, out="run", quiet=True)


def test_nothing_left_names_what_was_lost(here: Path) -> None:
    recipe = knowledge(reply="The answer is 0.")
    with pytest.raises(
        GoalNotMet, match=r"no row is left after 02-quality\.correct; 02-quality\.correct lost 10 wrong"
    ):
        distill(recipe, out="run", quiet=True)
    manifest = json.loads((here / "run" / "manifest.json").read_text())
    assert manifest["state"] == "failed"
    assert "no row is left" in manifest["stopped_by"]


def test_limit_is_a_trial_on_the_first_rows(here: Path) -> None:
    run = execute(load_recipe(knowledge()), here / "run", Options(limit=3, quiet=True))
    assert len(run.records("answers")) == 3
    whole = distill(knowledge(), out="run", quiet=True)
    assert len(whole.records("answers")) == 10
    assert set(attempts(here).values()) == {1}  # the three were not asked again


def test_branches_that_arms_share_are_made_once(here: Path) -> None:
    recipe = knowledge()
    changed = {
        "knowledge": {"answers": {"elicit": [{"do": "labeling.answer", "teacher": "main", "instruction": "Briefly."}]}}
    }
    recipe["arms"] = {"a": {}, "b": {"repeats": 1}, "c": changed}
    run = distill(recipe, out="run", quiet=True)
    assert {step["branch"] for step in run.manifest["steps"]} == {"answers", "answers@c"}
    assert audit(run.path)["balanced"]


def test_damaged_stamps_and_rows_are_made_again(here: Path) -> None:
    run = distill(knowledge(), out="run", quiet=True)
    whole = files(run.path)
    step = run.path / "knowledge" / "answers" / "01-labeling.answer"
    for damage in (b"", b"{", b"[]", b"\xff\x00"):
        (step / "stamp.json").write_bytes(damage)
        distill(knowledge(), out="run", quiet=True)
        assert files(run.path) == whole
    (step / "out.jsonl").unlink()
    distill(knowledge(), out="run", quiet=True)
    assert files(run.path) == whole
    assert set(attempts(here).values()) == {1}


def test_compiling_code_changes_no_hash(tmp_path: Path) -> None:
    """Python writes beside the code what it compiled; a run that started on a fresh installation is not made again for it."""
    import py_compile

    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "code.py").write_text("x = 1\n")
    before = file_hash(tmp_path)
    py_compile.compile(str(tmp_path / "inner" / "code.py"))
    assert (tmp_path / "inner" / "__pycache__").is_dir()
    assert file_hash(tmp_path) == before
    (tmp_path / "inner" / "code.py").write_text("x = 2\n")
    assert file_hash(tmp_path) != before


def test_an_edited_file_that_a_step_looks_things_up_in_is_another_step(here: Path) -> None:
    """Passages of a retrieval, questions to keep apart: their content is part of the stamp, nested functions' files too."""
    recipe = knowledge()
    recipe["knowledge"]["answers"]["elicit"].insert(
        0, {"do": "retrieval.passages", "path": "passages.jsonl", "count": 1}
    )
    write_jsonl(here / "passages.jsonl", [{"text": "What is plus?"}])
    distill(recipe, out="run", quiet=True)
    write_jsonl(here / "passages.jsonl", [{"text": "What plus means."}])
    run = distill(recipe, out="run", quiet=True)
    assert all("Passage 1: What plus means." in record.prompt[0].content for record in run.records("answers"))
