"""A white-box teacher beside the student: what it says goes straight to the objective.

Teacher and student read the same response tokens, each after the prompt as its own chat template renders it. The
student as it was before training is such a teacher too, under the name `reference`.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch

from stillhouse.errors import RecipeError
from stillhouse.generate import answering
from stillhouse.render import addressable, end_ids, fingerprint, pad_id, render_prompt, same_rendering
from stillhouse.teachers.base import Reveals
from stillhouse.train.batch import Branch, Item
from stillhouse.train.forward import Shown, has_plain_head, packs_sequences, show
from stillhouse.train.packing import Packed, pack


class OnlineTeacher:
    """Raises RecipeError where the two do not share their tokens, or where the teacher cannot show its logits."""

    def __init__(self, name: str, teacher: Any, student_tokenizer: Any):
        if not isinstance(teacher, Reveals):
            raise RecipeError(
                f"train: teacher {name!r} cannot show its logits; use a local one (backend: transformers or pocket), "
                "or elicit feature.top_logprobs first"
            )
        self.model, self.tokenizer = teacher.module(), teacher.tokenizer()
        _same_tokens(name, self.tokenizer, student_tokenizer)
        self.same = same_rendering(self.tokenizer, student_tokenizer)
        self.vocabulary = addressable(student_tokenizer)
        self.packing = packs_sequences(self.model)
        self.fused = False
        self._prompts: dict[tuple[str, int], list[int]] = {}

    def place(self, device: torch.device, *, fused: bool) -> None:
        self.model.eval().to(device)
        self.fused = fused and has_plain_head(self.model)

    def read(self, group: str, branch: Branch, batch: Packed, layers: Sequence[int]) -> Shown:
        """What the teacher says at the targets of one group of the batch, in their order."""
        if self.same and (self.packing or not batch.shared):
            rows = batch.rows[group]
            return self._shown(layers, batch.ids_RC[rows], batch.position_RC[rows], batch.target_RC[rows])
        items = batch.items[group]
        own = [self._under_own_prompt(group, branch, item, number) for number, item in enumerate(items)]
        anew = pack({group: own}, pad=pad_id(self.tokenizer), packing=self.packing)
        shown = self._shown(layers, anew.ids_RC, anew.position_RC, anew.target_RC)
        placed = [item.index for item in anew.items[group]]
        return shown.arranged([own[number].targets for number in placed], np.argsort(placed).tolist())

    def _under_own_prompt(self, group: str, branch: Branch, item: Item, number: int) -> Item:
        key = group, item.index
        if key not in self._prompts:
            self._prompts[key] = render_prompt(self.tokenizer, branch.record(item.index).prompt)
        prompt = self._prompts[key]
        return Item(np.concatenate([np.array(prompt, np.int32), item.ids[item.start :]]), len(prompt), number)

    @torch.no_grad()
    def _shown(self, layers: Sequence[int], *arrays_RC: np.ndarray) -> Shown:
        arrays = [torch.from_numpy(array).to(self.model.device) for array in arrays_RC]
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


def _same_tokens(name: str, teacher_tokenizer: Any, student_tokenizer: Any) -> None:
    if fingerprint(teacher_tokenizer) != fingerprint(student_tokenizer):
        raise RecipeError(
            f"train: teacher {name!r} and the student cut text with different tokenizers, so their distributions "
            "cannot be compared token by token; take a student of the teacher's family, or learn from text alone"
        )
    ends = end_ids(teacher_tokenizer)[0], end_ids(student_tokenizer)[0]
    if ends[0] != ends[1]:
        said = [teacher_tokenizer.convert_ids_to_tokens(end) for end in ends]
        raise RecipeError(
            f"train: teacher {name!r} ends a turn with {said[0]} and the student with {said[1]}; "
            "give the student the teacher's chat template"
        )
