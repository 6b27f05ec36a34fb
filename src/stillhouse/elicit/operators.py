"""The ways in which `expansion.evolve` rewrites a request, in words of our own."""

__all__: list[str] = []

MARK = "New request:"
FRAME = (
    "You rewrite requests that people make to a language model.\n\n{method}\n\nKeep the new request sensible for a person, "
    "answerable by text alone, and at most about 20 words longer. Do not answer it, and do not mention this text or the old "
    'request in it. Write it behind the words "New request:".\n\nOld request:\n{text}'
)
# a rewriting that holds one of these has copied from the frame
LEAKS = ("old request", "new request", "rewritten request", "rewrite requests")

METHODS = {
    "constrain": "Add one more condition that a good answer must meet.",
    "deepen": "Ask further into the matter: go beyond the surface that the old request stays on.",
    "concretise": "Replace a general notion in it by a more specific one, with a case, a number or a name.",
    "reason": "Change it so that an answer needs several steps of reasoning where one was enough.",
    "complicate_input": "Give it something to work on: a small table, a formula, a list of data or a few lines of code.",
    "breadth": "Make a request of the same field and about the same length and difficulty, on something rarer.",
    "alike": "Make a new request of the same field and the same kind of task, about as long and as hard.",
    "code_constrain": "Add one requirement to the programming task, in about ten words.",
    "code_rarer": "Replace a common requirement of the programming task by a less common, more specific one.",
    "code_steps": "Change the programming task so that solving it needs more steps of reasoning.",
    "code_misdirect": "Add a short piece of erroneous code to the programming task that may lead a reader astray.",
    "code_complexity": "Demand a lower time or space complexity of the solution to the programming task.",
    "maths_harder": "Make the problem harder: one more quantity, one more condition or one more step, still with one answer.",
    "maths_concrete": "Put the problem into a concrete situation with its own numbers, still with one answer.",
    "maths_easier": "Make the problem easier: fewer quantities or fewer steps, still with one answer.",
    "maths_new": "Make a new problem of the same topic that is easier than this one and asks for something else.",
}
TEXT = ("constrain", "deepen", "concretise", "reason", "breadth")
CODE = ("code_constrain", "code_rarer", "code_steps", "code_misdirect", "code_complexity")
MATHS = ("maths_harder", "maths_concrete", "maths_easier", "maths_new")
