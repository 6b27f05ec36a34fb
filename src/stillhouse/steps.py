"""The knowledge of a run, step by step: seeds, then each `elicit` entry, then each `select` entry (Eq. 1).

A step lies in `knowledge/<branch>/NN-<do>/` as `out.jsonl`, `lost.jsonl` and `stamp.json`. The stamp holds a hash of the
step's input, its entry, its teacher and its code: a step whose stamp still fits is not done again; any other is done from
its start, and the store of answers sees to it that nothing is asked twice.
"""

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from stillhouse.check import STUDENT, nested, nested_kind
from stillhouse.errors import GoalNotMet, RecipeError
from stillhouse.progress import Progress
from stillhouse.recipe import Branch, ElicitEntry, Entry, Recipe, fingerprint
from stillhouse.records import Lost, Record, stamped
from stillhouse.resolve import PACKAGE, import_file, load, locate, read_signature
from stillhouse.store import Records, Writer, lost_row, read_stamp, write_json
from stillhouse.teachers.base import Sampling

# what an elicitor, a selector and a source of seeds give
Result = Record | Lost


class Teachers:
    """The teachers of a recipe, made when first asked for; each is wrapped so that every request is looked up first."""

    def __init__(self, recipe: Recipe, calls: Any) -> None:
        self._recipe, self._calls = recipe, calls
        self._backends: dict[str, Any] = {}

    def backend(self, name: str) -> Any:
        if name not in self._backends:
            self._backends[name] = self._make(name)
        return self._backends[name]

    def _make(self, name: str) -> Any:
        if name == STUDENT:
            from stillhouse.teachers.transformers import Teacher

            assert self._recipe.student is not None
            return Teacher(model=student_path(self._recipe.student.model))
        entry = self._recipe.teachers[name]
        module = import_file(PACKAGE / "teachers" / f"{entry.backend}.py")
        return module.Teacher(**entry.knobs)

    def ask(self, name: str, overrides: Mapping[str, Any]) -> Any:
        """The teacher as an elicitor sees it, with its sampling and what the entry changes of it."""
        entry = self._recipe.teachers.get(name)
        settings = {**(entry.sampling if entry else {}), **overrides}
        if "stop" in settings:
            settings["stop"] = tuple(settings["stop"])
        sampling = replace(Sampling(seed=self._recipe.seed), **settings)
        return self._calls.teacher(name, self.backend(name), sampling)

    def describe(self, name: str) -> dict[str, Any]:
        entry = self._recipe.teachers.get(name)
        identity = self.backend(name).identity()
        fields = {key: getattr(identity, key) for key in identity.__dataclass_fields__}
        return {"name": name, "backend": entry.backend if entry else STUDENT, **fields}


def student_path(model: str) -> str:
    """`pocket` is the base student that ships with the package; anything else is a folder or a hub name."""
    if model == "pocket":
        from stillhouse.pocket import student_path as shipped

        return str(shipped())
    return model


@dataclass(frozen=True, slots=True)
class Step:
    """One entry of a branch, with the place of its files."""

    kind: str  # seeds, elicit, select, keep
    entry: Entry
    where: str
    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name


