"""What more recipes on instructions, alignment and tasks make of their own seeds; as `test_rows.py`, for rows finished later."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted_recipes import kept, scripted

from stillhouse.recipe import Loaded, build, load_recipe, shipped_recipes
from stillhouse.run import Options, execute
from stillhouse.store import Records

Made = Callable[..., dict[str, list[Any]]]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """`made("skills/...")`: what the recipe keeps with a scripted teacher, by branch."""
    monkeypatch.setenv("STILLHOUSE_STORE", str(tmp_path / "store"))
    return lambda name, limit=3, **paths: kept(name, tmp_path, limit, **paths)


def test_labels_come_before_their_texts_and_prompts_vary(made: Made) -> None:
    """R01: a task with labels has an input for each of them; no one form of prompt is learnt."""
    (found,) = made("skills/context_following/instances", None).values()
    kinds = {one.columns["instruction"]: one.columns["classification"] for one in found}
    assert kinds["Name three cold towns."] and not kinds["Explain how rivers find the sea."]
    assert {(one.columns["input"], one.response) for one in found if one.columns["classification"]} == {
        ("Oslo", "cold"), ("Rome", "warm"),
    }  # fmt: skip
    rest = {
        one.prompt[0].content.replace(one.columns["instruction"], "").replace(one.columns["input"], "") for one in found
    }
    assert len(rest) >= 3


def test_a_stronger_teacher_comes_second() -> None:
    """R05 (Orca): two teachers, two phases, the second on fewer rows, from where the first ended."""
    recipe = load_recipe("skills/context_following/explanations").recipe
    asked = [branch.elicit[0].teacher for branch in recipe.knowledge.values()]
    assert asked == ["ready", "strong"]
    assert [phase.objectives[0].on for phase in recipe.train] == ["first", "second"]
    assert recipe.train[1].init == "previous"
    assert recipe.knowledge["second"].seeds.knobs["limit"] < 10


def test_evolution_stops_when_a_held_out_score_no_longer_rises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R04 (WizardCoder): each round evolves what the one before made; the run ends by itself, with the better student."""
    name = "skills/nlp/evolved_while_it_helps"
    monkeypatch.setenv("STILLHOUSE_STORE", str(tmp_path / "store"))
    shipped = load_recipe(name).data
    assert (shipped["rounds"]["most"], shipped["rounds"]["stop"]) == (4, {"gain": 0.0})
    data = scripted(name, train=True)
    data["train"]["args"] = {"max_steps": 1, "per_device_train_batch_size": 2}
    data["rounds"] = {"most": 4, "learn": "all", "stop": {"gain": 0.01, "length": 100, "distinct": 0}}
    data["knowledge"]["tasks"]["carry"] = "last"
    data["evaluate"] = [{**shipped["evaluate"][0], "max_new_tokens": 4, "limit": 3}]
    loaded = Loaded(recipe=build(data, name), folder=shipped_recipes()[name].parent, data=data)
    run = execute(loaded, tmp_path / "run", Options(quiet=True, limit=2))
    assert [row["stopped"] for row in run.manifest["rounds"]] == ["", "held-out gain +0.000"]
    first, second = (
        [one for one in Records(next((run.path / "knowledge/tasks").glob(f"round-{n}/01-*")) / "out.jsonl")]
        for n in (1, 2)
    )
    assert second and not {one.prompt for one in second} & {one.prompt for one in first}
    assert all("hurry" in one.prompt[0].content.split(" Explain")[1] for one in second)  # rewritten twice


def test_answers_about_a_picture_are_preferred_for_what_it_bears_out(made: Made) -> None:
    """R61 (Silkie), SK15: several models' answers to one picture in words, the judge's best above its worst."""
    (found,) = made("skills/multimodal/preferred").values()
    assert all(one.scores[0] > one.scores[1] and one.columns["image"].endswith(".jpg") for one in found)
    assert all("apple at" in one.prompt[0].content for one in found[:1])
    aspects = load_recipe("skills/multimodal/preferred").recipe.knowledge["answers"].elicit[2].knobs["aspects"]
    assert "truth" in aspects
