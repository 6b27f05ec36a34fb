"""What teachers are told when they write from meta-information, in words of our own."""

__all__: list[str] = []

SUBTOPICS = (
    "List {count} subtopics of the topic below, as a numbered list. Each is a short noun phrase, narrower than the topic; "
    "none overlap.\n\nTopic: {topic}"
)
QUESTIONS = (
    "Write {count} requests about the topic below that a person might bring to an assistant, as a numbered list. Some ask for "
    "facts, some for an explanation, some for advice or a piece of writing. Each can be understood alone.\n\nTopic: {topic}"
)
FROM_DOCUMENT = (
    "Read the text. Then write one question that it answers, understandable without the text, and the answer, resting on the "
    "text alone. Write the question behind [Question] and the answer behind [Answer], each on a line of its own.\n\nText:\n{text}"
)
FOR_DOCUMENT = (
    "Read the text. Write {count} requests, as a numbered list, that a person could make about it: {tasks}. Speak of it as "
    '"the text". Do not fulfil them.\n\nText:\n{text}'
)
FROM_CODE = (
    "Here are some lines of code, taken from anywhere:\n\n{snippet}\n\nLet them inspire a programming problem; it need not use "
    "them. Write under [Problem] the problem, complete in itself, so that someone who never saw these lines can solve it, and "
    "under [Solution] a correct solution with its explanation, the code in one fenced block."
)
FROM_LABEL = (
    "Write one text of the kind described below, as it might really occur. Vary subject, length and tone; do not name the "
    "kind. Write the text only.\n\nKind: {label}{examples}"
)
QUERY = (
    "Write the query that someone would type into a search engine if the text below were just what they need. Use words of "
    "your own rather than whole phrases of the text. Write the query only, on one line.\n\nText:\n{text}"
)
TASKS = (
    "to rewrite it for other readers",
    "to summarise it",
    "to draw a conclusion from it",
    "to continue it",
    "to explain a part of it",
)
TEXTBOOK = (
    "Write a section of a textbook on the topic below, for {audience}. Explain the matter from its beginnings, with a worked "
    "example wherever one helps, and end with what should be remembered. Write the section only.\n\nTopic: {topic}"
)
AUDIENCES = (
    "pupils who meet it for the first time",
    "students who have to be able to use it",
    "working people who need it tomorrow",
    "a curious reader without any training",
)
EXERCISE = (
    "Write a Python function for an exercise in a textbook. Its name is built on the words below. It has a docstring that "
    "says what it does, with one example, so that somebody could write the body from the docstring alone; then the body. "
    "Use the standard library only. Write one fenced block with the function and nothing else.\n\nWords: {words}"
)
POINTS = (
    "Which points of knowledge does one need to understand or to solve the text below? List at most {count}, as a numbered "
    "list; each is a short noun phrase that means something without the text.\n\nText:\n{text}"
)
FROM_POINTS = (
    "Write one problem whose solution needs all of these points of knowledge, together and not one after the other. It can be "
    "understood alone and has one answer. Write the problem only.\n\n{points}"
)
