"""What a generator draws from and what it gives: a `Draw` that keeps the held-out split, and an `Item`."""

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")
ONE_IN = 8  # one combination in eight is held out


@dataclass(frozen=True)
class Item:
    """One conversation that ends with the gold answer, and the facts its checker needs."""

    skill: str
    kind: str
    messages: tuple[dict[str, str], ...]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def prompt(self) -> list[dict[str, str]]:
        return list(self.messages[:-1])

    @property
    def answer(self) -> str:
        return self.messages[-1]["content"]


def ask(skill: str, kind: str, prompt: str, answer: str, *, system: str = "", **facts: Any) -> Item:
    """An item of one question and one answer, with a system turn when there is one."""
    opening = ({"role": "system", "content": system},) if system else ()
    turns = ({"role": "user", "content": prompt}, {"role": "assistant", "content": answer})
    return Item(skill, kind, opening + turns, facts)


def is_held_out(combination: Any) -> bool:
    """Stable over runs and machines, which `hash` is not."""
    return zlib.crc32(repr(combination).encode()) % ONE_IN == 0


class Draw(random.Random):
    """A seeded source that knows which side of the split it draws for.

    Training never sees the last fifth of any list of wordings nor a held-out combination; measuring sees only those.
    """

    def __init__(self, seed: int, *, held_out: bool = False, held_out_wordings: bool | None = None):
        super().__init__(seed)
        self.held_out = held_out
        self.held_out_wordings = held_out if held_out_wordings is None else held_out_wordings

    def wording(self, wordings: Sequence[T]) -> T:
        return self.choice(unseen(wordings) if self.held_out_wordings else seen(wordings))

    def fits(self, combination: Any) -> bool:
        """Whether this combination belongs to the side this source draws for."""
        return is_held_out(combination) == self.held_out

    def chance(self, probability: float) -> bool:
        return self.random() < probability


def unseen_count(wordings: Sequence[T]) -> int:
    return max(1, len(wordings) // 5)


def seen(wordings: Sequence[T]) -> Sequence[T]:
    return wordings[: -unseen_count(wordings)]


def unseen(wordings: Sequence[T]) -> Sequence[T]:
    return wordings[-unseen_count(wordings) :]
