"""OpenAI's batch interface: a file of requests is uploaded, a batch is made of it, its answers come as files."""

import hashlib
import json
from collections.abc import Collection, Iterator
from typing import Any, BinaryIO

from stillhouse.teachers.asking.faults import plain, status_fault
from stillhouse.teachers.asking.hosted import Hosted
from stillhouse.teachers.asking.http import Received, Upload, pieces_of
from stillhouse.teachers.asking.keys import canonical_json
from stillhouse.teachers.asking.listing import AGE_S, listed, mapping
from stillhouse.teachers.asking.wire import BatchState, Fault, Reply, Submission
from stillhouse.teachers.base import Request

__all__ = ["OpenAIBatches"]

_ENDED = {"completed", "failed", "expired", "cancelled"}
_QUEUE_FULL = {"token_limit_exceeded"}  # too many tokens wait in the provider's queue already


class OpenAIBatches:
    """The `Batches` protocol for one openai teacher. At most 50,000 requests and 200 MB to a batch, done within 24 hours."""

    most_items = 50_000
    most_bytes = 200 * 1000 * 1000

    def __init__(self, teacher: Hosted) -> None:
        self._teacher = teacher

    def line(self, key: str, request: Request, seed: int) -> bytes:
        body = self._teacher.body(request, seed)
        line = {"custom_id": key, "method": "POST", "url": f"/v1{self._teacher.path()}", "body": body}
        return canonical_json(line).encode("utf-8")

    async def submit(self, submission: Submission) -> str | Fault:
        sent = await self._teacher.connected().call("POST", "/files", upload=_form(submission))
        if isinstance(sent, Fault):
            # a file alone costs nothing: whatever became of it, another may be uploaded
            return Fault("transient", sent.detail) if sent.kind == "unknown_after_send" else sent
        body = {
            "input_file_id": str(sent.get("id")), "endpoint": f"/v1{self._teacher.path()}", "completion_window": "24h",
            "metadata": {"local_id": submission.local_id},
        }  # fmt: skip
        made = await self._teacher.connected().call("POST", "/batches", body=body)
        if isinstance(made, Fault):
            return made
        return plain(made.get("id")) or Fault("unknown_after_send", "the batch came back without an id")

    async def find(self, submission: Submission, others: Collection[str]) -> str | Fault | None:
        """By the `local_id` in its metadata, else by the hash of its input file."""
        server = self._teacher.connected()
        async for row in listed(server, "/batches", after="after", created=_created, since=submission.created):
            found = row if isinstance(row, Fault) else row.get("id") not in others and await self._is(row, submission)
            if isinstance(found, Fault):
                return found
            if found:
                return str(row["id"])  # type: ignore[index]
        return None

    async def _is(self, row: dict[str, Any], submission: Submission) -> bool | Fault:
        told = mapping(row.get("metadata")).get("local_id")
        if told is not None:
            return bool(told == submission.local_id)
        counted = mapping(row.get("request_counts")).get("total")
        if _created(row) < submission.created - AGE_S or counted not in (
            0,
            submission.number,
            None,
        ):
            return False
        content = await self._content(str(row.get("input_file_id")))
        if isinstance(content, Fault):
            return False if content.kind in ("auth", "bad_request") else content
        return hashlib.sha256(content).hexdigest() == submission.sha256

    async def state(self, batch: str) -> BatchState | Fault:
        row = await self._teacher.connected().call("GET", f"/batches/{batch}")
        if isinstance(row, Fault):
            return row
        told = plain(row.get("status"))
        return BatchState(told in _ENDED, told, _failed(row) if told == "failed" else None)

    async def results(self, batch: str, into: BinaryIO) -> Fault | None:
        """The output file and the error file; either may be missing."""
        row = await self._teacher.connected().call("GET", f"/batches/{batch}")
        if isinstance(row, Fault):
            return row
        for name in ("output_file_id", "error_file_id"):
            if row.get(name):
                fault = await self._teacher.connected().download(f"/files/{row[name]}/content", into)
                if fault is not None:
                    return fault
                into.write(b"\n")
        return None

    def read(self, line: dict[str, Any], request: Request, raw: bytes) -> Reply:
        error, response = line.get("error"), line.get("response")
        if isinstance(error, dict) and error.get("code") in ("batch_expired", "batch_cancelled"):
            return Reply(
                Fault("expired" if error["code"] == "batch_expired" else "cancelled", plain(error.get("message"))), raw
            )
        if not isinstance(response, dict):
            return Reply(Fault("protocol", f"the line holds no response: {plain(str(error))}"), raw)
        status, body = response.get("status_code"), response.get("body")
        if isinstance(status, int) and 300 <= status < 1000:
            return Reply(status_fault(status, json.dumps(body).encode(), {}, wall=0.0), raw, status)
        if not isinstance(body, dict) or body.get("error"):
            return Reply(Fault("protocol", "status 200 with an error inside or without a body"), raw, 200)
        return self._teacher.reply(request, Received(body, raw, {}))

    async def _content(self, file: str) -> bytes | Fault:
        received, _ = await self._teacher.connected().send("GET", f"/files/{file}/content")
        return received


def _form(submission: Submission) -> Upload:
    """The fields `purpose` and `file` of a form (RFC 7578); the boundary is an id that was drawn for this batch."""
    mark = f"stillhouse-{submission.local_id}"
    head = (
        f'--{mark}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{mark}.jsonl"\r\n'
        "Content-Type: application/jsonl\r\n\r\n"
    ).encode()
    tail = f"\r\n--{mark}--\r\n".encode()

    def pieces() -> Iterator[bytes]:
        yield head
        yield from pieces_of(submission.file)
        yield tail

    size = len(head) + submission.file.stat().st_size + len(tail)
    return Upload(pieces, size, f"multipart/form-data; boundary={mark}")


def _created(row: dict[str, Any]) -> float:
    told = row.get("created_at")
    return float(told) if isinstance(told, int | float) else 0.0


def _failed(row: dict[str, Any]) -> Fault:
    """Why a batch was not taken: the provider checks the whole file before it works on any of it."""
    told = mapping(row.get("errors")).get("data")
    errors = told if isinstance(told, list) else []
    first = mapping(errors[0]) if errors else {}
    code, message = plain(first.get("code")), plain(first.get("message")) or "no reason given"
    told = f"{len(errors)} errors, the first: {code} {message}".strip()[:400]
    if code in _QUEUE_FULL:
        return Fault("rate_limit", told)
    fault = status_fault(400, json.dumps({"error": {"code": code}}).encode(), {}, wall=0.0)
    return Fault(fault.kind if fault.kind == "quota" else "bad_request", told)
