"""How much an example can still teach a model, told by the model's own losses.

IFD (instruction-following difficulty) is s(A | Q) / s(A): how far the prompt Q helps to predict the answer A. Two
released definitions differ and are not interchangeable: a ratio of mean token losses, and a ratio of perplexities.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from stillhouse.errors import RecipeError
from stillhouse.records import Example, Prompt, user
from stillhouse.selection.embedding import chunks
from stillhouse.selection.texts import instruction_text, replayed

__all__ = ["ifd_by_losses", "ifd_by_perplexities", "less", "likely", "reverse_ifd"]

GUESS = (
    "Here is an answer that somebody gave:\n\n{answer}\n\nWrite the request that this answer fulfils, and nothing else."
)

_Scores = list[float | None]


def ifd_by_losses(
    records: Iterable[Example],
    *,
    model: str,
    share: float,
    below: float = 1.0,
    warm_up: int = 0,
    embedder: str | None = None,
    learning_rate: float = 1e-3,
    rank: int = 8,
    seed: int = 0,
) -> Iterator[tuple[Example, str | None]]:
    """Keeps the `share` of examples with the highest ratio of mean token losses, s(A | Q) / s(A).

    A ratio of `below` or more means that the prompt does not help (a wrong pair, an unreadable prompt): dropped
    first. `model` is a local checkpoint; `pocket` is the base student that ships with the package. With `warm_up` it
    first sees so many of the examples, once, one at a time, through a LoRA of `rank` at `learning_rate`: those that lie
    farthest apart by the static `embedder`, or without one, drawn by chance. Cherry warms up on about 1,000 (10 of each of
    100 clusters). Reasons: "ifd_too_high", "ifd_too_low", "no_score". Source: R15 (Cherry's definition).
    """
    again = replayed(records)
    meter = _warmed_up(again, model, warm_up, embedder, learning_rate, rank, seed) if warm_up else Meter(model)

    def scored(meter: Meter, part: Sequence[Example]) -> _Scores:
        return _ratios(meter, part, lambda given, alone: given / alone)

    return _kept(again, share, below, scored, meter)


def _warmed_up(
    records: Iterable[Any], model: str, count: int, embedder: str | None, rate: float, rank: int, seed: int
) -> "Meter":
    """A meter whose model has had a brief look at examples unlike one another."""
    import random

    from stillhouse.selection import embedding
    from stillhouse.selection.diversity import farthest_first
    from stillhouse.selection.lora_gradients import Gradients

    texts = [instruction_text(record) for record in records]
    if embedder:
        chosen = set(farthest_first(embedding.unit_rows(embedding.load(embedder), texts), count))
    else:
        chosen = set(random.Random(seed).sample(range(len(texts)), min(count, len(texts))))
    adapter = Gradients(model, rank, seed)
    shown = ((one.prompt, one.response) for at, one in enumerate(records) if at in chosen)
    adapter.warmed_up(shown, count, rate)
    return Meter(model, loaded=adapter.loaded())


def ifd_by_perplexities(
    records: Iterable[Example], *, model: str, share: float, below: float = 1.0
) -> Iterator[tuple[Example, str | None]]:
    """Keeps the `share` of examples with the highest ratio of perplexities, ppl(A | Q) / ppl(A).

    Knobs and reasons as in `ifd_by_losses`; the scale is another (exp of the difference of the losses, not their
    quotient), so the ranks differ. With a small model this is Superfiltering: put `diversity.facility_location`
    behind. Sources: R15 (Superfiltering), R13.
    """
    return _kept(records, share, below, lambda meter, part: _ratios(meter, part, _perplexities), model)


def reverse_ifd(
    records: Iterable[Example], *, model: str, share: float, below: float = 1.0
) -> Iterator[tuple[Example, str | None]]:
    """Keeps the `share` of examples with the lowest ppl(Q | A, asked for the request behind it) / ppl(Q).

    Low means that the answer gives its request away: it fits. `below` and more are dropped first
    ("reverse_ifd_too_high" there and beyond the share; "no_score"). Source: R13 (Selective Reflection-Tuning's
    r-IFD).
    """
    chosen = _kept(records, share, -below, _guessed, model)
    for record, reason in chosen:
        yield record, reason if reason in (None, "no_score") else "reverse_ifd_too_high"


def likely(
    records: Iterable[Example], *, model: str, keep: int | None = None, at_least: float | None = None
) -> Iterator[tuple[Example, str | None]]:
    """Keeps the answers that a local model finds likeliest, by mean log-probability of their tokens under the prompt.

    The `keep` highest, or all from `at_least` (nats, below 0). Reasons: "unlikely", "no_score". Source: R55 (InPars keeps
    the 10,000 queries of the highest mean log-probability).
    """
    if keep is None and at_least is None:
        raise RecipeError("influence.likely: neither keep nor at_least is given; write one of them")
    meter, again = Meter(model), replayed(records)
    scores: _Scores = []
    for part in chunks(again):
        losses = meter.losses([(example.prompt, example.response) for example in part])
        scores += [None if loss is None else -loss for loss in losses]
    told = sorted((score for score in scores if score is not None), reverse=True)
    least = told[keep - 1] if keep is not None and 0 < keep < len(told) else -math.inf
    least = max(least, at_least if at_least is not None else -math.inf)
    for record, score in zip(again, scores, strict=True):
        yield record, "no_score" if score is None else None if score >= least else "unlikely"  # type: ignore[misc]


def less(
    records: Iterable[Example],
    *,
    model: str,
    path: Path,
    share: float,
    prompt: str = "prompt",
    reference: str = "reference",
    rank: int = 8,
    warm_up: int = 64,
    learning_rate: float = 1e-3,
    targets: int = 64,
    seed: int = 0,
) -> Iterator[tuple[Example, str | None]]:
    """Keeps the `share` of examples whose gradient points most where a few examples of the target task point (LESS).

    `path` holds rows of the target task with `prompt` and `reference` (never the test items). Gradients are those of a LoRA of
    `rank` on the local `model` after `warm_up` examples; the score is the cosine with the mean of the first `targets` target
    gradients. One backward pass per record, one vector held. Plain gradients, not Adam's, and no random projection: for small
    models. Reasons: "little_influence", "no_score" (too long, or nothing to score). Source: 4.10's kin, LESS (arXiv 2402.04333).
    """
    if not 0 < share <= 1:
        raise RecipeError(f"influence.less: share is {share}; write the share of examples to keep, above 0, up to 1")
    import torch

    from stillhouse.seeds import file
    from stillhouse.selection.lora_gradients import Gradients

    wanted = [s for s in file(path=path, prompt=prompt, reference=reference, limit=targets) if s.reference is not None]
    again, gradients = replayed(records), Gradients(model, rank, seed)
    gradients.warmed_up(((r.prompt, r.response) for r in again), warm_up, learning_rate)  # type: ignore[union-attr]
    aims = [each for each in gradients.of((s.prompt, s.reference or "") for s in wanted) if each is not None]
    if not aims:
        raise RecipeError(f"influence.less: {path} holds no row with {prompt} and {reference} that fits the model")
    aim_W = torch.stack(aims).mean(dim=0)
    pairs = ((r.prompt, r.response) for r in again)  # type: ignore[union-attr]
    scores = [None if each is None else float(each @ aim_W) for each in gradients.of(pairs)]
    told = sorted((score for score in scores if score is not None), reverse=True)
    least = told[min(max(round(share * len(scores)), 1), len(told)) - 1] if told else 0.0
    for record, score in zip(again, scores, strict=True):
        yield record, "no_score" if score is None else None if score >= least else "little_influence"  # type: ignore[misc]


def _ratios(meter: "Meter", examples: Sequence[Example], ratio: Callable[[float, float], float]) -> _Scores:
    given = meter.losses([(example.prompt, example.response) for example in examples])
    alone = meter.losses([(None, example.response) for example in examples])
    return [None if a is None or b is None or b <= 0 else ratio(a, b) for a, b in zip(given, alone, strict=True)]


def _guessed(meter: "Meter", examples: Sequence[Example]) -> _Scores:
    """Negative, so that the highest are the best, as for the others."""
    questions = [instruction_text(example) for example in examples]
    asked = [user(GUESS.format(answer=example.response)) for example in examples]
    given = meter.losses(list(zip(asked, questions, strict=True)))
    alone = meter.losses([(None, question) for question in questions])
    return [None if a is None or b is None else -_perplexities(a, b) for a, b in zip(given, alone, strict=True)]


def difficulties(meter: "Meter", examples: Sequence[Example]) -> _Scores:
    """IFD of each example by perplexities; None where it cannot be told."""
    return _ratios(meter, examples, _perplexities)


def reverse_difficulties(meter: "Meter", examples: Sequence[Example]) -> _Scores:
    """Reverse IFD of each example: lower where the answer gives its request away."""
    return [None if score is None else -score for score in _guessed(meter, examples)]


def _perplexities(given: float, alone: float) -> float:
    return math.exp(min(given - alone, 700.0))


def _kept(
    records: Iterable[Any],
    share: float,
    below: float,
    scored: Callable[["Meter", Sequence[Example]], _Scores],
    model: "str | Meter",
) -> Iterator[tuple[Example, str | None]]:
    if not 0 < share <= 1:
        raise RecipeError(f"influence: share is {share}; write the share of examples to keep, above 0, up to 1")
    meter = Meter(model) if isinstance(model, str) else model
    again = replayed(records)
    scores: _Scores = []
    for part in chunks(again):
        scores += scored(meter, part)
    # below 0 the scores are negated ones: a fit of exactly `-below` is already too bad
    fitting = [s for s in scores if s is not None and (s < below if below > 0 else s > below)]
    wanted = max(round(share * len(scores)), 1)
    least = sorted(fitting, reverse=True)[wanted - 1] if len(fitting) > wanted else -math.inf
    for record, score in zip(again, scores, strict=True):
        if score is None:
            yield record, "no_score"  # type: ignore[misc]
        elif (score >= below) if below > 0 else (score <= below):
            yield record, "ifd_too_high"  # type: ignore[misc]
        else:
            yield record, None if score >= least else "ifd_too_low"  # type: ignore[misc]


class Meter:
    """Mean token losses under a local model; loaded when first asked, unless `loaded` is it and its tokenizer."""

    def __init__(self, model: str, *, batch_size: int = 16, loaded: tuple[Any, Any] | None = None) -> None:
        self._name, self._batch_size = model, batch_size
        self._loaded = loaded

    def losses(self, pairs: Sequence[tuple[Prompt | None, str]]) -> _Scores:
        """One mean loss in nats per (prompt, text), over the text's tokens and its end; None where nothing can be scored.

        A text without a prompt is predicted from the beginning-of-sequence token. A tokenizer without one cannot
        predict the first token of such a text, so the first is then left out under a prompt as well.
        """
        sequences = [self._tokens(prompt, text) for prompt, text in pairs]
        order = sorted(range(len(pairs)), key=lambda i: len(sequences[i][0]))
        out: _Scores = [None] * len(pairs)
        for start in range(0, len(order), self._batch_size):
            batch = order[start : start + self._batch_size]
            for i, loss in zip(batch, self._batch([sequences[i] for i in batch]), strict=True):
                out[i] = loss
        return out

    def _model(self) -> tuple[Any, Any]:
        if self._loaded is None:
            from stillhouse.pocket import student_path
            from stillhouse.teachers.transformers import Teacher

            teacher = Teacher(model=student_path() if self._name == "pocket" else self._name)
            self._loaded = teacher.module(), teacher.tokenizer()
        return self._loaded

    def _tokens(self, prompt: Prompt | None, text: str) -> tuple[list[int], int]:
        """Token ids, and the position of the first one that is scored."""
        from stillhouse.render import render

        tokenizer = self._model()[1]
        rendered = render(tokenizer, prompt or user(""), text)
        bos = tokenizer.bos_token_id
        if prompt is None:
            ids = rendered.response if bos is None else [bos, *rendered.response]
            return ids, 1
        return rendered.ids, rendered.start + (bos is None)

    def _batch(self, sequences: Sequence[tuple[list[int], int]]) -> Iterator[float | None]:
        import torch

        model = self._model()[0]
        longest = max(len(ids) for ids, _ in sequences)
        ids_BT = torch.zeros(len(sequences), longest, dtype=torch.long)
        mask_BT = torch.zeros(len(sequences), longest, dtype=torch.long)
        for b, (ids, _) in enumerate(sequences):
            ids_BT[b, : len(ids)] = torch.tensor(ids)
            mask_BT[b, : len(ids)] = 1
        ids_BT = ids_BT.to(model.device)
        with torch.inference_mode():
            logits_BTV = model(input_ids=ids_BT, attention_mask=mask_BT.to(model.device)).logits[:, :-1].float()
        chosen_BT = ids_BT[:, 1:]
        loss_BT = logits_BTV.logsumexp(-1) - logits_BTV.gather(-1, chosen_BT[..., None])[..., 0]
        for b, (ids, start) in enumerate(sequences):
            count = len(ids) - start
            yield float(loss_BT[b, start - 1 : len(ids) - 1].mean()) if count > 0 else None
