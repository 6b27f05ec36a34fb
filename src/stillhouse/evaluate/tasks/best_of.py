"""Best of n: what a student is worth as the verifier of answers it did not choose to write."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

from stillhouse.errors import RecipeError
from stillhouse.evaluate import ItemScore
from stillhouse.graders import Grade, Grader
from stillhouse.records import Prompt
from stillhouse.seeds import file
from stillhouse.selection.quality import voted
from stillhouse.teachers.base import Sampling

__all__ = ["best_of"]


class Verifies(Protocol):
    """A student as a judge: a reward model by its head, one that writes by how likely it finds an answer."""

    def scores(self, pairs: Sequence[tuple[Prompt, str]]) -> list[float]: ...


class Draws(Protocol):
    """The recipe's student as it was before training, answering."""

    def draw(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[str]]: ...


def best_of(
    verifier: Verifies,
    generator: Draws,
    *,
    path: Path,
    grader: Grader,
    n: int = 8,
    against: Literal["chance", "vote"] | None = None,
    temperature: float = 0.7,
    max_new_tokens: int = 256,
    limit: int | None = None,
    prompt: str = "prompt",
    reference: str = "reference",
    template: str | None = None,
) -> list[ItemScore]:
    """The grade of the answer that the student likes best among `n` which the recipe's untrained student drew.

    A student of kind reward or reranker likes by its score, one that writes by the log-probability of the whole answer (V-STaR);
    the earliest of equals wins. All students of a run choose from the same answers. `against` takes off what the same answers
    give without a verifier, so that the interval is that of the gain: `chance`, the mean grade of the n; `vote`, the mean grade
    of those with the most frequent marked final answer (of several as frequent, of all of them; of all n where none marks
    one). Answers that the grader cannot tell about count in no mean; a question whose chosen answer it cannot tell about is
    not told. `path`, `prompt`, `reference` and `limit` as in `qa`. Source: R21 (V-STaR, arXiv 2402.06457).
    """
    if n < 2:
        raise RecipeError(f"evaluate: best_of: n is {n}; there is nothing to choose from below 2")
    items = list(file(path=path, prompt=prompt, reference=reference, template=template, limit=limit))
    sampling = Sampling(temperature=temperature, max_tokens=max_new_tokens, n=n)
    drawn = generator.draw([item.prompt for item in items], sampling)
    liked = verifier.scores([(item.prompt, text) for item, texts in zip(items, drawn, strict=True) for text in texts])
    grades = grader(
        [text for texts in drawn for text in texts], [item.reference for item in items for _ in range(n)]
    )  # fmt: skip
    found = []
    for number, (item, texts) in enumerate(zip(items, drawn, strict=True)):
        mine, told = liked[number * n : (number + 1) * n], grades[number * n : (number + 1) * n]
        best = max(range(n), key=lambda at: (mine[at], -at))
        grade = told[best]
        value = grade.value
        if value is not None and against is not None:
            value -= _without(texts, told, against)
        found.append(ItemScore(item.id, item.prompt[-1].content, item.reference, texts[best], value, grade.reason))
    return found


def _without(texts: Sequence[str], grades: Sequence[Grade], against: str) -> float:
    """What the answers are worth when nobody chooses, or the majority does."""
    if against == "vote":
        votes = [voted(text) for text in texts]
        counts = Counter(vote for vote in votes if vote is not None)
        most = max(counts.values(), default=0)
        chosen = [grade for vote, grade in zip(votes, grades) if not most or counts.get(vote) == most]
        if any(grade.value is not None for grade in chosen):
            grades = chosen
    known = [grade.value for grade in grades if grade.value is not None]
    return sum(known) / len(known)
