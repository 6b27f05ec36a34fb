"""Any server that speaks the OpenAI protocol: the company's own, vLLM, SGLang, llama.cpp, Ollama, transformers serve."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from stillhouse.errors import RecipeError
from stillhouse.teachers.asking.faults import plain
from stillhouse.teachers.asking.hosted import Hosted, finish_of, passed_over
from stillhouse.teachers.asking.http import Received
from stillhouse.teachers.asking.reading import split_reasoning
from stillhouse.teachers.asking.wire import Fault, Reply
from stillhouse.teachers.base import Answer, FinishReason, Request

if TYPE_CHECKING:
    from stillhouse.teachers.asking.wire import Batches

__all__ = ["Teacher"]

_OFFICIAL = "https://api.openai.com/v1"
_FINISH: dict[str, FinishReason] = {
    "stop": "stop", "eos": "stop", "stop_sequence": "stop", "length": "length", "max_tokens": "length",
    "content_filter": "content_filter", "refusal": "refusal", "tool_calls": "tool_calls", "function_call": "tool_calls",
}  # fmt: skip


class Teacher(Hosted):
    """A model behind an OpenAI-compatible server.

    `api` "chat" sends messages, "completions" the plain text of the messages for a model without a chat template. The
    key is read from the environment variable `api_key_env`; a server on this machine or network needs none. `price` is
    `{in, out}` in dollars per million tokens where no table knows the model, with `batch` the share of it that a batch
    costs. `allow_drop` names sampling fields the server does not take. `extra_body` is added to each request as it
    stands, and is part of its key. `transport` "batch" sends files of requests that are answered within a day, for half
    the price. `on_model_mismatch` "stop" ends the run when another model answers than was asked. Raises TeacherError
    where the server cannot be reached or refuses the key, RecipeError for a missing key or price.
    """

    protocol = "openai"
    droppable = frozenset({"temperature", "top_p", "max_tokens", "stop", "seed", "response_schema"})

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
        transport: Literal["online", "batch"] = "online",
        on_model_mismatch: Literal["warn", "stop"] = "warn",
    ) -> None:
        if api not in ("chat", "completions"):
            raise RecipeError(f"openai teacher: api is chat or completions, not {api!r}")
        if base_url is None:
            base_url = os.environ.get("OPENAI_BASE_URL") or _OFFICIAL
        super().__init__(
            model=model, url=base_url, wire=f"openai-{api}",
            api_key_env=api_key_env, timeout=timeout, max_concurrency=max_concurrency, price=price, allow_drop=allow_drop,
            extra_body=extra_body, transport=transport, on_model_mismatch=on_model_mismatch,
        )  # fmt: skip
        self._api = api

    def path(self) -> str:
        return "/chat/completions" if self._api == "chat" else "/completions"

    def batches(self) -> "Batches":
        """The batch interface of the same server."""
        from stillhouse.teachers.asking.openai_batch import OpenAIBatches

        return OpenAIBatches(self)

    def body(self, request: Request, seed: int) -> dict[str, Any]:
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

    def reply(self, request: Request, received: Received) -> Reply:
        value = received.value
        choices = value.get("choices")
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
            number = len(choices) if isinstance(choices, list) else "no"
            return Reply(Fault("protocol", f"one choice was asked for, the reply holds {number}"), received.raw, 200)
        usage, counted = _usage(value.get("usage"), request, choices[0])
        text, reasoning, finish = _content(choices[0], self._api)
        answer = Answer(
            text, finish, reasoning, plain(value.get("model")), usage["input_tokens"], usage["output_tokens"],
            not counted, passed_over(request, text, usage["output_tokens"] if counted else 0, "response_format"),
        )  # fmt: skip
        provider_id, fingerprint = plain(value.get("id")), plain(value.get("system_fingerprint"))
        return Reply(answer, received.raw, 200, provider_id, fingerprint, counted=counted, **usage)


def _content(choice: dict[str, Any], api: str) -> tuple[str, str, FinishReason]:
    """(text, reasoning, finish reason) of a choice; a reason that is missing or unknown stays unknown."""
    finish = finish_of(choice.get("finish_reason"), _FINISH)
    if api == "completions":
        text = choice.get("text")
        return text if isinstance(text, str) else "", "", finish
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    if isinstance(message.get("refusal"), str) and message["refusal"]:
        return message["refusal"], "", "refusal"
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(part for part in parts if isinstance(part, str))
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
    return number if isinstance(number, int) and 0 < number < 10**9 else 0
