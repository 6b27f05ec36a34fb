"""Records become named arrays: rendered once, ordered by their content, packed into rows without padding.

Legend: R rows of C tokens each, N target positions (those whose next token is learned), K kept tokens of a teacher.
Nothing here needs torch, so that `still check` can read what each record type provides.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stillhouse.errors import RecipeError
from stillhouse.records import Example, Lost, Record, Seed, TopLogprobs
from stillhouse.render import fingerprint, render, render_prompt

_TARGETS = frozenset({"student_logits_NV", "target_ids_N", "weight_N"})

# the arrays that an objective may ask for by name, by the type of the records it learns from
PROVIDES: dict[str, frozenset[str]] = {
    "Example": _TARGETS,
    "TopLogprobs": _TARGETS | {"teacher_beliefs"},
}
# what an online teacher adds to any of them, and what the student's own answers give
TEACHER_PROVIDES = frozenset({"teacher_beliefs"})
ROLLOUTS_PROVIDE = _TARGETS


@dataclass(frozen=True, slots=True)
class Item:
    """One sequence of a batch: `ids[start:]` is learned; `index` is its record's place in the branch.

    `weight` 0: only there so that a process takes part. `own`: the student said it itself.
    """

    ids: np.ndarray
    start: int
    index: int
    weight: float = 1.0
    own: bool = False

    @property
    def targets(self) -> int:
        return len(self.ids) - self.start


@dataclass(frozen=True, slots=True)
class Packed:
    """A batch. The N targets lie group by group (`parts`), in the order of `items`, row by row.

    `own_N` marks what the student said itself. `position_RC` starts again at 0 with each sequence of a row: that is how
    a model tells them apart.
    """

    ids_RC: np.ndarray
    position_RC: np.ndarray
    target_RC: np.ndarray
    target_ids_N: np.ndarray
    weight_N: np.ndarray
    own_N: np.ndarray
    parts: dict[str, slice]
    rows: dict[str, slice]
    items: dict[str, list[Item]]
    tokens: int  # without padding

    @property
    def shared(self) -> bool:
        """Some row holds more than one sequence."""
        return sum(map(len, self.items.values())) > len(self.ids_RC)


@dataclass(slots=True)
class Branch:
    """The rendered records of one branch. Token ids lie in one array; beliefs are read from the records when needed."""

    name: str
    records: Sequence[Record]
    ids: np.ndarray
    ends: np.ndarray
    starts: np.ndarray
    kept: np.ndarray  # the records that are trained on, by their place in `records`
    keys: list[str]  # of the kept ones, unique
    provides: frozenset[str]
    weights: dict[str, np.ndarray]  # by column
    lost: list[Lost]

    def __len__(self) -> int:
        return len(self.kept)

    def item(self, place: int, *, weight: float = 1.0) -> Item:
        ids = self.ids[self.ends[place - 1] if place else 0 : self.ends[place]]
        return Item(ids, int(self.starts[place]), place, weight)

    def record(self, place: int) -> Record:
        return self.records[int(self.kept[place])]

    def order(self, seed: int, turn: int) -> np.ndarray:
        """The places in the order of pass `turn`: a function of seed and content, so that arms see the same batches."""
        salt = f"{seed}|{turn}|".encode()
        marks = [hashlib.blake2b(salt + key.encode(), digest_size=8).digest() for key in self.keys]
        return np.array(sorted(range(len(marks)), key=marks.__getitem__))

    def content(self) -> str:
        """A hash of everything that is learned from this branch, beliefs aside."""
        weights = [self.weights[column].tobytes() for column in sorted(self.weights)]
        parts = (self.ids.tobytes(), self.starts.tobytes(), "|".join(self.keys).encode(), *weights)
        return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def rendered(
    name: str,
    records: Sequence[Record],
    tokenizer: Any,
    *,
    max_length: int | None,
    answered: bool = True,
    room: int = 0,
    weight_columns: Sequence[str] = (),
) -> Branch:
    """A branch as token ids. Records that do not fit `max_length` are left out with their reason, never cut.

    `answered=False` needs only the prompts: the student will answer itself, in at most `room` tokens. `weight_columns`
    name columns of the records that hold the weight of an example. Raises RecipeError where a record has nothing to
    learn from, where stored log-probabilities belong to other tokens, and where nothing is left.
    """
    chunks, starts, kept, keys, lost = [], [], [], [], []
    own = fingerprint(tokenizer)
    seen: dict[str, int] = {}
    kinds: set[str] = set()
    for place, record in enumerate(records):
        ids, start = _token_ids(name, record, tokenizer, own, answered)
        size = max(len(ids), start + room)
        if max_length is not None and size > max_length:
            lost.append(Lost(record.id, "too_long", detail=f"{size} tokens, {max_length} fit"))
            continue
        seen[record.id] = seen.get(record.id, -1) + 1
        chunks.append(np.asarray(ids, np.int32))
        starts.append(start)
        kept.append(place)
        keys.append(f"{record.id}.{seen[record.id]}")
        kinds.add(type(record).__name__)
    if not kept:
        reason = f": none of its {len(lost)} records fits {max_length} tokens" if lost else ""
        raise RecipeError(f"train: branch {name!r} has nothing to learn from{reason}; give it more or shorter records")
    weights = {column: _weights(name, records, kept, column) for column in weight_columns}
    provides = frozenset.intersection(*(PROVIDES.get(kind, frozenset()) for kind in kinds))
    ends = np.cumsum([len(chunk) for chunk in chunks])
    return Branch(
        name, records, np.concatenate(chunks), ends, np.array(starts), np.array(kept), keys, provides, weights, lost
    )


def _token_ids(name: str, record: Record, tokenizer: Any, own: str, answered: bool) -> tuple[list[int], int]:
    if not answered:
        ids = render_prompt(tokenizer, record.prompt)
        return ids, len(ids)
    if not isinstance(record, Example | TopLogprobs):
        kind = type(record).__name__
        raise RecipeError(
            f"train: branch {name!r} holds {kind} records, which have no answer to learn; "
            "elicit answers first (labeling.answer), or learn from rollouts"
            if isinstance(record, Seed)
            else f"train: branch {name!r} holds {kind} records; this objective learns from Example or TopLogprobs"
        )
    whole = render(tokenizer, record.prompt, record.response)
    if isinstance(record, TopLogprobs):
        _same_tokens(name, record, whole.response, own)
    return whole.ids, whole.start


def _same_tokens(name: str, record: TopLogprobs, response: list[int], own: str) -> None:
    if record.tokenizer != own:
        raise RecipeError(
            f"train: the log-probabilities of branch {name!r} belong to another tokenizer ({record.tokenizer}) than "
            f"the student's ({own}); take a student of the teacher's family, or learn from its text alone"
        )
    if record.token_ids_T.tolist() != response:
        raise RecipeError(
            f"train: record {record.id} of branch {name!r} has log-probabilities for other tokens than the student "
            "learns there; score its response again (feature.top_logprobs) with the same chat template"
        )


def _weights(name: str, records: Sequence[Record], kept: Sequence[int], column: str) -> np.ndarray:
    for place in kept:
        if column not in getattr(records[place], "columns", {}):
            raise RecipeError(
                f"train: record {records[place].id} of branch {name!r} has no column {column!r} to weigh it by; "
                "name a column that every record has"
            )
    return np.array([float(records[place].columns[column]) for place in kept], np.float32)


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
    sizes = [item.targets for item in ordered]
    return Packed(
        ids_RC,
        position_RC,
        target_RC,
        np.concatenate([item.ids[item.start :] for item in ordered]).astype(np.int64),
        np.repeat(np.array([item.weight for item in ordered], np.float32), sizes),
        np.repeat(np.array([item.own for item in ordered]), sizes),
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
