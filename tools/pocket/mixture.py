"""Which skills there are, how much of each the teacher sees, and plain text."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from tools.pocket.item import Draw, Item
from tools.pocket.skills import (
    check_answer,
    classify,
    compare,
    constraints,
    dialogue,
    free_text,
    new_problem,
    paraphrase,
    reading,
    tools,
    word_problems,
)

GRADED = (word_problems, constraints, reading, tools, classify, free_text)
FURTHER = (check_answer, compare, new_problem, paraphrase, dialogue)
SKILLS: dict[str, ModuleType] = {skill.NAME: skill for skill in GRADED + FURTHER}

# Shares of the examples; what reads or computes more gets more.
WEIGHTS = {
    "word_problems": 32,
    "constraints": 13,
    "reading": 18,
    "tools": 14,
    "classify": 6,
    "free_text": 7,
    "check_answer": 2.5,
    "compare": 1,
    "new_problem": 1,
    "paraphrase": 2.5,
    "dialogue": 2,
}
SYSTEMS = (
    "You are a helpful assistant.",
    "You are a helpful teacher.",
    "Answer the question.",
    "Follow the instructions.",
    "Be clear and short.",
    "You are a careful assistant.",
)
BOOKS = ("bronte", "darwin", "dubois", "tiny_shakespeare")


def items(draw: Draw) -> Iterator[Item]:
    """Endless items of all skills; some get a system turn that changes nothing."""
    names, weights = list(WEIGHTS), list(WEIGHTS.values())
    while True:
        item = SKILLS[draw.choices(names, weights)[0]].make(draw)
        if item.messages[0]["role"] != "system" and draw.chance(0.1):
            system = {"role": "system", "content": draw.wording(SYSTEMS)}
            item = dataclasses.replace(item, messages=(system, *item.messages))
        yield item


def books(folder: Path) -> str:
    """The public-domain text, one book after the other."""
    return "\n\n".join((folder / f"{book}.txt").read_text(encoding="utf-8") for book in BOOKS)
