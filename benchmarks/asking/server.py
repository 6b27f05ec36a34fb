"""The fake provider in a process of its own, so that its work is not the client's. Ends when its input does.

    python benchmarks/asking/server.py [LATENCY_S] [CEILING]

With a latency it is the provider as it ships, with a thread to a connection. Answering at once it gives the provider's
replies over asyncio's bare transport: Python's `http.server` takes 1.6 ms a request, and would be what is measured.
"""

import asyncio
import json
import sys
import threading

from stillhouse.testing.provider import FakeProvider, Step, status

REPLY = "The answer is four, because two and two are four, as everybody knows who has counted apples. " * 3


class Limited(FakeProvider):
    """Takes `latency` seconds over an answer; more than `ceiling` at once are told "too many", and nothing else."""

    def __init__(self, latency: float, ceiling: int) -> None:
        super().__init__(REPLY)
        self.latency, self.ceiling, self.refused = latency, ceiling, 0

    def step(self, prompt: str) -> Step:
        if self.ceiling and self.out > self.ceiling:
            self.refused += 1
            return status(429)
        return Step(delay=self.latency)


class AtOnce(asyncio.Protocol):
    """A request comes with its length and is answered in one write; connections stay open."""

    provider = FakeProvider(REPLY)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self._held = transport, b""

    def data_received(self, data: bytes) -> None:
        self._held += data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            head = self._held[:end].lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
            if len(self._held) < end + 4 + length:
                return
            body = json.loads(self._held[end + 4 : end + 4 + length] or b"{}")
            self._held = self._held[end + 4 + length :]
            _, reply = self.provider._answered("/v1/chat/completions", body)
            payload = json.dumps(reply).encode()
            headers = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(payload)
            self._transport.write(headers + payload)


async def at_once() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(AtOnce, "127.0.0.1", 0, backlog=256)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    ended = asyncio.Event()

    def wait() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=wait, daemon=True).start()
    await ended.wait()


def main() -> None:
    if len(sys.argv) < 3:
        asyncio.run(at_once())
        return
    with Limited(float(sys.argv[1]), int(sys.argv[2])) as provider:
        print(provider.url, flush=True)
        sys.stdin.read()
        print(f"{len(provider.requests)} {provider.refused} {provider.most_out}", flush=True)


if __name__ == "__main__":
    main()
