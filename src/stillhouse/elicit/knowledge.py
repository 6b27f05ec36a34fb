"""Answers with the right facts at hand, with none, and with wrong ones: a ranking that needs no judge (R45, KnowPAT)."""

import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from stillhouse.elicit.asking import in_chunks, instructed, keys_of, read_each, seeds_of
from stillhouse.elicit.retrieval import Index
from stillhouse.elicit.self_knowledge import ranking
from stillhouse.errors import RecipeError
from stillhouse.records import Example, Lost, Prompt, Ranking, Seed, content_id
from stillhouse.rows import rows, template_of
from stillhouse.selection.texts import prompt_text
from stillhouse.teachers.base import Generates

__all__ = ["ranked"]

FACTS = "What is known:\n{facts}\n"


def ranked(
    seeds: Iterable[Seed | Example],
    teacher: Generates,
    *,
    path: Path,
    field: str = "text",
    template: str | None = None,
    count: int = 3,
    seed: int = 0,
) -> Iterator[Ranking | Lost]:
    """Three answers to each prompt: under the facts that belong to it, under none, and under facts that do not, in this order.

    `path` is a file of triples (or other facts), one a row, written by `template` (Jinja) or found in `field`. The `count`
    best by BM25 belong to a prompt; the wrong ones are drawn among those that share no word with it. The facts are in no
    prompt that the student sees, so that it learns to prefer what they would have made it say. Scores 3, 2, 1. Lost:
    "no_facts" (none shares a word), "no_other_facts", "equal" (two answers are the same), and what is wrong with the first
    answer that failed. Next: `ranking.knowpat`. Source: R45 (KnowPAT's knowledge preferences).
    """
    if count < 1:
        raise RecipeError(f"knowledge.ranked: count is {count}; write 1 or more")
    write = template_of(template or f"{{{{ {field} }}}}", "knowledge.ranked: template")
    facts = [write(row, f"{path}, row {number}") for number, row in rows(Path(path))]
    index = Index(facts)
    for chunk in in_chunks(seeds_of(seeds)):
        shown: dict[str, tuple[str, str, str]] = {}
        for one in chunk:
            scores = index.scores(prompt_text(one.prompt))
            near = [facts[at] for at, _ in index.best(prompt_text(one.prompt), count)]
            far = [fact for fact, score in zip(facts, scores, strict=True) if score == 0]
            if not near or not far:
                yield Lost(one.id, "no_other_facts" if near else "no_facts")
                continue
            wrong = random.Random(content_id(seed, one.id)).sample(far, min(count, len(far)))
            shown[one.id] = (FACTS.format(facts="\n".join(near)), "", FACTS.format(facts="\n".join(wrong)))
        ready = [one for one in chunk if one.id in shown]
        answers = [list(read_each(ready, teacher, _under(shown, which), str.strip)) for which in range(3)]
        for (one, slot, first, good), (_, _, second, bare), (_, _, third, bad) in zip(*answers, strict=True):
            keys, texts = keys_of(first, second, third), (good, bare, bad)
            failed = next((text for text in texts if isinstance(text, Lost)), None)
            said = tuple(text for text in texts if isinstance(text, str))
            if failed is not None:
                yield failed
            elif len(set(said)) < 3:
                yield Lost(one.id, "equal", slot=slot, keys=keys)
            else:
                yield ranking(one, said, (3.0, 2.0, 1.0), first.request.messages, teacher.name, keys, slot)


def _under(shown: dict[str, tuple[str, str, str]], which: int) -> Callable[[Seed], Prompt]:
    def prompt_of(one: Seed) -> Prompt:
        return instructed(one.prompt, shown[one.id][which], "before")

    return prompt_of
