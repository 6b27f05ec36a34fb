"""The knowledge of a run, step by step: seeds, then each `elicit` entry, then each `select` entry (Eq. 1).

A step lies in `knowledge/<branch>/[round-K/]NN-<do>/` as `out.jsonl`, `lost.jsonl` and `stamp.json`. The stamp holds a hash
of the step's input, its entry, its teacher and its code: a step whose stamp still fits is not done again; any other is done from
its start, and the store of answers sees to it that nothing is asked twice.
"""

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from stillhouse.compliance.watch import Watch, screening_lines
from stillhouse.errors import GoalNotMet, RecipeError
from stillhouse.knobs import nested, nested_kind
from stillhouse.passing import coverage, first_rows, in_turn, joined, random_rows, routed
from stillhouse.progress import Progress
from stillhouse.recipe import BASE_STUDENT, STUDENT, Branch, ElicitEntry, Entry, Recipe, fingerprint
from stillhouse.records import Example, Lost, Ranking, Record, StoredSignal, stamped
from stillhouse.resolve import PACKAGE, import_file, load, locate, read_signature
from stillhouse.signals.store import SignalReader
from stillhouse.store import Records, Writer, lost_row, read_stamp, write_json
from stillhouse.teachers.asking.budget import Budget
from stillhouse.teachers.base import Sampling

# elicitors that try their judge first, and mark its rows where it failed
JUDGES = (
    "feedback.rate",
    "feedback.compare",
    "feedback.rank",
    "feedback.rank_requests",
    "feedback.hard",
    "feedback.option_logprobs",
    "feedback.step_labels",
)
# what an elicitor, a selector and a source of seeds give
Result = Record | Lost


@dataclass(frozen=True, slots=True)
class Data:
    """A file of records and the stamp it was made under."""

    path: Path
    stamp: str


