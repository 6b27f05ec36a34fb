"""A white-box teacher beside the student: its logits go straight to the objective.

Teacher and student read the same response tokens, each after the prompt as its own chat template renders it.
"""

from typing import Any

import numpy as np
import torch

from stillhouse.errors import RecipeError
from stillhouse.kernels.beliefs import Dense
from stillhouse.render import addressable, end_ids, fingerprint, pad_id, render_prompt, same_rendering
from stillhouse.teachers.base import Reveals
from stillhouse.train.batch import Branch, Item, Packed, pack
from stillhouse.train.forward import forward_targets, packs_sequences


class OnlineTeacher:
    """Raises RecipeError where the two do not share their tokens, or where the teacher cannot show its logits."""

    def __init__(self, name: str, teacher: Any, student_tokenizer: Any):
        if not isinstance(teacher, Reveals):
            raise RecipeError(
                f"train: teacher {name!r} cannot show its logits; use a local one (backend: transformers or pocket), "
                "or elicit feature.top_logprobs first"
            )
        self.model, self.tokenizer = teacher.module(), teacher.tokenizer()
        if fingerprint(self.tokenizer) != fingerprint(student_tokenizer):
            raise RecipeError(
                f"train: teacher {name!r} and the student cut text with different tokenizers, so their distributions "
                "cannot be compared token by token; take a student of the teacher's family, or learn from text alone"
            )
        ends = end_ids(self.tokenizer)[0], end_ids(student_tokenizer)[0]
        if ends[0] != ends[1]:
            said = [self.tokenizer.convert_ids_to_tokens(end) for end in ends]
            raise RecipeError(
                f"train: teacher {name!r} ends a turn with {said[0]} and the student with {said[1]}; "
                "give the student the teacher's chat template"
            )
        self.same = same_rendering(self.tokenizer, student_tokenizer)
        self.vocabulary = addressable(student_tokenizer)
        self.packing = packs_sequences(self.model)
        self._prompts: dict[tuple[str, int], list[int]] = {}

    def place(self, device: torch.device) -> None:
        self.model.eval().to(device)

    def beliefs(self, group: str, branch: Branch, batch: Packed) -> Dense:
        """The teacher's logits at the targets of one group of the batch, in their order."""
        if self.same and (self.packing or not batch.shared):
            rows = batch.rows[group]
            logits_NV = self._logits(batch.ids_RC[rows], batch.position_RC[rows], batch.target_RC[rows])
        else:
            logits_NV = self._laid_out_anew(group, branch, batch.items[group])
        return Dense(logits_NV, vocabulary=self.vocabulary)

    def _laid_out_anew(self, group: str, branch: Branch, items: list[Item]) -> torch.Tensor:
        own = [self._under_own_prompt(group, branch, item, number) for number, item in enumerate(items)]
        batch = pack({group: own}, pad=pad_id(self.tokenizer), packing=self.packing)
        logits_NV = self._logits(batch.ids_RC, batch.position_RC, batch.target_RC)
        placed = [item.index for item in batch.items[group]]
        pieces = dict(zip(placed, logits_NV.split([own[number].targets for number in placed])))
        return torch.cat([pieces[number] for number in range(len(items))])

    def _under_own_prompt(self, group: str, branch: Branch, item: Item, number: int) -> Item:
        key = group, item.index
        if key not in self._prompts:
            self._prompts[key] = render_prompt(self.tokenizer, branch.record(item.index).prompt)
        prompt = self._prompts[key]
        ids = np.concatenate([np.array(prompt, np.int32), item.ids[item.start :]])
        return Item(ids, len(prompt), number)

    @torch.no_grad()
    def _logits(self, *arrays_RC: np.ndarray) -> torch.Tensor:
        return forward_targets(self.model, *(torch.from_numpy(array).to(self.model.device) for array in arrays_RC))