@dataclass(slots=True)
class Knowledge:
    """Runs the branches of one recipe under a run folder and remembers each step for the manifest."""

    recipe: Recipe
    folder: Path  # where relative names of user code start
    run: Path
    teachers: Teachers
    progress: Progress
    limit: int | None = None
    without: tuple[str, ...] = ()  # teachers whose rows are left out of the last step
    steps: list[dict[str, Any]] = field(default_factory=list)

    def branch(self, name: str, branch: Branch, place: str) -> Path:
        """Runs one branch and returns its last `out.jsonl`.

        Raises `GoalNotMet` when `keep: N` cannot be reached or nothing is left.
        """
        home = self.run / "knowledge" / place
        if branch.keep is None:
            last = self._chain(name, branch, home, self.limit, None)
        else:
            last = self._until_enough(name, branch, home, branch.keep)
        if len(Records(last)) == 0:
            raise GoalNotMet(f"knowledge.{name}: no row is left after {last.parent.name}; {self._losses(home)}")
        return last

    def _until_enough(self, name: str, branch: Branch, home: Path, wanted: int) -> Path:
        """More and more seeds until `wanted` rows are kept; stored answers make each longer pass cost only what is new."""
        seeds = wanted if self.limit is None else min(wanted, self.limit)
        while True:
            last = self._chain(name, branch, home, seeds, wanted)
            kept, used = len(Records(last)), len(Records(self._home(home, 0, branch.seeds) / "out.jsonl"))
            if kept >= wanted:
                return last
            if used < seeds or seeds == self.limit:
                text = f"knowledge.{name}: {kept} of {wanted} rows were kept and all {used} seeds are used; {self._losses(home)}"
                raise GoalNotMet(f"{text}; give more seeds, more samples (`sampling: {{n: ...}}`) or a lower `keep`")
            seeds = max(used + 8, round(1.1 * used * wanted / max(kept, 1)))
            seeds = seeds if self.limit is None else min(seeds, self.limit)

    def _chain(self, name: str, branch: Branch, home: Path, seeds: int | None, keep: int | None) -> Path:
        steps = list(self._planned(name, branch, home, keep))
        self.steps = [each for each in self.steps if each["branch"] != home.name]
        self._sweep(home, [step.folder.name for step in steps])
        before: Path | None = None
        stamp = fingerprint({"limit": seeds})
        for step in steps:
            stamp = self._run(step, before, stamp, seeds)
            before = step.folder / "out.jsonl"
        assert before is not None
        return before

    def _planned(self, name: str, branch: Branch, home: Path, keep: int | None) -> Iterator[Step]:
        entries: list[tuple[str, Entry]] = [("seeds", branch.seeds)]
        entries += [("elicit", entry) for entry in branch.elicit] + [("select", entry) for entry in branch.select]
        if self.without:
            entries.append(("without", Entry.model_validate({"do": "without", "teachers": list(self.without)})))
        if keep is not None:
            entries.append(("keep", Entry.model_validate({"do": "keep", "rows": keep})))
        for number, (kind, entry) in enumerate(entries):
            yield Step(kind, entry, f"knowledge.{name}.{kind}", self._home(home, number, entry))

    @staticmethod
    def _home(home: Path, number: int, entry: Entry) -> Path:
        return home / f"{number:02d}-{entry.do.replace('.py:', '.').replace('/', '.')}"

    @staticmethod
    def _sweep(home: Path, planned: Sequence[str]) -> None:
        """Steps that the recipe no longer has would be counted by whoever reads the folder; their answers stay in the store."""
        if home.is_dir():
            for old in home.iterdir():
                if old.is_dir() and old.name not in planned:
                    shutil.rmtree(old)

    def _run(self, step: Step, before: Path | None, stamp: str, limit: int | None) -> str:
        teachers = self._named(step.entry)
        parts: dict[str, Any] = {
            "input": stamp,
            "kind": step.kind,
            "entry": step.entry.model_dump(),
            "code": self._code(step),
        }
        parts["teachers"] = [self.teachers.describe(name) for name in teachers]
        parts["sampling"] = [str(self.teachers.ask(name, step.entry.sampling).sampling) for name in teachers]  # type: ignore[attr-defined]
        if step.kind == "seeds" and "path" in step.entry.knobs:
            parts["file"] = file_hash(Path(step.entry.knobs["path"]))
        new = fingerprint(parts)
        record = _stamp(step.folder)
        if record is None or record["hash"] != new:
            record = self._redo(step, before, new, limit, parts["teachers"])
        self.steps.append({"branch": step.folder.parent.name, "step": step.name, **record})
        return new

    def _redo(
        self, step: Step, before: Path | None, new: str, limit: int | None, teachers: list[Any]
    ) -> dict[str, Any]:
        started = time.monotonic()
        (step.folder / "stamp.json").unlink(missing_ok=True)
        source = Records(before) if before else None
        total = limit if source is None else len(source) * self._samples(step.entry)
        reasons: dict[str, int] = {}
        title = f"{step.folder.parent.name} {step.name}"
        with Writer(step.folder / "out.jsonl") as out, Writer(step.folder / "lost.jsonl") as lost:
            for result in self.progress.over(self._results(step, source, limit), title, total):
                if isinstance(result, Lost):
                    lost.write_row(lost_row(result))
                    reasons[result.reason] = reasons.get(result.reason, 0) + 1
                else:
                    out.write(stamped(result, step.name))
        record = {
            "hash": new,
            "kind": step.kind,
            "do": step.entry.do,
            "knobs": step.entry.knobs,
            "teachers": teachers,
            "samples": self._samples(step.entry),
            "in": len(source) if source is not None else out.count,
            "out": out.count,
            "lost": reasons,
            "seconds": round(time.monotonic() - started, 3),
        }
        write_json(step.folder / "stamp.json", record)
        return record

    def _results(self, step: Step, source: Records | None, limit: int | None) -> Iterable[Result]:
        if step.kind == "keep":
            assert source is not None
            return _first(source, step.entry.knobs["rows"])
        if step.kind == "without":
            assert source is not None
            return _without(source, step)
        function = self.bound(step.kind, step.entry, step.where)
        if step.kind == "seeds":
            return islice(function(), limit)
        assert source is not None
        if step.kind == "elicit":
            assert isinstance(step.entry, ElicitEntry)
            return self._elicited(function, step.entry, source, step.where)
        if getattr(step.entry, "drawn", False):
            kept = sum(reason is None for _, reason in function(source))
            return _random(source, kept, self.recipe.seed)
        return (record if reason is None else Lost(record.id, reason) for record, reason in function(source))

    def _elicited(
        self, function: Callable[..., Any], entry: ElicitEntry, source: Records, where: str
    ) -> Iterator[Result]:
        names = self._named(entry)
        if not names:
            yield from function(source)
            return
        for name in names:
            teacher = self.teachers.ask(name, entry.sampling)
            yield from function(_routed(source, names, name, entry.route, where), teacher)

    def bound(self, kind: str, entry: Entry, where: str) -> partial[Any]:
        """The function of an entry with its knobs, nested functions among them already bound to theirs."""
        path, name = locate(kind, entry.do, folder=self.folder, where=where)
        declared = read_signature(path, name, entry.do).annotations
        knobs = {key: self._knob(key, value, declared.get(key, ""), where) for key, value in entry.knobs.items()}
        return partial(load(kind, entry.do, folder=self.folder, where=where), **knobs)

    def _knob(self, key: str, value: Any, annotation: str, where: str) -> Any:
        inner = [self.bound(nested_kind(key), entry, at) for at, entry in nested(key, value, where)]
        if inner:
            return inner if isinstance(value, list) else inner[0]
        return Path(value) if "Path" in annotation and isinstance(value, str) else value

    def _named(self, entry: Entry) -> list[str]:
        names = getattr(entry, "teacher", None)
        return [names] if isinstance(names, str) else list(names or [])

    def _samples(self, entry: Entry) -> int:
        names = self._named(entry)
        return max((self.teachers.ask(name, entry.sampling).sampling.n for name in names), default=1)  # type: ignore[attr-defined]

    def _code(self, step: Step) -> list[str]:
        if step.kind in ("keep", "without"):
            return []
        entries = [(step.kind, step.entry)]
        for key, value in step.entry.knobs.items():
            entries += [(nested_kind(key), entry) for _, entry in nested(key, value, step.where)]
        paths = [locate(kind, entry.do, folder=self.folder, where=step.where)[0] for kind, entry in entries]
        # the folder of a shipped function: the pieces it is made of lie beside it
        return [file_hash(path.parent if _shipped(path) else path) for path in paths]

    def _losses(self, home: Path) -> str:
        steps = [each for each in self.steps if each["branch"] == home.name and each["lost"]]
        told = [
            f"{each['step']} lost {', '.join(f'{n} {reason}' for reason, n in each['lost'].items())}" for each in steps
        ]
        return "; ".join(told) or "no row was lost"


