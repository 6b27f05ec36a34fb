"""Function calls, compared by their syntax tree and not by their text."""

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stillhouse.graders import CANNOT_TELL_NO_REFERENCE, Grade
from stillhouse.graders.strict_json import NotStrictError, read

__all__ = ["match", "subtree"]

_NAME = re.compile(r"[A-Za-z_][\w.]*\s*\(")


@dataclass(frozen=True, slots=True)
class Call:
    """A function with its arguments; those without a name are under "0", "1" ..."""

    name: str
    arguments: dict[str, Any]


def match(responses: Sequence[str], references: Sequence[str | None], *, none: str = "") -> list[Grade]:
    """Whether a response makes exactly the calls of the reference, argument by argument.

    A response is Python (`f(a=1)`, `[f(a=1), g()]`) or JSON (`{"name": ..., "arguments": {...}}`, or a list of
    such), alone, in tags or in one fenced block. The reference is JSON: one call or a list of calls in the same
    form, with one value per argument; or the form of the Berkeley function-calling leaderboard, `{function:
    {argument: [allowed values]}}`, where "" among the values makes the argument optional. An empty list means that
    no call is right: then a response without any call is worth 1 (containing `none`, where that is given). Order of
    calls does not count. Numbers are compared as numbers, texts after folding case and space. Reasons for 0:
    "no_call", "call_made", "wrong_function", "missing:<argument>", "unexpected:<argument>",
    "wrong_value:<argument>", "wrong_count". Sources: R47, R49, SK07.
    """
    grades = []
    for response, reference in zip(responses, references, strict=True):
        wanted = _wanted(reference)
        if wanted is None:
            grades.append(CANNOT_TELL_NO_REFERENCE if reference is None else Grade(None, "unreadable_reference"))
        else:
            fault = _fault(calls(response), wanted, response, none)
            grades.append(Grade(0.0, fault) if fault else Grade(1.0, "equal"))
    return grades


def subtree(
    responses: Sequence[str], references: Sequence[str | None], *, arguments: Sequence[str] | None = None
) -> list[Grade]:
    """Whether a call of the reference occurs anywhere in the code of a response, with the arguments that matter.

    The reference is one Python call with named arguments, whose function is looked for by its full dotted name.
    `arguments` are
    those that must agree where the reference has them, all of them where the knob is left out; a call may give them
    by position, in the order of the reference, and may add others. Reasons for 0: "wrong_function" (it is not called
    at all), "wrong_value:<argument>" of the nearest call. Source: R47 (sub-tree match of Gorilla).
    """
    grades = []
    for response, reference in zip(responses, references, strict=True):
        parsed = _python(reference.strip()) if reference is not None else []
        if len(parsed) != 1:
            grades.append(CANNOT_TELL_NO_REFERENCE if reference is None else Grade(None, "unreadable_reference"))
            continue
        faults = [_sub_fault(call, parsed[0], arguments) for call in _embedded(response, parsed[0].name)]
        if not faults:
            grades.append(Grade(0.0, "wrong_function"))
        else:
            grades.append(Grade(1.0, "equal") if "" in faults else Grade(0.0, faults[0]))
    return grades


def calls(response: str) -> list[Call]:
    """The calls of a response; none where it makes none that can be read."""
    text = re.sub(r"</?tool_call>|<\|[\w ]+\|>", " ", response).strip()
    try:
        return _json_calls(read(text))
    except NotStrictError:
        pass
    fenced = re.findall(r"```[ \t]*\w*[^\n]*\n(.*?)```", text, re.S)
    return _python((fenced[0] if len(fenced) == 1 else text).strip())


def _json_calls(value: Any) -> list[Call]:
    found = []
    for each in value if isinstance(value, list) else [value]:
        if not isinstance(each, dict):
            return []
        inner = each.get("function")
        each = inner if isinstance(inner, dict) else each
        name = each.get("name", each.get("tool", inner))
        arguments = each.get("arguments", each.get("parameters", {}))
        if isinstance(arguments, str):
            arguments = _object(arguments)
        if not isinstance(name, str) or not isinstance(arguments, dict):
            return []
        found.append(Call(name, arguments))
    return found


def _object(text: str) -> Any:
    try:
        return read(text)
    except NotStrictError:
        return None


