"""Any server that speaks the Anthropic messages protocol."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from stillhouse.teachers.asking.faults import plain
from stillhouse.teachers.asking.hosted import Hosted, finish_of, passed_over
from stillhouse.teachers.asking.http import Received
from stillhouse.teachers.asking.reading import split_reasoning
from stillhouse.teachers.asking.wire import Fault, Reply
from stillhouse.teachers.base import Answer, FinishReason, Request

if TYPE_CHECKING:
    from stillhouse.teachers.asking.wire import Batches

__all__ = ["Teacher"]

_OFFICIAL = "https://api.anthropic.com/v1"
_VERSION = "2023-06-01"
_FINISH: dict[str, FinishReason] = {
    "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "model_context_window_exceeded": "length",
    "refusal": "refusal", "tool_use": "tool_calls",
}  # fmt: skip

# what the interface answers with status 400
_BOUNDS = frozenset((
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "pattern",
    "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties", "$schema", "$id",
))  # fmt: skip


class Teacher(Hosted):
    """A model behind the Anthropic messages protocol.

    System messages are joined and sent apart, as the protocol wants them. It takes no seed: samples differ by chance,
    and each is kept under its own key. The key is read from the environment variable `api_key_env`; `price` is `{in, out}`
    in dollars per million tokens where no table knows the model, with `batch` the share of it that a batch costs;
    `extra_body` is added to each request (thinking, for example) and is part of its key. A JSON schema is sent as
    `output_config`, for models that take one (`allow_drop: [response_schema]` for others). `transport` "batch" sends
    requests in bulk, answered within a day, for half the price. `on_model_mismatch` "stop" ends the run when another model
    answers than was asked. Raises TeacherError where the server cannot be reached or refuses the key.
    """

    protocol = "anthropic"
    droppable = frozenset({"temperature", "top_p", "stop", "response_schema"})

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
        transport: Literal["online", "batch"] = "online",
        on_model_mismatch: Literal["warn", "stop"] = "warn",
    ) -> None:
        super().__init__(
            model=model, url=_OFFICIAL if base_url is None else base_url, wire="anthropic-messages", api_key_env=api_key_env,
            timeout=timeout, max_concurrency=max_concurrency, price=price, allow_drop=allow_drop, extra_body=extra_body,
            transport=transport, on_model_mismatch=on_model_mismatch,
        )  # fmt: skip

    def path(self) -> str:
        return "/messages"

    def headers(self, key: str) -> dict[str, str]:
        return {"x-api-key": key or "none", "anthropic-version": _VERSION}

    def batches(self) -> "Batches":
        """The batch interface of the same server."""
        from stillhouse.teachers.asking.anthropic_batch import AnthropicBatches

        return AnthropicBatches(self)

    def body(self, request: Request, seed: int) -> dict[str, Any]:
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
        if request.response_schema is not None:
            schema = {"type": "json_schema", "schema": taken(request.response_schema)}
            body["output_config"] = {"format": schema}
        for name in self._dropped:
            body.pop({"stop": "stop_sequences", "response_schema": "output_config"}.get(name, name), None)
        more = dict(self._extra)
        if "output_config" in body:  # an effort beside the form
            more["output_config"] = {**(more.get("output_config") or {}), **body["output_config"]}
        return body | more

    def reply(self, request: Request, received: Received) -> Reply:
        value, content = received.value, received.value.get("content")
        if not isinstance(content, list):
            return Reply(Fault("protocol", "the reply holds no list of content"), received.raw, 200)
        blocks = [block for block in content if isinstance(block, dict)]
        inside, text = split_reasoning(_joined(blocks, "text"))
        usage, counted = _usage(value.get("usage"), request, text)
        answer = Answer(
            text, finish_of(value.get("stop_reason"), _FINISH), _joined(blocks, "thinking") or inside,
            plain(value.get("model")), usage["input_tokens"], usage["output_tokens"], not counted,
            passed_over(request, text, usage["output_tokens"] if counted else 0, "output_config"),
        )  # fmt: skip
        return Reply(answer, received.raw, 200, plain(value.get("id")), counted=counted, **usage)


def taken(schema: Any) -> Any:
    """A JSON schema as the interface takes it: objects closed, bounds on numbers, lengths and patterns left out.

    What is left out is told in the prompt and checked when the answer is read.
    """
    if isinstance(schema, list):
        return [taken(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key not in _BOUNDS}
    for key, value in kept.items():
        if key in ("properties", "$defs", "definitions"):  # names of the user's, not keywords
            kept[key] = {name: taken(each) for name, each in value.items()}
        elif key not in ("enum", "const", "default", "required"):
            kept[key] = taken(value)
    if kept.get("type") == "object" or "properties" in kept:
        kept["additionalProperties"] = False
    return kept


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
