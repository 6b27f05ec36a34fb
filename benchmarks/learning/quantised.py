"""A student in three bits, held by its full-precision copy: distillation against training on little text (R31, methods 3.4).

And the losses made for it: TSLD's scaled tokens in place of the plain divergence, QuantGPT's contrast of tokens beside it.
"""

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
    steps = args(int(120 * scale), rate=5e-4)

    def one(do: str, **entry: Any) -> dict[str, Any]:
        return phase([{"do": do, "on": "few", **entry}], steps)

    def made(seed: int) -> dict[str, Any]:
        few = branch(learned)
        few["seeds"]["limit"] = 160
        return recipe(
            "quantised",
            seed,
            teachers={"stories": stories260k(data)},
            knowledge={"few": few},
            student={
                "model": str(data / "stories260K" / "hf"),
                "quantise": {"bits": 3},
                "terms": {"record": "mit"},
            },
            arms={
                "rounded": phase(
                    [{"do": "supervised.cross_entropy", "on": "few"}], args(1, rate=1e-9) | {"warmup_steps": 0}
                ),
                "text": one("supervised.cross_entropy"),
                "forward_kl": one("divergence.forward_kl", teacher="stories"),
                "token_scaled": one("quantisation.token_scaled", teacher="stories"),
                "token_scaled_1": one("quantisation.token_scaled", teacher="stories", sharpness=1.0),
                "token_contrastive": phase(
                    [
                        {"do": "divergence.forward_kl", "on": "few", "teacher": "stories"},
                        {"do": "quantisation.token_contrastive", "on": "few", "teacher": "stories", "weight": 0.1},
                    ],
                    steps,
                ),
                "shifted_teacher": one(f"{CONTROLS}:shifted", teacher="stories"),
            },
            evaluate=[reads(held_out, "stories")],
        )

    return Experiment(
        "Weights in three bits and 160 passages: is training by the full-precision copy better than training on the text?",
        {seed: made(seed) for seed in seeds},
        [
            Expectation("forward_kl", "rounded", "nll"),
            Expectation("forward_kl", "text", "nll"),
            Expectation("forward_kl", "text", "kl_from_teacher"),
            *(
                Expectation(arm, against, metric)
                for arm in ("token_scaled", "token_contrastive")
                for against in ("text", "forward_kl")
                for metric in ("nll", "kl_from_teacher")
            ),
            # 1/p, which was the default here until a pilot of six steps lost .57 by it
            Expectation("token_scaled_1", "forward_kl", "nll", better="not"),
            Expectation("shifted_teacher", "rounded", "nll", better="not"),
        ],
    )
