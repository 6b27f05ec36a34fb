"""From random weights on equal tokens: what does the teacher's distribution add to the text (methods 3.2, setting B)?"""

from pathlib import Path
from typing import Any

from benchmarks.learning.parts import (
    CONTROLS,
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
)  # fmt: skip


def experiment(data: Path, folder: Path, seeds: range, scale: float) -> Experiment:
    learned, held_out = stories(data, folder)
    tokenizer = data / "stories260K" / "hf"
    nobody = llama(folder / "nobody", tokenizer, seed=999, width=64, layers=5)
    steps = args(int(400 * scale))

    def one(on: str = "stories", **entry: Any) -> dict[str, Any]:
        return phase([{"on": on, **entry}], steps)

    def arms() -> dict[str, Any]:
        kl = {"teacher": "stories"}
        return {
            "text": one(do="supervised.cross_entropy"),
            "forward_kl": one(do="divergence.forward_kl", **kl),
            "half_and_half": phase(
                [
                    {"do": "supervised.cross_entropy", "on": "stories", "weight": 0.5},
                    {"do": "divergence.forward_kl", "on": "stories", "weight": 0.5, **kl},
                ],
                steps,
            ),
            "top_8": one(do="divergence.forward_kl", on="top_8"),
            "skewed": one(do="divergence.skew_forward_kl", skew=0.1, **kl),
            "jensen_shannon": one(do="divergence.jensen_shannon", **kl),
            "reverse_kl": one(do="divergence.reverse_kl", **kl),
            "shuffled_teacher": one(do=f"{CONTROLS}:shuffled", **kl),
            "shifted_teacher": one(do=f"{CONTROLS}:shifted", **kl),
            "random_teacher": one(do="divergence.forward_kl", teacher="nobody"),
        }

    def made(seed: int) -> dict[str, Any]:
        return recipe(
            "scratch",
            seed,
            teachers={"stories": stories260k(data), "nobody": teacher(nobody)},
            knowledge={
                "stories": branch(learned),
                "top_8": branch(learned, elicit=[{"do": "feature.top_logprobs", "teacher": "stories", "k": 8}]),
            },
            student={
                "model": str(llama(folder / f"student-{seed}", tokenizer, seed=seed)),
                "terms": {"own_rights": "ours"},
            },
            arms=arms(),
            evaluate=[reads(held_out, "stories")],
        )

    return Experiment(
        "On equal tokens from random weights, is a student of the teacher's distributions better than one of the text?",
        {seed: made(seed) for seed in seeds},
        [
            *(
                Expectation(arm, "text", metric)
                for arm in ("forward_kl", "top_8", "half_and_half")
                for metric in ("kl_from_teacher", "nll")
            ),
            Expectation("forward_kl", "text", "agreements", better="higher"),
            Expectation("top_8", "forward_kl", "kl_from_teacher", better="not"),
            Expectation("reverse_kl", "text", "nll", better="not"),
            Expectation("jensen_shannon", "text", "nll", better="not"),
            *(
                Expectation(arm, "text", metric, better="not")
                for arm in ("shuffled_teacher", "shifted_teacher", "random_teacher")
                for metric in ("kl_from_teacher", "nll")
            ),
        ],
    )
