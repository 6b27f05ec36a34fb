"""A short passage and a question about it, answered with one sentence, or with "The passage does not say."."""

from dataclasses import dataclass

from tools.pocket.item import Draw, Item, ask
from tools.pocket.words import (
    ANIMALS,
    CITIES,
    COLOURS,
    FOODS,
    INSTRUMENTS,
    JOBS,
    MONTHS,
    PLACES,
    article,
    capital,
    people,
)

NAME = "reading"
UNSAID = "The passage does not say."


@dataclass(frozen=True)
class Fact:
    """`{x}` is who or what the fact is about, `{v}` its value."""

    values: tuple[str, ...]
    saying: str
    questions: tuple[str, ...]


PERSON = {
    "city": Fact(
        tuple(CITIES),
        "{x} lives in {v}",
        (
            "Where does {x} live?",
            "What city does {x} call home?",
            "In what city does {x} live?",
            "Which city is the home of {x}?",
            "Which city does {x} live in?",
            "In which city does {x} live?",
        ),
    ),
    "job": Fact(
        tuple(map(article, JOBS)),
        "{x} works as {v}",
        (
            "What is the job of {x}?",
            "Which job does {x} have?",
            "What does {x} do?",
            "What is {x} by trade, what job?",
            "What does {x} work as?",
            "What job does {x} have?",
        ),
    ),
    "pet": Fact(
        tuple(map(article, ANIMALS[:10])),
        "{x} has {v}",
        (
            "What pet does {x} have?",
            "Which pet does {x} have?",
            "What kind of animal does {x} have?",
            "Which animal lives with {x}?",
            "Which animal does {x} have?",
            "What animal does {x} have?",
        ),
    ),
    "food": Fact(
        tuple(FOODS),
        "{x} likes {v}",
        (
            "What does {x} like?",
            "Which food is liked by {x}?",
            "What does {x} like to eat?",
            "What kind of food does {x} like?",
            "Which food does {x} like?",
            "What food does {x} like?",
        ),
    ),
    "month": Fact(
        tuple(MONTHS),
        "{x} was born in {v}",
        (
            "When was {x} born?",
            "Which month was {x} born in?",
            "In what month was {x} born?",
            "What is the birth month of {x}?",
            "In which month was {x} born?",
            "What month was {x} born in?",
        ),
    ),
    "music": Fact(
        tuple("the " + i for i in INSTRUMENTS),
        "{x} plays {v}",
        (
            "What does {x} play?",
            "What kind of instrument does {x} play?",
            "Which instrument is played by {x}?",
            "What instrument is played by {x}?",
            "Which instrument does {x} play?",
            "What instrument does {x} play?",
        ),
    ),
    "car": Fact(
        tuple(map(article, COLOURS)),
        "{x} drives {v} car",
        (
            "What colour is the car of {x}?",
            "What kind of car does {x} drive?",
            "Which car is driven by {x}?",
            "What does {x} drive?",
            "What car does {x} drive?",
            "Which car does {x} drive?",
        ),
    ),
    "age": Fact(
        tuple(str(age) for age in range(18, 80)),
        "{x} is {v} years old",
        (
            "How old is {x}?",
            "How many years old is {x}?",
            "What is the age of {x} in years?",
            "Which age is {x}?",
            "What is the age of {x}?",
            "What age is {x}?",
        ),
    ),
}
SHOP = {
    "opens": Fact(
        tuple(str(h) for h in range(5, 12)),
        "{x} opens at {v}",
        (
            "When does {x} open?",
            "At what hour does {x} open?",
            "What hour does {x} open?",
            "At which time does {x} open?",
            "At what time does {x} open?",
            "What time does {x} open?",
        ),
    ),
    "closes": Fact(
        tuple(str(h) for h in range(3, 12)),
        "{x} closes at {v}",
        (
            "When does {x} close?",
            "At what hour does {x} close?",
            "What hour does {x} close?",
            "At which time does {x} close?",
            "At what time does {x} close?",
            "What time does {x} close?",
        ),
    ),
    "price": Fact(
        tuple(str(n) for n in range(2, 60)),
        "{x} costs {v} euros",
        (
            "How much does {x} cost?",
            "What price does {x} have?",
            "How many euros does {x} cost?",
            "What is to be paid for {x}, what is the price?",
            "What does {x} cost?",
            "What is the price of {x}?",
        ),
    ),
    "colour": Fact(
        tuple(COLOURS),
        "{x} is painted {v}",
        (
            "What colour is {x}?",
            "Which colour does {x} have?",
            "What colour was {x} painted?",
            "Which colour is {x} painted?",
            "Which colour is {x}?",
            "In what colour is {x} painted?",
        ),
    ),
    "near": Fact(
        tuple("the " + p for p in PLACES),
        "{x} is near {v}",
        (
            "Where is {x}?",
            "Which place is {x} near?",
            "What place is near {x}?",
            "What is near {x}?",
            "What is {x} near?",
            "What place is {x} near?",
        ),
    ),
    "owner": Fact(
        ("Ann", "Tom", "Mary", "Ben", "Sara", "Max", "Nora", "Paul", "Eva", "Leo"),
        "{x} belongs to {v}",
        (
            "Who owns {x}?",
            "Who is the owner of {x}?",
            "To which person does {x} belong?",
            "Who does {x} belong to?",
            "Whose is {x}?",
            "To whom does {x} belong?",
        ),
    ),
}
SIGHTS = (
    "the museum",
    "the zoo",
    "the pool",
    "the library",
    "the castle",
    "the cinema",
    "the theatre",
    "the cafe",
    "the shop",
    "the gallery",
)

