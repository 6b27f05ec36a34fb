"""The named arrays of one group of a micro-batch: an objective gets what its positional parameters name.

Legend: N target positions, V vocabulary, H hidden width, S sequences, G groups. Each array is made when it is first
asked for, once for all terms that read the group; a property's name is the array's.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stillhouse.kernels.beliefs import Dense, TopK
from stillhouse.kernels.fused import target_logprobs, token_logprobs
from stillhouse.kernels.groups import group_sum
from stillhouse.train.batch import Branch, Item
from stillhouse.train.forward import Shown
from stillhouse.train.online import OnlineTeacher
from stillhouse.train.packing import Packed, groups, scores, spread, stored_beliefs
from stillhouse.train.terms import REFERENCE, ROLLOUTS, Term


def position_weights(term: Term, items: list[Item], branch: Branch) -> np.ndarray:
    """weight_N: 0 where a term has nothing to learn."""
    weight_S = _sequence_weights(term, items, branch)
    if term.on == ROLLOUTS and not term.judges():
        weight_S = weight_S * np.array([not item.own for item in items])
    return spread(weight_S, items).astype(np.float32)


def group_weights(term: Term, items: list[Item], branch: Branch) -> np.ndarray:
    """weight_G."""
    group_S = groups(items)
    weight_G = np.zeros(group_S.max() + 1, np.float32)
    weight_G[group_S] = _sequence_weights(term, items, branch)
    return weight_G


def eligible(term: Term, items: list[Item], branch: Branch) -> int:
    """What the term's sum is divided by, counted in this group: groups, sets of positions, or positions."""
    if "weight_G" in term.wants():
        return int(np.count_nonzero(group_weights(term, items, branch)))
    positions = int(np.count_nonzero(position_weights(term, items, branch)))
    return min(positions, 1) if "mask_N" in term.wants() else positions


def _sequence_weights(term: Term, items: list[Item], branch: Branch) -> np.ndarray:
    weight_S = np.array([item.weight for item in items], np.float32)
    if term.weight_column is not None:
        weight_S = weight_S * branch.weights[term.weight_column][[item.index for item in items]]
    return weight_S


class GroupArrays:
    """`shown` is what the student says in this micro-batch; `online` holds the teachers, the reference among them."""

    def __init__(
        self,
        name: str,
        branch: Branch,
        batch: Packed,
        shown: Shown,
        online: Mapping[str, OnlineTeacher],
        vocabulary: int,
    ):
        self.name, self.branch, self.batch, self.online, self.vocabulary = name, branch, batch, online, vocabulary
        self.items = batch.items[name]
        whole = len(batch.parts) == 1
        self.shown = shown if whole else shown.part(batch.parts[name])
        logits = self.shown.logits_NV
        self.device = logits.device if isinstance(logits, Tensor) else logits.hidden_NH.device
        self._read: dict[str, Shown] = {}

    def of(self, term: Term, layers: Mapping[str, tuple[int, ...]]) -> list[Any]:
        """What `term` reads, in the order of its parameters."""
        return [self._array(name, term, layers) for name in term.wants()]

    def _array(self, name: str, term: Term, layers: Mapping[str, tuple[int, ...]]) -> Any:
        if name in ("weight_N", "mask_N"):
            return self._tensor(position_weights(term, self.items, self.branch))
        if name == "weight_G":
            return self._tensor(group_weights(term, self.items, self.branch))
        if name == "student_hidden_NH":
            return self.shown.hidden_NH[term.layers[0]]
        if name == "all_teacher_beliefs":
            return tuple(self._dense(teacher, layers) for teacher in term.teachers)
        if name == "teacher_beliefs":
            return self._dense(term.teachers[0], layers) if term.teachers else self.stored_beliefs
        if name == "teacher_logprobs_N":
            return self._logprobs(term.teachers[0], layers)
        if name == "teacher_hidden_NH":
            return self._teacher(term.teachers[0], layers).hidden_NH[term.layers[1]].to(self.device)
        if name == "reference_logprobs_N":
            return self._logprobs(REFERENCE, layers)
        if name == "reference_logprobs_S":
            return self._summed(self._logprobs(REFERENCE, layers))
        return getattr(self, name)

    @property
    def student_logits_NV(self) -> Any:  # noqa: N802, the name of an array
        return self.shown.logits_NV

    @cached_property
    def target_ids_N(self) -> Tensor:  # noqa: N802
        return self._tensor(self.batch.target_ids_N[self.batch.parts[self.name]])

    @cached_property
    def sequence_N(self) -> Tensor:  # noqa: N802
        return self._tensor(spread(np.arange(len(self.items)), self.items))

    @cached_property
    def student_logprobs_N(self) -> Tensor:  # noqa: N802
        return token_logprobs(self.student_logits_NV, self.target_ids_N, self._ones_N)

    @property
    def rollout_logprobs_N(self) -> Tensor:  # noqa: N802
        # the answers of a window are sampled by the weights that learn from them
        return self.student_logprobs_N.detach()

    @cached_property
    def self_generated_N(self) -> Tensor:  # noqa: N802
        return self._tensor(spread([item.own for item in self.items], self.items))

    @cached_property
    def student_logprobs_S(self) -> Tensor:  # noqa: N802
        return self._summed(self.student_logprobs_N)

    @cached_property
    def lengths_S(self) -> Tensor:  # noqa: N802
        return self._tensor(np.array([item.targets for item in self.items]))

    @cached_property
    def scores_S(self) -> Tensor:  # noqa: N802
        return self._tensor(scores(self.branch, self.items))

    @cached_property
    def rewards_S(self) -> Tensor:  # noqa: N802
        return self._tensor(np.array([item.reward for item in self.items], np.float32))

    @cached_property
    def group_S(self) -> Tensor:  # noqa: N802
        return self._tensor(groups(self.items))

    @cached_property
    def stored_beliefs(self) -> TopK:
        ids_NK, logprobs_NK = stored_beliefs(self.branch, self.items)
        return TopK(self._tensor(ids_NK), self._tensor(logprobs_NK), vocabulary=self.vocabulary)

    @cached_property
    def _ones_N(self) -> Tensor:  # noqa: N802
        return torch.ones(len(self.target_ids_N), device=self.device)

    def _dense(self, teacher: str, layers: Mapping[str, tuple[int, ...]]) -> Dense:
        return Dense(self._teacher(teacher, layers).logits_NV, vocabulary=self.vocabulary)

    def _logprobs(self, teacher: str, layers: Mapping[str, tuple[int, ...]]) -> Tensor:
        logits = self._teacher(teacher, layers).logits_NV
        return target_logprobs(logits, self.target_ids_N, self._ones_N, vocabulary=self.vocabulary)

    def _teacher(self, name: str, layers: Mapping[str, tuple[int, ...]]) -> Shown:
        if name not in self._read:
            self._read[name] = self.online[name].read(self.name, self.branch, self.batch, layers.get(name, ()))
        return self._read[name]

    def _summed(self, values_N: Tensor) -> Tensor:
        return group_sum(values_N, self.sequence_N, len(self.items))

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)
