"""What the recipes for agents and tools make: the point of each row, seen in the records that a student learns from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted_recipes import kept

from stillhouse.recipe import load_recipe

Made = Callable[..., dict[str, list[Any]]]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """`made("skills/...")`: what the recipe keeps with a scripted teacher, by branch."""
    monkeypatch.setenv("STILLHOUSE_STORE", str(tmp_path / "store"))
    return lambda name, limit=3: kept(name, tmp_path, limit)


def test_useful_calls_stand_in_their_texts_with_their_results(made: Made) -> None:
    """R46 (Toolformer), J8, SK07: sampled at likely places, run, and kept by a real model's losses; plain texts beside them."""
    found = made("skills/agent/useful_calls", 2)
    (one,) = found["called"]
    assert "[calculator(48 + 37) -> 85]" in one.response
    assert all(gain >= 0.5 for gain in one.columns["gains"])
    assert one.prompt == ()
    assert [text.response.count("[") for text in found["plain"]] == [0, 0]


def test_a_search_over_calls_gives_the_branch_that_succeeded(made: Made) -> None:
    """R48 (ToolLLM), J7, SK07: what was tried and given up is nowhere in what is learnt."""
    (found,) = made("skills/agent/depth_first").values()
    assert {one.response.split("\n")[1] for one in found} == {
        "Action: book_table[2, Saturday]",
        "Action: finish[it is done]",
    }
    assert {one.columns["nodes"] for one in found} == {4}
    assert "look[around]" not in str([one.prompt for one in found])


def test_an_agent_acts_in_a_world_that_runs(made: Made) -> None:
    """R50 (FireAct, AgentTuning), SK08: the search is real, the reward is a checker's, and reasoning stands in the same form."""
    found = made("skills/agent/react", None)
    last = [one for one in found["acting"] if one.response.endswith("finish[Ghent]")]
    assert last
    assert "cast in Ghent" in last[0].prompt[-1].content
    assert last[0].prompt[-1].content.startswith("Observation: ")
    assert {one.columns["reward"] for one in found["acting"] + found["reasoning"]} == {1.0}
    assert found["reasoning"][0].prompt[0] == found["acting"][0].prompt[0]
    weights = {entry.on: entry.weight for entry in load_recipe("skills/agent/react").recipe.train[0].objectives}
    assert weights["acting"] + weights["reasoning"] == pytest.approx(0.2)


def test_three_students_go_on_from_one(made: Made) -> None:
    """R49 (alpha-UMi): whole trajectories first, then planner, caller and summariser apart."""
    found = made("skills/agent/roles", None)
    assert {one.response.rpartition("Next: ")[2] for one in found["planning"]} == {"caller", "summariser"}
    assert all(one.response.startswith("Action: search[") for one in found["calling"])
    assert [one.response for one in found["summarising"]] == ["Ann Lee", "Ghent", "the railway"]
    arms = load_recipe("skills/agent/roles").arms()
    assert {arm: [phase.objectives[0].on for phase in recipe.train] for arm, recipe in arms.items()} == {
        "planner": ["whole", "planning"], "caller": ["whole", "calling"], "summariser": ["whole", "summarising"],
    }  # fmt: skip


def test_a_curriculum_of_tools_goes_from_one_to_all(made: Made) -> None:
    """R49 (Confucius): the tool that fits, then among others, then among what a search finds; and again what fails."""
    found = made("skills/agent/curriculum", None)

    def tools(branch: str) -> set[int]:
        return {one.prompt[-1].content.split("Request:")[0].count("(") for one in found[branch]}

    assert max(tools("alone")) == 1
    assert max(tools("among_few")) == 2
    assert max(tools("among_all")) > 2
    recipe = load_recipe("skills/agent/curriculum").recipe
    assert [phase.objectives[0].on for phase in recipe.train] == ["alone", "among_few", "among_all"]
    assert recipe.rounds.most == 2
    assert "feedback.failed" in [entry.do for entry in recipe.knowledge["not_yet"].elicit]
