"""Word problems as data: a story has an opening amount and steps that change it; its solution says each step aloud."""

from dataclasses import dataclass

from tools.pocket.item import Draw
from tools.pocket.words import PLACES, capital, people


@dataclass(frozen=True)
class Story:
    """`{n}` is a number, `{who}`, `{she}` and `{friend}` are people, `{things}` what is counted."""

    name: str
    things: tuple[str, ...]
    openings: tuple[str, ...]
    gains: tuple[str, ...]
    losses: tuple[str, ...]
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Problem:
    """The question, and the solution as sentences that each state one step."""

    story: str
    question: str
    steps: tuple[str, ...]
    answer: int

    @property
    def reasoning(self) -> str:
        return " ".join(self.steps) + " " + final(self.answer)


def final(answer: int | str) -> str:
    return f"The answer is {answer}."


# The last of each tuple is held out.
GOODS = (
    *("apples", "pears", "plums", "eggs", "books", "pens", "cards", "stamps", "shells", "stones", "boxes", "cups"),
    *("plates", "hats", "coats", "lamps", "chairs", "maps", "toys", "balls", "rings", "bells", "shoes", "keys"),
    *(
        "lemons",
        "figs",
        "nuts",
        "bags",
        "dolls",
        "kites",
        "candles",
        "ropes",
        "spoons",
        "tickets",
        "letters",
        "bottles",
    ),
)
STORIES = (
    Story(
        "having",
        GOODS,
        (
            "{who} has {n} {things}",
            "{who} owns {n} {things}",
            "{who} starts with {n} {things}",
            "{who} keeps {n} {things}",
        ),
        (
            "{she} buys {n} more",
            "{she} finds {n} more",
            "{she} gets {n} from {friend}",
            "{who} buys {n} more",
            "{she} gets {n} more",
            "{friend} gives {who} {n} more",
            "{she} receives {n} more",
            "{who} gets {n} more from {friend}",
        ),
        (
            "{she} gives away {n}",
            "{friend} takes {n}",
            "{she} gives {friend} {n}",
            "{who} loses {n}",
            "{she} sells {n}",
            "{she} loses {n}",
            "{she} gives {n} to {friend}",
            "{she} throws away {n}",
            "{who} gives away {n} of them",
        ),
        (
            "How many {things} does {who} have now?",
            "How many {things} does {who} have left?",
            "How many {things} does {who} have in the end?",
            "How many {things} are left with {who}?",
        ),
    ),
    Story(
        "bus",
        ("people", "passengers", "children"),
        (
            "A bus carries {n} {things}",
            "There are {n} {things} on a bus",
            "A bus starts with {n} {things}",
            "A bus has {n} {things}",
        ),
        (
            "{n} get on",
            "{n} others get on",
            "then {n} get on",
            "At the {place} {n} more get on",
            "{n} more get on",
            "At the {place} {n} get on",
            "By the {place} {n} get on",
            "By the {place} {n} others get on",
        ),
        (
            "{n} get off",
            "{n} of them get off",
            "then {n} get off",
            "{n} leave the bus",
            "At the {place} {n} get off",
            "By the {place} {n} get off",
            "By the {place} {n} of them get off",
        ),
        (
            "How many {things} are on the bus now?",
            "How many {things} are still on the bus?",
            "How many {things} does the bus carry now?",
            "How many {things} are on the bus in the end?",
        ),
    ),
    Story(
        "birds",
        ("birds", "owls", "ducks"),
        (
            "There are {n} {things} at the {place}",
            "{n} {things} sit in the {place}",
            "{who} sees {n} {things}",
            "There are {n} {things} in the {place}",
        ),
        (
            "{n} more come",
            "{n} others come",
            "{n} more fly in",
            "{n} others join them",
            "{n} more join them",
            "{n} others arrive",
            "{n} more arrive",
            "{n} others fly in",
        ),
        (
            "{n} fly away",
            "{n} of them fly away",
            "{n} fly off",
            "{n} leave",
            "{n} of them fly off",
            "{n} of them leave",
            "{n} of them go away",
        ),
        (
            "How many {things} are there now?",
            "How many {things} are left?",
            "How many {things} stay?",
            "How many {things} are there in the end?",
        ),
    ),
    Story(
        "money",
        ("coins", "dollars", "euros"),
        (
            "{who} has {n} {things}",
            "{who} saves {n} {things}",
            "There are {n} {things} in the purse of {who}",
            "{who} owns {n} {things}",
        ),
        (
            "{she} earns {n} more",
            "{she} gets {n} more",
            "{who} earns {n}",
            "{friend} gives {who} {n}",
            "{she} finds {n}",
            "{she} gets {n} from {friend}",
            "{she} earns {n}",
            "{who} earns {n} more",
        ),
        (
            "{she} spends {n}",
            "{who} spends {n}",
            "{she} gives {n} to {friend}",
            "{she} pays {n}",
            "{she} pays {n} for a {thing}",
            "{she} lends {n} to {friend}",
            "{she} gives {n} for a {thing}",
            "{who} pays {n} for a {thing}",
        ),
        (
            "How many {things} does {who} have now?",
            "How much money does {who} have now?",
            "How many {things} does {who} have left?",
            "How much money does {who} have left?",
        ),
    ),
    Story(
        "baking",
        ("cakes", "rolls", "pies"),
        (
            "{who} bakes {n} {things}",
            "{who} makes {n} {things}",
            "A baker has {n} {things}",
            "A baker makes {n} {things}",
        ),
        (
            "then {n} more are baked",
            "{n} more are made",
            "{who} brings {n} more",
            "{friend} makes {n} more",
            "{n} more come out of the oven",
            "{friend} brings {n} more",
            "{friend} bakes {n} more",
            "{who} makes {n} more",
        ),
        (
            "{n} are eaten",
            "{friend} buys {n}",
            "{friend} takes away {n}",
            "{n} of them are eaten",
            "{friend} eats {n}",
            "{n} are sold",
            "{friend} takes {n}",
            "{who} takes {n} of them",
        ),
        (
            "How many {things} are there now?",
            "How many {things} are left?",
            "How many {things} remain?",
            "How many {things} are there in the end?",
        ),
    ),
    Story(
        "marbles",
        ("marbles", "cards", "stickers"),
        (
            "{who} has {n} {things}",
            "{who} brings {n} {things} to school",
            "{who} starts a game with {n} {things}",
            "{who} begins with {n} {things}",
        ),
        (
            "{she} wins {n}",
            "{she} wins {n} from {friend}",
            "{friend} gives {who} {n}",
            "{she} wins {n} more",
            "{who} wins {n} more",
        ),
        (
            "{she} loses {n}",
            "{she} loses {n} to {friend}",
            "{she} gives {n} to {friend}",
            "{she} gives {n} away",
            "{who} loses {n} to {friend}",
        ),
        (
            "How many {things} does {who} have now?",
            "How many {things} does {who} have after the game?",
            "How many {things} does {who} take home?",
            "How many {things} does {who} have at the end?",
        ),
    ),
    Story(
        "garden",
        ("trees", "roses", "flowers"),
        (
            "There are {n} {things} in a garden",
            "{who} plants {n} {things}",
            "A garden has {n} {things}",
            "{who} has {n} {things} in a garden",
        ),
        (
            "{n} more are planted",
            "{friend} adds {n} more",
            "{n} more grow",
            "{n} are added",
            "{who} plants {n} more",
            "{friend} plants {n} more",
            "{who} adds {n} more",
            "{friend} plants {n} of them",
        ),
        (
            "{n} are cut down",
            "{n} are taken away",
            "{who} cuts {n}",
            "{n} of them die",
            "a storm breaks {n}",
            "{n} die",
            "{n} are cut",
            "{n} of them are cut down",
        ),
        (
            "How many {things} are in the garden now?",
            "How many {things} are left in the garden?",
            "How many {things} stand in the garden?",
            "How many {things} does the garden have now?",
        ),
    ),
    Story(
        "shop",
        GOODS,
        (
            "A shop has {n} {things}",
            "There are {n} {things} in a shop",
            "{who} has {n} {things} in a shop",
            "A shop starts with {n} {things}",
        ),
        (
            "{n} more arrive",
            "the shop buys {n} more",
            "a truck brings {n} more",
            "the shop gets {n} more",
            "{n} more are bought",
        ),
        (
            "{n} are sold",
            "the shop sells {n}",
            "{who} buys {n} of them",
            "{friend} buys {n} of them",
            "{n} of them are sold",
        ),
        (
            "How many {things} are in the shop now?",
            "How many {things} are left in the shop?",
            "How many {things} does the shop have now?",
            "How many {things} does the shop have left?",
        ),
    ),
    Story(
        "parking",
        ("cars", "trucks", "bikes"),
        (
            "There are {n} {things} in a yard",
            "A yard holds {n} {things}",
            "{n} {things} stand in a yard",
            "A yard has {n} {things}",
        ),
        (
            "{n} more come in",
            "{n} others arrive",
            "{n} others come in",
            "{n} more drive in",
            "{n} drive in",
            "{n} more arrive",
            "{n} come in",
            "{n} others drive in",
        ),
        (
            "{n} drive off",
            "{n} of them leave",
            "{n} of them drive off",
            "{n} go away",
            "{n} leave",
            "{n} are taken away",
            "{n} drive away",
            "{n} of them go away",
        ),
        (
            "How many {things} are in the yard now?",
            "How many {things} are left in the yard?",
            "How many {things} remain in the yard?",
            "How many {things} does the yard hold now?",
        ),
    ),
    Story(
        "library",
        GOODS,
        (
            "A shelf holds {n} {things}",
            "There are {n} {things} on a shelf",
            "{who} puts {n} {things} on a shelf",
            "A shelf has {n} {things}",
        ),
        (
            "{who} adds {n}",
            "{who} adds {n} more",
            "{friend} brings {n} more",
            "{friend} adds {n} more",
            "{n} more are put there",
            "{friend} brings back {n}",
            "{friend} adds {n}",
            "{friend} brings back {n} more",
        ),
        (
            "{who} takes {n}",
            "{friend} borrows {n}",
            "{n} are taken away",
            "{friend} takes {n}",
            "{who} takes {n} of them",
        ),
        (
            "How many {things} are on the shelf now?",
            "How many {things} are left on the shelf?",
            "How many {things} does the shelf hold now?",
            "How many {things} remain on the shelf?",
        ),
    ),
    Story(
        "farm",
        ("cows", "sheep", "hens", "goats"),
        (
            "A farmer has {n} {things}",
            "There are {n} {things} on a farm",
            "{who} keeps {n} {things}",
            "A farm has {n} {things}",
        ),
        (
            "{n} are born",
            "{n} more are born",
            "{n} more arrive",
            "{friend} brings {n} more",
            "the farmer buys {n} more",
            "{n} more are bought",
            "the farmer gets {n} more",
            "{n} others are born",
        ),
        ("{n} are sold", "{n} run away", "the farmer sells {n}", "the farmer gives away {n}", "{n} of them are sold"),
        (
            "How many {things} are on the farm now?",
            "How many {things} are left?",
            "How many {things} are there now?",
            "How many {things} are left on the farm?",
        ),
    ),
    Story(
        "water",
        ("litres", "cups", "buckets"),
        (
            "A tank holds {n} {things} of water",
            "There are {n} {things} of water in a tank",
            "{who} pours {n} {things} of water into a tank",
            "A tank has {n} {things} of water",
        ),
        ("{n} more are poured in", "{who} adds {n}", "rain adds {n}", "{friend} adds {n}", "{who} adds {n} more"),
        ("{n} run out", "{who} takes {n}", "the plants get {n}", "{friend} takes {n}", "{who} takes {n} of them"),
        (
            "How many {things} are in the tank now?",
            "How many {things} are left in the tank?",
            "How many {things} of water remain?",
            "How many {things} does the tank hold now?",
        ),
    ),
)

