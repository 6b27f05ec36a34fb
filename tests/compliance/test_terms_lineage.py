"""Rows know their teachers through their parents, over steps and rounds."""

import json

import pytest

from stillhouse.compliance.lineage import (
    branch_ends,
    branch_steps,
    ends_by_teachers,
    rows_by_teachers,
    taint,
    teachers_of_rows,
)
from stillhouse.errors import RecipeError


def write(run, step, *rows):
    folder = run / "knowledge" / step
    folder.mkdir(parents=True)
    lines = [
        json.dumps({"id": id, "origin": {"parents": list(parents), "teacher": teacher, "keys": [], "step": step}})
        for id, parents, teacher in rows
    ]
    (folder / "out.jsonl").write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture
def run(tmp_path):
    """Two branches: in one, rows of `critic` are rewritten by `main`; a selector keeps the rows of the step before."""
    write(tmp_path, "mixed/00-seeds", ("s1", [], ""), ("s2", [], ""))
    write(tmp_path, "mixed/01-ask", ("a1", ["s1"], "critic"), ("a2", ["s2"], "main"))
    write(tmp_path, "mixed/02-rewrite", ("b1", ["a1"], "main"), ("b2", ["a2"], "main"))
    write(tmp_path, "mixed/10-keep", ("b1", ["a1"], "main"), ("b2", ["a2"], "main"))
    write(tmp_path, "plain/00-seeds", ("p1", [], ""))
    write(tmp_path, "plain/01-ask", ("q1", ["p1"], "main"))
    (tmp_path / "recipe.yaml").write_text(
        """
teachers: {critic: {backend: openai, model: gpt-5.1}, main: {backend: pocket}, judge: {backend: pocket}}
train: {objectives: [{do: supervised.cross_entropy, on: plain}]}
arms:
  plain: {}
  both: {train: [{objectives: [{do: a, on: plain}, {do: b, on: mixed}]}]}
  judged: {train: {objectives: [{do: feedback.rate, on: plain, teacher: judge}]}}
"""
    )
    for arm in ("plain", "both", "judged"):
        (tmp_path / "students" / arm / "seed-0").mkdir(parents=True)
    (tmp_path / "student").mkdir()
    return tmp_path


def test_steps_are_read_in_the_order_they_were_written(run):
    write(run, "rounds/round-2/01-ask", ("r2", [], "main"))
    write(run, "rounds/round-10/01-ask", ("r10", [], "main"))
    steps = branch_steps(run)
    assert [p.parent.name for p in steps["mixed"]] == ["00-seeds", "01-ask", "02-rewrite", "10-keep"]
    assert [p.parts[-3] for p in steps["rounds"]] == ["round-2", "round-10"]


def test_a_row_carries_every_teacher_behind_it(run):
    assert rows_by_teachers(run)["mixed"] == {frozenset({"critic", "main"}): 1, frozenset({"main"}): 1}
    assert rows_by_teachers(run)["plain"] == {frozenset({"main"}): 1}
    assert teachers_of_rows(run) == {"critic", "main"}


def test_rows_that_were_dropped_no_longer_count(run):
    kept = run / "knowledge/mixed/10-keep/out.jsonl"
    kept.write_text(kept.read_text().splitlines()[1] + "\n")
    assert teachers_of_rows(run) == {"main"}


def test_lineage_goes_through_earlier_rounds(tmp_path):
    write(tmp_path, "b/round-1/01-ask", ("x", [], "critic"))
    write(tmp_path, "b/round-2/01-ask", ("y", ["x"], "main"))
    assert teachers_of_rows(tmp_path) == {"critic", "main"}


def test_taint_lists_rows_data_sets_and_students(run):
    found = taint(run, "critic")
    assert found.rows == {"mixed/01-ask": ["a1"], "mixed/02-rewrite": ["b1"], "mixed/10-keep": ["b1"]}
    assert found.of["mixed/02-rewrite"] == 2
    assert found.datasets == ("mixed",)
    assert found.students == ("students/both/seed-0", "student")
    assert taint(run, "gpt-5.1").rows == found.rows
    assert found.names == ("critic", "gpt-5.1")
    assert found.as_dict()["steps"][0] == {"step": "mixed/01-ask", "rows": 1, "of": 2, "ids": ["a1"]}


def test_a_teacher_asked_during_training_touches_students_without_rows(run):
    found = taint(run, "judge")
    assert found.rows == {}
    assert found.students == ("students/judged/seed-0", "student")


def test_without_a_recipe_no_student_is_shown_to_be_untouched(run):
    (run / "recipe.yaml").unlink()
    assert len(taint(run, "critic").students) == 4


def test_mistakes(run, tmp_path):
    with pytest.raises(RecipeError, match=r"no teacher 'nobody'; known: critic, judge, main"):
        taint(run, "nobody")
    with pytest.raises(RecipeError, match="is no run folder"):
        taint(tmp_path / "nowhere", "main")
    (run / "knowledge/plain/01-ask/out.jsonl").write_text('{"id": "q1"}\n')
    with pytest.raises(RecipeError, match=r"out\.jsonl:1: a row without id and origin"):
        taint(run, "main")
    (run / "knowledge/plain/01-ask/out.jsonl").write_text("{\n")
    with pytest.raises(RecipeError, match="is not a row of JSON"):
        teachers_of_rows(run)


def test_every_round_the_student_learned_from_is_counted(tmp_path):
    for number, teacher in ((1, "critic"), (2, "main")):
        write(tmp_path, f"b/round-{number}/00-seeds", (f"s{number}", [], ""))
        write(tmp_path, f"b/round-{number}/01-ask", (f"x{number}", [f"s{number}"], teacher), ("same", [], "main"))
    told = {frozenset({"critic"}): 1, frozenset({"main"}): 2}  # the row of both rounds is one row
    assert rows_by_teachers(tmp_path)["b"] == told
    assert [sum(each.values()) for each in ends_by_teachers(tmp_path)["b"].values()] == [2, 2]


def test_a_pool_of_all_rounds_is_all_that_a_branch_ends_with(tmp_path):
    write(tmp_path, "b/round-1/01-ask", ("x", [], "critic"), ("dropped later", [], "main"))
    write(tmp_path, "b/round-2/01-ask", ("y", [], "main"))
    write(tmp_path, "b/round-2/02-union", ("x", [], "critic"), ("y", [], "main"))
    assert [file.parent.name for file in branch_ends(branch_steps(tmp_path)["b"])] == ["02-union"]
    assert sum(rows_by_teachers(tmp_path)["b"].values()) == 2


def test_counts_are_made_anew_where_a_file_was_written_again(run):
    assert sum(rows_by_teachers(run)["mixed"].values()) == 2
    kept = run / "knowledge/mixed/10-keep/out.jsonl"
    kept.write_text(kept.read_text().splitlines()[1] + "\n")
    assert sum(rows_by_teachers(run)["mixed"].values()) == 1
