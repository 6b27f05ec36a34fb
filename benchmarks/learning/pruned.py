"""A student cut out of its teacher: text against the teacher's distributions in healing it (methods 3.4, Minitron)."""

from pathlib import Path
from typing import Any

from benchmarks.learning.parts import (
    CONTROLS,
    Expectation,
    Experiment,
    args,
    branch,
    phase,
    reads,
    recipe,
    stories,
    stories260k,
)


def experiment(data: Path, folder: Path, seeds: range, scale: float) -> Experiment:
    learned, held_out = stories(data, folder)
    steps = args(int(120 * scale), rate=1e-3)

    def one(do: str, **entry: Any) -> dict[str, Any]:
        return phase([{"do": do, "on": "stories", **entry}], steps)

    def made(seed: int) -> dict[str, Any]:
        cut = {"on": "stories", "examples": 64, "layers": 3}
        model = str(data / "stories260K" / "hf")
        return recipe(
            "pruned",
            seed,
            teachers={"stories": stories260k(data)},
            knowledge={"stories": branch(learned)},
            student={"model": model, "prune": cut, "terms": {"record": "mit"}},
            arms={
                "text": one("supervised.cross_entropy"),
                "forward_kl": one("divergence.forward_kl", teacher="stories"),
                "shifted_teacher": one(f"{CONTROLS}:shifted", teacher="stories"),
            },
            evaluate=[reads(held_out, "stories")],
        )

    return Experiment(
        "Three of five layers, chosen by importance, then trained on equal tokens: does the teacher heal better than the text?",
        {seed: made(seed) for seed in seeds},
        [
            Expectation("forward_kl", "text", "kl_from_teacher"),
            Expectation("forward_kl", "text", "nll"),
            Expectation("shifted_teacher", "text", "kl_from_teacher", better="not"),
        ],
    )
