"""What somebody might like, asked in many forms: narrative requests, and choices built from recorded histories (R58)."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from stillhouse.elicit.asking import Unparsed, keys_of, read_each, seeds_of
from stillhouse.errors import RecipeError, nearest
from stillhouse.records import Example, Lost, Origin, Seed, content_id, user
from stillhouse.selection.texts import prompt_text
from stillhouse.selection.tokens import words
from stillhouse.teachers.base import Generates

__all__ = ["forms", "narrative"]

NARRATIVE = (
    "Here is what somebody has liked, and perhaps said about it.\n\n{history}\n\nWrite the request with which this person would "
    "ask friends for something new: a few sentences in the first person about what they enjoy, what mood they are in and what "
    "they want to avoid. Do not name any of these things by their titles, and recommend nothing. Write the request only."
)


def narrative(
    seeds: Iterable[Seed | Example], teacher: Generates, *, titles: str = "titles", min_words: int = 8
) -> Iterator[Example | Lost]:
    """A request in a person's own words for each history, answered with what they then liked: narrative queries.

    The prompt tells the history, the reference what was liked next; the column `titles` lists the names that the request may
    not hold (kept by `seeds.columns`). Lost: "no_reference", "names_title" (of the history or the reference), "too_short" below
    `min_words`. The student learns request -> reference, as a retriever does from the same pairs. Next: `influence.likely`
    keeps the requests that a model finds likeliest given what they ask for. Source: R58 (NDR), SK12.
    """

    def read(text: str) -> str | Unparsed:
        return text.strip() if len(words(text)) >= min_words else Unparsed("too_short", text[:80])

    known: list[Seed] = []
    missing: list[Seed] = []
    for one in seeds_of(seeds):
        (known if one.reference is not None else missing).append(one)
    yield from (Lost(one.id, "no_reference") for one in missing)
    asked = read_each(known, teacher, lambda one: user(NARRATIVE.format(history=prompt_text(one.prompt))), read)
    for one, slot, outcome, text in asked:
        if isinstance(text, Lost):
            yield text
            continue
        names = [*one.columns.get(titles, ()), one.reference or ""]
        named = next((name for name in names if _holds(text, str(name))), None)
        if named:
            yield Lost(one.id, "names_title", slot=slot, detail=str(named)[:80], keys=keys_of(outcome))
            continue
        told = replace(one, prompt=user(text))
        yield told.answered(
            one.reference or "", asked=outcome.request.messages, teacher=teacher.name, keys=keys_of(outcome)
        )


def _holds(text: str, name: str) -> bool:
    tokens = words(name)
    return bool(tokens) and f" {' '.join(tokens)} " in f" {' '.join(words(text))} "


def _pointwise(liked: str, other: str, draw: random.Random) -> tuple[str, str]:
    asked, answer = draw.choice([(liked, "Yes."), (other, "No.")])
    return f'Would this person like "{asked}"? Answer Yes or No.', answer


def _pairwise(liked: str, other: str, draw: random.Random) -> tuple[str, str]:
    first, second = draw.sample([liked, other], 2)
    return f'Which would this person like better, "{first}" or "{second}"?', liked


def _matching(liked: str, other: str, draw: random.Random) -> tuple[str, str]:
    return "Name one thing that this person would like next.", liked


FORMS: dict[str, Callable[[str, str, random.Random], tuple[str, str]]] = {
    "pointwise": _pointwise, "pairwise": _pairwise, "matching": _matching,
}  # fmt: skip


def forms(
    seeds: Iterable[Seed | Example],
    *,
    which: Sequence[str] = tuple(FORMS),
    options: str = "options",
    seed: int = 0,
) -> Iterator[Example | Lost]:
    """Each history asked about in several forms, with what was liked next as the known answer; no teacher is asked.

    pointwise: would they like this one (it or another, drawn evenly)? pairwise: this or that, in either order? matching: what
    next? The column `options` lists what could have been chosen. Given an example, a teacher's words about the person (its
    response) stand before the question: an explicit preference, where the history alone is an implicit one. The column `form`
    says which. Lost: "no_reference", "no_other" (nothing else among the options). Reranking is `permutation.gain` behind
    `labeling.answer`, as in skills/nlp/listwise. Source: R58 (InstructRec: 39 templates over these aspects).
    """
    if unknown := [name for name in which if name not in FORMS]:
        raise RecipeError(f"recommending.forms: no form {unknown[0]!r}; {nearest(unknown[0], FORMS)}")
    for one in seeds:
        liked = one.reference
        others = [str(each) for each in one.columns.get(options, ()) if str(each) != liked]
        if liked is None or not others:
            yield Lost(one.id, "no_reference" if liked is None else "no_other")
            continue
        before = f"{prompt_text(one.prompt)}\n{one.response}" if isinstance(one, Example) else prompt_text(one.prompt)
        for name in which:
            draw = random.Random(content_id(seed, one.id, name))
            question, answer = FORMS[name](liked, draw.choice(others), draw)
            prompt, columns = user(f"{before}\n\n{question}"), {**one.columns, "form": name}
            origin = Origin((one.id,), one.origin.teacher, one.origin.keys)
            yield Example(content_id("Example", one.id, name, question), prompt, answer, answer, (), columns, origin)
