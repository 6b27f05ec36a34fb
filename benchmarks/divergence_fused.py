"""C1, C2: time and peak memory of one divergence from hidden states, forward and backward, against TRL and Liger.

One shape and one divergence to a call, in a few minutes; `--summary` puts what was measured together. Each contestant is
a process of its own with the same threads and allocator. Loss and gradients are compared with the plain float64
form before anything is timed. Times are taken in turns (ours, each peer, ours, ...) and reported as the median of the
ratios of neighbours with their quartiles: of wall seconds, and of processor seconds, which other work on the machine
changes little. Memory is the growth of the resident peak in a fresh process.
Refuses to run when the machine is busier than it has cores; `--force` runs and records that.

The peers beside TRL live apart from this library's environment:

    pip install --no-deps --target PEERS liger-kernel==0.8.5
    PYTHONPATH=PEERS python benchmarks/divergence_fused.py --shape 49k_576_960 --divergence forward_kl
    python benchmarks/divergence_fused.py --summary
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from timing.record import BENCHMARKS, RESULTS, about, ratios, refuse_a_busy_machine, write

DIVERGENCES = ("forward_kl", "reverse_kl", "jensen_shannon")
PEERS = ("naive", "trl", "trl_kernel", "liger_256")
# positions, vocabulary, width of student and teacher
SHAPES = {
    "49k_576_960": (2048, 49_152, 576, 960),
    "32k_64_288": (2048, 32_000, 64, 288),
    "32k_512_1024": (2048, 32_000, 512, 1024),
    "152k_256_512": (512, 151_936, 256, 512),
    "check": (512, 4_096, 64, 96),
}
GRID = ("32k_64_288", "32k_512_1024", "152k_256_512")
ALLOCATORS = {"default": {}, "tuned": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}}
TOLERANCE = {"float32": 1e-4, "bfloat16": None}
FOLDER = RESULTS / "divergence_fused"


def main() -> int:
    options = _options()
    if options.summary:
        return _summary()
    refuse_a_busy_machine(options.force)
    result = about(
        "C1 and C2: fused divergence, time and memory", threads=options.threads, seed=options.seed,
        forced=options.force, paths=["benchmarks/divergence_fused.py", "benchmarks/timing"],
    )  # fmt: skip
    case = _case(options)
    print(json.dumps({key: case[key] for key in ("processor_ratio", "wall_ratio", "peak_mb")}, indent=1))
    name = "-".join([options.shape, options.divergence, options.dtype, options.allocator])
    write(FOLDER / f"{name}.json", {**result, **case})
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SHAPES), default="check")
    parser.add_argument("--divergence", choices=DIVERGENCES, default="forward_kl")
    parser.add_argument("--dtype", choices=list(TOLERANCE), default="float32")
    parser.add_argument("--allocator", choices=list(ALLOCATORS), default="default")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--force", action="store_true")
    parser.add_argument("--summary", action="store_true")
    return parser.parse_args()


def _case(options: argparse.Namespace) -> dict[str, Any]:
    told = ("divergence", "dtype", "seed", "threads")
    job = {"sizes": SHAPES[options.shape], **{name: getattr(options, name) for name in told}}
    contestants = ["still", *options.peers, "products"]
    allocator = ALLOCATORS[options.allocator]
    with tempfile.TemporaryDirectory() as folder:
        reference = str(Path(folder) / "reference.pt")
        subprocess.run(_command({**job, "who": "reference", "reference": reference}), check=True, cwd=BENCHMARKS)
        errors = {}
        workers: dict[str, _Worker] = {}
        for who in contestants:
            worker = _Worker({**job, "who": who, "reference": reference}, allocator)
            ready = worker.read()
            if ready["available"]:
                workers[who], errors[who] = worker, ready["error"]
    limit = TOLERANCE[options.dtype]
    for who, error in errors.items():
        if limit is not None and error and not max(error.values()) < limit:
            raise SystemExit(f"{who} is wrong on {options.shape}, {options.divergence}: {error}")
    seconds: dict[str, list[list[float]]] = {who: [] for who in workers}
    for _ in range(options.pairs):  # each has made one call already, to be compared
        for who, worker in workers.items():
            seconds[who].append(worker.ask("time"))
    for worker in workers.values():
        worker.close()
    peak = {}
    for who in workers:
        fresh = _Worker({**job, "who": who, "reference": None}, allocator)
        fresh.read()
        peak[who] = fresh.ask("memory")
        fresh.close()
    others = [who for who in workers if who != "still"]

    def against(number: int) -> dict[str, Any]:
        return {who: ratios([s[number] for s in seconds[who]], [s[number] for s in seconds["still"]]) for who in others}

    return {
        "shape": options.shape, "sizes_N_V_student_teacher": job["sizes"], "divergence": options.divergence,
        "dtype": options.dtype, "allocator": options.allocator, "relative_error": errors,
        "wall_and_processor_seconds": seconds, "wall_ratio": against(0), "processor_ratio": against(1),
        "peak_mb": peak, "memory_ratio": {who: peak[who] / peak["still"] for who in others},
    }  # fmt: skip


def _command(job: dict[str, Any]) -> list[str]:
    return [sys.executable, "-m", "timing.divergences", json.dumps(job)]


class _Worker:
    """One contestant with its inputs made, its result compared, waiting to be asked."""

    def __init__(self, job: dict[str, Any], allocator: dict[str, str]):
        self._who = job["who"]
        environment = {
            **os.environ,
            **allocator,
            "OMP_NUM_THREADS": str(job["threads"]),
            "TRL_EXPERIMENTAL_SILENCE": "1",
        }
        self._process = subprocess.Popen(
            _command(job), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=BENCHMARKS
        )

    def ask(self, what: str) -> Any:
        assert self._process.stdin
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return self.read()["value"]

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def read(self) -> Any:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith("@"):
                return json.loads(line[1:])
        raise SystemExit(f"{self._who} died")


def _summary() -> int:
    """Geometric means over the grid of what has been measured, per dtype and allocator."""
    cases = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))]
    for dtype, allocator in sorted({(case["dtype"], case["allocator"]) for case in cases}):
        mine = [c for c in cases if (c["dtype"], c["allocator"]) == (dtype, allocator) and c["shape"] in GRID]
        for who in PEERS:
            found = [c for c in mine if who in c["memory_ratio"]]
            if not found:
                continue
            line = f"{dtype} {allocator}, {who}, {len(found)} cases:"
            for key in ("processor_ratio", "wall_ratio"):
                line += f" {key} x{statistics.geometric_mean(case[key][who]['median'] for case in found):.2f}"
            print(line + f" memory_ratio x{statistics.geometric_mean(case['memory_ratio'][who] for case in found):.1f}")
    for case in cases:
        line = ", ".join(
            f"{who} x{case['processor_ratio'][who]['median']:.2f} {case['peak_mb'][who]:.0f} MB"
            for who in case["processor_ratio"]
        )
        print(
            f"{case['shape']} {case['divergence']} {case['dtype']} {case['allocator']}: {case['peak_mb']['still']:.0f} MB; {line}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
