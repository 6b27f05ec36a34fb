"""The vocabulary the generators draw from."""

# ruff: noqa: SIM905 (a list of words reads best as a line of words)

from tools.pocket.item import Draw

WOMEN = (
    "Ann Mary Sara Lena Mia Nora Ida Eva Rosa Clara Julia Emma Alice Lucy Grace Ruth Hanna Maya Nina Olga Jane Kate Lily "
    "Zoe Amina Priya Yuki Fatima Ines Greta"
).split()
MEN = (
    "Tom Ben Max Paul Omar Leo Jack Sam Tim Adam Karl Finn Hugo Ivan Noah Luke Mark Peter Oscar Felix Ali Ravi Kenji Diego "
    "Emil Jonas Bruno Victor Henry George"
).split()
SYLLABLES = "ba be da do fi ga ka ki la lo ma mi na no pa ra ri sa su ta te to va vi za".split()

ANIMALS = (
    "dog cat horse cow pig sheep goat duck hen fox wolf bear lion tiger mouse rabbit frog snake owl eagle whale seal"
).split()
FRUITS = "apple pear plum peach lemon orange banana cherry grape melon fig mango lime kiwi apricot".split()
COLOURS = "red blue green yellow black white brown grey pink purple orange gold silver".split()
TOOLS = "hammer saw drill spade rake axe knife wrench chisel ladder brush broom".split()
JOBS = (
    "baker teacher doctor nurse farmer pilot cook painter singer writer tailor sailor lawyer driver miner judge".split()
)
INSTRUMENTS = "piano violin guitar flute drum trumpet harp cello organ banjo".split()
FURNITURE = "table chair bed desk shelf sofa lamp bench stool cupboard mirror".split()
CLOTHES = "shirt coat hat shoe sock scarf glove dress skirt belt boot jacket".split()
VEGETABLES = "carrot potato onion bean pea cabbage leek pepper tomato spinach turnip radish".split()
CITIES = (
    "Oslo Rome Paris Berlin Madrid Lisbon Vienna Athens Cairo Tokyo London Dublin Prague Warsaw Delhi Lima Boston Sydney"
).split()
MONTHS = "January February March April May June July August September October November December".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
FOODS = "soup bread rice pasta cheese fish salad cake pie eggs honey pizza beans noodles".split()
PLACES = "garden river house forest bridge market school station harbour field hill lake barn church road park".split()
ADJECTIVES = "big small old young happy quiet clean tall strong kind brave slow quick clever gentle proud".split()
NOUNS = tuple(
    dict.fromkeys(
        ANIMALS[:14]
        + TOOLS
        + FURNITURE
        + CLOTHES
        + INSTRUMENTS
        + PLACES
        + "book letter cup stone tree boat kite clock basket candle window door wall ship train coin ring box bell".split()
    )
)

CATEGORIES = {
    "animals": ANIMALS,
    "fruits": FRUITS,
    "colours": COLOURS,
    "tools": TOOLS,
    "jobs": JOBS,
    "instruments": INSTRUMENTS,
    "clothes": CLOTHES,
    "vegetables": VEGETABLES,
    "cities": CITIES,
    "months": MONTHS,
    "days": DAYS,
    "pieces of furniture": FURNITURE,
}


def person(draw: Draw) -> tuple[str, str]:
    """A name and its pronoun; one name in ten is made up, so that names are copied rather than recalled."""
    if draw.chance(0.1):
        return "".join(draw.choices(SYLLABLES, k=draw.randint(2, 3))).capitalize(), draw.choice(("she", "he"))
    return (draw.choice(WOMEN), "she") if draw.chance(0.5) else (draw.choice(MEN), "he")


def people(draw: Draw, count: int) -> list[tuple[str, str]]:
    """Different people."""
    found: dict[str, str] = {}
    while len(found) < count:
        name, pronoun = person(draw)
        found.setdefault(name, pronoun)
    return list(found.items())


def article(noun: str) -> str:
    return f"an {noun}" if noun[0].lower() in "aeiou" else f"a {noun}"


def joined(words: list[str]) -> str:
    """a, b and c"""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
