"""Curation: the teacher writes x and y from meta-information, not from examples (Eq. 5).

The piece of meta-information that a record came from is kept in its columns, so that coverage can be counted.
"""

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from stillhouse.elicit.asking import (
    Unparsed,
    grown,
    keys_of,
    lost,
    numbered,
    read_each,
    sections,
    seeds_of,
)
from stillhouse.errors import RecipeError
from stillhouse.records import Example, Lost, Origin, Prompt, Seed, content_id, user
from stillhouse.selection.tokens import words
from stillhouse.teachers.base import Generates

__all__ = ["from_code", "from_document", "from_label", "instructions_for", "query", "questions", "subtopics"]

SUBTOPICS = (
    "List {count} subtopics of the topic below, as a numbered list. Each is a short noun phrase, narrower than the topic; "
    "none overlap.\n\nTopic: {topic}"
)
QUESTIONS = (
    "Write {count} requests about the topic below that a person might bring to an assistant, as a numbered list. Some ask for "
    "facts, some for an explanation, some for advice or a piece of writing. Each can be understood alone.\n\nTopic: {topic}"
)
FROM_DOCUMENT = (
    "Read the text. Then write one question that it answers, understandable without the text, and the answer, resting on the "
    "text alone. Write the question behind [Question] and the answer behind [Answer], each on a line of its own.\n\nText:\n{text}"
)
FOR_DOCUMENT = (
    "Read the text. Write {count} requests, as a numbered list, that a person could make about it: {tasks}. Speak of it as "
    '"the text". Do not fulfil them.\n\nText:\n{text}'
)
FROM_CODE = (
    "Here are some lines of code, taken from anywhere:\n\n{snippet}\n\nLet them inspire a programming problem; it need not use "
    "them. Write under [Problem] the problem, complete in itself, so that someone who never saw these lines can solve it, and "
    "under [Solution] a correct solution with its explanation, the code in one fenced block."
)
FROM_LABEL = (
    "Write one text of the kind described below, as it might really occur. Vary subject, length and tone; do not name the "
    "kind. Write the text only.\n\nKind: {label}{examples}"
)
QUERY = (
    "Write the query that someone would type into a search engine if the text below were just what they need. Use words of "
    "your own rather than whole phrases of the text. Write the query only, on one line.\n\nText:\n{text}"
)
TASKS = (
    "to rewrite it for other readers",
    "to summarise it",
    "to draw a conclusion from it",
    "to continue it",
    "to explain a part of it",
)


def subtopics(seeds: Iterable[Seed | Example], teacher: Generates, *, count: int = 10) -> Iterator[Seed | Lost]:
    """Narrower topics under each topic: one level of a tree of meta-information.

    Put it twice for two levels; the column `topic` holds the path from the root, with " > " between. A repetition
    under one topic is lost as "repeated". Sources: R09 (UltraChat), R40 (topic-guided), R03.
    """

    def prompt_of(seed: Seed) -> Prompt:
        return user(SUBTOPICS.format(count=count, topic=_path(seed)))

    for seed, slot, outcome, value in read_each(seeds_of(seeds), teacher, prompt_of, numbered):
        if isinstance(value, Lost):
            yield value
            continue
        seen: set[tuple[str, ...]] = {tuple(words(_text(seed)))}
        for item in value[:count]:
            name = tuple(words(item))
            if name in seen:
                yield Lost(seed.id, "repeated", slot=slot, detail=item[:80], keys=keys_of(outcome))
                continue
            seen.add(name)
            yield grown([seed], item.rstrip("."), outcome, teacher.name, topic=f"{_path(seed)} > {item.rstrip('.')}")


def questions(seeds: Iterable[Seed | Example], teacher: Generates, *, count: int = 10) -> Iterator[Seed | Lost]:
    """Requests about each topic, with the topic kept in the column `topic`; their answers are `labeling.answer`'s.

    Sources: R09 (world sector), R03 (LaMini), R11 (topics for diversity).
    """

    def prompt_of(seed: Seed) -> Prompt:
        return user(QUESTIONS.format(count=count, topic=_path(seed)))

    for seed, _, outcome, value in read_each(seeds_of(seeds), teacher, prompt_of, numbered):
        if isinstance(value, Lost):
            yield value
            continue
        for item in value[:count]:
            yield grown([seed], item, outcome, teacher.name, topic=_path(seed))


