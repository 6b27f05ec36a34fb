"""Gradients of examples with respect to an adapter: the machinery behind `influence.less`.

Legend: W weights of the adapter, in one vector.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from stillhouse.records import Prompt
from stillhouse.render import render

__all__: list[str] = []


class Gradients:
    """Gradients of mean response losses in a LoRA on every linear layer, each of length 1; a text too short to score has none."""

    def __init__(self, model: str, rank: int, seed: int) -> None:
        import torch
        from peft import LoraConfig, get_peft_model

        from stillhouse.pocket import student_path
        from stillhouse.teachers.transformers import Teacher

        teacher = Teacher(model=student_path() if model == "pocket" else model, dtype="float32")
        self._tokenizer = teacher.tokenizer()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            shape = LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, target_modules="all-linear")
            self._model = get_peft_model(teacher.module().requires_grad_(False), shape)
        self._weights = [weight for weight in self._model.parameters() if weight.requires_grad]

    def warmed_up(self, pairs: Iterable[tuple[Prompt, str]], steps: int, rate: float) -> None:
        """A few AdamW steps on some of the data: at its start an adapter has no gradient in half of its weights."""
        import torch

        optimizer = torch.optim.AdamW(self._weights, lr=rate)
        for (prompt, response), _ in zip(pairs, range(steps), strict=False):
            loss = self._loss(prompt, response)
            if loss is not None:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    def loaded(self) -> tuple[Any, Any]:
        """The model as it is now, in eval mode, and its tokenizer."""
        return self._model.eval(), self._tokenizer

    def of(self, pairs: Iterable[tuple[Prompt, str]]) -> Iterator[Any | None]:
        """One float32 vector per pair, on the CPU."""
        import torch

        for prompt, response in pairs:
            loss = self._loss(prompt, response)
            if loss is None:
                yield None
                continue
            parts = torch.autograd.grad(loss, self._weights)
            gradient_W = torch.cat([part.reshape(-1) for part in parts]).float().cpu()
            length = gradient_W.norm()
            yield gradient_W / length if length > 0 else None

    def _loss(self, prompt: Prompt, response: str) -> Any | None:
        import torch

        whole = render(self._tokenizer, prompt, response)
        room = getattr(self._model.config, "max_position_embeddings", len(whole.ids))
        if len(whole.ids) <= whole.start or len(whole.ids) > room:
            return None
        ids_1T = torch.tensor([whole.ids], device=self._weights[0].device)
        labels_1T = ids_1T.clone()
        labels_1T[:, : whole.start] = -100
        return self._model(input_ids=ids_1T, labels=labels_1T).loss
