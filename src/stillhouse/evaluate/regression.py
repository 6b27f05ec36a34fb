"""Per-skill regression gates: what a student may lose of what its base could do (O5)."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__: list[str] = []

BASE = "base"


def gates(
    tasks: Sequence[Mapping[str, Any]], comparisons: Sequence[Mapping[str, Any]], bounds: Mapping[str, float]
) -> list[dict[str, Any]]:
    """For each arm and each task in `bounds` (the most it may lose, in the task's metric): was that much lost?

    `change` is the difference from the base student, positive where the student is better. "lost": worse by more than
    the bound, and the interval leaves no doubt that it is worse at all; "unclear": worse by more than the bound, but it
    may be chance; "held" otherwise.
    """
    found = []
    for task in tasks:
        if task["task"] not in bounds:
            continue
        for each in comparisons:
            if (
                each["task"] != task["task"]
                or each["against"] != BASE
                or each["arm"].startswith(("teacher:", "start:"))
            ):
                continue
            ends = (each["low"], each["high"]) if task["higher_is_better"] else (-each["high"], -each["low"])
            change = each["difference"] if task["higher_is_better"] else -each["difference"]
            state = "held"
            if change < -bounds[task["task"]]:
                state = "lost" if ends[1] < 0 else "unclear"
            found.append(
                {
                    "task": task["task"], "arm": each["arm"], "may_lose": bounds[task["task"]], "change": change,
                    "low": ends[0], "high": ends[1], "state": state,
                }
            )  # fmt: skip
    return found


def told(gate: Mapping[str, Any]) -> str:
    """One sentence about a gate that did not hold."""
    doubt = "" if gate["state"] == "lost" else ", which may be chance"
    return (
        f"arm {gate['arm']} lost {-gate['change']:.3f} on {gate['task']} against the base student "
        f"[{gate['low']:+.3f}, {gate['high']:+.3f}]{doubt}; at most {gate['may_lose']} was allowed"
    )
