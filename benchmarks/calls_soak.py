"""Soak: 100,000 requests through the store, asked once and read back once; rows per second and the growth of memory.

Memory is the resident size after the first tenth and at the end: it must not grow with the number of rows.

    python benchmarks/calls_soak.py [--rows 100000]
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stillhouse.records import user
from stillhouse.teachers import scripted
from stillhouse.teachers.base import Request
from stillhouse.teachers.calls import Calls

HERE = Path(__file__).resolve().parent
GROWTH_MB = 60


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asked, read = _pass(folder, options.rows), _pass(folder, options.rows)
        size = (Path(folder) / "store.sqlite").stat().st_size
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=HERE).stdout.strip()
    result = {
        "benchmark": "soak of the call layer",
        "command": " ".join(["python", "benchmarks/calls_soak.py", *sys.argv[1:]]),
        "commit": commit or "none",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": {"machine": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0]},
        "seed": 0,
        "rows": options.rows,
        "asked": asked,
        "read_back": read,
        "bytes_per_row": size / options.rows,
    }
    path = HERE / "results" / "calls_soak.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))
    return 0 if max(asked["growth_mb"], read["growth_mb"]) < GROWTH_MB and read["attempts"] == 0 else 1


def _pass(folder: str, rows: int) -> dict[str, Any]:
    with Calls(folder) as calls:
        teacher = calls.teacher("t", scripted.Teacher(reply="answer to {prompt}: " + "word " * 80))
        early, began = 0.0, time.perf_counter()
        for number, _ in enumerate(teacher.ask(_requests(rows)), 1):
            if number == rows // 10:
                early = _resident_mb()
        seconds = time.perf_counter() - began
        return {
            "rows_per_second": rows / seconds,
            "growth_mb": _resident_mb() - early,
            "attempts": calls.counts()["t"].attempts,
        }


def _requests(rows: int) -> Iterator[Request]:
    for number in range(rows):
        yield Request(user(f"question {number} " + "about something " * 20))


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    sys.exit(main())
