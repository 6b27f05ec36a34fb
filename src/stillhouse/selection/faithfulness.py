"""Faithfulness: does an answer say what its source says, and nothing else?"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
from rapidfuzz.distance import Indel

from stillhouse.errors import RecipeError
from stillhouse.graders import Grader
from stillhouse.records import Example
from stillhouse.selection import embedding
from stillhouse.selection.texts import instruction_text, replayed
from stillhouse.selection.tokens import words

__all__ = ["entailed", "numbers", "overlap", "round_trip"]

_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?%?")
_AT_ONCE = 256


def entailed(
    records: Iterable[Example],
    *,
    grader: Grader,
    at_least: float = 0.75,
    both: bool = False,
    source: str | None = None,
) -> Iterator[tuple[Example, str | None]]:
    """Keeps answers that follow from their source: the record's prompt, or its column `source`.

    `grader` gives the probability that a response follows from a reference (`entailment.follows`, or your own function);
    with `both` the source must follow from the answer too, which makes it a paraphrase. What cannot be told is dropped.
    Reasons: "not_entailed", "adds_nothing_back" (the reverse), "could_not_tell", "no_source". Source: R54 (0.75 in both
    directions), SK10.
    """
    stream = iter(records)
    while chunk := list(islice(stream, _AT_ONCE)):
        sources = [_source(record, source) for record in chunk]
        known = [(record, text) for record, text in zip(chunk, sources, strict=True) if text]
        reasons = _entailment([r.response for r, _ in known], [t for _, t in known], grader, at_least, "not_entailed")
        if both:
            again = _entailment(
                [t for _, t in known], [r.response for r, _ in known], grader, at_least, "adds_nothing_back"
            )
            reasons = [one or other for one, other in zip(reasons, again, strict=True)]
        following = iter(reasons)
        for record, text in zip(chunk, sources, strict=True):
            yield record, next(following) if text else "no_source"


def _entailment(said: list[str], given: list[str], grader: Grader, least: float, fault: str) -> list[str | None]:
    grades = grader(said, given)
    return ["could_not_tell" if g.value is None else None if g.value >= least else fault for g in grades]


def _source(record: Example, column: str | None) -> str:
    return instruction_text(record) if column is None else str(record.columns.get(column) or "")


def numbers(
    records: Iterable[Example], *, source: str | None = None, both: bool = False
) -> Iterator[tuple[Example, str | None]]:
    """Drops answers with a number that their source (the prompt, or the column `source`) does not hold.

    "1,200", "1200" and "1200.0" are one number, "12 %" and "12" two. With `both` a number that is left out counts too. For
    summaries and paraphrases, not for sums. Reasons: "new_number:<it>", "lost_number:<it>". Source: R54.
    """
    for record in records:
        said, given = _numbers(record.response), _numbers(_source(record, source))
        new, gone = sorted(said - given), sorted(given - said) if both else []
        yield record, f"new_number:{new[0]}" if new else f"lost_number:{gone[0]}" if gone else None


def _numbers(text: str) -> set[str]:
    found = (match[0].replace(",", "") for match in _NUMBER.finditer(text))
    return {re.sub(r"(\.\d*?)0+(?=%|$)", r"\1", each).replace(".%", "%").rstrip(".") for each in found}


def overlap(
    records: Iterable[Example],
    *,
    most: float = 0.75,
    shortest: float = 0.8,
    longest: float = 1.5,
    source: str | None = None,
) -> Iterator[tuple[Example, str | None]]:
    """Drops answers that copy their source, or are much shorter or longer than it.

    `most` bounds ROUGE-L F1; `shortest` and `longest` bound characters against the source's (0.8 to 1.5 for paraphrases; give
    `shortest: 0` for summaries). Reasons: "copied", "too_short", "too_long", "no_source". Source: R54.
    """
    if not 0 <= shortest <= longest:
        raise RecipeError(
            f"faithfulness.overlap: shortest is {shortest} and longest {longest}; the first is the smaller"
        )
    for record in records:
        text = _source(record, source)
        if not text:
            yield record, "no_source"
            continue
        ratio = len(record.response) / len(text)
        similar = Indel.normalized_similarity(words(record.response), words(text))
        short, long = ratio < shortest, ratio > longest
        yield record, "too_short" if short else "too_long" if long else "copied" if similar > most else None


def round_trip(
    records: Iterable[Example], *, model: str | None = None, within: int = 1, others: Sequence[str] = ()
) -> Iterator[tuple[Example, str | None]]:
    """Keeps queries that find the document they were written for among the first `within` of all documents.

    The prompt is the document, the response its query (`curation.query`); documents are those of all records and
    `others`. The retriever is BM25, or a static embedder where `model` names one (Promptagator trains one on the data:
    the recipe skills/nlp/retriever does). Held: one row per distinct document. Reason: "not_found". Source: R55.
    """
    again = replayed(records)
    documents = list(dict.fromkeys([*(instruction_text(record) for record in again), *others]))
    if not documents:
        return
    place = {text: number for number, text in enumerate(documents)}
    if model is None:
        from stillhouse.elicit.bm25 import Index

        index = Index(documents)
        for record in again:
            scores = index.scores(record.response)  # type: ignore[union-attr]
            own = scores[place[instruction_text(record)]]
            yield record, None if own > 0 and int((scores > own).sum()) < within else "not_found"  # type: ignore[misc]
        return
    embedder = embedding.load(model)
    rows_ND = np.concatenate([embedding.unit_rows(embedder, part) for part in embedding.chunks(documents)])
    for chunk in embedding.chunks(again):
        similar = embedding.unit_rows(embedder, [record.response for record in chunk]) @ rows_ND.T
        for record, row in zip(chunk, similar, strict=True):
            own = row[place[instruction_text(record)]]
            yield record, None if int((row > own).sum()) < within else "not_found"
