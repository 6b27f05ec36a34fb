"""A white-box teacher beside the student: what it says goes straight to the objective.

Teacher and student read the same response, each after the prompt as its own chat template renders it; where their
tokenizers differ, as each cuts it, and `train.across` says which positions are about the same text. The
student as it was before training is such a teacher too, under the name `reference`.
"""

from collections.abc import Sequence
from copy import deepcopy
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stillhouse.elicit.revising import rewriting_prompt
from stillhouse.errors import RecipeError, RunFailed
from stillhouse.generate import answering
from stillhouse.render import TOGETHER, Reading, Rendered, end_ids, fingerprint, pad_id, reading_of, same_rendering
from stillhouse.teachers.base import Reveals
from stillhouse.teachers.forced import context
from stillhouse.train.across import Aligned, Bridge
from stillhouse.train.batch import Branch, Item, Layer
from stillhouse.train.forward import Shown, has_plain_head, packs_sequences, read_as_one, show
from stillhouse.train.packing import Packed, pack

_REMEMBERED = 4096  # alignments of responses: those of a data set, or of many steps of own answers


class OnlineTeacher:
    """Raises RecipeError where the two end a turn differently, or where the teacher cannot show its logits."""

    def __init__(self, name: str, teacher: Any, student_tokenizer: Any, reading: Reading = TOGETHER):
        if not isinstance(teacher, Reveals):
            raise RecipeError(
                f"train: teacher {name!r} cannot show its logits; use a local one (backend: transformers or pocket), "
                "or elicit feature.top_logprobs first"
            )
        self.name, self.model, self.tokenizer = name, teacher.module(), teacher.tokenizer()
        self.student_tokenizer = student_tokenizer
        self.same_tokens = fingerprint(self.tokenizer) == fingerprint(student_tokenizer)
        if self.same_tokens:
            _same_ends(name, self.tokenizer, student_tokenizer)
        self.reading = reading_of(self.model)
        self.same = self.reading is reading and same_rendering(self.tokenizer, student_tokenizer)
        self.packing = packs_sequences(self.model)
        self.fused = False
        self._prompts: dict[tuple[str, int], list[int]] = {}
        self._across: dict[bytes, tuple[Rendered, Aligned]] = {}

    @cached_property
    def bridge(self) -> Bridge:
        """What its tokens have to do with the student's."""
        return Bridge(self.student_tokenizer, self.tokenizer)

    def place(self, device: torch.device, *, fused: bool) -> None:
        self.model.eval().to(device)
        self.fused = fused and has_plain_head(self.model)

    def aligned(self, branch: Branch, items: Sequence[Item], by: str) -> list[tuple[Rendered, Aligned]]:
        """Each of `items` as the teacher reads it, and where its positions meet the student's."""
        return [self._aligned(branch, item, by) for item in items]

    def compared(self, branch: Branch, items: Sequence[Item], by: str) -> np.ndarray:
        """at_N: the teacher's target position for each of the student's, counted over all of `items`; -1 for none."""
        found, start = [], 0
        for rendered, aligned in self.aligned(branch, items, by):
            found.append(np.where(aligned.teacher_at_N < 0, -1, aligned.teacher_at_N + start))
            start += len(rendered.response)
        return np.concatenate(found)

    def lengths(self, branch: Branch, items: Sequence[Item]) -> list[int]:
        """Into how many tokens it cuts each response."""
        return [len(rendered.response) for rendered, _ in self.aligned(branch, items, "bytes")]

    def read_across(self, branch: Branch, items: Sequence[Item], layers: Sequence[Layer]) -> tuple[Shown, Tensor]:
        """What the teacher says at its own targets, sequence by sequence, and the ids it finds there."""
        rendered = [self._aligned(branch, item, "bytes")[0] for item in items]
        own = [Item(np.asarray(each.ids, np.int32), each.start, number) for number, each in enumerate(rendered)]
        anew = pack({"": own}, pad=pad_id(self.tokenizer), packing=self.packing)
        shown = self._shown(layers, anew.ids_RC, anew.position_RC, anew.target_RC)
        placed = [item.index for item in anew.items[""]]
        target_ids_M = np.concatenate([np.asarray(each.response, np.int64) for each in rendered])
        return shown.arranged(
            [own[number].targets for number in placed], np.argsort(placed).tolist()
        ), torch.from_numpy(target_ids_M)

    def _aligned(self, branch: Branch, item: Item, by: str) -> tuple[Rendered, Aligned]:
        record = branch.record(item.index)
        key = f"{branch.name}|{record.id}|{item.start}|{by}|".encode() + item.ids.tobytes()
        if key not in self._across:
            if len(self._across) > _REMEMBERED:
                self._across.clear()
            own = item.ids[item.start :].tolist()
            theirs = self.reading.whole(self.tokenizer, record.prompt, self._text(record, item))
            self._across[key] = theirs, self.bridge.aligned(own, theirs.response, by=by)
        return self._across[key]

    def _text(self, record: Any, item: Item) -> str:
        if item.own or not hasattr(record, "response"):
            responses = getattr(record, "responses", None)
            if responses is not None and not item.own:
                return responses[item.slot]
            return self.student_tokenizer.decode(item.ids[item.start :], skip_special_tokens=True)
        return record.response

    def read(self, group: str, branch: Branch, batch: Packed, layers: Sequence[Layer]) -> Shown:
        """What the teacher says at the targets of one group of the batch, in their order."""
        if self.same and (self.packing or not batch.shared):
            rows = batch.rows[group]
            return self._shown(layers, batch.ids_RC[rows], batch.position_RC[rows], batch.target_RC[rows])
        return self._anew([self.prompt(branch, item) for item in batch.items[group]], batch.items[group], layers)

    def judge(self, branch: Branch, items: Sequence[Item]) -> Shown:
        """What it says at the targets of each of `items` when it is shown that very answer and asked to rewrite it (R42).

        Raises RunFailed where an answer shown and written again does not fit its context.
        """
        prompts = []
        for item in items:
            record = branch.record(item.index)
            asked = rewriting_prompt(record.prompt, self._text(record, item))
            prompts.append(self.reading.prompt(self.tokenizer, asked))
            if (size := len(prompts[-1]) + item.targets) > context(self.model):
                raise RunFailed(
                    f"train: teacher {self.name!r} is to rewrite an answer of {item.targets} tokens and would read {size}, more "
                    f"than its {context(self.model)}; lower max_new_tokens, or take a model with a longer context"
                )
        return self._anew(prompts, items, ())

    def _anew(self, prompts: Sequence[Sequence[int]], items: Sequence[Item], layers: Sequence[Layer]) -> Shown:
        """What the teacher says at the targets of each of `items` behind another prompt."""
        own = [
            Item(np.concatenate([np.array(prompt, np.int32), item.ids[item.start :]]), len(prompt), number)
            for number, (prompt, item) in enumerate(zip(prompts, items, strict=True))
        ]
        anew = pack({"": own}, pad=pad_id(self.tokenizer), packing=self.packing)
        shown = self._shown(layers, anew.ids_RC, anew.position_RC, anew.target_RC)
        placed = [item.index for item in anew.items[""]]
        return shown.arranged([own[number].targets for number in placed], np.argsort(placed).tolist())

    def prompt(self, branch: Branch, item: Item) -> list[int]:
        """The prompt of an item as the teacher's own template renders it."""
        key = branch.name, item.index
        if key not in self._prompts:
            self._prompts[key] = self.reading.prompt(self.tokenizer, branch.record(item.index).prompt)
        return self._prompts[key]

    @torch.no_grad()
    def _shown(self, layers: Sequence[Layer], *arrays_RC: np.ndarray) -> Shown:
        arrays = [torch.from_numpy(array).to(self.model.device) for array in arrays_RC]
        if not layers and (shown := read_as_one(self.model, *arrays, fused=self.fused)) is not None:
            return shown
        with answering(self.model):
            return show(self.model, *arrays, layers=layers, fused=self.fused)


