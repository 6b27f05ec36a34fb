"""Two teachers that each read half of the stories: is a student of both better than a student of either (R25, R30)?"""

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
    reads,
    recipe,
    stories,
    teacher,
    trained,
)  # fmt: skip


def experiment(data: Path, folder: Path, seeds: range, scale: float) -> Experiment:
    learned, held_out = stories(data, folder)
    tokenizer = data / "stories260K" / "hf"
    halves = {name: folder / f"{name}.json" for name in ("first", "second")}
    _halve(learned, *halves.values())
    nobody = llama(folder / "nobody", tokenizer, seed=999, width=96, layers=3)
    steps = args(int(300 * scale))

    def taught(name: str) -> Path:
        told = recipe(
            f"teacher-{name}",
            11 if name == "first" else 12,
            teachers={},
            knowledge={"stories": branch(halves[name])},
            student={
                "model": str(llama(folder / f"random-{name}", tokenizer, seed=77, width=96, layers=3)),
                "terms": OWN,
            },
            **phase([{"do": "supervised.cross_entropy", "on": "stories"}], args(int(600 * scale), rate=2e-3)),
        )
        return trained(folder / f"teacher-{name}", told)

    def one(do: str, by: Any) -> dict[str, Any]:
        return phase([{"do": do, "on": "stories", "teacher": by}], steps)

    def made(seed: int) -> dict[str, Any]:
        return recipe(
            "two-teachers",
            seed,
            teachers={
                "first": teacher(taught("first")),
                "second": teacher(taught("second")),
                "nobody": teacher(nobody),
            },
            knowledge={"stories": branch(learned)},
            student={"model": str(llama(folder / f"student-{seed}", tokenizer, seed=seed)), "terms": OWN},
            arms={
                "first": one("divergence.forward_kl", "first"),
                "second": one("divergence.forward_kl", "second"),
                "mean_of_probabilities": one("fusion.mean_of_probabilities", ["first", "second"]),
                "mean_of_logits": one("fusion.mean_of_logits", ["first", "second"]),
                "with_random_teacher": one("fusion.mean_of_probabilities", ["first", "nobody"]),
            },
            evaluate=[reads(held_out, None)],
        )

    return Experiment(
        "Is a student of two teachers that read different stories better on held-out ones than a student of either?",
        {seed: made(seed) for seed in seeds},
        [
            *(
                Expectation(arm, single, "nll")
                for arm in ("mean_of_probabilities", "mean_of_logits")
                for single in ("first", "second")
            ),
            Expectation("with_random_teacher", "first", "nll", better="not"),
        ],
    )


def _halve(learned: Path, first: Path, second: Path) -> None:
    rows = json.loads(learned.read_text(encoding="utf-8"))
    first.write_text(json.dumps(rows[::2]), encoding="utf-8")
    second.write_text(json.dumps(rows[1::2]), encoding="utf-8")
