"""Short free text that must say given facts: descriptions of a thing, and stories of two or three sentences."""

import re

from tools.pocket.item import Draw, Item, ask
from tools.pocket.words import ADJECTIVES, ANIMALS, CITIES, COLOURS, FOODS, JOBS, PLACES, article, person

NAME = "free_text"

DESCRIBE = (
    "Describe {name}, {a_animal}. Colour: {colour}. Place: {place}. Food: {food}.",
    "Describe {a_animal} named {name} that is {colour}, lives near the {place} and eats {food}.",
    "Write a short description. Animal: {animal}. Name: {name}. Colour: {colour}. Home: {place}. Food: {food}.",
    "Tell me about {name} the {animal}. Facts: {colour}, {place}, {food}.",
    "Describe {a_animal}. Name: {name}. Colour: {colour}. Place: {place}. Food: {food}.",
)
DESCRIPTIONS = (
    "{name} is {a_colour} {animal}. {name} lives near the {place} and eats {food}.",
    "Near the {place} lives {a_colour} {animal} named {name}. It eats {food} every day.",
    "{name} the {animal} is {colour}. Its home is near the {place}, and it likes to eat {food}.",
)
STORY = (
    "Write a short story about {name}, {a_job} in {city}, who finds {a_animal}.",
    "Tell a short story. {name} is {a_job} in {city} and finds {a_animal}.",
    "Write two or three sentences about {name}. Job: {job}. City: {city}. Animal: {animal}.",
    "Make up a small story with {name}, {a_job} from {city}, and {a_animal}.",
    "Write a small story about {name}, {a_job} from {city}, who finds {a_animal}.",
)
STORIES = (
    "{name} was {a_job} in {city}. One day {she} found {a_adjective} {animal} near the {place}. "
    "{She} took it home and gave it {food}.",
    "In {city} there lived {a_job} named {name}. {She} found {a_animal} by the {place}, and they became friends.",
    "{name} worked as {a_job} in {city}. One morning {a_animal} came to the door. {name} gave it {food}, and it was happy.",
)
CONTINUE = (
    "Continue: {name} went to the {place} with {a_animal}.",
    "Continue the story: {name} went to the {place} with {a_animal}.",
    "What happens next? {name} went to the {place} with {a_animal}.",
    "Go on: {name} went to the {place} with {a_animal}.",
)
CONTINUATIONS = (
    "The {animal} ran to the {place}. {name} gave it {food}, and then they went home.",
    "At the {place} {name} sat down, and the {animal} ate some {food}. They stayed until the evening.",
    "Soon the {animal} was tired. {name} rested near the {place} and shared some {food}.",
)


def make(draw: Draw) -> Item:
    while True:
        slots = details(draw)
        if draw.fits((slots["animal"], slots["place"])):
            break
    prompts, answers, needed, kind = draw.choice(
        (
            (DESCRIBE, DESCRIPTIONS, ("name", "animal", "colour", "place", "food"), "describe"),
            (STORY, STORIES, ("name", "job", "city", "animal"), "story"),
            (CONTINUE, CONTINUATIONS, ("name", "animal", "place"), "continue"),
        )
    )
    prompt = draw.wording(prompts).format(**slots)
    return ask(NAME, kind, prompt, draw.choice(answers).format(**slots), needed=[slots[key] for key in needed])


def details(draw: Draw) -> dict[str, str]:
    name, she = person(draw)
    words = {
        "animal": draw.choice(ANIMALS),
        "colour": draw.choice(COLOURS),
        "job": draw.choice(JOBS),
        "adjective": draw.choice(ADJECTIVES),
    }
    return (
        words
        | {f"a_{key}": article(word) for key, word in words.items()}
        | {
            "name": name,
            "she": she,
            "She": she.capitalize(),
            "place": draw.choice(PLACES),
            "food": draw.choice(FOODS),
            "city": draw.choice(CITIES),
        }
    )


def right(item: Item, response: str) -> bool:
    """Two to four whole sentences in which every given fact is named."""
    sentences = re.findall(r"[A-Z][^.!?]*[.!?]", response)
    whole = " ".join(sentences) == response and 2 <= len(sentences) <= 4
    words = re.findall(r"[A-Za-z]+", response)
    return whole and all(fact in words for fact in item.facts["needed"])
