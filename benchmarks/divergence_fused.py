"""C1, C2: time and peak memory of one divergence from hidden states, forward and backward, against TRL and Liger.

Each contestant is a process of its own with the same threads and allocator. Loss and gradients are compared with the
plain float64 form before anything is timed. Times are taken in turns (ours, each peer, ours, ...) and reported as the
median of the ratios of neighbours with their quartiles; memory is the growth of the resident peak in a fresh process.
Refuses to run when the machine is busier than it has cores; `--force` runs and records that.

    python benchmarks/divergence_fused.py [--check] [--pairs 5] [--threads 1] [--dtype float32] [--force]
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PEERS = ("trl", "trl_kernel", "liger_256")
CONTESTANTS = ("still", *PEERS, "products")
BETA = {"forward_kl": 0.0, "reverse_kl": 1.0, "jensen_shannon": 0.5}
# positions, vocabulary, width of student and teacher
SHAPES = {
    "32k_64_288": (2048, 32_000, 64, 288),
    "32k_512_1024": (2048, 32_000, 512, 1024),
    "152k_256_512": (512, 151_936, 256, 512),
}
CHECK = {"4k_64_96": (512, 4_096, 64, 96)}
ALLOCATORS = {"default": {}, "tuned": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}}
TOLERANCE = {"float32": 1e-4, "bfloat16": None}


def main() -> int:
    options = _options()
    cores = os.cpu_count() or 1
    if os.getloadavg()[0] > cores and not options.force:
        print(f"the load is {os.getloadavg()[0]:.1f} on {cores} cores: wait, or give --force", file=sys.stderr)
        return 1
    result = {
        "benchmark": "C1 and C2: fused divergence, time and memory",
        "command": " ".join(["python", "benchmarks/divergence_fused.py", *sys.argv[1:]]),
        "commit": _commit(),
        "hardware": _hardware(options.threads),
        "seed": options.seed,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: _version(name) for name in ("torch", "trl", "liger-kernel", "transformers")},
        "load_before": os.getloadavg(),
        "forced": options.force,
        "dtype": options.dtype,
        "cases": [],
    }
    shapes = CHECK if options.check else SHAPES
    for allocator in ALLOCATORS if not options.check else ["default"]:
        for shape in shapes:
            for divergence in options.divergences:
                case = _case(shape, shapes[shape], divergence, allocator, options)
                result["cases"].append(case)
                _print(case)
    result["geometric_mean_of_time_ratios"] = _overall(result["cases"], "time_ratio")
    result["geometric_mean_of_memory_ratios"] = _overall(result["cases"], "memory_ratio")
    result["load_after"] = os.getloadavg()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: result[key] for key in result if key.startswith("geometric")}, indent=1))
    print(f"written: {options.out}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="one small shape, to see that everything runs")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--divergences", nargs="+", choices=list(BETA), default=list(BETA))
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=list(TOLERANCE), default="float32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--force", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        _serve(json.loads(options.worker))
        sys.exit(0)
    name = "divergence_fused" + ("_check" if options.check else "") + ("" if options.dtype == "float32" else "_bf16")
    options.out = options.out or HERE / "results" / f"{name}.json"
    return options


def _case(
    shape: str, sizes: tuple[int, ...], divergence: str, allocator: str, options: argparse.Namespace
) -> dict[str, Any]:
    workers, ready = _started(options, ALLOCATORS[allocator], sizes, divergence, check=True)
    case = {"shape": shape, "sizes_N_V_student_teacher": sizes, "divergence": divergence, "allocator": allocator}
    case["relative_error"] = {who: ready[who]["error"] for who in workers if who != "products"}
    limit = TOLERANCE[options.dtype]
    for who, error in case["relative_error"].items():
        if limit is not None and not max(error.values()) < limit:
            raise SystemExit(f"{who} is wrong on {shape}, {divergence}: {error}")
    for worker in workers.values():
        worker.ask("time")  # the first call touches fresh pages
    seconds: dict[str, list[float]] = {who: [] for who in workers}
    for _ in range(options.pairs):
        for who, worker in workers.items():
            seconds[who].append(worker.ask("time"))
    for worker in workers.values():
        worker.close()
    case["seconds"] = seconds
    case["time_ratio"] = {who: _ratios(seconds[who], seconds["still"]) for who in workers if who != "still"}
    fresh, _ = _started(options, ALLOCATORS[allocator], sizes, divergence, check=False)
    case["peak_mb"] = {}
    for who, worker in fresh.items():
        case["peak_mb"][who] = worker.ask("memory")
        worker.close()
    case["memory_ratio"] = {who: case["peak_mb"][who] / case["peak_mb"]["still"] for who in workers if who != "still"}
    return case


def _started(
    options: argparse.Namespace, allocator: dict[str, str], sizes: tuple[int, ...], divergence: str, *, check: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A process per contestant that is installed, and what it said when it was ready. They start side by side."""
    job = {"sizes": sizes, "divergence": divergence, "dtype": options.dtype, "seed": options.seed, "check": check}
    contestants = [who for who in CONTESTANTS if who not in PEERS or who in options.peers]
    workers = {who: _Worker({"who": who, **job}, options.threads, allocator) for who in contestants}
    ready = {who: worker.ready() for who, worker in workers.items()}
    for who in [who for who in workers if not ready[who]["available"]]:
        workers.pop(who).close()
    return workers, ready


