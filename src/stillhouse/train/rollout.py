"""The student answers prompts inside training; what it says becomes a batch like any other (on-policy distillation)."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stillhouse.errors import RecipeError
from stillhouse.generate import Generated, generate_sorted
from stillhouse.records import Example
from stillhouse.render import end_ids, pad_id
from stillhouse.train.batch import Branch, Item
from stillhouse.train.together import generate_together

# examples (the student's answers) -> what each is worth, None where nobody could tell
Judge = Callable[[Sequence[Example]], Sequence[float | None]]


@dataclass(frozen=True, slots=True)
class Adaptive:
    """DistiLLM's schedule (survey 4.6, R28): the share of own answers grows with the loss on held-out answers.

    Every `every` steps the loss on `examples` records kept out of training is measured; where it is at least the one
    before plus `tolerance`, the share grows by `step`, up to 1. The defaults are those of the released code.
    """

    examples: int = 32
    every: int = 50
    step: float = 0.1
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        if self.examples < 1 or self.every < 1 or not 0 < self.step <= 1:
            raise RecipeError(
                f"train.rollouts.adaptive: examples {self.examples} and every {self.every} must be at least 1, "
                f"and step {self.step} between 0 and 1"
            )


@dataclass(frozen=True, slots=True)
class Rollouts:
    """Which prompts the student answers, and how it samples.

    `fraction` is GKD's lambda (arXiv 2306.13649): the share of prompts that the student answers itself; the others
    keep the answer of their record. 0 never samples, 1 needs no answers in the branch. `beside` keeps the record's
    answer beside the student's. `samples` answers are drawn for each prompt. `reward` is a grader: its grade is the
    reward of an answer, and an answer it cannot tell about does not count; `judge` gives rewards as well.
    `teacher` takes part in sampling: `teacher_share` of each token's distribution is the teacher's (MiniLLM's mixture),
    or, with `top_k`, the teacher draws anew each token that is not among its own `top_k` likeliest (speculative
    distillation, arXiv 2410.11325). `epochs` steps learn from the answers of one window, each time held against the
    distribution they were drawn from (PPO's 4). `replay` answers are kept and come back, with a chance that grows to 1 at the end
    (DistiLLM); with `adaptive` `fraction` is only where the share begins.
    """

    on: str
    fraction: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 64
    batch_size: int = 64
    samples: int = 1
    reward: Callable[..., Any] | None = None
    judge: Judge | None = None
    beside: bool = False
    teacher: str | None = None
    teacher_share: float = 0.0
    top_k: int = 0
    replay: int = 0
    adaptive: Adaptive | None = None
    epochs: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 1:
            raise RecipeError(f"train.rollouts.fraction: {self.fraction} must be between 0 (never) and 1 (always)")
        if self.max_new_tokens < 1:
            raise RecipeError(f"train.rollouts.max_new_tokens: {self.max_new_tokens} must be at least 1")
        if self.samples < 1 or (self.samples > 1 and self.temperature == 0):
            raise RecipeError(
                f"train.rollouts.samples: {self.samples} at temperature {self.temperature}; "
                "write 1 or more, and a temperature above 0 for more than 1"
            )
        if (self.teacher is not None) != (self.teacher_share > 0 or self.top_k > 0) or not 0 <= self.teacher_share < 1:
            raise RecipeError(
                "train.rollouts.teacher: a teacher takes part in sampling by `teacher_share` (between 0 and 1, e.g. 0.2) "
                "or by `top_k` (e.g. 25); give the teacher and one of the two"
            )
        if self.teacher is not None and ((self.teacher_share > 0 and self.top_k > 0) or self.top_p < 1):
            raise RecipeError("train.rollouts: teacher_share, top_k and top_p exclude each other; keep one of them")
        if self.epochs < 1 or (self.epochs > 1 and (self.replay or self.adaptive is not None)):
            raise RecipeError(
                f"train.rollouts.epochs: {self.epochs} must be at least 1, and answers that serve several steps leave no "
                "room for replay and adaptive; leave those out"
            )
        if self.replay and self.rewarded:
            raise RecipeError("train.rollouts.replay: rewards need fresh answers; leave out replay or the reward")

    @property
    def rewarded(self) -> bool:
        return self.reward is not None or self.judge is not None

    @property
    def answered(self) -> bool:
        """Whether the records' own answers are needed."""
        return self.fraction < 1 or self.beside or self.adaptive is not None

    @property
    def plain(self) -> bool:
        """Whether answers are drawn from the student's distribution as it is, or say how likely they were."""
        return (self.temperature, self.top_p, self.top_k, self.replay) == (1, 1, 0, 0)


def roll_out(
    model: Any,
    tokenizer: Any,
    branch: Branch,
    items: Sequence[Item],
    rollouts: Rollouts,
    *,
    seed: int,
    step: int,
    fraction: float | None = None,
    teacher: Any = None,
) -> list[list[Item]]:
    """For each of `items` the student's own answers where it is its turn, or the item itself.

    Whose turn it is and what is drawn depends on the seed, the step and the record, not on the batch it came in.
    `fraction` stands for that of `rollouts`; `teacher` is the one that takes part in sampling.
    """
    fraction = rollouts.fraction if fraction is None else fraction
    answered: list[list[Item]] = [[item] for item in items]
    asked = [
        (at, mark(seed, step, branch.keys[item.index], sample))
        for at, item in enumerate(items)
        if chance(seed, step, branch.keys[item.index], "turn") < fraction
        for sample in range(rollouts.samples)
    ]
    if not rollouts.beside:
        for at, _ in asked:
            answered[at] = []
    prompts = [items[at].ids[: items[at].start].tolist() for at, _ in asked]
    marks = [each for _, each in asked]
    found = _answers(model, tokenizer, branch, [items[at] for at, _ in asked], prompts, marks, rollouts, teacher)
    for number, (at, _) in enumerate(asked):
        ids, logprobs = found[number]
        whole = np.array([*prompts[number], *ids], np.int32)
        answered[at].append(replace(items[at], ids=whole, slot=len(answered[at]), own=True, logprobs=logprobs))
    return answered if not rollouts.rewarded else _rewarded(answered, tokenizer, branch, rollouts)


def _answers(
    model: Any,
    tokenizer: Any,
    branch: Branch,
    items: Sequence[Item],
    prompts: list[list[int]],
    marks: list[int],
    rollouts: Rollouts,
    teacher: Any,
) -> dict[int, tuple[list[int], np.ndarray | None]]:
    how: dict[str, Any] = {
        "max_new_tokens": rollouts.max_new_tokens,
        "eos_ids": end_ids(tokenizer, getattr(model, "generation_config", None)),
        "pad_id": pad_id(tokenizer),
        "temperature": rollouts.temperature,
    }
    if rollouts.teacher is None:
        drawn = generate_sorted(
            model, prompts, batch_size=rollouts.batch_size, seeds=marks, top_p=rollouts.top_p, **how
        )
        plain: dict[int, Generated] = dict(drawn)
        return {number: (each.ids, None) for number, each in plain.items()}
    found: dict[int, tuple[list[int], np.ndarray | None]] = {}
    for start in range(0, len(prompts), rollouts.batch_size):
        part = slice(start, start + rollouts.batch_size)
        theirs = [teacher.prompt(branch, item) for item in items[part]]
        drawn_together = generate_together(
            model, teacher.model, prompts[part], theirs, seeds=marks[part], share=rollouts.teacher_share,
            top_k=rollouts.top_k, **how,
        )  # fmt: skip
        found.update(enumerate(drawn_together, start))
    return found


def _rewarded(answered: list[list[Item]], tokenizer: Any, branch: Branch, rollouts: Rollouts) -> list[list[Item]]:
    flat = [item for answers in answered for item in answers if item.own]
    texts = [tokenizer.decode(item.ids[item.start :], skip_special_tokens=True) for item in flat]
    records = [branch.record(item.index) for item in flat]
    worth: Sequence[float | None]
    if rollouts.judge is not None:
        asked = [
            Example(f"{record.id}.{number}", record.prompt, text, getattr(record, "reference", None))
            for number, (record, text) in enumerate(zip(records, texts))
        ]
        worth = rollouts.judge(asked)
    else:
        assert rollouts.reward is not None
        references = [getattr(record, "reference", None) for record in records]
        worth = [grade.value for grade in rollouts.reward(texts, references)]
    values = iter(worth)

    def graded(item: Item) -> Item:
        if not item.own:
            return item
        value = next(values)
        return replace(item, weight=0.0) if value is None else replace(item, reward=float(value))

    return [[graded(item) for item in answers] for answers in answered]


def chance(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts alone."""
    return mark(*parts) / 2**64


def mark(*parts: object) -> int:
    text = "|".join(map(str, ("rollout", *parts)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
