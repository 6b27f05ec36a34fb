"""Do the books of a run balance, and where did one row come from? Recounted from the files, never from the counters alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stillhouse.errors import RecipeError
from stillhouse.ledger import against_store, notes, requests_of
from stillhouse.store import read_json, read_jsonl

PASSING = ("select", "keep", "union")  # steps that pass rows on as they are


def audit(run: Path) -> dict[str, Any]:
    """Recounts every step of a run. `problems` is empty exactly when the books balance.

    Each row that went into a step must come out of it, kept or lost; what the stamps and the manifest say must be what the
    files hold; every parent must exist; and the store of answers must tell the same (`ledger.py`).
    """
    manifest = read_json(run / "manifest.json")
    problems: list[str] = []
    rows = []
    for branch in sorted(path for path in (run / "knowledge").glob("*") if path.is_dir()):
        pool: set[str] = set()  # what earlier rounds kept, which a round's last step joins to its own
        for home in _rounds(branch):
            before: set[str] | None = None
            for folder in sorted(path for path in home.iterdir() if path.is_dir() and path.name[:2].isdigit()):
                row, before = _step(folder, before, pool, problems)
                rows.append(row)
            pool = before or set()
    _against_manifest(manifest, rows, problems)
    problems += against_store(run, manifest)
    return {"run": str(run), "steps": rows, "problems": problems, "notes": notes(manifest), "balanced": not problems}


def _rounds(branch: Path) -> list[Path]:
    """The folders that hold steps: the branch's own, or one for each of its rounds."""
    numbered = sorted(branch.glob("round-*"), key=lambda path: int(path.name.removeprefix("round-")))
    return numbered or [branch]


def _step(
    folder: Path, before: set[str] | None, pool: set[str], problems: list[str]
) -> tuple[dict[str, Any], set[str]]:
    name = _step_name(folder)
    if not (folder / "stamp.json").is_file():
        problems.append(f"{name}: not finished (no stamp); run again to resume")
        return {"step": name, "in": 0, "kept": 0, "lost": {}}, set()
    stamp = read_json(folder / "stamp.json")
    kept = [(row["id"], tuple(row["origin"]["parents"])) for _, row in read_jsonl(folder / "out.jsonl")]
    lost = [row for _, row in read_jsonl(folder / "lost.jsonl")]
    reasons: dict[str, int] = {}
    for row in lost:
        reasons[row["reason"]] = reasons.get(row["reason"], 0) + 1
    ids = [identity for identity, _ in kept]
    if len(set(ids)) != len(ids):
        problems.append(f"{name}: {len(ids) - len(set(ids))} rows share an id with another row")
    if len(kept) != stamp["out"] or reasons != stamp["lost"]:
        problems.append(
            f"{name}: the files hold {len(kept)} kept and {reasons} lost, the stamp says {stamp['out']} and {stamp['lost']}"
        )
    if before is not None:
        before = before | pool if stamp["kind"] == "union" else before
        problems += _conserved(name, stamp, before, kept, lost)
    return {"step": name, "in": stamp["in"], "kept": len(kept), "lost": reasons}, set(ids)


def _conserved(
    name: str,
    stamp: dict[str, Any],
    before: set[str],
    kept: list[tuple[str, tuple[str, ...]]],
    lost: list[dict[str, Any]],
) -> Iterator[str]:
    """A selector passes rows on under their own ids; an elicitor's rows name the rows they were born from."""
    accounted: dict[str, int] = {}
    for identity, parents in kept:
        born_from = (identity,) if stamp["kind"] in PASSING else parents
        if identity in before and stamp["kind"] not in PASSING:  # passed on as it is, or made again of an earlier one
            born_from = (identity, *(parent for parent in parents if parent in before))
        for parent in born_from:
            accounted[parent] = accounted.get(parent, 0) + 1
    for row in lost:
        accounted[row["parent"]] = accounted.get(row["parent"], 0) + 1
    missing, unknown = before - set(accounted), set(accounted) - before
    if stamp["kind"] == "elicit":  # a pool that grows makes rows of rows it has made
        unknown -= {identity for identity, _ in kept}
    if missing:
        yield f"{name}: {len(missing)} rows went in and neither came out nor were lost, for example {min(missing)}"
    if unknown:
        yield f"{name}: {len(unknown)} rows came from nowhere, for example {min(unknown)}"
    if stamp["kind"] == "union":
        accounted = dict.fromkeys(accounted, 1)  # a row that was in the pool already is kept once and lost once
    if stamp["kind"] in PASSING:
        twice = [identity for identity, times in accounted.items() if times != 1]
        if twice:
            yield f"{name}: {len(twice)} rows are both kept and lost, or twice there, for example {min(twice)}"


