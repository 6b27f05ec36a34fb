"""Two teachers of two tokenizers, one of stories and one of plays, and a student of the first's tokens (FuseLLM's MinCE, R30).

The teacher of plays has 2,048 tokens and the student 512: what the teacher would say next is given to the first token the
student spells it with.
"""

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
    pieces,
    reads,
    recipe,
    stories,
    stories260k,
    teacher,
    trained,
)
from stillhouse.resolve import PACKAGE


def experiment(data: Path, folder: Path, seeds: range, scale: float) -> Experiment:
    learned, held_out = stories(data, folder)
    tokenizer, other = data / "stories260K" / "hf", PACKAGE / "pocket" / "teacher"
    book = data / "text" / "tiny_shakespeare.txt"
    plays = pieces(book, folder / "plays.json", 800, 0, 800)
    other_plays = pieces(book, folder / "other_plays.json", 800, 700_000, 120)
    both = folder / "both.json"
    both.write_text(json.dumps([text for path in (learned, plays) for text in json.loads(path.read_text())[:150]]))
    nobody = llama(folder / "nobody", other, seed=999, width=96, layers=3)
    steps = args(int(400 * scale))

    def of_plays() -> Path:
        told = recipe(
            "teacher-plays",
            12,
            teachers={},
            knowledge={"plays": branch(plays)},
            student={"model": str(llama(folder / "random-plays", other, seed=77, width=96, layers=3)), "terms": OWN},
            **phase([{"do": "supervised.cross_entropy", "on": "plays"}], args(int(600 * scale), rate=2e-3)),
        )
        return trained(folder / "teacher-plays", told)

    def beside(do: str, by: Any) -> dict[str, Any]:
        text = {"do": "supervised.cross_entropy", "on": "texts", "weight": 0.5}
        return phase([text, {"do": do, "on": "texts", "teacher": by, "weight": 0.5}], steps)

    def made(seed: int) -> dict[str, Any]:
        fused = "fusion.minimum_cross_entropy"
        return recipe(
            "two-tokenizers",
            seed,
            teachers={"stories": stories260k(data), "plays": teacher(of_plays()), "nobody": teacher(nobody)},
            knowledge={"texts": branch(both)},
            student={"model": str(llama(folder / f"student-{seed}", tokenizer, seed=seed)), "terms": OWN},
            arms={
                "text": phase([{"do": "supervised.cross_entropy", "on": "texts"}], steps),
                "stories": beside("divergence.forward_kl", "stories"),
                "plays": beside("divergence.forward_kl", "plays"),
                "both": beside(fused, ["stories", "plays"]),
                "stories_or_nobody": beside(fused, ["stories", "nobody"]),
                "nobody": beside("divergence.forward_kl", "nobody"),
            },
            evaluate=[reads(held_out, None, "stories"), reads(other_plays, None, "plays")],
        )

    return Experiment(
        "On 300 texts of both kinds, does the likelier of two teachers of two tokenizers add to the text, and to either alone?",
        {seed: made(seed) for seed in seeds},
        [
            *(Expectation("both", "text", "nll", task=task) for task in ("stories", "plays")),
            Expectation("both", "stories", "nll", task="plays"),
            Expectation("both", "plays", "nll", task="stories"),
            *(Expectation("nobody", "text", "nll", task=task, better="not") for task in ("stories", "plays")),
            # a teacher that knows nothing is not chosen: it must not change what the other does
            Expectation("stories_or_nobody", "stories", "nll", task="stories", better="near"),
        ],
    )
