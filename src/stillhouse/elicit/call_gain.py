"""How much likelier a local model finds what follows a place in a text: Toolformer's weighted window (R46, G16)."""

from collections.abc import Sequence
from typing import Any

from stillhouse.errors import RecipeError
from stillhouse.records import Prompt

__all__: list[str] = []

WINDOW = tuple(weight / 3 for weight in (1.0, 0.8, 0.6, 0.4, 0.2))  # max(0, 1 - 0.2 t), made to sum to 1


def window(losses: Sequence[float]) -> float:
    """The weighted loss, in nats, of the first five tokens; a text that ends sooner has fewer."""
    return sum(weight * loss for weight, loss in zip(WINDOW, losses))


class Gauge:
    """Token losses and probabilities under a causal model with a fast tokenizer (places are told in characters)."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        if not tokenizer.is_fast:
            raise RecipeError(
                "toolformer: the model's tokenizer cannot tell where its tokens lie in a text; take another"
            )
        self.model, self.tokenizer = model, tokenizer
        texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
        self.opens = [i for i, text in enumerate(texts) if text.strip().startswith("[")]

    @classmethod
    def of(cls, name: str) -> "Gauge":
        """Of a local checkpoint; `pocket` is the base student that ships with the package."""
        from stillhouse.pocket import student_path
        from stillhouse.teachers.transformers import Teacher

        teacher = Teacher(model=student_path() if name == "pocket" else name)
        return cls(teacher.module(), teacher.tokenizer())

    def losses(self, prefix: str, text: str, at: int) -> list[float]:
        """-log p of each token of `text` from the character `at` on, with `prefix` before the text; at most five."""
        ids, ends = self._tokens(prefix + text)
        first = next((i for i, end in enumerate(ends) if end > len(prefix) + at), len(ends))
        logprobs_TV = self._logprobs([self._start(), *ids[: first + len(WINDOW)]])
        return [-float(logprobs_TV[i, ids[i]]) for i in range(first, min(first + len(WINDOW), len(ids)))]

    def openings(self, prompt: Prompt, text: str) -> dict[int, float]:
        """P(a token that begins with "[") before each word of a text that follows a prompt, by the character it starts
        at.
        """
        from stillhouse.render import render_prompt

        ids, ends = self._tokens(text)
        asked = render_prompt(self.tokenizer, prompt)
        logprobs_TV = self._logprobs([*asked, *ids])[len(asked) - 1 :]
        found: dict[int, float] = {}
        for i, end in enumerate(ends):
            begin = ends[i - 1] if i else 0
            at = begin + len(text[begin:end]) - len(text[begin:end].lstrip())
            if at < end and (at == 0 or text[at - 1].isspace()):
                found[at] = float(logprobs_TV[i, self.opens].exp().sum())
        return found

    def _start(self) -> int:
        from stillhouse.render import end_ids

        bos = self.tokenizer.bos_token_id
        return end_ids(self.tokenizer)[0] if bos is None else int(bos)

    def _tokens(self, text: str) -> tuple[list[int], list[int]]:
        """Ids, and the character behind each."""
        cut = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return cut["input_ids"], [end for _, end in cut["offset_mapping"]]

    def _logprobs(self, ids: Sequence[int]) -> Any:
        import torch

        with torch.inference_mode():
            row = torch.tensor([list(ids)], device=self.model.device)
            return self.model(input_ids=row).logits[0].double().log_softmax(-1)
