"""Reading a complete answer: reasoning apart from the answer, structured answers without a guess.

All of it is a pure function of the stored text, so that a better reader costs nothing. Nothing here closes what was
left open: a text that ends inside a bracket or a string was cut off, and is rejected as that.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from stillhouse.teachers.asking.latex import latex_mended

__all__ = ["Unreadable", "looks_cut", "loops", "read_json", "read_model", "split_reasoning"]

_OPEN, _CLOSE = "<think>", "</think>"
_MOST_CHARACTERS, _MOST_DEPTH, _MOST_DIGITS = 1 << 20, 64, 100
_FENCE = re.compile(r"```[ \t]*(?:json|JSON)?[ \t]*\r?\n(.*?)\r?\n?[ \t]*```", re.DOTALL)
_Model = TypeVar("_Model", bound=BaseModel)


class Unreadable(Exception):
    """Why a structured answer cannot be read: `reason` is a code (cut_off, no_json, several, duplicate_key, ...)."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True)
class Read:
    """A value, and what was done to the text to get it (`latex_fixed`, `latex_ambiguous`, `repaired`)."""

    value: Any
    flags: tuple[str, ...] = ()


def split_reasoning(text: str) -> tuple[str, str]:
    """(reasoning, answer) of a text in which a model thinks aloud first. Either tag may be missing.

    Without the closing tag everything is reasoning; without the opening one (some templates write it themselves)
    everything before the closing tag. Tags inside an answer that does not begin with reasoning stay where they are.
    """
    start = text.lstrip()
    if start.startswith(_OPEN):
        reasoning, closed, answer = start[len(_OPEN) :].partition(_CLOSE)
        return (reasoning.strip(), answer.lstrip()) if closed else (reasoning.strip(), "")
    before, closed, answer = text.partition(_CLOSE)
    if closed and _OPEN not in before:
        return before.strip(), answer.lstrip()
    return "", text


def loops(text: str) -> bool:
    """Whether a text ends in one short piece repeated over at least 400 characters, or in that much white space."""
    tail = text[-400:]
    if len(tail) < 400:
        return False
    return not tail.strip() or any(tail[unit:] == tail[:-unit] for unit in range(1, 41))


def looks_cut(text: str) -> str | None:
    """Why a text inside a valid answer looks cut off: a constrained decoder may close a string in mid-sentence legally."""
    for opening, closing in ("()", "[]", "{}"):
        if text.count(opening) > text.count(closing):
            return f"{opening!r} is not closed"
    if text.count('"') % 2:
        return "a quotation mark is not closed"
    if len(text) > 40 and " " in text and text.rstrip()[-1:].isalnum() and re.search(r"[.!?][ \n]", text):
        return "the last sentence has no end"
    return None


def read_model(text: str, model: type[_Model], *, repair: bool = False) -> tuple[_Model, tuple[str, ...]]:
    """The one JSON value in a text as `model` (pydantic, strict: "8" is no number), with flags. Raises Unreadable."""
    read = read_json(text, repair=repair)
    try:
        return model.model_validate(read.value, strict=True), read.flags
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the value"
        raise Unreadable("schema", f"{where}: {first['msg']}") from error


def read_json(text: str, *, repair: bool = False) -> Read:
    """The one JSON object (or, where there is none, list) in a text. Raises Unreadable.

    Backslashes of LaTeX that JSON would swallow are doubled first, on the raw text. `repair` also forgives trailing
    commas, single quotes and line breaks inside strings.
    """
    if len(text) > _MOST_CHARACTERS:
        raise Unreadable("too_large", f"{len(text)} characters")
    if loops(text):
        raise Unreadable("loops", "the text repeats itself to its end")
    candidate = _candidate(text.lstrip("\ufeff").strip())
    mended, flags = latex_mended(candidate)
    try:
        return Read(_parsed(mended), flags)
    except Unreadable as error:
        if not repair or error.reason != "syntax":
            raise
    return Read(_parsed(_repaired(mended), strict=False), (*flags, "repaired"))


def _candidate(text: str) -> str:
    """The one piece of the text that is meant as JSON."""
    if text.startswith(("{", "[")):
        pieces = list(_pieces(text))
        if len(pieces) == 1 and pieces[0] == text:
            return text
    fenced = [block.strip() for block in _FENCE.findall(text) if block.strip().startswith(("{", "["))]
    if len(fenced) > 1:
        raise Unreadable("several", f"{len(fenced)} fenced blocks")
    pieces = list(_pieces(fenced[0] if fenced else text))
    if not pieces:
        raise Unreadable("no_json", "the text holds no JSON")
    if len(pieces) > 1:
        raise Unreadable("several", f"{len(pieces)} JSON values")
    return pieces[0]


def _pieces(text: str) -> Iterator[str]:
    """Outermost bracketed pieces: objects; lists only where there is no object. Raises Unreadable for one left open."""
    opening = "{" if "{" in text else "["
    at = text.find(opening)
    if "{" in text and text.lstrip().startswith("["):
        at, opening = text.find("["), "["
    while at >= 0:
        end = _end(text, at)
        yield text[at:end]
        at = text.find(opening, end)


def _end(text: str, start: int) -> int:
    depth, inside, at = 0, "", start
    while at < len(text):
        character = text[at]
        if inside:
            if character == "\\":
                at += 1
            elif character == inside:
                inside = ""
        elif character == '"':
            inside = character
        elif character in "{[":
            depth += 1
            if depth > _MOST_DEPTH:
                raise Unreadable("too_deep", f"more than {_MOST_DEPTH} levels")
        elif character in "}]":
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    raise Unreadable("cut_off", "the JSON ends before it is closed")


def _parsed(text: str, *, strict: bool = True) -> Any:
    try:
        value = json.loads(
            text,
            strict=strict,
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_int,
        )
    except ValueError as error:
        raise Unreadable("syntax", str(error)) from error
    if "\\u" in text:
        _no_surrogates(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise Unreadable("duplicate_key", next(name for name in names if names.count(name) > 1))
    return found


def _constant(name: str) -> Any:
    raise Unreadable("not_a_number", name)


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise Unreadable("not_a_number", f"{text[:20]} is too large")
    return value


def _int(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise Unreadable("not_a_number", f"an integer of {len(text)} digits")
    return int(text)


def _no_surrogates(value: Any) -> None:
    """A lone surrogate or NUL cannot be stored; an escape can make one."""
    text = json.dumps(value, ensure_ascii=False)
    if "\\u0000" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise Unreadable("bad_character", "an escape stands for a NUL or half a character")


def _repaired(text: str) -> str:
    """Single quotes around names and strings become double ones, commas before a closing bracket go."""
    out, inside, at = [], "", 0
    while at < len(text):
        character = text[at]
        if inside and character == "\\":
            escaped = text[at : at + 2]
            out.append("'" if escaped == "\\'" else escaped)
            at += 2
            continue
        if inside and character == inside and _closes(text, at + 1, inside):
            out.append('"')
            inside = ""
        elif inside:
            out.append('\\"' if character == '"' else character)
        elif character in "\"'":
            inside = character
            out.append('"')
        elif not (character == "," and re.match(r"\s*[}\]]", text[at + 1 :])):
            out.append(character)
        at += 1
    return "".join(out)


def _closes(text: str, at: int, quote: str) -> bool:
    """An apostrophe inside a single-quoted string ends it only before something that may follow a string."""
    return quote == '"' or re.match(r"\s*(?:[,:}\]]|\Z)", text[at:]) is not None
