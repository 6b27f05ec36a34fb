"""The newer elicitors on rows that others published; teachers follow scripts or the data's own labels."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stillhouse.elicit import distilled, instances, judging, programs
from stillhouse.graders import code
from stillhouse.records import Example, Lost, Seed, user
from stillhouse.seeds import file
from stillhouse.selection.features import area

Scripted = Callable[..., Any]
PASSES = partial(code.passes, sandbox="process")


def tasks(data: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (data / "instruct" / "seed_tasks.jsonl").read_text().splitlines()]


def test_the_kinds_of_the_seed_tasks_are_told_apart(scripted: Scripted, data: Path) -> None:
    """R11: 80 of Self-Instruct's 175 tasks are rated by their own label; the rest is ranked far better than by chance."""
    rows = [
        Example(f"s{i}", (), row["instruction"], "5" if row["is_classification"] else "1")
        for i, row in enumerate(tasks(data))
    ]
    made = list(distilled.value(rows, scripted(reply="Value: {reference}"), sample=0.01, at_least=80))
    rest = [one for one in made if isinstance(one, Example) and one.columns["rated"] is None]
    assert len(rest) == 95
    told = area(np.array([one.columns["value"] for one in rest]), [one.reference == "5" for one in rest])
    assert told is not None and told > 0.75


def test_published_instances_are_read_back(scripted: Scripted, data: Path) -> None:
    """R01: the 175 seed tasks with their own instances, written as a teacher would; labels first for the 26 with labels."""
    rows = tasks(data)
    seeds = [Seed(row["id"], user(row["instruction"]), json.dumps(row)) for row in rows]

    def written(row: dict[str, Any]) -> str:
        given, output = row["instances"][0]["input"].strip() or "none", row["instances"][0]["output"].strip()
        parts = [f"[Input] {given}", f"[Output] {output}"]
        return "\n".join(reversed(parts) if row["is_classification"] else parts)

    kinds = {row["instruction"]: row["is_classification"] for row in rows}
    kept, lost = [], []
    for row, seed in zip(rows, seeds, strict=True):
        script = {
            "Answer with one word": "Yes" if row["is_classification"] else "No",
            "Here is a task": written(row).replace("{", "("),
        }
        for each in instances.written([seed], scripted(name=row["id"], responses=script)):
            (lost if isinstance(each, Lost) else kept).append(each)
    assert sum(one.columns["classification"] for one in kept) == sum(kinds.values()) == 26
    assert len(kept) >= 165
    assert {each.reason for each in lost} <= {"unfinished", "same_as_input", "no_instance", "empty_output"}
    forms = {one.prompt[0].content.split("\n")[0][:5] for one in instances.templated(kept)}
    assert "Task:" in forms


def test_programs_of_mbpp_stay_right_while_they_are_cleaned(scripted: Scripted, data: Path) -> None:
    """R60 (Code Clean): published programs with their tests; a plan in comments is taken, a broken renaming is not."""
    path = data / "code" / "mbpp_formatted.json"
    seeds = list(file(path=path, prompt="text", reference="{{ test_list | join('\\n') }}", columns=["code"], limit=4))
    rows = [Example(one.id, one.prompt, f"```python\n{one.columns['code']}\n```", one.reference) for one in seeds]
    script = {
        "names that say": "```python\ndef renamed_and_broken():\n    return None\n```",
        r"Program:\n=====\n(.*?)\n=====.*short plan": "```python\n# Plan: as the task says.\n{1}\n```",
        "Program": "I would not change it.",
    }
    made = list(programs.cleaned(rows, scripted(responses=script), grader=PASSES))
    right = [one for one in made if isinstance(one, Example)]
    assert len(right) >= 3
    assert all(one.columns["accepted"] == [3] and "# Plan" in one.response for one in right)
    assert {each.reason for each in made if isinstance(each, Lost)} <= {"wrong"}


def test_ratings_of_people_become_lessons(scripted: Scripted, data: Path) -> None:
    """R39: answers of PandaLM's test set, scored by how many of three people preferred them; agreeing verdicts are kept."""
    rows = json.loads((data / "preference" / "testset-v1.json").read_text())[:30]
    seeds = []
    for at, row in enumerate(rows):
        score = sum(row[f"annotator{k}"] == 1 for k in (1, 2, 3))
        seeds.append(
            Seed(f"v{at}", user(row["instruction"]), str(score), {"response": row["response1"], "score": score})
        )
    teacher = scripted(n=2, reply=["Read.\nworth: {reference}", "Read.\nworth: 0"])
    results = list(
        judging.rated(seeds, teacher, aspects={"worth": "how many of three people prefer it"}, low=0, high=3)
    )
    kept = [one for one in results if isinstance(one, Example)]
    assert {one.columns["rating"] for one in kept} == {float(seed.columns["score"]) for seed in seeds}
    zero = sum(seed.columns["score"] == 0 for seed in seeds)
    assert len(kept) == 30 + zero and sum(isinstance(each, Lost) for each in results) == 30 - zero
