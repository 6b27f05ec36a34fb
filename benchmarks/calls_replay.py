"""A second run of the same recipe, everything stored: rows per second from seed to kept record, and memory by size.

Each size has a process of its own. It fills a store with an answer to every request (through the store's own commit, so
that no server is needed), and then runs the step that a run runs: seeds read from their file, prompted, keyed, looked up,
parsed, written as records, `--turns` times. Rows per second of wall time and of processor time (the second does not see
what else the machine does); memory is the resident size after a tenth of the rows and the peak over the first pass.

    python benchmarks/calls_replay.py [--sizes 10000 100000 300000] [--turns 5]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from timing.record import RESULTS, about, memory, write

from stillhouse.elicit import labeling
from stillhouse.records import Lost, Seed, content_id, stamped, user
from stillhouse.store import Records, Writer, lost_row
from stillhouse.teachers import openai
from stillhouse.teachers.asking.answers import AttemptRow
from stillhouse.teachers.asking.keys import key_of, request_body
from stillhouse.teachers.base import Answer, Request, Sampling
from stillhouse.teachers.calls import Calls

TARGET, GROWTH_MB = 20_000, 60
MEASURED = ("src/stillhouse/teachers", "src/stillhouse/elicit", "src/stillhouse/store.py", "src/stillhouse/records.py")
SAMPLING = Sampling(max_tokens=64)
REPLY = "The answer is {0}, because two and two are four, as everybody knows who has counted apples. " * 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 300_000])
    parser.add_argument("--turns", type=int, default=5, help="of the smallest size; larger ones are run once")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_measured(options.sizes[0], options.turns)))
        return 0
    result = about("calls_replay", threads=1, seed=0, forced=True, paths=MEASURED, packages=("openai",))
    sizes = []
    for size in options.sizes:
        turns = options.turns if size == min(options.sizes) else 1
        command = [sys.executable, __file__, "--one", "--sizes", str(size), "--turns", str(turns)]
        sizes.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        print(sizes[-1], flush=True)
    peaks = [each["peak_mb"] for each in sizes]
    reached = {"rows_per_second": sizes[0]["wall_median"], "growth_mb": max(peaks) - peaks[0]}
    targets = {"rows_per_second": TARGET, "growth_mb": GROWTH_MB}
    write(RESULTS / "calls_replay.json", {**result, "sizes": sizes, "targets": targets, "reached": reached})
    print(reached)
    return 0 if reached["rows_per_second"] >= TARGET and reached["growth_mb"] <= GROWTH_MB else 1


def _measured(rows: int, turns: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as named:
        folder = Path(named)
        _filled(folder, rows)
        passes = [_pass(folder, rows) for _ in range(turns)]
        wall, cpu = [each["wall"] for each in passes], [each["cpu"] for each in passes]
        return {
            "rows": rows,
            "wall": wall,
            "cpu": cpu,
            "wall_median": statistics.median(wall),
            "cpu_median": statistics.median(cpu),
            "early_mb": passes[0]["early_mb"],
            "peak_mb": passes[0]["peak_mb"],
            "store_bytes_per_row": (folder / "store" / "store.sqlite").stat().st_size / rows,
        }


def _teacher() -> openai.Teacher:
    return openai.Teacher(model="stored", base_url="http://127.0.0.1:9/v1")  # nobody listens there


def _filled(folder: Path, rows: int) -> None:
    """A file of seeds and a store that knows the answer to each."""
    identity = _teacher().identity()
    with Calls(folder / "store") as calls, Writer(folder / "seeds.jsonl") as seeds:
        for start in range(0, rows, 500):
            attempts, bodies = [], []
            for index in range(start, min(rows, start + 500)):
                text = f"question {index}: what is two and two, and why? " * 3
                seeds.write(Seed(content_id("Seed", text), user(text), str(index)))
                body = request_body(identity, Request(user(text), SAMPLING))
                answer = Answer(REPLY.format(index), served_model="stored", input_tokens=40, output_tokens=70)
                attempts.append(AttemptRow(key_of(body), "answered", answer))
                bodies.append((key_of(body), body))
            calls.store.commit("filled", "t", attempts, bodies)


def _pass(folder: Path, rows: int) -> dict[str, float]:
    early = 0.0
    with Calls(folder / "store") as calls:
        teacher = calls.teacher("t", _teacher(), SAMPLING)
        began, worked = time.perf_counter(), time.process_time()
        with Writer(folder / "out.jsonl") as out, Writer(folder / "lost.jsonl") as lost:
            for result in labeling.answer(Records(folder / "seeds.jsonl"), teacher):
                if isinstance(result, Lost):
                    lost.write_row(lost_row(result))
                else:
                    out.write(stamped(result, "01-labeling.answer"))
                if out.count == rows // 10:
                    early = memory("VmRSS")
        wall, cpu = time.perf_counter() - began, time.process_time() - worked
        assert (out.count, lost.count, calls.counts()["t"].attempts) == (rows, 0, 0)
    return {"wall": rows / wall, "cpu": rows / cpu, "early_mb": early, "peak_mb": memory("VmHWM")}


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
