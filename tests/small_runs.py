"""Small recipes and files that the tests of the spine share."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def sums(count: int, start: int = 0) -> list[dict[str, str]]:
    """Additions, each different from every other."""
    return [
        {"prompt": f"What is {n} plus {2 * n + 1}?", "reference": str(3 * n + 1)} for n in range(start, start + count)
    ]


def knowledge(seeds: str = "seeds.jsonl", **teacher: Any) -> dict[str, Any]:
    """A recipe that ends with its knowledge: scripted answers, kept when right."""
    return {
        "name": "small",
        "use": {"purpose": "research", "distributes": []},
        "teachers": {"main": {"backend": "scripted", "reply": "The answer is {reference}.", **teacher}},
        "knowledge": {
            "answers": {
                "seeds": {"do": "file", "path": seeds},
                "elicit": [{"do": "labeling.answer", "teacher": "main"}],
                "select": [{"do": "quality.correct", "grader": {"do": "math.equal"}}],
            }
        },
    }


def trial_recipe() -> dict[str, Any]:
    """Two arms, two repeats, beliefs and text, a teacher to reach: everything of the spine, in seconds."""
    recipe = knowledge(reply="It is {reference}. The answer is {reference}.")
    recipe["name"] = "trial"
    recipe["teachers"]["pocket"] = {"backend": "pocket", "sampling": {"max_tokens": 16}}
    recipe["knowledge"]["beliefs"] = {
        "seeds": {"do": "file", "path": "seeds.jsonl"},
        "elicit": [
            {"do": "labeling.answer", "teacher": "main"},
            {"do": "feature.top_logprobs", "teacher": "pocket", "k": 8},
        ],
    }
    args = {"max_steps": 4, "per_device_train_batch_size": 8, "learning_rate": 1e-3}
    recipe["student"] = {"model": "pocket"}
    recipe["arms"] = {
        "text": {"train": {"objectives": [{"do": "supervised.cross_entropy", "on": "answers"}], "args": args}},
        "beliefs": {"train": {"objectives": [{"do": "divergence.forward_kl", "on": "beliefs"}], "args": args}},
    }
    recipe["repeats"] = 2
    recipe["evaluate"] = [
        {
            "do": "qa",
            "path": "held.jsonl",
            "grader": {"do": "math.equal"},
            "max_new_tokens": 8,
            "teacher": "pocket",
        }
    ]
    return recipe


Workspace = Callable[..., Path]
