"""Numbers as people and models write them -> exact fractions. No floats: 0.1 + 0.2 is 0.3 here."""

import re
from dataclasses import dataclass
from fractions import Fraction

__all__: list[str] = []

_ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_NUMBER_WORDS = {word: i for i, word in enumerate(_ONES)} | {word: 10 * i for i, word in enumerate(_TENS, 2)}
for _i, _tens in enumerate(_TENS, 2):
    _NUMBER_WORDS |= {f"{_tens}-{one}": 10 * _i + j for j, one in enumerate(_ONES[1:10], 1)}

_REPLACED = {
    "\\$": "$",
    "\\%": "%",
    "\\,": "",
    "\\!": "",
    "\\;": "",
    "\\ ": " ",
    "\\left": "",
    "\\right": "",
    "\\cdot": "*",
    "\\times": "*",
    "\\div": "/",
    "×": "*",
    "·": "*",
    "÷": "/",
    "−": "-",
    "–": "-",
    "**": "^",
    "^\\circ": "",
    "°": "",
    "\u00a0": " ",
    "\u202f": " ",
}
_THOUSANDS = re.compile(r"(?<![\d.,])(\d{1,3})((?:,\d{3})+)(?![\d,])")
_FRAC = re.compile(r"\\[dt]?frac\s*(?:\{([^{}]*)\}\s*\{([^{}]*)\}|(\d)\s*(\d))")
_TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d+)?(?:[eE][+-]?\d{1,3})?|\.\d+)|([-+*/^()]))")
_STANDING_ALONE = re.compile(r"(?<![a-zA-Z_\d.])(?:\d+(?:\.\d+)?(?:[eE][+-]?\d{1,3}(?!\w))?|\.\d+)")
_MIXED = re.compile(r"(-?)\s*(\d+)\s+(\d+)\s*/\s*(\d+)")
_IN_TEXT = re.compile(r"(?:(?:^|(?<=[\s($=:]))-)?\$?(?<![\w.])(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:\s?%)?", re.M)
_OPERATOR = re.compile(r"[+*=^<>\\]|\s-\s|-\s*$|/\s*$")
_UNIT_POWER = re.compile(r"(?<=[a-zA-Z])(?:\^\(?[23]\)?|[²³])")

_MAX_LENGTH = 400  # bounds the work for one answer, and the depth of its brackets
_MAX_EXPONENT = 200
_MAX_BITS = 20_000


class NotANumberError(ValueError):
    """The text does not state one number."""


@dataclass(frozen=True, slots=True)
class Number:
    """`value` as written: "50 %" is 50 with `percent`."""

    value: Fraction
    percent: bool = False

    def equals(self, other: "Number", tolerance: Fraction = Fraction(0)) -> bool:
        """Within a relative tolerance. A percentage against a bare number may mean 50 or 0.5: both are accepted."""
        pairs = {(self.value, other.value)}
        if self.percent and not other.percent:
            pairs.add((self.value / 100, other.value))
        if other.percent and not self.percent:
            pairs.add((self.value, other.value / 100))
        return any(abs(a - b) <= tolerance * abs(b) for a, b in pairs)


def read(text: str) -> Number:
    """The one number a text states; raises `NotANumberError` where there is none or more than one.

    Understands signs, thousands separators, currency and units around the number, percentages, fractions, mixed
    numbers, powers of ten, arithmetic such as "(84 / 2)", simple LaTeX, number words up to ninety-nine, and a chain
    of equalities (its right end).
    """
    plain = _plain(text)
    if len(plain) > _MAX_LENGTH:
        raise NotANumberError("too long")
    without = re.sub(r"%|\bper\s?cent\b", " ", plain)
    percent = without != plain
    right = without.rpartition("=")[2] if without.count("=") and without.rpartition("=")[2].strip() else without
    for attempt in (_word, _mixed, _quantity):
        value = attempt(right.strip())
        if value is not None:
            return Number(value, percent)
    raise NotANumberError(text[:80])


def last(text: str) -> Number | None:
    """The last number in running text, or None."""
    found = _IN_TEXT.findall(text)
    for candidate in reversed(found):
        try:
            return read(candidate.rstrip(","))
        except NotANumberError:
            continue
    return None


def _plain(text: str) -> str:
    for old, new in _REPLACED.items():
        text = text.replace(old, new)
    text = re.sub(r"\\(?:text|mathrm|mbox|textbf)\s*\{([^{}]*)\}", r" \1 ", text)
    text = re.sub(r"\^\{([^{}]*)\}", r"^(\1)", text)
    text = _FRAC.sub(lambda m: f"(({m[1] or m[3]})/({m[2] or m[4]}))", text)
    text = _THOUSANDS.sub(lambda m: m[1] + m[2].replace(",", ""), text)
    text = re.sub(r"[$€£¥]", "", text).strip()
    return re.sub(r"(?<=[\d)%])\s*\.\s*$", "", text)


