"""Labeling: the teacher writes y for a given x (Eq. 3)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from stillhouse.elicit.asking import Position, Unparsed, asked, born, complete, instructed, lost
from stillhouse.graders.final import MARKERS, balanced, last_marked
from stillhouse.records import Example, Lost, Seed
from stillhouse.teachers.base import Generates

__all__ = ["answer", "reason", "reference"]

REASON = 'Write down your reasoning step by step. Then end with one line: "The answer is", and the answer itself.'


def answer(
    seeds: Iterable[Seed | Example],
    teacher: Generates,
    *,
    instruction: str | None = None,
    position: Position = "after",
    keep_instruction: bool = False,
) -> Iterator[Example | Lost]:
    """The teacher's answers to the seeds, as they are.

    `instruction` is added for the teacher only (after or before the last user turn, or as a system message); the
    student learns under the seed's own prompt, which is context distillation (R43), unless `keep_instruction`. Given
    examples instead of seeds it relabels: same prompts, new teacher (R02). Source: Eq. 3.
    """
    for seed, slot, outcome in asked(seeds, teacher, lambda seed: instructed(seed.prompt, instruction, position)):
        text = complete(seed, slot, outcome)
        if isinstance(text, Lost):
            yield text
            continue
        learner = replace(seed, prompt=outcome.request.messages) if keep_instruction else seed
        yield born(learner, text.strip(), outcome, teacher.name)


def reason(
    seeds: Iterable[Seed | Example],
    teacher: Generates,
    *,
    instruction: str | None = REASON,
    position: Position = "after",
    keep_instruction: bool = False,
    cut: Sequence[str] = (),
    final: Sequence[str] = MARKERS,
) -> Iterator[Example | Lost]:
    """Written reasoning that ends in an answer (chain of thought).

    The response is the teacher's text up to the first of `cut` (few-shot teachers run on into an invented next
    question: `cut: ["\\n\\nQ:"]`). It must hold one of the `final` markers with an answer behind it; a text without is
    quarantined as "unparsed", one that stops in mid-sentence as "truncated". An empty `final` accepts any text.
    `instruction: null` asks with the seed alone; `keep_instruction` trains the student under the instruction too.
    Sources: Eq. 3, R20.
    """
    for seed, slot, outcome in asked(seeds, teacher, lambda seed: instructed(seed.prompt, instruction, position)):
        text = complete(seed, slot, outcome)
        if isinstance(text, Lost):
            yield text
            continue
        parsed = rationale(text, cut=cut, final=final)
        if isinstance(parsed, Unparsed):
            yield lost(seed, slot, outcome, parsed.reason, parsed.detail)
            continue
        learner = replace(seed, prompt=outcome.request.messages) if keep_instruction else seed
        yield born(learner, parsed.text, outcome, teacher.name)


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


def reference(seeds: Iterable[Seed], *, template: str = "{reference}") -> Iterator[Example | Lost]:
    """The known answers themselves, without a teacher: what a control is trained on.

    `template` is the text around the answer (`The answer is {reference}.`). A seed without a reference is lost as
    "no_reference". Source: the baseline of Eq. 9 with gold labels.
    """
    for seed in seeds:
        if seed.reference is None:
            yield Lost(seed.id, "no_reference")
        else:
            yield seed.answered(template.replace("{reference}", seed.reference), asked=(), teacher="")
