"""Two-turn chats: facts in the first turn, a follow-up question about one of them in the second."""

from tools.pocket.item import Draw, Item
from tools.pocket.words import ANIMALS, CITIES, FOODS, INSTRUMENTS, JOBS, article, person

NAME = "dialogue"
# what is said, the questions that follow, the answer
FACTS = {
    "name": (
        "My name is {v}.",
        ("What is my name?", "Which name do I have?", "What am I called?", "Who am I?", "Do you know my name?"),
        "Your name is {v}.",
    ),
    "city": (
        "I live in {v}.",
        (
            "Where do I live?",
            "What is my city?",
            "In which city do I live?",
            "Which city do I live in?",
            "What city do I live in?",
        ),
        "You live in {v}.",
    ),
    "job": (
        "I am {v}.",
        (
            "What is my job?",
            "Which job do I have?",
            "What is the job that I have?",
            "What do I do?",
            "What job do I have?",
        ),
        "You are {v}.",
    ),
    "pet": (
        "I have {v}.",
        (
            "What pet do I have?",
            "What is my pet?",
            "Which pet do I have?",
            "Which animal do I have?",
            "What animal do I have?",
        ),
        "You have {v}.",
    ),
    "food": (
        "I like {v}.",
        (
            "What do I like?",
            "What do I like to eat?",
            "What kind of food do I like?",
            "Which food do I like?",
            "What food do I like?",
        ),
        "You like {v}.",
    ),
    "music": (
        "I play the {v}.",
        (
            "What do I play?",
            "What is my instrument?",
            "Which instrument is it that I play?",
            "Which instrument do I play?",
            "What instrument do I play?",
        ),
        "You play the {v}.",
    ),
}
GREETINGS = ("", "Hello. ", "Hi! ", "Good morning. ", "Good day. ")
REPLIES = ("Nice to meet you.", "Thank you for telling me.", "That is good to know.")


def make(draw: Draw) -> Item:
    while True:
        kinds = draw.sample(list(FACTS), draw.randint(2, 3))
        values = {kind: value(draw, kind) for kind in kinds}
        asked = draw.choice(kinds)
        if draw.fits((asked, values[asked])):
            break
    said = draw.wording(GREETINGS) + " ".join(FACTS[kind][0].format(v=values[kind]) for kind in kinds)
    turns = (said, draw.choice(REPLIES), draw.wording(FACTS[asked][1]), FACTS[asked][2].format(v=values[asked]))
    roles = ("user", "assistant") * 2
    messages = tuple({"role": role, "content": turn} for role, turn in zip(roles, turns, strict=True))
    return Item(NAME, asked, messages)


def value(draw: Draw, kind: str) -> str:
    return {
        "name": person(draw)[0],
        "city": draw.choice(CITIES),
        "job": article(draw.choice(JOBS)),
        "pet": article(draw.choice(ANIMALS)),
        "food": draw.choice(FOODS),
        "music": draw.choice(INSTRUMENTS),
    }[kind]


def right(item: Item, response: str) -> bool:
    return response == item.answer