def _ratios(theirs: list[float], ours: list[float]) -> dict[str, float]:
    ratios = sorted(a / b for a, b in zip(theirs, ours, strict=True))
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return {"median": middle, "quartiles": [low, high]}


def _overall(cases: list[dict[str, Any]], key: str) -> dict[str, dict[str, float]]:
    overall: dict[str, dict[str, float]] = {}
    for allocator in {case["allocator"] for case in cases}:
        mine = [case[key] for case in cases if case["allocator"] == allocator]
        values = {who: [m[who]["median"] if key == "time_ratio" else m[who] for m in mine if who in m] for who in PEERS}
        overall[allocator] = {who: statistics.geometric_mean(v) for who, v in values.items() if v}
    return overall


def _print(case: dict[str, Any]) -> None:
    print(f"{case['shape']:>14} {case['divergence']:>15} {case['allocator']:>8}", end="")
    for who in CONTESTANTS:
        if who in case["peak_mb"]:
            print(f" | {who} {statistics.median(case['seconds'][who]):.2f} s {case['peak_mb'][who]:.0f} MB", end="")
    print(flush=True)


class _Worker:
    """One contestant with its inputs made, its result compared, waiting to be asked."""

    def __init__(self, job: dict[str, Any], threads: int, allocator: dict[str, str]):
        self.job = job
        environment = {**os.environ, **allocator, "OMP_NUM_THREADS": str(threads), "TRL_EXPERIMENTAL_SILENCE": "1"}
        command = [sys.executable, __file__, "--worker", json.dumps({"threads": threads, **job})]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ready(self) -> Any:
        """What it says once its inputs are made and its result is compared."""
        return self._read()

    def ask(self, what: str) -> Any:
        assert self._process.stdin
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return self._read()["value"]

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> Any:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith("@"):
                return json.loads(line[1:])
        raise SystemExit(f"{self.job['who']} died on {self.job}")


def _serve(job: dict[str, Any]) -> None:
    import torch

    torch.set_num_threads(job["threads"])
    inputs = _inputs(job, torch)
    try:
        step = _step(job, inputs, torch)
    except ImportError:
        _say({"available": False})
        return
    error = _error(job, inputs, step, torch) if job["check"] and job["who"] != "products" else {}
    _say({"available": True, "error": error})
    for line in sys.stdin:
        if line.strip() == "time":
            start = time.perf_counter()
            step()
            _say({"value": time.perf_counter() - start})
        else:
            Path("/proc/self/clear_refs").write_text("5")
            before = _status("VmRSS")
            step()
            _say({"value": (_status("VmHWM") - before) / 1024})


def _say(message: dict[str, Any]) -> None:
    print("@" + json.dumps(message), flush=True)


def _status(field: str) -> int:
    return int(re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())[1])  # type: ignore[index]


def _inputs(job: dict[str, Any], torch: Any) -> dict[str, Any]:
    positions, vocabulary, student, teacher = job["sizes"]
    g = torch.Generator().manual_seed(job["seed"])
    dtype = getattr(torch, job["dtype"])

    def normal(rows: int, width: int, scale: float = 1.0) -> Any:
        return (scale * torch.randn(rows, width, generator=g)).to(dtype)

    return {
        "student": normal(positions, student).requires_grad_(),
        "student_head": normal(vocabulary, student, 2 / student**0.5).requires_grad_(),
        "teacher": normal(positions, teacher),
        "teacher_head": normal(vocabulary, teacher, 2 / teacher**0.5),
        "mask": torch.rand(positions, generator=g) < 0.5,
    }


def _step(job: dict[str, Any], i: dict[str, Any], torch: Any) -> Any:
    """Forward and backward; the loss is the mean over the unmasked positions everywhere."""
    count, beta, maker = i["mask"].sum(), BETA[job["divergence"]], globals()[f"_{job['who']}"]
    loss_of = maker(job, i, count, beta, torch)

    def step() -> Any:
        i["student"].grad = i["student_head"].grad = None
        loss = loss_of()
        if loss is not None:
            loss.backward()
            return loss.detach()
        return None

    return step