class Teachers:
    """The teachers of a recipe, made when first asked for; each is wrapped so that every request is looked up first.

    `student` is the folder of the student as a round begins, where rounds have trained one.
    """

    def __init__(self, recipe: Recipe, calls: Any, student: Path | None = None) -> None:
        self._recipe, self._calls, self._student = recipe, calls, student
        self._backends: dict[str, Any] = {}

    @property
    def watch(self) -> Watch:
        """Screens what is asked of servers and what is stored."""
        return self._calls.watch

    def backend(self, name: str) -> Any:
        if name not in self._backends:
            self._backends[name] = self._make(name)
        return self._backends[name]

    def _make(self, name: str) -> Any:
        if name in (STUDENT, BASE_STUDENT):
            from stillhouse.teachers.transformers import Teacher

            assert self._recipe.student is not None
            now = self._student if name == STUDENT else None
            return self._placed(Teacher, {"model": now or student_path(self._recipe.student.model)})
        entry = self._recipe.teachers[name]
        module = import_file(PACKAGE / "teachers" / f"{entry.backend}.py")
        return self._placed(module.Teacher, entry.knobs)

    def _placed(self, kind: Any, knobs: Mapping[str, Any]) -> Any:
        """A teacher of this machine; on a cluster, what works in chunks of its own (a local model) is spread over it."""
        if self._calls.on is None or not hasattr(kind, "rungs") or hasattr(kind, "exchange"):
            return kind(**knobs)
        from stillhouse.teachers.asking.on_ray import on_ray

        made = kind(**knobs)
        return on_ray(kind, knobs) if getattr(made, "chunk", 0) else made

    def served(self, name: str) -> bool:
        """Whether a server is asked, which works on requests that nobody waits for yet."""
        return hasattr(self.backend(name), "exchange")

    def sampling(self, name: str) -> dict[str, Any]:
        """What the recipe says of a teacher's sampling."""
        entry = self._recipe.teachers.get(name)
        return dict(entry.sampling) if entry else {}

    def ask(self, name: str, overrides: Mapping[str, Any], stage: str = "", stage_budget: Budget | None = None) -> Any:
        """The teacher as an elicitor sees it, with its sampling and what the entry changes of it. `stage` is for the books."""
        entry = self._recipe.teachers.get(name)
        settings = {**(entry.sampling if entry else {}), **overrides}
        if "stop" in settings:
            settings["stop"] = tuple(settings["stop"])
        sampling = replace(Sampling(seed=self._recipe.seed), **settings)
        budget = entry.budget.at(f"teachers.{name}.budget") if entry and entry.budget else None
        return self._calls.teacher(
            name, self.backend(name), sampling, stage=stage, budget=budget, stage_budget=stage_budget
        )

    def verdicts(self, stage: str, parser: str, version: str) -> Any:
        """The book of what becomes of each slot of a step."""
        return self._calls.verdicts(stage, parser, version)

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

    kind: str  # seeds, elicit, select, keep, union
    entry: Entry
    where: str
    folder: Path
    number: int

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
    without: tuple[str, ...] = ()  # teachers that are not asked: what would come of it is lost
    last: Data | None = None  # what the round before ended with, for a branch that carries it on
    pool: Data | None = None  # what all rounds before have kept
    union: bool = False  # whether this round's rows join the pool
    retried: int = 0  # how often failed requests were asked once more: each time the steps that ask are done again
    drawn: Mapping[int, int] = field(default_factory=dict)  # step number -> how many rows a drawn selector keeps
    steps: list[dict[str, Any]] = field(default_factory=list)

    def branch(self, name: str, branch: Branch, place: str) -> Path:
        """Runs one branch at `knowledge/<place>` and returns its last `out.jsonl`.

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
        bound = min((each for each in (self.limit, branch.attempts) if each is not None), default=None)
        seeds = wanted if bound is None else min(wanted, bound)
        while True:
            last = self._chain(name, branch, home, seeds, wanted)
            kept, used = len(Records(last)), len(Records(self._home(home, 0, branch.seeds) / "out.jsonl"))
            if kept >= wanted:
                return last
            if used < seeds or seeds == bound:
                met = "seeds are used, as many as `attempts` allows" if seeds == branch.attempts else "seeds are used"
                text = f"knowledge.{name}: {kept} of {wanted} rows were kept and all {used} {met}; {self._losses(home)}"
                raise GoalNotMet(f"{text}; give more seeds, more samples (`sampling: {{n: ...}}`) or a lower `keep`")
            # by the share kept so far, a tenth more; a share told by few rows may be far off, so at most four times as many
            seeds = min(max(used + 8, round(1.1 * used * wanted / max(kept, 1))), 4 * max(used, 8))
            seeds = seeds if bound is None else min(seeds, bound)

    def _chain(self, name: str, branch: Branch, home: Path, seeds: int | None, keep: int | None) -> Path:
        steps = list(self._planned(name, branch, home, keep))
        self.steps = [each for each in self.steps if each["branch"] != self._label(home)]
        self._sweep(home, [step.folder.name for step in steps])
        before: Path | None = None
        told: dict[str, Any] = {"limit": seeds}
        if branch.carry != "seeds" and (carried := self._carried(branch)):
            told["carried"] = carried.stamp
        stamp = fingerprint(told)
        for step in steps:
            stamp = self._run(step, before, stamp, seeds, self._carried(branch))
            before = step.folder / "out.jsonl"
        assert before is not None
        return before

    def _carried(self, branch: Branch) -> Data | None:
        return {"seeds": None, "pool": self.pool, "last": self.last}[branch.carry]

    def _label(self, home: Path) -> str:
        """`<branch>` or `<branch>/round-K`, as the manifest and the report call it."""
        return str(home.relative_to(self.run / "knowledge"))

    def _planned(self, name: str, branch: Branch, home: Path, keep: int | None) -> Iterator[Step]:
        entries: list[tuple[str, Entry]] = [("seeds", branch.seeds)]
        entries += [("elicit", entry) for entry in branch.elicit] + [("select", entry) for entry in branch.select]
        if keep is not None:
            entries.append(("keep", Entry.model_validate({"do": "keep", "rows": keep})))
        if self.union:
            entries.append(("union", Entry.model_validate({"do": "union"})))
        for number, (kind, entry) in enumerate(entries):
            yield Step(kind, entry, f"knowledge.{name}.{kind}", self._home(home, number, entry), number)

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

    def _run(self, step: Step, before: Path | None, stamp: str, limit: int | None, carried: Data | None) -> str:
        teachers = self._asked(step.entry)
        parts: dict[str, Any] = {
            "input": stamp,
            "kind": step.kind,
            # what may be spent changes no row
            "entry": step.entry.model_dump(exclude={"budget"} if step.kind == "elicit" else None),
            "code": self._code(step),
        }
        parts["teachers"] = [self.teachers.describe(name) for name in teachers]
        parts["sampling"] = [str(self.teachers.ask(name, step.entry.sampling).sampling) for name in teachers]  # type: ignore[attr-defined]
        if step.kind == "seeds" and "path" in step.entry.knobs:
            parts["file"] = file_hash(Path(step.entry.knobs["path"]))
        if step.kind != "seeds" and (files := sorted(set(_files_in(step.entry.knobs)))):
            parts["files"] = [file_hash(each) for each in files]
        if step.kind == "union" and self.pool:
            parts["pool"] = self.pool.stamp
        if getattr(step.entry, "drawn", False):
            parts["rows"] = self.drawn.get(step.number)
        if self.retried and step.kind == "elicit":
            parts["retried"] = self.retried
        new = fingerprint(parts)
        record = _stamp(step.folder)
        if record is None or record["hash"] != new:
            record = self._redo(step, before, new, limit, parts["teachers"], carried)
        self.steps.append({"branch": self._label(step.folder.parent), "step": step.name, **record})
        return new

    def _redo(
        self,
        step: Step,
        before: Path | None,
        new: str,
        limit: int | None,
        teachers: list[Any],
        carried: Data | None,
    ) -> dict[str, Any]:
        started = time.monotonic()
        (step.folder / "stamp.json").unlink(missing_ok=True)
        source = Records(before) if before else None
        total = limit if source is None else len(source) * self._samples(step.entry)
        reasons: dict[str, int] = {}
        stores: set[str] = set()
        title = f"{self._label(step.folder.parent)} {step.name}"
        verdicts = self._verdicts(step)
        with Writer(step.folder / "out.jsonl") as out, Writer(step.folder / "lost.jsonl") as lost:
            for result in self.progress.over(self._screened(step, source, limit, carried), title, total):
                if isinstance(result, Lost):
                    lost.write_row(lost_row(result))
                    reasons[result.reason] = reasons.get(result.reason, 0) + 1
                    if verdicts:
                        verdicts.add(result.parent, result.state, result.reason, result.keys)
                else:
                    kept = stamped(result, step.name)
                    out.write(kept)
                    if verdicts:
                        verdicts.add(kept.id, "kept", "", kept.origin.keys)
                    if step.kind == "elicit" and isinstance(result, StoredSignal):
                        stores.add(result.store)
        screening = self.teachers.watch.taken()
        record = {
            "hash": new,
            "kind": step.kind,
            "do": step.entry.do,
            "knobs": step.entry.knobs,
            "teachers": teachers,
            "samples": self._samples(step.entry),
            "in": len(source) if source is not None else out.count + lost.count,
            "out": out.count,
            "lost": reasons,
            "screening": screening,
            "seconds": round(time.monotonic() - started, 3),
        }
        if verdicts:
            verdicts.flush()
            record["verdicts"] = verdicts.count
        if stores:
            record["signals"] = [SignalReader(Path(folder)).told() for folder in sorted(stores)]
        for line in screening_lines({at: found for at, found in screening.items() if found["rules"]}):
            self.progress.say(f"{title}: {line}")
        record |= self._beside(step, source)
        if "judge" in record:
            self.progress.say(f"{title}: its judge is not to be trusted: {record['judge']}")
        write_json(step.folder / "stamp.json", record)
        return record

    def _beside(self, step: Step, source: Records | None) -> dict[str, Any]:
        """What rows alone do not tell: how evenly meta-information was used, how often a selector errs, a judge in doubt."""
        if step.kind == "elicit" and step.entry.do.startswith("curation.") and source is not None:
            return {"coverage": coverage(step.folder, source)}
        if step.kind == "elicit" and step.entry.do in JUDGES:
            first = next(iter(Records(step.folder / "out.jsonl")), None)
            doubt = first.columns.get("untrusted") if isinstance(first, Example | Ranking) else None
            return {"judge": doubt} if doubt else {}
        drawn = getattr(step.entry, "drawn", False)
        if step.kind == "select" and step.entry.do.startswith("decontaminate.") and source is not None and not drawn:
            from stillhouse.selection.decontaminate import chance

            function = self.bound(step.kind, step.entry, step.where)
            texts = chance(source[:1000])
            return {"control": {"texts": len(texts), "dropped": sum(why is not None for _, why in function(texts))}}
        return {}

    def _screened(
        self, step: Step, source: Records | None, limit: int | None, carried: Data | None
    ) -> Iterator[Result]:
        """What a step gives, looked at before it is stored; a selector passes on what was looked at before it."""
        for result in self._results(step, source, limit, carried):
            if isinstance(result, Lost) or step.kind not in ("seeds", "elicit"):
                yield result
            else:
                yield from self.teachers.watch.coming(result)

    def _results(self, step: Step, source: Records | None, limit: int | None, carried: Data | None) -> Iterable[Result]:
        if step.kind == "keep":
            assert source is not None
            return first_rows(source, step.entry.knobs["rows"])
        if step.kind == "union":
            assert source is not None
            return joined(Records(self.pool.path) if self.pool else (), source)
        function = self.bound(step.kind, step.entry, step.where)
        if step.kind == "seeds":
            if carried is None:
                return islice(function(), limit)
            # a trial's limit is for the seeds; `keep` takes more of both
            seeds = [] if self.last is carried else islice(function(), self.limit)
            return islice(chain(seeds, Records(carried.path)), limit if limit != self.limit else None)
        assert source is not None
        if step.kind == "elicit":
            return self._elicited(function, step, source)
        if getattr(step.entry, "drawn", False):
            return random_rows(source, self.drawn[step.number], self.recipe.seed)
        return (record if reason is None else Lost(record.id, reason) for record, reason in function(source))

    def _elicited(self, function: Callable[..., Any], step: Step, source: Records) -> Iterator[Result]:
        entry, where, stage = step.entry, step.where, self._stage(step)
        assert isinstance(entry, ElicitEntry)
        budget = entry.budget.at(f"{where}.{step.number - 1}.budget") if entry.budget else None
        names = self._named(entry)
        if not names:
            yield from function(source)
            return
        parts = []
        for name in names:
            mine = routed(source, names, name, entry.route, where)
            if name in self.without:
                parts.append(Lost(record.id, "without_teacher") for record in mine)
            else:
                parts.append(iter(function(mine, self.teachers.ask(name, entry.sampling, stage, budget))))
        # servers answer while others are read, and rows are finished before new ones begin; local models take turns
        yield from in_turn(parts) if any(map(self.teachers.served, names)) else chain.from_iterable(parts)

    def bound(self, kind: str, entry: Entry, where: str) -> partial[Any]:
        """The function of an entry with its knobs, nested functions among them already bound to theirs."""
        path, name = locate(kind, entry.do, folder=self.folder, where=where)
        declared = read_signature(path, name, entry.do).annotations
        knobs = {key: self.knob(key, value, declared.get(key, ""), where) for key, value in entry.knobs.items()}
        return partial(load(kind, entry.do, folder=self.folder, where=where), **knobs)

    def knob(self, key: str, value: Any, annotation: str, where: str) -> Any:
        """A knob's value: functions that it names are bound to their own knobs, and paths are paths."""
        inner = [self.bound(nested_kind(key), entry, at) for at, entry in nested(key, value, where)]
        if inner:
            return inner if isinstance(value, list) else inner[0]
        return Path(value) if "Path" in annotation and isinstance(value, str) else value

    def _named(self, entry: Entry) -> list[str]:
        names = getattr(entry, "teacher", None)
        return [names] if isinstance(names, str) else list(names or [])

    def _asked(self, entry: Entry) -> list[str]:
        return [name for name in self._named(entry) if name not in self.without]

    def _samples(self, entry: Entry) -> int:
        names = self._asked(entry)
        return max((self.teachers.ask(name, entry.sampling).sampling.n for name in names), default=1)  # type: ignore[attr-defined]

    def _stage(self, step: Step) -> str:
        """The name of a step in the books: `<branch>/[round-K/]NN-<do>`."""
        return step.folder.relative_to(self.run / "knowledge").as_posix()

    def _verdicts(self, step: Step) -> Any:
        """Where what becomes of each slot is written beside the answers; None for steps that ask nobody."""
        if step.kind != "elicit":
            return None
        return self.teachers.verdicts(self._stage(step), step.entry.do, fingerprint({"code": self._code(step)})[:16])

    def _code(self, step: Step) -> list[str]:
        if step.kind in ("keep", "union"):
            return []
        entries = list(_named_in(step.kind, step.entry, step.where))
        paths = [locate(kind, entry.do, folder=self.folder, where=step.where)[0] for kind, entry in entries]
        # the folder of a shipped function: the pieces it is made of lie beside it
        return [file_hash(path.parent if _shipped(path) else path) for path in paths]

    def _losses(self, home: Path) -> str:
        steps = [each for each in self.steps if each["branch"] == self._label(home) and each["lost"]]
        told = [
            f"{each['step']} lost {', '.join(f'{n} {reason}' for reason, n in each['lost'].items())}" for each in steps
        ]
        return "; ".join(told) or "no row was lost"