def _against_manifest(manifest: dict[str, Any], rows: list[dict[str, Any]], problems: list[str]) -> None:
    told = {f"{step['branch']}/{step['step']}": step["out"] for step in manifest["steps"]}
    found = {row["step"]: row["kept"] for row in rows}
    if told != found:
        different = sorted(set(told.items()) ^ set(found.items()))
        problems.append(f"manifest.json and the folders disagree about {different[0][0]}")
    if manifest["state"] != "done":
        problems.append(f"the run is not done (state: {manifest['state']})")


def why(run: Path, row: str) -> list[dict[str, Any]]:
    """One row's trail, the seed first: every step that made, kept or lost it. `row` is an id or its unambiguous beginning.

    Raises `RecipeError` when no row, or more than one, begins like that.
    """
    entries = list(_everything(run))
    found = {entry["id"] for entry in entries if entry["id"].startswith(row)}
    if not found:
        raise RecipeError(f"{run}: no row {row!r}; ids stand in knowledge/*/*/out.jsonl and as `parent` in lost.jsonl")
    if row not in found and len(found) > 1:
        raise RecipeError(
            f"{run}: {row!r} begins {len(found)} ids ({', '.join(sorted(found)[:3])} ...); write more of it"
        )
    wanted = row if row in found else found.pop()
    # two branches over the same seeds hold rows of the same id: a trail stays inside its branch
    trail: list[dict[str, Any]] = []
    ids = {(_branch(entry), wanted) for entry in entries if entry["id"] == wanted}
    while ids:
        here = [entry for entry in entries if (_branch(entry), entry["id"]) in ids and entry not in trail]
        trail += here
        ids = {(_branch(entry), parent) for entry in here for parent in entry["parents"]}
    manifest = read_json(run / "manifest.json")
    for entry in trail:
        entry["requests"] = requests_of(manifest, list(entry.get("keys") or ()))
    return sorted(trail, key=lambda entry: entry["step"])


def _branch(entry: dict[str, Any]) -> str:
    return entry["step"].split("/")[0]


def _files(run: Path, name: str) -> list[Path]:
    return sorted([*(run / "knowledge").glob(f"*/*/{name}"), *(run / "knowledge").glob(f"*/round-*/*/{name}")])


def _step_name(folder: Path) -> str:
    """`<branch>/[round-K/]NN-<do>`."""
    parts = folder.parts
    return "/".join(parts[-3:] if parts[-2].startswith("round-") else parts[-2:])


def _everything(run: Path) -> Iterator[dict[str, Any]]:
    for path in _files(run, "out.jsonl"):
        step = _step_name(path.parent)
        for _, row in read_jsonl(path):
            origin = row["origin"]
            yield {
                "step": step, "id": row["id"], "state": "kept", "kind": row["kind"], "parents": origin["parents"],
                "teacher": origin["teacher"], "keys": origin["keys"], "prompt": row["prompt"], "response": row.get("response"),
                "reference": row.get("reference"),
            }  # fmt: skip
    for path in _files(run, "lost.jsonl"):
        step = _step_name(path.parent)
        for _, row in read_jsonl(path):
            yield {
                "step": step, "id": row["parent"], "state": row["state"], "reason": row["reason"], "slot": row["slot"],
                "detail": row["detail"], "keys": row["keys"], "parents": [],
            }  # fmt: skip
