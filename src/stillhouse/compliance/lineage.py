"""Which teachers reach a row: through the row itself, or through the rows it was born from.

Read from a run folder (knowledge/<branch>/[round-K/]NN-<step>/out.jsonl); rows stream, and of those that others may be
born from a hash and a number is held.
"""

import json
import re
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import yaml

from stillhouse.errors import RecipeError
from stillhouse.numbers import Numbers

__all__ = ["Taint", "branch_ends", "branch_steps", "ends_by_teachers", "rows_by_teachers", "taint", "teachers_of_rows"]

Names = frozenset[str]


@dataclass(frozen=True, slots=True)
class _Origin:
    parents: tuple[str, ...] = ()
    teacher: str = ""


@dataclass(frozen=True, slots=True)
class _Row:
    """What is read of a row here; the rest of its line is passed over."""

    id: str
    origin: _Origin


_read = msgspec.json.Decoder(_Row).decode
_NOBODY: Names = frozenset()


@dataclass
class Taint:
    """What a teacher touched: rows per step, the branches they are in, the students trained on those branches."""

    teacher: str
    names: tuple[str, ...]
    rows: dict[str, list[str]] = field(default_factory=dict)
    of: dict[str, int] = field(default_factory=dict)
    datasets: tuple[str, ...] = ()
    students: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        steps = [{"step": s, "rows": len(ids), "of": self.of[s], "ids": ids} for s, ids in self.rows.items()]
        return {
            "teacher": self.teacher,
            "names": list(self.names),
            "steps": steps,
            "datasets": list(self.datasets),
            "students": list(self.students),
        }


def branch_steps(run: Path) -> dict[str, list[Path]]:
    """The `out.jsonl` files of each branch, in the order they were written: round by round, step by step."""
    out: dict[str, list[Path]] = {}
    for branch in sorted(p for p in (run / "knowledge").glob("*") if p.is_dir()):
        files = list(branch.glob("*/out.jsonl")) + list(branch.glob("round-*/*/out.jsonl"))
        out[branch.name] = sorted(files, key=lambda f: [_number(part) for part in f.relative_to(branch).parts[:-1]])
    return out


def _number(name: str) -> tuple[int, str]:
    found = re.search(r"\d+", name)
    return (int(found.group()) if found else 0, name)


def branch_ends(files: list[Path]) -> list[Path]:
    """Of a branch's files those that training may have read: what every round ended with, or the pool of all rounds.

    The last student has all rounds behind it, because each begins with the student before. A round that was stopped
    before training counts too: its rows are in the run.
    """
    last = {file.parent.parent: file for file in files}
    return files[-1:] if files and files[-1].parent.name.endswith("-union") else list(last.values())


def rows_by_teachers(run: Path) -> dict[str, Counter[Names]]:
    """For each branch, how many of the rows it ends with (`branch_ends`) each set of teachers reaches."""
    return {branch: _counted(tuple(map(_version, files)))[0] for branch, files in branch_steps(run).items()}


def ends_by_teachers(run: Path) -> dict[str, dict[Path, Counter[Names]]]:
    """The same counts for each file that a branch ends with; a row of two rounds is counted in both."""
    return {branch: _counted(tuple(map(_version, files)))[1] for branch, files in branch_steps(run).items()}


def _version(file: Path) -> tuple[Path, int, int]:
    told = file.stat()
    return file, told.st_mtime_ns, told.st_size


@lru_cache(maxsize=64)
def _counted(versions: tuple[tuple[Path, int, int], ...]) -> tuple[Counter[Names], dict[Path, Counter[Names]]]:
    # kept by when the files were written: gate, cards, bill of materials and summary ask within one run
    files = [file for file, *_ in versions]
    ends: dict[Path, Counter[Names]] = {file: Counter() for file in branch_ends(files)}
    found = _Behind()
    for file, rows in _reached(files):
        if file not in ends:
            deque(rows, maxlen=0)
        elif len(ends) == 1:
            ends[file].update(names for _, names in rows)
        else:
            for id, names in rows:
                ends[file][names] += 1
                found.add(id, names)
    return (found.counts() if len(ends) != 1 else next(iter(ends.values()))), ends


def teachers_of_rows(run: Path) -> Names:
    """Every teacher that reaches a row the student may train on."""
    return frozenset(name for counts in rows_by_teachers(run).values() for names in counts for name in names)


def _reached(files: list[Path]) -> Iterator[tuple[Path, Iterator[tuple[str, Names]]]]:
    """Step by step, each row's id with all teachers behind it. A step's rows are to be used up before the next."""
    known = _Behind()
    sets: dict[Names, Names] = {}

    def rows(file: Path) -> Iterator[tuple[str, Names]]:
        ends = file == files[-1]  # nothing is born from its rows any more
        for row in _rows(file):
            names = frozenset([row.origin.teacher]) if row.origin.teacher else _NOBODY
            if behind := [found for parent in row.origin.parents if (found := known[parent])]:
                names = names.union(*behind)
            names = sets.setdefault(names, names)
            if names and not ends:
                known.add(row.id, names)
            yield row.id, names

    for file in files:
        yield file, rows(file)


