"""BM25 over a collection of texts: what retrieval, tools and hard negatives look things up with (J9, SK03)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stillhouse.errors import RecipeError
from stillhouse.rows import rows, template_of
from stillhouse.selection.tokens import words

if TYPE_CHECKING:
    import numpy as np

__all__: list[str] = []


class Index:
    """BM25 (Lucene's form, k1 1.5, b 0.75) over texts. Raises RecipeError without the extra, or without a text."""

    def __init__(self, texts: Sequence[str]) -> None:
        try:
            import bm25s
        except ImportError:
            raise RecipeError("retrieval needs bm25s: install stillhouse[retrieval]") from None
        tokens = [words(text) for text in texts]
        if not any(tokens):
            raise RecipeError("retrieval.passages: the corpus holds no word; name a file with passages")
        self._index = bm25s.BM25()
        self._index.index(tokens, show_progress=False)
        self._known = {token for each in tokens for token in each}

    def scores(self, query: str) -> "np.ndarray":
        """One score per text; 0 where it shares no word with the query."""
        import numpy as np

        known = [token for token in words(query) if token in self._known]
        return np.asarray(self._index.get_scores(known)) if known else np.zeros(self._index.scores["num_docs"])

    def best(self, query: str, count: int) -> list[tuple[int, float]]:
        """(place, score) of the texts that share a word with the query, best first, the earlier of equals first."""
        scores = self.scores(query)
        order = sorted(range(len(scores)), key=lambda at: (-scores[at], at))[:count]
        return [(at, float(scores[at])) for at in order if scores[at] > 0]


def corpus_of(path: Path, field: str, template: str | None, where: str) -> list[str]:
    """The passages of a file of rows: its `field`, or what `template` (Jinja) writes of each row."""
    write = template_of(template or f"{{{{ {field} }}}}", f"{where}: template")
    return [write(row, f"{path}, row {number}") for number, row in rows(Path(path))]
