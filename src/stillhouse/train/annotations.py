"""What records say about the tokens of a sequence: which of them an edit changed, where a step ends and if it is right,
and which teacher an example belongs to.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from stillhouse.errors import RecipeError
from stillhouse.kernels.alignment import part_ends
from stillhouse.train.batch import Branch, Item

STEP_LABELS, STEPS = "step_labels", "steps"


def edit_signs(branch: Branch, items: Sequence[Item]) -> np.ndarray:
    """edit_N: 1 at tokens of a ranking's best response that are not in the other one, -1 at tokens of another response
    that the best one took out, 0 where they agree (FIGA, R42). The fewest edits, by tokens.
    """
    found = []
    for item in items:
        sequences = branch.items(item.index)
        best, others = _response(sequences[0]), [_response(other) for other in sequences[1:]]
        if item.slot:
            found.append(-_changed(_response(item), best))
        else:
            # a token is new if it is new against every other response
            signs = [_changed(best, other) for other in others] or [np.zeros(len(best), np.float32)]
            found.append(np.minimum.reduce(signs))
    return np.concatenate(found)


def step_ends(branch: Branch, items: Sequence[Item], spelled: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """step_labels_N, and 1 at the last token of each step, 0 elsewhere.

    The labels, in [0, 1], are in the column `step_labels` of the records, and the texts of the steps in `steps`; without
    that column a step is a line of the response that holds more than blanks (what `feedback.step_labels` gives).
    `spelled` has the bytes of each token id. Raises RecipeError where a record has not one label for each of its steps.
    """
    labels, ends = [], []
    for item in items:
        record: Any = branch.record(item.index)
        text = record.response
        steps = record.columns.get(STEPS) or [line for line in text.splitlines() if line.strip()]
        at = part_ends(text, steps, [spelled[i] for i in _response(item)])
        told = record.columns.get(STEP_LABELS)
        if not isinstance(told, list) or len(told) != len(at):
            raise RecipeError(
                f"train: record {record.id} of branch {branch.name!r} has {len(at)} steps and "
                f"{len(told) if isinstance(told, list) else 'no'} {STEP_LABELS}; give a column with a number for each"
            )
        label_T, end_T = np.zeros(item.targets, np.float32), np.zeros(item.targets, np.float32)
        label_T[at], end_T[at] = told, 1.0
        labels.append(label_T)
        ends.append(end_T)
    return np.concatenate(labels), np.concatenate(ends)


def routes(branch: Branch, items: Sequence[Item], column: str, teachers: Sequence[str]) -> np.ndarray:
    """route_S: the place among `teachers` of the one that the column names."""
    found = []
    for item in items:
        record: Any = branch.record(item.index)
        name = record.columns.get(column)
        if name not in teachers:
            raise RecipeError(
                f"train: record {record.id} of branch {branch.name!r} has {column} = {name!r}, which is none of the "
                f"teachers {', '.join(teachers)}; name a column that holds one of them"
            )
        found.append(teachers.index(name))
    return np.array(found)


def _response(item: Item) -> tuple[int, ...]:
    return tuple(item.ids[item.start :].tolist())


@lru_cache(maxsize=4096)
def _signs(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[float, ...]:
    from rapidfuzz.distance import Levenshtein

    signs = [0.0] * len(one)
    for step in Levenshtein.opcodes(one, other):
        if step.tag in ("replace", "delete"):
            signs[step.src_start : step.src_end] = [1.0] * (step.src_end - step.src_start)
    return tuple(signs)


def _changed(one: tuple[int, ...], other: tuple[int, ...]) -> np.ndarray:
    return np.array(_signs(one, other), np.float32)
