"""What a run folder holds, read once and streamed: counts come from stamps and the manifest, never from all rows at once."""

import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from stillhouse.errors import RecipeError
from stillhouse.recipe import Loaded, Recipe, load_recipe
from stillhouse.records import content_id
from stillhouse.resolve import signature
from stillhouse.store import read_json

__all__ = [
    "BASE",
    "Answered",
    "Arm",
    "Branch",
    "Curve",
    "RunFacts",
    "answered_alike",
    "branches_of",
    "empty_answers",
    "loss_curves",
    "read_run",
]

BASE = "base"
_RECIPE_SHOWN = 60_000  # characters of recipe.yaml in the report
_POINTS = 120  # of one curve: a screen shows no more


@dataclass(frozen=True, slots=True)
class Arm:
    """One variant of the recipe: the branches it reads and the teachers behind them.

    `taught`: a teacher's knowledge goes in; `beliefs`: its probabilities, not text alone.
    """

    name: str
    objectives: tuple[str, ...]
    reads: frozenset[str]
    teachers: frozenset[str]
    taught: bool
    beliefs: bool


@dataclass(frozen=True, slots=True)
class RunFacts:
    """The small files of a run. `scores` is None before anything was evaluated, `recipe` None where it cannot be read."""

    path: Path
    manifest: dict[str, Any]
    scores: dict[str, Any] | None
    recipe: Recipe | None
    recipe_text: str
    arms: dict[str, Arm]

    @property
    def terms(self) -> dict[str, Any]:
        """What the check of the terms left in the manifest; empty when there was none."""
        return self.manifest.get("terms") or {}

    @property
    def card(self) -> dict[str, Any]:
        """What the terms want on the cards: `fields`, `model_card`, `data_card`; empty before a run is done."""
        return self.terms.get("card") or {}

    @property
    def final(self) -> dict[str, Any] | None:
        return (self.scores or {}).get("final")

    def teachers(self) -> dict[str, dict[str, Any]]:
        """Each teacher's identity by its name in the recipe: as the steps recorded it, else as the recipe has it."""
        found: dict[str, dict[str, Any]] = {}
        for name, entry in (self.recipe.teachers if self.recipe else {}).items():
            said = {"name": name, "backend": entry.backend, "model": str(entry.knobs.get("model", ""))}
            found[name] = said | {"endpoint": str(entry.knobs.get("base_url", ""))}
        for each in self.manifest.get("teachers") or []:
            found[each["name"]] = found.get(each["name"], {}) | each
        for step in self.manifest.get("steps") or []:
            found |= {each["name"]: each for each in step.get("teachers") or []}
        return found


@dataclass(frozen=True, slots=True)
class Branch:
    """The steps of one branch in order, as their stamps have them."""

    name: str
    steps: list[dict[str, Any]]

    @property
    def seeds(self) -> int:
        return self.steps[0]["out"]

    @property
    def kept(self) -> int:
        return self.steps[-1]["out"]

    @property
    def synthetic(self) -> bool:
        """A model wrote or scored its rows."""
        return any(step.get("teachers") for step in self.steps)


@dataclass(frozen=True, slots=True)
class Curve:
    """The logged losses of one student: `steps` run on over the phases, `ends` says where each phase but the last ended."""

    arm: str
    seed: int
    steps: list[float]
    losses: list[float]
    ends: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """One held-out question with the answers of several subjects, by label."""

    item: str
    prompt: str
    reference: str | None
    group: str
    answers: dict[str, dict[str, Any]]


def read_run(path: Path) -> RunFacts:
    """Raises `RecipeError` when the folder holds no manifest."""
    manifest = read_json(path / "manifest.json")
    scores = path / "evaluate" / "scores.json"
    text = path / "recipe.yaml"
    loaded = _recipe(text)
    return RunFacts(
        path,
        manifest,
        read_json(scores) if scores.is_file() else None,
        loaded.recipe if loaded else None,
        text.read_text(encoding="utf-8", errors="replace")[:_RECIPE_SHOWN] if text.is_file() else "",
        {name: _arm(name, recipe, path) for name, recipe in loaded.arms().items() if recipe.train} if loaded else {},
    )


def _recipe(path: Path) -> Loaded | None:
    if not path.is_file():
        return None
    try:
        return load_recipe(path)
    except RecipeError:  # written by another version: the manifest still tells what happened
        return None


def _arm(name: str, recipe: Recipe, run: Path) -> Arm:
    entries = [entry for phase in recipe.train for entry in phase.objectives]
    read = {entry.on for entry in entries} | {phase.rollouts.on for phase in recipe.train if phase.rollouts}
    read &= set(recipe.knowledge)
    asked = [entry.teacher for branch in read for entry in recipe.knowledge[branch].elicit]
    asked += [entry.teacher for entry in entries]
    teachers = frozenset(each for named in asked for each in ([named] if isinstance(named, str) else named or []))
    return Arm(
        name,
        tuple(dict.fromkeys(f"{entry.do} on {entry.on}" for entry in entries)),
        frozenset(read),
        teachers,
        bool(teachers) and "control" not in name.lower(),
        any(_reads_beliefs(entry.do, run) for entry in entries),
    )


def _reads_beliefs(objective: str, run: Path) -> bool:
    try:
        return "teacher_beliefs" in signature("objectives", objective, folder=run / "code", where="report").inputs
    except RecipeError:  # the user's own function, no longer where it was
        return False


