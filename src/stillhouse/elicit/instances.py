"""Instances of instructions: an input and its output, by the path that suits the task, and prompts in many forms (R01)."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from stillhouse.elicit.asking import Unparsed, in_chunks, keys_of, lost, read_each, seeds_of
from stillhouse.errors import RecipeError
from stillhouse.records import Example, Lost, Origin, Prompt, Seed, content_id, user
from stillhouse.selection.texts import prompt_text
from stillhouse.selection.tokens import words
from stillhouse.teachers.base import Generates, Outcome

__all__ = ["templated", "written"]

IS_CLASSIFICATION = (
    "Is each of these a task whose answer is one of a few fixed labels?\n\nTask: Say whether the review is kind or unkind.\nYes\n"
    "Task: Write a letter to a neighbour about the hedge.\nNo\nTask: Which of the two sentences is older English?\nYes\n"
    "Task: Name five rivers of Asia.\nNo\nTask: {task}\nAnswer with one word, Yes or No."
)
OUTPUT_FIRST = (
    "Here is a task whose answer is one of a few labels.\n\nTask: {task}\n\nFor every label that can be an answer, write it "
    "behind [Output] and then, behind [Input], a text to which it is the right answer. Let the texts differ in subject and "
    "length, and be as real ones are. At most {most}."
)
INPUT_FIRST = (
    "Here is a task.\n\nTask: {task}\n\nWrite at most {most} different cases of it. For each, write what it works on behind "
    "[Input] ([Input] none, where the task needs nothing more), and the correct and complete answer behind [Output]."
)
TEMPLATES = (
    "{instruction}\n\n{input}",
    "{instruction}\n{input}",
    "Task: {instruction}\n\n{input}",
    "Task: {instruction}\nInput: {input}",
    "{instruction}\n\nInput: {input}",
    "{instruction}\n\n{input}\n\nOutput:",
    "Task: {instruction}\n\nInput: {input}\n\nOutput:",
)
_NONE = frozenset({"", "none", "n/a", "no input", "not needed"})


def written(seeds: Iterable[Seed | Example], teacher: Generates, *, most: int = 5) -> Iterator[Example | Lost]:
    """Up to `most` instances of each instruction: output first where it asks for a label, otherwise input first.

    The teacher says first whether the answer is one of a few labels; writing the labels before their texts keeps them
    balanced. Instances are lost as "empty_output", "same_as_input", "unfinished" (the output ends with a colon),
    "repeated"; a task whose instances contradict each other is lost whole ("contradicts_itself"), and so is one without an
    instance ("no_instance") or without a clear yes or no ("no_verdict"). Columns: `instruction`, `input`,
    `classification`. Next: `instances.templated`. Source: R01 (Self-Instruct).
    """
    if most < 1:
        raise RecipeError(f"instances.written: most is {most}; write 1 or more")
    once = replace(teacher.sampling, n=1, temperature=0.0)
    for chunk in in_chunks(seeds_of(seeds)):
        told: list[Seed] = []
        kind: dict[str, bool] = {}
        asked = read_each(
            chunk, teacher, lambda one: user(IS_CLASSIFICATION.format(task=prompt_text(one.prompt))), _yes, sampling=once
        )  # fmt: skip
        for one, _, _, verdict in asked:
            if isinstance(verdict, Lost):
                yield verdict
            else:
                kind[one.id] = verdict
                told.append(one)

        def prompt_of(one: Seed, kind: dict[str, bool] = kind) -> Prompt:
            text = OUTPUT_FIRST if kind[one.id] else INPUT_FIRST
            return user(text.format(task=prompt_text(one.prompt), most=most))

        for one, slot, outcome, found in read_each(told, teacher, prompt_of, _pairs):
            if isinstance(found, Lost):
                yield found
            else:
                yield from _fitting(one, slot, outcome, found[:most], kind[one.id], teacher.name)


def _yes(text: str) -> bool | Unparsed:
    verdict = text.strip().strip(".!*\"'").casefold()
    return verdict == "yes" if verdict in ("yes", "no") else Unparsed("no_verdict", text[-80:])


def _pairs(text: str) -> list[tuple[str, str]] | Unparsed:
    """(input, output) of each instance, in whichever order the two marks stand; a mark without its partner ends the list."""
    parts = re.split(r"^[ \t]*\**\[(Input|Output)\]\**[ \t]*:?", text, flags=re.M | re.I)[1:]
    marked = [(mark.casefold(), body.strip()) for mark, body in zip(parts[::2], parts[1::2], strict=True)]
    found = []
    for (mark, first), (other, second) in zip(marked[::2], marked[1::2], strict=False):
        if mark == other:
            break
        found.append((first, second) if mark == "input" else (second, first))
    return found or Unparsed("no_instance", text[-80:])


def _fitting(
    one: Seed, slot: int, outcome: Outcome, found: Sequence[tuple[str, str]], classification: bool, teacher: str
) -> Iterator[Example | Lost]:
    answers: dict[tuple[str, ...], set[str]] = {}
    for given, output in found:
        answers.setdefault(tuple(words(given)), set()).add(output)
    if any(len(outputs) > 1 for outputs in answers.values()):
        yield lost(one, slot, outcome, "contradicts_itself")
        return
    seen: set[tuple[str, str]] = set()
    instruction = prompt_text(one.prompt)
    for given, output in found:
        given = "" if given.strip(" .()").casefold() in _NONE else given
        fault = _fault(given, output) or ("repeated" if (given, output) in seen else "")
        seen.add((given, output))
        if fault:
            yield Lost(one.id, fault, slot=slot, detail=output[:80], keys=keys_of(outcome))
            continue
        columns = {**one.columns, "instruction": instruction, "input": given, "classification": classification}
        prompt = user(f"{instruction}\n\n{given}" if given else instruction)
        name, origin = (
            content_id("Example", one.id, prompt, output, outcome.key),
            Origin((one.id,), teacher, keys_of(outcome)),
        )
        yield Example(name, prompt, output, None, outcome.request.messages, columns, origin)


def _fault(given: str, output: str) -> str:
    if not output:
        return "empty_output"
    if output.endswith(":"):
        return "unfinished"
    return "same_as_input" if given and words(given) == words(output) else ""


def templated(
    examples: Iterable[Example],
    *,
    templates: Sequence[str] = TEMPLATES,
    instruction: str = "instruction",
    given: str = "input",
) -> Iterator[Example]:
    """Each prompt written in one of `templates`, drawn by the example's id, so that no form of words is learnt by heart.

    `{instruction}` and `{input}` are filled from the columns of these names (`instruction`, `given`); an example without
    them is an instruction without input. Where there is no input, its line is left out of the template. No teacher is
    asked. Raises RecipeError for a template without `{instruction}`. Source: R01 (the released training prompts vary).
    """
    if not templates or any("{instruction}" not in each for each in templates):
        raise RecipeError("instances.templated: each of templates needs {instruction}, and there must be one")
    for one in examples:
        told, text = str(one.columns.get(instruction, prompt_text(one.prompt))), str(one.columns.get(given, ""))
        template = templates[int(content_id("template", one.id), 16) % len(templates)]
        if not text:
            template = re.sub(r"\n*[^\n]*\{input\}[^\n]*", "", template)
        # the longer text may itself hold a brace
        prompt = user(
            "".join({"{instruction}": told, "{input}": text}.get(part, part) for part in _HOLES.split(template))
        )
        name = content_id("Example", one.id, prompt)
        yield replace(one, id=name, prompt=prompt, origin=Origin((one.id,), one.origin.teacher, one.origin.keys))


_HOLES = re.compile(r"(\{instruction\}|\{input\})")
