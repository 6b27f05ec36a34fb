"""Requests per second of the whole call layer against a server that answers at once, beside what others make of it.

The layer keys, leases, stores durably, parses, accounts and keeps the order; the bare openai client with asyncio.gather
does none of that. distilabel's client and bespokelabs-curator run in environments of their own, which are made in the
folder `--peers` where they are not there yet (a gigabyte each). Contestants take turns; a ratio is the median of the
ratios of neighbours; processor time per request is told too, which does not see what else the machine does. The server
alone is a plain socket loop that reads no JSON: what the fake provider itself can give.

    python benchmarks/calls_throughput.py [--peers FOLDER] [--requests 1000] [--at-once 32] [--turns 5]
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from timing.record import RESULTS, about, ratios, write

from stillhouse.records import user
from stillhouse.teachers import openai
from stillhouse.teachers.base import Answer, Request, Sampling
from stillhouse.teachers.calls import Calls

HERE = Path(__file__).resolve().parent
PEERS = {"distilabel": ["distilabel[openai]", "requests"], "curator": ["bespokelabs-curator"]}
MEASURED = ("src/stillhouse/teachers", "benchmarks/asking")
TARGETS = {"bare openai client": 0.7, "the better peer": 2.0}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="where the peers' environments are or go; left out: no peers")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    number, at_once = options.requests, options.at_once
    with served() as url:
        contestants: dict[str, Callable[[], tuple[float, float]]] = {
            "server alone": lambda: asyncio.run(_alone(url, number, at_once)),
            "bare openai client": lambda: asyncio.run(_bare(url, number, at_once)),
            "stillhouse": lambda: _ours(url, number, at_once),
        }
        for name in PEERS if options.peers else ():
            python = _environment(options.peers, name)
            contestants[name] = lambda python=python, name=name: _peer(python, name, url, number, at_once)
        rates: dict[str, list[float]] = {name: [] for name in contestants}
        work: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(options.turns):
            for name, contestant in contestants.items():
                seconds, cpu = contestant()
                rates[name].append(number / seconds)
                work[name].append(1000 * cpu / number)
                print(
                    f"{name:<20} {rates[name][-1]:8.0f} requests/s {work[name][-1]:8.2f} ms of processor each",
                    flush=True,
                )
    against = {name: ratios(rates["stillhouse"], other) for name, other in rates.items() if name != "stillhouse"}
    reached = {"bare openai client": against["bare openai client"]["median"]}
    if options.peers:
        reached["the better peer"] = min(against[name]["median"] for name in PEERS)
    result = about("calls_throughput", threads=1, seed=0, forced=True, paths=MEASURED, packages=("openai", "httpx2"))
    peers = "--peers FOLDER " if options.peers else ""
    result["command"] = (
        f"python benchmarks/calls_throughput.py {peers}--requests {number} --at-once {at_once} --turns {options.turns}"
    )
    result |= {"requests": number, "at_once": at_once, "requests_per_second": rates, "stillhouse_over": against}
    result["cpu_ms_per_request"] = work
    result["medians"] = {
        name: {"requests_per_second": statistics.median(rates[name]), "cpu_ms": statistics.median(work[name])}
        for name in rates
    }
    result["cpu_of_others_over_stillhouse"] = {name: ratios(work[name], work["stillhouse"]) for name in rates}
    write(RESULTS / "calls_throughput.json", {**result, "targets": TARGETS, "reached": reached})
    print(reached)
    return 0 if all(reached[name] >= TARGETS[name] for name in reached) else 1


@contextmanager
def served(*knobs: str) -> Iterator[str]:
    """The address of a fake provider in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "asking" / "server.py"), *knobs],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait(30)


def _prompt(index: int) -> str:
    return f"question {index}: what is two and two, and why? " * 3


def _ours(url: str, number: int, at_once: int) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder, Calls(folder) as calls:
        backend = openai.Teacher(model="fake", base_url=url, max_concurrency=at_once)
        teacher = calls.teacher("t", backend, Sampling(max_tokens=64))
        list(teacher.ask(Request(user(f"warm {index}"), teacher.sampling) for index in range(20)))
        began, worked = time.perf_counter(), time.process_time()
        asked = teacher.ask(Request(user(_prompt(index)), teacher.sampling) for index in range(number))
        assert sum(isinstance(outcome.result, Answer) for outcome in asked) == number
        return time.perf_counter() - began, time.process_time() - worked


async def _bare(url: str, number: int, at_once: int) -> tuple[float, float]:
    from openai import AsyncOpenAI

    async with AsyncOpenAI(api_key="x", base_url=url, max_retries=0) as client:
        seats = asyncio.Semaphore(at_once)

        async def once(prompt: str) -> str:
            async with seats:
                reply = await client.chat.completions.create(
                    model="fake", max_tokens=64, temperature=0, messages=[{"role": "user", "content": prompt}]
                )
            return reply.choices[0].message.content or ""

        await asyncio.gather(*(once(f"warm {index}") for index in range(20)))
        began, worked = time.perf_counter(), time.process_time()
        texts = await asyncio.gather(*(once(_prompt(index)) for index in range(number)))
        assert all(texts)
        return time.perf_counter() - began, time.process_time() - worked


async def _alone(url: str, number: int, at_once: int) -> tuple[float, float]:
    host, _, port = url.removeprefix("http://").removesuffix("/v1").partition(":")
    body = b'{"model":"fake","messages":[{"role":"user","content":"' + _prompt(1).encode() + b'"}]}'
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n".encode()

    async def connection(share: int) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        for _ in range(share):
            writer.write(head + body)
            headers = await reader.readuntil(b"\r\n\r\n")
            length = int(headers.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
        writer.close()

    began, worked = time.perf_counter(), time.process_time()
    await asyncio.gather(*(connection(number // at_once) for _ in range(at_once)))
    whole = number / (number // at_once * at_once)
    return (time.perf_counter() - began) * whole, (time.process_time() - worked) * whole


def _peer(python: Path, name: str, url: str, number: int, at_once: int) -> tuple[float, float]:
    command = [str(python), str(HERE / "asking" / "peers.py"), name, url, str(number), str(at_once)]
    done = subprocess.run(command, capture_output=True, text=True)
    told = [line for line in done.stdout.split("\n") if line.startswith("SECONDS ")]
    if not told:
        raise SystemExit(f"{name} failed:\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}")
    _, seconds, cpu = told[0].split()
    return float(seconds), float(cpu)


def _environment(folder: Path, name: str) -> Path:
    python = folder / f"peers-{name}" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(python.parent.parent)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PEERS[name]], check=True)
    return python


if __name__ == "__main__":
    sys.exit(main())
