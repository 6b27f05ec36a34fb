"""Two teachers, one of stories and one of plays: does a student of both know what the students of either know (R25, R30)?"""

import json
from pathlib import Path
from typing import Any

from benchmarks.learning.parts import (
    OWN,
    Expectation,
    Experiment,
    args,
    branch,
    llama,
    phase,
    pieces,
    reads,
    recipe,
    stories,
    teacher,
    trained,
)  # fmt: skip


def experiment(data: Path, folder: Path, seeds: range, scale: float) -> Experiment:
    learned, held_out = stories(data, folder)
    tokenizer = data / "stories260K" / "hf"
    book = data / "text" / "tiny_shakespeare.txt"
    read = {"first": learned, "second": pieces(book, folder / "plays.json", 800, 0, 800)}
    other_plays = pieces(book, folder / "other_plays.json", 800, 700_000, 120)
    both = folder / "both.json"
    both.write_text(json.dumps([text for path in read.values() for text in json.loads(path.read_text())[:400]]))
    nobody = llama(folder / "nobody", tokenizer, seed=999, width=96, layers=3)
    steps = args(int(300 * scale))

    def taught(name: str) -> Path:
        told = recipe(
            f"teacher-{name}",
            11 if name == "first" else 12,
            teachers={},
            knowledge={"stories": branch(read[name])},
            student={
                "model": str(llama(folder / f"random-{name}", tokenizer, seed=77, width=96, layers=3)),
                "terms": OWN,
            },
            **phase([{"do": "supervised.cross_entropy", "on": "stories"}], args(int(600 * scale), rate=2e-3)),
        )
        return trained(folder / f"teacher-{name}", told)

    def one(do: str, by: Any) -> dict[str, Any]:
        return phase([{"do": do, "on": "texts", "teacher": by}], steps)

    def made(seed: int) -> dict[str, Any]:
        return recipe(
            "two-teachers",
            seed,
            teachers={
                "first": teacher(taught("first")),
                "second": teacher(taught("second")),
                "nobody": teacher(nobody),
            },
            knowledge={"texts": branch(both)},
            student={"model": str(llama(folder / f"student-{seed}", tokenizer, seed=seed)), "terms": OWN},
            arms={
                "text": phase([{"do": "supervised.cross_entropy", "on": "texts"}], steps),
                "first": one("divergence.forward_kl", "first"),
                "second": one("divergence.forward_kl", "second"),
                "mean_of_probabilities": one("fusion.mean_of_probabilities", ["first", "second"]),
                "minimum_cross_entropy": one("fusion.minimum_cross_entropy", ["first", "second"]),
                "with_random_teacher": one("fusion.mean_of_probabilities", ["first", "nobody"]),
            },
            evaluate=[reads(held_out, None, "stories"), reads(other_plays, None, "plays")],
        )

    fused = ("mean_of_probabilities", "minimum_cross_entropy")
    return Experiment(
        "Does a student of a teacher of stories and one of plays know both, where a student of either knows one?",
        {seed: made(seed) for seed in seeds},
        [
            *(Expectation(arm, "second", "nll", task="stories") for arm in fused),
            *(Expectation(arm, "first", "nll", task="plays") for arm in fused),
            *(Expectation(fused[1], fused[0], "nll", task=task) for task in ("stories", "plays")),
            *(Expectation(arm, "text", "nll", task=task) for arm in fused for task in ("stories", "plays")),
            Expectation("with_random_teacher", "first", "nll", task="stories", better="not"),
        ],
    )
