"""A checker's verdicts on the student's own answers: do preferences and rewards raise the skill they grade (Eq. 13-14)?"""

from pathlib import Path
from typing import Any

from benchmarks.learning.parts import CONTROLS, Expectation, Experiment, args, phase, recipe, teacher, trained
from stillhouse.recipe import RECIPES

DEMO = RECIPES / "demo"
TERMS = {"own_rights": "written by the generators of this package"}
RIGHT = {"do": "math.equal"}


def experiment(data: Path, folder: Path, seeds: range, scale: float) -> Experiment:
    problems = {"do": "file", "path": str(DEMO / "seeds.jsonl"), "terms": TERMS}
    steps = args(int(100 * scale), rate=5e-4)

    def begun(seed: int) -> Path:
        """A student that the teacher has shown how to reason, stopped while it still makes mistakes."""
        told = recipe(
            "start",
            seed,
            teachers={"main": {"backend": "pocket", "sampling": {"max_tokens": 96}}},
            knowledge={
                "reasoning": {
                    "seeds": problems,
                    "elicit": [{"do": "labeling.reason", "teacher": "main", "instruction": None}],
                    "select": [{"do": "quality.correct", "grader": RIGHT}],
                }
            },
            student={"model": "pocket"},
            **phase(
                [{"do": "supervised.cross_entropy", "on": "reasoning"}],
                args(int(200 * scale), rate=4e-3, batch=12, adam_beta2=0.95),
            ),
        )
        return trained(folder / f"start-{seed}", told)

    def judged(grader: dict[str, Any]) -> dict[str, Any]:
        sampling = {"max_tokens": 96, "temperature": 1.0, "n": 8}
        return {
            "seeds": problems,
            "elicit": [
                {"do": "labeling.answer", "teacher": "start", "sampling": sampling},
                {"do": "feedback.graded", "grader": grader},
            ],
        }

    def paired(grader: dict[str, Any]) -> dict[str, Any]:
        made = judged(grader)
        return made | {"elicit": [*made["elicit"], {"do": "feedback.pairs", "rejected": "random"}]}

    def rewarded(grader: dict[str, Any]) -> dict[str, Any]:
        rollouts = {"on": "problems", "samples": 8, "max_new_tokens": 80, "reward": grader}
        return phase(
            [{"do": "reinforcement.leave_one_out", "on": "rollouts"}],
            steps | {"per_device_train_batch_size": 8},
            rollouts=rollouts,
        )

    def preferring(on: str) -> dict[str, Any]:
        return phase([{"do": "ranking.dpo", "on": on, "beta": 0.1}], steps)

    def made(seed: int) -> dict[str, Any]:
        coin = {"do": f"{CONTROLS}:coin"}
        return recipe(
            "preferences",
            seed,
            teachers={"start": teacher(begun(seed))},
            knowledge={
                "problems": {"seeds": problems, "elicit": [{"do": "labeling.reference"}]},
                "right": judged(RIGHT) | {"select": [{"do": "quality.score", "at_least": 1}]},
                "pairs": paired(RIGHT),
                "coin_pairs": paired(coin),
            },
            student={"model": str(begun(seed)), "terms": TERMS},
            arms={
                "own_right_answers": phase([{"do": "supervised.cross_entropy", "on": "right"}], steps),
                "dpo": preferring("pairs"),
                "leave_one_out": rewarded(RIGHT),
                "dpo_by_coin": preferring("coin_pairs"),
                "leave_one_out_by_coin": rewarded(coin),
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

    return Experiment(
        "Does a checker's word on the student's own answers raise the skill, beyond what the same training without it does?",
        {seed: made(seed) for seed in seeds},
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
