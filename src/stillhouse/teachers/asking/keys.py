"""The key of a request: everything that can change its answer, and nothing that cannot.

Left out on purpose: API keys, time-outs, concurrency, retry policy, prices, the run, row ids and tags, and how the
answer is carried (online or by batch). The golden keys in the tests pin the form: a change here makes every user's
store unread.
"""

import hashlib
import json
from functools import lru_cache
from json.encoder import encode_basestring as _quoted
from typing import Any
from urllib.parse import urlsplit

from stillhouse.teachers.base import Identity, Request, Sampling

__all__ = [
    "canonical_json",
    "derived_seed",
    "is_address",
    "key_of",
    "normalised_url",
    "request_body",
    "request_key",
    "request_v1",
    "text_fault",
]

KEY_SCHEMA = 1
_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def canonical_json(value: Any) -> str:
    """One spelling per value: sorted names, no blanks, non-ASCII kept. NaN and infinity are refused with ValueError."""
    return _CANONICAL.encode(value)


def request_v1(identity: Identity, request: Request) -> dict[str, Any]:
    """What is hashed. Local weights are known by their content, so a folder that is moved keeps its answers."""
    sampling, local = request.sampling, identity.wire in ("hf-local", "vllm-offline")
    body: dict[str, Any] = {
        "schema": KEY_SCHEMA,
        "wire": identity.wire,
        "endpoint": identity.endpoint,
        "model": "" if local else identity.model,
        "revision": identity.revision,
        "settings": dict(identity.settings),
        "messages": [[message.role, message.content] for message in request.messages],
        "temperature": float(sampling.temperature),
        "top_p": float(sampling.top_p),
        "max_tokens": int(sampling.max_tokens),
        "stop": list(sampling.stop),
        "seed": int(sampling.seed),
        "sample_index": int(request.sample_index),
    }
    if request.response_schema is not None:
        body["response_schema"] = _sha256(canonical_json(request.response_schema))
    if request.scored is not None:
        body["scored"] = request.scored
    if request.scored is not None or request.top_logprobs:
        body["top_logprobs"] = request.top_logprobs
    if identity.wire == "scripted":  # the one backend that may read `expected`
        body["expected"] = request.expected
    for name in dict(identity.settings).get("dropped", "").split(","):
        body.pop(name, None)  # not sent, so it cannot change the answer
    return body


def request_body(identity: Identity, request: Request) -> str:
    """`canonical_json(request_v1(...))`, the text that is hashed and stored.

    Of the requests of one step only the messages and the sample differ, so the rest is written once.
    """
    plain = request.response_schema is None and request.scored is None and not request.top_logprobs
    if not plain or identity.wire == "scripted":
        return canonical_json(request_v1(identity, request))
    head, middle, tail = _frame(identity, request.sampling)
    turns = ",".join([f"[{_quoted(turn.role)},{_quoted(turn.content)}]" for turn in request.messages])
    return f"{head}[{turns}]{middle}{int(request.sample_index)}{tail}"


@lru_cache(maxsize=64)
def _frame(identity: Identity, sampling: Sampling) -> tuple[str, str, str]:
    """What stands before the messages, between them and the sample index, and behind it."""
    whole = canonical_json(request_v1(identity, Request((), sampling)))
    messages, sample = '"messages":', '"sample_index":'  # a quote inside a string is escaped, so these are the names
    head, _, rest = whole.partition(f"{messages}[]")
    middle, _, tail = rest.partition(f"{sample}0")
    return head + messages, middle + sample, tail


def request_key(identity: Identity, request: Request) -> str:
    """64 hex digits: also exactly what the narrowest batch interface takes as `custom_id`."""
    return key_of(request_body(identity, request))


def key_of(body: str) -> str:
    """The key of a request whose `request_body` is given."""
    return _sha256(body)


def derived_seed(key: str) -> int:
    """The 63-bit seed that belongs to a request: a function of its key, so it needs no place in it."""
    return int(_sha256(key)[:16], 16) >> 1


def text_fault(request: Request) -> str | None:
    """Why the text of a request cannot be stored or sent (NUL, lone surrogate); None where it can. No repair is tried."""
    for text in (*(message.content for message in request.messages), *request.sampling.stop, request.scored or ""):
        if "\x00" in text:
            return "the prompt holds a NUL character"
        if not text.isascii():
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                return f"the prompt holds a lone surrogate at character {error.start}"
    return None


def is_address(url: str) -> bool:
    """Whether an HTTP server can be asked there at all."""
    try:
        parts = urlsplit(url.strip())
        return parts.scheme.lower() in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port beyond 65535, half an IPv6 address
        return False


def normalised_url(url: str) -> str:
    """Scheme and host in lower case, no default port, no credentials, no trailing slash: one endpoint, one spelling."""
    parts = urlsplit(url.strip())
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    if parts.port and (parts.scheme.lower(), parts.port) not in {("http", 80), ("https", 443)}:
        host = f"{host}:{parts.port}"
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme.lower()}://{host}{parts.path.rstrip('/')}{query}"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
