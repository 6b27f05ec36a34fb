"""What records say about the tokens of a sequence: which of them an edit changed, where a step ends and if it is right,
and which teacher an example belongs to.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from stillhouse.errors import RecipeError
from stillhouse.train.batch import Branch, Item

STEP_LABELS = "step_labels"


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
    """step_labels_N, and 1 at the last token of each step: a line of the response that holds more than blanks.

    The labels, in [0, 1], are in the column `step_labels` of the records. `spelled` has the bytes of each token id.
    Raises RecipeError where a record has none, or not one for each of its steps.
    """
    labels, ends = [], []
    for item in items:
        record = branch.record(item.index)
        at = _line_ends([spelled[i] for i in _response(item)])
        told = getattr(record, "columns", {}).get(STEP_LABELS)
        if not isinstance(told, list) or len(told) != len(at):
            raise RecipeError(
                f"train: record {record.id} of branch {branch.name!r} has {len(at)} steps (lines of its response) and "
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


def _line_ends(tokens: Sequence[bytes]) -> list[int]:
    """The place of the token in which each line ends, the newline's where it has one."""
    ends: list[int] = []
    line = b""
    for at, token in enumerate(tokens):
        before, newline, after = token.partition(b"\n")
        line += before
        if newline:
            if line.strip():
                ends.append(at)
            line = after.rpartition(b"\n")[2]
    # the end of the turn is no part of a step: the last line ends with its last token that spells something
    spelling = [at for at, token in enumerate(tokens) if token.strip()]
    return [*ends, spelling[-1]] if line.strip() else ends
