"""A second run of the same recipe, everything stored: rows per second from seed to kept record, and memory by size.

Each size has a process of its own. It fills a store with an answer to every request (through the store's own commit, so
that no server is needed), and then, `--turns` times: the step that asks (seeds read from their file, prompted, keyed,
looked up, parsed, written as records), and the whole run around it, as `still run` makes it in an empty folder (the
person's file read twice, screening before anything is stored, two files of records, the books, lineage, cards, report).

Rows per second of wall time, of processor time, and of the wall time in which the process did not wait for a processor
(the disk's part is in it, what else the machine does is not). Memory of the step: the resident size after a tenth of the
rows and the peak over the first pass; of the run: its peak.

    python benchmarks/calls_replay.py [--sizes 10000 100000 1000000] [--turns 5]
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

from timing.record import RESULTS, about, forget_the_peak, memory, queued, write

from stillhouse import distill
from stillhouse.elicit import labeling
from stillhouse.records import Lost, Seed, content_id, stamped, user
from stillhouse.store import Records, Writer, lost_row
from stillhouse.teachers import openai
from stillhouse.teachers.asking.answers import AttemptRow
from stillhouse.teachers.asking.keys import key_of, request_body
from stillhouse.teachers.base import Answer, Request, Sampling
from stillhouse.teachers.calls import Calls

TARGET, GROWTH_MB = 20_000, 60
MEASURED = ("src/stillhouse",)
SAMPLING = Sampling(max_tokens=64)
REPLY = "The answer is {0}, because two and two are four, as everybody knows who has counted apples. " * 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
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
    peaks, runs = ([each["peak_mb"] for each in part] for part in (sizes, [each["whole_run"] for each in sizes]))
    reached = {
        "rows_per_second": sizes[0]["median"]["unqueued"],
        "growth_mb": max(peaks) - peaks[0],
        "whole_run_growth_mb": max(runs) - runs[0],
    }
    targets = {"rows_per_second": TARGET, "growth_mb": GROWTH_MB, "whole_run_growth_mb": GROWTH_MB}
    write(RESULTS / "calls_replay.json", {**result, "sizes": sizes, "targets": targets, "reached": reached})
    print(reached)
    flat = max(reached["growth_mb"], reached["whole_run_growth_mb"]) <= GROWTH_MB
    return 0 if reached["rows_per_second"] >= TARGET and flat else 1


def _measured(rows: int, turns: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as named:
        folder = Path(named)
        _filled(folder, rows)
        passes = [_pass(folder, rows) for _ in range(turns)]
        forget_the_peak()
        runs = [_run(folder, rows, number) for number in range(turns)]
        return {
            "rows": rows,
            "median": _medians(passes),
            "early_mb": passes[0]["early_mb"],
            "peak_mb": passes[0]["peak_mb"],
            "whole_run": {"median": _medians(runs), "peak_mb": runs[0]["peak_mb"], "turns": runs},
            "turns": passes,
            "store_bytes_per_row": (folder / "store" / "store.sqlite").stat().st_size / rows,
        }


def _medians(turns: list[dict[str, float]]) -> dict[str, float]:
    return {clock: statistics.median(turn[clock] for turn in turns) for clock in ("wall", "unqueued", "cpu")}


def _teacher() -> openai.Teacher:
    return openai.Teacher(model="stored", base_url="http://127.0.0.1:9/v1")  # nobody listens there


def _filled(folder: Path, rows: int) -> None:
    """Seeds, as a person and as a run would have them, and a store that knows the answer to each."""
    identity = _teacher().identity()
    written, made = Writer(folder / "questions.jsonl"), Writer(folder / "seeds.jsonl")
    with Calls(folder / "store") as calls, written as questions, made as seeds:
        for start in range(0, rows, 500):
            attempts, bodies = [], []
            for index in range(start, min(rows, start + 500)):
                text = f"question {index}: what is two and two, and why? " * 3
                questions.write_row({"prompt": text, "reference": str(index)})
                seeds.write(Seed(content_id("Seed", text), user(text), str(index)))
                body = request_body(identity, Request(user(text), SAMPLING))
                answer = Answer(REPLY.format(index), served_model="stored", input_tokens=40, output_tokens=70)
                attempts.append(AttemptRow(key_of(body), "answered", answer))
                bodies.append((key_of(body), body))
            calls.store.commit("filled", "t", attempts, bodies)


def _pass(folder: Path, rows: int) -> dict[str, float]:
    """The step that asks, alone."""
    early = 0.0
    with Calls(folder / "store") as calls:
        teacher = calls.teacher("t", _teacher(), SAMPLING)
        began = _clocks()
        with Writer(folder / "out.jsonl") as out, Writer(folder / "lost.jsonl") as lost:
            for result in labeling.answer(Records(folder / "seeds.jsonl"), teacher):
                if isinstance(result, Lost):
                    lost.write_row(lost_row(result))
                else:
                    out.write(stamped(result, "01-labeling.answer"))
                if out.count == rows // 10:
                    early = memory("VmRSS")
        told = _rates(began, rows)
        assert (out.count, lost.count, calls.counts()["t"].attempts) == (rows, 0, 0)
    return {**told, "early_mb": early, "peak_mb": memory("VmHWM")}


def _run(folder: Path, rows: int, number: int) -> dict[str, float]:
    """The whole run, in a folder of its own."""
    teacher = {
        "backend": "openai",
        "model": "stored",
        "base_url": "http://127.0.0.1:9/v1",
        "sampling": {"max_tokens": 64},
    }
    seeds = {"do": "file", "path": str(folder / "questions.jsonl")}
    recipe = {
        "name": "again",
        "use": {"purpose": "research", "distributes": []},
        "store": str(folder / "store"),
        "teachers": {"t": {**teacher, "terms": {"record": "apache-2.0"}}},
        "knowledge": {"answers": {"seeds": seeds, "elicit": [{"do": "labeling.answer", "teacher": "t"}]}},
    }
    began = _clocks()
    run = distill(recipe, out=folder / f"run-{number}", quiet=True)
    told = _rates(began, rows)
    steps = {step["step"]: rows / step["seconds"] for step in run.manifest["steps"]}
    assert (len(run.records("answers")), run.manifest["calls"]["t"]["attempts"]) == (rows, 0)
    return {**told, "peak_mb": memory("VmHWM"), "asking_step_wall": steps["01-labeling.answer"]}


def _clocks() -> tuple[float, float, float]:
    return time.perf_counter(), queued(), time.process_time()


def _rates(began: tuple[float, float, float], rows: int) -> dict[str, float]:
    wall, waited, cpu = (now - then for now, then in zip(_clocks(), began, strict=True))
    return {"wall": rows / wall, "unqueued": rows / (wall - waited), "cpu": rows / cpu}


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