def _still(job: dict[str, Any], i: dict[str, Any], count: Any, beta: float, torch: Any) -> Any:
    from stillhouse.kernels.beliefs import Dense
    from stillhouse.kernels.fused import Projected
    from stillhouse.objectives import divergence

    function = getattr(divergence, job["divergence"])
    weight = i["mask"] / count
    return lambda: function(
        Projected(i["student"], i["student_head"]), Dense(Projected(i["teacher"], i["teacher_head"])), weight
    )


def _trl(job: dict[str, Any], i: dict[str, Any], count: Any, beta: float, torch: Any) -> Any:
    from trl.experimental.gkd import GKDTrainer

    labels = torch.where(i["mask"], 0, -100)[None]

    def loss() -> Any:
        student = (i["student"] @ i["student_head"].T)[None]
        with torch.no_grad():
            teacher = (i["teacher"] @ i["teacher_head"].T)[None]
        return GKDTrainer.generalized_jsd_loss(student, teacher, labels=labels, beta=beta)

    return loss


def _trl_kernel(job: dict[str, Any], i: dict[str, Any], count: Any, beta: float, torch: Any) -> Any:
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    def loss() -> Any:
        return _chunked_divergence_loss(
            i["student"][None], i["teacher"][None], i["student_head"], i["teacher_head"], i["mask"][None], beta
        )[0]

    return loss


def _liger_256(job: dict[str, Any], i: dict[str, Any], count: Any, beta: float, torch: Any) -> Any:
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    function = LigerFusedLinearJSDLoss(
        weight_hard_loss=0.0, weight_soft_loss=1.0, beta=beta, compiled=False, chunk_size=256
    )
    labels = torch.where(i["mask"], 0, -100)
    return lambda: function(i["student"], i["student_head"], i["teacher"], i["teacher_head"], labels)


def _products(job: dict[str, Any], i: dict[str, Any], count: Any, beta: float, torch: Any) -> Any:
    """The floor: the four products with the heads at the unmasked positions and nothing else."""
    rows = i["mask"].nonzero().squeeze(-1)
    student, teacher, heads = (
        i["student"].detach()[rows],
        i["teacher"][rows],
        (i["student_head"].detach(), i["teacher_head"]),
    )
    head_gradient = torch.zeros_like(heads[0])

    def loss() -> None:
        for start in range(0, len(rows), 256):
            part = slice(start, start + 256)
            logits = student[part] @ heads[0].T
            teacher[part] @ heads[1].T
            logits @ heads[0]
            head_gradient.addmm_(logits.T, student[part])

    return loss


def _error(job: dict[str, Any], i: dict[str, Any], step: Any, torch: Any) -> dict[str, float]:
    """Relative error of loss and gradients against the plain form in float64, a few positions at a time."""
    loss = step()
    got = [i["student"].grad.double(), i["student_head"].grad.double()]
    student, head = i["student"].detach().double(), i["student_head"].detach().double()
    expected, total = [torch.zeros_like(student), torch.zeros_like(head)], 0.0
    for rows in i["mask"].nonzero().squeeze(-1).split(64):
        leaf_s, leaf_h = student[rows].requires_grad_(), head.clone().requires_grad_()
        log_q = (leaf_s @ leaf_h.T).log_softmax(-1)
        log_p = (i["teacher"][rows].double() @ i["teacher_head"].double().T).log_softmax(-1)
        part = _plain(job["divergence"], log_p, log_q) / i["mask"].sum()
        part.backward()
        total += part.item()
        expected[0][rows] = leaf_s.grad
        expected[1] += leaf_h.grad
    names = ("hidden_gradient", "head_gradient")
    errors = {n: ((a - b).norm() / b.norm()).item() for n, a, b in zip(names, got, expected, strict=True)}
    i["student"].grad = i["student_head"].grad = None
    return {"loss": abs(loss.item() - total) / abs(total), **errors}


def _plain(divergence: str, log_p: Any, log_q: Any) -> Any:
    if divergence == "forward_kl":
        return (log_p.exp() * (log_p - log_q)).sum()
    if divergence == "reverse_kl":
        return (log_q.exp() * (log_q - log_p)).sum()
    log_m = ((log_p.exp() + log_q.exp()) / 2).log()
    return 0.5 * (log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)).sum()


def _commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True).stdout.strip()

    return git("rev-parse", "HEAD") + (
        "-dirty" if git("status", "--porcelain", "src", "benchmarks/divergence_fused.py") else ""
    )


def _hardware(threads: int) -> str:
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return f"{model[1] if model else platform.processor()}, {os.cpu_count()} cores, {threads} thread(s) used"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
