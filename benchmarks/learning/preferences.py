"""A checker's verdicts on the student's own answers: do preferences and rewards raise the skill they grade (Eq. 13-14)?"""

from pathlib import Path
from typing import Any

from benchmarks.learning.parts import CONTROLS, Expectation, Experiment, args, phase, recipe, teacher, trained
from stillhouse.recipe import RECIPES

DEMO = RECIPES / "demo"
TERMS = {"own_rights": "written by the generators of this package"}
PROBLEMS = {"do": "file", "path": str(DEMO / "seeds.jsonl"), "terms": TERMS}
RIGHT = {"do": "math.equal"}
COIN = {"do": f"{CONTROLS}:coin"}


def experiment(data: Path, folder: Path, seeds: range, scale: float) -> Experiment:
    return Experiment(
        "Does a checker's word on the student's own answers raise the skill, beyond what the same training without it does?",
        {seed: made(seed, begun(folder, seed, scale), args(int(100 * scale), rate=5e-4)) for seed in seeds},
        [
            *(
                Expectation(arm, "base", "score", better="higher")
                for arm in ("own_right_answers", "dpo", "leave_one_out")
            ),
            Expectation("dpo", "dpo_by_coin", "score", better="higher"),
            Expectation("leave_one_out", "leave_one_out_by_coin", "score", better="higher"),
            Expectation("dpo_by_coin", "base", "score", better="not"),
            Expectation("leave_one_out_by_coin", "base", "score", better="not"),
        ],
    )


def begun(folder: Path, seed: int, scale: float) -> Path:
    """A student that the teacher has shown how to reason, stopped while it still makes mistakes."""
    reasoning = {
        "seeds": PROBLEMS,
        "elicit": [{"do": "labeling.reason", "teacher": "main", "instruction": None}],
        "select": [{"do": "quality.correct", "grader": RIGHT}],
    }
    told = recipe(
        "start",
        seed,
        teachers={"main": {"backend": "pocket", "sampling": {"max_tokens": 96}}},
        knowledge={"reasoning": reasoning},
        student={"model": "pocket"},
        **phase(
            [{"do": "supervised.cross_entropy", "on": "reasoning"}],
            args(int(200 * scale), rate=4e-3, batch=12, adam_beta2=0.95),
        ),
    )
    return trained(folder / f"start-{seed}", told)


def made(seed: int, start: Path, steps: dict[str, Any]) -> dict[str, Any]:
    return recipe(
        "preferences",
        seed,
        teachers={"start": teacher(start)},
        knowledge={
            "problems": {"seeds": PROBLEMS, "elicit": [{"do": "labeling.reference"}]},
            "right": judged(RIGHT) | {"select": [{"do": "quality.score", "at_least": 1}]},
            "pairs": judged(RIGHT, {"do": "feedback.pairs", "rejected": "random"}),
            "coin_pairs": judged(COIN, {"do": "feedback.pairs", "rejected": "random"}),
        },
        student={"model": str(start), "terms": TERMS},
        arms={
            "own_right_answers": phase([{"do": "supervised.cross_entropy", "on": "right"}], steps),
            "dpo": phase([{"do": "ranking.dpo", "on": "pairs", "beta": 0.1}], steps),
            "leave_one_out": rewarded(RIGHT, steps),
            "dpo_by_coin": phase([{"do": "ranking.dpo", "on": "coin_pairs", "beta": 0.1}], steps),
            "leave_one_out_by_coin": rewarded(COIN, steps),
        },
        evaluate=[
            {
                "do": "qa",
                "name": "held_out",
                "path": str(DEMO / "held_out.jsonl"),
                "grader": RIGHT,
                "max_new_tokens": 80,
            }
        ],
    )


def judged(grader: dict[str, Any], *further: dict[str, Any]) -> dict[str, Any]:
    """Eight answers of the start to each problem, graded."""
    sampling = {"max_tokens": 96, "temperature": 1.0, "n": 8}
    asked = {"do": "labeling.answer", "teacher": "start", "sampling": sampling}
    return {"seeds": PROBLEMS, "elicit": [asked, {"do": "feedback.graded", "grader": grader}, *further]}


def rewarded(grader: dict[str, Any], steps: dict[str, Any]) -> dict[str, Any]:
    rollouts = {"on": "problems", "samples": 8, "max_new_tokens": 80, "reward": grader}
    objective = {"do": "reinforcement.leave_one_out", "on": "rollouts"}
    return phase([objective], steps | {"per_device_train_batch_size": 8}, rollouts=rollouts)
