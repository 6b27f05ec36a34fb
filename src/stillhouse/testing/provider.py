"""A model server on loopback that answers as it is told, and fails as its tape says.

It speaks three wire formats (OpenAI chat and completions, Anthropic messages) and two batch interfaces over real sockets,
so that time-outs, disconnects and half an answer are what they are in life. It counts what it would bill.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from stillhouse.testing.batches import BatchStep, FakeBatches

__all__ = ["BatchStep", "FakeProvider", "Seen", "Step", "status"]

Reply = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Step:
    """How one request is answered. Left as it is: the text of the provider, completely, with status 200.

    `text` replaces the reply; `finish` is the finish reason in OpenAI's words, None leaves it out; `body` replaces the
    whole reply (bytes as they are, anything else as JSON); `usage` replaces the token counts, None leaves them out;
    `choices` is how many are sent; `model` the name that is said to have answered. `delay` seconds pass before the
    status; `hang` sends headers and then nothing; `trickle` sends one byte per so many seconds; `disconnect` closes the
    socket after so many bytes of the body; `drop` closes it before any.
    """

    status: int = 200
    text: str | None = None
    finish: str | None = "stop"
    reasoning: str = ""
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    usage: Any = "counted"
    choices: int = 1
    model: str = ""
    delay: float = 0.0
    hang: bool = False
    trickle: float = 0.0
    disconnect: int | None = None
    drop: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it arrived."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    at: float
    prompt: str


def status(code: int, error: str = "", **headers: str) -> Step:
    """An error reply in OpenAI's shape; underscores in header names become hyphens."""
    body = {"error": {"message": f"scripted {code}", "type": error or "scripted", "code": error or None}}
    return Step(status=code, body=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


class FakeProvider:
    """Serves on a free port of 127.0.0.1 while it is open as a context manager; `url` is the base URL to give a teacher.

    `reply` gives the answer to a prompt (the text of the last message). `tape` is played one step to a request, in the
    order they arrive; `by_prompt` plays a tape of its own for each regular expression that a prompt matches, before
    the other; `by_path` does so for what "METHOD path" matches. After its tape a server answers normally, or plays it
    again where `loop` is set. `batches` is a tape for batches; the steps of a batch's requests come from the others.
    """

    def __init__(
        self,
        reply: Reply | str = "ok",
        *,
        tape: Iterable[Step] = (),
        by_prompt: Mapping[str, Iterable[Step]] | None = None,
        by_path: Mapping[str, Iterable[Step]] | None = None,
        batches: Iterable[BatchStep] = (),
        loop: bool = False,
        model: str = "fake",
    ) -> None:
        self.reply: Reply = (lambda prompt: reply) if isinstance(reply, str) else reply
        self.model, self.loop = model, loop
        self.requests: list[Seen] = []
        self.billed_input = self.billed_output = self.out = self.most_out = 0
        self._tape, self._played = list(tape), 0
        self._by_prompt = [
            (re.compile(pattern, re.DOTALL), list(steps)) for pattern, steps in (by_prompt or {}).items()
        ]
        self._by_path = [(re.compile(pattern), list(steps)) for pattern, steps in (by_path or {}).items()]
        self.batches = FakeBatches(batches, self._answered)
        self._lock, self.closing = threading.Lock(), threading.Event()
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        assert self._server is not None, "the provider serves only inside its `with` block"
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> "FakeProvider":
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.provider = self  # type: ignore[attr-defined]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def step(self, prompt: str) -> Step:
        """The next step for this prompt."""
        with self._lock:
            for pattern, steps in self._by_prompt:
                if steps and pattern.search(prompt):
                    return steps[0] if self.loop else steps.pop(0)
            if self._played < len(self._tape) or (self.loop and self._tape):
                self._played += 1
                return self._tape[(self._played - 1) % len(self._tape)]
        return Step()

    def step_of(self, call: str) -> Step | None:
        """The next step that is meant for a call ("GET /v1/batches/7") whatever it asks."""
        with self._lock:
            return next((steps.pop(0) for pattern, steps in self._by_path if steps and pattern.match(call)), None)

    def _answered(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """One request of a batch: its status and reply."""
        prompt = _prompt(body)
        self.note(Seen(path, body, {}, time.monotonic(), prompt))
        step = self.step(prompt)
        return step.status, json.loads(_payload(self, step, path, body, prompt))

    def note(self, seen: Seen) -> None:
        with self._lock:
            self.requests.append(seen)

    def bill(self, input_tokens: int, output_tokens: int) -> None:
        with self._lock:
            self.billed_input += input_tokens
            self.billed_output += output_tokens

    def entered(self, change: int) -> None:
        with self._lock:
            self.out += change
            self.most_out = max(self.most_out, self.out)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is part of the play."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        provider = self.server.provider  # type: ignore[attr-defined]
        if not self._apart("GET", b""):
            self._send(Step(), json.dumps({"object": "list", "data": [{"id": provider.model}]}).encode())

    def _apart(self, method: str, content: bytes) -> bool:
        """Calls that a path has steps for, and those of the batch interfaces; false for any other."""
        provider: FakeProvider = self.server.provider  # type: ignore[attr-defined]
        if (step := provider.step_of(f"{method} {self.path}")) is not None:
            if step.drop:
                self._hang_up()
            else:
                self._send(step, step.body if isinstance(step.body, bytes) else json.dumps(step.body).encode())
            return True
        try:
            reply = provider.batches.handle(method, self.path, content, self.headers.get("content-type", ""))
        except LookupError:
            return False
        if reply is None:
            self._hang_up()
        else:
            self._send(Step(status=reply[0]), reply[1])
        return True

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(2)

    def do_POST(self) -> None:
        provider: FakeProvider = self.server.provider  # type: ignore[attr-defined]
        promised = int(self.headers.get("content-length", 0))
        content = self.rfile.read(promised)
        if len(content) < promised:  # whoever asked was killed on the way
            self.close_connection = True
            return
        if self._apart("POST", content):
            return
        body = json.loads(content or b"{}")
        prompt = _prompt(body)
        provider.note(Seen(self.path, body, {k.lower(): v for k, v in self.headers.items()}, time.monotonic(), prompt))
        provider.entered(1)
        try:
            step = provider.step(prompt)
            if step.drop:
                self._hang_up()
                return
            provider.closing.wait(step.delay)
            self._send(step, _payload(provider, step, self.path, body, prompt))
        finally:
            provider.entered(-1)

    def _send(self, step: Step, payload: bytes) -> None:
        provider: FakeProvider = self.server.provider  # type: ignore[attr-defined]
        self.send_response(step.status)
        headers = {"content-type": "application/json", "content-length": str(len(payload)), **step.headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if step.hang:
            provider.closing.wait(3600)
        elif step.trickle:
            for at in range(len(payload)):
                self.wfile.write(payload[at : at + 1])
                if provider.closing.wait(step.trickle):
                    return
        elif step.disconnect is not None:
            self.wfile.write(payload[: step.disconnect])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)
        else:
            self.wfile.write(payload)


def _prompt(body: Mapping[str, Any]) -> str:
    if "messages" in body:
        content = body["messages"][-1]["content"] if body["messages"] else ""
        return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
    return str(body.get("prompt", ""))


def _payload(provider: FakeProvider, step: Step, path: str, body: Mapping[str, Any], prompt: str) -> bytes:
    if step.body is not None:
        return step.body if isinstance(step.body, bytes) else json.dumps(step.body).encode()
    text = provider.reply(prompt) if step.text is None else step.text
    input_tokens, output_tokens = len(prompt.split()) + 3, len((step.reasoning + " " + text).split()) + 1
    provider.bill(input_tokens, output_tokens)
    model = step.model or str(body.get("model", provider.model))
    make = _message if path.endswith("/messages") else _completion
    value = make(step, text, model, input_tokens, output_tokens, chat=path.endswith("/chat/completions"))
    return json.dumps(value).encode("utf-8", "surrogatepass")


def _completion(
    step: Step, text: str, model: str, input_tokens: int, output_tokens: int, *, chat: bool
) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if step.reasoning:
        message["reasoning_content"] = step.reasoning
    choice: dict[str, Any] = {"message": message} if chat else {"text": text}
    if step.finish is not None:
        choice["finish_reason"] = step.finish
    value = {
        "id": "fake-1", "object": "chat.completion" if chat else "text_completion", "created": 0, "model": model,
        "choices": [{**choice, "index": index} for index in range(step.choices)],
    }  # fmt: skip
    counted = {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    }
    return value | _usage(step, counted)


def _message(step: Step, text: str, model: str, input_tokens: int, output_tokens: int, *, chat: bool) -> dict[str, Any]:
    reasons = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal", "tool_calls": "tool_use"}
    content: list[dict[str, Any]] = [{"type": "thinking", "thinking": step.reasoning}] if step.reasoning else []
    value: dict[str, Any] = {"id": "fake-1", "type": "message", "role": "assistant", "model": model}
    value["content"] = content + [{"type": "text", "text": text}] * step.choices
    if step.finish is not None:
        value["stop_reason"] = reasons.get(step.finish, step.finish)
    return value | _usage(step, {"input_tokens": input_tokens, "output_tokens": output_tokens})


def _usage(step: Step, counted: dict[str, int]) -> dict[str, Any]:
    if step.usage is None:
        return {}
    return {"usage": counted if step.usage == "counted" else step.usage}
