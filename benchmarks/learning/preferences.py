"""A checker's verdicts on the student's own answers: do preferences and rewards raise the skill they grade (Eq. 13-14)?"""

import json
import random
from pathlib import Path
from typing import Any

from benchmarks.learning.parts import CONTROLS, Expectation, Experiment, args, phase, recipe, teacher, trained

TERMS = {"own_rights": "drawn by this script"}
RIGHT = {"do": "math.equal"}
COIN = {"do": f"{CONTROLS}:coin"}
LONGEST = 12  # tokens of an answer, which is a number


def experiment(data: Path, folder: Path, seeds: range, scale: float) -> Experiment:
    raised = ("own_right_answers", "dpo_and_right", "leave_one_out", "group_advantage")
    return Experiment(
        "Does a checker's word on the student's own answers raise the skill, beyond what the same training without it does?",
        {seed: made(folder, seed, scale) for seed in seeds},
        [
            *(Expectation(arm, "base", "score", better="higher") for arm in raised),
            Expectation("dpo_and_right", "own_right_answers", "score", better="higher"),
            Expectation("dpo_and_right", "dpo_and_any_by_coin", "score", better="higher"),
            Expectation("leave_one_out", "leave_one_out_by_coin", "score", better="higher"),
            Expectation("dpo_and_any_by_coin", "base", "score", better="not"),
            Expectation("leave_one_out_by_coin", "base", "score", better="not"),
        ],
    )


def made(folder: Path, seed: int, scale: float) -> dict[str, Any]:
    """A start that was shown the larger number 100 times, then 1,500 pairs of numbers that nobody solves for it."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = random.Random(seed)
    known, others = numbers(drawn, 1600, held_out=False), numbers(drawn, 400, held_out=True)
    shown, asked, held_out = (
        written(folder / f"{name}-{seed}.jsonl", rows)
        for name, rows in (("shown", known[:100]), ("asked", known[100:]), ("held_out", others))
    )
    start = begun(folder, seed, shown, scale)
    steps = args(int(100 * scale), rate=5e-4)

    def learned(pairs: str, answers: str) -> dict[str, Any]:
        """DPO beside cross-entropy on the preferred answers: alone it pushes both answers down (so measured here)."""
        dpo = {"do": "ranking.dpo", "on": pairs, "beta": 0.1}
        return phase([dpo, {"do": "supervised.cross_entropy", "on": answers}], steps)

    def rewarded(objective: str, grader: dict[str, Any]) -> dict[str, Any]:
        rollouts = {"on": "problems", "samples": 8, "max_new_tokens": LONGEST, "reward": grader}
        rate = args(int(400 * scale), rate=5e-4, batch=8)
        return phase([{"do": f"reinforcement.{objective}", "on": "rollouts"}], rate, rollouts=rollouts)

    def judged(grader: dict[str, Any]) -> dict[str, Any]:
        """Four answers of the start to each problem, graded."""
        sampling = {"max_tokens": LONGEST, "temperature": 1.0, "n": 4}
        said = {"do": "labeling.answer", "teacher": "start", "sampling": sampling}
        return {"seeds": asked, "elicit": [said, {"do": "feedback.graded", "grader": grader}]}

    def best(grader: dict[str, Any]) -> dict[str, Any]:
        return judged(grader) | {"select": [{"do": "quality.score", "at_least": 1}]}

    def ranked(grader: dict[str, Any]) -> dict[str, Any]:
        told = judged(grader)
        return told | {"elicit": [*told["elicit"], {"do": "feedback.pairs", "rejected": "random"}]}

    return recipe(
        "preferences",
        seed,
        teachers={"start": teacher(start)},
        knowledge={
            "problems": {"seeds": asked, "elicit": [{"do": "labeling.reference"}]},
            "right": best(RIGHT),
            "by_coin": best(COIN),
            "pairs": ranked(RIGHT),
            "coin_pairs": ranked(COIN),
        },
        student={"model": str(start), "terms": TERMS},
        arms={
            "own_right_answers": phase([{"do": "supervised.cross_entropy", "on": "right"}], steps),
            "dpo_and_right": learned("pairs", "right"),
            "leave_one_out": rewarded("leave_one_out", RIGHT),
            "group_advantage": rewarded("group_advantage", RIGHT),
            "dpo_and_any_by_coin": learned("coin_pairs", "by_coin"),
            "leave_one_out_by_coin": rewarded("leave_one_out", COIN),
        },
        evaluate=[
            {"do": "qa", "name": "held_out", "path": held_out["path"], "grader": RIGHT, "max_new_tokens": LONGEST}
        ],
    )


def numbers(drawn: random.Random, count: int, *, held_out: bool) -> list[dict[str, str]]:
    """Different questions; a fifth of the pairs of numbers is held out."""
    found: dict[tuple[int, int], dict[str, str]] = {}
    while len(found) < count:
        one, other = drawn.sample(range(10, 100), 2)
        if ((one * 31 + other * 17) % 5 == 0) == held_out:
            found[one, other] = {"prompt": f"Which is larger, {one} or {other}?", "reference": str(max(one, other))}
    return list(found.values())


def written(path: Path, rows: list[dict[str, str]]) -> dict[str, Any]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {"do": "file", "path": str(path), "terms": TERMS}


def begun(folder: Path, seed: int, shown: dict[str, Any], scale: float) -> Path:
    told = recipe(
        "start",
        seed,
        knowledge={"shown": {"seeds": shown, "elicit": [{"do": "labeling.reference"}]}},
        student={"model": "pocket"},
        **phase([{"do": "supervised.cross_entropy", "on": "shown"}], args(int(60 * scale), rate=2e-3, batch=12)),
    )
    return trained(folder / f"start-{seed}", told)
