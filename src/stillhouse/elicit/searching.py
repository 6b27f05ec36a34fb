"""What was retrieved, judged and used: verdicts about passages, passages for the teacher alone, rewards of a search
(SK03).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from stillhouse.elicit.asking import annotated, as_seed, born, instructed, lost, read_each
from stillhouse.elicit.bm25 import Index, corpus_of
from stillhouse.elicit.self_knowledge import ranking
from stillhouse.graders import Grader
from stillhouse.records import Example, Lost, Origin, Prompt, Ranking, Seed, content_id, user
from stillhouse.selection.texts import instruction_text
from stillhouse.selection.tokens import words
from stillhouse.teachers.base import Generates

__all__: list[str] = []

USEFUL, USELESS = "Passage {numbers} helps.", "No passage helps."


def verdict_first(
    examples: Iterable[Example],
    *,
    grader: Grader | None = None,
    at_least: float = 0.6,
    useful: str = USEFUL,
    useless: str = USELESS,
) -> Iterator[Example]:
    """A sentence before each answer that says which of the retrieved passages help with it.

    For examples whose prompt went through `retrieval.passages`. A passage helps where the known answer (the reference,
    or else the response) follows from it by `grader` with `at_least` (`{do: entailment.follows, model: FOLDER}`);
    without a grader, where it holds at least that share of the answer's words. What the grader cannot tell does not
    help. Source: R17 (as released, a templated verdict stands before a known answer; no teacher is asked).
    """
    for one in examples:
        passages = _passages(one)
        verdict = _verdict(_helpful(passages, one.reference or one.response, grader, at_least), useful, useless)
        response = f"{verdict} {one.response}"
        name = content_id("Example", one.id, response)
        origin = Origin((one.id,), one.origin.teacher, one.origin.keys)
        yield replace(one, id=name, response=response, origin=origin)


def informed(
    seeds: Iterable[Seed | Example],
    teacher: Generates,
    *,
    grader: Grader | None = None,
    at_least: float = 0.6,
    useful: str = USEFUL,
    useless: str = USELESS,
) -> Iterator[Example | Lost]:
    """The teacher's answers where it is told which of the retrieved passages help; the student is not told.

    For rows that went through `retrieval.passages` and have a reference, against which the passages are judged as in
    `retrieval.verdict_first`; put that behind it, so that the student gives the verdict itself. Lost: "no_reference".
    Source: R17 (as the survey describes it: results and their labels go to the teacher, which writes the response).
    """

    def known() -> Iterator[Seed]:
        for each in seeds:
            seed = as_seed(each)
            if seed.reference is not None:
                yield seed
            else:
                missing.append(Lost(seed.id, "no_reference"))

    def prompt_of(seed: Seed) -> Prompt:
        helpful = _helpful(_passages(seed), str(seed.reference), grader, at_least)
        return instructed(seed.prompt, _verdict(helpful, useful, useless))

    missing: list[Lost] = []
    for seed, _, outcome, value in read_each(known(), teacher, prompt_of, str.strip):
        yield value if isinstance(value, Lost) else born(seed, value, outcome, teacher.name)
    yield from missing


def _passages(one: Seed | Example) -> list[str]:
    return [str(text) for text in one.columns.get("passages") or []]


def _helpful(passages: Sequence[str], answer: str, grader: Grader | None, at_least: float) -> list[int]:
    if grader is None:
        aim = set(words(answer))
        shares = [len(aim & set(words(text))) / len(aim) if aim else 0.0 for text in passages]
    else:
        shares = [grade.value or 0.0 for grade in grader([answer] * len(passages), passages)] if passages else []
    return [number for number, share in enumerate(shares, 1) if share >= at_least]


def _verdict(helpful: Sequence[int], useful: str, useless: str) -> str:
    return useful.replace("{numbers}", " and ".join(map(str, helpful))) if helpful else useless


def erased(examples: Iterable[Example], *, label: str = "Passage") -> Iterator[Example | Lost]:
    """The answers given with retrieved passages, under the prompt without them: learning to do without a search.

    For examples whose prompt went through `retrieval.passages` with this `label`. Lost: "not_there", where the prompt
    was changed since. Source: R57 (QUILL's professor).
    """
    for one in examples:
        shown = "\n".join(f"{label} {i}: {text}" for i, text in enumerate(_passages(one), 1))
        last = max((i for i, message in enumerate(one.prompt) if message.role == "user"), default=-1)
        if shown and (last < 0 or not one.prompt[last].content.startswith(f"{shown}\n\n")):
            yield Lost(one.id, "not_there")
            continue
        prompt = list(one.prompt)
        if shown:
            prompt[last] = replace(prompt[last], content=prompt[last].content.removeprefix(f"{shown}\n\n"))
        origin = Origin((one.id,), one.origin.teacher, one.origin.keys)
        yield replace(
            one, id=content_id("Example", one.id, prompt), prompt=tuple(prompt), asked=one.prompt, origin=origin
        )


def by_likelihood(
    seeds: Iterable[Seed | Example],
    *,
    path: Path,
    model: str,
    field: str = "text",
    template: str | None = None,
    candidates: int = 10,
) -> Iterator[Ranking | Lost]:
    """Passages ranked by how likely a local model finds the question behind each: labels for a retriever.

    The `candidates` best by BM25; the score of each is the mean log-probability of the question's tokens behind it
    under `model` (`pocket`: the base student). `ranking.listnet` (a reranker) or `embedding.similarity_kl` (an
    encoder) learns their softmax. Lost: "too_few_candidates" (fewer than two). Source: R57 (ART).
    """
    from stillhouse.selection.influence import Meter

    corpus = corpus_of(path, field, template, "retrieval.by_likelihood")
    index, meter = Index(corpus), Meter(model)
    for one in seeds:
        question = instruction_text(one)
        found = [corpus[at] for at, _ in index.best(question, candidates)]
        losses = meter.losses([(user(text), question) for text in found])
        told = sorted(
            ((-loss, text) for loss, text in zip(losses, found, strict=True) if loss is not None), reverse=True
        )
        if len(told) < 2:
            yield Lost(one.id, "too_few_candidates")
        else:
            texts, worth = tuple(text for _, text in told), tuple(score for score, _ in told)
            yield ranking(one, texts, worth, (), "", one.origin.keys, parents=(one.id,))


def hit(
    examples: Iterable[Example], *, path: Path, field: str = "text", template: str | None = None, within: int = 3
) -> Iterator[Example | Lost]:
    """Whether the response, as a query, finds a passage that holds the known answer: 1 or 0 in the column `score`.

    Among the `within` best by BM25, words compared in lower case. As a reward it teaches a student to search
    (`rollouts: {reward: {do: retrieval.hit, path: ...}}`). Lost: "no_reference". Source: R57 (Rewrite-Retrieve-Read's
    hit ratio).
    """
    corpus = corpus_of(path, field, template, "retrieval.hit")
    index, told = Index(corpus), [f" {' '.join(words(text))} " for text in corpus]
    for one in examples:
        if one.reference is None:
            yield Lost(one.id, "no_reference")
            continue
        aim = f" {' '.join(words(one.reference))} "
        score = float(any(aim in told[at] for at, _ in index.best(one.response, within)))
        origin = Origin((one.id,), one.origin.teacher, one.origin.keys)
        yield replace(
            one, id=content_id("Example", one.id, "hit", score), columns={**one.columns, "score": score}, origin=origin
        )


def reader(
    examples: Iterable[Example],
    teacher: Generates,
    *,
    path: Path,
    grader: Grader,
    field: str = "text",
    template: str | None = None,
    count: int = 3,
) -> Iterator[Example | Lost]:
    """What a reader makes of the passages that the response, as a query, finds: a grade in the column `score`.

    The teacher reads the question (the example's prompt) behind the `count` best by BM25 for the response and answers
    it; `grader` holds that against the reference. As a reward: `{do: retrieval.reader, teacher: main, path: ...,
    grader: {do: text.contains}}`. Lost: "could_not_tell" with the grader's code. Source: R57 (Rewrite-Retrieve-Read's
    reader).
    """
    corpus = corpus_of(path, field, template, "retrieval.reader")
    index = Index(corpus)

    def prompt_of(one: Example) -> Prompt:
        found = [corpus[at] for at, _ in index.best(one.response, count)]
        return instructed(one.prompt, "\n".join(f"Passage {i}: {text}" for i, text in enumerate(found, 1)), "before")

    for one, slot, outcome, said in read_each(examples, teacher, prompt_of, str.strip):
        if isinstance(said, Lost):
            yield said
            continue
        (grade,) = grader([said], [one.reference])
        if grade.value is None:
            yield lost(one, slot, outcome, f"could_not_tell:{grade.reason}")
        else:
            yield annotated(one, {"score": grade.value, "read": said}, outcome, teacher.name)
