"""What was trained on and is evaluated on: which held-out items share text with training rows, and the scores without them.

The rows are there already, so the evaluation is repeated without asking anybody. Source: R11, 12.7 (contamination scan).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stillhouse.selection.decontaminate import Overlaps
from stillhouse.selection.embedding import chunks
from stillhouse.selection.texts import text_of
from stillhouse.store import Records

RUN_OF_WORDS = 10


def overlaps(
    tasks: Sequence[str], rows: Mapping[str, Sequence[Mapping[str, Any]]], trained: Iterable[Path]
) -> list[dict[str, Any]]:
    """Per task: items that share a run of ten words with a training row, how many rows do, means without them.

    A task whose rows hold no text has no entry: nothing is claimed of it.
    `rows[task]` are the evaluated rows of every subject, `trained` the files that students learned from. A run inside the
    question, or inside the text of a window, counts; whole items of five to nine words count as one run.
    """
    texts = {task: items for task in tasks if (items := dict(_items(rows[task])))}
    names = [(task, item) for task in texts for item in texts[task]]
    index = Overlaps.of_texts(
        ((task, number, texts[task][item]) for number, (task, item) in enumerate(names)), RUN_OF_WORDS
    )
    hit: dict[str, set[str]] = {task: set() for task in texts}
    touching = dict.fromkeys(texts, 0)
    for part in (part for path in trained for part in chunks(Records(path))):
        for found in index.of_many([text_of(record, "both") for record in part]):
            owners = [names[index.items[owner][1]] for owner in found]
            for task in {task for task, _ in owners}:
                touching[task] += 1
            for task, item in owners:
                hit[task].add(item)
    return [
        {
            "task": task, "items": len(texts[task]), "overlapping": len(hit[task]), "rows": touching[task],
            "without": _means(rows[task], hit[task]) if hit[task] and len(hit[task]) < len(texts[task]) else [],
        }
        for task in texts
    ]  # fmt: skip


def _items(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for row in rows:
        if row["split"] == "test" and (text := row.get("prompt") or row.get("text")):
            yield row["item"], str(text)


def _means(rows: Sequence[Mapping[str, Any]], gone: set[str]) -> list[dict[str, Any]]:
    """The mean of each arm over the items that overlap with nothing, beside the one over all."""
    from stillhouse.evaluate.compare import single

    told = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        mine = [row for row in rows if row["arm"] == arm and row["split"] == "test" and row["value"] is not None]
        kept = [row for row in mine if row["item"] not in gone]
        seeds = list(dict.fromkeys(row["seed"] for row in kept))
        table = [[float(row["value"]) for row in kept if row["seed"] == seed] for seed in seeds]
        if kept and len({len(values) for values in table}) == 1:
            interval = single(np.asarray(table, dtype=np.float64))
            whole = sum(float(row["value"]) for row in mine) / len(mine)
            told.append({"arm": arm, "all": whole, "mean": interval.mean, "low": interval.low, "high": interval.high})
    return told
