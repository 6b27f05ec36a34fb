"""Retrieval-augmented knowledge: passages of a corpus beside a prompt (SK03). No teacher is asked here."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

from stillhouse.elicit.asking import instructed
from stillhouse.elicit.bm25 import Index, corpus_of
from stillhouse.elicit.reflecting import segmented
from stillhouse.elicit.searching import by_likelihood, erased, hit, informed, reader, verdict_first
from stillhouse.elicit.self_knowledge import ranking
from stillhouse.errors import RecipeError
from stillhouse.records import Example, Lost, Origin, Prompt, Ranking, Seed, content_id, user
from stillhouse.scoring import Scorer

__all__ = [
    "by_likelihood",
    "erased",
    "hit",
    "informed",
    "marked",
    "negatives",
    "passages",
    "reader",
    "reranked",
    "segmented",
    "verdict_first",
]


def passages(
    seeds: Iterable[Seed | Example],
    *,
    path: Path,
    field: str = "text",
    template: str | None = None,
    count: int = 3,
    by: Literal["prompt", "response", "reference"] = "prompt",
    fewer: bool = False,
    none: float = 0.0,
    label: str = "Passage",
    reranker_path: Path | None = None,
    candidates: int = 20,
    seed: int = 0,
) -> Iterator[Seed]:
    """The passages of a corpus that BM25 finds for each row, put before its prompt, for teacher and student alike.

    `path` is a file of rows whose `field` is a passage, or whose passages `template` (Jinja) writes. The query is the
    prompt, the response (R18: what a teacher's reasoning retrieves) or the reference. A share `none` of the rows gets
    no passage, and with `fewer` the others get 1 to `count` of them, so that the student learns to do without (R17).
    With `reranker_path`, the run or folder of a trained reranker, the `candidates` best by BM25 for the query are put
    in the order of its scores for the prompt (R18: what a question alone would find). Given an example, its response
    becomes the reference. The columns `passages` and `retrieved` (the scores) say what was found; words are compared
    in lower case. The corpus is held, about as large as its text. Raises `RecipeError` for an empty corpus, or where
    the extra is not installed. Sources: R17 (SAIL), R18 (KARD), R47, R63 (reference law), SK03, J9.
    """
    corpus = corpus_of(path, field, template, "retrieval.passages")
    index, scorer = Index(corpus), None if reranker_path is None else Scorer(reranker_path)
    for one in seeds:
        draw = random.Random(content_id(one.id, seed))
        wanted = 0 if draw.random() < none else draw.randint(1, count) if fewer else count
        found = index.best(_query(one, by), wanted if scorer is None else candidates * min(wanted, 1))
        if scorer is not None and found:
            worth = scorer.scores([(one.prompt, corpus[at]) for at, _ in found])
            found = sorted(
                ((at, score) for (at, _), score in zip(found, worth, strict=True)), key=lambda each: -each[1]
            )[:wanted]
        shown = "\n".join(f"{label} {i}: {corpus[at]}" for i, (at, _) in enumerate(found, 1))
        columns = {**one.columns, "passages": [corpus[at] for at, _ in found], "retrieved": [s for _, s in found]}
        known = one.response if isinstance(one, Example) else one.reference
        name = content_id("Seed", one.id, shown)
        origin = Origin((one.id,), one.origin.teacher, one.origin.keys)
        yield Seed(name, _before(one.prompt, shown), known, columns, origin)


def reranked(
    examples: Iterable[Example], *, path: Path, field: str = "text", template: str | None = None, candidates: int = 10
) -> Iterator[Ranking | Lost]:
    """Passages ranked by what an answer's reasoning retrieves: what a reranker of questions learns from.

    The candidates are the `candidates` best by BM25 for the prompt and as many for the response; the scores are BM25
    with the response as the query, best first. `ranking.listnet` with its `temperature` on a student of kind reranker
    learns them. `path`, `field` and `template` as in `retrieval.passages`. Lost: "too_few_candidates" (fewer than
    two). Sources: R18 (KARD's reranker), J9.
    """
    corpus = corpus_of(path, field, template, "retrieval.reranked")
    index = Index(corpus)
    for one in examples:
        scores = index.scores(one.response)
        places = {at for by in ("prompt", "response") for at, _ in index.best(_query(one, by), candidates)}
        found = {corpus[at]: float(scores[at]) for at in sorted(places, key=lambda at: (-scores[at], at))}
        if len(found) < 2:
            yield Lost(one.id, "too_few_candidates")
        else:
            texts, worth = tuple(found), tuple(found.values())
            yield ranking(one, texts, worth, one.asked, one.origin.teacher, one.origin.keys, parents=(one.id,))


def negatives(
    examples: Iterable[Example],
    *,
    path: Path,
    field: str = "text",
    count: int = 4,
    candidates: int = 100,
    seed: int = 0,
) -> Iterator[Ranking | Lost]:
    """Each query with its document and hard negatives: what an encoder or a reranker learns from; no teacher is asked.

    For examples whose prompt is a document and whose response a query for it (`curation.query`); they are turned
    round. The negatives are `count` drawn from the `candidates` best by BM25 for the query in the file `path`, the
    document left out. Scores are 1 and 0. Lost: "no_negative" (nothing else shares a word with the query). Sources:
    J9, R55.
    """
    corpus = corpus_of(path, field, None, "retrieval.negatives")
    index = Index(corpus)
    for one in examples:
        document = _query(one, "prompt")
        found = [corpus[at] for at, _ in index.best(one.response, candidates) if corpus[at] != document]
        drawn = random.Random(content_id(one.id, seed)).sample(found, min(count, len(found)))
        if not drawn:
            yield Lost(one.id, "no_negative")
            continue
        asked = replace(one, prompt=user(one.response))
        texts, worth = (document, *drawn), (1.0, *([0.0] * len(drawn)))
        yield ranking(asked, texts, worth, one.asked, one.origin.teacher, one.origin.keys, parents=(one.id,))


def marked(examples: Iterable[Example], *, template: str = "[{reference}] {response}") -> Iterator[Example | Lost]:
    """A critic's verdict as a mark in the answer, so that the student gives the verdict itself.

    The reference is the verdict (`labeling.as_reference` behind the critic); one without is lost as "no_reference".
    Source: R19 (Self-RAG's reflection tokens; words here, not new tokens of the vocabulary).
    """
    for one in examples:
        if one.reference is None:
            yield Lost(one.id, "no_reference")
            continue
        text = template.replace("{reference}", one.reference).replace("{response}", one.response)
        origin = Origin((one.id,), one.origin.teacher, one.origin.keys)
        yield replace(one, id=content_id("Example", one.id, text), response=text, origin=origin)


def _before(prompt: Prompt, shown: str) -> Prompt:
    return instructed(prompt, shown, "before") if shown else prompt


def _query(one: Seed | Example, by: str) -> str:
    if by == "prompt":
        return "\n".join(message.content for message in one.prompt if message.role == "user")
    text = one.reference if by == "reference" else getattr(one, "response", None)
    if text is None:
        raise RecipeError(f"retrieval.passages: row {one.id} has no {by} to look for; write by: prompt")
    return str(text)
