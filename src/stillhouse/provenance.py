"""What a run is known by afterwards: versions, commit, hardware, and counts added up over its attempts."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stillhouse.resolve import PACKAGE

_VERSIONS = ("stillhouse", "torch", "transformers", "accelerate", "peft", "safetensors", "numpy", "openai")


def summed(counts: Iterable[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Counts by teacher, added up over the attempts at a run; a count may itself be counts by reason."""
    total: dict[str, dict[str, Any]] = {}
    for each in counts:
        for teacher, fields in each.items():
            mine = total.setdefault(teacher, {})
            for name, value in fields.items():
                if isinstance(value, Mapping):
                    reasons = mine.get(name, {})
                    mine[name] = {key: reasons.get(key, 0) + value.get(key, 0) for key in {**reasons, **value}}
                else:
                    mine[name] = mine.get(name, 0) + value
    return total


def hardware(*, accelerators: bool) -> dict[str, Any]:
    """What the run runs on: processors, memory in GiB and, where something is trained, accelerators."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    named = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    told: dict[str, Any] = {
        "cpu": named or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(pages / 2**30, 1),
    }
    if accelerators:
        import torch

        told["gpus"] = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return told


def versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for name in _VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The commit of a source checkout (with -dirty when it was changed), None where the package is installed."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=PACKAGE, capture_output=True, text=True, timeout=10, env=environment,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
