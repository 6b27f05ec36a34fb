"""Arithmetic stories of one to three steps, answered with written reasoning or, when asked, with the answer only."""

import re

from tools.pocket.item import Draw, Item, ask
from tools.pocket.skills.stories import Problem, any_problem, easy, final

NAME = "word_problems"

# `{q}` is the question. A plain question gets the reasoning too.
REASONING = (
    "{q} Think step by step.",
    "{q}\nThink step by step.",
    "{q}\nLet's think step by step.",
    "{q} Show your work.",
    "{q}\nShow your steps, then give the answer.",
    "{q}\nExplain your reasoning.",
    "{q}\nThink step by step, then give the answer.",
    "Think step by step.\n{q}",
    "Solve this problem step by step.\n{q}",
    "Solve the problem. Show your work.\n{q}",
    "Answer the question and explain each step.\n{q}",
    "Reason step by step.\n\n{q}",
    "Question: {q}\nThink step by step.\nAnswer:",
    "Question: {q}\nAnswer with your reasoning:",
    "{q}\n\nThink step by step and end with: The answer is N.",
    "{q}\nFirst explain your reasoning, then give the final answer.",
    "Explain step by step.\n{q}",
    "Solve step by step.\n\n{q}",
    "{q}\nExplain your steps, then give the final answer.",
)
PLAIN = (
    "{q}",
    "{q}",
    "{q}",
    "Question: {q}",
    "Question: {q}\nAnswer:",
    "Solve this problem.\n{q}",
    "Problem: {q}",
    "Problem:\n{q}",
)
ANSWER_ONLY = (
    "{q} Give only the answer.",
    "{q}\nGive only the answer.",
    "{q}\nGive only the final answer.",
    "{q}\nAnswer without explanation.",
    "{q}\nOnly the answer, no reasoning.",
    "{q}\nReply with the answer only.",
    "Give only the answer.\n{q}",
    "Answer without reasoning.\n{q}",
    "Question: {q}\nGive only the answer.\nAnswer:",
    "Give only the final answer.\n\n{q}",
)
FINAL = re.compile(r"The answer is (-?\d+)\.")


def make(draw: Draw) -> Item:
    return phrase(draw, any_problem(draw), draw.choices(("plain", "reasoning", "answer_only"), weights=(40, 38, 22))[0])


def make_graded(draw: Draw) -> Item:
    """What the table counts: the answer comes with reasoning."""
    return phrase(draw, any_problem(draw), draw.choice(("plain", "reasoning")))


def make_easy(draw: Draw) -> Item:
    """The demo's problems: two steps within 0..9, asked plainly: a small student learns their sums in seconds."""
    return phrase(draw, easy(draw, limit=9, times=False), "easy")


def phrase(draw: Draw, problem: Problem, kind: str) -> Item:
    if kind == "easy":
        prompt = problem.question
    else:
        wordings = {"plain": PLAIN, "reasoning": REASONING, "answer_only": ANSWER_ONLY}[kind]
        prompt = draw.wording(wordings).format(q=problem.question)
    answer = final(problem.answer) if kind == "answer_only" else problem.reasoning
    return ask(NAME, kind, prompt, answer, story=problem.story, question=problem.question, final=problem.answer)


def right(item: Item, response: str) -> bool:
    """The last stated answer is the right one, and nothing follows it."""
    found = list(FINAL.finditer(response))
    return bool(found) and int(found[-1][1]) == item.facts["final"] and found[-1].end() == len(response.strip())
