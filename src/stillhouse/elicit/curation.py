"""Curation: the teacher writes x and y from meta-information, not from examples (Eq. 5).

The piece of meta-information that a record came from is kept in its columns, so that coverage can be counted.
"""

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from stillhouse.elicit.asking import (
    Unparsed,
    born,
    grown,
    in_chunks,
    keys_of,
    lost,
    numbered,
    read_each,
    sections,
    seeds_of,
)
from stillhouse.elicit.curation_prompts import (
    AUDIENCES,
    EXERCISE,
    FOR_DOCUMENT,
    FROM_CODE,
    FROM_DOCUMENT,
    FROM_LABEL,
    FROM_POINTS,
    POINTS,
    QUERY,
    QUESTIONS,
    SUBTOPICS,
    TASKS,
    TEXTBOOK,
)
from stillhouse.elicit.parsing import function_parts
from stillhouse.errors import RecipeError
from stillhouse.records import Example, Lost, Origin, Prompt, Seed, content_id, user
from stillhouse.selection.tokens import words
from stillhouse.teachers.base import Generates

__all__ = [
    "exercise",
    "from_code",
    "from_document",
    "from_label",
    "from_points",
    "instructions_for",
    "knowledge_points",
    "query",
    "questions",
    "subtopics",
    "textbook",
]


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
    """Some consecutive lines of a file, one at least with something in it; blank ones at the ends left out."""
    lines = _text(one).splitlines()
    draw = random.Random(content_id(one.id, seed))
    size = min(draw.randint(1, most_lines), len(lines))
    told = [number for number, line in enumerate(lines) if line.strip()]
    start = min(draw.choice(told or [0]), len(lines) - size)
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


def textbook(
    seeds: Iterable[Seed | Example], teacher: Generates, *, audiences: Sequence[str] = AUDIENCES, min_words: int = 50
) -> Iterator[Example | Lost]:
    """A section of a textbook on each topic, for an audience drawn by the topic's id; learned as plain text, without a prompt.

    Topic and audience stand in columns of these names. Lost: "too_short" below `min_words`. Every token is learned. Source:
    R11 (phi: random topic and audience keep the texts apart).
    """
    if not audiences:
        raise RecipeError("curation.textbook: audiences is empty; write at least one")

    def reader(one: Seed) -> str:
        return audiences[int(content_id(one.id), 16) % len(audiences)]

    def prompt_of(one: Seed) -> Prompt:
        return user(TEXTBOOK.format(audience=reader(one), topic=_path(one)))

    for one, slot, outcome, text in read_each(seeds_of(seeds), teacher, prompt_of, str.strip):
        if isinstance(text, Lost):
            yield text
        elif len(words(text)) < min_words:
            yield Lost(one.id, "too_short", slot=slot, keys=keys_of(outcome))
        else:
            learner = replace(one, prompt=(), columns={**one.columns, "topic": _path(one), "audience": reader(one)})
            yield born(learner, text, outcome, teacher.name)


def exercise(seeds: Iterable[Seed | Example], teacher: Generates) -> Iterator[Example | Lost]:
    """A Python function from the words of each seed: signature and docstring are the prompt, the body is what is learned.

    The answer must be one fenced block that parses and holds a function with a docstring and a body behind it. Quarantined:
    "no_program", "several_programs", "not_python", "no_docstring", "no_body". The column `name` is the function's. Source:
    R11 (phi's exercises from function names; run its tests with `code.passes` where there are any).
    """

    def prompt_of(one: Seed) -> Prompt:
        return user(EXERCISE.format(words=_text(one)))

    for one, _, outcome, value in read_each(seeds_of(seeds), teacher, prompt_of, function_parts):
        if isinstance(value, Lost):
            yield value
            continue
        made = grown([one], value.head, outcome, teacher.name, name=value.name)
        yield _paired(made, value.body, outcome.request.messages)


def knowledge_points(seeds: Iterable[Seed | Example], teacher: Generates, *, count: int = 5) -> Iterator[Seed | Lost]:
    """The points of knowledge behind each problem or text, each once: meta-information for `from_points`.

    Points are told apart by their words; one that came before, from any seed, is lost as "repeated". Held: the points.
    Sources: R09 (meta-information), 3.3 (knowledge points).
    """

    def prompt_of(seed: Seed) -> Prompt:
        return user(POINTS.format(count=count, text=_text(seed)))

    seen: set[tuple[str, ...]] = set()
    for seed, slot, outcome, value in read_each(seeds_of(seeds), teacher, prompt_of, numbered):
        if isinstance(value, Lost):
            yield value
            continue
        for item in value[:count]:
            name = tuple(words(item))
            if name in seen:
                yield Lost(seed.id, "repeated", slot=slot, detail=item[:80], keys=keys_of(outcome))
                continue
            seen.add(name)
            yield grown([seed], item.rstrip("."), outcome, teacher.name, topic=item.rstrip("."))


def from_points(
    seeds: Iterable[Seed | Example], teacher: Generates, *, points: int = 2, seed: int = 0
) -> Iterator[Seed | Lost]:
    """One problem for each point of knowledge that needs it and `points` - 1 others, drawn among 64 neighbours.

    Every point is first in one problem, so that none is left out; the column `points` names them. With fewer points than
    needed a seed is lost as "no_partner". Answers are `labeling.reason`'s. Source: 3.3, SK12 (key points combined).
    """
    if points < 1:
        raise RecipeError(f"curation.from_points: points is {points}; write 1 or more")
    draw = random.Random(seed)
    for chunk in in_chunks(seeds_of(seeds)):
        if len(chunk) < points:
            yield from (Lost(one.id, "no_partner") for one in chunk)
            continue
        together = {
            one.id: [one, *draw.sample([other for other in chunk if other is not one], points - 1)] for one in chunk
        }

        def prompt_of(one: Seed, together: dict[str, list[Seed]] = together) -> Prompt:
            return user(FROM_POINTS.format(points="\n".join(f"- {_text(each)}" for each in together[one.id])))

        for one, _, outcome, text in read_each(chunk, teacher, prompt_of, str.strip):
            if isinstance(text, Lost):
                yield text
            else:
                used = together[one.id]
                yield grown(used, text, outcome, teacher.name, points=[_text(each) for each in used])


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
