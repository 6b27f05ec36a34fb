"""Self-RAG at work: a student that looks things up where it wants to, and whose own marks choose what it goes on with."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillhouse.elicit.bm25 import Index, corpus_of
from stillhouse.elicit.reflecting import NO_RETRIEVAL, RELEVANT, RETRIEVAL, SUPPORTED, USEFUL, shown
from stillhouse.evaluate import ItemScore
from stillhouse.evaluate.tasks.language_model import log_probs, padded
from stillhouse.graders import Grader
from stillhouse.records import Message, Prompt
from stillhouse.seeds import file

__all__ = ["self_rag"]


@dataclass(frozen=True, slots=True)
class Way:
    """A way through an answer: the turns so far, what is being said in this one, and what it is worth."""

    told: Prompt
    text: str
    worth: float
    over: bool = False


def self_rag(
    student: Any,
    tokenizer: Any,
    *,
    path: Path,
    passages_path: Path,
    grader: Grader,
    field: str = "text",
    count: int = 3,
    beam: int = 2,
    segments: int = 4,
    threshold: float = 0.2,
    relevant: float = 1.0,
    supported: float = 1.0,
    useful: float = 0.5,
    prompt: str = "prompt",
    reference: str = "reference",
    max_new_tokens: int = 64,
    limit: int | None = None,
) -> list[ItemScore]:
    """Graded answers of a generator that was taught by `retrieval.segmented`.

    Before each segment the chance of "[Retrieval]" against "[No Retrieval]" decides (above `threshold`) whether to
    look up: then each of the `count` best by BM25 for question and text so far is tried, and the `beam` best ways go
    on, by the mean log-probability of the segment plus `relevant` x P([Relevant]), `supported` x (P([Fully supported])
    + P([Partially supported]) / 2) and `useful` x the expected utility from -1 to 1, each among the marks of its kind.
    At most `segments`; the grader sees the answer without marks. One question at a time: for small tests. Source: R19
    (segment beam over critique tokens).
    """
    corpus = corpus_of(passages_path, field, None, "self_rag")
    index, model = Index(corpus), _Model(student, tokenizer, max_new_tokens)
    items = list(file(path=path, prompt=prompt, reference=reference, limit=limit))
    texts = []
    for item in items:
        question = "\n".join(message.content for message in item.prompt if message.role == "user")
        ways = [Way(item.prompt, "", 0.0)]
        for _ in range(segments):
            grown = []
            for way in ways:
                if way.over:
                    grown.append(way)
                    continue
                wants = model.chances(way.told, "", (RETRIEVAL, NO_RETRIEVAL))[0]
                found = index.best(f"{question} {plain(way.text)}", count) if wants > threshold else []
                tried = [
                    (*way.told, Message("assistant", RETRIEVAL), Message("user", shown(corpus[at]))) for at, _ in found
                ]
                for told in tried or [way.told]:
                    grown.append(_grown(model, way, told, (relevant, supported, useful)))
            ways = sorted(grown, key=lambda each: -each.worth)[:beam]
            if all(way.over for way in ways):
                break
        texts.append(plain(ways[0].text))
    grades = grader(texts, [item.reference for item in items])
    return [
        ItemScore(item.id, item.prompt[-1].content, item.reference, text, grade.value, grade.reason)
        for item, text, grade in zip(items, texts, grades, strict=True)
    ]


def _grown(model: "_Model", way: Way, told: Prompt, weights: tuple[float, float, float]) -> Way:
    said, mean = model.said(told)
    worth = mean
    if told != way.told:
        worth += weights[0] * model.chances(told, "", RELEVANT)[0]
    for kind in (SUPPORTED, USEFUL):
        place = min((at for mark in kind if (at := said.find(mark)) >= 0), default=-1)
        if place < 0:
            continue
        chances = model.chances(told, said[:place], kind)
        if kind is SUPPORTED:
            worth += weights[1] * (chances[0] + chances[1] / 2)
        else:
            worth += weights[2] * sum(chance * (number - 2) / 2 for number, chance in enumerate(chances))
    over = not said.rstrip().endswith(RETRIEVAL)
    spoken = said.rstrip().removesuffix(RETRIEVAL).rstrip() if not over else said
    return Way((*told, Message("assistant", said)), f"{way.text} {spoken}".strip(), way.worth + worth, over)


def plain(text: str) -> str:
    """An answer without its marks."""
    for mark in (RETRIEVAL, NO_RETRIEVAL, *RELEVANT, *SUPPORTED, *USEFUL):
        text = text.replace(mark, " ")
    return " ".join(text.split())


class _Model:
    def __init__(self, student: Any, tokenizer: Any, max_new_tokens: int) -> None:
        self.student, self.tokenizer, self.most = student, tokenizer, max_new_tokens

    def said(self, told: Prompt) -> tuple[str, float]:
        """The greedy turn behind a conversation, and the mean log-probability of its tokens."""
        from stillhouse.generate import generate
        from stillhouse.render import end_ids, pad_id, render_prompt

        ends = end_ids(self.tokenizer, self.student.generation_config)
        ids = render_prompt(self.tokenizer, told)
        (made,) = generate(self.student, [ids], max_new_tokens=self.most, eos_ids=ends, pad_id=pad_id(self.tokenizer))
        text = self.tokenizer.decode(made.ids, skip_special_tokens=True).strip()
        return text, self._sums([(ids, [*ids, *made.ids])])[0] / max(len(made.ids), 1)

    def chances(self, told: Prompt, before: str, marks: Sequence[str]) -> list[float]:
        """The probabilities of the marks behind a text, among themselves."""
        from stillhouse.render import render, render_prompt

        ids = render_prompt(self.tokenizer, told)
        sums = self._sums([(ids, render(self.tokenizer, told, before + mark).ids[:-1]) for mark in marks])
        weights = [math.exp(each - max(sums)) for each in sums]
        return [each / sum(weights) for each in weights]

    def _sums(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[float]:
        """The log-probability of what each second list of ids adds to the first."""
        import torch

        from stillhouse.generate import answering

        ids_BT, mask_BT = padded([whole for _, whole in pairs], self.student.device)
        with answering(self.student), torch.inference_mode():
            logprobs_BTV = log_probs(self.student, ids_BT, mask_BT)
        return [
            float(logprobs_BTV[b, len(first) - 1 : len(whole) - 1].gather(-1, ids_BT[b, len(first) : len(whole), None]).sum())
            for b, (first, whole) in enumerate(pairs)
        ]  # fmt: skip
