"""A whole run whose student unlearns what its base could do: the gate says so, and fails the run where it should."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from train_helpers import make_model, make_tokenizer

import stillhouse
from stillhouse.errors import RunFailed
from stillhouse.objectives.supervised import cross_entropy
from stillhouse.records import Example, content_id, user
from stillhouse.report import write_report
from stillhouse.train.student import Student, save_student
from stillhouse.train.trainer import Term, train

QUESTIONS = [f"{a}+{b}" for a in (1, 2) for b in range(1, 6)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny student that knows ten sums."""
    folder, tokenizer = tmp_path_factory.mktemp("base"), make_tokenizer()
    student = Student(make_model(tokenizer), tokenizer)
    rows = [Example(content_id(q), user(q), str(sum(map(int, q.split("+"))))) for q in QUESTIONS]
    arguments = {"max_steps": 120, "learning_rate": 0.02, "per_device_train_batch_size": 10}
    term = Term("ce", cross_entropy, "rows")
    train(student, [term], {"rows": rows}, teachers={}, arguments=arguments, out=folder / "out", seed=0)
    return save_student(student, folder / "student")


def written(folder: Path, base: Path, entry: dict[str, Any]) -> Path:
    wrong = [{"q": q, "a": "9", "right": str(sum(map(int, q.split("+"))))} for q in QUESTIONS]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in wrong))
    recipe = {
        "name": "unlearned", "use": {"purpose": "research", "distributes": []},
        "knowledge": {"wrong": {"seeds": {"do": "file", "path": "rows.jsonl", "prompt": "q", "reference": "a"},
                                "elicit": [{"do": "labeling.reference"}]}},
        "student": {"model": str(base), "terms": {"record": "apache-2.0"}},
        "train": {"objectives": [{"do": "supervised.cross_entropy", "on": "wrong"}],
                  "args": {"max_steps": 30, "learning_rate": 0.02, "per_device_train_batch_size": 10}},
        "evaluate": [{"do": "qa", "path": "rows.jsonl", "prompt": "q", "reference": "right", "max_new_tokens": 3,
                      "grader": {"do": "math.equal"}, **entry}],
    }  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_a_run_that_loses_a_skill_fails(base: Path, tmp_path: Path) -> None:
    """What was made stays and is reported; allowed to lose more, the same run goes on to its end and trains nothing again."""
    out = tmp_path / "run"
    with pytest.raises(RunFailed, match=r"arm main lost .* on qa against the base student") as failed:
        stillhouse.distill(written(tmp_path, base, {"may_lose": 0.1, "on_loss": "fail"}), out=out, quiet=True)
    assert "may_lose" in str(failed.value)
    scores = json.loads((out / "evaluate" / "scores.json").read_text())
    means = {row["arm"]: row["mean"] for row in scores["summary"]}
    assert means["base"] >= 0.9
    assert means["main"] <= 0.2
    assert [gate["state"] for gate in scores["gates"]] == ["lost"]
    assert json.loads((out / "manifest.json").read_text())["state"] == "failed"
    page = write_report(out).read_text()
    assert 'data-gate="lost"' in page
    assert "This run is not finished (failed)" in page
    seconds = (out / "students" / "main" / "0" / "stamp.json").read_text()
    again = stillhouse.distill(written(tmp_path, base, {"may_lose": 0.1, "on_loss": "report"}), out=out, quiet=True)
    assert json.loads((out / "manifest.json").read_text())["state"] == "done"
    assert (out / "students" / "main" / "0" / "stamp.json").read_text() == seconds
    assert "lost more than allowed" in (again.path / "student" / "README.md").read_text()
