"""Time to finish many requests at a provider with a latency and a ceiling that it does not announce, over the ideal.

More than `--ceiling` requests at once are answered with status 429 and no hint how long to wait or how many would do. The
ideal keeps exactly so many out from the first moment to the last: requests / ceiling x latency.

    python benchmarks/calls_pace.py [--requests 5000] [--latency 0.2] [--ceiling 24] [--turns 1]
"""

import argparse
import statistics
import sys
import tempfile
import time

from calls_throughput import served
from timing.record import RESULTS, about, write

from stillhouse.records import user
from stillhouse.teachers import openai
from stillhouse.teachers.base import Answer, Request, Sampling
from stillhouse.teachers.calls import Calls

TARGET = 1.15
MEASURED = ("src/stillhouse/teachers", "benchmarks/asking")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--ceiling", type=int, default=24)
    parser.add_argument("--turns", type=int, default=1)
    options = parser.parse_args()
    ideal = options.requests / options.ceiling * options.latency
    result = about("calls_pace", threads=1, seed=0, forced=True, paths=MEASURED, packages=("openai", "httpx2"))
    turns = []
    for _ in range(options.turns):
        with served(str(options.latency), str(options.ceiling)) as url:
            seconds, refused = _asked(url, options.requests)
        turns.append({"seconds": seconds, "over_ideal": seconds / ideal, "refused": refused})
        print(turns[-1], flush=True)
    reached = statistics.median(turn["over_ideal"] for turn in turns)
    found = {"requests": options.requests, "latency_s": options.latency, "ceiling": options.ceiling, "ideal_s": ideal}
    write(RESULTS / "calls_pace.json", {**result, **found, "turns": turns, "target": TARGET, "reached": reached})
    return 0 if reached <= TARGET else 1


def _asked(url: str, number: int) -> tuple[float, int]:
    with tempfile.TemporaryDirectory() as folder, Calls(folder) as calls:
        backend = openai.Teacher(model="fake", base_url=url, max_concurrency=256)
        teacher = calls.teacher("t", backend, Sampling(max_tokens=64))
        began = time.perf_counter()
        asked = teacher.ask(Request(user(f"question {index}"), teacher.sampling) for index in range(number))
        assert sum(isinstance(outcome.result, Answer) for outcome in asked) == number
        ((refused,),) = calls.store.rows("SELECT count(*) FROM attempt WHERE outcome = 'rate_limit'")
        return time.perf_counter() - began, refused


if __name__ == "__main__":
    sys.exit(main())
