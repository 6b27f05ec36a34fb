"""A run folder against the store it was made with: two books that were kept apart must tell the same."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stillhouse.store import read_json, read_jsonl
from stillhouse.teachers.asking.answers import AnswerStore, default_store
from stillhouse.teachers.asking.books import audit as store_audit
from stillhouse.teachers.asking.books import spending, trail
from stillhouse.teachers.asking.verdicts import verdicts_of

__all__ = ["against_store", "notes", "requests_of"]

_KEYS = 400


def opened(manifest: Mapping[str, Any]) -> AnswerStore | None:
    """The store of a run; None where it is not on this machine (it is never made here)."""
    folder = Path(manifest["store"]) if manifest.get("store") else default_store()
    return AnswerStore(folder) if (folder / "store.sqlite").is_file() else None


def against_store(run: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    """One sentence for each thing that the store and the run folder tell differently.

    The store's own books of this run balance; each row's verdict stands in both; what a row names as its requests was
    asked, and a kept row has an answer among them; the counters of the manifest are not above the attempts.
    """
    if not manifest.get("calls"):
        return
    store = opened(manifest)
    if store is None:
        folder = manifest.get("store") or default_store()
        yield f"the store {folder} is not here, so the rows cannot be held against it; set STILLHOUSE_STORE or `store`"
        return
    try:
        name = manifest["run_id"]
        yield from (f"store: {problem}" for problem in store_audit(store, run=name))
        yield from _counters(store, name, manifest["calls"])
        for stamp in sorted((run / "knowledge").rglob("stamp.json")):
            if (told := read_json(stamp)).get("kind") == "elicit":
                yield from _step(store, name, stamp.parent, told, run)
    finally:
        store.close()


def notes(manifest: Mapping[str, Any]) -> list[str]:
    """What is no fault in the books but should be known: the store was damaged once, and what was kept of it."""
    store = opened(manifest) if manifest.get("calls") else None
    if store is None:
        return []
    try:
        return [row[0] for row in store.rows("SELECT value FROM meta WHERE name = 'recovered'")]
    finally:
        store.close()


def _counters(store: AnswerStore, run: str, calls: Mapping[str, Any]) -> Iterator[str]:
    """A killed run has attempts that it could not count; never counts without attempts."""
    attempts: Counter[str] = Counter()
    dollars: Counter[str] = Counter()
    for row in spending(store, run):
        attempts[row["teacher"]] += row["attempts"]
        dollars[row["teacher"]] += row["usd"]
    for teacher, counts in calls.items():
        if counts["attempts"] > attempts[teacher]:
            yield f"teacher {teacher}: the manifest counts {counts['attempts']} attempts, the store {attempts[teacher]}"
        if counts["cost_usd"] > dollars[teacher] * (1 + 1e-9) + 1e-9:
            yield f"teacher {teacher}: the manifest counts {counts['cost_usd']:.6f} usd, the store {dollars[teacher]:.6f}"


def _step(store: AnswerStore, run: str, folder: Path, stamp: Mapping[str, Any], home: Path) -> Iterator[str]:
    name = folder.relative_to(home / "knowledge").as_posix()
    found: Counter[tuple[str, str, str]] = Counter()
    kept: list[tuple[str, ...]] = []
    asked: set[str] = set()
    for _, row in read_jsonl(folder / "out.jsonl"):
        found[row["id"], "kept", ""] += 1
        kept.append(tuple(row["origin"]["keys"]))
        asked.update(row["origin"]["keys"])
    for _, row in read_jsonl(folder / "lost.jsonl"):
        found[row["parent"], row["state"], row["reason"]] += 1
        if row["state"] != "not_attempted":  # a recorded teacher that has no answer was not asked
            asked.update(row["keys"])
    if "verdicts" in stamp:  # steps of older versions wrote none
        told = verdicts_of(store, run, name)
        for book, more in (("files", found - told), ("store", told - found)):
            if more:
                identity, status, reason = min(more)
                what = f"{identity} {status}" + (f" ({reason})" if reason else "")
                yield f"{name}: {more.total()} rows stand only in the {book}, for example {what}"
    never, answered = _unknown(store, "request", asked), asked - _unknown(store, "answer", asked)
    if unknown := [key for key in sorted(asked) if key in never and len(key) == 64]:
        yield f"{name}: {len(unknown)} requests that rows name are not in the store, for example {unknown[0][:12]}"
    without = sum(1 for keys in kept if keys and not answered.intersection(keys))
    if without:
        yield f"{name}: {without} kept rows rest on no answer that the store has"


def _unknown(store: AnswerStore, table: str, keys: set[str]) -> set[str]:
    """Those that `table` has no row for."""
    left, ordered = set(keys), sorted(keys)
    for start in range(0, len(ordered), _KEYS):
        part = ordered[start : start + _KEYS]
        left -= {
            row[0] for row in store.rows(f"SELECT key FROM {table} WHERE key IN ({', '.join('?' * len(part))})", part)
        }
    return left


def requests_of(manifest: Mapping[str, Any], keys: list[str]) -> list[dict[str, Any]]:
    """What the store knows about each request: what was asked, every attempt, what came. Empty where the store is gone."""
    store = opened(manifest) if keys else None
    if store is None:
        return []
    try:
        return [found for key in keys if (found := trail(store, key)) is not None]
    finally:
        store.close()
