"""Every recipe of skills/ passes `check`, and its knowledge is made to the end by a teacher that follows a script."""

from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse.check import check
from stillhouse.recipe import load_recipe, shipped_recipes
from stillhouse.store import Records

# a recipe that reads a file of the user's (answers already recorded, say) cannot be checked without it
NAMES = sorted(
    name
    for name, path in shipped_recipes().items()
    if name.startswith("skills/") and "backend: recorded" not in path.read_text()
)
# these ask for log-probabilities, which a script cannot give: the embedded teacher answers instead
WHITE_BOX = {"skills/alignment/context_distillation", "skills/alignment/soft_preferences"}

SCRIPT = {
    "Judge an answer.*First answer:\n=====\nhm": "First: 2\nSecond: 9",
    "Judge an answer.*First answer:": "First: 9\nSecond: 2",
    "Judge an answer.*answer number 1": "instruction: 5\ntruth: 5\nhonesty: 5\nhelp: 5\naccuracy: 5\nworth: 5",
    "Judge an answer.*answer number 0": "instruction: 4\ntruth: 4\nhonesty: 4\nhelp: 4\naccuracy: 5\nworth: 4",
    "Judge an answer": "instruction: 3\ntruth: 3\nhonesty: 3\nhelp: 2\naccuracy: 1\nworth: 1",
    "Rank the answers": "[2] > [4] > [1] > [3]",
    r"\[Critique\].*Request:": "",
    r"Request:\n=====\n(.*?)\n=====": "[Critique] Say more.\n[Revision] You asked: {1} {1} This is said in full.",
    "Do they ask for the same thing": "Different",
    r"Old request:\n(.*)": "New request: {1} Explain it to somebody who is in a hurry.",
    "Go on with the list": "1. Explain how rivers find the sea.\n2. Write a note to a baker.\n3. Name three cold towns.",
    "each with the text it works on": "###\nTask: Add the two numbers up.\nInput: 2 and 3\nOutput: 5\n",
    "subtopics of the topic": "1. Beginnings\n2. Dangers",
    r"requests about the topic below.*Topic: (.*)": "1. Who first wrote about {1}?\n2. Which tools does {1} need?",
    "other wordings": "1. It was a cold soup, and a rude man brought it.\n2. Rude people, cold food.",
    "Write the conversation": "[Human] What is it?\n[AI] It is a thing.\n[Human] Why?\n[AI] Because it is made so.",
    "You play a person": "And what follows from that?",
    r"\[Thought\]": "[Thought] The second rule matters.\n[Answer] I cannot know that for sure.",
    "search engine": "who needs to know about this place",
    r"\[Question\]": "[Question] When did it happen?\n[Answer] Long ago, in the valley.",
    r"\[Problem\]": "[Problem] Add two numbers.\n[Solution] Use plus.\n```python\ndef add(a, b):\n    return a + b\n```",
    "Kind: a short review": ["Shoes that fit at once.", "I would go there again with friends.", "It broke."],
    "Python program": "```python\nprint({reference})\n```",
    "Classify the text": "Class: {reference}",
    "useless|careless|unkind": "Do as you like.",
    "How many|left|sees|buys|gets|more|has": "That makes it. The answer is {reference}.",
}
REPLY = "You asked: {prompt} This is answer number {index}, and of some use to you."


def dry(name: str) -> dict[str, Any]:
    """The recipe with scripted teachers and without what comes after its knowledge."""
    data = load_recipe(name).data
    for key in ("train", "evaluate", "arms", "student"):
        data.pop(key, None)
    if name in WHITE_BOX:
        return data
    samples = {key: entry.get("sampling", {}) for key, entry in data["teachers"].items()}
    script = dict(SCRIPT)
    if name in ("skills/nlp/vote", "skills/nlp/evolved_problems"):
        script["How many|left|sees|buys|gets|more|has"] = "That makes it. The answer is 7."
    weak = "hm, number {index}" if "hard" in name else REPLY
    data["teachers"] = {
        "main": {"backend": "scripted", "responses": script, "reply": REPLY, "sampling": samples.get("main", {})},
        "weak": {"backend": "scripted", "reply": weak, "responses": {k: v for k, v in script.items() if "Judge" in k}},
    }
    for branch in data["knowledge"].values():
        for entry in branch["elicit"]:
            if entry.get("teacher") == "student":
                entry["teacher"] = "weak"
    return data


def test_there_are_recipes() -> None:
    assert len(NAMES) >= 30


@pytest.mark.parametrize("name", NAMES)
def test_check_passes(name: str) -> None:
    """C07: at least one recipe for the skills whose steps exist; the comment names the row of the survey."""
    plan = check(load_recipe(name))
    assert plan.branches
    text = shipped_recipes()[name].read_text(encoding="utf-8")
    assert text.startswith("# R"), "the first line names the survey's row"


@pytest.mark.parametrize("name", NAMES)
def test_its_knowledge_is_made_to_the_end(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C11: each recipe runs offline; some rows are kept, and every step says what it lost."""
    monkeypatch.setenv("STILLHOUSE_STORE", str(tmp_path / "store"))
    stillhouse.distill(dry(name), out=tmp_path / "run", limit=2, quiet=True)
    steps = sorted((tmp_path / "run" / "knowledge").glob("*/*"))
    assert len(Records(steps[-1] / "out.jsonl")) > 0
    assert all((step / "lost.jsonl").is_file() for step in steps)
