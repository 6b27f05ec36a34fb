"""Chains of recipes: each part runs on what the part before left behind, with the embedded student, a few steps each."""

import json
from pathlib import Path
from typing import Any

import pytest
from scripted_recipes import scripted

from stillhouse.recipe import Loaded, build, load_recipe, shipped_recipes
from stillhouse.run import Options, Run, execute

ALIGNMENT, MEDICAL, NLP = "skills/alignment/", "verticals/medical/", "skills/nlp/"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STILLHOUSE_STORE", str(tmp_path / "store"))
    return tmp_path / "runs"


def part(name: str, runs: Path, *, by_script: bool, model: str = "", limit: int = 4) -> Run:
    """One recipe of a chain, where the runs before it lie in `runs`; `model` is the student that it starts from."""
    data: dict[str, Any] = scripted(name, train=True) if by_script else load_recipe(name).data
    folder = shipped_recipes()[name].parent
    data = json.loads(json.dumps(data).replace(f"{folder}/runs", str(runs)))
    phases = data["train"] if isinstance(data["train"], list) else [data["train"]]
    for phase in phases:
        phase["args"] = {**phase["args"], "max_steps": 1, "per_device_train_batch_size": 2}
        if phase.get("rollouts"):
            phase["rollouts"] |= {"max_new_tokens": 6, "samples": 2}
    for branch in data["knowledge"].values():
        for entry in branch.get("elicit", []):
            if entry["do"] == "preferences.reward_model" and by_script:
                entry["path"] = str(runs / "rule-reward")
    if model:
        data["student"]["model"] = str(runs / model / "student")
    data.pop("evaluate", None)
    loaded = Loaded(recipe=build(data, name), folder=folder, data=data)
    return execute(loaded, runs / data["name"], Options(quiet=True, limit=limit))


@pytest.mark.slow
def test_a_constitution_to_its_policy(runs: Path) -> None:
    """R32: revised answers, a preference model on soft labels of principles, then rewards of it with a KL to the start."""
    part(ALIGNMENT + "constitution", runs, by_script=True)
    # the shipped student after one step does not end what it says: the base answers in its place
    judged = part(ALIGNMENT + "constitution_preferences", runs, by_script=True, limit=6)
    rankings = list(judged.records("preferred"))
    assert rankings and all(sum(one.scores) == pytest.approx(1) for one in rankings)
    final = part(ALIGNMENT + "constitution_policy", runs, by_script=False, model="constitution")
    (record,) = final.manifest["students"]
    assert record["phases"][-1]["final_loss"] is not None
    plan = final.manifest["terms"]["plan"]
    assert plan["student_base"] == "stillhouse/pocket-student"
    assert {"train_on_outputs", "judge_or_reward"} <= {
        row["method"] for row in plan["teachers"]
    }  # the start's, and the rewarder's


@pytest.mark.slow
def test_a_rule_to_its_best_answers(runs: Path) -> None:
    """R35 (ALMoST): a reward model on who answered, then the best of four by it."""
    part(ALIGNMENT + "rule_reward", runs, by_script=True)
    best = part(ALIGNMENT + "best_by_reward", runs, by_script=True)
    rows = list(best.records("demonstrations"))
    assert len({one.prompt for one in rows}) == len(rows) == 4
    assert all(isinstance(one.columns["score"], float) for one in rows)


@pytest.mark.slow
def test_patients_are_answered_for_a_reward(runs: Path) -> None:
    """R62 (HuatuoGPT): real and distilled answers, answers judged beside the doctor's, rewards of that model."""
    part(MEDICAL + "consultations", runs, by_script=True)
    part(MEDICAL + "judged_answers", runs, by_script=True)
    final = part(MEDICAL + "mixed_feedback", runs, by_script=False, model="consultations")
    assert (final.student / "config.json").is_file()


@pytest.mark.slow
def test_the_engraved_student_teaches_itself_to_say_more(runs: Path) -> None:
    """R40 (Self-Align): the principles' student is teacher and start; its terms go along, the wish is not learnt."""
    part(ALIGNMENT + "principles", runs, by_script=True)
    run = part(ALIGNMENT + "verbose_cloning", runs, by_script=True, model="principles")
    assert all("at length" not in one.prompt[0].content for one in run.records("long_answers"))
    plan = run.manifest["terms"]["plan"]
    assert {"requests.jsonl"} == {row["id"].rpartition("/")[2] for row in plan["datasets"]}
    assert plan["student_base"] == "stillhouse/pocket-student"  # what the start itself started from
    assert {row["model"] for row in plan["teachers"]} == {"stillhouse/scripted"}


@pytest.mark.slow
def test_evolved_problems_are_solved_for_two_rewards(runs: Path) -> None:
    """R24 (RLEIF): versions ranked, steps judged, each by a scoring head; then their product rewards the student, twice over."""
    part(NLP + "instruction_rewards", runs, by_script=True)
    part(NLP + "step_critic", runs, by_script=True)
    final = part(NLP + "evolved_rewards", runs, by_script=True)
    rows = [json.loads(line) for line in (final.path / "metrics.jsonl").read_text().splitlines()]
    rewarded = [row["reward"] for row in rows if "reward" in row]
    assert rewarded and all(0 <= reward < 1 for reward in rewarded)
    assert any(row["method"] == "judge_or_reward" for row in final.manifest["terms"]["plan"]["teachers"])


@pytest.mark.slow
def test_a_model_that_rewrites_rewards_tokens(runs: Path) -> None:
    """R42 (RLMEC): corrections teach a generative reward model, whose probabilities reward the student's own answers."""
    part(ALIGNMENT + "rewriting_model", runs, by_script=True)
    data = load_recipe(ALIGNMENT + "token_rewards").data
    mended = scripted(ALIGNMENT + "token_rewards")
    data["knowledge"], rewriter = mended["knowledge"], {"backend": "run", "path": str(runs / "rewriting-model")}
    data["teachers"] = mended["teachers"] | {"rewriter": rewriter}
    data["train"]["args"] |= {"max_steps": 1, "per_device_train_batch_size": 2}
    data["train"]["rollouts"] |= {"max_new_tokens": 6, "samples": 2}
    folder = shipped_recipes()[ALIGNMENT + "token_rewards"].parent
    loaded = Loaded(recipe=build(data, "token_rewards"), folder=folder, data=data)
    final = execute(loaded, runs / "token-rewards", Options(quiet=True, limit=4))
    rows = [json.loads(line) for line in (final.path / "metrics.jsonl").read_text().splitlines()]
    assert {"loss/reinforcement.rlmec on rollouts", "loss/supervised.edited on corrected"} <= set(rows[-1])
