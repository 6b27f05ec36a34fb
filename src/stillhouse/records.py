"""The nouns. Frozen, without a base class; a new kind of knowledge is a new record type (architecture, section 3).

A record keeps the prompt the student will train on (`prompt`) apart from the one the teacher was asked with (`asked`):
prompt erasing, context distillation and contrastive prompts need the difference. Ids are content hashes; the store
gives an ordinal to equals, so that two identical rows stay two rows.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache
from json.encoder import encode_basestring as _quoted
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # it takes as long to import as everything else that `still --help` needs
    import numpy as np

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str


Prompt = tuple[Message, ...]


def user(text: str) -> Prompt:
    """A prompt of one user turn."""
    return (Message("user", text),)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a record comes from: `parents` are ids of records of the step before, `keys` request keys of the store."""

    parents: tuple[str, ...] = ()
    teacher: str = ""
    keys: tuple[str, ...] = ()
    step: str = ""  # stamped by run.py, never by a method


@dataclass(frozen=True, slots=True)
class Seed:
    """What a teacher is asked about. `columns` holds the extra columns that the recipe named, nothing else."""

    id: str
    prompt: Prompt
    reference: str | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    origin: Origin = Origin()

    def answered(self, response: str, *, asked: Prompt, teacher: str, keys: tuple[str, ...] = ()) -> "Example":
        """An example born from this seed, trained on under the seed's own prompt."""
        origin = Origin((self.id,), teacher, keys)
        return Example(
            content_id("Example", self.id, response, keys),
            self.prompt,
            response,
            self.reference,
            asked,
            self.columns,
            origin,
        )


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and the answer a student learns to give (Eq. 3-9)."""

    id: str
    prompt: Prompt
    response: str
    reference: str | None = None
    asked: Prompt = ()
    columns: dict[str, Any] = field(default_factory=dict)
    origin: Origin = Origin()

    def signalled(self, store: str, row: str, *, teacher: str) -> "StoredSignal":
        """This example with a teacher's signals in a store."""
        return StoredSignal(
            content_id("StoredSignal", self.id, store, row, teacher),
            self.prompt,
            self.response,
            self.reference,
            store,
            row,
            self.columns,
            Origin((self.id,), teacher),
        )

    def believed(
        self,
        *,
        token_ids_T: "np.ndarray",
        top_ids_TK: "np.ndarray",
        top_logprobs_TK: "np.ndarray",
        tokenizer: str,
        teacher: str,
    ) -> "TopLogprobs":
        """This example with a teacher's beliefs about each token of its response."""
        origin = Origin((self.id,), teacher)
        return TopLogprobs(
            content_id("TopLogprobs", self.id, tokenizer, teacher),
            self.prompt,
            self.response,
            self.reference,
            tokenizer,
            token_ids_T,
            top_ids_TK,
            top_logprobs_TK,
            self.columns,
            origin,
        )


@dataclass(frozen=True, slots=True)
class TopLogprobs:
    """A response with the teacher's most likely tokens at each of its positions (Eq. 6).

    T tokens of the response, its end-of-turn token included, as the teacher's tokenizer cut them; K kept tokens.
    `top_logprobs_TK[t]` are natural-log probabilities at temperature 1 for the token `token_ids_T[t]`, given all before
    it; what is missing to 1 is the tail. `tokenizer` is the fingerprint of the tokenizer that made the ids.
    """

    id: str
    prompt: Prompt
    response: str
    reference: str | None
    tokenizer: str
    token_ids_T: "np.ndarray"
    top_ids_TK: "np.ndarray"
    top_logprobs_TK: "np.ndarray"
    columns: dict[str, Any] = field(default_factory=dict)
    origin: Origin = Origin()


@dataclass(frozen=True, slots=True)
class StoredSignal:
    """A response whose teacher's beliefs lie in a store of signals (Eq. 6): its folder, and the key of the row in it."""

    id: str
    prompt: Prompt
    response: str
    reference: str | None
    store: str
    row: str
    columns: dict[str, Any] = field(default_factory=dict)
    origin: Origin = Origin()


@dataclass(frozen=True, slots=True)
class Ranking:
    """Two or more responses to one prompt, best first; `scores` where there are any (a preference pair is a ranking of two)."""

    id: str
    prompt: Prompt
    responses: tuple[str, ...]
    scores: tuple[float, ...] = ()
    reference: str | None = None
    asked: Prompt = ()
    columns: dict[str, Any] = field(default_factory=dict)
    origin: Origin = Origin()


@dataclass(frozen=True, slots=True)
class Act:
    """One step of an agent: what it thought, what it did with what, and what the world answered."""

    thought: str
    action: str
    argument: str
    observation: str = ""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A goal and the acts towards it; `reward` is the environment's, None where none was given."""

    id: str
    prompt: Prompt
    acts: tuple[Act, ...]
    reward: float | None = None
    reference: str | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    origin: Origin = Origin()


@dataclass(frozen=True, slots=True)
class Lost:
    """A slot (seed x step x sample) that gave no record, and why. Never silently."""

    parent: str
    reason: str
    state: Literal["dropped", "quarantined", "not_attempted"] = "dropped"
    slot: int = 0
    detail: str = ""
    keys: tuple[str, ...] = ()


Record = Seed | Example | TopLogprobs | StoredSignal | Ranking | Trajectory


def content_id(*parts: object) -> str:
    """16 hex digits that depend on the parts alone."""
    text = _canonical(parts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def stamped(record: Record, step: str) -> Record:
    born = record.origin
    kind: Any = type(record)
    # the origin is the last field of every kind; `replace` would look all of them up for each row
    made: Record = kind(*_but_origin(kind)(record), Origin(born.parents, born.teacher, born.keys, step))
    return made


@cache
def _but_origin(kind: type) -> Callable[[Any], tuple[Any, ...]]:
    names = [each.name for each in fields(kind)]
    assert names.pop() == "origin"
    return attrgetter(*names)


def _canonical(value: object) -> str:
    """What `_CANONICAL` writes, sooner: nearly all parts are texts and tuples of texts."""
    if type(value) is str:
        return _quoted(value)
    if type(value) is tuple:
        return f"[{', '.join([_quoted(each) if type(each) is str else _canonical(each) for each in value])}]"
    if type(value) is Message:
        return f"[{_quoted(value.role)}, {_quoted(value.content)}]"
    if value is None:
        return "null"
    return "{}" if type(value) is dict and not value else _CANONICAL.encode(value)


def _plain(value: object) -> object:
    if isinstance(value, Message):
        return [value.role, value.content]
    import numpy as np

    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be part of an id")


_CANONICAL = json.JSONEncoder(ensure_ascii=False, sort_keys=True, default=_plain)
