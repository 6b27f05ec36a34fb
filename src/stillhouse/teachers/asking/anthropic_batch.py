"""Anthropic's message batches: the requests go in one body, the results come as lines."""

import json
from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any, BinaryIO

from stillhouse.teachers.asking.faults import error_code, plain, status_fault
from stillhouse.teachers.asking.hosted import Hosted
from stillhouse.teachers.asking.http import Received, Upload, pieces_of
from stillhouse.teachers.asking.keys import canonical_json
from stillhouse.teachers.asking.listing import AGE_S, listed, mapping
from stillhouse.teachers.asking.wire import BatchState, Fault, Reply, Submission
from stillhouse.teachers.base import Request

__all__ = ["AnthropicBatches"]

# an error inside a result has a type and no status
_STATUS = {
    "invalid_request_error": 400, "authentication_error": 401, "billing_error": 402, "permission_error": 403,
    "not_found_error": 404, "request_too_large": 413, "rate_limit_error": 429, "timeout_error": 504, "overloaded_error": 529,
}  # fmt: skip


class AnthropicBatches:
    """The `Batches` protocol for one anthropic teacher. At most 100,000 requests and 256 MB to a batch, done within 24 hours.

    The interface takes no metadata: a batch whose id was never written down is known by its time, its size and, once it
    has ended, by the ids of its results.
    """

    most_items = 100_000
    most_bytes = 256 * 1000 * 1000

    def __init__(self, teacher: Hosted) -> None:
        self._teacher = teacher

    def line(self, key: str, request: Request, seed: int) -> bytes:
        return canonical_json({"custom_id": key, "params": self._teacher.body(request, seed)}).encode("utf-8")

    async def submit(self, submission: Submission) -> str | Fault:
        made = await self._teacher.connected().call("POST", "/messages/batches", upload=_body(submission))
        if isinstance(made, Fault):
            return made
        return plain(made.get("id")) or Fault("unknown_after_send", "the batch came back without an id")

    async def find(self, submission: Submission, others: Collection[str]) -> str | Fault | None:
        """One of the right size that was made since; whether it is ours its results say (the caller compares their ids)."""
        server = self._teacher.connected()
        async for row in listed(
            server, "/messages/batches", after="after_id", created=_created, since=submission.created
        ):
            if isinstance(row, Fault):
                return row
            counts = mapping(row.get("request_counts"))
            number = sum(value for value in counts.values() if isinstance(value, int))
            recent = _created(row) >= submission.created - AGE_S
            if recent and number == submission.number and row.get("id") not in others:
                return str(row["id"])
        return None

    async def state(self, batch: str) -> BatchState | Fault:
        row = await self._teacher.connected().call("GET", f"/messages/batches/{batch}")
        if isinstance(row, Fault):
            return row
        told = plain(row.get("processing_status"))
        return BatchState(told == "ended", told)

    async def results(self, batch: str, into: BinaryIO) -> Fault | None:
        return await self._teacher.connected().download(f"/messages/batches/{batch}/results", into)

    def read(self, line: dict[str, Any], request: Request, raw: bytes) -> Reply:
        result = mapping(line.get("result"))
        kind = result.get("type")
        if kind == "succeeded" and isinstance(result.get("message"), dict):
            return self._teacher.reply(request, Received(result["message"], raw, {}))
        if kind == "expired":
            return Reply(Fault("expired", "the batch ran out of time"), raw)
        if kind == "canceled":
            return Reply(Fault("cancelled", "the batch was cancelled"), raw)
        if kind == "errored":
            body = json.dumps(result.get("error")).encode()
            codes, _ = error_code(body)
            told = [_STATUS[code] for code in codes if code in _STATUS]
            status = told[0] if told else 400 if "invalid_request_error" in body.decode() else 500
            return Reply(status_fault(status, body, {}, wall=0.0), raw, status)
        return Reply(Fault("protocol", f"a result of the type {plain(str(kind))}"), raw)


def _body(submission: Submission) -> Upload:
    """All lines as one JSON list: each line end becomes a comma, the last one none (inside JSON a line end is escaped)."""
    head, tail, size = b'{"requests":[', b"]}", submission.file.stat().st_size - 1

    def pieces() -> Iterator[bytes]:
        yield head
        left = size
        for piece in pieces_of(submission.file):
            yield piece[:left].replace(b"\n", b",")
            left -= len(piece)
        yield tail

    return Upload(pieces, len(head) + size + len(tail))


def _created(row: dict[str, Any]) -> float:
    try:
        return datetime.fromisoformat(str(row.get("created_at"))).timestamp()
    except (ValueError, OverflowError):
        return 0.0
