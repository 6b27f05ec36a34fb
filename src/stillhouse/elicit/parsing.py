"""Reads what teachers write: rationales, transcripts, programs. Kept apart from asking, so that stored answers can be re-read."""

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass

from stillhouse.elicit.asking import Unparsed
from stillhouse.graders.final import MARKERS, balanced, last_marked
from stillhouse.records import Act, Message

__all__: list[str] = []


@dataclass(frozen=True, slots=True)
class Rationale:
    """`text` is the answer without its run-on; `reasoning` what stands before the final answer, `final` that answer."""

    text: str
    reasoning: str
    final: str


def rationale(text: str, *, cut: Sequence[str] = (), final: Sequence[str] = MARKERS) -> Rationale | Unparsed:
    """Reads reasoning and final answer out of a raw answer."""
    ends = [at for mark in cut if (at := text.find(mark)) >= 0]
    ran_on = bool(ends)
    text = (text[: min(ends)] if ends else text).strip()
    if not text:
        return Unparsed("empty")
    if not final:
        return Rationale(text, text, "")
    found = last_marked(text, final)
    if found is None:
        ended = ran_on or text.endswith((".", "!", "?", '"', ")", "}", "$"))
        return Unparsed("unparsed" if ended else "truncated", text[-80:])
    if not balanced(found.text):
        return Unparsed("truncated", text[-80:])
    return Rationale(text, _before(text[: found.start]), found.text)


def _before(text: str) -> str:
    """The sentences before the one that holds the marker ("So the" of "So the answer is" belongs to the answer)."""
    end = max(text.rfind(mark) + len(mark.rstrip()) for mark in (". ", "! ", "? ", "\n")) if text else 0
    stripped = text.strip()
    if stripped.endswith((".", "!", "?")):
        return stripped
    return text[: max(end, 0)].strip()


def code_block(text: str) -> str | Unparsed:
    """The one fenced block of a text, fences included; several or none cannot be read."""
    blocks = re.findall(r"```[ \t]*\w*[^\n]*\n.*?```", text, re.S)
    if len(blocks) == 1:
        return str(blocks[0])
    return Unparsed("no_program" if not blocks else "several_programs", text[-80:])


def acts(text: str) -> tuple[tuple[Act, ...], float | None] | Unparsed:
    """Thought, action and observation in turn, and the reward where the last observation states one.

    Actions are `name[argument]`. A thought without an action is joined to the next thought; what stands before the first
    mark is no act. Ends with an unfinished act ("no_action") or none at all ("no_acts"): unreadable.
    """
    parts = re.split(r"^[ \t]*(Thought|Action|Observation)(?:[ \t]+\d+)?[ \t]*:[ \t]*", text, flags=re.M)[1:]
    found: list[Act] = []
    thought = ""
    for mark, body in zip(parts[::2], parts[1::2], strict=True):
        said = body.strip()
        if mark == "Thought":
            thought = f"{thought}\n{said}".strip()
        elif mark == "Action":
            called = re.fullmatch(r"(\w+)\s*\[(.*)\]\.?", said, re.S)
            if called is None:
                return Unparsed("bad_action", said[:80])
            found.append(Act(thought, called[1], called[2].strip()))
            thought = ""
        elif found:
            before = found[-1]
            found[-1] = Act(before.thought, before.action, before.argument, f"{before.observation}\n{said}".strip())
    if thought or not found:
        return Unparsed("no_action" if thought else "no_acts", text[-80:])
    stated = re.search(r"reward\s*=\s*(True|False|-?\d+(?:\.\d+)?)", found[-1].observation)
    told = {"True": 1.0, "False": 0.0}
    return tuple(found), (told[stated[1]] if stated[1] in told else float(stated[1])) if stated else None


def spoken(act: Act) -> str:
    """An act as its agent writes it, and as a student learns to; `acts` reads it."""
    thought = f"Thought: {act.thought}\n" if act.thought else ""
    return f"{thought}Action: {act.action}[{act.argument}]"


@dataclass(frozen=True, slots=True)
class FunctionParts:
    """A Python function cut behind its docstring; `body` keeps its indentation."""

    name: str
    head: str
    body: str


def function_parts(text: str) -> FunctionParts | Unparsed:
    """The one function of the one fenced block of a text, its docstring told from its body."""
    block = code_block(text)
    if isinstance(block, Unparsed):
        return block
    source = "\n".join(block.splitlines()[1:-1])
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Unparsed("not_python", source[-80:])
    found = next((node for node in tree.body if isinstance(node, ast.FunctionDef)), None)
    if found is None or ast.get_docstring(found) is None:
        return Unparsed("no_docstring", source[:80])
    if len(found.body) < 2:
        return Unparsed("no_body", source[-80:])
    lines, cut = source.splitlines(), found.body[0].end_lineno or 0
    return FunctionParts(found.name, "\n".join(lines[:cut]), "\n".join(lines[cut : found.end_lineno]))


def turns(text: str, human: str, assistant: str) -> tuple[Message, ...] | Unparsed:
    """The messages of a written conversation, an unfinished last one left out; they must alternate, human first."""
    parts = re.split(rf"^[ \t]*\**({re.escape(human)}|{re.escape(assistant)})\**[ \t]*:?", text, flags=re.M)[1:]
    said = [(who, body.strip()) for who, body in zip(parts[::2], parts[1::2], strict=True)]
    if said and not said[-1][1]:
        said.pop()
    if any(who != (human, assistant)[i % 2] for i, (who, _) in enumerate(said)):
        return Unparsed("no_alternation")
    if any(not body for _, body in said):
        return Unparsed("empty_turn")
    if len(said) % 2:
        said.pop()  # a question that nobody answered
    if not said:
        return Unparsed("no_turns", text[-80:])
    return tuple(Message("user" if who == human else "assistant", body) for who, body in said)
