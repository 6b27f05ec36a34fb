"""A student with another tokenizer than its teacher: what do aligned spans and mapped tokens add to the text (R30)?

300 steps were too few to tell: students had just left the plateau of single tokens, which each does when it happens to. So
600 steps and five seeds.
"""

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
    stories260k,
    teacher,
)
from stillhouse.resolve import PACKAGE


def experiment(data: Path, folder: Path, seeds: range, scale: float) -> Experiment:
    learned, held_out = stories(data, folder)
    spoken = PACKAGE / "pocket" / "teacher"  # 2,048 tokens, made from other books
    nobody = llama(folder / "nobody", data / "stories260K" / "hf", seed=999, width=64, layers=5)
    steps = args(int(600 * scale))
    few = branch(learned)
    few["seeds"]["limit"] = 400

    def beside(do: str, by: str = "stories") -> dict[str, Any]:
        text = {"do": "supervised.cross_entropy", "on": "stories", "weight": 0.5}
        return phase([text, {"do": do, "on": "stories", "teacher": by, "weight": 0.5}], steps)

    def made(seed: int) -> dict[str, Any]:
        return recipe(
            "across",
            seed,
            teachers={"stories": stories260k(data), "nobody": teacher(nobody)},
            knowledge={"stories": few},
            student={"model": str(llama(folder / f"student-{seed}", spoken, seed=seed)), "terms": OWN},
            arms={
                "text": phase([{"do": "supervised.cross_entropy", "on": "stories"}], steps),
                "spans": beside("cross_tokenizer.span_likelihood"),
                "universal_logit": beside("divergence.universal_logit"),
                "hybrid": beside("cross_tokenizer.hybrid"),
                "first_tokens": beside("divergence.forward_kl"),
                "spans_random_teacher": beside("cross_tokenizer.span_likelihood", "nobody"),
                "first_tokens_random_teacher": beside("divergence.forward_kl", "nobody"),
            },
            evaluate=[reads(held_out, None)],
        )

    return Experiment(
        "On 400 passages and equal tokens, does a teacher with another tokenizer add to the text?",
        {seed: made(seed) for seed in seeds},
        [
            *(Expectation(arm, "text", "nll") for arm in ("spans", "universal_logit", "hybrid", "first_tokens")),
            *(Expectation(f"{arm}_random_teacher", "text", "nll", better="not") for arm in ("spans", "first_tokens")),
            # what is left of the teacher where half the weight on any beliefs already smooths the labels
            *(Expectation(arm, f"{arm}_random_teacher", "nll") for arm in ("spans", "first_tokens")),
        ],
    )
