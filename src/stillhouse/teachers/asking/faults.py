"""Which fault a status and an error code are, and how long a server asks to be left alone.

Decided by the status and the provider's own code or type, never by words in a message: "rate" is also in "temperature".
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from stillhouse.teachers.asking.wire import Fault, FaultKind

__all__ = ["error_code", "plain", "retry_after", "status_fault"]

_QUOTA = {
    "insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "budget_exceeded", "quota_exceeded",
    "billing_error", "insufficient_credits", "insufficient_balance",
}  # fmt: skip
_OVERFLOW = {"context_length_exceeded", "string_above_max_length", "request_too_large", "prompt_too_long"}
_FILTERED = {"content_filter", "content_policy_violation", "responsibleaipolicyviolation", "invalid_prompt"}
_STATUS: dict[int, FaultKind] = {
    401: "auth", 402: "quota", 403: "auth", 404: "auth", 408: "transient", 409: "transient", 413: "context_overflow",
    425: "transient", 429: "rate_limit", 499: "transient", 529: "transient",
}  # fmt: skip
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def status_fault(status: int, body: bytes, headers: Mapping[str, str], *, wall: float) -> Fault:
    """The fault behind a status of 400 or more. Raises nothing, whatever the body holds."""
    codes, message = error_code(body)
    detail = (
        f"HTTP {status}" + (f" ({', '.join(sorted(codes))})" if codes else "") + (f": {message}" if message else "")
    )
    if codes & _QUOTA:
        kind: FaultKind = "quota"
    elif codes & _OVERFLOW:
        kind = "context_overflow"
    elif codes & _FILTERED:
        kind = "refused"
    else:
        kind = _STATUS.get(status, "transient" if status >= 500 else "bad_request")
    wait = retry_after(headers, wall=wall) if kind in ("rate_limit", "transient") else None
    return Fault(kind, detail[:500], wait)


def error_code(body: bytes) -> tuple[set[str], str]:
    """The codes and types a provider put in its error, in lower case, and its message."""
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError):
        return set(), ""
    error = value.get("error", value) if isinstance(value, dict) else value
    if not isinstance(error, dict):
        return set(), plain(str(error))
    inner = error.get("innererror")
    found = [error.get("code"), error.get("type"), inner.get("code") if isinstance(inner, dict) else None]
    codes = {plain(text).lower() for text in found if text not in ("error", "invalid_request_error")} - {""}
    message = error.get("message", error.get("detail", ""))
    return codes, plain(message if isinstance(message, str) else str(message))


def plain(told: object) -> str:
    """What a server calls something, as it may be printed and stored: at most 300 characters without NUL and halves of
    characters; empty for what is no text.
    """
    text = told[:300] if isinstance(told, str) else ""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "\ufffd")


def retry_after(headers: Mapping[str, str], *, wall: float) -> float | None:
    """Seconds to wait, never negative; None where the server says nothing that can be read.

    Forms: retry-after-ms, Retry-After in seconds or as an HTTP date, x-ratelimit-reset-* as a duration (`6m0s`), and
    anthropic-ratelimit-*-reset as a date. Of several resets the longest holds.
    """
    lower = {name.lower(): value.strip() for name, value in headers.items()}
    milliseconds = _number(lower.get("retry-after-ms", ""))
    if milliseconds is not None:
        return max(0.0, milliseconds / 1000)
    if "retry-after" in lower:
        seconds = _number(lower["retry-after"])
        found = seconds if seconds is not None else _until(lower["retry-after"], wall)
        return None if found is None else max(0.0, found)
    waits = [_reset(value, wall) for name, value in lower.items() if "ratelimit" in name and "reset" in name]
    known = [wait for wait in waits if wait is not None]
    return max(0.0, *known) if known else None


def bucket_wait(headers: Mapping[str, str], tokens: int, *, wall: float) -> float:
    """Seconds until a reply's buckets hold another request and `tokens` more tokens; 0 where they do, or nothing is said.

    A reset is when the bucket is full again; it fills evenly, so of that only the share that is missing is waited for.
    """
    wait = 0.0
    lower = {name.lower(): value.strip() for name, value in headers.items() if "ratelimit" in name.lower()}
    for name, value in lower.items():
        left = _number(value) if "remaining" in name else None
        need = tokens if "token" in name else 1
        if left is None or left >= need:
            continue
        full = max(0.0, _reset(lower.get(name.replace("remaining", "reset"), ""), wall) or 0.0)
        limit = _number(lower.get(name.replace("remaining", "limit"), "")) or 0.0
        wait = max(wait, full * min(1.0, (need - left) / (limit - left)) if limit > left else full)
    return wait


def _reset(value: str, wall: float) -> float | None:
    parts = _DURATION.findall(value)
    if parts and "".join(number + unit for number, unit in parts) == value:
        return sum(float(number) * _UNIT[unit] for number, unit in parts)
    return _number(value) if _number(value) is not None else _until(value, wall)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value == value and abs(value) != float("inf") else None


def _until(text: str, wall: float) -> float | None:
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        try:
            when = datetime.fromisoformat(text)
        except ValueError:
            return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return when.timestamp() - wall
