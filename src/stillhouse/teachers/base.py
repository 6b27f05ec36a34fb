"""What a teacher can be asked, and how it answers (architecture, section 3).

A backend is one file beside this one with one class `Teacher`. Its keyword-only constructor arguments are its knobs in
a recipe; `capabilities` is data, so that `still check` knows it without loading a model. A backend module imports
nothing heavy at its top. Elicitors never see a backend: they get one wrapped by `calls.py`, which looks every request
up first.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from stillhouse.records import Prompt

Capability = Literal["generate", "top_logprobs", "logits", "hidden_states", "embed"]
FinishReason = Literal["stop", "length", "refusal", "content_filter", "tool_calls", "unknown"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is drawn. `n` answers per prompt; temperature 0 is greedy. Defaults follow the field's clients."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 512
    n: int = 1
    stop: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """One answer wanted. `sample_index` tells samples of one prompt apart; `tag` is the caller's and not part of the key.

    `expected` lets the scripted teacher answer from the reference; no other backend may read it.
    """

    messages: Prompt
    sampling: Sampling = Sampling()
    sample_index: int = 0
    tag: str = ""
    expected: str | None = None
    response_schema: dict[str, Any] | None = None
    scored: str | None = None  # not an answer is wanted but the likelihood of this one, ...
    top_logprobs: int = 0  # with so many likeliest tokens at each place: of `scored`, or of the answer as it is written


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer. Tokens as the server counted them, or as estimated where `estimated` says so."""

    text: str
    finish_reason: FinishReason = "stop"
    reasoning: str = ""
    served_model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = False
    ignored: tuple[str, ...] = ()  # fields of the request that the server did not honour
    cost_usd: float | None = None  # None: this teacher has no price (local)


@dataclass(frozen=True, slots=True)
class Failure:
    """No usable answer to this one request: `kind` is a reason code (truncated, refused, empty, malformed, timeout
    ...).
    """

    kind: str
    detail: str = ""
    state: Literal["dropped", "quarantined", "not_attempted"] = "quarantined"


@dataclass(frozen=True, slots=True)
class Outcome:
    request: Request
    result: Answer | Failure
    key: str = ""
    logprobs: bytes | None = None  # what a local teacher believed as it answered, packed for the store


@dataclass(frozen=True, slots=True)
class TokenBeliefs:
    """A teacher's log-probabilities over a given response; shapes and units as in `records.TopLogprobs`."""

    token_ids_T: np.ndarray
    top_ids_TK: np.ndarray
    top_logprobs_TK: np.ndarray


@runtime_checkable
class Generates(Protocol):
    """Black box: every backend is at least this. Outcomes may come in another order than the requests; each carries its
    own.
    """

    name: str
    sampling: Sampling

    def ask(self, requests: Iterable[Request]) -> Iterator[Outcome]: ...


@runtime_checkable
class Scores(Protocol):
    """Can say how likely the tokens of a given response are."""

    def tokenizer_fingerprint(self) -> str: ...

    def top_logprobs(self, pairs: Iterable[tuple[Prompt, str]], *, k: int) -> Iterator[TokenBeliefs]:
        """In the order of `pairs`."""
        ...


@runtime_checkable
class Tells(Protocol):
    """A teacher as elicitors see it that answers and says how likely each token of its answer was."""

    def telling(self, request: Request, k: int) -> Request:
        """The request, with what its server is to tell beside the answer."""
        ...

    def told(self, outcomes: Sequence["Outcome"], *, k: int) -> "list[TokenBeliefs | None]":
        """Of answers; None where the tokens that were written are not those that the text is read as."""
        ...


@runtime_checkable
class Reveals(Protocol):
    """White box: gives the model itself (logits, hidden states, its head) and its tokenizer, in eval mode."""

    def module(self) -> Any: ...

    def tokenizer(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Identity:
    """Everything about a teacher that can change its answers: part of each request key and of the manifest."""

    wire: str  # openai-chat, openai-completions, anthropic-messages, hf-local, recorded, scripted
    model: str
    endpoint: str = ""
    revision: str = ""
    settings: tuple[tuple[str, str], ...] = field(default=())


class Backend(Protocol):
    """What one file of this folder gives: a class `Teacher` that answers and can say who it is.

    Optional class attributes: `chunk`, the number of requests a local teacher works on as one unit; `rungs`, how many
    limits (each twice the one before) a cut-off answer may be given.
    """

    capabilities: frozenset[Capability]

    def identity(self) -> Identity: ...

    def ask(self, requests: Iterable[Request]) -> Iterator[Outcome]: ...
