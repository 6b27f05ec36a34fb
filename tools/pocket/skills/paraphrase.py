"""Say a sentence in other words, keeping who did what."""

from tools.pocket.item import Draw, Item, ask
from tools.pocket.words import CITIES, DAYS, JOBS, NOUNS, PLACES, article, people

NAME = "paraphrase"
PAIRS = (
    ("{x} gave the {n} to {y}.", "{y} got the {n} from {x}."),
    ("{x} sold the {n} to {y}.", "{y} bought the {n} from {x}."),
    ("{x} is taller than {y}.", "{y} is shorter than {x}."),
    ("{x} taught {y}.", "{y} was taught by {x}."),
    ("On {d} {x} went to the {p}.", "{x} went to the {p} on {d}."),
    ("{x} painted the {n}.", "The {n} was painted by {x}."),
    ("{x} lives in {c}.", "The home of {x} is in {c}."),
    ("{x} works as {j}.", "The job of {x} is {j}."),
    ("The {n} is near the {p}.", "Close to the {p} is the {n}."),
    ("{x} was born in {c}.", "{c} is where {x} was born."),
    ("{x} saw {y} on {d}.", "On {d} {y} was seen by {x}."),
    ("The {n} belongs to {x}.", "{x} owns the {n}."),
)
WORDINGS = (
    "Say this in other words: {s}",
    "Paraphrase: {s}",
    "Rewrite this sentence: {s}",
    "Write this in another way: {s}",
    "Reword the sentence.\n{s}",
    "Rewrite in your own words: {s}",
    "Say this in another way: {s}",
)


def make(draw: Draw) -> Item:
    (x, _), (y, _) = people(draw, 2)
    while True:
        slots = {
            "x": x,
            "y": y,
            "n": draw.choice(NOUNS),
            "d": draw.choice(DAYS),
            "p": draw.choice(PLACES),
            "c": draw.choice(CITIES),
            "j": article(draw.choice(JOBS)),
        }
        number = draw.randrange(len(PAIRS))
        if draw.fits((number, slots["n"], slots["c"], slots["j"])):
            break
    before, after = (sentence.format(**slots) for sentence in PAIRS[number])
    return ask(NAME, "paraphrase", draw.wording(WORDINGS).format(s=before), after)


def right(item: Item, response: str) -> bool:
    return response == item.answer
