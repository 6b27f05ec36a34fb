"""The named arrays of one group of a micro-batch: an objective gets what its positional parameters name.

Legend: N target positions, V vocabulary, H hidden width, S sequences, G groups. Each array is made when it is first
asked for, once for all terms that read the group; a property's name is the array's.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stillhouse.kernels.beliefs import Beliefs, Dense, Mapped, TopK
from stillhouse.kernels.fused import target_logprobs, token_logprobs
from stillhouse.kernels.groups import group_sum
from stillhouse.kernels.translated import Translated
from stillhouse.train.across import gathered
from stillhouse.train.annotations import edit_signs, routes, step_ends
from stillhouse.train.batch import Branch, Item, Layer
from stillhouse.train.forward import Shown
from stillhouse.train.online import OnlineTeacher
from stillhouse.train.packing import Packed, groups, last_positions, padded, scores, spread, stored_beliefs
from stillhouse.train.terms import REFERENCE, ROLLOUTS, Term

Online = Mapping[str, OnlineTeacher]
RIGHT = 0.5  # a reward above it is that of a right answer
_SPANS = frozenset({"span_N", "teacher_span_logprobs_P", "weight_P"})


class Counted:
    """What a term has to learn in one group of a micro-batch, before anything is computed: its weights and their number."""

    def __init__(self, term: Term, items: Sequence[Item], branch: Branch, online: Online, spelled: Sequence[bytes]):
        self.term, self.items, self.branch, self.online, self.spelled = term, list(items), branch, online, spelled

    def positions(self) -> np.ndarray:
        """weight_N: 0 where the term has nothing to learn."""
        term, wants = self.term, set(self.term.wants())
        weight_S = self.sequences()
        if term.on == ROLLOUTS and not term.judges():
            weight_S = weight_S * np.array([not item.own for item in self.items])
        weight_N = spread(weight_S, self.items).astype(np.float32)
        if "edit_N" in wants:
            weight_N *= edit_signs(self.branch, self.items) != 0
        if "step_labels_N" in wants:
            weight_N *= step_ends(self.branch, self.items, self.spelled)[1]
        if self.across() and term.compares():
            weight_N *= (self.heard() & self.asked()).any(-1)
        return weight_N

    def sequences(self) -> np.ndarray:
        """weight_S."""
        weight_S = np.array([item.weight for item in self.items], np.float32)
        if self.term.weight_column is not None:
            weight_S = weight_S * self.branch.weights[self.term.weight_column][[item.index for item in self.items]]
        return weight_S

    def groups(self) -> np.ndarray:
        """weight_G."""
        group_S = groups(self.items)
        weight_G = np.zeros(group_S.max() + 1, np.float32)
        weight_G[group_S] = self.sequences()
        return weight_G

    def spans(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """span_N, span_M of the teacher's positions, weight_P."""
        teacher = self.online[self.term.teachers[0]]
        span_N, span_M, weight_P, start = [], [], [], 0
        for (_, aligned), weight in zip(teacher.aligned(self.branch, self.items, "bytes"), self.sequences()):
            span_N.append(np.where(aligned.span_N < 0, -1, aligned.span_N + start))
            span_M.append(np.where(aligned.span_M < 0, -1, aligned.span_M + start))
            weight_P.append(np.full(aligned.spans, weight, np.float32))
            start += aligned.spans
        return np.concatenate(span_N), np.concatenate(span_M), np.concatenate(weight_P)

    def number(self) -> int:
        """What the term's sum is divided by: groups, sequences, spans, or positions; a set of them counts once."""
        wants = set(self.term.wants())
        if "weight_G" in wants:
            return int(np.count_nonzero(self.groups()))
        if "weight_S" in wants:
            return int(np.count_nonzero(self.sequences()))
        if "weight_P" in wants:
            return int(np.count_nonzero(self.spans()[2]))
        if not wants & {"weight_N", "weight_BT", "mask_N"}:
            return 1  # nothing of the batch: the same number in every micro-batch
        number = int(np.count_nonzero(self.positions()))
        return min(number, 1) if "mask_N" in wants else number

    def across(self) -> list[str]:
        """The teachers that cut text differently."""
        return [name for name in self.term.teachers if name in self.online and not self.online[name].same_tokens]

    def teacher_at(self, name: str) -> np.ndarray:
        return self.online[name].compared(self.branch, self.items, self.term.align)

    def heard(self) -> np.ndarray:
        """heard_NM: where each teacher begins a token, as the student does."""
        number = sum(item.targets for item in self.items)
        across = self.across()
        told = [self.teacher_at(name) >= 0 if name in across else np.ones(number, bool) for name in self.term.teachers]
        return np.stack(told, -1)

    def asked(self) -> np.ndarray:
        """[N or 1, M]: of which teacher each position is to be learned."""
        number = len(self.term.teachers)
        if "route_N" not in self.term.wants():
            return np.ones((1, number), bool)
        return self.routes()[:, None] == np.arange(number)

    def routes(self) -> np.ndarray:
        """route_N."""
        assert self.term.route is not None
        return spread(routes(self.branch, self.items, self.term.route, self.term.teachers), self.items)

    def comparable(self) -> list[tuple[int, int]]:
        """For each teacher of another tokenizer the positions where it can be compared, and those where it was asked for."""
        across = self.across()
        if not across:
            return [(0, 0)] * len(self.term.teachers)
        asked_NM = (spread(self.sequences(), self.items) != 0)[:, None] & self.asked()
        if _SPANS & set(self.term.wants()):
            heard_NM = (self.spans()[0] >= 0)[:, None] & asked_NM
        else:
            heard_NM = self.heard() & asked_NM if self.term.compares() else asked_NM
        counts = zip(heard_NM.sum(0).tolist(), asked_NM.sum(0).tolist())
        return [pair if name in across else (0, 0) for name, pair in zip(self.term.teachers, counts)]


