"""Sequences side by side in rows, without padding between them; and what is known of each target from its record.

Legend: R rows of C tokens each, N target positions (those whose next token is learned), S sequences, G groups, K kept
tokens of a teacher.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from stillhouse.records import Ranking, TopLogprobs
from stillhouse.train.batch import Branch, Item


@dataclass(frozen=True, slots=True)
class Packed:
    """A batch. The N targets lie group by group (`parts`), in the order of `items`, row by row.

    `position_RC` starts again at 0 with each sequence of a row: that is how a model tells them apart.
    """

    ids_RC: np.ndarray
    position_RC: np.ndarray
    target_RC: np.ndarray
    target_ids_N: np.ndarray
    parts: dict[str, slice]
    rows: dict[str, slice]
    items: dict[str, list[Item]]
    tokens: int  # without padding

    @property
    def shared(self) -> bool:
        """Some row holds more than one sequence."""
        return sum(map(len, self.items.values())) > len(self.ids_RC)


def pack(groups: Mapping[str, Sequence[Item]], *, pad: int, packing: bool = True) -> Packed:
    """Sequences side by side in rows as long as the longest of them; each in a row of its own without `packing`."""
    width = max(len(item.ids) for items in groups.values() for item in items)
    rows: list[list[Item]] = []
    parts, spans, placed, start = {}, {}, {}, 0
    for name, items in groups.items():
        own = _filled(items, width) if packing else [[item] for item in items]
        spans[name] = slice(len(rows), len(rows) + len(own))
        rows += own
        placed[name] = [item for row in own for item in row]
        end = start + sum(item.targets for item in placed[name])
        parts[name], start = slice(start, end), end
    ids_RC, position_RC, target_RC = _laid_out(rows, width, pad)
    ordered = [item for row in rows for item in row]
    return Packed(
        ids_RC,
        position_RC,
        target_RC,
        np.concatenate([item.ids[item.start :] for item in ordered]).astype(np.int64),
        parts,
        spans,
        placed,
        sum(len(item.ids) for item in ordered),
    )


def _filled(items: Sequence[Item], width: int) -> list[list[Item]]:
    """First fit, longest first."""
    rows: list[list[Item]] = []
    room: list[int] = []
    for item in sorted(items, key=lambda item: -len(item.ids)):
        size = len(item.ids)
        for at, free in enumerate(room):
            if size <= free:
                rows[at].append(item)
                room[at] -= size
                break
        else:
            rows.append([item])
            room.append(width - size)
    return rows


def _laid_out(rows: list[list[Item]], width: int, pad: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ids_RC = np.full((len(rows), width), pad, np.int64)
    position_RC = np.tile(np.arange(width), (len(rows), 1))
    target_RC = np.zeros((len(rows), width), bool)
    for at, row in enumerate(rows):
        left = 0
        for item in row:
            right = left + len(item.ids)
            ids_RC[at, left:right] = item.ids
            position_RC[at, left:] = np.arange(width - left)
            target_RC[at, left + item.start - 1 : right - 1] = True
            left = right
        # the padding counts on from the last sequence: nothing learned comes after it, so nothing sees it
    return ids_RC, position_RC, target_RC


def stored_beliefs(branch: Branch, items: Sequence[Item]) -> tuple[np.ndarray, np.ndarray]:
    """ids_NK and logprobs_NK of the teacher at the targets of `items`; rows with fewer tokens are filled with id -1."""
    records = [record for item in items if isinstance(record := branch.record(item.index), TopLogprobs)]
    kept = max(record.top_ids_TK.shape[1] for record in records)
    rows = sum(len(record.top_ids_TK) for record in records)
    ids_NK = np.full((rows, kept), -1, np.int64)
    logprobs_NK = np.full((rows, kept), -np.inf, np.float32)
    start = 0
    for record in records:
        size, own = record.top_ids_TK.shape
        ids_NK[start : start + size, :own] = record.top_ids_TK
        logprobs_NK[start : start + size, :own] = record.top_logprobs_TK
        start += size
    return ids_NK, logprobs_NK


def spread(values_S: Sequence[float] | np.ndarray, items: Sequence[Item]) -> np.ndarray:
    """One value per sequence, at each of its targets."""
    return np.repeat(np.asarray(values_S), [item.targets for item in items])


def groups(items: Sequence[Item]) -> np.ndarray:
    """group_S: 0 to G - 1 in order of appearance, one for each record. What does not count is a group by itself."""
    seen: dict[object, int] = {}
    marks = [item.index if item.weight else (at, "alone") for at, item in enumerate(items)]
    return np.array([seen.setdefault(mark, len(seen)) for mark in marks])


def scores(branch: Branch, items: Sequence[Item], *, own: bool = False) -> np.ndarray:
    """scores_S of rankings: those of the records; where a record has none, its order, best first.

    With `own` the student's answers have their rewards, and the record's own answer is better than any of them.
    """
    if own:
        rewards = [item.reward for item in items if item.own]
        return np.array([item.reward if item.own else max([0.0, *rewards]) + 1.0 for item in items], np.float32)
    found = []
    for item in items:
        record = branch.record(item.index)
        assert isinstance(record, Ranking)
        found.append(record.scores[item.slot] if record.scores else float(-item.slot))
    return np.array(found, np.float32)


def last_positions(items: Sequence[Item]) -> np.ndarray:
    """The place of each sequence's last target among all."""
    return np.cumsum([item.targets for item in items]) - 1


def padded(values: Tensor, sizes: Sequence[int]) -> Tensor:
    """[N, ...] cut into pieces of these sizes, one above the other, filled up with zeros."""
    return pad_sequence(list(values.split(list(sizes))), batch_first=True)
