"""Step labels (R24), grades by a checker, and trajectories as lessons (R50)."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillhouse.check import check
from stillhouse.elicit import feedback, labeling
from stillhouse.elicit.asking import Unparsed
from stillhouse.elicit.parsing import acts
from stillhouse.elicit.stepwise import steps_of, verdicts_of
from stillhouse.graders import math
from stillhouse.recipe import load_recipe
from stillhouse.records import Act, Example, Lost, Trajectory, user
from stillhouse.seeds import trajectories
from stillhouse.selection.quality import rewarded
from stillhouse.store import Records, write_records

Scripted = Callable[..., Any]


def solved(text: str = "2 + 2 = 4.\n4 * 3 = 13.\nThe answer is 13.") -> Example:
    return Example("one", user("What is (2 + 2) * 3?"), text, "12")


def test_r24_every_step_is_judged(scripted: Scripted) -> None:
    (one,) = feedback.step_labels([solved()], scripted(reply="1: right\n2: wrong\n3: wrong"))
    assert isinstance(one, Example)
    assert one.response == solved().response
    assert (one.columns["step_labels"], one.columns["score"]) == ([1, 0, 0], pytest.approx(1 / 3))
    lessons = list(feedback.step_verdicts([one]))
    assert [lesson.response for lesson in lessons if isinstance(lesson, Example)] == ["right", "wrong"]
    assert "4 * 3 = 13." not in lessons[0].prompt[0].content
    assert "4 * 3 = 13." in lessons[1].prompt[0].content


def test_a_judge_that_skips_or_repeats_a_step_is_not_believed(scripted: Scripted) -> None:
    for reply in ("1: right\n2: wrong", "1: right\n1: right\n2: right", "All right."):
        (one,) = feedback.step_labels([solved()], scripted(reply=reply))
        assert isinstance(one, Lost)
        assert (one.reason, one.state) == ("verdict_count", "quarantined")


def test_steps_are_lines_or_sentences() -> None:
    assert steps_of("First this. Then 3.5 of that. So 7.") == ["First this.", "Then 3.5 of that.", "So 7."]
    assert steps_of("a = 1\n\nb = 2") == ["a = 1", "b = 2"]
    assert verdicts_of("Step 1: right\n**2**: wrong.", 2) == [True, False]
    assert isinstance(verdicts_of("1: rightly", 1), Unparsed)


def test_a_checker_grades_and_what_it_cannot_tell_has_no_score() -> None:
    rows = [solved("The answer is 12."), solved("The answer is 13."), Example("n", user("?"), "4", None)]
    found = list(feedback.graded(rows, grader=math.equal))
    assert [one.columns["score"] for one in found if isinstance(one, Example)] == [1.0, 0.0]
    assert [one.reason for one in found if isinstance(one, Lost)] == ["could_not_tell:no_reference"]


RAW = """Thought: I need to search.
Action: search[height of K2]
Observation: 8611 m
Thought: Enough.
Action: finish[8611 m]
Observation: Episode finished, reward = True
"""


def test_r50_a_trajectory_is_read_and_learned_act_by_act() -> None:
    read = acts(RAW)
    assert not isinstance(read, Unparsed)
    assert read == (
        (
            Act("I need to search.", "search", "height of K2", "8611 m"),
            Act("Enough.", "finish", "8611 m", "Episode finished, reward = True"),
        ),
        1.0,
    )
    one = Trajectory("t", user("How high is K2?"), *read)
    first, second = labeling.acts([one])
    assert first.response == "Thought: I need to search.\nAction: search[height of K2]"
    assert [message.role for message in second.prompt] == ["user", "assistant", "user"]
    assert second.prompt[2].content == "Observation: 8611 m"
    assert "8611 m" not in first.response + first.prompt[0].content  # what the world says is read, never learned


@pytest.mark.parametrize(
    ("text", "reason"),
    [("no marks", "no_acts"), ("Thought: hm", "no_action"), ("Action: look around", "bad_action")],
)
def test_what_is_no_trajectory(text: str, reason: str) -> None:
    read = acts(text)
    assert isinstance(read, Unparsed)
    assert read.reason == reason


def test_trajectories_are_kept_by_reward_and_survive_the_disk(tmp_path: Path) -> None:
    rows = [
        Trajectory(str(i), user("a"), (Act("t", "finish", "x"),), reward)
        for i, reward in enumerate([1.0, 0.0, None, 1.0])
    ]
    assert [reason for _, reason in rewarded(rows, per_goal=1)] == [None, "low_reward", "no_reward", "enough"]
    write_records(tmp_path / "out.jsonl", rows)
    assert list(Records(tmp_path / "out.jsonl")) == rows


def test_r50_fireact_whole(data: Path) -> None:
    path = data / "agents" / "multitask_multimethod.json"
    rows = list(trajectories(path=path, prompt="instruction", text="output"))
    assert len(rows) == len(json.loads(path.read_text())) == 2063
    assert not [row for row in rows if isinstance(row, Lost)]
    assert Counter(row.reward for row in rows if isinstance(row, Trajectory)) == {1.0: 2016, 0.0: 47}
    assert len({row.id for row in rows if isinstance(row, Trajectory)}) == 2063
    examples = list(labeling.acts(row for row in rows if isinstance(row, Trajectory)))
    assert Counter(one.response.rpartition("Action: ")[2].split("[")[0] for one in examples) == {
        "search": 2250,
        "finish": 2063,
    }
    assert not [one for one in examples if "Observation:" in one.response]


def test_a_recipe_on_trajectories_is_checked(data: Path) -> None:
    told = {
        "name": "fire", "use": {"purpose": "research", "distributes": []}, "student": {"model": "pocket"},
        "knowledge": {"acts": {
            "seeds": {
                "do": "trajectories", "path": str(data / "agents" / "multitask_multimethod.json"),
                "prompt": "instruction", "text": "output",
            },
            "elicit": [{"do": "labeling.acts"}],
        }},
        "train": {"objectives": [{"do": "supervised.cross_entropy", "on": "acts"}], "args": {"max_steps": 1}},
    }  # fmt: skip
    plan = check(load_recipe(told))
    assert (plan.branches[0]["seeds"], plan.branches[0]["gives"]) == (2063, "Example")
