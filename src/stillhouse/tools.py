"""Tools that a teacher or a student can call while it writes: a function of one text that gives a text.

A tool of your own is a function `(argument: str, *, knobs) -> str` in a file of yours (`{do: mine.py:prices}`); its
name and the first line of its docstring are what an agent is told of it, and it raises `ToolFaultError` where it has
no answer.
"""

import ast
import math
import operator
import re
from collections.abc import Callable
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from stillhouse.errors import RecipeError

__all__ = ["calculator", "calendar", "search"]

Tool = Callable[[str], str]


class ToolFaultError(Exception):
    """A call that a tool cannot answer; what it says goes back to whoever called."""


_DO: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_DATE = r"(\d{4}-\d{2}-\d{2})"


def calculator(argument: str, *, digits: int = 2) -> str:
    """The value of an arithmetic expression: numbers, + - * / // % and brackets.

    Rounded to `digits` behind the point. Source: R46 (Toolformer's calculator rounds to two).
    """
    plain = re.sub(r"(?<=\d),(?=\d{3}\b)", "", argument).strip().rstrip("=")
    if len(plain) > 200:
        raise ToolFaultError("the expression is longer than 200 characters")
    try:
        value = _value(ast.parse(plain, mode="eval").body)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise ToolFaultError(f"{argument!r} is no arithmetic expression") from None
    except (ZeroDivisionError, OverflowError) as error:
        raise ToolFaultError(str(error)) from None
    if not math.isfinite(value):
        raise ToolFaultError("the result is too large")
    return f"{round(value, digits):.{digits}f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _value(node: ast.expr) -> int | float:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value  # type: ignore[return-value]
    if isinstance(node, ast.BinOp) and type(node.op) in _DO:
        return _DO[type(node.op)](_value(node.left), _value(node.right))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _DO:
        return _DO[type(node.op)](_value(node.operand))
    raise ValueError(ast.dump(node))


def calendar(argument: str, *, today: str) -> str:
    """Today's date, the weekday of a date, a date some days later ("2026-02-27 + 3"), or the days between two dates.

    Dates are written YYYY-MM-DD; `today` (which stands for an empty argument, and for the word in one) is a knob, so
    that what was made can be made again. Source: R46.
    """
    asked = re.sub(r"\btoday\b", today, argument.strip() or today, flags=re.I)
    if found := re.fullmatch(rf"{_DATE}(?:\s*([+-])\s*(\d{{1,6}})(?:\s*days?)?)?", asked):
        shift = timedelta(int(f"{found[2]}{found[3]}")) if found[2] else timedelta()
        try:
            return f"{_day(found[1]) + shift:%A, %Y-%m-%d}"
        except OverflowError as error:
            raise ToolFaultError(str(error)) from None
    if found := re.fullmatch(rf"{_DATE}\s+(?:-|to|until)\s+{_DATE}", asked):
        return f"{abs((_day(found[2]) - _day(found[1])).days)} days"
    raise ToolFaultError(f"{argument!r} is no date (YYYY-MM-DD), date + days, or two dates")


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ToolFaultError(f"{text}: {error}") from None


def search(argument: str, *, path: Path, field: str = "text", count: int = 1, max_chars: int = 600) -> str:
    """What a collection of passages says about some words: the best by BM25.

    `path` is a file of rows whose `field` is a passage; `count` of them, `max_chars` of each. Needs
    `stillhouse[retrieval]`. Sources: R46, R50 (FireAct's search), SK03.
    """
    texts, index = _index(Path(path), field)
    found = index.best(argument, count)
    if not found:
        raise ToolFaultError(f"nothing was found about {argument!r}")
    return "\n".join(texts[at][:max_chars] for at, _ in found)


@lru_cache(maxsize=4)
def _index(path: Path, field: str) -> tuple[list[str], Any]:
    from stillhouse.elicit.bm25 import Index
    from stillhouse.rows import rows

    texts = []
    for number, row in rows(path, bare=field):
        if not isinstance(row.get(field), str):
            raise RecipeError(f"{path}, row {number}: no text in the field {field!r}")
        texts.append(row[field])
    return texts, Index(texts)
