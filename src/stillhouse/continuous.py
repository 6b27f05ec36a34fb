"""Continuous batching: a prompt that waits takes the place of a row that has ended, so that every step is a full one.

All rows write their keys and values into the same column at the same time; a prompt that joins is laid so that it ends
where the others are. So a step is a few large operations, wherever its rows are in their answers.

Shapes: B rows at work, b rows and key-value heads, n rows that join, L tokens of a prompt, S columns, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stillhouse.decoder import Cache, Decoder

_CHANGE = 0.25  # of the places must be free: below it, reading prompts or copying the cache costs more than empty steps
_ROOM = 64  # columns that a cache has beyond its prompts to begin with


@dataclass(frozen=True, slots=True)
class Generated:
    """New tokens of one row. `finished`: an end id closed it and is the last of `ids`; otherwise it met the limit."""

    ids: list[int]
    finished: bool


class Continuous:
    """Answers `prompts`, longest first, `width` of them at a time; `limits` has the most new tokens of each, 1 or more.

    `rows` says which prompt each place is about, `steps` which of its tokens is next.
    """

    def __init__(
        self,
        decoder: Decoder,
        prompts: Sequence[Sequence[int]],
        limits: Sequence[int],
        eos_ids: Sequence[int],
        width: int,
    ):
        self.decoder, self.prompts, self.limits, self.eos = decoder, prompts, limits, frozenset(eos_ids)
        self.waiting = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
        longest, places = len(prompts[self.waiting[-1]]), min(width, len(prompts))
        self.turns_P1d = decoder.turns(longest + max(limits))
        self.rows, self.steps, self.start, self.next_B = torch.zeros(4, places, dtype=torch.long)
        self.alive = [False] * places
        self.told: list[list[int]] = [[] for _ in range(places)]
        self.answers: list[tuple[int, Generated]] = []
        self.cache = Cache(decoder, places, longest + _ROOM)
        self.cache.end = longest - 1
        self._change()

    @property
    def at_work(self) -> bool:
        return any(self.alive)

    def next_logits(self) -> Tensor:
        """[B, V]; those of rows that have ended mean nothing."""
        cache = self.cache
        if not cache.free:
            self.start -= cache.make_room(len(self.prompts[self.waiting[-1]]) - 1 if self.waiting else 0)
            self._look()
        mask_b1S = None if self.mask_b1S is None else self.mask_b1S[:, :, cache.first : cache.end + 1]
        turns_B1d = self.turns_P1d.index_select(0, self.position_B)
        logits_BV = self.decoder.step(self.next_B, turns_B1d, cache, mask_b1S)
        cache.end += 1
        self.position_B += 1
        return logits_BV

    def take(self, next_B: Tensor) -> None:
        """One new token for each row."""
        self.next_B, tokens = next_B, next_B.tolist()
        self.steps += 1
        self.nearest -= 1
        for told, token in zip(self.told, tokens):
            told.append(token)
        if self.nearest and self.eos.isdisjoint(tokens):
            return
        for place, (told, token) in enumerate(zip(self.told, tokens)):
            row, finished = int(self.rows[place]), token in self.eos
            if self.alive[place] and (finished or len(told) == self.limits[row]):
                self.alive[place] = False
                self.answers.append((row, Generated(told, finished)))
                self.told[place] = []
        self._change()

    def just_ended(self) -> list[tuple[int, Generated]]:
        """(row, answer) of those that have ended since this was last asked."""
        found, self.answers = self.answers, []
        return found

    def _change(self) -> None:
        """Free places go to those that wait, or away, once there are enough of them."""
        free = [place for place, alive in enumerate(self.alive) if not alive]
        if len(free) >= _CHANGE * len(self.alive):
            joining = free[: len(self.waiting)]
            if joining:
                self._join(joining)
            if 0 < sum(self.alive) <= (1 - _CHANGE) * len(self.alive):
                self._leave()
        dead = torch.tensor([not alive for alive in self.alive])
        self.start[dead], self.steps[dead] = self.cache.end, 0  # they look at nothing and draw what nobody reads
        if self.at_work:
            left = [self.limits[row] - len(told) for row, told in zip(self.rows.tolist(), self.told)]
            self.nearest = min(each for each, alive in zip(left, self.alive) if alive)
            self._look()

    def _look(self) -> None:
        """What each row sees, and the position of its next token."""
        cache = self.cache
        cache.first = int(self.start.min())
        self.position_B = cache.end - self.start
        self.mask_b1S = None
        if int(self.start.max()) > cache.first:
            start_b = self.start.repeat_interleave(self.decoder.heads)
            unseen_bS = torch.arange(cache.columns) < start_b[:, None]
            self.mask_b1S = torch.zeros(unseen_bS.shape).masked_fill_(unseen_bS, -torch.inf)[:, None]

    def _join(self, places: Sequence[int]) -> None:
        rows = [self.waiting.pop() for _ in places]
        at, size_n = torch.tensor(places), torch.tensor([len(self.prompts[row]) - 1 for row in rows])
        length = int(size_n.max())
        if length:
            # on the right they need no mask; their keys and values then move to where the others are
            ids_nL = torch.tensor(
                [[*self.prompts[row][:-1], *[0] * (length + 1 - len(self.prompts[row]))] for row in rows]
            )
            kept = self.decoder.remember(ids_nL, self.turns_P1d[:length])
            column_nL = (torch.arange(length) - (length - size_n[:, None])).clamp(min=0)
            from_nL = column_nL + length * torch.arange(len(rows))[:, None]
            self.cache.fill(at, kept, from_nL.flatten(), length)
        self.rows[at], self.steps[at], self.start[at] = torch.tensor(rows), 0, self.cache.end - size_n
        self.next_B = self.next_B.clone()
        self.next_B[at] = torch.tensor([self.prompts[row][-1] for row in rows])
        for place in places:
            self.alive[place], self.told[place] = True, []

    def _leave(self) -> None:
        places = [place for place, alive in enumerate(self.alive) if alive]
        at = torch.tensor(places)
        self.cache.keep(at)
        self.rows, self.steps, self.start, self.next_B = (
            each.index_select(0, at) for each in (self.rows, self.steps, self.start, self.next_B)
        )
        self.told, self.alive = [self.told[place] for place in places], [True] * len(places)
