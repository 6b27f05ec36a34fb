"""How far labels can be believed, read from how well they teach each other. No teacher is asked."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from stillhouse.records import Example, Lost, Origin, content_id
from stillhouse.selection.features import rows_of
from stillhouse.selection.texts import instruction_text

__all__ = ["bilevel"]


def bilevel(
    examples: Iterable[Example], *, embedder: str | None = None, column: str = "weight", updates: int = 100
) -> Iterator[Example | Lost]:
    """A weight in [0, 1] for each labelled text, learned so that a classifier trained by the weights errs least.

    The response is the label. A linear classifier on the static `embedder`'s vectors of the prompts, or without one on hashed
    words and word pairs, learns by weighted cross-entropy; the weights follow the gradient of a loss that wrong labels cannot
    dominate (reversed cross-entropy on the same texts) through one of its steps, in `updates` updates. Next: `weight_column:
    weight` in training, or `quality.drawn`. Held: the texts, and a vector of each. One label alone is lost as "one_class".
    Helps where most labels are right; where most of a kind are wrong it believes those. Source: R52 (SunGen, arXiv
    2205.12679; its inner model is the student, here it is linear).
    """
    import numpy as np

    from stillhouse.selection.bilevel import learned_weights

    again = list(examples)
    labels = sorted({one.response for one in again})
    if len(labels) < 2:
        yield from (Lost(one.id, "one_class") for one in again)
        return
    rows_ND = rows_of((instruction_text(one) for one in again), embedder)
    told_N = np.array([labels.index(one.response) for one in again])
    for one, weight in zip(again, learned_weights(rows_ND, told_N, updates=updates).tolist(), strict=True):
        name = content_id("Example", one.id, column, weight)
        origin = Origin((one.id,), one.origin.teacher, one.origin.keys)
        yield replace(one, id=name, columns={**one.columns, column: weight}, origin=origin)
