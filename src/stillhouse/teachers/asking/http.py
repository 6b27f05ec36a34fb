"""One POST, and what can go wrong on the way, told apart by whether the bytes may have left."""

import asyncio
import importlib
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from stillhouse.teachers.asking.faults import error_code, status_fault
from stillhouse.teachers.asking.wire import Fault

__all__ = ["Received", "Server", "is_own"]

_CONNECT_S = 20.0
_BEFORE_SENDING = {"ConnectTimeout", "PoolTimeout", "ConnectError", "ProxyError", "UnsupportedProtocol"}
_NOT_AN_ANSWER = {"DecodingError", "LocalProtocolError"}


@dataclass(frozen=True, slots=True)
class Received:
    """A reply with status 200 that holds a JSON object."""

    value: dict[str, Any]
    raw: bytes
    headers: Mapping[str, str]


@dataclass(slots=True)
class Server:
    """Where to post, through the client of the openai package, its own retries off.

    `key` goes as a bearer token, unless `headers` are given, which then carry it as that server wants it.
    """

    url: str
    key: str
    timeout: float
    headers: Mapping[str, str] = field(default_factory=dict)
    _client: Any = None
    _loop: Any = None

    async def post(self, path: str, body: dict[str, Any], *, wall: float) -> tuple[Received | Fault, bytes, int | None]:
        """What came back, its raw bytes and its status. The clock of the time-out starts here, not in a queue."""
        import openai

        try:
            async with asyncio.timeout(self.timeout):
                options = {"headers": {"Authorization": openai.Omit(), **self.headers}} if self.headers else {}
                made = self._made(openai)
                response = await made.post(path, cast_to=_response_class(openai), body=body, options=options)
            return _read(response.content, response.headers), response.content, response.status_code
        except openai.APIStatusError as error:
            raw, headers = error.response.content, error.response.headers
            return status_fault(error.status_code, raw, headers, wall=wall), raw, error.status_code
        except TimeoutError:
            return Fault("unknown_after_send", f"no complete reply within {self.timeout:g} s"), b"", None
        except openai.APIConnectionError as error:
            return _connection_fault(error), b"", None
        except openai.APIError as error:
            return Fault("protocol", f"{type(error).__name__}: {error}"[:300]), b"", None

    def _made(self, openai: Any) -> Any:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:  # connections belong to the loop they were made in
            self._loop = loop
            timeout = openai.Timeout(self.timeout, connect=min(_CONNECT_S, self.timeout))
            self._client = openai.AsyncOpenAI(
                api_key=self.key or "none", base_url=self.url, max_retries=0, timeout=timeout
            )
        return self._client


def is_own(url: str) -> bool:
    """A server on this machine or in this network: no key needed, nothing to pay."""
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or "." not in host or host.endswith((".local", ".localhost", ".internal"))
    return address.is_loopback or address.is_private


def _response_class(openai: Any) -> Any:
    """The response class of the HTTP library under the openai package, whichever it is."""
    base = next(kind for kind in openai.DefaultAsyncHttpxClient.__mro__ if kind.__name__ == "AsyncClient")
    return importlib.import_module(base.__module__.partition(".")[0]).Response


def _read(raw: bytes, headers: Mapping[str, str]) -> Received | Fault:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        kind = headers.get("content-type", "no content type")
        return Fault("protocol", f"status 200, but no JSON ({kind})")
    if not isinstance(value, dict):
        return Fault("protocol", f"status 200, but the JSON is a {type(value).__name__}")
    if value.get("error"):
        codes, message = error_code(raw)
        return Fault("protocol", f"status 200 with an error inside: {' '.join(sorted(codes))} {message}".strip())
    return Received(value, raw, headers)


def _connection_fault(error: Exception) -> Fault:
    cause = error.__cause__ or error
    name = type(cause).__name__
    if name in _BEFORE_SENDING:
        return Fault("refused_connection" if name == "ConnectError" else "transient", f"{name}: {cause}"[:300])
    if name in _NOT_AN_ANSWER:
        return Fault("protocol", f"{name}: {cause}"[:300])
    return Fault("unknown_after_send", f"{name}: {cause}"[:300])