TIMES = (
    *("then", "later", "soon", "today", "after that", "the next day", "in the evening", "at noon", "in the morning"),
    *("after lunch", "on Monday", "on Friday", "at night", "a day later", "next", "on Sunday", "an hour later"),
)
CONTAINERS = ("boxes", "bags", "baskets", "crates")
GROUPS = (
    "{who} has {k} {boxes} with {n} {things} in each",
    "There are {k} {boxes} with {n} {things} in each",
    "{who} buys {k} {boxes} of {n} {things} each",
    "{who} fills {k} {boxes} with {n} {things} each",
    "{who} gets {k} {boxes} with {n} {things} each",
)
GROUP_QUESTIONS = (
    "How many {things} are there in all?",
    "How many {things} are there now?",
    "How many {things} is that in all?",
    "How many {things} are there in the end?",
)
SHARES = (
    "{she} shares them equally among {k} friends",
    "{k} friends share them equally",
    "they are put into {k} equal bags",
    "they are shared equally among {k} friends",
)
SHARE_QUESTIONS = (
    "How many {things} are in each part?",
    "How many {things} does each one get?",
    "How many {things} go to each?",
    "How many {things} are there for each?",
)
COMPARISONS = (
    "{friend} has {n} more than {who}",
    "{friend} has {n} more {things} than {who}",
    "{friend} owns {n} more than {who}",
)
TOGETHER = (
    "How many do they have together?",
    "How many {things} do they have in all?",
    "How many {things} do they have together?",
)


