"""What one exchange with a server brings, in words that hold for every wire format."""

import asyncio
import random
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

from stillhouse.teachers.base import Answer, Capability, Identity, Request

__all__ = ["BatchState", "Batches", "Clock", "Fault", "FaultKind", "Price", "Reply", "Submission", "WireBackend"]

FaultKind = Literal[
    "rate_limit",  # ask again later; does not count against the retries
    "quota",  # money or quota used up: nothing more can be asked
    "auth",  # key, model name or settings are wrong: nothing more can be asked
    "refused_connection",  # nobody listens there
    "bad_request",  # the server will not take this one request
    "context_overflow",  # the prompt is longer than the model can read
    "refused",  # a content filter stopped this one request
    "transient",  # may work when tried again
    "unknown_after_send",  # the bytes left and nothing came back: may have been billed
    "protocol",  # an answer that is none: HTML, an error under status 200, no choices
    "expired",  # a batch ran out of time before this request's turn: not billed
    "cancelled",  # somebody cancelled the batch: not billed
]


@dataclass(frozen=True, slots=True)
class Fault:
    kind: FaultKind
    detail: str = ""
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """One attempt. Tokens stand here and not only in the answer, because attempts that gave no answer are billed too."""

    result: Answer | Fault
    raw: bytes = b""
    http_status: int | None = None
    provider_id: str = ""
    fingerprint: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    counted: bool = False  # the tokens are the server's own count
    logprobs: bytes | None = None
    hold_s: float = 0.0  # so long the server says that it will take nothing more


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per million tokens. `id` says which table it is from."""

    input_usd: float = 0.0
    output_usd: float = 0.0
    cached_usd: float | None = None
    id: str = ""

    def cost(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> float:
        cached = min(cached_tokens, input_tokens) if self.cached_usd is not None else 0
        fresh = (input_tokens - cached) * self.input_usd + output_tokens * self.output_usd
        return (fresh + cached * (self.cached_usd or 0.0)) / 1e6


class WireBackend(Protocol):
    """A backend that speaks to a server; retries, pace, budget and the store are not its business."""

    capabilities: frozenset[Capability]
    max_concurrency: int
    timeout: float
    url: str
    transport: str  # online or batch
    on_model_mismatch: str  # warn or stop

    def identity(self) -> Identity: ...

    def price(self) -> Price | None:
        """None where nobody knows what this endpoint costs."""
        ...

    def prompt_tokens(self, request: Request) -> int:
        """An upper bound where no tokenizer is known."""
        ...

    async def exchange(self, request: Request, seed: int) -> Reply: ...

    def batches(self) -> "Batches":
        """The batch interface of the same server; asked for only where `transport` is batch or one is still out."""
        ...


@dataclass(frozen=True, slots=True)
class Submission:
    """A batch as it was written down before it was sent: what it is found again by."""

    local_id: str
    file: Path  # one JSON line to a request, each with its line end
    sha256: str
    number: int
    created: float


@dataclass(frozen=True, slots=True)
class BatchState:
    """Where a batch stands. `fault` says why the provider took none of it; `told` is the provider's own word."""

    ended: bool
    told: str
    fault: Fault | None = None


class Batches(Protocol):
    """A provider's batch interface. Each call is one exchange; what may be tried again comes back as a Fault."""

    most_items: int
    most_bytes: int

    def line(self, key: str, request: Request, seed: int) -> bytes:
        """One request of the input file, without a line end."""
        ...

    async def submit(self, submission: Submission) -> str | Fault:
        """Sends the batch; gives the provider's id of it."""
        ...

    async def find(self, submission: Submission, others: Collection[str]) -> str | Fault | None:
        """The id of a batch that was sent and whose id was not written down. `others` are ids that belong elsewhere."""
        ...

    async def state(self, batch: str) -> BatchState | Fault: ...

    async def results(self, batch: str, into: BinaryIO) -> Fault | None:
        """Writes the lines of an ended batch, answers and errors, in any order."""
        ...

    def read(self, line: dict[str, Any], request: Request, raw: bytes) -> Reply:
        """One line of the results; raises nothing."""
        ...


class Clock:
    """Time that tests can replace. `now` is monotonic and only for differences; `wall` is for dates of servers."""

    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def jitter(self) -> float:
        """A number in (0, 1], another one each time."""
        return 1.0 - random.random()
