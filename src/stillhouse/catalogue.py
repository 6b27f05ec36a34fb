"""What `still list`, `explain`, `check`, `compare` and `why` print."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from stillhouse.errors import RecipeError, nearest
from stillhouse.matching import capabilities
from stillhouse.plain import read_yaml
from stillhouse.recipe import Recipe, shipped_recipes
from stillhouse.resolve import HOMES, PACKAGE, Signature, backend_signature, backends, names, signature

KINDS = (*HOMES, "teachers", "recipes")


def catalogue(kind: str | None = None) -> dict[str, dict[str, str]]:
    """Names and their one-line docs by kind."""
    if kind is not None and kind not in KINDS:
        raise RecipeError(f"list: no kind {kind!r}; {nearest(kind, KINDS)}")
    return {each: _named(each) for each in ([kind] if kind else KINDS)}


def _named(kind: str) -> dict[str, str]:
    if kind == "recipes":
        return {name: _purpose(path) for name, path in shipped_recipes().items()}
    if kind == "teachers":
        return {
            name: f"{_signature(kind, name).summary} [{', '.join(sorted(capabilities(name)))}]" for name in backends()
        }
    return {name: _signature(kind, name).summary for name in names(kind)}


def _purpose(path: Any) -> str:
    """The first comment line of a recipe says what it is for."""
    first = path.read_text(encoding="utf-8").split("\n", 1)[0]
    return first.removeprefix("#").strip() if first.startswith("#") else str(read_yaml(path)["name"])


def _signature(kind: str, name: str) -> Signature:
    if kind == "teachers":
        return backend_signature(name, where="teachers")
    return signature(kind, name, folder=PACKAGE, where="explain")


def explained(name: str) -> list[dict[str, Any]]:
    """Everything of that name; one name may be a backend and a grader at once."""
    kinds, keys = [kind for kind in (*HOMES, "teachers") if name in _names(kind)], _recipe_keys()
    if not kinds and name not in keys:
        known = [each for kind in (*HOMES, "teachers") for each in _names(kind)]
        raise RecipeError(f"explain: nothing is called {name!r}; {nearest(name, [*known, *keys])}")
    return [_told(kind, name) for kind in kinds] + ([keys[name]] if name in keys else [])


def _recipe_keys() -> dict[str, dict[str, Any]]:
    """What the keys of a recipe hold that have keys of their own: budget, rollouts, screening and the like."""
    schema = Recipe.model_json_schema()
    homes, found = schema["$defs"], {}
    for home in (schema, *homes.values()):
        for key, told in home.get("properties", {}).items():
            if held := re.search(r"#/\$defs/(\w+)", json.dumps(told)):
                entry = homes[held[1]]
                knobs = {name: _schema_type(each) for name, each in entry["properties"].items()}
                found[key] = {
                    "kind": "recipe key", "name": key, "source": "stillhouse/recipe.py", "reads": [], "knobs": knobs,
                    "doc": entry.get("description", ""),
                }  # fmt: skip
    return found


def _schema_type(told: dict[str, Any]) -> str:
    kinds = [each.get("type") or str(each.get("$ref", "any")).rpartition("/")[2] for each in told.get("anyOf", [told])]
    kinds = told.get("enum", kinds)
    return " | ".join(map(str, kinds)) + (f" = {told['default']}" if "default" in told else "")


def _names(kind: str) -> list[str]:
    return list(backends()) if kind == "teachers" else names(kind)


def _told(kind: str, name: str) -> dict[str, Any]:
    found = _signature(kind, name)
    knobs = {}
    for knob in found.knobs:
        default = f" = {found.defaults[knob]}" if knob in found.defaults else " (required)"
        knobs[knob] = f"{found.annotations.get(knob, 'any')}{default}"
    source = f"stillhouse/{found.path.relative_to(PACKAGE)}:{found.line}"
    reads = [f"{each}: {found.annotations[each]}" if each in found.annotations else each for each in found.inputs]
    return {"kind": kind, "name": name, "source": source, "doc": found.doc, "reads": reads, "knobs": knobs}


def plan_lines(plan: dict[str, Any]) -> Iterator[str]:
    yield f"recipe {plan['name']}: nothing to refuse"
    for teacher in plan["teachers"]:
        yield f"teacher {teacher['name']}: {', '.join(f'{k} {v}' for k, v in teacher.items() if k != 'name')}"
    for branch in plan["branches"]:
        asked = ", ".join(f"{count} requests to {name}" for name, count in branch["requests"].items()) or "no requests"
        seeds = f"{branch['seeds']} seeds ({branch['prompt_chars']} characters)"
        yield f"branch {branch['branch']}: {seeds}, {asked}, gives {branch['gives']}"
    for arm in plan["arms"]:
        objectives = ", ".join(arm["objectives"]) or "no training"
        yield f"arm {arm['arm']}: {arm['phases']} phase(s) of {objectives}, {arm['repeats']} repeat(s)" + (
            f", up to {arm['rounds']} rounds" if arm.get("rounds") else ""
        )
    yield from plan["terms"]["lines"]
    for warning in plan["warnings"]:
        yield f"warning: {warning}"


def compared(runs: Sequence[Any]) -> dict[str, Any]:
    """The summaries of runs; with several, each arm carries its run's folder name."""
    rows, differences = [], []
    for run in runs:
        prefix = f"{run.path.name}:" if len(runs) > 1 else ""
        scores = run.scores
        rows += [{**row, "arm": prefix + row["arm"]} for row in scores["summary"]]
        differences += [
            {**d, "arm": prefix + d["arm"], "against": prefix + d["against"]} for d in scores["comparisons"]
        ]
    if len(runs) > 1:
        differences += list(_across(runs))
    return {"summary": rows, "comparisons": differences}