def _named_in(kind: str, entry: Entry, where: str) -> Iterator[tuple[str, Entry]]:
    """An entry and every function that its knobs name, and theirs."""
    yield kind, entry
    for key, value in entry.knobs.items():
        for _, inner in nested(key, value, where):
            yield from _named_in(nested_kind(key), inner, where)


def _files_in(value: Any, key: str = "") -> Iterator[Path]:
    """The files that knobs name: passages to look up, items to keep apart. An edited one is another step."""
    for name, each in value.items() if isinstance(value, Mapping) else ((key, each) for each in value):
        if isinstance(each, Mapping | list):
            yield from _files_in(each, name)
        elif isinstance(each, str) and (name == "path" or name.endswith("_path")) and Path(each).is_file():
            yield Path(each)


def _shipped(path: Path) -> bool:
    return path.is_relative_to(PACKAGE) and path.parent != PACKAGE


def _stamp(folder: Path) -> dict[str, Any] | None:
    if not (folder / "out.jsonl").is_file() or not (folder / "lost.jsonl").is_file():
        return None
    stamp = read_stamp(folder / "stamp.json")
    # rows in a store that was emptied since are to be made again
    if stamp is not None and not all(Path(each["path"]).is_dir() for each in stamp.get("signals", ())):
        return None
    return stamp


def file_hash(path: Path) -> str:
    """The content of a file, or of the files of a folder, as 16 hex digits; what Python compiles beside them is no content."""
    import hashlib

    if not path.exists():
        raise RecipeError(f"{path}: no such file")
    total = hashlib.sha256()
    inside = (each for each in path.rglob("*") if each.is_file() and each.parent.name != "__pycache__")
    for each in sorted(inside) if path.is_dir() else [path]:
        total.update(str(each.relative_to(path)).encode())
        with open(each, "rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:16]
