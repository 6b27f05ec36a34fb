"""Any server that speaks the OpenAI protocol: the company's own, vLLM, SGLang, llama.cpp, Ollama, transformers serve."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from stillhouse.errors import RecipeError, TeacherError
from stillhouse.teachers.asking.http import Received, Server, is_own
from stillhouse.teachers.asking.keys import normalised_url
from stillhouse.teachers.asking.prices import price_of
from stillhouse.teachers.asking.reading import split_reasoning
from stillhouse.teachers.asking.wire import Clock, Fault, Price, Reply
from stillhouse.teachers.base import Answer, Capability, FinishReason, Identity, Outcome, Request

__all__ = ["Teacher"]

_OFFICIAL = "https://api.openai.com/v1"
_FINISH: dict[Any, FinishReason] = {
    "stop": "stop", "eos": "stop", "stop_sequence": "stop", "length": "length", "max_tokens": "length",
    "content_filter": "content_filter", "refusal": "refusal", "tool_calls": "tool_calls", "function_call": "tool_calls",
}  # fmt: skip
_DROPPABLE = {"temperature", "top_p", "max_tokens", "stop", "seed", "response_schema"}


class Teacher:
    """A model behind an OpenAI-compatible server.

    `api` "chat" sends messages, "completions" the plain text of the messages for a model without a chat template. The
    key is read from the environment variable `api_key_env`; a server on this machine or network needs none. `price` is
    `{in, out}` in dollars per million tokens where no table knows the model. `allow_drop` names sampling fields the
    server does not take. `extra_body` is added to each request as it stands, and is part of its key. Raises
    TeacherError where the server cannot be reached or refuses the key, RecipeError for a missing key or price.
    """

    capabilities: frozenset[Capability] = frozenset({"generate"})
    rungs = 3

    def __init__(
        self,
        *,
        model: str,
        base_url: str | None = None,
        api: Literal["chat", "completions"] = "chat",
        api_key_env: str = "OPENAI_API_KEY",
        timeout: float = 600.0,
        max_concurrency: int = 8,
        price: Mapping[str, float] | None = None,
        allow_drop: Sequence[str] = (),
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        if api not in ("chat", "completions"):
            raise RecipeError(f"openai teacher: api is chat or completions, not {api!r}")
        if unknown := set(allow_drop) - _DROPPABLE:
            raise RecipeError(f"openai teacher: allow_drop knows {sorted(_DROPPABLE)}, not {sorted(unknown)}")
        self.url = normalised_url(base_url or os.environ.get("OPENAI_BASE_URL") or _OFFICIAL)
        self.timeout, self.max_concurrency = timeout, max_concurrency
        self._model, self._api, self._key_env, self._given_price = model, api, api_key_env, price
        self._dropped, self._extra = tuple(sorted(allow_drop)), dict(extra_body or {})
        self._server: Server | None = None
        self._clock = Clock()

    def identity(self) -> Identity:
        settings = [(name, repr(value)) for name, value in sorted(self._extra.items())]
        if self._dropped:
            settings.append(("dropped", ",".join(self._dropped)))
        return Identity(f"openai-{self._api}", self._model, self.url, settings=tuple(settings))

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
        received, raw, status = await self._connected().post(
            "/chat/completions" if self._api == "chat" else "/completions",
            self._body(request, seed),
            wall=self._clock.wall(),
        )
        if isinstance(received, Fault):
            return Reply(received, raw, status)
        return self._reply(request, received)

    def _connected(self) -> Server:
        if self._server is None:
            key = os.environ.get(self._key_env, "")
            if not key and not is_own(self.url):
                raise TeacherError(f"no key for {self.url}: set the environment variable {self._key_env}")
            self._server = Server(self.url, key, self.timeout)
        return self._server

    def _body(self, request: Request, seed: int) -> dict[str, Any]:
        sampling = request.sampling
        limit = "max_completion_tokens" if self.url == _OFFICIAL and self._api == "chat" else "max_tokens"
        body: dict[str, Any] = {"model": self._model, limit: sampling.max_tokens, "temperature": sampling.temperature}
        if self._api == "chat":
            body["messages"] = [{"role": message.role, "content": message.content} for message in request.messages]
        else:
            body["prompt"] = "\n".join(message.content for message in request.messages)
        if sampling.top_p != 1:
            body["top_p"] = sampling.top_p
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.temperature > 0:
            body["seed"] = seed
        if request.response_schema is not None:
            schema = {"name": "answer", "schema": request.response_schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        for name in self._dropped:
            body.pop({"response_schema": "response_format", "max_tokens": limit}.get(name, name), None)
        return body | self._extra

    def _reply(self, request: Request, received: Received) -> Reply:
        value = received.value
        choices = value.get("choices")
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
            number = len(choices) if isinstance(choices, list) else "no"
            return Reply(Fault("protocol", f"one choice was asked for, the reply holds {number}"), received.raw, 200)
        usage, counted = _usage(value.get("usage"), request, choices[0])
        text, reasoning, finish = _content(choices[0], self._api)
        answer = Answer(
            text, finish, reasoning, str(value.get("model") or ""), usage["input_tokens"], usage["output_tokens"],
            not counted, _ignored(request, text, usage["output_tokens"] if counted else 0),
        )  # fmt: skip
        provider_id, fingerprint = str(value.get("id") or ""), str(value.get("system_fingerprint") or "")
        return Reply(answer, received.raw, 200, provider_id, fingerprint, counted=counted, **usage)


def _content(choice: dict[str, Any], api: str) -> tuple[str, str, FinishReason]:
    """(text, reasoning, finish reason) of a choice; a reason that is missing or unknown stays unknown."""
    finish = _FINISH.get(choice.get("finish_reason"), "unknown")
    if api == "completions":
        text = choice.get("text")
        return text if isinstance(text, str) else "", "", finish
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    if isinstance(message.get("refusal"), str) and message["refusal"]:
        return message["refusal"], "", "refusal"
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(part.get("text") or "" for part in content if isinstance(part, dict))
    inside, text = split_reasoning(content if isinstance(content, str) else "")
    named = message.get("reasoning_content") or message.get("reasoning") or ""
    return text, named if isinstance(named, str) and named else inside, finish


def _usage(value: Any, request: Request, choice: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """The server's counts where they can be true, else an estimate; and whether they are the server's."""
    value = value if isinstance(value, dict) else {}
    prompt, completion = value.get("prompt_tokens"), value.get("completion_tokens")
    details = value.get("completion_tokens_details")
    cached = value.get("prompt_tokens_details")
    believable = all(isinstance(number, int) and 0 <= number < 10**9 for number in (prompt, completion))
    if not believable:
        written = len(str(choice.get("text") or choice.get("message") or ""))
        asked = sum(len(message.content) for message in request.messages)
        return {
            "input_tokens": asked // 4 + 1,
            "output_tokens": written // 4 + 1,
            "reasoning_tokens": 0,
            "cached_tokens": 0,
        }, False
    return {
        "input_tokens": prompt, "output_tokens": completion,
        "reasoning_tokens": _count(details, "reasoning_tokens"), "cached_tokens": _count(cached, "cached_tokens"),
    }, True  # fmt: skip


def _count(details: Any, name: str) -> int:
    number = details.get(name) if isinstance(details, dict) else None
    return number if isinstance(number, int) and number > 0 else 0


def _ignored(request: Request, text: str, output_tokens: int) -> tuple[str, ...]:
    """Fields of the request that the reply shows to have been passed over."""
    ignored = []
    if any(stop in text for stop in request.sampling.stop):
        ignored.append("stop")
    if output_tokens > request.sampling.max_tokens:
        ignored.append("max_tokens")
    if request.response_schema is not None and not text.lstrip().startswith(("{", "[")):
        ignored.append("response_format")
    return tuple(ignored)
