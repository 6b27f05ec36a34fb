"""Write another word problem of the same kind as a given one."""

import re

from tools.pocket.item import Draw, Item, ask
from tools.pocket.skills.stories import STORIES, Problem, easy, tell

NAME = "new_problem"
WORDINGS = (
    "Write a new problem like this one: {q}",
    "Write a new problem like this one:\n{q}",
    "Here is a problem: {q}\nWrite another one like it.",
    "Make up a similar problem.\n{q}",
    "Problem: {q}\nNew problem:",
    "Write a problem that is similar to this one.\n{q}",
    "Write another problem like this one:\n{q}",
)


def make(draw: Draw) -> Item:
    shown = easy(draw)
    prompt = draw.wording(WORDINGS).format(q=shown.question)
    return ask(NAME, shown.story, prompt, similar(draw, shown).question, shown=shown.question)


def similar(draw: Draw, shown: Problem) -> Problem:
    """The same story with other people, things, numbers and signs."""
    story = next(story for story in STORIES if story.name == shown.story)
    numbers = [draw.choice((2, 3, 4, 5, 6)) for _ in range(2)]
    start = draw.randint(7, 12)
    first = draw.choice((1, -1)) * numbers[0]
    second = (1 if start + first - numbers[1] < 0 else draw.choice((1, -1))) * numbers[1]
    return tell(draw, story, start, [first, second])


def right(item: Item, response: str) -> bool:
    """A question about three numbers that is not the shown one."""
    return response.endswith("?") and len(re.findall(r"\d+", response)) == 3 and response != item.facts["shown"]
