"""Write something that obeys a stated rule: words to use, their order, a count, a first, last or forbidden word."""

import re
from collections.abc import Callable

from tools.pocket.item import Draw, Item, ask
from tools.pocket.words import ADJECTIVES, CATEGORIES, NOUNS

NAME = "constraints"

TWO = (
    "The {a} is next to the {b}.",
    "I can see the {a} and the {b}.",
    "We left the {a} near the {b}.",
    "The {a} and the {b} are both old.",
)
THREE = (
    "The {a} and the {b} are near the {c}.",
    "I can see the {a}, the {b} and the {c}.",
    "We put the {a} and the {b} by the {c}.",
)
STARTERS = (
    "Today",
    "Yesterday",
    "Sometimes",
    "Now",
    "Here",
    "Soon",
    "Later",
    "Maybe",
    "Tonight",
    "Often",
    "Once",
    "Suddenly",
)

USE = (
    "Write a sentence using the words {words}.",
    "Write a sentence with the words {words}.",
    "Write one sentence that uses the words {words}.",
    "Use these words in a sentence: {words}.",
    "Make a sentence that contains {words}.",
    "Write a sentence. It must contain these words: {words}.",
    "Write one sentence using all of these words: {words}.",
    "Write a sentence that contains the words {words}.",
    "Make one sentence with the words {words}.",
)
ORDER = (
    "Write one sentence with these words in this order: {words}.",
    "Make one sentence that uses the words {words} in the same order.",
    "Write a sentence. Use these words in this order: {words}.",
    "Write a sentence that contains {words} in this order.",
    "Write a sentence with the words {words} in this order.",
    "Use these words in a sentence, in this order: {words}.",
    "Write one sentence that uses {words}, in that order.",
    "Make a sentence. Use the words {words} in the given order.",
    "Write a sentence that uses these words in this order: {words}.",
)
LIST = (
    "List exactly {n} {category}.",
    "Write down {n} {category}.",
    "List {n} {category}.",
    "Name {n} {category}.",
    "Give me a list of {n} {category}.",
    "Write a list of exactly {n} {category}.",
    "I need {n} {category}. List them.",
    "Name exactly {n} {category}.",
    "Give me exactly {n} {category}.",
)
START = (
    "Write one sentence about the {a} that starts with the word {first}.",
    "Write a sentence about the {a}. The sentence must begin with {first}.",
    "Write about the {a} in one sentence. It must begin with the word {first}.",
    "Start a sentence about the {a} with the word {first}.",
    "Write a sentence that starts with the word {first} and is about the {a}.",
    "Write a sentence about the {a}. Start with the word {first}.",
    "Begin with the word {first} and write a sentence about the {a}.",
    "Write one sentence about the {a}. The first word must be {first}.",
    "Write a sentence about the {a}. It must start with the word {first}.",
)
END = (
    "Write a sentence. It must end with the word {a}.",
    "Write one sentence whose last word is {a}.",
    "Write one sentence that has {a} as its last word.",
    "Make one sentence that ends with the word {a}.",
    "Write a sentence that ends with the word {a}.",
    "Write one sentence. The last word must be {a}.",
    "Make a sentence that ends with {a}.",
    "End your sentence with the word {a}.",
    "Write one sentence that ends with the word {a}.",
)
AVOID = (
    "Write one sentence about the {a} without the word {not}.",
    "Write one sentence about the {a}. It must not contain the word {not}.",
    "Write about the {a} in one sentence. Do not use the word {not}.",
    "Write a sentence about the {a} that does not use the word {not}.",
    "Write a sentence about the {a} without the word {not}.",
    "Write a sentence about the {a}. Do not use the word {not}.",
    "Describe the {a} in one sentence. The word {not} is forbidden.",
    "Write one sentence about the {a} that does not contain the word {not}.",
    "Write one sentence about the {a}. Do not use the word {not}.",
)
BOTH = (
    "Use the words {words} in one sentence. Start with the word {first}.",
    "Write one sentence with the words {words}. It must start with {first}.",
    "Write a sentence. It must start with the word {first} and use {words}.",
    "Write a sentence with the words {words}. Start with the word {first}.",
    "Start with the word {first} and use the words {words} in one sentence.",
    "Write one sentence. Start with {first} and use the words {words}.",
    "Write a sentence. Start with the word {first} and use the words {words}.",
)
# Sentences about a thing; the one chosen must not hold the forbidden word.
ABOUT = (
    "The {a} is very {adjective}.",
    "I like this {adjective} {a}.",
    "My {a} looks {adjective} today.",
    "We found one {adjective} {a} here.",
)
FORBIDDEN = (
    "the",
    "is",
    "very",
    "I",
    "like",
    "this",
    "my",
    "looks",
    "today",
    "we",
    "found",
    "one",
    "here",
    "big",
    "old",
    "good",
)


def make(draw: Draw) -> Item:
    makers = (use, order, listing, start, end, avoid, both)
    return draw.choices(makers, weights=(20, 15, 25, 12, 10, 14, 8))[0](draw)


def nouns(draw: Draw, count: int) -> list[str]:
    while True:
        found = draw.sample(NOUNS, count)
        if draw.fits(tuple(found[:2])):
            return found


