"""Recipes whose point is the training: each passes `check`, and a dry run on a few rows trains to the end (R25-R45)."""

from pathlib import Path
from typing import Any

import pytest

from stillhouse.check import check
from stillhouse.recipe import load_recipe, shipped_recipes
from stillhouse.run import Options, execute

ROWS = {
    "R25": [
        "white_box/two_teachers",
        "white_box/both_sides",
        "white_box/keeping",
        "white_box/stored",
        "white_box/stored_forms",
    ],
    "R26": ["white_box/minillm"],
    "R27": ["white_box/on_policy", "white_box/speculative"],
    "R28": ["white_box/distillm", "white_box/contrastive"],
    "R29": ["white_box/task_aware"],
    "R30": ["white_box/fused", "white_box/other_tokenizer"],
    "R31": ["white_box/quantised", "white_box/quantised_tokens", "white_box/ternary", "white_box/pruned"],
    "R24": ["skills/nlp/critic_rewards"],
    "R33": ["skills/alignment/direct_reward"],
    "R36": ["skills/alignment/reward_model", "skills/alignment/ultrafeedback"],
    "R37": ["skills/alignment/ranked"],
    "R38": ["skills/alignment/self_play"],
    "R39": ["skills/alignment/self_rewarding"],
    "R42": ["skills/alignment/minimal_edits", "skills/alignment/rewriting_model"],
    "R45": ["skills/alignment/knowledge_preferences"],
    "R21": ["skills/nlp/checked_rewards", "skills/nlp/verifier"],
}
NAMED = [(row, name) for row, names in ROWS.items() for name in names]


def test_every_white_box_recipe_is_named_here() -> None:
    ours = {name for name in shipped_recipes() if name.startswith("white_box/")}
    assert ours <= {name for _, name in NAMED}


@pytest.mark.parametrize(("row", "name"), NAMED)
def test_it_passes_check_and_names_its_row(row: str, name: str) -> None:
    """R21, R25-R31, R33, R36-R39, R42, R45: no recipe of ours is one that check warns of."""
    plan = check(load_recipe(name))
    assert row in shipped_recipes()[name].read_text(encoding="utf-8").splitlines()[0]
    assert all("lost even to plain text" not in warning for warning in plan.warnings)


def dry(name: str) -> dict[str, Any]:
    """Two steps a phase on the rows that are there, and a script where a small teacher cannot judge."""
    data = load_recipe(name).data
    plans = [data["train"]] if "train" in data else [arm["train"] for arm in data["arms"].values()]
    for phase in [phase for plan in plans for phase in (plan if isinstance(plan, list) else [plan])]:
        phase["args"] = {**phase["args"], "max_steps": 2, "per_device_train_batch_size": 4, "logging_steps": 1}
        if phase.get("rollouts"):
            phase["rollouts"]["max_new_tokens"] = 6
            if phase["rollouts"].get("adaptive"):
                phase["rollouts"]["adaptive"] = {"examples": 2, "every": 1}
    for teacher in data.get("teachers", {}).values():
        teacher["sampling"] = {**teacher.get("sampling", {}), "max_tokens": 12}
    for branch in data["knowledge"].values():
        # a small teacher cut off after a few tokens answers nothing: the known answers stand for its own
        if name.startswith("white_box/"):
            known = {"do": "labeling.reference"}
            branch["elicit"] = [known if e["do"] == "labeling.answer" else e for e in branch.get("elicit", [])]
    judged = "alignment" in name and "direct_reward" not in name
    if judged and "main" in data.get("teachers", {}):
        data["teachers"]["main"] = {
            "backend": "scripted",
            "reply": "You asked: {prompt} Answer number {index}.",
            "responses": {
                "Judge an answer.*number 0": "instruction: 5\ntruth: 5\nhonesty: 5\nhelp: 5",
                "Judge an answer": "instruction: 3\ntruth: 3\nhonesty: 3\nhelp: 2",
                "Rank the answers": "[2] > [4] > [1] > [3]",
                r"as few changes.*?$": "It is 4, and that is all.",
            },
            "sampling": data["teachers"]["main"]["sampling"],
        }
    return data


@pytest.mark.slow
@pytest.mark.parametrize(("row", "name"), [pair for pair in NAMED if pair[1].startswith("white_box/")])
def test_a_dry_run_trains_to_the_end(row: str, name: str, tmp_path: Path) -> None:
    """R25, R26, R27, R28, R29, R30, R31: two steps of each phase with the embedded models, saved and reported."""
    run = execute(
        load_recipe(dry(name), folder=shipped_recipes()[name].parent), tmp_path / "run", Options(limit=8, quiet=True)
    )
    assert (run.student / "config.json").is_file()
    assert run.manifest["students"][0]["phases"][-1]["final_loss"] is not None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["skills/alignment/reward_model", "skills/alignment/direct_reward"])
def test_rewards_are_learned_and_used(name: str, tmp_path: Path) -> None:
    run = execute(
        load_recipe(dry(name), folder=shipped_recipes()[name].parent), tmp_path / "run", Options(limit=8, quiet=True)
    )
    if name.endswith("reward_model"):
        from stillhouse.records import user
        from stillhouse.scoring import Scorer

        one, other = Scorer(run.path).scores([(user("Say yes."), "yes"), (user("Say yes."), "no")])
        assert one != other
