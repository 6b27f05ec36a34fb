"""Learning Shakespeare, what happens to the stories: with and without replay, and held by a KL to the start (methods 3.4)."""

from pathlib import Path
from typing import Any

from benchmarks.learning.parts import (
    OWN,
    Expectation,
    Experiment,
    args,
    begun,
    branch,
    llama,
    phase,
    pieces,
    reads,
    recipe,
    stories,
    teacher,
)  # fmt: skip

OPENERS = ("Once upon a time", "One day", "There was", "Lily", "Tom and", "In the", "She", "The little")


def experiment(data: Path, folder: Path, seeds: range, scale: float) -> Experiment:
    learned, held_out = stories(data, folder)
    book = data / "text" / "tiny_shakespeare.txt"
    plays = pieces(book, folder / "plays.json", 240, 0, 1600)
    other_plays = pieces(book, folder / "other_plays.json", 240, 500_000, 120)
    openers = folder / "openers.jsonl"
    openers.write_text("".join(f'{{"prompt": "{opener}"}}\n' for opener in OPENERS), encoding="utf-8")
    nobody = llama(folder / "nobody", data / "stories260K" / "hf", seed=999)
    plain = {"do": "supervised.cross_entropy", "on": "plays"}
    steps = args(int(150 * scale), rate=2e-3)

    def held(by: str) -> dict[str, Any]:
        return phase([plain, {"do": "divergence.forward_kl", "on": "own", "teacher": by}], steps)

    def made(seed: int) -> dict[str, Any]:
        start = begun(data, folder, seed, scale, by="divergence.forward_kl")
        own = {"do": "file", "path": str(openers), "terms": {"own_rights": "eight openings of ours"}}
        said = {
            "do": "labeling.answer",
            "teacher": "start",
            "sampling": {"max_tokens": 96, "temperature": 1.0, "n": 32},
        }
        return recipe(
            "forgetting",
            seed,
            teachers={"start": teacher(start), "nobody": teacher(nobody)},
            knowledge={
                "plays": branch(plays, terms={"own_rights": "public domain: Shakespeare died in 1616"}),
                "stories": branch(learned),
                "own": {"seeds": own, "elicit": [said]},
            },
            student={"model": str(start), "terms": OWN},
            arms={
                "plays": phase([plain], steps),
                "replay": phase([plain, {"do": "supervised.cross_entropy", "on": "stories", "weight": 0.14}], steps),
                "kl_to_start": held("reference"),
                "kl_to_random": held("nobody"),
            },
            evaluate=[reads(held_out, None, "old"), reads(other_plays, None, "new")],
        )

    def old(arm: str, better: str = "lower") -> Expectation:
        return Expectation(arm, "plays", "nll", task="old", better=better)

    return Experiment(
        "What does a student keep of its stories while it learns Shakespeare?",
        {seed: made(seed) for seed in seeds},
        [
            old("replay"),
            old("kl_to_start"),
            old("kl_to_random", better="not"),
            Expectation("plays", "base", "nll", task="old", better="not"),
            Expectation("plays", "base", "nll", task="new"),
            Expectation("kl_to_start", "base", "nll", task="new"),
        ],
    )
