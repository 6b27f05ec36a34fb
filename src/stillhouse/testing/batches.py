"""The batch interfaces of the fake provider: OpenAI's files and batches, Anthropic's message batches, and their faults."""

import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

__all__ = ["BatchStep", "FakeBatches"]

# what one request is answered with: (status, the reply's JSON); it bills what it answers
Answered = Callable[[str, dict[str, Any]], tuple[int, Any]]


@dataclass(frozen=True, slots=True)
class BatchStep:
    """How one batch goes. Left as it is: it has ended when it is first asked for, all answered, in another order than sent.

    `polls` is how often it is still under way when asked for; `ends` how it ends (completed, expired, cancelled, failed
    with `error` as its code), `unanswered` how many of its requests then have no answer. `lose_reply` accepts the
    batch and hangs up; `forget` keeps no metadata; `unknown`, `repeated` and `missing` are lines too many or too few.
    """

    polls: int = 0
    ends: str = "completed"
    error: str = ""
    unanswered: int = 0
    lose_reply: bool = False
    forget: bool = False
    unknown: int = 0
    repeated: int = 0
    missing: int = 0


@dataclass(slots=True)
class FakeBatch:
    """A batch at the provider. `items` are (custom id, path, body) as they were sent."""

    id: str
    wire: str
    items: list[tuple[str, str, dict[str, Any]]]
    step: BatchStep
    file: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    created: float = field(default_factory=time.time)
    polled: int = 0
    lines: list[dict[str, Any]] | None = None
    errors: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return self.polled > self.step.polls


