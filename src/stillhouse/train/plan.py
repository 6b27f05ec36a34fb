"""Which records make up which micro-batch: a function of seed and content, for every number of processes."""

from collections.abc import Mapping

import numpy as np
from torch.utils.data import Dataset

from stillhouse.train.batch import Branch, Item
from stillhouse.train.settings import micro_batches


class Plan(Dataset):
    """Micro-batch g of this process. A branch's share of it depends on the branch, the seed and g alone, so that arms
    which train on the same branch see the same batches in the same order. The end of a pass ends a micro-batch.
    """

    def __init__(
        self,
        branches: Mapping[str, Branch],
        *,
        seed: int,
        length: int,
        size: int,
        rank: int = 0,
        world: int = 1,
        window: int = 1,
        again: Mapping[str, int] | None = None,
    ):
        """`again`: of some branches, how many windows (of `window` micro-batches) have the same records."""
        self.window, self.again = window, dict(again or {})
        self.branches, self.seed, self.length, self.size = branches, seed, length, size
        self.rank, self.world = rank, world
        self._orders: dict[str, tuple[int, np.ndarray]] = {}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> dict[str, list[Item]]:
        return {name: self._items(name, branch, self._place(name, number)) for name, branch in self.branches.items()}

    def _place(self, name: str, number: int) -> int:
        step, part = divmod(number, self.window)
        return step // self.again.get(name, 1) * self.window + part

    def _items(self, name: str, branch: Branch, number: int) -> list[Item]:
        turn, part = divmod(number, micro_batches(len(branch), self.size))
        if self._orders.get(name, (-1,))[0] != turn:
            self._orders[name] = turn, branch.order(self.seed, turn)
        places = self._orders[name][1][part * self.size : (part + 1) * self.size]
        own = places[self.rank :: self.world]
        # a process left without a record still takes part, with one that does not count
        mine = [item for place in own for item in branch.items(int(place))]
        return mine or branch.items(int(places[0]), weight=0.0)
