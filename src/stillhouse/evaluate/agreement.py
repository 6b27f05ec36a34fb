"""Is a judge as good as people? Agreement beyond chance, with intervals, and judges that must not win.

Legend: I items, A annotators.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from stillhouse.errors import RecipeError

__all__: list[str] = []

Vote = Hashable | None  # None: no verdict


@dataclass(frozen=True, slots=True)
class Agreement:
    """Cohen's kappa and plain accuracy with percentile intervals over items; `missing` is the judge's share without verdict."""

    kappa: float
    kappa_interval: tuple[float, float]
    accuracy: float
    accuracy_interval: tuple[float, float]
    items: int
    missing: float


def kappa(ours: Sequence[Hashable], theirs: Sequence[Hashable]) -> float:
    """Cohen's kappa of two raters; 0 where chance alone explains everything (one of them says one thing only)."""
    if len(ours) != len(theirs) or not ours:
        raise RecipeError(f"kappa needs as many verdicts as votes, and at least one: {len(ours)} against {len(theirs)}")
    n = len(ours)
    observed = sum(a == b for a, b in zip(ours, theirs)) / n
    counts = Counter(ours), Counter(theirs)
    expected = sum(counts[0][label] * counts[1][label] for label in counts[0]) / n**2
    return 1.0 if expected == 1 and observed == 1 else 0.0 if expected == 1 else (observed - expected) / (1 - expected)


def fleiss(votes_IA: Sequence[Sequence[Hashable]]) -> float:
    """Fleiss' kappa of A annotators who all voted on each item: how far people agree with one another."""
    counts = [Counter(votes) for votes in votes_IA]
    annotators = len(votes_IA[0])
    within = np.mean(
        [(sum(c * c for c in count.values()) - annotators) / (annotators * (annotators - 1)) for count in counts]
    )
    total = Counter(vote for votes in votes_IA for vote in votes)
    chance = sum((c / (annotators * len(votes_IA))) ** 2 for c in total.values())
    return float((within - chance) / (1 - chance)) if chance < 1 else 1.0


def majority(votes: Sequence[Hashable]) -> Vote:
    """The vote of more than half of the annotators, or None."""
    label, count = Counter(votes).most_common(1)[0]
    return label if count > len(votes) / 2 else None


def agreement(
    verdicts: Sequence[Vote], votes: Sequence[Vote], *, resamples: int = 2_000, level: float = 0.95, seed: int = 0
) -> Agreement:
    """A judge's verdicts against people's votes; items without a vote are left out, a missing verdict is wrong.

    A missing verdict counts as a label of its own, so that a judge cannot win by answering the easy ones only.
    """
    pairs = [
        ("?" if verdict is None else verdict, vote)
        for verdict, vote in zip(verdicts, votes, strict=True)
        if vote is not None
    ]
    if not pairs:
        raise RecipeError("no item has a vote; there is nothing to agree with")
    rng = np.random.default_rng(seed)
    drawn = [[pairs[i] for i in rng.integers(0, len(pairs), len(pairs))] for _ in range(resamples)]
    tail = 100 * (1 - level) / 2

    def interval(measure: Callable[[list[tuple[Hashable, Hashable]]], float]) -> tuple[float, float]:
        low, high = np.percentile([measure(sample) for sample in drawn], [tail, 100 - tail])
        return float(low), float(high)

    def both(sample: list[tuple[Hashable, Hashable]]) -> float:
        return kappa([a for a, _ in sample], [b for _, b in sample])

    def accurate(sample: list[tuple[Hashable, Hashable]]) -> float:
        return sum(a == b for a, b in sample) / len(sample)

    missing = sum(verdict is None for verdict in verdicts) / len(verdicts)
    return Agreement(both(pairs), interval(both), accurate(pairs), interval(accurate), len(pairs), missing)


def beats_constants(verdicts: Sequence[Vote], votes: Sequence[Vote], *, seed: int = 0) -> bool:
    """Whether a judge does better than every judge that always says the same, by the lower end of its accuracy's interval."""
    labels = {vote for vote in votes if vote is not None}
    judged = agreement(verdicts, votes, seed=seed)
    constants = [sum(vote == label for vote in votes) / judged.items for label in labels]
    return judged.accuracy_interval[0] > max(constants)
