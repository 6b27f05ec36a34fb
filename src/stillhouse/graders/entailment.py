"""Entailment: does a text follow from another?"""

from collections.abc import Sequence

from stillhouse.graders import CANNOT_TELL_NO_REFERENCE, Grade
from stillhouse.graders.classifier import chances

__all__ = ["follows"]


def follows(
    responses: Sequence[str], references: Sequence[str | None], *, model: str, batch_size: int = 16
) -> list[Grade]:
    """The probability that each response follows from its reference, by a classifier of sentence pairs.

    `model` is a folder or hub name of a sequence classifier with a label called "entailment" (as models trained on MNLI or
    ANLI have); the reference is the premise, the response the hypothesis. A pair longer than the model's context is not told
    ("too_long"): a premise cut short would entail less. Any function of yours with a grader's signature does instead.
    Sources: R17 (SAIL), R54.
    """
    pairs = [(text or "", said) for said, text in zip(responses, references, strict=True)]
    told = chances(pairs, model=model, label="entailment", batch_size=batch_size, grader="entailment.follows")
    return [
        CANNOT_TELL_NO_REFERENCE if reference is None else _grade(chance)
        for reference, chance in zip(references, told, strict=True)
    ]


def _grade(chance: float | None) -> Grade:
    return Grade(None, "too_long") if chance is None else Grade(chance, "entailed" if chance >= 0.5 else "not_entailed")