def _across(runs: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Arms of different runs, where both were asked the very same items of a task of the same name."""
    from stillhouse.scores import across

    for number, run in enumerate(runs):
        for other in runs[:number]:
            yield from across(run.path, other.path)


def score_lines(found: dict[str, Any]) -> Iterator[str]:
    yield from _table(
        ["task", "arm", "mean", "95 % interval", "seeds", "items"],
        [
            [
                r["task"],
                r["arm"],
                f"{r['mean']:.3f}",
                f"[{r['low']:.3f}, {r['high']:.3f}]",
                str(r["seeds"]),
                str(r["items"]),
            ]
            for r in found["summary"]
        ],
    )
    if found["comparisons"]:
        yield ""
        yield from _table(
            ["task", "arm", "minus", "difference", "95 % interval", ""],
            [
                [d["task"], d["arm"], d["against"], f"{d['difference']:+.3f}", f"[{d['low']:+.3f}, {d['high']:+.3f}]", _clear(d)]
                for d in found["comparisons"]
            ],
        )  # fmt: skip


def _clear(difference: dict[str, Any]) -> str:
    return "*" if difference["low"] > 0 or difference["high"] < 0 else ""


def _table(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()


def trail_lines(trail: Iterable[dict[str, Any]]) -> Iterator[str]:
    for entry in trail:
        if entry["state"] == "kept":
            by = f" by {entry['teacher']}" if entry["teacher"] else ""
            yield f"{entry['step']}: {entry['kind']} {entry['id']}{by}"
            yield from (f"    {message['role']}: {message['content']}" for message in entry["prompt"])
            if entry["response"] is not None:
                yield f"    response: {entry['response']}"
            if entry["reference"] is not None:
                yield f"    reference: {entry['reference']}"
        else:
            detail = f" ({entry['detail']})" if entry["detail"] else ""
            yield f"{entry['step']}: {entry['id']} {entry['state']}: {entry['reason']}{detail}"
        for request in entry["requests"]:
            yield f"    request {request['key']}"
            yield from (f"        {line}" for line in _attempt_lines(request["attempts"]))


def cost_lines(found: dict[str, Any]) -> Iterator[str]:
    head = ["attempts", "tokens in", "tokens out", "usd"]
    yield from _table(
        ["teacher", "from store", *head],
        [[name, str(each.get("from_store", 0)), *_spent(each)] for name, each in found["teachers"].items()],
    )
    yield ""
    yield from _table(["stage", *head], [[name or "-", *_spent(each)] for name, each in found["stages"].items()])
    for name, each in found["teachers"].items():
        if len(told := each.get("rungs", {})) > 1 or any(rung != "1" for rung in told):
            total = sum(told.values())
            shares = ", ".join(f"{100 * told[r] / total:.1f} % at {2 ** (int(r) - 1)} x" for r in sorted(told, key=int))
            yield f"answers of {name} by the limit they came at: {shares} max_tokens"
        if each.get("seconds"):
            yield f"{name} worked {each['seconds']:.1f} s on this machine"
    retries = found["retries"]
    yield f"again for the same request: {retries['attempts']} attempts, {retries['usd']:.4f} usd"
    if found["batches"]["attempts"]:
        number = sum(found["batches"]["attempts"].values())
        yield f"in batches: {number} attempts, {found['batches']['usd']:.4f} usd at the batch price"
    if found["uncertain_usd"]:
        yield f"uncertain: {found['uncertain_usd']:.4f} usd may not have been billed (no reply came)"
    each_kept = f"{found['usd_per_kept']:.6f}" if found["usd_per_kept"] is not None else "-"
    yield f"total {found['usd']:.4f} usd for {found['kept']} kept rows, {each_kept} usd each"
    yield "seconds: " + ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in found["seconds"].items())


def _spent(each: dict[str, Any]) -> list[str]:
    attempts = ", ".join(f"{number} {outcome}" for outcome, number in each["attempts"].items()) or "0"
    return [attempts, str(each["input_tokens"]), str(each["output_tokens"]), f"{each['usd']:.4f}"]


def _attempt_lines(attempts: Iterable[dict[str, Any]]) -> Iterator[str]:
    """How each attempt ended, by whom, at what cost."""
    for each in attempts:
        seconds = f" after {each['finished'] - each['started']:.1f} s" if each["finished"] else ""
        served = f" by {each['served_model']}" if each["served_model"] else ""
        paid = "" if each["settled_usd"] is None else f", {each['settled_usd']:.6f} usd"
        odd = f" [{each['flags']}]" if each["flags"] else ""
        why = f": {each['detail']}" if each["detail"] else ""
        tokens = f", {each['input_tokens']} tokens in, {each['output_tokens']} out"
        yield f"{each['transport']}, {each['outcome']}{served}{seconds}{tokens}{paid}{odd}{why} (run {each['run'][:8]})"
