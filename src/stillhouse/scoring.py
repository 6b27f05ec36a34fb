"""A trained scoring model at work: reward models and rerankers, classifiers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stillhouse.errors import RecipeError
from stillhouse.quiet import quiet
from stillhouse.records import Prompt
from stillhouse.render import render, render_prompt


class Scorer:
    """A model folder with a scoring head. Raises RecipeError where it is none."""

    def __init__(self, path: str | Path, batch_size: int = 16):
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        folder = Path(path)
        if (folder / "student" / "config.json").is_file():
            folder = folder / "student"
        try:
            with quiet():
                self.tokenizer = AutoTokenizer.from_pretrained(folder)
                self.model: Any = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise RecipeError(f"{path}: no scoring model can be loaded from it: {reason}") from error
        if not hasattr(self.model, "score"):
            raise RecipeError(f"{path}: {type(self.model).__name__} does not read from left to right")
        self.batch_size = batch_size

    @property
    def labels(self) -> list[str]:
        """The classes of a classifier, in the order of its logits."""
        return [self.model.config.id2label[at] for at in range(self.model.config.num_labels)]

    def scores(self, pairs: Sequence[tuple[Prompt, str]]) -> list[float]:
        """One number for each prompt with its answer."""
        return [values[0] for values in self._at_the_end([render(self.tokenizer, *pair).ids for pair in pairs])]

    def classes(self, prompts: Sequence[Prompt]) -> list[str]:
        """The likeliest class of each prompt."""
        found = self._at_the_end([render_prompt(self.tokenizer, prompt) for prompt in prompts])
        return [self.labels[max(range(len(values)), key=values.__getitem__)] for values in found]

    def _at_the_end(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """What the head says at the last token of each row."""
        import torch

        found: list[list[float]] = []
        for start in range(0, len(rows), self.batch_size):
            part = [torch.tensor(row) for row in rows[start : start + self.batch_size]]
            ids_BT = torch.nn.utils.rnn.pad_sequence(part, batch_first=True)
            with torch.inference_mode():
                # causal: what stands behind a row's last token changes nothing before it
                states = self.model.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state
                last = torch.tensor([len(row) - 1 for row in part])
                found += self.model.score(states[torch.arange(len(part)), last]).float().tolist()
        return found
