"""Say whether a proposed answer with its reasoning is right: "Correct." or "Wrong." with one short reason."""

from tools.pocket.item import Draw, Item, ask
from tools.pocket.skills.mistakes import mistaken
from tools.pocket.skills.stories import amounts, easy

NAME = "check_answer"
WORDINGS = (
    "Question: {q}\nAnswer: {a}\nIs the answer correct?",
    "Question: {q}\nProposed answer: {a}\nCheck the answer.",
    "{q}\n\nAnswer: {a}\n\nIs this correct?",
    "Check this answer.\nQuestion: {q}\nAnswer: {a}",
    "Problem: {q}\nSolution: {a}\nIs the solution right?",
    "Is this answer right?\nQuestion: {q}\nAnswer: {a}",
    "Check the answer.\nQuestion: {q}\nAnswer: {a}\nIs it correct?",
)


def make(draw: Draw) -> Item:
    problem = draw.choice((easy, easy, amounts))(draw)
    good = draw.chance(0.5)
    mistake = None if good else mistaken(draw, problem)
    prompt = draw.wording(WORDINGS).format(q=problem.question, a=problem.reasoning if good else mistake.reasoning)
    return ask(NAME, "correct" if good else "wrong", prompt, "Correct." if good else f"Wrong. {mistake.reason}")


def right(item: Item, response: str) -> bool:
    """The verdict counts, not the reason."""
    return response.split(" ")[0] == item.answer.split(" ")[0]