def _python(text: str) -> list[Call]:
    try:
        node = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    items = node.elts if isinstance(node, ast.List | ast.Tuple) else [node]
    found = [_call(item) for item in items]
    return [call for call in found if call is not None] if all(found) else []


def _call(node: ast.AST) -> Call | None:
    if not isinstance(node, ast.Call):
        return None
    arguments = {str(i): _literal(value) for i, value in enumerate(node.args)}
    arguments |= {keyword.arg: _literal(keyword.value) for keyword in node.keywords if keyword.arg is not None}
    return Call(ast.unparse(node.func), arguments)


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError):
        return ast.unparse(node)


def _embedded(text: str, name: str) -> list[Call]:
    """Calls of a function inside any text, code that does not parse as a whole included: each is cut out by its brackets."""
    found = []
    for start in (m.start() for m in re.finditer(rf"(?<![\w.]){re.escape(name)}\s*\(", text)):
        depth = 0
        for end in range(start, min(len(text), start + 4000)):
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            if depth == 0 and text[end] == ")":
                found += _python(text[start : end + 1])
                break
    return found


def _sub_fault(call: Call, wanted: Call, matter: Sequence[str] | None) -> str:
    positions = {name: str(i) for i, name in enumerate(wanted.arguments)}
    for name in matter if matter is not None else wanted.arguments:
        if name not in wanted.arguments:
            continue
        given = call.arguments.get(name, call.arguments.get(positions[name], _MISSING))
        if given is _MISSING or not _same(given, wanted.arguments[name]):
            return f"wrong_value:{name}"
    return ""


_MISSING = object()


def _wanted(reference: str | None) -> list[tuple[str, dict[str, list[Any]]]] | None:
    """(function, {argument: allowed values}) of each call that is right."""
    if reference is None:
        return None
    try:
        value = json.loads(reference)
    except ValueError:
        parsed = _python(reference.strip())
        return [(call.name, {k: [v] for k, v in call.arguments.items()}) for call in parsed] or None
    wanted = []
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, dict) and ("name" in each or "tool" in each or "function" in each):
            wanted += [(call.name, {k: [v] for k, v in call.arguments.items()}) for call in _json_calls(each)]
        elif isinstance(each, dict) and all(isinstance(arguments, dict) for arguments in each.values()):
            wanted += [(name, arguments) for name, arguments in each.items()]
        else:
            return None
    return wanted


def _fault(given: list[Call], wanted: list[tuple[str, dict[str, list[Any]]]], response: str, none: str) -> str:
    if not wanted:
        if given or re.search(r"\"name\"\s*:|\"tool\"\s*:", response):
            return "call_made"
        return "" if none.casefold() in response.casefold() else "no_call"
    if not given:
        return "no_call"
    left = list(given)
    for name, arguments in wanted:
        faults = [_argument_fault(call, name, arguments) for call in left]
        if "" in faults:
            del left[faults.index("")]
        else:
            return next((fault for fault in faults if fault != "wrong_function"), "wrong_function")
    return "wrong_count" if left else ""


def _argument_fault(call: Call, name: str, allowed: dict[str, list[Any]]) -> str:
    if call.name != name:
        return "wrong_function"
    positions = list(allowed)
    given = {positions[int(k)] if k.isdigit() and int(k) < len(positions) else k: v for k, v in call.arguments.items()}
    for argument, values in allowed.items():
        if argument not in given:
            if "" not in values:
                return f"missing:{argument}"
        elif not any(_same(given[argument], value) for value in values):
            return f"wrong_value:{argument}"
    return next((f"unexpected:{argument}" for argument in given if argument not in allowed), "")


def _same(a: Any, b: Any) -> bool:
    if isinstance(b, list) and isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        # allowed values of nested arguments are lists of their own
        return a.keys() <= b.keys() and all(
            _same(a[k], b[k]) or (isinstance(b[k], list) and any(_same(a[k], v) for v in b[k])) for k in a
        )
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b
    if isinstance(a, str) and isinstance(b, str):
        return re.sub(r"[\s,./\-_*^]", "", a).casefold().replace("'", '"') == re.sub(
            r"[\s,./\-_*^]", "", b
        ).casefold().replace("'", '"')
    return False