def _routed(source: Records, names: Sequence[str], name: str, route: str, where: str) -> Iterable[Record]:
    """The records that go to one of several teachers: all, in turn, or by a column that names the teacher."""
    if route == "all" or len(names) == 1:
        return source
    if route == "round_robin":
        return islice(source, names.index(name), None, len(names))
    return (record for record in source if _column(record, route, names, where) == name)


def _column(record: Record, column: str, names: Sequence[str], where: str) -> str:
    value = record.columns.get(column)
    if value not in names:
        raise RecipeError(
            f"{where}.route: row {record.id} has {column} = {value!r}, which is none of the teachers {', '.join(names)}; "
            "write all, round_robin, or a column kept by `seeds.columns`"
        )
    return str(value)


def _shipped(path: Path) -> bool:
    return path.is_relative_to(PACKAGE) and path.parent != PACKAGE


def _first(source: Records, rows: int) -> Iterator[Result]:
    for number, record in enumerate(source):
        yield record if number < rows else Lost(record.id, "beyond_keep")


def _random(source: Records, rows: int, seed: int) -> Iterator[Result]:
    """As many rows as a selector kept, drawn by chance: what its choice is to be compared with."""
    import numpy as np

    drawn = set(np.random.default_rng(seed).permutation(len(source))[:rows].tolist())
    for number, record in enumerate(source):
        yield record if number in drawn else Lost(record.id, "not_drawn")


def _without(source: Records, step: Step) -> Iterator[Result]:
    """The rows that none of the named teachers made or had a part in, by their whole ancestry."""
    from stillhouse.compliance.lineage import touched

    named = set(step.entry.knobs["teachers"])
    earlier = sorted(path for path in step.folder.parent.glob("*/out.jsonl") if path.parent.name < step.name)
    gone = touched(earlier, named)
    for record in source:
        yield Lost(record.id, "without_teacher") if record.id in gone else record


def _stamp(folder: Path) -> dict[str, Any] | None:
    if not (folder / "out.jsonl").is_file() or not (folder / "lost.jsonl").is_file():
        return None
    return read_stamp(folder / "stamp.json")


def file_hash(path: Path) -> str:
    """The content of a file, or of the files of a folder, as 16 hex digits."""
    import hashlib

    if not path.exists():
        raise RecipeError(f"{path}: no such file")
    total = hashlib.sha256()
    for each in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        total.update(str(each.relative_to(path)).encode())
        with open(each, "rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:16]
