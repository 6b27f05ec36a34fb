"""Numbers of a problem that can be asked for instead of its answer: the machinery behind `expansion.backward` (R23)."""

import random
import re
from collections.abc import Iterator

from stillhouse.graders.final import last_marked
from stillhouse.graders.numbers import NotANumberError, read
from stillhouse.records import Seed

__all__: list[str] = []

KNOWN_ANSWER = "The answer to this question is {answer}. What is the value of the unknown {unknown}?"
ASK_UNKNOWN = "What is the value of the unknown {unknown}?"
# not a part of a word, of a longer number, of an ordinal or of a list's numbering
_NUMBER = re.compile(r"(?<![\w.,/$-])\$?(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)(?!\w|[.,/]\d|\.\s+\S.*\n)")


def reference_answer(one: Seed) -> str | None:
    """The final answer of a seed's reference as plain text, or None."""
    if one.reference is None:
        return None
    found = last_marked(one.reference)
    return (found.text if found else one.reference).strip() or None


def numbers_of(text: str) -> set[str]:
    return {match[1] for match in _NUMBER.finditer(text)}


def masked_numbers(
    text: str, unknown: str, most: int, salt: str, *, only: set[str] | None = None
) -> Iterator[tuple[str, str]]:
    """(text with one number replaced, the number); a number that stands there twice would still be told, and is passed over."""
    found = [match for match in _NUMBER.finditer(text) if only is None or match[1] in only]
    values = [value(match[1]) for match in _NUMBER.finditer(text)]
    single = [match for match in found if values.count(value(match[1])) == 1]
    for match in random.Random(salt).sample(single, min(most, len(single))):
        start, end = match.span(1)
        yield f"{text[:start]}{unknown}{text[end:]}", match[1]


def value(text: str) -> object:
    try:
        return read(text).value
    except NotANumberError:
        return text
