"""What a judge wrote -> a verdict, or why there is none. Out of range is malformed; nothing is clamped or filled in.

A verdict stands behind its marker and is read whole: "1" is not the start of "10", "CORRECT" not a part of
"INCORRECT".
"""

import re
from collections.abc import Sequence

__all__: list[str] = []

_NUMBER = r"-?\d+(?:\.\d+)?"


class NoVerdictError(ValueError):
    """The message is a reason code: no_verdict, several_verdicts, out_of_range, another_scale."""


def score(text: str, *, low: float, high: float, marker: str = "score") -> float:
    """The number behind the last `marker` ("Score: 7", "**Score:** 7/10", "[[7]]"); raises `NoVerdictError`.

    "7/10" is a 7 on a scale to 10 and refused on any other. A range ("7-8") is two verdicts. "1e5", "4,5" and "4%" are none.
    """
    found = list(
        re.finditer(
            rf"(?:\b{re.escape(marker)}\b[\s*_\"'`]*(?:is|of)?[\s:=*_\"'`]*\[*|\[\[)\s*({_NUMBER})(?![\d.]*\d)(?!\w|\s*%|,\d)",
            text,
            re.I,
        )
    )
    if not found:
        raise NoVerdictError("no_verdict")
    end = text[found[-1].end() :]
    if re.match(r"\s*(?:-|–|to|or)\s*\d", end) or (re.match(r"\s+\d", end) and not re.match(r"\s+\d+[.)]\s", end)):
        raise NoVerdictError("several_verdicts")
    scale = re.match(rf"\]*\s*(?:/|out of|of)\s*({_NUMBER})", end)
    if scale and float(scale[1]) != high:
        raise NoVerdictError("another_scale")
    value = float(found[-1][1])
    if not low <= value <= high:
        raise NoVerdictError("out_of_range")
    return value


def choice(text: str, options: Sequence[str], *, marker: str | None = "verdict") -> str:
    """The one of `options` that stands behind the last marker, or is the whole text; raises `NoVerdictError`."""
    longest_first = sorted(options, key=len, reverse=True)
    either = "|".join(map(re.escape, longest_first))
    whole = re.fullmatch(rf"[\s*_\"'`(\[]*({either})[\s*_\"'`)\].!]*", text, re.I)
    if whole:
        return _canonical(whole[1], options)
    if marker is None:
        raise NoVerdictError("no_verdict")
    found = re.findall(
        rf"\b{re.escape(marker)}\b[\s*_\"'`]*(?:is)?[\s:=*_\"'`(\[]*({either})(?![\w])(?!\s*(?:or|/|and)\s*(?:{either})\b)",
        text,
        re.I,
    )
    if not found:
        raise NoVerdictError("no_verdict")
    return _canonical(found[-1], options)


def _canonical(given: str, options: Sequence[str]) -> str:
    return next(option for option in options if option.casefold() == given.casefold())