class Teller:
    """Writes one problem: each sentence of the story, and what the solution says about it."""

    def __init__(self, draw: Draw, things: str, *, times: bool = True):
        self.draw = draw
        self.times = times
        (who, she), (friend, _) = people(draw, 2)
        self.slots = {"who": who, "she": she, "friend": friend, "things": things}
        self.slots |= {
            "place": draw.choice(PLACES),
            "thing": draw.choice(("book", "cup", "hat", "cake", "pen", "game")),
        }
        self.sentences: list[str] = []
        self.steps: list[str] = []
        self.value = 0

    def say(self, wordings: tuple[str, ...], *, when: bool = False, **numbers: object) -> str:
        """`when` lets a time come first: the more ways there are to say it, the less can be known by heart."""
        wording = self.draw.wording(wordings)
        if when and self.times and self.draw.chance(0.4):
            wording = f"{self.draw.wording(TIMES)} {wording[0].lower()}{wording[1:]}"
        sentence = capital(wording.format(**self.slots, **numbers))
        self.sentences.append(sentence + ".")
        return sentence

    def open(self, story: Story, number: int) -> None:
        self.steps.append(self.say(story.openings, n=number) + ".")
        self.value = number

    def open_groups(self, groups: int, each: int) -> None:
        boxes = self.draw.choice(CONTAINERS)
        self.say(GROUPS, k=groups, n=each, boxes=boxes)
        self.value = groups * each
        self.steps.append(f"{groups} {boxes} of {each} make {groups} * {each} = {self.value}.")

    def change(self, story: Story, number: int) -> None:
        """Adds a positive number, takes a negative one."""
        sentence = self.say(story.gains if number > 0 else story.losses, when=True, n=abs(number))
        after = self.value + number
        self.steps.append(f"{sentence}, so {self.value} {'+' if number > 0 else '-'} {abs(number)} = {after}.")
        self.value = after

    def share(self, parts: int) -> None:
        sentence = self.say(SHARES, k=parts)
        self.steps.append(f"{sentence}, so {self.value} / {parts} = {self.value // parts}.")
        self.value //= parts

    def together(self, more: int) -> None:
        sentence = self.say(COMPARISONS, n=more)
        other = self.value + more
        self.steps.append(f"{sentence}, so {self.value} + {more} = {other}.")
        self.steps.append(f"Together they have {self.value} + {other} = {self.value + other}.")
        self.value += other

    def ask(self, name: str, questions: tuple[str, ...]) -> Problem:
        question = self.draw.wording(questions).format(**self.slots)
        return Problem(name, " ".join([*self.sentences, question]), tuple(self.steps), self.value)


