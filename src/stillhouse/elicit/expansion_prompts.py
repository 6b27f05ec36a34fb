"""What teachers are told when they write new requests from others, in words of our own."""

__all__: list[str] = []

MORE_TASKS = (
    "Below is a numbered list of tasks for a language model. Go on with the list: write {count} more tasks, numbered from "
    "{first}. Let them differ from one another and from those above in subject, in form (questions, orders, requests) and in "
    "what they ask for. Each must be possible by reading and writing text alone.\n\n{shown}\n"
)
WHOLE_TASKS = (
    "Here are {shown_count} tasks for a language model, each with the text it works on and the right answer.\n\n{shown}\n\n"
    "Write {count} new ones in the same form: the marks ###, then Task:, Input: and Output: on lines of their own. Vary the "
    "subject, the wording and the kind of task; write Input: none where the task needs no text; make each Output correct and "
    "complete."
)
PARAPHRASE = (
    "Write {count} other wordings of the text below, as a numbered list. Each keeps its meaning exactly, all names and numbers "
    "included; they differ from one another in words and in structure.\n\n{text}"
)
FUSE = (
    "Here are two requests.\n\n[First]\n{first}\n\n[Second]\n{second}\n\nWrite one new request that needs what both need, "
    "so that a good answer to it must do justice to both, as one natural task and not as two in a row. Write the request only."
)
RESTATE = (
    "Here are a problem and its answer.\n\n[Problem]\n{problem}\n\n[Answer]\n{answer}\n\nSay both in one or more "
    "statements, without a question: everything the problem tells, and the answer as a fact. Keep all numbers as digits. "
    "Write the statements only."
)
SAME = (
    "Here are two requests.\n\n[First]\n{first}\n\n[Second]\n{second}\n\nDo they ask for the same thing, with the same demands, "
    "the same depth and the same breadth? Answer with one word: Equal or Different."
)