def from_document(
    seeds: Iterable[Seed | Example], teacher: Generates, *, keep_document: bool = False
) -> Iterator[Example | Lost]:
    """A question and its answer out of each document; with `keep_document` the student reads the document too.

    Without it the student learns to answer by heart (the document is meta-information); with it, to answer from a
    given text. The parts stand behind [Question] and [Answer]; anything else is quarantined. The column `document`
    holds the parent's id. Sources: R64 (self-QA), R65, R66, R09 (assistance), R54 (Genie).
    """

    def prompt_of(seed: Seed) -> Prompt:
        return user(FROM_DOCUMENT.format(text=_text(seed)))

    def read(text: str) -> dict[str, str] | Unparsed:
        return sections(text, ("Question", "Answer"))

    for seed, _, outcome, value in read_each(seeds_of(seeds), teacher, prompt_of, read):
        if isinstance(value, Lost):
            yield value
            continue
        question = f"{_text(seed)}\n\n{value['Question']}" if keep_document else value["Question"]
        made = grown([seed], question, outcome, teacher.name, document=seed.id)
        yield _paired(made, value["Answer"], outcome.request.messages)


def instructions_for(
    seeds: Iterable[Seed | Example], teacher: Generates, *, count: int = 3, tasks: Sequence[str] = TASKS
) -> Iterator[Seed | Lost]:
    """Requests to work on each document (rewrite, summarise, ...); the document stands in the prompt.

    Source: R09 (assistance on existing texts: about 10^5 texts, up to five requests each).
    """

    def prompt_of(seed: Seed) -> Prompt:
        return user(FOR_DOCUMENT.format(count=count, tasks=", or ".join(tasks), text=_text(seed)))

    for seed, _, outcome, value in read_each(seeds_of(seeds), teacher, prompt_of, numbered):
        if isinstance(value, Lost):
            yield value
            continue
        for item in value[:count]:
            yield grown([seed], f"{item}\n\n{_text(seed)}", outcome, teacher.name, document=seed.id)


def from_code(
    seeds: Iterable[Seed | Example], teacher: Generates, *, most_lines: int = 15, seed: int = 0
) -> Iterator[Example | Lost]:
    """A programming problem and its solution, inspired by 1 to `most_lines` consecutive lines of each source file.

    Which lines is drawn by the file's id and `seed`. Dropped: "copies_seed" (the problem or the solution is the
    snippet, white space apart), "solution_in_problem" (the solution's code already stands in the problem);
    quarantined: missing sections, a solution without one code block ("no_program"). Decontaminate behind it. Source:
    R60 (OSS-Instruct).
    """

    def prompt_of(one: Seed) -> Prompt:
        return user(FROM_CODE.format(snippet=snippet(one, most_lines, seed)))

    def read(text: str) -> dict[str, str] | Unparsed:
        return sections(text, ("Problem", "Solution"))

    for one, slot, outcome, value in read_each(seeds_of(seeds), teacher, prompt_of, read):
        if isinstance(value, Lost):
            yield value
            continue
        given, problem, solution = snippet(one, most_lines, seed), value["Problem"], value["Solution"]
        blocks = re.findall(r"```[ \t]*\w*[^\n]*\n(.*?)```", solution, re.S)
        if not blocks:
            yield lost(one, slot, outcome, "no_program", solution[-80:])
        elif _squeezed(given) in (_squeezed(problem), *map(_squeezed, blocks)):
            yield Lost(one.id, "copies_seed", slot=slot, keys=keys_of(outcome))
        elif any(_squeezed(block) in _squeezed(problem) for block in blocks):
            yield Lost(one.id, "solution_in_problem", slot=slot, keys=keys_of(outcome))
        else:
            made = grown([one], problem, outcome, teacher.name, snippet=content_id(given))
            yield _paired(made, solution, outcome.request.messages)


