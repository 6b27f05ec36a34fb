"""Preferences and rewards that need no essay of a judge: known already, read from edits, from probabilities, or from a
reward model (Eq. 7).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod, tanh
from pathlib import Path
from typing import Any, Literal

from stillhouse.elicit.asking import in_chunks
from stillhouse.elicit.judge_prompts import EXPECTED, REQUESTED
from stillhouse.elicit.revising import rewriting_prompt
from stillhouse.elicit.stepwise import steps_of
from stillhouse.errors import RecipeError
from stillhouse.records import Example, Lost, Origin, Prompt, Ranking, Seed, content_id, user
from stillhouse.selection.texts import prompt_text
from stillhouse.teachers.base import Scores

__all__ = ["conditioned", "corrected", "expected", "first", "known", "reward_model", "rewriting", "step_rewards"]


def known(seeds: Iterable[Seed], *, responses: Sequence[str], scores: str | None = None) -> Iterator[Ranking | Lost]:
    """Rankings that somebody else made: the columns `responses`, best first (chosen, rejected); no teacher is asked.

    One column may hold the list of all responses; `scores` names the column of their scores, which then give the order.
    Rows with fewer than two different responses are lost as "single_answer". The columns must be kept by
    `seeds.columns`. Raises RecipeError where one is not there or has another length.
    """
    for seed in seeds:
        told = [_column(seed, name) for name in responses]
        texts = [str(text) for text in (told[0] if len(told) == 1 and isinstance(told[0], list) else told)]
        values = [float(value) for value in _column(seed, scores)] if scores else []
        if values and len(values) != len(texts):
            raise RecipeError(f"preferences.known: row {seed.id} has {len(texts)} responses and {len(values)} {scores}")
        if values:
            order = sorted(range(len(texts)), key=lambda at: -values[at])
            texts, values = [texts[at] for at in order], [values[at] for at in order]
        if len(set(texts)) < 2:
            yield Lost(seed.id, "single_answer")
            continue
        name = content_id("Ranking", seed.id, texts, values)
        origin = Origin((seed.id,))
        yield Ranking(name, seed.prompt, tuple(texts), tuple(values), seed.reference, (), seed.columns, origin)


def first(rankings: Iterable[Ranking]) -> Iterator[Example]:
    """The best answer of each ranking as an example to imitate; no teacher is asked.

    Sources: R08 (SDF learns the best of four ranked answers), R35, R44.
    """
    for one in rankings:
        name = content_id("Example", one.id, "first")
        origin = Origin((one.id,), one.origin.teacher, one.origin.keys)
        yield Example(name, one.prompt, one.responses[0], one.reference, one.asked, one.columns, origin)


def corrected(examples: Iterable[Example], *, column: str = "was") -> Iterator[Ranking | Lost]:
    """Each correction preferred to what it corrected, which the column `was` of `feedback.minimal_edit` holds.

    What `supervised.figa` and `supervised.edited` learn from: they see which tokens the correction changed. No teacher
    is asked. Source: R42.
    """
    for one in examples:
        wrong = str(_column(one, column))
        if wrong == one.response:
            yield Lost(one.id, "unchanged")
            continue
        name = content_id("Ranking", one.id, wrong)
        origin = Origin((one.id,), one.origin.teacher, one.origin.keys)
        yield Ranking(name, one.prompt, (one.response, wrong), (), one.reference, one.asked, one.columns, origin)


def rewriting(examples: Iterable[Example], *, column: str = "was") -> Iterator[Example]:
    """Lessons of a model that rewrites: shown an answer, it learns its correction; shown a right one, to leave it.

    The column `was` of `feedback.minimal_edit` holds what was corrected; an example without it is right as it stands. Trained on
    both (`supervised.cross_entropy`), the model is the generative reward model of `reinforcement.rlmec`: shown an answer, it
    finds the right tokens of it likely and those that it would change unlikely. No teacher is asked. Source: R42 (RLMEC,
    arXiv 2401.06081).
    """
    for one in examples:
        was = str(one.columns.get(column, one.response))
        name = content_id("Example", one.id, "rewriting", was)
        yield replace(
            one, id=name, prompt=rewriting_prompt(one.prompt, was), origin=replace(one.origin, parents=(one.id,))
        )


def conditioned(
    examples: Iterable[Example],
    *,
    column: str,
    prefixes: Mapping[str, str],
    weights: Mapping[str, float] | None = None,
) -> Iterator[Example | Lost]:
    """Each prompt begins with the prefix of its class, and the column `weight` holds what its class counts.

    The class is in `column`; rows of another class are lost as "no_class". Conditioned fine-tuning (C-RLFT, R16): train
    with `weight_column: weight` (1 and 0.1 in the released code) and ask the student with the best class's prefix.
    """
    for one in examples:
        named = str(_column(one, column))
        if named not in prefixes:
            yield Lost(one.id, "no_class", detail=named)
            continue
        at = next((at for at, message in enumerate(one.prompt) if message.role == "user"), len(one.prompt) - 1)
        told = replace(one.prompt[at], content=prefixes[named] + one.prompt[at].content)
        prompt: Prompt = (*one.prompt[:at], told, *one.prompt[at + 1 :])
        columns = {**one.columns, "weight": float((weights or {}).get(named, 1.0))}
        name = content_id("Example", one.id, prefixes[named])
        origin = replace(one.origin, parents=(one.id,))
        yield replace(one, id=name, prompt=prompt, columns=columns, origin=origin)


def expected(
    examples: Iterable[Example],
    teacher: Scores,
    *,
    question: str = "How good is the answer, from 1 (useless) to 9 (perfect)?",
    options: Mapping[str, float] | None = None,
    column: str = "score",
    k: int = 200,
) -> Iterator[Example | Lost]:
    """Each answer's expected rating, read from the teacher's probabilities of the options and not from what it writes.

    `options` says what each is worth; by default the digits 1 to 9 are spread over -1 to 1 (d-RLAIF, R33). With
    {"yes": 1, "no": 0} it is the chance that the answer meets an objective described in `question` (GPT-3 reward, R44).
    Options are told apart by their first token and must be among the `k` likeliest, else "option_missing". As the
    `reward` of rollouts the teacher is the reward itself, without a reward model between.
    """
    if not isinstance(teacher, Scores):
        raise RecipeError("preferences.expected: this teacher cannot tell log-probabilities; use feedback.rate")
    worth = dict(options) if options else {str(digit): (digit - 5) / 4 for digit in range(1, 10)}
    for one in examples:
        fields = {"prompt": prompt_text(one.prompt), "response": one.response, "options": ", ".join(worth)}
        asked = user(EXPECTED.format(question=question, **fields))
        chances = _chances(teacher, asked, list(worth), k)
        if chances is None:
            yield Lost(one.id, "option_missing")
            continue
        value = sum(chance * worth[option] for option, chance in chances.items())
        yield _scored(one, {column: value}, getattr(teacher, "name", ""))


def reward_model(
    examples: Iterable[Example], *, path: Path, column: str = "score", batch_size: int = 16
) -> Iterator[Example]:
    """Each answer scored by a reward model: the student of a run whose `kind` was reward (or any such model folder).

    `path` is that folder. Rank answers with `feedback.pairs`, keep the best with `quality.best`, or reward rollouts.
    """
    from stillhouse.scoring import opened

    scorer = opened(path, batch_size)
    for chunk in in_chunks(examples):
        values = scorer.scores([(one.prompt, one.response) for one in chunk])
        yield from (_scored(one, {column: value}, str(path)) for one, value in zip(chunk, values))


def step_rewards(
    examples: Iterable[Example],
    *,
    path: Path,
    requests_path: Path | None = None,
    aggregate: Literal["product", "least"] = "product",
    column: str = "score",
    batch_size: int = 16,
) -> Iterator[Example]:
    """Each answer scored by its steps, and by what it was asked: the reward r(x) r(x, y) of reinforced evolved instructions.

    `path` is a run whose student of kind reward learned `reinforcement.step_rewards`; its sigmoid at the end of a step is the
    chance that the step is right. r(x, y) is their product, or the `least`; an answer without a step is worth 0. Steps as in
    `feedback.step_labels`. With `requests_path`, a run whose student of kind reward learned from `feedback.rank_requests`,
    that is multiplied by r(x), its sigmoid for the request. Source: R24 (WizardMath's RLEIF, arXiv 2308.09583).
    """
    from stillhouse.kernels.alignment import part_ends, token_bytes
    from stillhouse.scoring import opened

    scorer = opened(path, batch_size)
    spelled = token_bytes(scorer.tokenizer)
    judge = str(path) if requests_path is None else f"{path} {requests_path}"
    for chunk in in_chunks(examples):
        rows = scorer.rendered([(one.prompt, one.response) for one in chunk])
        parts = [steps_of(one.response) for one in chunk]
        ends = [
            part_ends(one.response, steps, [spelled[i] for i in row.response]) for one, steps, row in zip(chunk, parts, rows)
        ]  # fmt: skip
        found = [[_sigmoid(each) for each in values] for values in scorer.along(rows, ends)]
        totals = [(prod if aggregate == "product" else min)(values) if values else 0.0 for values in found]
        if requests_path is not None:
            asked = [(user(REQUESTED), prompt_text(one.prompt)) for one in chunk]
            worth = opened(requests_path, batch_size).scores(asked)
            totals = [total * _sigmoid(each) for total, each in zip(totals, worth, strict=True)]
        yield from (_scored(one, {column: total}, judge) for one, total in zip(chunk, totals))


def _sigmoid(value: float) -> float:
    return 0.5 * (1.0 + tanh(0.5 * value))


def _scored(one: Example, columns: Mapping[str, Any], judge: str) -> Example:
    """The same example with what was found in its columns; who wrote it stays on record as its teacher."""
    name = content_id("Example", one.id, dict(columns), judge)
    origin = Origin((one.id,), one.origin.teacher, one.origin.keys)
    return replace(one, id=name, columns={**one.columns, **columns}, origin=origin)


def _chances(teacher: Scores, prompt: Prompt, options: Sequence[str], k: int) -> dict[str, float] | None:
    import numpy as np

    logprobs = []
    for beliefs in teacher.top_logprobs([(prompt, option) for option in options], k=k):
        at = np.flatnonzero(beliefs.top_ids_TK[0] == beliefs.token_ids_T[0])
        if not len(at):
            return None
        logprobs.append(float(beliefs.top_logprobs_TK[0][at[0]]))
    chances = np.exp(np.array(logprobs) - max(logprobs))
    return dict(zip(options, (chances / chances.sum()).tolist()))


def _column(record: Any, column: str) -> Any:
    if column not in record.columns:
        raise RecipeError(
            f"preferences: row {record.id} has no column {column!r}; keep it with `columns:` of the seeds, or name another"
        )
    return record.columns[column]