class Start:
    """The student as it is now, kept: a copy of its weights, or the same weights without their adapter."""

    def __init__(self, model: Any, tokenizer: Any):
        adapted = hasattr(model, "disable_adapter")
        self._model = _WithoutAdapter(model) if adapted else deepcopy(model).requires_grad_(False)
        self._tokenizer = tokenizer

    def module(self) -> Any:
        return self._model

    def tokenizer(self) -> Any:
        return self._tokenizer


class _WithoutAdapter:
    """Looks like the model inside, and answers as it did before the adapter."""

    def __init__(self, model: Any):
        self._adapted = model

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self._adapted.disable_adapter():
            return self._adapted(*args, **kwargs)

    def eval(self) -> "_WithoutAdapter":
        return self  # each question switches the modes of the student and back

    def to(self, device: Any) -> "_WithoutAdapter":
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapted, name)


def _same_ends(name: str, teacher_tokenizer: Any, student_tokenizer: Any) -> None:
    ends = end_ids(teacher_tokenizer)[0], end_ids(student_tokenizer)[0]
    if ends[0] != ends[1]:
        said = [teacher_tokenizer.convert_ids_to_tokens(end) for end in ends]
        raise RecipeError(
            f"train: teacher {name!r} ends a turn with {said[0]} and the student with {said[1]}; "
            "give the student the teacher's chat template"
        )
