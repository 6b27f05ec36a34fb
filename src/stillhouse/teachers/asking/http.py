"""One POST, and what can go wrong on the way, told apart by whether the bytes may have left."""

import asyncio
import importlib
import ipaddress
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from stillhouse.teachers.asking.faults import error_code, status_fault
from stillhouse.teachers.asking.wire import Fault

__all__ = ["Received", "Server", "Upload", "close_clients", "is_own", "pieces_of"]

_CONNECT_S = 20.0
_PIECE = 1 << 18
_BEFORE_SENDING = {
    "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol", "InvalidURL", "ConnectionTimeoutError",
    "ClientProxyConnectionError",
}  # fmt: skip
_NOBODY_THERE = {"ConnectError", "ClientConnectorError"}
_NOT_AN_ANSWER = {"DecodingError", "LocalProtocolError", "TooManyRedirects", "ClientResponseError"}


@dataclass(frozen=True, slots=True)
class Received:
    """A reply with status 200 that holds a JSON object."""

    value: dict[str, Any]
    raw: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Upload:
    """A body of `size` bytes, made anew by each call of `pieces`; `kind` is its content type."""

    pieces: Callable[[], Iterator[bytes]]
    size: int
    kind: str = "application/json"


@dataclass(slots=True)
class Server:
    """Where to post, through the HTTP client of the openai package.

    That client's own layer above HTTP (options, retries, response models) would cost as much again as the exchange:
    what it does is done elsewhere here. `key` goes as a bearer token, unless `headers` are given, which then carry it
    as that server wants it.
    """

    url: str
    key: str
    timeout: float
    headers: Mapping[str, str] = field(default_factory=dict)
    _client: Any = None
    _loop: Any = None

    async def post(self, path: str, body: dict[str, Any], *, wall: float) -> tuple[Received | Fault, bytes, int | None]:
        """What came back, its raw bytes and its status. The clock of the time-out starts here, not in a queue."""
        client = self._made()
        content = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8")
        where, _, query = self.url.partition("?")
        address = f"{where}{path}?{query}" if query else f"{where}{path}"
        try:
            async with asyncio.timeout(self.timeout):
                response = await client.post(address, content=content)
        except TimeoutError:
            return Fault("unknown_after_send", f"no complete reply within {self.timeout:g} s"), b"", None
        except _errors() as error:
            return _connection_fault(error), b"", None
        raw, status = response.content, response.status_code
        if not 200 <= status < 300:
            return status_fault(status, raw, response.headers, wall=wall), raw, status
        return _read(raw, response.headers), raw, status

    async def send(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        upload: Upload | None = None,
    ) -> tuple[bytes | Fault, int | None]:
        """The body of a reply of any kind: what batches and files need. `body` goes as JSON, an `upload` piece by piece."""
        client = self._made()
        where, _, query = self.url.partition("?")
        given: dict[str, Any] = {"content": json.dumps(body).encode() if body is not None else None}
        address = f"{where}{path}" + (f"{'&' if '?' in path else '?'}{query}" if query else "")
        try:
            async with asyncio.timeout(self.timeout) as deadline:
                if upload is not None:
                    headers = {"content-length": str(upload.size), "content-type": upload.kind}
                    given = {"content": _paced(upload, deadline, self.timeout), "headers": headers}
                response = await client.request(method, address, **given)
        except TimeoutError:
            return Fault("unknown_after_send", f"no complete reply within {self.timeout:g} s"), None
        except _errors() as error:
            return _connection_fault(error), None
        raw, status = response.content, response.status_code
        if not 200 <= status < 300:
            return status_fault(status, raw, response.headers, wall=time.time()), status
        return raw, status

    async def download(self, path: str, into: BinaryIO) -> Fault | None:
        """Writes the body of a reply as it comes, whatever its size; the clock of the time-out starts anew with each piece."""
        client, clock = self._made(), asyncio.get_running_loop()
        where, _, query = self.url.partition("?")
        try:
            async with asyncio.timeout(self.timeout) as deadline:
                async with client.stream("GET", f"{where}{path}{'?' if query else ''}{query}") as response:
                    if not 200 <= response.status_code < 300:
                        return status_fault(
                            response.status_code, await response.aread(), response.headers, wall=time.time()
                        )
                    async for piece in response.aiter_bytes():
                        into.write(piece)
                        deadline.reschedule(clock.time() + self.timeout)
        except TimeoutError:
            return Fault("unknown_after_send", f"nothing came for {self.timeout:g} s")
        except _errors() as error:
            return _connection_fault(error)
        return None

    async def call(self, method: str, path: str, **what: Any) -> dict[str, Any] | Fault:
        """What `send` brings, where that is a JSON object."""
        received, _ = await self.send(method, path, **what)
        if isinstance(received, Fault):
            return received
        try:
            value = json.loads(received)
        except (ValueError, RecursionError):
            value = None
        return value if isinstance(value, dict) else Fault("protocol", f"{method} {path}: no JSON object came back")

    def _made(self) -> Any:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:  # connections belong to the loop they were made in
            import openai

            self._loop = loop
            given = self.headers or {"authorization": f"Bearer {self.key or 'none'}"}
            # the aiohttp transport: the other one's parser, in Python, would be more work than all the rest of a request
            self._client = openai.DefaultAioHttpClient(
                headers={"content-type": "application/json", "accept": "application/json", **given},
                timeout=openai.Timeout(self.timeout, connect=min(_CONNECT_S, self.timeout)),
            )
            _open.setdefault(loop, []).append(self._client)
        return self._client


def pieces_of(file: Path) -> Iterator[bytes]:
    """A file, a piece at a time."""
    with file.open("rb") as source:
        while piece := source.read(_PIECE):
            yield piece


async def _paced(upload: Upload, deadline: asyncio.Timeout, seconds: float) -> AsyncIterator[bytes]:
    """The clock of the time-out starts anew with each piece that the server has taken."""
    clock = asyncio.get_running_loop()
    for piece in upload.pieces():
        deadline.reschedule(clock.time() + seconds)
        yield piece


_open: dict[asyncio.AbstractEventLoop, list[Any]] = {}


async def close_clients() -> None:
    """Closes the connections that were made in this loop, which is about to end."""
    for client in _open.pop(asyncio.get_running_loop(), []):
        await client.aclose()


@cache
def _errors() -> tuple[type[Exception], ...]:
    """What the HTTP library under the openai package raises, whichever it is, and what its transport lets through."""
    import aiohttp
    import openai

    base = next(kind for kind in openai.DefaultAsyncHttpxClient.__mro__ if kind.__name__ == "AsyncClient")
    http = importlib.import_module(base.__module__.partition(".")[0])
    return http.RequestError, http.InvalidURL, aiohttp.ClientError


def is_own(url: str) -> bool:
    """A server on this machine or in this network: no key needed, nothing to pay."""
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or "." not in host or host.endswith((".local", ".localhost", ".internal"))
    return address.is_loopback or address.is_private


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
    """By the error of the transport, which knows more than what the HTTP client makes of it."""
    told = error.__cause__ if type(error.__cause__).__module__.startswith("aiohttp") else error
    names, text = {kind.__name__ for kind in type(told).__mro__}, f"{type(told).__name__}: {told}"[:300]
    if names & _BEFORE_SENDING:
        return Fault("transient", text)
    if names & _NOBODY_THERE:
        return Fault("refused_connection", text)
    return Fault("protocol" if names & _NOT_AN_ANSWER else "unknown_after_send", text)
