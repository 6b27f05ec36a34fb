"""A fusion of two families from a recipe (R30, FuseLLM): the embedded teacher and a checkpoint of another tokenizer."""

from pathlib import Path
from typing import Any

import pytest
from small_runs import sums, write_jsonl

from stillhouse import distill
from stillhouse.check import check
from stillhouse.errors import RecipeError
from stillhouse.recipe import load_recipe


def two_families(data: Path, folder: Path, objective: str) -> dict[str, Any]:
    stories = str(data / "stories260K" / "hf")
    return {
        "name": "two-families",
        "use": {"purpose": "research", "distributes": []},
        "teachers": {
            "sums": {"backend": "pocket"},
            "stories": {"backend": "transformers", "model": stories, "terms": {"record": "mit"}},
        },
        "knowledge": {
            "known": {
                "seeds": {"do": "file", "path": str(write_jsonl(folder / "seeds.jsonl", sums(8)))},
                "elicit": [{"do": "labeling.reference"}],
            }
        },
        "student": {"model": "pocket"},
        "train": {
            "objectives": [
                {"do": "supervised.cross_entropy", "on": "known", "weight": 0.9},
                {"do": objective, "on": "known", "teacher": ["stories", "sums"], "weight": 0.1},
            ],
            "args": {"max_steps": 3, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "logging_steps": 1},
        },
    }


def test_two_teachers_of_different_tokenizers_are_fused(data: Path, tmp_path: Path) -> None:
    """R30 (FuseLLM, MinCE), through `distill`."""
    run = distill(two_families(data, tmp_path, "fusion.minimum_cross_entropy"), out=tmp_path / "run", quiet=True)
    phase = run.manifest["students"][0]["phases"][0]
    assert phase["final_loss"] > 0
    # digits are tokens of both, the pocket model's words are not: what was compared is said, of the foreign one only
    assert set(phase["coverage"]) == {"stories"}
    assert 0 < phase["coverage"]["stories"] <= 1


def test_check_refuses_the_mean_of_logits_over_two_tokenizers(data: Path, tmp_path: Path) -> None:
    recipe = two_families(data, tmp_path, "fusion.mean_of_logits")
    with pytest.raises(RecipeError, match=r"objectives\[1\]: teacher 'stories' and the student cut text"):
        check(load_recipe(recipe, folder=tmp_path))
