"""Learning Shakespeare, what happens to the stories: with and without replay, and held by a KL to the start (methods 3.4)."""

import json
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


def said(start: Path, path: Path) -> Path:
    """256 stories of the start's own, 96 tokens each: it never learned to end one, so as an answer each would be truncated."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not path.exists():
        speaks, model = AutoTokenizer.from_pretrained(start), AutoModelForCausalLM.from_pretrained(start)
        torch.manual_seed(0)
        told: list[str] = []
        for opener in OPENERS:
            ids = speaks(opener, return_tensors="pt").input_ids.repeat(32, 1)
            drawn = model.generate(
                ids, attention_mask=ids.ne(-1), do_sample=True, top_k=0, min_new_tokens=96, max_new_tokens=96
            )
            told += speaks.batch_decode(drawn, skip_special_tokens=True)
        path.write_text(json.dumps(told), encoding="utf-8")
    return path


def experiment(data: Path, folder: Path, seeds: range, scale: float) -> Experiment:
    learned, held_out = stories(data, folder)
    book = data / "text" / "tiny_shakespeare.txt"
    plays = pieces(book, folder / "plays.json", 240, 0, 1600)
    other_plays = pieces(book, folder / "other_plays.json", 240, 500_000, 120)
    nobody = llama(folder / "nobody", data / "stories260K" / "hf", seed=999)
    plain = {"do": "supervised.cross_entropy", "on": "plays"}
    steps = args(int(150 * scale), rate=2e-3)

    def held(by: str) -> dict[str, Any]:
        return phase([plain, {"do": "divergence.forward_kl", "on": "own", "teacher": by}], steps)

    def made(seed: int) -> dict[str, Any]:
        start = begun(data, folder, seed, scale, by="divergence.forward_kl")
        return recipe(
            "forgetting",
            seed,
            teachers={"start": teacher(start), "nobody": teacher(nobody)},
            knowledge={
                "plays": branch(plays, terms={"own_rights": "public domain: Shakespeare died in 1616"}),
                "stories": branch(learned),
                "own": branch(said(start, folder / f"own-{seed}.json"), terms=OWN),
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
