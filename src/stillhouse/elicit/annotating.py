"""Annotation by a teacher that has explained known labels to itself first (R53, AnnoLLM)."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from stillhouse.elicit.asking import Unparsed, born, in_chunks, instructed, keys_of, read_each, seeds_of
from stillhouse.elicit.labeling import CODEBOOK, class_line
from stillhouse.errors import RecipeError
from stillhouse.records import Example, Lost, Prompt, Seed, user
from stillhouse.selection.texts import prompt_text
from stillhouse.teachers.base import Generates

__all__ = ["explained"]

WHY = (
    "{codebook}\n\nText:\n=====\n{text}\n=====\n\nIts class is known: {label}. Explain in two or three sentences, from the words "
    "of the text and the meaning of the class, why. Write the explanation only."
)
LIKE_THESE = (
    "{codebook}\n\nHere is how it is done.\n\n{shown}\n\nNow do the same for the next text: write behind Why: what decides "
    "it, and then one line, Class: and the name of the one class that fits best.\n\nText:"
)


def explained(
    seeds: Iterable[Seed | Example],
    teacher: Generates,
    *,
    labels: Mapping[str, str],
    path: Path,
    prompt: str = "prompt",
    reference: str = "reference",
    each: int = 2,
) -> Iterator[Example | Lost]:
    """The class of each text, after the teacher has explained the known classes of a few others.

    The first `each` rows of every class in the file at `path` (`prompt`, and the class in `reference`) are explained by the
    teacher, once; texts, explanations and classes are then shown before each text to annotate, which is answered with
    reasons and a class. The student learns the class alone, under the seed's own prompt; the column `why` keeps the
    reasons. Lost: "no_class", "is_demonstration" (a text of that file). Raises RecipeError for a class without a row, or whose
    rows the teacher explains none of. Compare with `labeling.classify`, which asks at once. Source: R53 (AnnoLLM), SK09.
    """
    codebook = CODEBOOK.format(codebook="\n".join(f"- {name}: {meaning}" for name, meaning in labels.items()))
    known = _demonstrations(path, prompt, reference, labels, each)
    shown: list[str] = []
    keys: tuple[str, ...] = ()
    covered: set[str] = set()
    once = replace(teacher.sampling, n=1, temperature=0.0)

    def why(one: Seed) -> Prompt:
        return user(WHY.format(codebook=codebook, text=prompt_text(one.prompt), label=one.reference))

    for one, _, outcome, text in read_each(known, teacher, why, str.strip, sampling=once):
        if not isinstance(text, Lost):
            shown.append(f"Text:\n{prompt_text(one.prompt)}\nWhy: {text}\nClass: {one.reference}")
            keys, covered = (*keys, *keys_of(outcome)), covered | {str(one.reference)}
    if missing := sorted(set(labels) - covered):
        raise RecipeError(f"annotating.explained: the teacher explained no example of {', '.join(missing)}")
    before = LIKE_THESE.format(codebook=codebook, shown="\n\n".join(shown))
    names = {name.casefold(): name for name in labels}

    def read(text: str) -> tuple[str, str] | Unparsed:
        named = class_line(text, names)
        return named if isinstance(named, Unparsed) else (named, text.partition("Class:")[0].strip())

    given = {one.prompt for one in known}
    for chunk in in_chunks(seeds_of(seeds)):
        yield from (Lost(one.id, "is_demonstration", "not_attempted") for one in chunk if one.prompt in given)
        rest = [one for one in chunk if one.prompt not in given]
        for one, _, outcome, found in read_each(
            rest, teacher, lambda one: instructed(one.prompt, before, "before"), read
        ):
            if isinstance(found, Lost):
                yield found
                continue
            reasons = found[1].removeprefix("Why:").strip()
            made = born(replace(one, columns={**one.columns, "why": reasons}), found[0], outcome, teacher.name)
            yield replace(made, origin=replace(made.origin, keys=(*keys, *made.origin.keys)))


def _demonstrations(path: Path, prompt: str, reference: str, labels: Mapping[str, str], each: int) -> list[Seed]:
    from stillhouse.seeds import file

    if each < 1:
        raise RecipeError(f"annotating.explained: each is {each}; write 1 or more")
    by_label: dict[str, list[Seed]] = {name: [] for name in labels}
    for one in file(path=path, prompt=prompt, reference=reference):
        if one.reference in by_label and len(by_label[one.reference]) < each:
            by_label[one.reference].append(one)
    if empty := [name for name, rows in by_label.items() if not rows]:
        raise RecipeError(f"annotating.explained: {path} holds no row of class {', '.join(empty)} in {reference!r}")
    return [one for rows in by_label.values() for one in rows]
