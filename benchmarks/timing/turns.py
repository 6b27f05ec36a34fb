"""Trainers in processes of their own that take turns, a few steps at a time."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from timing.record import BENCHMARKS


def plain_environment(threads: int) -> dict[str, str]:
    """This process's, without what a person or a launcher set for speed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MALLOC_"))}
    kept |= {"TRL_EXPERIMENTAL_SILENCE": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return kept | {"OMP_NUM_THREADS": str(threads)}


def in_turns(job: dict[str, Any], contestants: Mapping[str, tuple[str, dict[str, str]]], turns: int) -> dict[str, Any]:
    """`contestants`: name -> (who of `timing.training`, its environment). The first turn pays for loading and is left out."""
    started = {
        name: subprocess.Popen(
            [sys.executable, "-m", "timing.training", json.dumps({**job, "who": who, "name": name})], cwd=BENCHMARKS, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
        )
        for name, (who, environment) in contestants.items()
    }  # fmt: skip
    for name, process in started.items():
        _heard(name, process)
    seconds: dict[str, list[list[float]]] = {name: [] for name in contestants}
    for turn in range(turns + 1):
        for name, process in started.items():
            took = _asked(name, process)["value"]
            if turn:
                seconds[name].append(took)
    peak = {name: _asked(name, process)["peak"] for name, process in started.items()}
    for process in started.values():
        process.communicate()
    return {"wall_and_processor_seconds": seconds, "peak_mb": peak}


def _asked(name: str, process: Any) -> Any:
    process.stdin.write("go\n")
    process.stdin.flush()
    return _heard(name, process)


def _heard(name: str, process: Any) -> Any:
    for line in process.stdout:
        if line.startswith("@"):
            return json.loads(line[1:])
    raise SystemExit(f"{name} died")
