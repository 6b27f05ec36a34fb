"""A student that is cut or rounded is held against itself before it learned (R31, O2), and against the whole model."""

from pathlib import Path
from typing import Any

from small_runs import sums, write_jsonl

from stillhouse import distill


def test_what_distilling_recovers_is_told(tmp_path: Path) -> None:
    """Two arms: cut to two layers, and whole; the cut one has its own untaught start, which the report answers against."""
    rows = write_jsonl(tmp_path / "rows.jsonl", sums(8))
    train: dict[str, Any] = {
        "objectives": [{"do": "divergence.forward_kl", "on": "known", "teacher": "reference"}],
        "args": {"max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-3},
    }
    recipe = {
        "name": "cut",
        "use": {"purpose": "research", "distributes": []},
        "knowledge": {"known": {"seeds": {"do": "file", "path": str(rows)}, "elicit": [{"do": "labeling.reference"}]}},
        "student": {"model": "pocket"},
        "arms": {
            "cut": {"student": {"model": "pocket", "prune": {"on": "known", "layers": 2}}, "train": train},
            "rounded": {"student": {"model": "pocket", "quantise": {"bits": 3}}, "train": train},
            "whole": {"train": {**train, "objectives": [{"do": "supervised.cross_entropy", "on": "known"}]}},
        },
        "repeats": 2,
        "evaluate": [{"do": "language_model", "path": str(rows), "field": "prompt", "window": 32}],
    }
    run = distill(recipe, out=tmp_path / "run", quiet=True)
    means = {row["arm"]: row["mean"] for row in run.scores["summary"]}
    assert set(means) == {"base", "start:cut", "start:rounded", "cut", "rounded", "whole"}
    assert means["start:cut"] > means["base"]
    assert means["start:cut"] != means["cut"]
    pairs = {(row["arm"], row["against"]) for row in run.scores["comparisons"]}
    assert {("cut", "start:cut"), ("cut", "base"), ("rounded", "start:rounded")} <= pairs
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "start:cut" in page
    starts = [student.get("start") for student in run.manifest["students"]]
    assert starts[0] == starts[3]
    assert starts[2] is None
    assert (run.path / starts[0]["path"] / "config.json").is_file()