FRAMES = (
    "{p}\nQuestion: {q}",
    "{p}\n\n{q}",
    "Passage: {p}\nQuestion: {q}",
    "Passage: {p}\n\nQuestion: {q}\nAnswer:",
    "Read the passage and answer the question.\n{p}\n{q}",
    "Read the text. {p}\nThen answer: {q}",
    "{p} {q}",
    "Answer from the passage. If it is not there, say so.\n{p}\n{q}",
    "Passage:\n{p}\n\nQuestion:\n{q}",
    "Read the passage. Answer the question.\n\n{p}\n\n{q}",
)


def make(draw: Draw) -> Item:
    about_people = draw.chance(0.6)
    table = PERSON if about_people else SHOP
    while True:
        entities = people(draw, 2) if about_people else [(sight, "it") for sight in draw.sample(SIGHTS, 2)]
        known = [(e, key) for e in entities for key in draw.sample(list(table), draw.randint(1, 2))]
        (name, _), key, said = asked(draw, entities, known, table)
        if draw.fits((name, key)):
            break
    values = {(e[0], k): draw.choice(table[k].values) for e, k in known}
    passage = write(draw, known, values, table)
    question = draw.wording(table[key].questions).format(x=name)
    answer = capital(table[key].saying.format(x=name, v=values[name, key])) + "." if said else UNSAID
    prompt = draw.wording(FRAMES).format(p=passage, q=question)
    value = values[name, key] if said else UNSAID
    return ask(NAME, "said" if said else "unsaid", prompt, answer, name=name, value=value, passage=passage)


def asked(draw: Draw, entities: list, known: list, table: dict) -> tuple[tuple[str, str], str, bool]:
    """Who, what about them, and whether the passage says it; one question in four is not answered."""
    if draw.chance(0.75):
        return *draw.choice(known), True
    entity = draw.choice(entities)
    missing = [key for key in table if (entity, key) not in known]
    # half of the unsaid facts are said of the other one, so that the name matters
    others = [key for other, key in known if other != entity and key in missing]
    return entity, draw.choice(others if others and draw.chance(0.5) else missing), False


def write(draw: Draw, known: list, values: dict, table: dict) -> str:
    sentences, last = [], None
    for (name, pronoun), key in known:
        subject = pronoun if name == last and draw.chance(0.7) else name
        sentences.append(capital(table[key].saying.format(x=subject, v=values[name, key])) + ".")
        last = name
    return " ".join(sentences)


def right(item: Item, response: str) -> bool:
    if item.kind == "unsaid":
        return response == UNSAID
    return response == item.answer
