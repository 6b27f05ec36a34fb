"""Students that act: pass rate in a world, and tools that run while a student writes."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from small_runs import write_jsonl

from stillhouse import distill
from stillhouse.environments import World, toolbox
from stillhouse.evaluate.tasks.agent import agent
from stillhouse.graders.text import exact
from stillhouse.records import Prompt, Seed
from stillhouse.tools import calculator

TOOL = 'def calculator(argument: str) -> str:\n    """Always says the same."""\n    return "99"\n'


def box(seed: Seed) -> World:
    return toolbox(seed, tools=[calculator])


def test_r48_the_pass_rate_is_that_of_goals_reached_by_acting(tmp_path: Path) -> None:
    """R48, R50: all goals go on together; what cannot be read, or never ends, is not reached."""
    rows = [{"prompt": f"What is 3 + {n}?", "reference": str(3 + n)} for n in range(4)]
    sizes: list[int] = []

    def ask(prompts: Sequence[Prompt], limit: int) -> list[str]:
        sizes.append(len(prompts))
        return [_act("\n".join(message.content for message in prompt)) for prompt in prompts]

    scores = agent(ask, path=write_jsonl(tmp_path / "g.jsonl", rows), environment=box, grader=exact, steps=3)
    assert [(one.value, one.reason) for one in scores] == [
        (1.0, "reached"), (0.0, "not_reached"), (0.0, "no_acts"), (0.0, "no_end"),
    ]  # fmt: skip
    assert scores[0].response == "calculator[3 + 0] finish[3]"
    assert sizes == [4, 2, 1]


def _act(told: str) -> str:
    if "3 + 2" in told:
        return "Five, I think."
    if "Observation: 3" in told or "3 + 1" in told:
        return "Action: finish[3]"
    return f"Thought: Add.\nAction: calculator[3 + {told.rpartition('3 + ')[2][0]}]"


def test_r46_a_student_stops_at_a_call_and_goes_on_with_what_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R46, from a recipe: a tool of the user's answers 99, which the student never saw, and stands in its text."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STILLHOUSE_STORE", str(tmp_path / "store"))
    rows = [{"prompt": "How many?", "reference": "It is [calculator(3 + 4) -> 7] as you see."}]
    write_jsonl(tmp_path / "seeds.jsonl", rows * 8)
    (tmp_path / "mine.py").write_text(TOOL)
    run = distill(
        {
            "name": "calls",
            "use": {"purpose": "research", "distributes": []},
            "knowledge": {"told": {"seeds": {"do": "file", "path": "seeds.jsonl"}, "elicit": [{"do": "labeling.reference"}]}},
            "student": {"model": "pocket"},
            "train": {
                "objectives": [{"do": "supervised.cross_entropy", "on": "told"}],
                "args": {"max_steps": 20, "per_device_train_batch_size": 2, "learning_rate": 5e-3},
            },
            "evaluate": [
                {
                    "do": "agent.with_tools", "path": "seeds.jsonl", "grader": {"do": "text.contains"}, "limit": 1,
                    "tools": [{"do": "mine.py:calculator"}],
                }
            ],
        },
        out="run", quiet=True,
    )  # fmt: skip
    from stillhouse.store import read_jsonl

    (row,) = [row for _, row in read_jsonl(run.path / "evaluate/agent.with_tools/main-0.jsonl")]
    assert row["response"].startswith("It is [calculator(3 + 4) -> 99]")
    assert "7]" not in row["response"]
