"""After a warm start: is learning on text of the student's own better than on other text (methods 3.3)?"""

from pathlib import Path
from typing import Any

from benchmarks.learning.parts import (
    OWN,
    Expectation,
    Experiment,
    args,
    begun,
    continuations,
    llama,
    phase,
    reads,
    recipe,
    stories,
    stories260k,
    teacher,
)  # fmt: skip


def experiment(data: Path, folder: Path, seeds: range, scale: float) -> Experiment:
    learned, held_out = stories(data, folder)
    prompts = continuations(learned, folder / "prompts.jsonl")
    nobody = llama(folder / "nobody", data / "stories260K" / "hf", seed=999, width=64, layers=5)
    steps = args(int(100 * scale), rate=1e-3)

    def fixed(do: str, **entry: Any) -> dict[str, Any]:
        return phase([{"do": do, "on": "stories", **entry}], steps)

    def own(do: str, by: str = "stories") -> dict[str, Any]:
        rollouts = {"on": "stories", "max_new_tokens": 64}
        return phase([{"do": do, "on": "rollouts", "teacher": by}], steps, rollouts=rollouts)

    def made(seed: int) -> dict[str, Any]:
        seeds_entry = {"do": "file", "path": str(prompts), "terms": {"record": "data.tinystories"}}
        return recipe(
            "on-policy",
            seed,
            teachers={"stories": stories260k(data), "nobody": teacher(nobody)},
            knowledge={"stories": {"seeds": seeds_entry, "elicit": [{"do": "labeling.reference"}]}},
            student={"model": str(begun(data, folder, seed, scale)), "terms": OWN},
            arms={
                "text": fixed("supervised.cross_entropy"),
                "forward_kl": fixed("divergence.forward_kl", teacher="stories"),
                "reverse_kl": fixed("divergence.reverse_kl", teacher="stories"),
                "own_reverse_kl": own("divergence.reverse_kl"),
                "own_jensen_shannon": own("divergence.jensen_shannon"),
                "own_random_teacher": own("divergence.reverse_kl", by="nobody"),
            },
            evaluate=[
                {"do": "own_text", "path": str(held_out), "teacher": "stories", "name": "own_text"},
                reads(held_out, "stories"),
            ],
        )

    def nearer(arm: str, control: str, better: str = "lower") -> Expectation:
        return Expectation(arm, control, "kl_to_teacher", task="own_text", better=better)

    return Experiment(
        "From a student that speaks, on equal steps: does learning on its own text bring that text nearer to the teacher?",
        {seed: made(seed) for seed in seeds},
        [
            nearer("own_reverse_kl", "reverse_kl"),
            nearer("own_reverse_kl", "text"),
            nearer("own_jensen_shannon", "forward_kl"),
            nearer("own_random_teacher", "text", better="not"),
            Expectation("own_reverse_kl", "text", "nll", better="not"),
        ],
    )