def changes(draw: Draw, start: int, steps: int, *, step_limit: int, limit: int) -> list[int]:
    """Gains and losses of at least 2 (no "1 apples"), never leaving 0..limit."""
    value, found = start, []
    for _ in range(steps):
        size = draw.randint(2, step_limit)
        possible = [change for change in (size, -size) if 0 <= value + change <= limit]
        if not possible:
            possible = [-2 if value >= 2 else 2]
        found.append(draw.choice(possible))
        value += found[-1]
    return found


def easy(draw: Draw, *, limit: int = 20, times: bool = True) -> Problem:
    """Two steps, every number within 0..limit."""
    while True:
        story, start = draw.choice(STORIES), draw.randint(2, min(limit, 12))
        numbers = changes(draw, start, 2, step_limit=min(limit - 2, 9), limit=limit)
        if draw.fits(("easy", start, *numbers)):
            return tell(draw, story, start, numbers, times=times)


def tell(draw: Draw, story: Story, start: int, numbers: list[int], *, times: bool = True) -> Problem:
    teller = Teller(draw, draw.choice(story.things), times=times)
    teller.open(story, start)
    for number in numbers:
        teller.change(story, number)
    return teller.ask(story.name, story.questions)


def amounts(draw: Draw) -> Problem:
    """One to three steps with numbers up to 40."""
    while True:
        story, start = draw.choice(STORIES), draw.randint(2, 40)
        numbers = changes(draw, start, draw.randint(1, 3), step_limit=12, limit=40)
        if draw.fits(("amounts", start, *numbers)):
            return tell(draw, story, start, numbers)


