"""Functions with typed arguments and a request; the answer is one JSON call, or "No tool fits."."""

import json
from collections.abc import Callable
from dataclasses import dataclass

from tools.pocket.item import Draw, Item, ask
from tools.pocket.words import CITIES, DAYS, FOODS, PLACES, person

NAME = "tools"
NONE = "No tool fits."


@dataclass(frozen=True)
class Function:
    """Names, arguments with their types, and requests; `{0}` is the first argument."""

    names: tuple[str, ...]
    arguments: tuple[tuple[str, str], ...]
    requests: tuple[str, ...]
    values: Callable[[Draw], list]


def rooms(draw: Draw) -> str:
    return draw.choice(("kitchen", "hall", "bedroom", "office", "garage", "cellar"))


FUNCTIONS = (
    Function(
        ("get_weather", "weather", "find_weather"),
        (("city", "string"), ("day", "string")),
        (
            "What is the weather in {0} on {1}?",
            "How is the weather in {0} on {1}?",
            "What will it be like in {0} on {1}, what weather?",
            "Will it rain in {0} on {1}?",
            "Tell me the weather in {0} for {1}.",
            "What will the weather be in {0} on {1}?",
        ),
        lambda draw: [draw.choice(CITIES), draw.choice(DAYS)],
    ),
    Function(
        ("set_timer", "timer", "start_timer"),
        (("minutes", "integer"),),
        (
            "Set a timer for {0} minutes.",
            "Please set a timer for {0} minutes.",
            "Set a {0} minute timer.",
            "Start a timer of {0} minutes.",
            "Wake me in {0} minutes.",
            "I need a timer for {0} minutes.",
        ),
        lambda draw: [draw.randint(2, 90)],
    ),
    Function(
        ("send_message", "message", "send_text"),
        (("to", "string"), ("text", "string")),
        (
            "Send {0} the message: {1}",
            "Send this message to {0}: {1}",
            "Please send {0} a message: {1}",
            "Tell {0}: {1}",
            "Write to {0}: {1}",
            "Send a message to {0}: {1}",
        ),
        lambda draw: [
            person(draw)[0],
            draw.choice(("I am late", "See you soon", "Call me", "I am home", "Dinner is ready", "Good luck")),
        ],
    ),
    Function(
        ("convert_money", "convert", "exchange"),
        (("amount", "integer"), ("from", "string"), ("to", "string")),
        (
            "Convert {0} {1} to {2}.",
            "Please convert {0} {1} into {2}.",
            "I want to exchange {0} {1} for {2}.",
            "How much is {0} {1} in {2}?",
            "Change {0} {1} into {2}.",
            "Exchange {0} {1} into {2}.",
        ),
        lambda draw: [draw.randint(2, 99), *draw.sample(("euros", "dollars", "pounds", "yen", "francs"), 2)],
    ),
    Function(
        ("book_table", "reserve_table", "table"),
        (("people", "integer"), ("day", "string")),
        (
            "Book a table for {0} on {1}.",
            "I need a table for {0} on {1}.",
            "On {1} we want a table for {0}.",
            "Reserve a table for {0} people on {1}.",
            "We are {0} and want a table on {1}.",
            "Reserve a table on {1} for {0}.",
        ),
        lambda draw: [draw.randint(2, 12), draw.choice(DAYS)],
    ),
    Function(
        ("find_flight", "search_flights", "flights"),
        (("from", "string"), ("to", "string")),
        (
            "Find a flight from {0} to {1}.",
            "Find me flights from {0} to {1}.",
            "I need a flight to {1} from {0}.",
            "I want to fly from {0} to {1}.",
            "Is there a flight to {1} from {0}?",
            "Show me flights from {0} to {1}.",
        ),
        lambda draw: draw.sample(CITIES, 2),
    ),
    Function(
        ("light_on", "turn_on_light", "lights"),
        (("room", "string"),),
        (
            "Turn on the light in the {0}.",
            "Turn the light on in the {0}.",
            "Put on the light in the {0}.",
            "Light in the {0}, please.",
            "It is dark in the {0}.",
            "Switch on the light in the {0}.",
        ),
        lambda draw: [rooms(draw)],
    ),
    Function(
        ("add_item", "add_to_list", "shopping_list"),
        (("item", "string"), ("count", "integer")),
        (
            "Put {1} {0} on the shopping list.",
            "Put {1} {0} on my list.",
            "Shopping list: {1} {0}.",
            "Add {1} {0} to my list.",
            "We need {1} {0} from the shop.",
            "Add {1} {0} to the shopping list.",
        ),
        lambda draw: [draw.choice(FOODS), draw.randint(2, 20)],
    ),
    Function(
        ("translate", "translate_word", "find_word"),
        (("word", "string"), ("language", "string")),
        (
            "Translate {0} into {1}.",
            "Translate the word {0} to {1}.",
            "I need the {1} word for {0}.",
            "What is {0} in {1}?",
            "How do you say {0} in {1}?",
            "Translate the word {0} into {1}.",
        ),
        lambda draw: [draw.choice(FOODS + PLACES), draw.choice(("French", "German", "Spanish", "Italian", "Polish"))],
    ),
    Function(
        ("set_heat", "heating", "set_heating"),
        (("room", "string"), ("degrees", "integer")),
        (
            "Heat the {0} to {1} degrees.",
            "Set the heat in the {0} to {1} degrees.",
            "I want {1} degrees in the {0}.",
            "Set the {0} to {1} degrees.",
            "Make the {0} {1} degrees warm.",
            "Set the heating in the {0} to {1} degrees.",
        ),
        lambda draw: [rooms(draw), draw.randint(15, 25)],
    ),
    Function(
        ("call", "phone", "call_person"),
        (("name", "string"),),
        (
            "Call {0}.",
            "Call {0} for me.",
            "Please phone {0}.",
            "Phone {0} for me.",
            "I want to talk to {0}.",
            "Please call {0}.",
        ),
        lambda draw: [person(draw)[0]],
    ),
    Function(
        ("find_route", "route", "directions"),
        (("to", "string"), ("by", "string")),
        (
            "How do I get to the {0} by {1}?",
            "What is the route to the {0} by {1}?",
            "Find the way to the {0} by {1}.",
            "Show me the way to the {0} by {1}.",
            "Take me to the {0} by {1}.",
            "What is the way to the {0} by {1}?",
        ),
        lambda draw: [draw.choice(PLACES), draw.choice(("bus", "car", "train", "bike"))],
    ),
)
SYSTEMS = (
    "You can call these functions:\n{tools}",
    "Tools:\n{tools}",
    "Available functions:\n{tools}\nAnswer with one JSON call.",
    "Available tools:\n{tools}",
    "You can call these tools:\n{tools}",
)
FRAMES = (
    "Functions:\n{tools}\nRequest: {request}",
    "Tools:\n{tools}\n\n{request}",
    "{request}\nTools:\n{tools}",
    "Use one of these functions.\n{tools}\nRequest: {request}",
    "Tools:\n{tools}\nRequest: {request}",
)