def spoken(draw: Draw, words: list[str]) -> str:
    return draw.choice((", ", " and ")).join(words) if len(words) == 2 else ", ".join(words[:-1]) + " and " + words[-1]


def sentence(draw: Draw, words: list[str]) -> str:
    # Answers are not held out: only what is asked is.
    return draw.choice(TWO if len(words) == 2 else THREE).format(**dict(zip("abc", words, strict=False)))


def use(draw: Draw) -> Item:
    words = nouns(draw, draw.choice((2, 2, 3)))
    prompt = draw.wording(USE).format(words=spoken(draw, words))
    return ask(NAME, "use", prompt, sentence(draw, words), words=words)


def order(draw: Draw) -> Item:
    words = nouns(draw, draw.choice((2, 2, 3)))
    prompt = draw.wording(ORDER).format(words=spoken(draw, words))
    return ask(NAME, "order", prompt, sentence(draw, words), words=words)


def listing(draw: Draw) -> Item:
    while True:
        category, count = draw.choice(list(CATEGORIES)), draw.randint(2, 5)
        if draw.fits((category, count)):
            break
    # a run of the category's order: sampled lists repeat themselves when a model this small goes on
    known, first = CATEGORIES[category], draw.randrange(len(CATEGORIES[category]))
    items = [known[(first + i) % len(known)] for i in range(count)]
    numbered = draw.chance(0.3)
    prompt = draw.wording(LIST).format(n=count, category=category) + (" Number them." if numbered else "")
    answer = "\n".join(f"{i}. {item}" for i, item in enumerate(items, 1)) if numbered else ", ".join(items)
    return ask(NAME, "list", prompt, answer, category=category, count=count, numbered=numbered)


def start(draw: Draw) -> Item:
    (a,), first = nouns_for(draw, STARTERS)
    prompt = draw.wording(START).format(first=first, a=a)
    answer = f"{first} " + draw.choice(("the {a} is {x}.", "the {a} looks {x}.")).format(a=a, x=draw.choice(ADJECTIVES))
    return ask(NAME, "start", prompt, answer, first=first, words=[a])


def nouns_for(draw: Draw, others: tuple[str, ...]) -> tuple[list[str], str]:
    while True:
        noun, other = draw.choice(NOUNS), draw.choice(others)
        if draw.fits((noun, other)):
            return [noun], other


def end(draw: Draw) -> Item:
    a, b = nouns(draw, 2)
    prompt = draw.wording(END).format(a=a)
    answer = draw.choice(("I can see the {b} and the {a}.", "The {b} is near the {a}.", "We put the {b} by the {a}."))
    return ask(NAME, "end", prompt, answer.format(a=a, b=b), last=a)


def avoid(draw: Draw) -> Item:
    (a,), forbidden = nouns_for(draw, FORBIDDEN)
    prompt = draw.wording(AVOID).replace("{not}", forbidden).format(a=a)
    while True:
        answer = draw.choice(ABOUT).format(a=a, adjective=draw.choice(ADJECTIVES))
        if forbidden.lower() not in words_of(answer):
            return ask(NAME, "avoid", prompt, answer, words=[a], avoid=forbidden)


def both(draw: Draw) -> Item:
    words, first = nouns(draw, 2), draw.choice(STARTERS)
    prompt = draw.wording(BOTH).format(first=first, words=spoken(draw, words))
    body = sentence(draw, words)
    answer = f"{first} {body if body.startswith('I ') else body[0].lower() + body[1:]}"
    return ask(NAME, "both", prompt, answer, first=first, words=words)


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def right(item: Item, response: str) -> bool:
    return RULES[item.kind](item.facts, response)


def is_sentence(response: str) -> bool:
    return bool(re.fullmatch(r"[A-Z][^.!?\n]*\.", response)) and len(response.split()) >= 3


def uses(facts: dict, response: str) -> bool:
    return is_sentence(response) and set(facts["words"]) <= set(words_of(response))


def in_order(facts: dict, response: str) -> bool:
    if not uses(facts, response):
        return False
    places = [words_of(response).index(word) for word in facts["words"]]
    return places == sorted(places)


def lists(facts: dict, response: str) -> bool:
    lines = response.split("\n") if facts["numbered"] else response.split(", ")
    if facts["numbered"]:
        if any(not line.startswith(f"{i}. ") for i, line in enumerate(lines, 1)):
            return False
        lines = [line.split(". ", 1)[1] for line in lines]
    known = set(CATEGORIES[facts["category"]])
    return len(lines) == len(set(lines)) == facts["count"] and set(lines) <= known


def starts(facts: dict, response: str) -> bool:
    return uses(facts, response) and response.split()[0] == facts["first"]


def ends(facts: dict, response: str) -> bool:
    return is_sentence(response) and words_of(response)[-1] == facts["last"]


def avoids(facts: dict, response: str) -> bool:
    return uses(facts, response) and facts["avoid"].lower() not in words_of(response)


RULES: dict[str, Callable[[dict, str], bool]] = {
    "use": uses,
    "order": in_order,
    "list": lists,
    "start": starts,
    "end": ends,
    "avoid": avoids,
    "both": starts,
}