def branches_of(manifest: Mapping[str, Any]) -> list[Branch]:
    steps = manifest.get("steps") or []
    names = dict.fromkeys(str(step["branch"]) for step in steps)
    return [Branch(name, [step for step in steps if step["branch"] == name]) for name in names]


def loss_curves(run: Path) -> list[Curve]:
    """One curve per student, thinned by averaging neighbours; rows that carry no loss are passed over."""
    held: dict[tuple[str, int], dict[int, tuple[array[float], array[float]]]] = {}
    for row in _rows(run / "metrics.jsonl"):
        if isinstance(row.get("loss"), (int, float)):
            phases = held.setdefault((row["arm"], row["seed"]), {})
            steps, losses = phases.setdefault(row.get("phase", 0), (array("d"), array("d")))
            steps.append(row["step"])
            losses.append(row["loss"])
    return [_curve(arm, seed, phases) for (arm, seed), phases in held.items()]


def _curve(arm: str, seed: int, phases: Mapping[int, tuple[Sequence[float], Sequence[float]]]) -> Curve:
    all_steps: list[float] = []
    all_losses: list[float] = []
    ends: list[float] = []
    for phase in sorted(phases):
        start = all_steps[-1] if all_steps else 0.0
        ends += [start] if all_steps else []
        steps, losses = phases[phase]
        all_steps += [start + step for step in steps]
        all_losses += losses
    size = -(-len(all_steps) // _POINTS)
    groups = range(0, len(all_steps), size)
    return Curve(
        arm,
        seed,
        [_mean(all_steps[at : at + size]) for at in groups],
        [_mean(all_losses[at : at + size]) for at in groups],
        tuple(ends),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def answered_alike(
    run: Path, task: str, subjects: Sequence[str], chosen: str, number: int = 10
) -> tuple[list[Answered], dict[str, int]]:
    """`number` test questions with what every subject answered, and how many questions there are of each kind.

    Kinds: the chosen student gained on the base, lost, both right, both wrong; right and wrong where no base was asked.
    They are taken in turn, within each kind by a hash of the item, so that it is the same every time. `subjects` are labels of
    files in `evaluate/<task>/`; both are empty for tasks without answers to read.
    """
    home = run / "evaluate" / task
    marks = {label: _marks(home / f"{label}.jsonl") for label in (BASE, chosen)}
    alone = not marks[BASE]
    kinds = ("right", "wrong") if alone else ("gained", "lost", "both right", "both wrong")
    groups: dict[str, list[tuple[str, int]]] = {kind: [] for kind in kinds}
    for at, (item, value) in marks[chosen].items():
        before = marks[BASE].get(at, (item, 0.0))[1]
        kind = ("right" if value >= 0.5 else "wrong") if alone else _group(before, value)
        groups[kind].append((content_id(item, at), at))
    places = {at: name for name, at in _in_turn({k: sorted(v) for k, v in groups.items()}, number)}
    rows: dict[int, dict[str, dict[str, Any]]] = {at: {} for at in places}
    for label in subjects:
        for at, row in enumerate(_rows(home / f"{label}.jsonl")):
            if at in rows:
                rows[at][label] = row
    return [_answered(places[at], found) for at, found in rows.items() if found], {k: len(v) for k, v in groups.items()}


def _marks(path: Path) -> dict[int, tuple[str, float]]:
    """Item and value of each test row with an answer, by its place in the file (the same in every subject's file)."""
    return {
        at: (row["item"], float(row["value"] or 0.0))
        for at, row in enumerate(_rows(path))
        if row.get("split") == "test" and "response" in row
    }


def _group(before: float, after: float) -> str:
    if (before >= 0.5) == (after >= 0.5):
        return "both right" if after >= 0.5 else "both wrong"
    return "gained" if after >= 0.5 else "lost"


def _in_turn(groups: Mapping[str, Sequence[tuple[str, int]]], number: int) -> Iterator[tuple[str, int]]:
    """From each group in turn until `number` are taken, then group by group."""
    taken: list[tuple[str, int]] = []
    for place in range(number):
        taken += [(name, rows[place][1]) for name, rows in groups.items() if place < len(rows)]
    order = list(groups)
    yield from sorted(taken[:number], key=lambda pair: order.index(pair[0]))


def _answered(group: str, found: Mapping[str, dict[str, Any]]) -> Answered:
    any_row = next(iter(found.values()))
    return Answered(any_row["item"], any_row.get("prompt") or "", any_row.get("reference"), group, dict(found))


def empty_answers(run: Path, task: str) -> dict[str, tuple[int, int]]:
    """Per arm: answers without any text, and all answers, over its seeds."""
    found: dict[str, tuple[int, int]] = {}
    paths = sorted((run / "evaluate" / task).glob("*.jsonl"))
    rows = (row for path in paths for row in _rows(path) if "response" in row and row.get("split") == "test")
    for arm, mine in groupby(rows, key=lambda row: row["arm"]):
        for row in mine:
            empty, total = found.get(arm, (0, 0))
            found[arm] = (empty + (not str(row["response"] or "").strip()), total + 1)
    return found


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file of the run's own; a line cut short by a kill ends it."""
    if not path.is_file():
        return
    with open(path, "rb") as file:
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:
                return
