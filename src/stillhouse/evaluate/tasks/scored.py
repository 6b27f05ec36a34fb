"""Students that score and do not write: reward models, rerankers, classifiers."""

from pathlib import Path
from typing import Any, Protocol

from stillhouse.errors import RecipeError
from stillhouse.evaluate import ItemScore
from stillhouse.records import Prompt
from stillhouse.rows import Row
from stillhouse.seeds import file

__all__ = ["labels", "pairs"]


class Scores(Protocol):
    """What a trained scoring student can be asked (`stillhouse.scoring.Scorer`)."""

    def scores(self, pairs: list[tuple[Prompt, str]]) -> list[float]: ...

    def classes(self, prompts: list[Prompt]) -> list[str]: ...


def pairs(
    scorer: Scores,
    *,
    path: Path,
    prompt: str = "prompt",
    chosen: str = "chosen",
    rejected: str = "rejected",
    limit: int | None = None,
) -> list[ItemScore]:
    """Held-out pair accuracy: how often the chosen answer scores above the rejected one (survey 4.7).

    `path` is a file of seeds with these fields; a tie counts half. The response of an item is both scores.
    """
    items = list(file(path=path, prompt=prompt, reference=chosen, columns=[rejected], limit=limit))
    told = scorer.scores([(item.prompt, str(item.reference)) for item in items])
    other = scorer.scores([(item.prompt, str(_field(item.columns, rejected))) for item in items])
    return [
        ItemScore(
            item.id, item.prompt[-1].content, item.reference, f"{good:.4f} {bad:.4f}", (good > bad) + 0.5 * (good == bad),
            "higher" if good > bad else "not_higher",
        )
        for item, good, bad in zip(items, told, other, strict=True)
    ]  # fmt: skip


def labels(
    scorer: Scores, *, path: Path, prompt: str = "prompt", reference: str = "reference", limit: int | None = None
) -> list[ItemScore]:
    """How often a classifier names the class of a held-out prompt. `path` is a file of seeds with these fields."""
    items = list(file(path=path, prompt=prompt, reference=reference, limit=limit))
    told = scorer.classes([item.prompt for item in items])
    return [
        ItemScore(
            item.id, item.prompt[-1].content, item.reference, said, float(said == item.reference),
            "equal" if said == item.reference else "different",
        )
        for item, said in zip(items, told, strict=True)
    ]  # fmt: skip


def _field(row: Row, name: str) -> Any:
    if name not in row:
        raise RecipeError(f"evaluate: no field {name!r} in the pairs; name the one that holds the rejected answer")
    return row[name]
