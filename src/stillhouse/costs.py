"""What a run may cost and what it did: the ledger of the store per kept row."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stillhouse.errors import RecipeError
from stillhouse.estimate import Estimate
from stillhouse.store import read_json

_MUCH_USD = 10.0  # a run that may cost more is asked about first


def cost_of(run: Path) -> dict[str, Any]:
    """What a run was asked to pay, by the attempts in the store: in all, for each teacher and stage, and for a kept row.

    Attempts of every outcome count: retries, refusals, cut-off answers, judges; what batches cost is told apart. Each view
    is a sum over the same attempts.
    """
    from stillhouse.teachers.asking.answers import AnswerStore
    from stillhouse.teachers.asking.books import repeated, spending

    manifest = read_json(run / "manifest.json")
    store = AnswerStore(manifest.get("store"))
    try:
        rows = spending(store, manifest.get("run_id", ""))
        retries, retried_usd = repeated(store, manifest.get("run_id", ""))
    finally:
        store.close()
    teachers = {name: _summed(row for row in rows if row["teacher"] == name) for name in _names(rows, "teacher")}
    for name, counts in manifest["calls"].items():
        mine = teachers.setdefault(name, _summed([]))
        mine |= {
            "from_store": counts.get("hits", 0),
            "rungs": counts.get("rungs", {}),
            "seconds": counts.get("seconds", 0.0),
        }
    total = sum(row["usd"] for row in rows)
    kept = _kept(manifest)
    return {
        "run": str(run),
        "teachers": teachers,
        "stages": {stage: _summed(row for row in rows if row["stage"] == stage) for stage in _names(rows, "stage")},
        "outcomes": {each: _summed(row for row in rows if row["outcome"] == each) for each in _names(rows, "outcome")},
        "batches": _summed(row for row in rows if row["transport"] == "batch"),
        "retries": {"attempts": retries, "usd": retried_usd},
        "usd": total,
        "uncertain_usd": sum(row["uncertain_usd"] for row in rows),
        "kept": kept,
        "usd_per_kept": total / kept if kept else None,
        "prices": manifest.get("prices", {}),
        "seconds": manifest["seconds"],
    }


def _names(rows: list[dict[str, Any]], of: str) -> list[str]:
    return sorted({row[of] for row in rows})


def _summed(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {
        "attempts": {}, "input_tokens": 0, "output_tokens": 0, "usd": 0.0, "uncertain_usd": 0.0,
    }  # fmt: skip
    for row in rows:
        total["attempts"][row["outcome"]] = total["attempts"].get(row["outcome"], 0) + row["attempts"]
        for name in ("input_tokens", "output_tokens", "usd", "uncertain_usd"):
            total[name] += row[name]
    return total


def ask_first(told: Estimate, *, limited: bool) -> None:
    """Refuses a run that may cost much and that nobody has limited or said yes to."""
    if not limited and told.unknown:
        raise RecipeError(
            f"knowledge.{told.unknown[0]}: nobody knows how many rows the hub has, so nobody knows what it will cost; give the "
            f"seeds a `limit`, say --yes, or limit it with --budget {_MUCH_USD:g}usd"
        )
    if not limited and told.worst_usd > _MUCH_USD:
        worst = {
            name: sum(line.worst_usd for line in told.lines if line.teacher == name) for name in sorted(told.asked)
        }
        who = ", ".join(f"{name} ${usd:.2f}" for name, usd in worst.items())
        raise RecipeError(
            f"this run may cost up to about ${told.worst_usd:.2f} ({who}), ${told.usd.expected:.2f} as estimated by `still "
            f"check`; say --yes, or limit it with --budget {_MUCH_USD:g}usd"
        )


def _kept(manifest: dict[str, Any]) -> int:
    """Rows that the branches with a teacher ended with."""
    last: dict[str, dict[str, Any]] = {}
    taught = set()
    for step in manifest["steps"]:
        last[step["branch"]] = step
        taught |= {step["branch"]} if step["teachers"] else set()
    # the pool that a round ends with holds the rows of the rounds before it
    pools = {branch.partition("/")[0]: branch for branch, step in last.items() if step["kind"] == "union"}
    return sum(
        step["out"]
        for branch, step in last.items()
        if branch in taught and pools.get(branch.partition("/")[0], branch) == branch
    )