class FakeBatches:
    """All batches and files of one fake provider; a list of them comes in pages of `page`."""

    def __init__(self, tape: Iterable[BatchStep], answered: Answered) -> None:
        self.made: list[FakeBatch] = []
        self.page = 100
        self.files: dict[str, bytes] = {}
        self._tape, self._answered, self._lock = list(tape), answered, threading.RLock()

    def handle(self, method: str, path: str, body: bytes, content_type: str) -> tuple[int, bytes] | None:
        """(status, body) of a reply; None where the reply is lost on its way. Raises LookupError for other paths."""
        with self._lock:
            where, _, query = path.partition("?")
            told = parse_qs(query)
            behind = (told.get("after") or told.get("after_id") or [""])[0]
            for (wanted, pattern), work in self._routes(behind).items():
                if wanted == method and (found := re.fullmatch(r".*?/v1" + pattern, where)):
                    return work(*found.groups(), *([body, content_type] if method == "POST" else []))
        raise LookupError(path)

    def _routes(self, behind: str) -> dict[tuple[str, str], Callable[..., tuple[int, bytes] | None]]:
        return {
            ("POST", "/files"): self._upload,
            ("GET", "/files/([^/]+)/content"): self._content,
            ("POST", "/batches"): self._openai,
            ("GET", "/batches"): lambda: self._list("openai", behind),
            ("GET", "/batches/([^/]+)"): self._state,
            ("POST", "/messages/batches"): self._anthropic,
            ("GET", "/messages/batches"): lambda: self._list("anthropic", behind),
            ("GET", "/messages/batches/([^/]+)"): self._state,
            ("GET", "/messages/batches/([^/]+)/results"): self._results,
        }

    def _upload(self, body: bytes, content_type: str) -> tuple[int, bytes]:
        mark = content_type.partition("boundary=")[2].strip('"').encode()
        parts = [part for part in body.split(b"--" + mark) if b'name="file"' in part]
        if not parts:
            return _json({"error": {"message": "no file"}}, 400)
        name = f"file-{len(self.files) + 1}"
        self.files[name] = parts[0].partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
        return _json({"id": name, "object": "file", "purpose": "batch", "bytes": len(self.files[name])})

    def _content(self, name: str) -> tuple[int, bytes]:
        return (200, self.files[name]) if name in self.files else _json({"error": {"message": "no such file"}}, 404)

    def _openai(self, body: bytes, _: str) -> tuple[int, bytes] | None:
        asked = json.loads(body)
        rows = [json.loads(line) for line in self.files[asked["input_file_id"]].splitlines()]
        items = [(row["custom_id"], row["url"], row["body"]) for row in rows]
        batch = self._taken("openai", items)
        batch.file, batch.metadata = asked["input_file_id"], {} if batch.step.forget else asked.get("metadata") or {}
        return None if batch.step.lose_reply else _json(self._row(batch))

    def _anthropic(self, body: bytes, _: str) -> tuple[int, bytes] | None:
        rows = json.loads(body)["requests"]
        batch = self._taken("anthropic", [(row["custom_id"], "/v1/messages", row["params"]) for row in rows])
        return None if batch.step.lose_reply else _json(self._row(batch))

    def _taken(self, wire: str, items: list[tuple[str, str, dict[str, Any]]]) -> FakeBatch:
        step = self._tape.pop(0) if self._tape else BatchStep()
        self.made.append(FakeBatch(f"batch_{len(self.made) + 1}", wire, items, step))
        return self.made[-1]

    def _list(self, wire: str, behind: str) -> tuple[int, bytes]:
        batches = [batch for batch in reversed(self.made) if batch.wire == wire]
        names = [batch.id for batch in batches]
        batches = batches[names.index(behind) + 1 :] if behind in names else batches
        rows = [self._row(batch) for batch in batches[: self.page]]
        return _json({"object": "list", "data": rows, "has_more": len(batches) > self.page})

    def _state(self, name: str) -> tuple[int, bytes]:
        for batch in self.made:
            if batch.id == name:
                batch.polled += 1
                return _json(self._row(batch))
        return _json({"error": {"message": "no such batch"}}, 404)

    def _results(self, name: str) -> tuple[int, bytes]:
        batch = next(batch for batch in self.made if batch.id == name)
        self._work(batch)
        return 200, _lines(batch.lines or [])

    def _row(self, batch: FakeBatch) -> dict[str, Any]:
        make = self._openai_row if batch.wire == "openai" else self._anthropic_row
        return make(batch)

    def _openai_row(self, batch: FakeBatch) -> dict[str, Any]:
        row: dict[str, Any] = {
            "id": batch.id, "object": "batch", "input_file_id": batch.file, "metadata": batch.metadata,
            "created_at": int(batch.created), "request_counts": {"total": len(batch.items)},
            "status": batch.step.ends if batch.ended else "in_progress",
        }  # fmt: skip
        if batch.ended and batch.step.ends == "failed":
            row["errors"] = {"data": [{"code": batch.step.error, "message": f"scripted {batch.step.error}"}]}
        elif batch.ended:
            self._work(batch)
            for name, lines in (("output_file_id", batch.lines or []), ("error_file_id", batch.errors)):
                if lines:
                    self.files[f"{name}-{batch.id}"] = _lines(lines)
                    row[name] = f"{name}-{batch.id}"
        return row

    def _anthropic_row(self, batch: FakeBatch) -> dict[str, Any]:
        counts = {
            "processing": 0 if batch.ended else len(batch.items),
            "succeeded": len(batch.items) if batch.ended else 0,
        }
        return {
            "id": batch.id, "type": "message_batch", "request_counts": counts,
            "processing_status": "ended" if batch.ended else "in_progress",
            "created_at": datetime.fromtimestamp(batch.created, UTC).isoformat(),
        }  # fmt: skip

    def _work(self, batch: FakeBatch) -> None:
        """Answers (and bills) what is answered, once."""
        if batch.lines is not None:
            return
        step, errors = batch.step, batch.errors
        lines: list[dict[str, Any]] = []
        number = len(batch.items) - step.unanswered
        for index, (identity, path, body) in enumerate(batch.items[: len(batch.items) - step.missing]):
            if batch.wire == "openai":
                line, good = self._openai_line(identity, path, body, step, index < number)
                (lines if good else errors).append(line)
            else:
                lines.append(self._anthropic_line(identity, path, body, step, index < number))
        random.Random(0).shuffle(lines)
        lines += lines[: step.repeated]
        lines += [{**line, "custom_id": f"stranger-{index}"} for index, line in enumerate(lines[: step.unknown])]
        batch.lines = lines

    def _openai_line(
        self, identity: str, path: str, body: dict[str, Any], step: BatchStep, answered: bool
    ) -> tuple[dict[str, Any], bool]:
        line: dict[str, Any] = {"id": f"line-{identity[:8]}", "custom_id": identity, "response": None, "error": None}
        if not answered:
            line["error"] = {"code": f"batch_{step.ends}", "message": "not answered in time"}
            return line, False
        status, value = self._answered(path, body)
        line["response"] = {"status_code": status, "request_id": "fake", "body": value}
        return line, status == 200

    def _anthropic_line(
        self, identity: str, path: str, body: dict[str, Any], step: BatchStep, answered: bool
    ) -> dict[str, Any]:
        if not answered:
            return {"custom_id": identity, "result": {"type": {"cancelled": "canceled"}.get(step.ends, step.ends)}}
        status, value = self._answered(path, body)
        if status == 200:
            return {"custom_id": identity, "result": {"type": "succeeded", "message": value}}
        kinds = {
            400: "invalid_request_error",
            401: "authentication_error",
            429: "rate_limit_error",
            529: "overloaded_error",
        }
        named = (value.get("error") or {}).get("type") if isinstance(value, dict) else None
        kind = named if named not in (None, "scripted") else kinds.get(status, "api_error")
        error = {"type": "error", "error": {"type": kind, "message": f"scripted {status}"}}
        return {"custom_id": identity, "result": {"type": "errored", "error": error}}


def _json(value: Any, status: int = 200) -> tuple[int, bytes]:
    return status, json.dumps(value).encode()


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode("utf-8", "surrogatepass") + b"\n" for row in rows)
