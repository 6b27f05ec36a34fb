"""Records become sequences of tokens, rendered once and ordered by their content; and what arrays they will give.

Legend of the arrays: N target positions (those whose next token is learned), V vocabulary, H hidden width, S sequences,
G groups (the sequences of one record). Nothing here needs torch, so that `still check` can read what each record type
provides.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stillhouse.errors import RecipeError
from stillhouse.records import Lost, Ranking, Record, Seed, TopLogprobs, Trajectory, content_id, user
from stillhouse.render import TOGETHER, Reading, fingerprint

Layer = int | tuple[int, str]  # hidden states; or the queries, keys or values of a block

_POSITIONS = frozenset(
    {
        "student_logits_NV",
        "student_logprobs_N",
        "student_hidden_NH",
        "reference_logprobs_N",
        "target_ids_N",
        "sequence_N",
        "weight_N",
        "mask_N",
    }
)
_SEQUENCES = frozenset(
    {
        "student_logprobs_S",
        "reference_logprobs_S",
        "student_mismatched_logprobs_S",
        "reference_mismatched_logprobs_S",
        "lengths_S",
        "scores_S",
        "group_S",
        "weight_G",
        "weight_S",
    }
)
_EDITS = frozenset({"student_logprobs_N", "edit_N", "sequence_N", "weight_N"})
_ANYWHERE = frozenset({"squared_distance"})

# the arrays that an objective may ask for by name, by the type of the records it learns from
PROVIDES: dict[str, frozenset[str]] = {
    "Example": _POSITIONS | (_SEQUENCES - {"group_S", "weight_G"}) | _ANYWHERE,
    "TopLogprobs": _POSITIONS | {"teacher_beliefs"} | _ANYWHERE,
    "StoredSignal": _POSITIONS | {"teacher_beliefs"} | _ANYWHERE,
    "Ranking": _SEQUENCES | _EDITS | _ANYWHERE,
}
# what an online teacher adds to positions, what the student's own answers give, and what a reward adds to those
TEACHER_PROVIDES = frozenset(
    {
        "teacher_beliefs",
        "all_teacher_beliefs",
        "all_teacher_logprobs_SM",
        "heard_NM",
        "route_N",
        "teacher_logprobs_N",
        "teacher_hidden_NH",
        "student_relations_BTH",
        "teacher_relations_BTH",
        "weight_BT",
        "span_N",
        "teacher_span_logprobs_P",
        "weight_P",
    }
)
ROLLOUTS_PROVIDE = _POSITIONS | _SEQUENCES - {"scores_S"} | {"rollout_logprobs_N", "self_generated_N"} | _ANYWHERE
REWARD_PROVIDES = frozenset({"rewards_S", "scores_S", "advantages_N", "right_N"})
# of these, what a teacher with another tokenizer can give as well
ACROSS = frozenset(
    {
        "teacher_beliefs",
        "teacher_hidden_NH",
        "span_N",
        "teacher_span_logprobs_P",
        "weight_P",
        "all_teacher_beliefs",
        "all_teacher_logprobs_SM",
        "heard_NM",
        "route_N",
    }
)
RELATIONS = frozenset({"student_relations_BTH", "teacher_relations_BTH", "weight_BT"})  # within one sequence of tokens
TOKENWISE = (TEACHER_PROVIDES | {"judge_probabilities_N"}) - ACROSS - {"student_relations_BTH", "weight_BT"}
# what a student that writes nothing gives: a scoring head (one number: reward, reranker; one for each class: classifier)
# or a vector for each text (encoder)
_SCORED = frozenset({"student_scores_S", "scores_S", "group_S", "weight_G"})
_STEPS = frozenset({"student_step_logits_N", "step_labels_N", "weight_N"})
_CLASSES = frozenset({"student_logits_NV", "student_logprobs_N", "target_ids_N", "weight_N"})
_VECTORS = frozenset(
    {
        "text_vectors_TH",
        "text_group_T",
        "query_vectors_GH",
        "passage_vectors_SH",
        "batch_passage_vectors_SH",
        "query_T",
        "passage_T",
        "group_S",
        "scores_S",
        "text_S",
        "weight_G",
    }
)
EMBEDDED = frozenset({"teacher_text_vectors_TE"})  # what a teacher that encodes adds
# what looks at a batch as one set
AS_ONE = frozenset({"mask_N", "student_mismatched_logprobs_S", "batch_passage_vectors_SH"})
_EACH_HEARD = frozenset({"heard_NM", "route_N"})  # what tells apart where each of several teachers can be compared
WRITERS = ("causal_lm", "seq2seq")
SCORERS: dict[str, dict[str, frozenset[str]]] = {
    "reward": {"Ranking": _SCORED, "Example": _STEPS},
    "reranker": {"Ranking": _SCORED},
    "classifier": {"Example": _CLASSES},
    "encoder": {"Example": _VECTORS, "Ranking": _VECTORS},
}


def provided(
    held: str, *, kind: str = "causal_lm", teachers: int = 0, rewarded: bool = False, beside: bool = False
) -> frozenset[str]:
    """The arrays that records of type `held` (or "rollouts") give, to a student of `kind`, with so many teachers.

    `rewarded`: the rollouts have a reward; `beside`: the record's own answer stands beside the student's.
    """
    if kind in SCORERS:
        embedded = EMBEDDED if kind == "encoder" and teachers else frozenset()
        return SCORERS[kind].get(held, frozenset()) | embedded
    offered = ROLLOUTS_PROVIDE if held == "rollouts" else PROVIDES.get(held, frozenset())
    if teachers and "student_logits_NV" in offered:
        offered |= TEACHER_PROVIDES
    if kind == "seq2seq":
        offered -= RELATIONS
    if held == "rollouts":
        offered |= REWARD_PROVIDES if rewarded else frozenset()
        offered |= {"scores_S"} if beside else frozenset()
        offered |= {"judge_probabilities_N"} if teachers and rewarded else frozenset()
    return offered


def token_by_token(wants: Sequence[str]) -> set[str]:
    """Of the arrays that an objective reads, those that a teacher with another tokenizer cannot give."""
    needs = set(wants) & TOKENWISE
    return needs if set(wants) & _EACH_HEARD else needs | (set(wants) & {"all_teacher_beliefs"})


@dataclass(frozen=True, slots=True)
class Item:
    """One sequence of a batch: `ids[start:]` is learned; `index` is its record's place in the branch.

    `slot` tells the responses to one prompt apart. `weight` 0: only there so that a process takes part, or because
    nobody could tell its reward. `own`: the student said it itself, for this `reward`; `advantage` is how much that is
    above the mean of the window, `logprobs` how likely its tokens were where they were drawn, if that was not the
    student alone.
    """

    ids: np.ndarray
    start: int
    index: int
    slot: int = 0
    weight: float = 1.0
    own: bool = False
    reward: float = 0.0
    advantage: float = 0.0
    logprobs: np.ndarray | None = None

    @property
    def targets(self) -> int:
        return len(self.ids) - self.start


@dataclass(slots=True)
class Branch:
    """The rendered records of one branch. Token ids lie in one array; beliefs are read from the records when needed."""

    name: str
    records: Sequence[Record]
    ids: np.ndarray
    ends: np.ndarray  # of each sequence in `ids`
    starts: np.ndarray  # of its response
    first: np.ndarray  # the first sequence of each place, and the number of all
    kept: np.ndarray  # of each place, which of `records` it is
    keys: list[str]  # of each place, unique
    kinds: tuple[str, ...]  # of the records
    weights: dict[str, np.ndarray]  # of each place, by column
    lost: list[Lost]
    signals: Any = None  # signals.beliefs.StoredSignals: the teacher's beliefs by place, where a store holds them

    def __len__(self) -> int:
        return len(self.kept)

    def items(self, place: int, *, weight: float = 1.0) -> list[Item]:
        """The sequences of one record."""
        found = []
        for slot, at in enumerate(range(self.first[place], self.first[place + 1])):
            ids = self.ids[self.ends[at - 1] if at else 0 : self.ends[at]]
            found.append(Item(ids, int(self.starts[at]), place, slot, weight))
        return found

    def record(self, place: int) -> Record:
        return self.records[int(self.kept[place])]

    def order(self, seed: int, turn: int) -> np.ndarray:
        """The places in the order of pass `turn`: a function of seed and prompts, so that arms see the same batches."""
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
    labels: Sequence[str] = (),
    reading: Reading = TOGETHER,
) -> Branch:
    """A branch as token ids. Records that do not fit `max_length` are left out with their reason, never cut.

    `answered=False` needs only the prompts: the student will answer itself, in at most `room` tokens. `weight_columns`
    name columns of the records that hold the weight or the score of an example. With `labels` a response is one of them
    and stands as its number behind the prompt. `reading` is how the student is given text.
    Raises RecipeError where a record has nothing to learn from, where stored log-probabilities belong to other tokens,
    and where nothing is left.
    """
    chunks, starts, first, kept, keys, lost = [], [], [0], [], [], []
    own = fingerprint(tokenizer)
    seen: dict[str, int] = {}
    kinds: set[str] = set()
    for place, record in enumerate(records):
        if labels:
            sequences = [_labelled(name, record, tokenizer, labels, reading)]
        else:
            sequences = _sequences(name, record, tokenizer, own, answered, reading)
        size = max(max(len(ids), start + room) for ids, start in sequences)
        if max_length is not None and size > max_length:
            lost.append(Lost(record.id, "too_long", detail=f"{size} tokens, {max_length} fit"))
            continue
        asked = _asked(record)
        seen[asked] = seen.get(asked, -1) + 1
        chunks += [np.asarray(ids, np.int32) for ids, _ in sequences]
        starts += [start for _, start in sequences]
        first.append(len(chunks))
        kept.append(place)
        keys.append(f"{asked}.{seen[asked]}")
        kinds.add(type(record).__name__)
    if not kept:
        reason = f": none of its {len(lost)} records fits {max_length} tokens" if lost else ""
        raise RecipeError(f"train: branch {name!r} has nothing to learn from{reason}; give it more or shorter records")
    weights = {column: _weights(name, records, kept, column) for column in weight_columns}
    ends = np.cumsum([len(chunk) for chunk in chunks])
    return Branch(
        name, records, np.concatenate(chunks), ends, np.array(starts), np.array(first), np.array(kept), keys,
        tuple(sorted(kinds)), weights, lost,
    )  # fmt: skip


def _asked(record: Record) -> str:
    """What places a record in the order: branches that answer one prompt in different ways, or hold one text in different
    forms (plain, with beliefs stored this way or that), come in the same order, so that arms are paired.
    """
    if record.prompt:
        return content_id(record.prompt)
    text = getattr(record, "response", None)
    return record.id if text is None else content_id(text)


def _sequences(
    name: str, record: Record, tokenizer: Any, own: str, answered: bool, reading: Reading
) -> list[tuple[list[int], int]]:
    """Token ids and the start of the response, for each response of a record."""
    if not answered:
        ids = reading.prompt(tokenizer, record.prompt)
        return [(ids, len(ids))]
    if isinstance(record, Seed | Trajectory):
        raise RecipeError(
            f"train: branch {name!r} holds {type(record).__name__} records, which have no answer to learn; "
            "elicit answers first (labeling.answer; labeling.acts of trajectories), or learn from rollouts"
        )
    if reading.alone:
        return _texts(tokenizer, record, reading)
    if isinstance(record, Ranking):
        found = [reading.whole(tokenizer, record.prompt, response) for response in record.responses]
        return [(whole.ids, whole.start) for whole in found]
    whole = reading.whole(tokenizer, record.prompt, record.response)
    if isinstance(record, TopLogprobs):
        _same_tokens(name, record, whole.response, own)
    return [(whole.ids, whole.start)]


def _texts(tokenizer: Any, record: Any, reading: Reading) -> list[tuple[list[int], int]]:
    """The query, where there is one, and the passages: what is learned of each stands at its last token."""
    told = record.responses if isinstance(record, Ranking) else [record.response]
    read = [record.prompt] if record.prompt else []
    found = [reading.prompt(tokenizer, prompt) for prompt in [*read, *(user(text) for text in told)]]
    return [(ids, len(ids) - 1) for ids in found]


def _labelled(
    name: str, record: Record, tokenizer: Any, labels: Sequence[str], reading: Reading
) -> tuple[list[int], int]:
    response = getattr(record, "response", None)
    if response not in labels:
        raise RecipeError(
            f"train: record {record.id} of branch {name!r} is labelled {str(response)[:40]!r}, which is none of "
            f"student.labels ({', '.join(labels)}); keep only rows with one of these (quality.correct with choice.equal)"
        )
    ids = reading.prompt(tokenizer, record.prompt)
    return [*ids, labels.index(response)], len(ids)


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
                f"train: record {records[place].id} of branch {name!r} has no column {column!r} to weigh or score it "
                "by; name a column that every record has"
            )
    return np.array([float(records[place].columns[column]) for place in kept], np.float32)
