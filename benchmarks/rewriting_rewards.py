"""A generative reward model (RLMEC, R42): does it find wrong tokens unlikely in problems that it has not seen?

Problems: the larger of two numbers. Answers with a planted error (the smaller number, or one that is neither) and right ones are
the lessons of `preferences.rewriting`; the pocket student learns to write them again. On other problems, each with a right and
a wrong answer shown: how often the right answer is likelier than the wrong one (ties count half); the words around the number
are the same. Controls: a model whose corrections are shuffled, and one that learned only to copy right answers.

    python benchmarks/rewriting_rewards.py [--seeds 3] [--steps 300] [--work build/rewriting]
"""

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
from timing.record import RESULTS, about, write

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.learning.parts import args, phase, recipe
from benchmarks.learning.preferences import written
from stillhouse import distill
from stillhouse.elicit.revising import rewriting_prompt
from stillhouse.evaluate.compare import paired, single
from stillhouse.records import user
from stillhouse.scoring import Likelihood

SAID = "The answer is {}."
ARMS = ("rewriting", "shuffled", "copying")
KINDS = ("the smaller number", "neither number")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--work", type=Path, default=Path("build/rewriting"))
    options = parser.parse_args()
    result = about("rewriting_rewards", threads=1, seed=0, forced=True, paths=("src/stillhouse",))
    runs = [one(options.work, seed, options.steps) for seed in range(options.seeds)]
    values = {key: np.stack([run[key] for run in runs]) for key in runs[0]}
    result["found"] = [
        {"arm": arm, "wrong": kind, "right_is_likelier": interval(single(values[arm, kind]))}
        | ({} if arm == "rewriting" else {"rewriting_minus": interval(paired(values["rewriting", kind], values[arm, kind]))})
        for arm in ARMS
        for kind in KINDS
    ]  # fmt: skip
    for row in result["found"]:
        print(json.dumps(row))
    write(RESULTS / "rewriting_rewards.json", result | {"seeds": options.seeds, "steps": options.steps})
    return 0


def one(work: Path, seed: int, steps: int) -> dict[tuple[str, str], np.ndarray]:
    """For each arm and kind of error: 1, a half or 0 for each held-out problem."""
    folder = work / str(seed)
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    known, others = problems(draw, 1000, held_out=False), problems(draw, 200, held_out=True)
    lessons = [
        row | {"was": SAID.format(row["wrong"][n % 2] if n % 4 < 2 else row["right"])} for n, row in enumerate(known)
    ]
    moved = draw.sample(lessons, len(lessons))
    sources = {
        "rewriting": lessons,
        "shuffled": [row | {"answer": other["answer"]} for row, other in zip(lessons, moved, strict=True)],
        "copying": [row | {"was": row["answer"]} for row in lessons],
    }
    knowledge = {}
    for name, rows in sources.items():
        seeds = written(folder / f"{name}.jsonl", rows) | {"reference": "answer", "columns": ["was"]}
        knowledge[name] = {"seeds": seeds, "elicit": [{"do": "labeling.reference"}, {"do": "preferences.rewriting"}]}
    rate = args(steps, rate=2e-3, batch=16)
    arms = {name: phase([{"do": "supervised.cross_entropy", "on": name}], rate) for name in sources}
    told = recipe("rewriting", seed, knowledge=knowledge, student={"model": "pocket"}, arms=arms)
    run = distill(told, out=folder / "run", quiet=True)
    return {
        (arm, kind): likelier(Likelihood(run.path / "students" / arm / str(seed)), others, at)
        for arm in sources
        for at, kind in enumerate(KINDS)
    }


def likelier(judge: Likelihood, rows: list[dict[str, Any]], at: int) -> np.ndarray:
    """Each answer under the prompt that shows it; what is said around the number is the same in both."""

    def told(number: str, row: dict[str, Any]) -> tuple[Any, str]:
        return rewriting_prompt(user(row["prompt"]), SAID.format(number)), SAID.format(number)

    right = np.array(judge.scores([told(row["right"], row) for row in rows]))
    wrong = np.array(judge.scores([told(row["wrong"][at], row) for row in rows]))
    return (right > wrong) + 0.5 * (right == wrong)


def problems(draw: random.Random, count: int, *, held_out: bool) -> list[dict[str, Any]]:
    """Different pairs of numbers; a fifth of them is held out."""
    found: dict[tuple[int, int], dict[str, Any]] = {}
    while len(found) < count:
        one, other = draw.sample(range(10, 100), 2)
        if ((one * 31 + other * 17) % 5 == 0) == held_out:
            neither = draw.choice([each for each in range(10, 100) if each not in (one, other)])
            right, wrong = str(max(one, other)), [str(min(one, other)), str(neither)]
            asked = f"Which is larger, {one} or {other}?"
            found[one, other] = {"prompt": asked, "right": right, "wrong": wrong, "answer": SAID.format(right)}
    return list(found.values())


def interval(found: Any) -> list[float]:
    return [round(each, 3) for each in (found.mean, found.low, found.high)]


if __name__ == "__main__":
    sys.exit(main())
