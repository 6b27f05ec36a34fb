"""Signals on disk against the teacher beside the student: what does each kind lose (methods 1.E, 3.2)?"""

from pathlib import Path
from typing import Any

from benchmarks.learning.parts import (
    CONTROLS,
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

KINDS = {
    "top_8": {"do": "feature.top_k", "k": 8},
    "top_64": {"do": "feature.top_k", "k": 64},
    "sampled_50": {"do": "feature.sampled_tokens", "draws": 50},
    "hidden_states": {"do": "feature.hidden_states"},
}


def experiment(data: Path, folder: Path, seeds: range, scale: float) -> Experiment:
    learned, held_out = stories(data, folder)
    tokenizer = data / "stories260K" / "hf"
    nobody = llama(folder / "nobody", tokenizer, seed=999, width=64, layers=5)
    steps = args(int(300 * scale))

    def one(on: str, **entry: Any) -> dict[str, Any]:
        return phase([{"do": "divergence.forward_kl", "on": on, **entry}], steps)

    def made(seed: int) -> dict[str, Any]:
        return recipe(
            "signals",
            seed,
            teachers={"stories": stories260k(data), "nobody": teacher(nobody)},
            knowledge={
                "stories": branch(learned),
                **{name: branch(learned, elicit=[{"teacher": "stories", **how}]) for name, how in KINDS.items()},
                "random_top_64": branch(learned, elicit=[{"teacher": "nobody", **KINDS["top_64"]}]),
            },
            student={"model": str(llama(folder / f"student-{seed}", tokenizer, seed=seed)), "terms": OWN},
            arms={
                "text": phase([{"do": "supervised.cross_entropy", "on": "stories"}], steps),
                "beside": one("stories", teacher="stories"),
                **{name: one(name) for name in KINDS},
                "random_top_64": one("random_top_64"),
                "shifted": phase([{"do": f"{CONTROLS}:shifted", "on": "stories", "teacher": "stories"}], steps),
            },
            evaluate=[reads(held_out, "stories")],
        )

    return Experiment(
        "On equal tokens, do stored signals teach what the teacher's whole distribution beside the student teaches?",
        {seed: made(seed) for seed in seeds},
        [
            *(Expectation(name, "text", "kl_from_teacher") for name in KINDS),
            *(
                Expectation(name, "beside", metric, better="near")
                for name in ("top_64", "sampled_50", "hidden_states")
                for metric in ("kl_from_teacher", "nll")
            ),
            # what is not the same must be found not to be
            *(Expectation("text", "beside", metric, better="apart") for metric in ("kl_from_teacher", "nll")),
            *(Expectation(arm, "text", "kl_from_teacher", better="not") for arm in ("random_top_64", "shifted")),
        ],
    )
