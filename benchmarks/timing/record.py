"""What every timed result says about itself, and when a machine is too busy to time anything."""

import json
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parents[1]
RESULTS = BENCHMARKS / "results"
PACKAGES = ("torch", "transformers", "accelerate", "trl", "liger-kernel")
_FILES = ("products", "generate", "continuous", "decoder", "inference", "reading", "narrow_attention")
_PARTS = ("kernels", "objectives", "train", *(f"{name}.py" for name in _FILES))
MEASURED = tuple(f"src/stillhouse/{part}" for part in _PARTS)


def refuse_a_busy_machine(force: bool) -> None:
    """Ends the process where the load is above the number of cores, unless forced."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores and not force:
        sys.exit(f"the load is {load:.1f} on {cores} cores: wait, or give --force (the result will say so)")


def about(
    name: str, *, threads: int, seed: int, forced: bool, paths: Sequence[str] = (), packages: Sequence[str] = PACKAGES
) -> dict[str, Any]:
    """Commit, machine, command and versions; `paths` are what the result depends on beside the library's own parts."""
    model = re.search(r"model name\s*:\s*(.+)", _text("/proc/cpuinfo"))
    dirty = _git("status", "--porcelain", *MEASURED, *paths)
    return {
        "benchmark": name,
        "command": " ".join(["python", *sys.argv]),
        "commit": _git("rev-parse", "HEAD") + ("-dirty" if dirty else ""),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": f"{model[1] if model else platform.processor()}, {os.cpu_count()} cores, {threads} thread(s) used",
        "versions": {package: _version(package) for package in packages},
        "seed": seed,
        "load_before": os.getloadavg(),
        "forced": forced,
    }


def write(path: Path, result: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**result, "load_after": os.getloadavg()}, indent=1) + "\n", encoding="utf-8")
    print(f"written: {path.relative_to(BENCHMARKS.parent)}")


def ratios(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, Any]:
    """The median of the ratios of neighbours, and their quartiles."""
    found = sorted(a / b for a, b in zip(theirs, ours, strict=True))
    low, middle, high = statistics.quantiles(found, n=4) if len(found) > 1 else found * 3
    return {"median": round(middle, 3), "quartiles": [round(low, 3), round(high, 3)], "pairs": len(found)}


def memory(field: str) -> float:
    """VmRSS or VmHWM of this process, in MB."""
    return int(re.search(rf"{field}:\s+(\d+)", _text("/proc/self/status"))[1]) / 1024  # type: ignore[index]


def queued() -> float:
    """Seconds for which this thread was ready to run and had no processor."""
    return int(_text("/proc/thread-self/schedstat").split()[1]) / 1e9


def forget_the_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=BENCHMARKS.parent, capture_output=True, text=True).stdout.strip()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")