def _word(text: str) -> Fraction | None:
    words = [word for word in re.findall(r"[a-z-]+", text.lower()) if word in _NUMBER_WORDS]
    first = re.match(r"\(?([a-z-]+)", text.lower())
    if len(words) != 1 or not first or first[1] != words[0] or re.search(r"[\d+*/=^]|\s-\s", text):
        return None
    return Fraction(_NUMBER_WORDS[words[0]])


def _mixed(text: str) -> Fraction | None:
    found = _MIXED.match(text)
    if not found or int(found[4]) == 0 or not _harmless("", text[found.end() :]):
        return None
    value = int(found[2]) + Fraction(int(found[3]), int(found[4]))
    return -value if found[1] else value


def _quantity(text: str) -> Fraction | None:
    """One arithmetic expression among words ("42 points", "(84 / 2)", "Jake has 5 apples")."""
    if text.count("(") > text.count(")"):
        return None  # cut inside an expression
    text = _UNIT_POWER.sub("", text)
    digits = [found.span() for found in _STANDING_ALONE.finditer(text)]
    if not digits:
        return None
    start, end = digits[0][0], digits[-1][1]
    start, end = _with_brackets(text, start, end)
    start = _with_sign(text, start)
    if not _harmless(text[:start], text[end:]):
        return None
    return _evaluate(text[start:end])


def _with_brackets(text: str, start: int, end: int) -> tuple[int, int]:
    """Widens a span until the brackets inside it match, where the text has them."""
    depth = lowest = 0
    for character in text[start:end]:
        depth += {"(": 1, ")": -1}.get(character, 0)
        lowest = min(lowest, depth)
    missing_left, missing_right = -lowest, depth - lowest
    for _ in range(missing_left):
        start = max(text.rfind("(", 0, start), 0)
    for _ in range(missing_right):
        end = text.find(")", end) + 1 or end
    return start, end


def _with_sign(text: str, start: int) -> int:
    """A minus belongs to the number when it touches it, or when nothing but brackets stands before it."""
    before = text[:start]
    touching = re.search(r"(?:^|[\s(=:])-$", before)
    leading = re.fullmatch(r"[\s(]*-\s*", before)
    return before.rindex("-") if touching or leading else start


def _harmless(before: str, after: str) -> bool:
    """Whether the words around a number leave its value alone: units do, operators and variables do not."""
    if _OPERATOR.search(before) or _OPERATOR.search(after) or re.match(r"\s*[/(:]", after):
        return False
    return not re.match(r"[xyzn]\b", after)


def _evaluate(text: str) -> Fraction | None:
    tokens, position = [], 0
    while position < len(text.rstrip()):
        found = _TOKEN.match(text, position)
        if not found:
            return None
        tokens.append(found[1] or found[2])
        position = found.end()
    try:
        value, rest = _sum(tokens)
    except (NotANumberError, ZeroDivisionError):
        return None
    return None if rest else value


def _sum(tokens: list[str]) -> tuple[Fraction, list[str]]:
    value, tokens = _product(tokens)
    while tokens and tokens[0] in "+-":
        other, rest = _product(tokens[1:])
        value, tokens = (value + other if tokens[0] == "+" else value - other), rest
    return _bounded(value), tokens


def _product(tokens: list[str]) -> tuple[Fraction, list[str]]:
    value, tokens = _signed(tokens)
    while tokens and tokens[0] in "*/":
        other, rest = _signed(tokens[1:])
        value, tokens = _bounded(value * other if tokens[0] == "*" else value / other), rest
    return value, tokens


def _signed(tokens: list[str]) -> tuple[Fraction, list[str]]:
    if tokens and tokens[0] in "+-":
        value, rest = _signed(tokens[1:])
        return (-value if tokens[0] == "-" else value), rest
    base, tokens = _atom(tokens)
    if tokens and tokens[0] == "^":
        exponent, tokens = _signed(tokens[1:])
        if exponent.denominator != 1 or abs(exponent) > _MAX_EXPONENT:
            raise NotANumberError("exponent")
        base = _bounded(base ** int(exponent))
    return base, tokens


def _atom(tokens: list[str]) -> tuple[Fraction, list[str]]:
    if not tokens:
        raise NotANumberError("ends early")
    if tokens[0] == "(":
        value, rest = _sum(tokens[1:])
        if rest[:1] != [")"]:
            raise NotANumberError("bracket")
        return value, rest[1:]
    if tokens[0] in "+-*/^)":
        raise NotANumberError("operator")
    return Fraction(tokens[0]), tokens[1:]


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > _MAX_BITS:
        raise NotANumberError("too large")
    return value
