"""What a training remembers of the student's own answers from step to step: a store of them, and how many to make.

Everything here is part of a checkpoint, so that a resumed training goes on as if it had never stopped.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from stillhouse.train.batch import Branch, Item
from stillhouse.train.rollout import Rollouts, chance, mark


class Memory:
    """DistiLLM's replay buffer and its adaptive share of own answers (survey 4.6, R28)."""

    def __init__(self, rollouts: Rollouts, seed: int):
        self.rollouts, self.seed = rollouts, seed
        self.fraction = rollouts.fraction
        self.held_out_loss: float | None = None
        self.kept: list[Item] = []
        self.window: list[list[Item]] = []  # the last answers of each micro-batch, where they serve several steps

    def look(self, step: int, loss: Callable[[], float]) -> None:
        """Measures the loss where it is time to, and lets the share of own answers grow where it has risen."""
        adaptive = self.rollouts.adaptive
        if adaptive is None or step % adaptive.every:
            return
        found = loss()
        if self.held_out_loss is not None and found >= self.held_out_loss + adaptive.tolerance:
            self.fraction = min(1.0, self.fraction + adaptive.step)
        self.held_out_loss = found

    def parted(self, branch: Branch, items: Sequence[Item], step: int, steps: int) -> tuple[list[Item], list[Item]]:
        """Those of `items` that are answered or kept now, and in place of the others earlier own answers.

        An own answer is fresh with the chance 1 - step / steps; without `replay`, always.
        """
        if not self.rollouts.replay or not self.kept:
            return list(items), []
        now, again = [], []
        for item in items:
            key = branch.keys[item.index]
            own = chance(self.seed, step, key, "turn") < self.fraction
            if own and chance(self.seed, step, key, "fresh") < step / max(steps, 1):
                again.append(self.kept[mark(self.seed, step, key, "again") % len(self.kept)])
            else:
                now.append(item)
        return now, again

    def again(self, step: int) -> list[list[Item]]:
        """The answers that this step learns from once more; none where it is time for fresh ones."""
        return self.window if step % self.rollouts.epochs else []

    def keep(self, items: Sequence[Item]) -> None:
        if self.rollouts.replay:
            self.kept = [*self.kept, *(item for item in items if item.own)][-self.rollouts.replay :]

    def state(self) -> dict[str, Any]:
        """Plain values and arrays."""
        return {
            "fraction": self.fraction,
            "held_out_loss": self.held_out_loss,
            "kept": [(item.ids.tolist(), item.start, item.index, item.slot) for item in self.kept],
            "window": [[_plain(item) for item in items] for items in self.window],
        }

    def load(self, state: dict[str, Any]) -> None:
        self.fraction, self.held_out_loss = state["fraction"], state["held_out_loss"]
        self.kept = [
            Item(np.array(ids, np.int32), start, index, slot, own=True) for ids, start, index, slot in state["kept"]
        ]
        self.window = [[_item(told) for told in items] for items in state["window"]]


def _plain(item: Item) -> dict[str, Any]:
    logprobs = None if item.logprobs is None else item.logprobs.tolist()
    return {**asdict(item), "ids": item.ids.tolist(), "logprobs": logprobs}


def _item(told: dict[str, Any]) -> Item:
    logprobs = None if told["logprobs"] is None else np.array(told["logprobs"], np.float32)
    return Item(**{**told, "ids": np.array(told["ids"], np.int32), "logprobs": logprobs})
