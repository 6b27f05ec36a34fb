"""The student answers prompts inside training; what it says becomes a batch like any other (on-policy distillation)."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stillhouse.errors import RecipeError
from stillhouse.generate import generate_sorted
from stillhouse.render import end_ids, pad_id
from stillhouse.train.batch import Branch, Item


@dataclass(frozen=True, slots=True)
class Rollouts:
    """Which prompts the student answers, and how it samples.

    `fraction` is GKD's lambda (arXiv 2306.13649): the share of prompts that the student answers itself; the others
    keep the answer of their record. 0 never samples, 1 needs no answers in the branch. `samples` answers are drawn for
    each prompt. `reward` is a grader: its grade is the reward of an answer, and an answer it cannot tell about does not
    count.
    """

    on: str
    fraction: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 64
    batch_size: int = 64
    samples: int = 1
    reward: Callable[..., Any] | None = None

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


def roll_out(
    model: Any, tokenizer: Any, branch: Branch, items: Sequence[Item], rollouts: Rollouts, *, seed: int, step: int
) -> list[list[Item]]:
    """For each of `items` the student's own answers where it is its turn, or the item itself.

    Whose turn it is and what is drawn depends on the seed, the step and the record, not on the batch it came in.
    """
    answered: list[list[Item]] = [[item] for item in items]
    asked = [
        (at, _mark(seed, step, branch.keys[item.index], sample))
        for at, item in enumerate(items)
        if _mark(seed, step, branch.keys[item.index], "turn") / 2**64 < rollouts.fraction
        for sample in range(rollouts.samples)
    ]
    for at, _ in asked:
        answered[at] = []
    prompts = [items[at].ids[: items[at].start].tolist() for at, _ in asked]
    found = dict(
        generate_sorted(
            model,
            prompts,
            batch_size=rollouts.batch_size,
            seeds=[mark for _, mark in asked],
            max_new_tokens=rollouts.max_new_tokens,
            eos_ids=end_ids(tokenizer, getattr(model, "generation_config", None)),
            pad_id=pad_id(tokenizer),
            temperature=rollouts.temperature,
            top_p=rollouts.top_p,
        )
    )
    for number, (at, _) in enumerate(asked):
        ids = np.array([*prompts[number], *found[number].ids], np.int32)
        answered[at].append(replace(items[at], ids=ids, slot=len(answered[at]), own=True))
    return answered if rollouts.reward is None else _rewarded(answered, tokenizer, branch, rollouts.reward)


def _rewarded(
    answered: list[list[Item]], tokenizer: Any, branch: Branch, reward: Callable[..., Any]
) -> list[list[Item]]:
    flat = [item for answers in answered for item in answers if item.own]
    texts = [tokenizer.decode(item.ids[item.start :], skip_special_tokens=True) for item in flat]
    references = [getattr(branch.record(item.index), "reference", None) for item in flat]
    grades = iter(reward(texts, references))

    def graded(item: Item) -> Item:
        if not item.own:
            return item
        value = next(grades).value
        return replace(item, weight=0.0) if value is None else replace(item, reward=value)

    return [[graded(item) for item in answers] for answers in answered]


def _mark(*parts: object) -> int:
    text = "|".join(map(str, ("rollout", *parts)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
