"""Any server that speaks the Anthropic messages protocol."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from stillhouse.errors import RecipeError, TeacherError
from stillhouse.teachers.asking.http import Received, Server, is_own
from stillhouse.teachers.asking.keys import normalised_url
from stillhouse.teachers.asking.prices import price_of
from stillhouse.teachers.asking.reading import split_reasoning
from stillhouse.teachers.asking.wire import Clock, Fault, Price, Reply
from stillhouse.teachers.base import Answer, Capability, FinishReason, Identity, Outcome, Request

__all__ = ["Teacher"]

_OFFICIAL = "https://api.anthropic.com/v1"
_VERSION = "2023-06-01"
_FINISH: dict[Any, FinishReason] = {
    "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "model_context_window_exceeded": "length",
    "refusal": "refusal", "tool_use": "tool_calls",
}  # fmt: skip
_DROPPABLE = {"temperature", "top_p", "stop"}


class Teacher:
    """A model behind the Anthropic messages protocol.

    System messages are joined and sent apart, as the protocol wants them. It takes no seed: samples differ by chance,
    and each is kept under its own key. The key is read from the environment variable `api_key_env`; `price` is `{in, out}`
    in dollars per million tokens where no table knows the model; `extra_body` is added to each request (thinking, for example)
    and is part of its key. Raises TeacherError where the server cannot be reached or refuses the key.
    """

    capabilities: frozenset[Capability] = frozenset({"generate"})
    rungs = 3

    def __init__(
        self,
        *,
        model: str,
        base_url: str | None = None,
        api_key_env: str = "ANTHROPIC_API_KEY",
        timeout: float = 600.0,
        max_concurrency: int = 8,
        price: Mapping[str, float] | None = None,
        allow_drop: Sequence[str] = (),
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        if unknown := set(allow_drop) - _DROPPABLE:
            raise RecipeError(f"anthropic teacher: allow_drop knows {sorted(_DROPPABLE)}, not {sorted(unknown)}")
        self.url = normalised_url(base_url or _OFFICIAL)
        self.timeout, self.max_concurrency = timeout, max_concurrency
        self._model, self._key_env, self._given_price = model, api_key_env, price
        self._dropped, self._extra = tuple(sorted(allow_drop)), dict(extra_body or {})
        self._server: Server | None = None
        self._clock = Clock()

    def identity(self) -> Identity:
        settings = [(name, repr(value)) for name, value in sorted(self._extra.items())]
        if self._dropped:
            settings.append(("dropped", ",".join(self._dropped)))
        return Identity("anthropic-messages", self._model, self.url, settings=tuple(settings))

    def price(self) -> Price | None:
        return price_of(self._model, self.url, self._given_price)

    def prompt_tokens(self, request: Request) -> int:
        """At most this many: a token holds at least one byte, and a turn's frame a few tokens more."""
        return sum(len(message.content.encode("utf-8")) + 16 for message in request.messages) + 16

    def ask(self, requests: Iterable[Request]) -> Iterator[Outcome]:
        """Asks without a store; through `Calls` answers are kept and failures tried again."""
        from stillhouse.teachers.asking.online import ask_bare

        return ask_bare(self, requests)

    async def exchange(self, request: Request, seed: int) -> Reply:
        received, raw, status = await self._connected().post("/messages", self._body(request), wall=self._clock.wall())
        if isinstance(received, Fault):
            return Reply(received, raw, status)
        return self._reply(request, received)

    def _connected(self) -> Server:
        if self._server is None:
            key = os.environ.get(self._key_env, "")
            if not key and not is_own(self.url):
                raise TeacherError(f"no key for {self.url}: set the environment variable {self._key_env}")
            self._server = Server(
                self.url, key, self.timeout, {"x-api-key": key or "none", "anthropic-version": _VERSION}
            )
        return self._server

    def _body(self, request: Request) -> dict[str, Any]:
        if request.response_schema is not None:
            raise RecipeError("the anthropic teacher takes no response_schema; ask for JSON in the prompt")
        sampling = request.sampling
        system = "\n\n".join(message.content for message in request.messages if message.role == "system")
        body: dict[str, Any] = {
            "model": self._model,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "messages": [{"role": m.role, "content": m.content} for m in request.messages if m.role != "system"],
        }
        if system:
            body["system"] = system
        if sampling.top_p != 1:
            body["top_p"] = sampling.top_p
        if sampling.stop:
            body["stop_sequences"] = list(sampling.stop)
        for name in self._dropped:
            body.pop({"stop": "stop_sequences"}.get(name, name), None)
        return body | self._extra

    def _reply(self, request: Request, received: Received) -> Reply:
        value, content = received.value, received.value.get("content")
        if not isinstance(content, list):
            return Reply(Fault("protocol", "the reply holds no list of content"), received.raw, 200)
        blocks = [block for block in content if isinstance(block, dict)]
        inside, text = split_reasoning(_joined(blocks, "text"))
        usage, counted = _usage(value.get("usage"), request, text)
        answer = Answer(
            text, _FINISH.get(value.get("stop_reason"), "unknown"), _joined(blocks, "thinking") or inside,
            str(value.get("model") or ""), usage["input_tokens"], usage["output_tokens"], not counted,
            ("max_tokens",) if counted and usage["output_tokens"] > request.sampling.max_tokens else (),
        )  # fmt: skip
        return Reply(answer, received.raw, 200, str(value.get("id") or ""), counted=counted, **usage)


def _joined(blocks: list[dict[str, Any]], kind: str) -> str:
    return "".join(block[kind] for block in blocks if block.get("type") == kind and isinstance(block.get(kind), str))


def _usage(value: Any, request: Request, text: str) -> tuple[dict[str, Any], bool]:
    """The server's counts where they can be true, else an estimate; cached prompt tokens are part of the prompt."""
    value = value if isinstance(value, dict) else {}
    fresh, output = value.get("input_tokens"), value.get("output_tokens")
    read, written = value.get("cache_read_input_tokens") or 0, value.get("cache_creation_input_tokens") or 0
    if not all(isinstance(number, int) and 0 <= number < 10**9 for number in (fresh, output, read, written)):
        asked = sum(len(message.content) for message in request.messages)
        return {"input_tokens": asked // 4 + 1, "output_tokens": len(text) // 4 + 1}, False
    return {"input_tokens": int(fresh or 0) + read + written, "output_tokens": output, "cached_tokens": read}, True