def make(draw: Draw) -> Item:
    fits = draw.chance(0.8)
    while True:
        shown = draw.sample(FUNCTIONS, draw.randint(2, 3))
        wanted = draw.choice(shown if fits else [function for function in FUNCTIONS if function not in shown])
        values, name = wanted.values(draw), draw.choice(wanted.names)
        if draw.fits((wanted.names[0], name, *values)):
            break
    request = draw.wording(wanted.requests).format(*values)
    titles = {function: name if function is wanted else draw.choice(function.names) for function in shown}
    listing = list_tools(draw, shown, titles)
    answer = call(name, dict(zip(dict(wanted.arguments), values, strict=True))) if fits else NONE
    if draw.chance(0.5):
        return ask(
            NAME, "call" if fits else "none", request, answer, system=draw.wording(SYSTEMS).format(tools=listing)
        )
    return ask(NAME, "call" if fits else "none", draw.wording(FRAMES).format(tools=listing, request=request), answer)


def call(name: str, arguments: dict) -> str:
    return json.dumps({"name": name, "arguments": arguments})


def list_tools(draw: Draw, shown: list[Function], titles: dict[Function, str]) -> str:
    """Signature lines or compact JSON."""
    as_json = draw.chance(0.2)
    lines = []
    for function in shown:
        typed = dict(function.arguments)
        signature = f"{titles[function]}({', '.join(f'{key}: {kind}' for key, kind in typed.items())})"
        lines.append(call(titles[function], typed) if as_json else signature)
    return "\n".join(lines)


def right(item: Item, response: str) -> bool:
    """The same call, however its JSON is spaced."""
    if item.kind == "none":
        return response == NONE
    try:
        return json.loads(response) == json.loads(item.answer)
    except json.JSONDecodeError:
        return False
