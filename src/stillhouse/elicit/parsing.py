"""Reads what teachers write: rationales, transcripts, programs. Kept apart from asking, so that stored answers can be re-read."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from stillhouse.elicit.asking import Unparsed
from stillhouse.graders.final import MARKERS, balanced, last_marked
from stillhouse.records import Message

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
