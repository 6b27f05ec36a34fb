"""Finds the final answer in a text that reasons first. Shared by the graders and by the parsers of rationales."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__: list[str] = []

# what models and data sets write before the answer they settle on; "answer is" also covers "So the final answer is"
MARKERS = ("answer is", "answer:", "####", "\\boxed")

_SENTENCE_END = re.compile(r"[.!?](?=\s+[A-Z]|\s*$)|\n")


@dataclass(frozen=True, slots=True)
class Final:
    """`text` is the answer without its marker, `start` where the marker begins, `end` where the answer ends."""

    text: str
    start: int
    end: int


def last_marked(text: str, markers: Sequence[str] = MARKERS) -> Final | None:
    """The answer behind the last marker that has anything behind it, or None where no marker has.

    The last one counts: a text may reason through "the answer is 3 + 10" before it ends with "Answer: 13".
    """
    lowered = text.lower()
    starts = sorted(
        {(m.start(), m.end()) for marker in markers for m in re.finditer(re.escape(marker.lower()), lowered)},
        reverse=True,
    )
    closing = _closing(text) if "\\boxed" in text else {}
    for start, end in starts:
        found = _boxed(text, start, end, closing) if text[start:end] == "\\boxed" else _sentence(text, start, end)
        if found is not None:
            return found
    return None


def _boxed(text: str, start: int, end: int, closing: dict[int, int]) -> Final | None:
    closed = closing.get(end)
    return None if closed is None else Final(text[end + 1 : closed].strip(), start, closed + 1)


def _closing(text: str) -> dict[int, int]:
    """Where each brace that opens closes: read once, because a text that goes round in circles opens thousands."""
    opened: list[int] = []
    closing: dict[int, int] = {}
    for brace in re.finditer(r"[{}]", text):
        if brace[0] == "{":
            opened.append(brace.start())
        elif opened:
            closing[opened.pop()] = brace.start()
    return closing


def _sentence(text: str, start: int, end: int) -> Final | None:
    tail = text[end:]
    skipped = len(tail) - len(tail.lstrip(" \t:*_\n" if text[start:end] != "####" else " \t"))
    tail = tail[skipped:]
    stop = _SENTENCE_END.search(tail)
    content = tail[: stop.start()] if stop else tail
    content = content.strip().rstrip("*_").strip()
    if not content:
        return None
    return Final(content, start, end + skipped + (stop.start() if stop else len(tail)))


def balanced(text: str) -> bool:
    """Whether every bracket that opens also closes; an answer cut inside an expression does not."""
    return all(text.count(a) == text.count(b) for a, b in ("()", "[]", "{}"))
