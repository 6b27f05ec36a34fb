"""Give a text one label out of a set stated in the prompt, or one code of a stated codebook."""

import re

from tools.pocket.item import Draw, Item, ask
from tools.pocket.words import DAYS, FOODS, FRUITS, INSTRUMENTS, JOBS, PLACES

NAME = "classify"

THINGS = (
    "film",
    "book",
    "room",
    "phone",
    "meal",
    "song",
    "bag",
    "game",
    "trip",
    "hotel",
    "lamp",
    "coat",
    "train",
    "shop",
    "map",
    "show",
)
PRAISE = (
    "great",
    "lovely",
    "wonderful",
    "excellent",
    "perfect",
    "superb",
    "fine",
    "brilliant",
    "amazing",
    "delightful",
)
BLAME = ("bad", "awful", "terrible", "poor", "broken", "useless", "dull", "horrible", "disappointing", "annoying")
PLAIN = ("brown", "square", "new", "round", "wooden", "short", "long", "grey", "flat", "narrow")

# scheme -> label -> (what the codebook says, texts)
SCHEMES: dict[str, dict[str, tuple[str, tuple[str, ...]]]] = {
    "sentiment": {
        "positive": (
            "the writer is pleased",
            (
                "I loved the {t}, it was {good}.",
                "The {t} was {good}!",
                "What a {good} {t}, thank you.",
                "We enjoyed this {t}. Really {good}.",
                "This {t} is {good}, I love it.",
            ),
        ),
        "negative": (
            "the writer is not pleased",
            (
                "I hated the {t}, it was {ill}.",
                "The {t} was {ill}!",
                "What a {ill} {t}, never again.",
                "We regret this {t}. Really {ill}.",
                "This {t} is {ill}, I hate it.",
            ),
        ),
        "neutral": (
            "the writer only states facts",
            (
                "The {t} is {plain}.",
                "The {t} was {plain} and came on {day}.",
                "I saw a {plain} {t} on {day}.",
                "This is a {plain} {t}.",
                "This {t} is {plain} and came on {day}.",
            ),
        ),
    },
    "topic": {
        "sports": (
            "about games and teams",
            (
                "The team won the match on {day}.",
                "She scored two goals in the game.",
                "The runner won the race.",
                "He trains with the team on {day}.",
                "The team lost the match on {day}.",
            ),
        ),
        "food": (
            "about eating and cooking",
            (
                "He cooks {food} for dinner.",
                "This {food} needs more salt.",
                "We ate {food} and a {fruit}.",
                "The recipe asks for a {fruit}.",
                "She cooks {food} on {day}.",
            ),
        ),
        "music": (
            "about songs and instruments",
            (
                "She plays the {instrument} in a band.",
                "The song has a slow {instrument} part.",
                "He sang a song on {day}.",
                "The band gives a concert on {day}.",
                "He plays the {instrument} in a concert.",
            ),
        ),
        "weather": (
            "about rain, sun and wind",
            (
                "It will rain on {day}.",
                "Snow fell by the {place}.",
                "A storm with strong wind comes on {day}.",
                "The sun shines on the {place}.",
                "There will be snow and wind on {day}.",
            ),
        ),
        "travel": (
            "about journeys",
            (
                "The flight leaves on {day}.",
                "We took the train to the {place}.",
                "Their hotel is near the {place}.",
                "Pack your bags, the trip starts on {day}.",
                "Our train trip starts on {day}.",
            ),
        ),
        "money": (
            "about prices and banks",
            (
                "The bank raised its rates on {day}.",
                "Prices went up again.",
                "He paid the loan back to the bank.",
                "Taxes are due on {day}.",
                "The bank wants the loan back on {day}.",
            ),
        ),
    },
    "urgency": {
        "urgent": (
            "needs an answer at once",
            (
                "Help, the {place} is on fire!",
                "Please come now, the pipe burst!",
                "I need a {job} right now!",
                "The server is down, fix it now!",
                "Please help, I need a {job} now!",
            ),
        ),
        "normal": (
            "can wait",
            (
                "Could you send the {t} next week?",
                "The {t} can wait until {day}.",
                "No hurry, tell me about the {t} later.",
                "When you have time, look at the {t}.",
                "No hurry, send the {t} on {day}.",
            ),
        ),
    },
    "intent": {
        "question": (
            "asks for information",
            (
                "When does the {place} open?",
                "How much is the {t}?",
                "Where can I find a {job}?",
                "What is the price of the {t}?",
                "When does the {job} come?",
            ),
        ),
        "complaint": (
            "says that something went wrong",
            (
                "My {t} arrived broken.",
                "The {job} never came on {day}.",
                "I was charged twice for the {t}.",
                "Nobody answered my letter about the {t}.",
                "My {t} never arrived on {day}.",
            ),
        ),
        "request": (
            "asks for something to be done",
            (
                "Please cancel my {t}.",
                "Please send a {job} on {day}.",
                "I would like to return the {t}.",
                "Please change my order to {day}.",
                "Please send the {t} on {day}.",
            ),
        ),
        "thanks": (
            "thanks someone",
            (
                "Thank you for the {t}.",
                "Thanks, the {job} was kind.",
                "Many thanks for your help on {day}.",
                "I am grateful for the {t}.",
                "Thank you, the {job} was kind.",
            ),
        ),
    },
}
ASK = {
    "sentiment": (
        "Is the text {or}?",
        "What is the sentiment: {or}?",
        "Classify the sentiment as {or}.",
        "Classify the sentiment of the text as {or}.",
    ),
    "topic": (
        "Is the text about {or}?",
        "What is the topic: {or}?",
        "Classify the topic as {or}.",
        "Classify the topic of the text as {or}.",
    ),
    "urgency": (
        "Is the message {or}?",
        "How urgent is it: {or}?",
        "Classify the urgency as {or}.",
        "Classify the urgency of the text as {or}.",
    ),
    "intent": (
        "Is the message a {or}?",
        "What is the intent: {or}?",
        "Classify the intent as {or}.",
        "Classify the intent of the text as {or}.",
    ),
}
FRAMES = (
    "{ask}\nText: {text}",
    "{ask} Answer with the label only.\nText: {text}",
    "{ask}\n\n{text}",
    "Text: {text}\n{ask}",
    "Text: {text}\n{ask}\nLabel:",
    "Labels: {labels}\nText: {text}\nLabel:",
    "Choose one label: {labels}.\n{text}",
    "Classify the text. Labels: {labels}.\nText: {text}",
    "Classify this text. Labels: {labels}.\n\nText: {text}\nLabel:",
    "Choose one label: {labels}.\nText: {text}",
)
CODEBOOK = (
    "Code the text with this codebook.\n{book}\nText: {text}\nCode:",
    "Codebook:\n{book}\n\nText: {text}\nAnswer with the code only.",
    "Use this codebook and give one code.\n{book}\nText: {text}",
    "Codebook:\n{book}\nText: {text}\nCode:",
)


