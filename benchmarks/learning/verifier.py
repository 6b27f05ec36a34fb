"""A verifier taught by a checker's verdicts on a student's own answers: does it pick better than without one (R21)?"""

import random
from pathlib import Path
from typing import Any

from benchmarks.learning.parts import Expectation, Experiment, args, phase, recipe, teacher, trained
from benchmarks.learning.preferences import COIN, RIGHT, TERMS, numbers, written

SAID = "The answer is {reference}."  # a marked answer, so that a majority can be told
LONGEST = 20  # tokens of an answer
DRAWN = {"max_tokens": LONGEST, "temperature": 1.0, "n": 8}


def experiment(data: Path, folder: Path, seeds: range, scale: float) -> Experiment:
    taught = ("likelihood", "reward")
    return Experiment(
        "Taught on right and wrong answers of the student's own: does a verifier pick better among eight than the student does?",
        {seed: made(folder, seed, scale) for seed in seeds},
        [
            *(Expectation(arm, "base", "score", better="higher") for arm in (*taught, "right")),
            Expectation("likelihood", "right", "score", better="higher"),
            *(Expectation(arm, f"{arm}_by_coin", "score", better="higher") for arm in taught),
            Expectation("reward_by_coin", "base", "score", better="not"),
        ],
    )


def made(folder: Path, seed: int, scale: float) -> dict[str, Any]:
    """A start that was shown the larger number 100 times; eight answers of it to each of 1,000 other pairs of numbers."""
    drawn = random.Random(seed)
    known, others = numbers(drawn, 1100, held_out=False), numbers(drawn, 300, held_out=True)
    shown, asked, held_out = (
        written(folder / f"{name}-{seed}.jsonl", rows)
        for name, rows in (("shown", known[:100]), ("asked", known[100:]), ("held_out", others))
    )
    answers = {"do": "labeling.reference", "template": SAID}
    learned = phase([{"do": "supervised.cross_entropy", "on": "shown"}], args(int(60 * scale), rate=2e-3, batch=12))
    start = trained(
        folder / f"start-{seed}",
        recipe(
            "start", seed, knowledge={"shown": {"seeds": shown, "elicit": [answers]}}, student={"model": "pocket"}, **learned
        ),
    )  # fmt: skip

    def graded(grader: dict[str, Any]) -> list[dict[str, Any]]:
        said = {"do": "labeling.answer", "teacher": "start", "sampling": DRAWN}
        return [said, {"do": "feedback.graded", "grader": grader}]

    def compared(grader: dict[str, Any]) -> dict[str, Any]:
        return {"seeds": asked, "elicit": [*graded(grader), {"do": "feedback.by_score"}]}

    steps = args(int(300 * scale), rate=5e-4, batch=8)
    right = {"do": "supervised.cross_entropy", "on": "right"}

    def verifier(kind: str, on: str) -> dict[str, Any]:
        """DPO beside cross-entropy on right answers (alone it lowers those too), or a scoring head."""
        if kind == "likelihood":
            return phase([{"do": "ranking.dpo", "on": on}, right], steps)
        return phase([{"do": "reinforcement.bradley_terry", "on": on}], steps) | {"student": {"kind": "reward"}}

    task = {"path": held_out["path"], "grader": RIGHT, "temperature": 1.0, "max_new_tokens": LONGEST}
    return recipe(
        "verifier",
        seed,
        teachers={"start": teacher(start, TERMS)},
        knowledge={
            "compared": compared(RIGHT),
            "by_coin": compared(COIN),
            "right": {"seeds": asked, "elicit": graded(RIGHT), "select": [{"do": "quality.score", "at_least": 1}]},
        },
        student={"model": str(start), "terms": TERMS},
        arms={"right": phase([right], steps)}
        | {
            f"{kind}{'_by_coin' * (on == 'by_coin')}": verifier(kind, on)
            for kind in ("likelihood", "reward")
            for on in ("compared", "by_coin")
        },
        evaluate=[
            {"do": "best_of", "name": name, **task, **({"against": against} if against else {})}
            for name, against in (("held_out", None), ("over_chance", "chance"), ("over_vote", "vote"))
        ],
    )
