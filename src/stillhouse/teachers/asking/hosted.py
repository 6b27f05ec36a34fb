"""What the backends of hosted protocols share: the knobs, the key, the price, the connection and one exchange."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from stillhouse.errors import RecipeError, TeacherError
from stillhouse.teachers.asking.faults import bucket_wait
from stillhouse.teachers.asking.http import Received, Server, is_own
from stillhouse.teachers.asking.keys import is_address, normalised_url
from stillhouse.teachers.asking.prices import price_of
from stillhouse.teachers.asking.wire import Batches, Clock, Fault, Price, Reply
from stillhouse.teachers.base import Capability, FinishReason, Identity, Outcome, Request

__all__ = ["Hosted", "finish_of", "passed_over"]


_LONGEST_S = 86_400  # of one reply
_OURS = frozenset(
    ("messages", "model", "n", "prompt", "stream")
)  # one prompt, one whole answer, by the model of the key


class Hosted:
    """A model behind a server. A subclass says how a request is written (`body`), where it goes (`path`) and how a
    reply is read (`reply`); `wire` names the protocol in keys, `droppable` what `allow_drop` may name.
    """

    capabilities: frozenset[Capability] = frozenset({"generate"})
    rungs = 3
    protocol: ClassVar[str]
    droppable: ClassVar[frozenset[str]]

    def __init__(
        self,
        *,
        model: str,
        url: str,
        wire: str,
        api_key_env: str,
        timeout: float,
        max_concurrency: int,
        price: Mapping[str, float] | None,
        allow_drop: Sequence[str],
        extra_body: Mapping[str, Any] | None,
        transport: str = "online",
        on_model_mismatch: str = "warn",
    ) -> None:
        if unknown := set(allow_drop) - self.droppable:
            known = sorted(self.droppable)
            raise RecipeError(f"{self.protocol} teacher: allow_drop knows {known}, not {sorted(unknown)}")
        for name, value, choices in (
            ("transport", transport, ("online", "batch")),
            ("on_model_mismatch", on_model_mismatch, ("warn", "stop")),
        ):
            if value not in choices:
                raise RecipeError(f"{self.protocol} teacher: {name} is {' or '.join(choices)}, not {value!r}")
        if not is_address(url):
            raise RecipeError(
                f"{self.protocol} teacher: {url!r} is no address of a server; write one as http://127.0.0.1:8000/v1"
            )
        if taken := set(extra_body or {}) & _OURS:
            raise RecipeError(
                f"{self.protocol} teacher: extra_body cannot set {', '.join(sorted(taken))}; the call layer does"
            )
        try:
            json.dumps(extra_body, allow_nan=False)
        except (ValueError, TypeError) as error:
            raise RecipeError(f"{self.protocol} teacher: extra_body is not JSON ({error})") from None
        if not 0 < timeout <= _LONGEST_S:
            raise RecipeError(
                f"{self.protocol} teacher: timeout is more than 0 and at most {_LONGEST_S} seconds, not {timeout}"
            )
        self.url, self.timeout, self.max_concurrency = normalised_url(url), timeout, max_concurrency
        self.transport, self.on_model_mismatch = transport, on_model_mismatch
        self._model, self._wire, self._key_env, self._given_price = model, wire, api_key_env, price
        self._dropped, self._extra = tuple(sorted(allow_drop)), dict(extra_body or {})
        self._server: Server | None = None
        self._clock = Clock()

    def identity(self) -> Identity:
        settings = [(name, repr(value)) for name, value in sorted(self._extra.items())]
        if self._dropped:
            settings.append(("dropped", ",".join(self._dropped)))
        return Identity(self._wire, self._model, self.url, settings=tuple(settings))

    def price(self) -> Price | None:
        processing: Literal["online", "batch"] = "batch" if self.transport == "batch" else "online"
        return price_of(self._model, self.url, self._given_price, processing)

    def prompt_tokens(self, request: Request) -> int:
        """At most this many: a token holds at least one byte, and a turn's frame a few tokens more."""
        return sum(len(message.content.encode("utf-8")) + 16 for message in request.messages) + 16

    def ask(self, requests: Iterable[Request]) -> Iterator[Outcome]:
        """Asks without a store; through `Calls` answers are kept and failures tried again."""
        from stillhouse.teachers.asking.online import ask_bare

        return ask_bare(self, requests)

    async def exchange(self, request: Request, seed: int) -> Reply:
        body = self.body(request, seed)
        received, raw, status = await self.connected().post(self.path(), body, wall=self._clock.wall())
        if isinstance(received, Fault):
            return Reply(received, raw, status)
        reply = self.reply(request, received)
        need = self.prompt_tokens(request) // 4 + request.sampling.max_tokens  # four bytes to a token, about
        hold = bucket_wait(received.headers, need, wall=self._clock.wall())
        return replace(reply, hold_s=hold) if hold else reply

    def path(self) -> str:
        """Where a request is posted, under the base URL."""
        raise NotImplementedError

    def body(self, request: Request, seed: int) -> dict[str, Any]:
        """A request as the server wants it."""
        raise NotImplementedError

    def reply(self, request: Request, received: Received) -> Reply:
        """What a reply with status 200 holds."""
        raise NotImplementedError

    def batches(self) -> Batches:
        """The batch interface of the same server."""
        raise NotImplementedError

    def headers(self, key: str) -> dict[str, str]:
        """How the key is sent; empty where it goes as a bearer token."""
        return {}

    def connected(self) -> Server:
        """The server, its key read when it is first asked. Raises TeacherError where there is none."""
        if self._server is None:
            key = os.environ.get(self._key_env, "")
            if not key and not is_own(self.url):
                raise TeacherError(f"no key for {self.url}: set the environment variable {self._key_env}")
            self._server = Server(self.url, key, self.timeout, self.headers(key))
        return self._server


def finish_of(told: object, words: Mapping[str, FinishReason]) -> FinishReason:
    """A server's finish reason in our words; what is missing, or no word that is known, stays unknown."""
    return words.get(told, "unknown") if isinstance(told, str) else "unknown"


def passed_over(request: Request, text: str, output_tokens: int, schema_field: str) -> tuple[str, ...]:
    """Fields of the request that the reply shows to have been passed over; `schema_field` is the server's word for a schema."""
    passed = []
    if any(stop in text for stop in request.sampling.stop):
        passed.append("stop")
    if output_tokens > request.sampling.max_tokens:
        passed.append("max_tokens")
    if request.response_schema is not None and not text.lstrip().startswith(("{", "[")):
        passed.append(schema_field)
    return tuple(passed)
