"""A sequence classifier of the user's behind a grader: how likely is one of its labels?"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from stillhouse.errors import RecipeError

__all__: list[str] = []


def chances(
    texts: Sequence[tuple[str, ...]], *, model: str, label: str, batch_size: int, grader: str
) -> list[float | None]:
    """The probability of `label` for each text, or pair of texts; None where it is longer than the model's context.

    `model` is a folder or hub name that `AutoModelForSequenceClassification` loads. Probabilities are softmax's, or
    each label's own sigmoid where the model says that its labels are independent (or has one). Raises RecipeError, in
    the name of `grader`, where it cannot be loaded or has no such label.
    """
    classifier, tokenizer, at = _loaded(model, label.casefold(), grader)
    found: list[float | None] = []
    for start in range(0, len(texts), batch_size):
        found += _of(texts[start : start + batch_size], classifier, tokenizer, at)
    return found


def _of(texts: Sequence[tuple[str, ...]], classifier: Any, tokenizer: Any, at: int) -> list[float | None]:
    import torch

    told = tokenizer(*map(list, zip(*texts, strict=True)), padding=True, return_tensors="pt").to(classifier.device)
    lengths = told["attention_mask"].sum(dim=1).tolist()
    most = getattr(classifier.config, "max_position_embeddings", None) or max(lengths)
    fits = [length <= most for length in lengths]
    if not any(fits):
        return [None] * len(texts)
    rows = {key: value[torch.tensor(fits)][:, :most] for key, value in told.items()}
    with torch.inference_mode():
        logits = classifier(**rows).logits.float()
    independent = classifier.config.problem_type == "multi_label_classification" or logits.shape[-1] == 1
    following = iter((logits.sigmoid() if independent else logits.softmax(-1))[:, at].tolist())
    return [next(following) if each else None for each in fits]


@lru_cache(maxsize=4)
def _loaded(model: str, label: str, grader: str) -> tuple[Any, Any, int]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        classifier = AutoModelForSequenceClassification.from_pretrained(model).eval()
        tokenizer = AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"{grader}: {model!r} cannot be loaded as a sequence classifier: {str(error).splitlines()[0]}"
        ) from error
    names = {str(name).casefold(): int(number) for number, name in classifier.config.id2label.items()}
    if label not in names:
        raise RecipeError(f"{grader}: {model!r} has no label called {label}; it has {', '.join(names)}")
    return classifier, tokenizer, names[label]
