"""Say which of two answers to a word problem is better: the one without a mistake."""

from tools.pocket.item import Draw, Item, ask
from tools.pocket.skills.mistakes import mistaken
from tools.pocket.skills.stories import easy

NAME = "compare"
WORDINGS = (
    "Question: {q}\nAnswer A: {a}\nAnswer B: {b}\nWhich answer is better, A or B?",
    "Question: {q}\nA: {a}\nB: {b}\nWhich is better?",
    "Which answer is better?\nQuestion: {q}\nAnswer A: {a}\nAnswer B: {b}",
    "{q}\n\nA: {a}\n\nB: {b}\n\nAnswer with A or B.",
    "Compare two answers.\nQuestion: {q}\nA: {a}\nB: {b}\nBetter answer:",
    "Question: {q}\nAnswer A: {a}\nAnswer B: {b}\nWhich is better? Answer with A or B.",
)


def make(draw: Draw) -> Item:
    problem, better = easy(draw), draw.choice("AB")
    good, bad = problem.reasoning, mistaken(draw, problem).reasoning
    a, b = (good, bad) if better == "A" else (bad, good)
    return ask(NAME, better, draw.wording(WORDINGS).format(q=problem.question, a=a, b=b), better)


def right(item: Item, response: str) -> bool:
    return response == item.answer
