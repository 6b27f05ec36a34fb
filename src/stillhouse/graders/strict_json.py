"""JSON out of a model's answer, read strictly: what is ambiguous is refused with a reason, never guessed.

LaTeX is the trap: a model writes `"\\frac"` where JSON needs `"\\\\frac"`, and a parser turns it into a form feed
without any error. So backslashes before known LaTeX commands are doubled in the raw text before it is read.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

__all__: list[str] = []

_FENCE = re.compile(r"```[ \t]*\w*[^\n]*\n(.*?)```", re.S)
_MOST_CHARACTERS = 1 << 20
_MOST_DEPTH = 64
# commands that begin with a letter that JSON reads as an escape (b, f, n, r, t) or half of one (u)
_COMMANDS = (
    "bar|begin|beta|big|Big|binom|boldsymbol|bot|boxed|breve|bullet|flat|forall|frac|nabla|natural|ne|nearrow|neg|neq|"
    "newline|ni|nmid|not|notin|nrightarrow|nu|rangle|rceil|ref|rfloor|rho|right|rightarrow|rm|root|tan|tanh|tau|text|"
    "textbf|textit|tfrac|theta|therefore|tilde|times|to|top|triangle|underbrace|underline|uparrow|upsilon"
)
_LATEX = re.compile(rf"(?<!\\)((?:\\\\)*)\\(?=(?:{_COMMANDS})(?![a-zA-Z]))")
_OTHER_BACKSLASH = re.compile(r'(?<!\\)((?:\\\\)*)\\(?!["\\/bfnrtu])')


class NotStrictError(ValueError):
    """The text does not hold exactly one JSON value that can be trusted; the message is a reason code."""


def read(text: str) -> Any:
    """The one JSON object or list of an answer: the whole text, else the one fenced block, else the one in the prose.

    Raises `NotStrictError`: "no_json", "several_objects", "duplicate_key", "not_a_number", "too_deep", "too_long".
    """
    if len(text) > _MOST_CHARACTERS:
        raise NotStrictError("too_long")
    text = text.strip().removeprefix("\ufeff")
    fenced = _FENCE.findall(text)
    if len(fenced) > 1:
        raise NotStrictError("several_objects")
    found = [part for part in (text, *fenced, *_spans(text)) if part[:1] in "{["]
    if not found:
        raise NotStrictError("no_json")
    if found[0] is not text and not fenced and len(_spans(text)) > 1:
        raise NotStrictError("several_objects")
    return _loaded(found[0].strip())


def _loaded(text: str) -> Any:
    if _depth(text) > _MOST_DEPTH:
        raise NotStrictError("too_deep")
    mended = _OTHER_BACKSLASH.sub(r"\1\\\\", _LATEX.sub(r"\1\\\\", text))
    try:
        return json.loads(mended, object_pairs_hook=_distinct, parse_constant=_no_constant, parse_float=_finite)
    except NotStrictError:
        raise
    except ValueError as error:
        raise NotStrictError("several_objects" if "Extra data" in str(error) else "no_json") from None


def _spans(text: str) -> Sequence[str]:
    """The outermost bracketed parts of a text, brackets inside strings not counted."""
    spans, depth, start, quoted, escaped = [], 0, 0, False, False
    for i, character in enumerate(text):
        if quoted:
            quoted, escaped = character != '"' or escaped, character == "\\" and not escaped
        elif character == '"' and depth:
            quoted = True
        elif character in "{[":
            start = i if depth == 0 else start
            depth += 1
        elif character in "}]" and depth:
            depth -= 1
            if depth == 0:
                spans.append(text[start : i + 1])
    return spans


def _depth(text: str) -> int:
    deepest = depth = 0
    for character in text:
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(character, 0)
        deepest = max(deepest, depth)
    return deepest


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise NotStrictError("duplicate_key")
    return dict(pairs)


def _no_constant(text: str) -> Any:
    raise NotStrictError("not_a_number")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise NotStrictError("not_a_number")
    return value