class _Behind:
    """The teachers behind each row, by its id: a million rows share a few sets, so a number each is held."""

    def __init__(self) -> None:
        self._sets: list[Names] = [_NOBODY]
        self._number_of: dict[Names, int] = {}
        self._numbers = Numbers()
        self._rows: Counter[int] = Counter()

    def __getitem__(self, id: str) -> Names:
        return self._sets[self._numbers[id]]

    def add(self, id: str, names: Names) -> None:
        """Another row of this id, or the first: all teachers behind the rows of one id are behind it."""
        before = self._numbers[id]
        if before:
            names |= self._sets[before]
        if names not in self._number_of:
            self._number_of[names] = len(self._sets)
            self._sets.append(names)
        number = self._number_of[names]
        if number != before:
            self._numbers[id] = number
            self._rows[number] += 1
            self._rows[before] -= 1

    def counts(self) -> Counter[Names]:
        """How many ids each set of teachers is behind."""
        return Counter({names: self._rows[number] for names, number in self._number_of.items() if self._rows[number]})


def _rows(file: Path) -> Iterator[_Row]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield _read(line)
            except msgspec.MsgspecError:  # numbers that are not finite, halves of characters; or no row at all
                yield _slowly(line, f"{file}:{number}")


def _slowly(line: bytes, where: str) -> _Row:
    try:
        row = json.loads(line)
    except ValueError as e:
        raise RecipeError(f"{where}: is not a row of JSON; run the step again") from e
    if not isinstance(row, dict) or not isinstance(row.get("origin"), dict) or "id" not in row:
        raise RecipeError(f"{where}: a row without id and origin says nothing about its teacher")
    origin = row["origin"]
    return _Row(row["id"], _Origin(tuple(origin.get("parents") or ()), origin.get("teacher") or ""))


def taint(run: Path, teacher: str) -> Taint:
    """Rows, datasets and students that a teacher touched, directly or through rows born from its rows.

    `teacher` is a name in the recipe or a model id. Raises RecipeError where there is no run, or no such teacher.
    """
    if not (run / "knowledge").is_dir():
        raise RecipeError(f"{run}: is no run folder (it has no knowledge/); give the folder that a run wrote")
    recipe = _recipe(run)
    names = _names(recipe, run, teacher)
    out = Taint(teacher, names)
    seen: set[str] = set()
    for files in branch_steps(run).values():
        for file, rows in _reached(files):
            step = str(file.parent.relative_to(run / "knowledge"))
            total, mine = 0, []
            for id, behind in rows:
                total += 1
                seen |= behind
                if behind.intersection(names):
                    mine.append(id)
            if mine:
                out.rows[step], out.of[step] = mine, total
    if not out.rows and not set(names) & (seen | set(recipe.get("teachers") or {})):
        known = sorted(seen | set(recipe.get("teachers") or {}))
        raise RecipeError(f"{run}: no teacher {teacher!r}; known: {', '.join(known) or 'none'}")
    out.datasets = tuple(sorted({step.partition("/")[0] for step in out.rows}))
    out.students = _students(run, recipe, set(out.datasets), set(names))
    return out


def _recipe(run: Path) -> Mapping[str, Any]:
    path = run / "recipe.yaml"
    if not path.is_file():
        return {}
    try:
        # every scalar as text: `on`, a key of recipes, is a truth value to YAML 1.1
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except yaml.YAMLError as e:
        raise RecipeError(f"{path}: is not YAML ({str(e).splitlines()[0]}); it is written by the run: run again") from e
    return data if isinstance(data, Mapping) else {}


def _names(recipe: Mapping[str, Any], run: Path, teacher: str) -> tuple[str, ...]:
    """What rows may call this teacher: names in the recipe first, then the model's."""
    teachers = {**(recipe.get("teachers") or {}), **_manifest_teachers(run)}
    found = {teacher}
    for name, spec in teachers.items():
        model = spec.get("model") if isinstance(spec, Mapping) else None
        if model == teacher:
            found.add(str(name))
        if name == teacher and model:
            found.add(str(model))
    return tuple(sorted(found, key=lambda each: (each not in teachers, each)))


def _manifest_teachers(run: Path) -> dict[str, Any]:
    path = run / "manifest.json"
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as e:
        raise RecipeError(f"{path}: is not JSON; it is written by the run: run again") from e
    teachers = data.get("teachers") if isinstance(data, dict) else None
    if isinstance(teachers, list):
        return {str(row["name"]): row for row in teachers if isinstance(row, Mapping) and "name" in row}
    return teachers if isinstance(teachers, dict) else {}


def _students(run: Path, recipe: Mapping[str, Any], branches: set[str], names: set[str]) -> tuple[str, ...]:
    """Folders of students whose training read one of these branches, or asked one of these teachers itself."""
    folders = sorted(p for p in run.glob("students/*") if p.is_dir())
    found = []
    arms = recipe.get("arms") or {}
    for folder in folders:
        arm = arms.get(folder.name) or {}
        spec = arm.get("train", recipe.get("train"))
        if spec is None or _touched(spec, branches, names):  # without a recipe nothing shows that it was not touched
            found += [str(p.relative_to(run)) for p in sorted(folder.iterdir()) if p.is_dir()] or [
                f"students/{folder.name}"
            ]
    if (run / "student").is_dir():
        specs = [recipe.get("train"), *(arm.get("train") for arm in arms.values() if isinstance(arm, Mapping))]
        given = [spec for spec in specs if spec is not None]
        if not given or any(_touched(spec, branches, names) for spec in given):
            found.append("student")
    return tuple(found)


def _touched(spec: Any, branches: set[str], names: set[str]) -> bool:
    if isinstance(spec, list):
        return any(_touched(row, branches, names) for row in spec)
    if not isinstance(spec, Mapping):
        return False
    on, asked = _listed(spec.get("on")), _listed(spec.get("teacher"))
    return bool(branches & on or names & asked) or any(_touched(value, branches, names) for value in spec.values())


def _listed(value: Any) -> set[str]:
    return {str(v) for v in value} if isinstance(value, list) else {str(value)} if value else set()
