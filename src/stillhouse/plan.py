"""What a run would do, told before it: rows, requests to each teacher, arms."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillhouse.recipe import Branch, Loaded, Recipe, TeacherEntry
from stillhouse.records import Lost


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do: per branch the rows and the requests to each teacher; per arm the training."""

    name: str
    branches: list[dict[str, Any]] = field(default_factory=list)
    arms: list[dict[str, Any]] = field(default_factory=list)
    teachers: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def of_teacher(name: str, entry: TeacherEntry) -> dict[str, Any]:
    return {
        "name": name,
        "backend": entry.backend,
        **{key: entry.knobs[key] for key in ("model", "base_url", "transport") if key in entry.knobs},
        **({"budget": entry.budget.at("").told()} if entry.budget else {}),
    }


def of_arm(arm: str, recipe: Recipe) -> dict[str, Any]:
    objectives = [entry.do for phase in recipe.train for entry in phase.objectives]
    told = {"arm": arm, "phases": len(recipe.train), "objectives": objectives, "repeats": recipe.repeats}
    return told | ({"rounds": recipe.rounds.most} if recipe.rounds.most > 1 else {})


def of_branch(name: str, branch: Branch, loaded: Loaded, limit: int | None, kind: str) -> dict[str, Any]:
    rows, chars = seeds_seen(branch, loaded.folder, f"knowledge.{name}.seeds", limit)
    requests: dict[str, int] = {}
    for entry in branch.elicit:
        for teacher in [entry.teacher] if isinstance(entry.teacher, str) else entry.teacher or []:
            declared = loaded.recipe.teachers.get(teacher)
            default = declared.sampling.get("n", 1) if declared else 1
            requests[teacher] = requests.get(teacher, 0) + rows * int(entry.sampling.get("n", default))
    return {"branch": name, "seeds": rows, "prompt_chars": chars, "requests": requests, "gives": kind}


def seeds_seen(branch: Branch, folder: Path, where: str, limit: int | None) -> tuple[int, int]:
    """How many seeds a local source holds and how many characters their prompts have; every row is read, none is held."""
    from stillhouse.resolve import load

    if branch.seeds.do == "hub":
        return limit or int(branch.seeds.knobs.get("limit") or 0), 0
    rows = chars = 0
    for seed in load("seeds", branch.seeds.do, folder=folder, where=where)(**branch.seeds.knobs):
        if isinstance(seed, Lost):
            continue
        rows += 1
        chars += sum(len(message.content) for message in seed.prompt) or len(getattr(seed, "response", ""))
        if limit is not None and rows >= limit:
            break
    return rows, chars