def groups(draw: Draw) -> Problem:
    """A product, then up to two changes or a share."""
    while True:
        count, each, further = draw.randint(2, 6), draw.randint(2, 6), draw.randint(0, 2)
        numbers = changes(draw, count * each, further, step_limit=9, limit=40)
        total = count * each + sum(numbers)
        parts = [part for part in range(2, 7) if total and total % part == 0 and total // part <= 10]
        part = draw.choice(parts) if parts and further < 2 and draw.chance(0.4) else 0
        if draw.fits(("groups", count, each, *numbers, part)):
            break
    teller = Teller(draw, draw.choice(GOODS))
    teller.open_groups(count, each)
    for number in numbers:
        teller.change(STORIES[0], number)
    if part:
        teller.share(part)
    return teller.ask("sharing" if part else "groups", SHARE_QUESTIONS if part else GROUP_QUESTIONS)


def comparison(draw: Draw) -> Problem:
    """Two people, one with more than the other."""
    while True:
        start, more = draw.randint(2, 15), draw.randint(2, 9)
        numbers = changes(draw, start, draw.randint(0, 1), step_limit=6, limit=15)
        if draw.fits(("comparison", start, *numbers, more)):
            break
    story = STORIES[0]
    teller = Teller(draw, draw.choice(story.things))
    teller.open(story, start)
    for number in numbers:
        teller.change(story, number)
    teller.together(more)
    return teller.ask("comparison", TOGETHER)


def any_problem(draw: Draw) -> Problem:
    return draw.choices((easy, amounts, groups, comparison), weights=(35, 35, 20, 10))[0](draw)
