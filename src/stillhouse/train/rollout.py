"""The student answers prompts inside training; what it says becomes a batch like any other (on-policy distillation)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
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
    keep the answer of their record. 0 never samples, 1 needs no answers in the branch.
    """

    on: str
    fraction: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 64
    batch_size: int = 64

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 1:
            raise RecipeError(f"train.rollouts.fraction: {self.fraction} must be between 0 (never) and 1 (always)")
        if self.max_new_tokens < 1:
            raise RecipeError(f"train.rollouts.max_new_tokens: {self.max_new_tokens} must be at least 1")


def roll_out(
    model: Any, tokenizer: Any, branch: Branch, items: Sequence[Item], rollouts: Rollouts, *, seed: int, step: int
) -> list[Item]:
    """`items` with the student's own answers where it is its turn.

    Whose turn it is and what is drawn depends on the seed, the step and the record, not on the batch it came in.
    """
    marks = [_mark(seed, step, branch.keys[item.index]) for item in items]
    chosen = [at for at, mark in enumerate(marks) if mark / 2**64 < rollouts.fraction]
    answered = list(items)
    prompts = [items[at].ids[: items[at].start].tolist() for at in chosen]
    answers = generate_sorted(
        model,
        prompts,
        batch_size=rollouts.batch_size,
        seeds=[marks[at] for at in chosen],
        max_new_tokens=rollouts.max_new_tokens,
        eos_ids=end_ids(tokenizer, getattr(model, "generation_config", None)),
        pad_id=pad_id(tokenizer),
        temperature=rollouts.temperature,
        top_p=rollouts.top_p,
    )
    for number, answer in answers:
        item = items[chosen[number]]
        ids = np.array([*prompts[number], *answer.ids], np.int32)
        answered[chosen[number]] = Item(ids, item.start, item.index, item.weight, own=True)
    return answered


def _mark(seed: int, step: int, key: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"rollout|{seed}|{step}|{key}".encode(), digest_size=8).digest(), "big")