def snippet(one: Seed, most_lines: int, seed: int) -> str:
    """Some consecutive lines of a file, blank ones at the ends left out."""
    lines = _text(one).splitlines()
    draw = random.Random(content_id(one.id, seed))
    size = min(draw.randint(1, most_lines), len(lines))
    start = draw.randint(0, len(lines) - size)
    return "\n".join(lines[start : start + size]).strip("\n")


def from_label(
    seeds: Iterable[Seed | Example], teacher: Generates, *, task: str = "{text}", examples: Sequence[str] = ()
) -> Iterator[Example | Lost]:
    """A text for each label: the seed's prompt describes the kind of text, its reference is the label.

    The student learns text -> label under the prompt `task` (with `{text}` in it). `examples` are unlabelled texts
    of the domain to show. `sampling: {n: ...}` gives several texts per label. A text that is another's (white space
    apart) is lost as "repeated", one that names its label as "names_label". Sources: R52 (ZeroGen, UDG), SK09.
    """
    if "{text}" not in task:
        raise RecipeError(f"curation.from_label: task is {task!r}; it needs {{text}} where the text stands")
    shown = "".join(f"\n\nAn example of the domain, of any kind:\n{text}" for text in examples)
    seen: set[str] = set()

    def prompt_of(seed: Seed) -> Prompt:
        if seed.reference is None:
            raise RecipeError(f"curation.from_label: row {seed.id} has no reference; it must hold the label")
        return user(FROM_LABEL.format(label=_text(seed), examples=shown))

    for seed, slot, outcome, text in read_each(seeds_of(seeds), teacher, prompt_of, str.strip):
        if isinstance(text, Lost):
            yield text
            continue
        label = seed.reference or ""
        fault = "repeated" if _squeezed(text) in seen else "names_label" if _names(text, label) else None
        seen.add(_squeezed(text))
        if fault:
            yield Lost(seed.id, fault, slot=slot, keys=keys_of(outcome))
        else:
            made = grown([seed], task.replace("{text}", text), outcome, teacher.name, reference=label, label=label)
            yield _paired(made, label, outcome.request.messages)


def query(seeds: Iterable[Seed | Example], teacher: Generates, *, min_words: int = 3) -> Iterator[Example | Lost]:
    """A search query for each document: the pair that a retriever learns from.

    The prompt is the document, the response the query's first line. Lost: "too_short" (fewer than `min_words`
    words), "copied" (the query stands in the document word for word). Sources: R55 (InPars, Promptagator), J9, SK11.
    """

    def prompt_of(seed: Seed) -> Prompt:
        return user(QUERY.format(text=_text(seed)))

    for seed, slot, outcome, text in read_each(seeds_of(seeds), teacher, prompt_of, str.strip):
        if isinstance(text, Lost):
            yield text
            continue
        line = text.splitlines()[0].strip().strip("\"'")
        tokens = words(line)
        copied = f" {' '.join(tokens)} " in f" {' '.join(words(_text(seed)))} "
        if len(tokens) < min_words or copied:
            reason = "too_short" if len(tokens) < min_words else "copied"
            yield Lost(seed.id, reason, slot=slot, detail=line[:80], keys=keys_of(outcome))
        else:
            yield seed.answered(line, asked=outcome.request.messages, teacher=teacher.name, keys=keys_of(outcome))


def _paired(made: Seed, response: str, asked: Prompt) -> Example:
    """An example whose prompt and response one answer gave; its parents are those of the prompt."""
    origin = Origin(made.origin.parents, made.origin.teacher, made.origin.keys)
    example = made.answered(response, asked=asked, teacher=made.origin.teacher, keys=made.origin.keys)
    return replace(example, origin=origin)


def _text(seed: Seed) -> str:
    return seed.prompt[-1].content


def _path(seed: Seed) -> str:
    return str(seed.columns.get("topic", _text(seed)))


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _names(text: str, label: str) -> bool:
    return f" {' '.join(words(label))} " in f" {' '.join(words(text))} "
