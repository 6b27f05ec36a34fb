"""What a student answered before it was trained, several times to each prompt: what a verifier picks from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from stillhouse.records import Prompt
from stillhouse.teachers.base import Answer, Request, Sampling


@dataclass(slots=True)
class Candidates:
    """Draws from the model folder `path`; asked the same again, by another student's evaluation, it has not forgotten."""

    path: str
    drawn: dict[Any, list[list[str]]] = field(default_factory=dict)

    def draw(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[str]]:
        """`sampling.n` texts for each prompt, in order. One that met the limit is given as it is."""
        key = tuple(prompts), sampling
        if key not in self.drawn:
            from stillhouse.teachers.transformers import Teacher

            requests = [
                Request(prompt, sampling, sample_index=sample, tag=f"{number} {sample}")
                for number, prompt in enumerate(prompts)
                for sample in range(sampling.n)
            ]
            told = {
                outcome.request.tag: outcome.result.text if isinstance(outcome.result, Answer) else ""
                for outcome in Teacher(model=self.path).ask(requests)
            }
            self.drawn[key] = [
                [told.get(f"{number} {sample}", "") for sample in range(sampling.n)] for number in range(len(prompts))
            ]
        return self.drawn[key]