def make(draw: Draw) -> Item:
    scheme = draw.choices(tuple(SCHEMES), weights=(30, 35, 12, 23))[0]
    labels = draw.sample(list(SCHEMES[scheme]), draw.randint(2, min(4, len(SCHEMES[scheme]))))
    label = draw.choice(labels)
    text = write(draw, SCHEMES[scheme][label][1])
    if draw.chance(0.3):
        return coded(draw, scheme, labels, label, text)
    spoken = ", ".join(labels[:-1]) + " or " + labels[-1]
    question = draw.wording(ASK[scheme]).replace("{or}", spoken)
    prompt = draw.wording(FRAMES).format(ask=question, text=text, labels=", ".join(labels))
    return ask(NAME, scheme, prompt, label, labels=labels)


def coded(draw: Draw, scheme: str, labels: list[str], label: str, text: str) -> Item:
    """The codes are the labels, or letters that mean nothing but what the codebook says."""
    codes = draw.choice((labels, list("ABCD")[: len(labels)]))
    book = "\n".join(f"{code}: {SCHEMES[scheme][name][0]}" for code, name in zip(codes, labels, strict=True))
    prompt = draw.wording(CODEBOOK).format(book=book, text=text)
    return ask(NAME, "codebook", prompt, codes[labels.index(label)], labels=codes)


def write(draw: Draw, texts: tuple[str, ...]) -> str:
    words = {
        "t": THINGS,
        "good": PRAISE,
        "ill": BLAME,
        "plain": PLAIN,
        "day": DAYS,
        "food": FOODS,
        "fruit": FRUITS,
        "job": JOBS,
        "instrument": INSTRUMENTS,
        "place": PLACES,
    }
    text = draw.wording(texts).format(**{slot: draw.choice(options) for slot, options in words.items()})
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)


def right(item: Item, response: str) -> bool:
    return response == item.answer
