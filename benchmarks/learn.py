"""Does it learn? Runs the experiments of `learning/`, several seeds each, and writes what held and what did not.

Every experiment says beforehand which arm is to beat which, on what, and has a control that must not. An interval is the
wider of a paired bootstrap over seeds and items and Student's t over seeds (`stillhouse.evaluate.compare`). Stopped, it goes on
where it was.

    python benchmarks/learn.py scratch on_policy [--seeds 3] [--scale 1] [--work build/learning]
"""

import argparse
import importlib
import json
import math
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from benchmarks.learning.parts import Expectation  # noqa: E402
from stillhouse import distill  # noqa: E402
from stillhouse.evaluate.compare import paired, single  # noqa: E402
from stillhouse.store import read_jsonl  # noqa: E402

PER_TOKEN = ("nll", "teacher_nll", "kl_from_teacher", "kl_to_teacher", "agreements")
NEAR = 0.05  # nats a token: what counts as no difference (methods 3.5)
Table = dict[tuple[str, str, str], np.ndarray]  # (task, arm, metric) -> values_SI


def main() -> int:
    known = sorted(path.stem for path in (ROOT / "benchmarks" / "learning").glob("*.py") if path.stem not in _HELPERS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)} (default: all)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of steps; below 1 proves nothing")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "learning")
    options = parser.parse_args()
    if not (data := os.environ.get("STILLHOUSE_TEST_DATA")):
        parser.error("say where the stories and their teacher are: set STILLHOUSE_TEST_DATA")
    if unknown := set(options.names) - set(known):
        parser.error(f"no experiment named {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    for name in options.names or known:
        run(name, Path(data), options)
    return 0


_HELPERS = ("__init__", "parts", "controls")


def run(name: str, data: Path, options: argparse.Namespace) -> None:
    folder = options.work.resolve() / f"{name}-{options.scale:g}"
    folder.mkdir(parents=True, exist_ok=True)
    module = importlib.import_module(f"benchmarks.learning.{name}")
    experiment = module.experiment(data, folder, range(options.seeds), options.scale)
    started, runs, tokens = time.monotonic(), [], {}
    for seed, recipe in experiment.recipes.items():
        told = distill(recipe, out=folder / f"run-{seed}", quiet=not sys.stderr.isatty())
        runs.append(told.path)
        for student in told.manifest["students"]:
            tokens[student["arm"]] = sum(phase["target_tokens"] for phase in student["phases"])
        print(f"{name}: seed {seed} after {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    table = tabled(runs)
    result = {
        "benchmark": f"learning: {name}",
        "question": experiment.question,
        "command": " ".join(["python", "benchmarks/learn.py", name, *_flags(options)]),
        "commit": _commit(),
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS')}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seeds": list(experiment.recipes),
        "seconds": round(time.monotonic() - started),
        "target_tokens": tokens,
        "arms": [{"task": t, "arm": a, "metric": m, **_interval(single(v))} for (t, a, m), v in table.items()],
        "expected": [judged(each, table) for each in experiment.expected],
    }
    out = ROOT / "benchmarks" / "results" / f"learning_{name}.json"
    if options.scale != 1:
        out = folder / "result.json"
    out.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    show(result)


def tabled(runs: list[Path]) -> Table:
    """values_SI per task, arm and metric: one row per run, one column per held-out item."""
    found: dict[tuple[str, str, str], list[list[float]]] = {}
    for run_path in runs:
        for task in sorted(path for path in (run_path / "evaluate").iterdir() if path.is_dir()):
            for path in sorted(task.glob("*.jsonl")):
                rows = [row for _, row in read_jsonl(path)]
                for metric, values in _metrics(rows).items():
                    found.setdefault((task.name, rows[0]["arm"], metric), []).append(values)
    return {key: np.array(values) for key, values in found.items()}


def _metrics(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Sums become means per token; a missing value is nan."""
    if rows[0]["metric"] == "score":
        return {"score": [math.nan if row["value"] is None else row["value"] for row in rows]}
    made = {name: [row[name] / row["tokens"] for row in rows] for name in PER_TOKEN if rows[0].get(name) is not None}
    if "distinct" in rows[0]:
        made["distinct"] = [math.nan if row["distinct"] is None else row["distinct"] for row in rows]
    return made


def judged(each: Expectation, table: Table) -> dict[str, Any]:
    """The difference arm - control, and whether it is as was expected: clear of nought, on the right side."""
    interval = paired(*(table[each.task, arm, each.metric] for arm in (each.arm, each.control)))
    if each.better in ("near", "apart"):
        near = interval.low > -NEAR and interval.high < NEAR
        return {**_told(each, interval), "holds": near == (each.better == "near")}
    lower_is_better = each.metric not in ("agreements", "score", "distinct")
    better = interval.high < 0 if (lower_is_better or each.better == "lower") else interval.low > 0
    return {**_told(each, interval), "holds": better != (each.better == "not")}


def _told(each: Expectation, interval: Any) -> dict[str, Any]:
    told = {"task": each.task, "arm": each.arm, "against": each.control, "metric": each.metric}
    return {**told, "expected": each.better, **_interval(interval)}


def _interval(interval: Any) -> dict[str, Any]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high, "items": interval.items}


def show(result: dict[str, Any]) -> None:
    print(f"\n{result['benchmark']}: {result['question']} ({len(result['seeds'])} seeds)")
    for row in result["arms"]:
        print(
            f"  {row['task']:14} {row['arm']:22} {row['metric']:16} {row['mean']:8.3f}  [{row['low']:.3f}, {row['high']:.3f}]"
        )
    for row in result["expected"]:
        mark = "holds" if row["holds"] else "DOES NOT HOLD"
        what = f"{row['arm']} - {row['against']} {row['metric']} ({row['task']}), expected {row['expected']}"
        print(f"  {mark:14} {what}: {row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]")


def _flags(options: argparse.Namespace) -> list[str]:
    return ["--seeds", str(options.seeds)] + (["--scale", str(options.scale)] if options.scale != 1 else [])


def _commit() -> str:
    def git(*told: str) -> str:
        return subprocess.run(["git", *told], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    dirty = "-dirty" if git("status", "--porcelain", "--", "src") else ""
    return git("rev-parse", "--short=12", "HEAD") + dirty


if __name__ == "__main__":
    sys.exit(main())
