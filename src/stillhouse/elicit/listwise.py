"""Orders of many passages, by a window that slides over them from the back (R56)."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace

from stillhouse.elicit.asking import seeds_of
from stillhouse.elicit.lockstep import Part, played
from stillhouse.elicit.self_knowledge import ranking
from stillhouse.errors import RecipeError
from stillhouse.graders import permutation
from stillhouse.records import Example, Lost, Origin, Prompt, Ranking, Seed, content_id, user
from stillhouse.selection.texts import instruction_text
from stillhouse.teachers.base import Generates

__all__ = ["as_text", "windows"]

ORDER = (
    "Rank the passages by how well they answer the query, the best first. Write only their numbers: [2] > [1] > [3]\n\n"
    "{passages}\n\nQuery: {query}"
)


def windows(
    seeds: Iterable[Seed | Example],
    teacher: Generates,
    *,
    passages: str = "passages",
    field: str | None = None,
    window: int = 20,
    step: int = 10,
    max_words: int = 300,
) -> Iterator[Ranking | Lost]:
    """The passages of each query ranked, however many: a window of them at a time, from the back forward.

    The column `passages` holds the list of a row, first-stage order first (texts, or objects with their text in
    `field`); the teacher orders `window` of them at a time, each window `step` before the last one, so that the best
    of the back can come to the front. Passages are shown with `max_words` words. Of an order, repeated and
    out-of-range numbers are left out and missing ones follow as they stood; a window without a valid number loses the
    row ("no_permutation"). Scores are 1 / rank. Lost too: "too_few" (fewer than two). Source: R56 (RankGPT: 20, 10,
    300).
    """
    if not 1 <= step <= window or window < 2:
        raise RecipeError(
            f"listwise.windows: window is {window} and step {step}; write 1 <= step <= window, window 2 or more"
        )

    def begin(seed: Seed) -> Part:
        return _ranked(instruction_text(seed), _texts(seed, passages, field), window, step, max_words)

    for episode in played(seeds_of(seeds), teacher, begin):
        if isinstance(episode.result, Lost):
            yield replace(episode.result, parent=episode.id, keys=episode.keys)
        else:
            texts = tuple(episode.result)
            worth = tuple(1 / rank for rank in range(1, len(texts) + 1))
            yield ranking(episode.seed, texts, worth, (), teacher.name, episode.keys, parents=(episode.id,))


def _texts(seed: Seed, column: str, field: str | None) -> list[str]:
    given = seed.columns.get(column)
    if not isinstance(given, list):
        raise RecipeError(
            f"listwise.windows: row {seed.id} has no list in the column {column!r}; name it (`passages`, and `columns` "
            "in the seeds)"
        )
    return [str(each[field] if field is not None else each) for each in given]


def _ranked(query: str, texts: list[str], window: int, step: int, max_words: int) -> Part:
    order = list(dict.fromkeys(texts))
    if len(order) < 2:
        return Lost("", "too_few")
    end = len(order)
    while True:
        start = max(end - window, 0)
        said = yield _asked(query, order[start:end], max_words)
        if isinstance(said, Lost):
            return said
        places = permutation.read(said, end - start)
        if places is None:
            return Lost("", "no_permutation", "quarantined", detail=said[-80:])
        order[start:end] = [order[start + place - 1] for place in places]
        if start == 0:
            return order
        end -= step


def _asked(query: str, texts: Iterable[str], max_words: int) -> Prompt:
    shown = "\n".join(f"[{number}] {' '.join(text.split()[:max_words])}" for number, text in enumerate(texts, 1))
    return user(ORDER.format(passages=shown, query=query))


def as_text(
    rankings: Iterable[Ranking], *, count: int = 20, max_words: int = 300, seed: int = 0
) -> Iterator[Example | Lost]:
    """An order as a listwise student writes it: passages in a drawn order, then "[2] > [1] > [3]".

    The `count` best are shown; the order they are shown in is drawn by the row, so that a student cannot learn to
    leave it as it is. Lost: "too_few". Source: R56 (RankVicuna's shuffling).
    """
    for one in rankings:
        best = list(dict.fromkeys(one.responses))[:count]
        if len(best) < 2:
            yield Lost(one.id, "too_few")
            continue
        shown = random.Random(content_id(seed, one.id)).sample(best, len(best))
        response = " > ".join(f"[{shown.index(text) + 1}]" for text in best)
        query = "\n".join(message.content for message in one.prompt if message.role == "user")
        origin = Origin((one.id,), one.origin.teacher, one.origin.keys)
        name = content_id("Example", one.id, response)
        yield Example(name, _asked(query, shown, max_words), response, one.reference, (), one.columns, origin)
