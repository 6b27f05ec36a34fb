"""Entailment: does a text follow from another?"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from stillhouse.errors import RecipeError
from stillhouse.graders import CANNOT_TELL_NO_REFERENCE, Grade

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
    classifier, tokenizer, label = _loaded(model)
    pairs = [(text or "", said) for said, text in zip(responses, references, strict=True)]
    grades: list[Grade] = []
    for start in range(0, len(pairs), batch_size):
        grades += _graded(pairs[start : start + batch_size], classifier, tokenizer, label)
    return [
        CANNOT_TELL_NO_REFERENCE if reference is None else grade
        for grade, reference in zip(grades, references, strict=True)
    ]


def _graded(pairs: list[tuple[str, str]], classifier: Any, tokenizer: Any, label: int) -> list[Grade]:
    import torch

    told = tokenizer(*map(list, zip(*pairs, strict=True)), padding=True, return_tensors="pt").to(classifier.device)
    lengths = told["attention_mask"].sum(dim=1).tolist()
    most = getattr(classifier.config, "max_position_embeddings", None) or max(lengths)
    fits = [length <= most for length in lengths]
    chances = [0.0] * len(pairs)
    if any(fits):
        rows = {key: value[torch.tensor(fits)][:, :most] for key, value in told.items()}
        with torch.inference_mode():
            found = classifier(**rows).logits.float().softmax(-1)[:, label].tolist()
        following = iter(found)
        chances = [next(following) if each else 0.0 for each in fits]
    return [
        Grade(chance, "entailed" if chance >= 0.5 else "not_entailed") if each else Grade(None, "too_long")
        for chance, each in zip(chances, fits, strict=True)
    ]


@lru_cache(maxsize=2)
def _loaded(model: str) -> tuple[Any, Any, int]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        classifier = AutoModelForSequenceClassification.from_pretrained(model).eval()
        tokenizer = AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"entailment.follows: {model!r} cannot be loaded as a classifier of pairs: {str(error).splitlines()[0]}"
        ) from error
    names = {str(name).casefold(): int(number) for number, name in classifier.config.id2label.items()}
    if "entailment" not in names:
        raise RecipeError(f"entailment.follows: {model!r} has no label called entailment; it has {', '.join(names)}")
    return classifier, tokenizer, names["entailment"]
