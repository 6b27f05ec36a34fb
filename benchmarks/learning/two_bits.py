"""Two bits a weight: by the largest magnitude, ternary (TSLD) or by a learned scale (QuantGPT); taught by the full copy (R31)."""

from pathlib import Path
from typing import Any

from benchmarks.learning.parts import Expectation, Experiment, args, branch, phase, reads, recipe, stories, stories260k

KL = {"do": "divergence.forward_kl", "on": "few", "teacher": "stories"}


def experiment(data: Path, folder: Path, seeds: range, scale: float) -> Experiment:
    learned, held_out = stories(data, folder)
    steps = args(int(120 * scale), rate=1e-3)

    def rounded(how: str, objectives: list[dict[str, Any]]) -> dict[str, Any]:
        return phase(objectives, steps) | {"student": {"quantise": {"bits": 2, "scale": how}}}

    def made(seed: int) -> dict[str, Any]:
        few = branch(learned)
        few["seeds"]["limit"] = 160
        remembering = {
            "do": "quantisation.token_contrastive",
            "on": "few",
            "teacher": "stories",
            "weight": 0.1,
            "memory": 1024,
        }
        return recipe(
            "two-bits",
            seed,
            teachers={"stories": stories260k(data)},
            knowledge={"few": few},
            student={"model": str(data / "stories260K" / "hf"), "terms": {"record": "mit"}},
            arms={
                "largest": rounded("largest", [KL]),
                "ternary": rounded("ternary", [KL]),
                "learned": rounded("learned", [KL]),
                "ternary_text": rounded("ternary", [{"do": "supervised.cross_entropy", "on": "few"}]),
                "learned_contrast": rounded("learned", [KL, remembering]),
            },
            evaluate=[reads(held_out, "stories")],
        )

    return Experiment(
        "Two bits a weight and 160 passages: are ternary weights and learned scales better than the largest magnitude?",
        {seed: made(seed) for seed in seeds},
        [
            Expectation("ternary", "largest", "nll"),
            Expectation("learned", "largest", "nll"),
            Expectation("ternary", "ternary_text", "nll"),
            Expectation("learned_contrast", "learned", "nll"),
        ],
    )
