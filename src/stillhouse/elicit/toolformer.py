"""Texts with calls of tools in them, kept where they help to go on with the text (R46, J8).

`positions` finds where a call may stand, `calls` asks for calls there (`written` asks for the whole text again, for
teachers that cannot show their probabilities), `useful` runs them and keeps those under which what follows gets
likelier. A call is written "[name(argument) -> result]": no new tokens are needed.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stillhouse.elicit.asking import Unparsed, asked, complete, keys_of, lost
from stillhouse.elicit.call_gain import Gauge, window
from stillhouse.environments import name_of
from stillhouse.errors import RecipeError
from stillhouse.records import Example, Lost, Origin, Prompt, content_id, user
from stillhouse.teachers.base import Generates, Outcome, Reveals
from stillhouse.tools import Tool, ToolFaultError

__all__ = ["calls", "positions", "useful", "written"]

INSERT = (
    "Here is a text. Where it would help to know something first, write a call of the tool into it, like this: {example}. Change "
    "nothing else, and write no call where none helps.\n\nThe tool: {tool}\n\nThe text:\n{text}"
)
AT = (
    "Somebody is writing a text and may call a tool before going on. Write the call that would tell them what comes next, as "
    "{example}, on one line; or write None if none would help.\n\nThe tool: {tool}\n\nThe text so far:\n{text}"
)
ARROW = "->"
_CALL = re.compile(r"\[\s*(\w+)\(([^\[\]]*?)\)\s*\]")


def positions(
    texts: Iterable[Example], teacher: Reveals, *, tools: Mapping[str, str], above: float = 0.05, most: int = 5
) -> Iterator[Example | Lost]:
    """Where in a text the teacher would begin a call, by the probability it gives to "[" there.

    `tools` maps names to what each tool does, with an example. For each tool the teacher reads a request to write
    calls into the text, then the text; kept are the `most` likeliest starts of words above `above`, in the column
    `positions` (tool -> characters before it). A text without one is lost as "no_position". Source: R46 (0.05 and 5).
    """
    gauge = Gauge(teacher.module(), teacher.tokenizer())
    for one in texts:
        found: dict[str, list[int]] = {}
        for tool, told in tools.items():
            told_at = gauge.openings(user(_insert(tool, told, one.response)), one.response)
            likely = sorted((at for at in told_at if told_at[at] > above), key=lambda at: (-told_at[at], at))
            if likely:
                found[tool] = sorted(likely[:most])
        if found:
            yield _with(one, {"positions": found})
        else:
            yield Lost(one.id, "no_position")


def calls(texts: Iterable[Example], teacher: Generates, *, tools: Mapping[str, str]) -> Iterator[Example | Lost]:
    """Calls that the teacher would make at the column `positions` of each text, one row for each place and sample.

    It is shown the text up to there. The column `calls` holds (characters before it, tool, argument); the text itself
    stays. Lost: "none" (it would make no call), "no_call" (nothing that can be read as one). Next: `useful`. Source:
    R46 (m = 5 samples).
    """

    def places() -> Iterator[_Place]:
        for one in texts:
            found = one.columns.get("positions")
            if not isinstance(found, dict):
                raise RecipeError(
                    f"toolformer.calls: row {one.id} has no column positions; put toolformer.positions before it"
                )
            yield from (_Place(one, tool, at) for tool, ats in found.items() for at in ats)

    def prompt_of(place: _Place) -> Prompt:
        told = {"tool": f"{place.tool}: {tools[place.tool]}", "example": f"[{place.tool}(...)]"}
        return user(AT.format(**told, text=place.one.response[: place.at]))

    yield from _read(places(), teacher, prompt_of, lambda text, place: _one(text, place.at, place.tool))


def written(texts: Iterable[Example], teacher: Generates, *, tools: Mapping[str, str]) -> Iterator[Example | Lost]:
    """Each text written again by the teacher with calls of one tool in it, once for each of `tools`.

    The text must come back unchanged but for the calls (blanks apart); else it is lost as "text_changed", and without
    a call as "none". The column `calls` is as in `toolformer.calls`. For teachers behind a server. Source: R46.
    """
    places = (_Place(one, tool, 0) for one in texts for tool in tools)

    def prompt_of(place: _Place) -> Prompt:
        return user(_insert(place.tool, tools[place.tool], place.one.response))

    yield from _read(places, teacher, prompt_of, lambda text, place: inserted(text, place.one.response, place.tool))


@dataclass(frozen=True, slots=True)
class _Place:
    one: Example
    tool: str
    at: int

    @property
    def id(self) -> str:
        return self.one.id

    @property
    def reference(self) -> str | None:
        return self.one.reference


def _read(
    places: Iterable[_Place],
    teacher: Generates,
    prompt_of: Callable[[_Place], Prompt],
    read: Callable[[str, _Place], list[list[Any]] | Unparsed],
) -> Iterator[Example | Lost]:
    for place, slot, outcome in asked(places, teacher, prompt_of):
        text = complete(place, slot, outcome)
        value = text if isinstance(text, Lost) else read(text, place)
        if isinstance(value, Unparsed):
            yield lost(place, slot, outcome, value.reason, value.detail)
        else:
            yield value if isinstance(value, Lost) else _with(place.one, {"calls": value}, outcome)


def _one(text: str, at: int, tool: str) -> list[list[Any]] | Unparsed:
    if re.fullmatch(r"\W*none\W*", text.strip(), re.I):
        return Unparsed("none")
    found = [match for match in _CALL.finditer(text) if match[1] == tool]
    bare = re.fullmatch(rf"\s*{re.escape(tool)}\((.*)\)\s*", text)
    argument = found[0][2] if found else bare[1] if bare else None
    return Unparsed("no_call", text[-80:]) if argument is None else [[at, tool, argument.strip()]]


def inserted(text: str, original: str, tool: str) -> list[list[Any]] | Unparsed:
    """The calls in a text that was written again: where they stand in the original, which is otherwise the same."""
    words, found = original.split(), []
    seen = 0
    for part in re.split(r"(\[\s*\w+\([^\[\]]*?\)\s*\])", text.strip()):
        if called := _CALL.fullmatch(part):
            if called[1] == tool:
                found.append((seen, called[2].strip()))
        else:
            these = part.split()
            if words[seen : seen + len(these)] != these:
                return Unparsed("text_changed", part[-80:])
            seen += len(these)
    if seen != len(words):
        return Unparsed("text_changed", "it ends early")
    starts = [match.start() for match in re.finditer(r"\S+", original)]
    # a call behind the last word helps nobody to go on
    at = [[starts[number], tool, argument] for number, argument in found if number < len(starts)]
    return at or Unparsed("none")


def useful(
    texts: Iterable[Example], *, model: str, tools: Sequence[Tool], at_least: float = 1.0
) -> Iterator[Example | Lost]:
    """The calls that make what follows likelier, run and written into their text; no teacher is asked.

    The gain of a call is min(L(no call), L(the call without its result)) - L(the call with its result), in nats, where
    L is the loss of the five tokens that follow, weighted .333 .267 .2 .133 .067, under the local `model` (`pocket`:
    the base student) with the call before the text. Kept from `at_least` on, the best at each place. All rows of one
    text must be neighbours; they become one, with the calls written in and the columns `calls` and `gains`. Lost:
    "no_gain", "call_failed" (no call could be run). Learn from the plain texts beside them. Source: R46, J8 (1.0).
    """
    run = {name_of(tool): tool for tool in tools}
    gauge = Gauge.of(model)
    for rows in _of_one_text(texts):
        one, ran = rows[0], 0
        best: dict[int, tuple[float, str]] = {}
        for at, name, argument in dict.fromkeys(tuple(call) for row in rows for call in row.columns.get("calls") or ()):
            if name not in run:
                raise RecipeError(f"toolformer.useful: row {one.id} calls {name!r}, which is not among `tools`")
            try:
                result = run[name](argument)
            except ToolFaultError:
                continue
            ran += 1
            gain = gain_of(gauge, one.response, at, f"{name}({argument})", result)
            if gain >= at_least and gain > best.get(at, (at_least - 1, ""))[0]:
                best[at] = gain, f"[{name}({argument}) {ARROW} {result}]"
        if not best:
            yield Lost(one.id, "no_gain" if ran else "call_failed")
            continue
        text = one.response
        for at in sorted(best, reverse=True):
            text = f"{text[:at]}{best[at][1]} {text[at:]}"
        columns = {**one.columns, "calls": len(best), "gains": [best[at][0] for at in sorted(best)]}
        columns.pop("positions", None)
        keys = tuple(dict.fromkeys(key for row in rows for key in row.origin.keys))
        origin = Origin(tuple(row.id for row in rows), one.origin.teacher, keys)
        yield replace(one, id=content_id("Example", one.id, text), response=text, columns=columns, origin=origin)


def gain_of(gauge: Gauge, text: str, at: int, call: str, result: str) -> float:
    """min(L(no call), L(call)) - L(call and result) over the weighted window behind `at`, in nats."""
    before = ["", f"[{call}] ", f"[{call} {ARROW} {result}] "]
    none, bare, whole = (window(gauge.losses(prefix, text, at)) for prefix in before)
    return min(none, bare) - whole


def _of_one_text(texts: Iterable[Example]) -> Iterator[list[Example]]:
    group: list[Example] = []
    for one in texts:
        if group and (one.response, one.prompt) != (group[0].response, group[0].prompt):
            yield group
            group = []
        group.append(one)
    if group:
        yield group


def _with(one: Example, columns: Mapping[str, Any], *outcomes: Outcome) -> Example:
    keys = keys_of(*outcomes)
    name = content_id("Example", one.id, dict(columns), keys)
    origin = Origin((one.id,), one.origin.teacher, (*one.origin.keys, *keys))
    return replace(one, id=name, columns={**one.columns, **columns}, origin=origin)


def _insert(tool: str, told: str, text: str) -> str:
    return INSERT.format(tool=f"{tool}: {told}", example=f"[{tool}(...)]", text=text)
