"""Students that encode: are the right passages found?"""

from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from stillhouse.errors import RecipeError
from stillhouse.evaluate import ItemScore
from stillhouse.rows import rows
from stillhouse.seeds import file

__all__ = ["retrieval"]


class Embeds(Protocol):
    """What a trained encoder can be asked (`stillhouse.embedding.Embedder`)."""

    def vectors(self, texts: list[str]) -> np.ndarray: ...


def retrieval(
    embedder: Embeds,
    *,
    path: Path,
    passages: Path,
    field: str = "text",
    prompt: str = "prompt",
    reference: str = "reference",
    measure: Literal["ndcg", "recall", "mrr"] = "ndcg",
    k: int = 10,
    by: Literal["cosine", "dot"] = "cosine",
    limit: int | None = None,
) -> list[ItemScore]:
    """How well the `k` nearest passages of a collection answer held-out queries.

    `path` is a file of seeds whose `reference` is a relevant passage, by its text or by its `id`; `passages` a file of rows
    with the texts in `field`. ndcg and mrr count a place by 1 / log2(1 + place) and 1 / place, recall by being there. Every
    vector of the collection is held. Raises RecipeError where a reference is no passage. Sources: J9, R55, R57.
    """
    texts: list[str] = []
    ids: dict[str, int] = {}
    for _, row in rows(Path(passages)):
        ids[str(row.get("id", row[field]))] = ids[str(row[field])] = len(texts)
        texts.append(str(row[field]))
    items = list(file(path=path, prompt=prompt, reference=reference, limit=limit))
    queries = ["\n".join(message.content for message in item.prompt) for item in items]
    query_QH, passage_PH = embedder.vectors(queries), embedder.vectors(texts)
    if by == "cosine":
        query_QH, passage_PH = _unit(query_QH), _unit(passage_PH)
    found = []
    for item, query, query_H in zip(items, queries, query_QH, strict=True):
        if str(item.reference) not in ids:
            raise RecipeError(
                f"evaluate: the reference of item {item.id} is no passage of {passages}, by text or by id"
            )
        scores_P, right = passage_PH @ query_H, ids[str(item.reference)]
        # a passage that ties with the right one stands before it: a student that says the same of all finds nothing
        place = int((scores_P >= scores_P[right]).sum())
        value = _worth(place, measure) if place <= k else 0.0
        nearest = texts[int(scores_P.argmax())]
        found.append(ItemScore(item.id, query, item.reference, nearest, value, f"place_{min(place, k + 1)}"))
    return found


def _worth(place: int, measure: str) -> float:
    return {"ndcg": 1 / float(np.log2(1 + place)), "recall": 1.0, "mrr": 1 / place}[measure]


def _unit(vectors: Any) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
