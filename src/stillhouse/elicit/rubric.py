"""A rubric: what a judge of one answer is told, and how its ratings are read."""

from collections.abc import Mapping
from dataclasses import dataclass

from stillhouse.elicit.asking import Unparsed
from stillhouse.elicit.judge_prompts import RATE
from stillhouse.graders import verdicts

__all__: list[str] = []


@dataclass(frozen=True, slots=True)
class Rubric:
    """Aspects by name with what they mean, each rated from `low` to `high`."""

    aspects: Mapping[str, str]
    low: int
    high: int

    def prompt(self, request: str, response: str, reference: str | None = None) -> str:
        known = f"A right answer, for comparison:\n=====\n{reference}\n=====\n" if reference else ""
        listed = "\n".join(f"- {name}: {meaning}" for name, meaning in self.aspects.items())
        span = self.high - self.low + 1
        shown = "\n".join(f"{name}: {self.low + i % span}" for i, name in enumerate(self.aspects))
        fields = {"prompt": request, "response": response, "reference": known, "aspects": listed, "example": shown}
        return RATE.format(**fields, low=self.low, high=self.high)

    def read(self, text: str) -> dict[str, float] | Unparsed:
        """Every aspect's rating; one that is missing, doubled or out of range leaves none."""
        try:
            return {name: verdicts.score(text, low=self.low, high=self.high, marker=name) for name in self.aspects}
        except verdicts.NoVerdictError as error:
            return Unparsed(f"verdict_{error}", text[-80:])

    def mean(self, text: str) -> float | None:
        read = self.read(text)
        return None if isinstance(read, Unparsed) else sum(read.values()) / len(read)