class GroupArrays:
    """`shown` is what the student says in this micro-batch; `online` holds the teachers, the reference among them."""

    def __init__(
        self,
        name: str,
        branch: Branch,
        batch: Packed,
        shown: Shown,
        online: Online,
        vocabulary: int,
        spelled: Sequence[bytes] = (),
        squared_distance: Any = None,
        mismatched: "GroupArrays | None" = None,
    ):
        self.name, self.branch, self.batch, self.online, self.vocabulary = name, branch, batch, online, vocabulary
        self.spelled, self.moved, self.mismatched = spelled, squared_distance, mismatched
        self.items = batch.items[name]
        whole = len(batch.parts) == 1
        self.shown = shown if whole else shown.part(batch.parts[name])
        logits = self.shown.logits_NV
        self.device = logits.device if isinstance(logits, Tensor) else logits.hidden_NH.device
        self._read: dict[str, Shown] = {}
        self._read_across: dict[str, tuple[Shown, Tensor]] = {}

    def of(self, term: Term, layers: Mapping[str, tuple[Layer, ...]]) -> list[Any]:
        """What `term` reads, in the order of its parameters."""
        counted = Counted(term, self.items, self.branch, self.online, self.spelled)
        return [self._array(name, term, counted, layers) for name in term.wants()]

    def _array(self, name: str, term: Term, counted: Counted, layers: Mapping[str, tuple[Layer, ...]]) -> Any:
        if name in ("weight_N", "mask_N"):
            return self._tensor(counted.positions())
        if name == "weight_G":
            return self._tensor(counted.groups())
        if name == "weight_S":
            return self._tensor(counted.sequences())
        if name == "weight_BT":
            return self._in_rows(self._tensor(counted.positions()))
        if name in _SPANS:
            return self._spans(name, term, counted, layers)
        if name == "student_hidden_NH":
            return self.shown.hidden_NH[term.layers[0]]
        if name == "student_relations_BTH":
            return self._in_rows(self.shown.hidden_NH[term.layers[0], term.relations])
        if name == "all_teacher_beliefs":
            return tuple(self._dense(teacher, layers, counted) for teacher in term.teachers)
        if name == "all_teacher_logprobs_SM":
            return torch.stack([self._text_logprobs(teacher, layers) for teacher in term.teachers], -1)
        if name == "heard_NM":
            return self._tensor(counted.heard())
        if name == "teacher_beliefs":
            return self._beliefs(term, counted, layers) if term.teachers else self.stored_beliefs
        if name == "teacher_logprobs_N":
            return self._logprobs(term.teachers[0], layers)
        if name == "judge_probabilities_N":
            logits = self.online[term.teachers[0]].judge(self.branch, self.items).logits_NV
            return target_logprobs(logits, self.target_ids_N, self._ones_N, vocabulary=self.vocabulary).exp()
        if name == "teacher_hidden_NH":
            return self._beside(term, counted, layers).hidden_NH[term.layers[1]].to(self.device)
        if name == "teacher_relations_BTH":
            return self._in_rows(self._teacher(term.teachers[0], layers).hidden_NH[term.layers[1], term.relations])
        if name == "route_N":
            return self._tensor(counted.routes())
        if name == "reference_logprobs_N":
            return self._logprobs(REFERENCE, layers)
        if name == "reference_logprobs_S":
            return self._summed(self._logprobs(REFERENCE, layers))
        if name.endswith("_mismatched_logprobs_S"):
            return self._mismatched(name.replace("_mismatched", ""), term, layers)
        if name == "scores_S" and term.score_column in self.branch.weights:
            return self._tensor(self.branch.weights[term.score_column][[item.index for item in self.items]])
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
        # the answers of a window are sampled by the weights that learn from them, unless they say otherwise
        if all(item.logprobs is None for item in self.items):
            return self.student_logprobs_N.detach()
        own = self.student_logprobs_N.detach().split([item.targets for item in self.items])
        told = [item.logprobs for item in self.items]
        return torch.cat([mine if known is None else self._tensor(known) for mine, known in zip(own, told)])

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
        return self._tensor(scores(self.branch, self.items, own=self.name == ROLLOUTS))

    @cached_property
    def rewards_S(self) -> Tensor:  # noqa: N802
        return self._tensor(np.array([item.reward for item in self.items], np.float32))

    @cached_property
    def advantages_N(self) -> Tensor:  # noqa: N802
        return self._tensor(spread(np.array([item.advantage for item in self.items], np.float32), self.items))

    @cached_property
    def right_N(self) -> Tensor:  # noqa: N802
        return self._tensor(spread([item.reward > RIGHT for item in self.items], self.items))

    @cached_property
    def edit_N(self) -> Tensor:  # noqa: N802
        return self._tensor(edit_signs(self.branch, self.items))

    @cached_property
    def step_labels_N(self) -> Tensor:  # noqa: N802
        return self._tensor(step_ends(self.branch, self.items, self.spelled)[0])

    @property
    def student_step_logits_N(self) -> Tensor:  # noqa: N802
        return self.student_logits_NV[:, 0]

    @property
    def student_scores_S(self) -> Tensor:  # noqa: N802
        return self.student_logits_NV[self._tensor(last_positions(self.items)), 0]

    @property
    def squared_distance(self) -> Tensor:
        return self.moved()

    @cached_property
    def group_S(self) -> Tensor:  # noqa: N802
        return self._tensor(groups(self.items))

    @cached_property
    def stored_beliefs(self) -> Beliefs:
        if self.branch.signals is not None:
            places = [item.index for item in self.items]
            return self.branch.signals.beliefs(places, vocabulary=self.vocabulary, device=self.device)
        ids_NK, logprobs_NK = stored_beliefs(self.branch, self.items)
        return TopK(self._tensor(ids_NK), self._tensor(logprobs_NK), vocabulary=self.vocabulary)

    @cached_property
    def _ones_N(self) -> Tensor:  # noqa: N802
        return torch.ones(len(self.target_ids_N), device=self.device)

    def _dense(self, teacher: str, layers: Mapping[str, tuple[Layer, ...]], counted: Counted) -> Dense:
        if teacher not in counted.across():
            return Dense(self._teacher(teacher, layers).logits_NV, vocabulary=self.vocabulary)
        at_N = counted.teacher_at(teacher)
        logits = self._own_positions(teacher, layers)[0].taken(lambda rows: gathered(rows, at_N)).logits_NV
        ids_U = _within(self.online[teacher].bridge.first_U, logits).to(self.device)
        return Dense(Translated(logits, ids_U, self.vocabulary), vocabulary=self.vocabulary)

    def _text_logprobs(self, teacher: str, layers: Mapping[str, tuple[Layer, ...]]) -> Tensor:
        """[S]: what a teacher thinks of each response as it cuts it itself."""
        online = self.online[teacher]
        if online.same_tokens:
            return self._summed(self._logprobs(teacher, layers))
        logprobs_M, tokens = self._own_logprobs(teacher, layers), online.lengths(self.branch, self.items)
        sequence_M = torch.repeat_interleave(torch.arange(len(tokens)), torch.tensor(tokens)).to(self.device)
        return group_sum(logprobs_M, sequence_M, len(tokens))

    def _beliefs(self, term: Term, counted: Counted, layers: Mapping[str, tuple[Layer, ...]]) -> Beliefs:
        """In the form that the objective declares to read, where the teacher cuts text differently."""
        teacher, form = self.online[term.teachers[0]], term.believes()
        if teacher.same_tokens and form is not Mapped:
            return self._dense(term.teachers[0], layers, counted)
        logits = self._beside(term, counted, layers).logits_NV
        if form is Dense:
            known = len(_within(teacher.bridge.first_U, logits))
            return Dense(logits, vocabulary=known, student_vocabulary=self.vocabulary)
        ids_U = teacher.bridge.matched_U if form is Mapped else teacher.bridge.first_U
        return Mapped(logits, _within(ids_U, logits).to(self.device), vocabulary=self.vocabulary)

    def _beside(self, term: Term, counted: Counted, layers: Mapping[str, tuple[Layer, ...]]) -> Shown:
        """The teacher at the student's positions: its own where the tokens are the same, else those about the same text."""
        name = term.teachers[0]
        if self.online[name].same_tokens and term.believes() is not Mapped:
            return self._teacher(name, layers)
        at_N = counted.teacher_at(name)
        return self._own_positions(name, layers)[0].taken(lambda rows: gathered(rows, at_N))

    def _own_positions(self, name: str, layers: Mapping[str, tuple[Layer, ...]]) -> tuple[Shown, Tensor]:
        if name not in self._read_across:
            self._read_across[name] = self.online[name].read_across(self.branch, self.items, layers.get(name, ()))
        return self._read_across[name]

    def _own_logprobs(self, name: str, layers: Mapping[str, tuple[Layer, ...]]) -> Tensor:
        """[M]: of the response's tokens as that teacher cuts it."""
        shown, target_ids_M = self._own_positions(name, layers)
        ones_M = torch.ones(len(target_ids_M), device=self.device)
        known = len(_within(self.online[name].bridge.first_U, shown.logits_NV))
        return target_logprobs(shown.logits_NV, target_ids_M.to(self.device), ones_M, vocabulary=known)

    def _spans(self, name: str, term: Term, counted: Counted, layers: Mapping[str, tuple[Layer, ...]]) -> Tensor:
        span_N, span_M, weight_P = counted.spans()
        if name != "teacher_span_logprobs_P":
            return self._tensor(span_N if name == "span_N" else weight_P)
        logprobs_M = self._own_logprobs(term.teachers[0], layers)
        inside_M = self._tensor(span_M >= 0)
        return group_sum(logprobs_M[inside_M], self._tensor(span_M)[inside_M], len(weight_P))

    def _mismatched(self, name: str, term: Term, layers: Mapping[str, tuple[Layer, ...]]) -> Tensor:
        """The answer of another prompt under this one, in the order of this group's sequences."""
        other = self.mismatched
        assert other is not None
        values_S = other._array(name, term, Counted(term, other.items, self.branch, self.online, self.spelled), layers)
        placed = {(item.index, item.slot): at for at, item in enumerate(other.items)}
        return values_S[[placed[item.index, item.slot] for item in self.items]]

    def _in_rows(self, values_N: Tensor) -> Tensor:
        """One row for each sequence, filled up with zeros."""
        return padded(values_N, [item.targets for item in self.items])

    def _logprobs(self, teacher: str, layers: Mapping[str, tuple[Layer, ...]]) -> Tensor:
        logits = self._teacher(teacher, layers).logits_NV
        return target_logprobs(logits, self.target_ids_N, self._ones_N, vocabulary=self.vocabulary)

    def _teacher(self, name: str, layers: Mapping[str, tuple[Layer, ...]]) -> Shown:
        if name not in self._read:
            self._read[name] = self.online[name].read(self.name, self.branch, self.batch, layers.get(name, ()))
        return self._read[name]

    def _summed(self, values_N: Tensor) -> Tensor:
        return group_sum(values_N, self.sequence_N, len(self.items))

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def _within(ids_U: Tensor, logits: Any) -> Tensor:
    """One for each column that is a token: columns beyond the teacher's tokenizer are not read."""
    return ids_U[: logits.shape[-1] if isinstance(logits, Tensor) else logits.weight_VH.shape[0]]
