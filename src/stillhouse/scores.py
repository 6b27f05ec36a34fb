"""The evaluation of a run: the same held-out items for the base student, every trained student and, where named, a teacher.

Rows lie in `evaluate/<task>/<subject>.jsonl`, the summary in `evaluate/scores.json`. When students are to be chosen among,
a fifth of the first task's items is set aside for the choice, by a hash of the item; it counts in no reported score.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stillhouse.embedding import Embedder
from stillhouse.errors import RunFailed
from stillhouse.evaluate.candidates import Candidates
from stillhouse.evaluate.judging import judged
from stillhouse.evaluate.regression import gates, told
from stillhouse.evaluate.tasks.trust import calibrated
from stillhouse.overlap import overlaps
from stillhouse.progress import Progress
from stillhouse.recipe import EvaluateEntry, Recipe, fingerprint
from stillhouse.records import Prompt, content_id
from stillhouse.resolve import PACKAGE, signature
from stillhouse.scoring import Likelihood, Scorer
from stillhouse.steps import Knowledge, Teachers, file_hash, student_path
from stillhouse.store import Writer, read_jsonl, read_stamp, write_json
from stillhouse.teachers.base import Answer, Request, Sampling

BASE = "base"
START = "start:"
VALIDATION = 5  # one item in so many is set aside for choosing the final student


@dataclass(frozen=True, slots=True)
class Subject:
    """Who is evaluated: `arm` and `seed` of a student, `base`, `start:<arm>` or `teacher:<name>`."""

    arm: str
    seed: int | None
    stamp: str
    path: str | None = None  # a model folder; None: a teacher of the recipe

    @property
    def label(self) -> str:
        return self.arm.replace(":", "-") if self.seed is None else f"{self.arm}-{self.seed}"


@dataclass(slots=True)
class Evaluation:
    """Asks every subject of a run the questions of every task, and remembers what it has asked."""

    run: Path
    folder: Path
    recipe: Recipe
    teachers: Teachers
    progress: Progress
    limit: int | None = None
    candidates: Candidates = field(init=False)

    def __post_init__(self) -> None:
        self.candidates = Candidates(student_path(self.recipe.student.model) if self.recipe.student else "")

    def all(self, students: Sequence[dict[str, Any]], choosing: bool, trained: Sequence[Path] = ()) -> dict[str, Any]:
        """Evaluates everybody on every task and returns what `scores.json` holds (without `final`).

        `trained` are the files of records that students learned from: held-out items that share text with them are told.
        """
        rows: list[dict[str, Any]] = []
        tasks: list[dict[str, Any]] = []
        for number, entry in enumerate(self.recipe.evaluate):
            for subject in self._subjects(students, entry):
                rows += self._rows(entry, subject, choosing and number == 0)
            tasks.append(self._task(entry, [row for row in rows if row["task"] == entry.label]))
        found = {"version": 1, "tasks": tasks, **_summaries(rows, tasks)}
        names = [task["task"] for task in tasks]
        by_task = {name: [row for row in rows if row["task"] == name] for name in names}
        told = [
            name
            for name, entry in zip(names, self.recipe.evaluate, strict=True)
            if entry.do in ("judge", "judge.rated")
        ]
        found["judges"] = [{"task": name, **each} for name in told for each in judged(by_task[name])]
        sure = [
            {"task": name, **each}
            for name, entry in zip(names, self.recipe.evaluate, strict=True)
            if entry.do == "trust.calibration"
            for each in calibrated(by_task[name])
        ]
        found |= {"calibration": sure} if sure else {}
        found["overlap"] = overlaps(names, by_task, trained)
        bounds = {entry.label: entry.may_lose for entry in self.recipe.evaluate if entry.may_lose is not None}
        return {**found, "gates": gates(tasks, found["comparisons"], bounds)} if bounds else found

    def validated(self, arm: str, seed: int, student: dict[str, Any] | None, number: int) -> float:
        """The mean on the items set aside of a round's student (of the base student without one), higher being better."""
        entry = self.recipe.evaluate[0]
        subject = self._subjects([], entry)[0]
        if student is not None:
            subject = Subject(f"rounds/{arm}-{number}", seed, student["hash"], str(self.run / student["path"]))
        rows = [row for row in self._rows(entry, subject, True) if row["split"] == "validation"]
        values = [row["value"] or 0.0 for row in rows]
        mean = sum(values) / len(values) if values else 0.0
        return -mean if rows and rows[0]["metric"] == "nll" else mean

    def _subjects(self, students: Sequence[dict[str, Any]], entry: EvaluateEntry) -> list[Subject]:
        from stillhouse.train.batch import SCORERS

        assert self.recipe.student is not None
        base = student_path(self.recipe.student.model)
        found = [Subject(BASE, None, file_hash(Path(base)) if Path(base).is_dir() else base, base)]
        if self.recipe.student.kind in SCORERS and self.recipe.student.kind != "encoder":
            found = []  # a model that wrote has no scoring head yet
        # cut or rounded, and not taught: told apart from the model it was made of
        starts = {s["arm"]: s["start"] for s in students if "start" in s}
        found += [Subject(f"{START}{a}", None, s["hash"], str(self.run / s["path"])) for a, s in starts.items()]
        found += [Subject(s["arm"], s["seed"], s["hash"], str(self.run / s["path"])) for s in students]
        if entry.teacher:
            found.append(Subject(f"teacher:{entry.teacher}", None, fingerprint(self.teachers.describe(entry.teacher))))
        return found

    def _task(self, entry: EvaluateEntry, rows: list[dict[str, Any]]) -> dict[str, Any]:
        counted = {row["item"] for row in rows if row["split"] == "test"}
        aside = {row["item"] for row in rows} - counted
        metric = rows[0]["metric"] if rows else "score"
        return {
            "task": entry.label, "do": entry.do, "knobs": entry.knobs, "metric": metric, "higher_is_better": metric == "score",
            "items": len(counted), "validation_items": len(aside), "teacher": entry.teacher,
        }  # fmt: skip

    def _rows(self, entry: EvaluateEntry, subject: Subject, choosing: bool) -> list[dict[str, Any]]:
        path = self.run / "evaluate" / entry.label / f"{subject.label}.jsonl"
        found = signature("evaluate", entry.do, folder=self.folder, where="evaluate")
        code = [file_hash(found.path), file_hash(PACKAGE / "graders")]
        parts = {
            "entry": entry.model_dump(),
            "subject": subject.stamp,
            "choosing": choosing,
            "code": code,
            "limit": self.limit,
        }
        if "path" in entry.knobs:
            parts["file"] = file_hash(Path(entry.knobs["path"]))
        stamp, new = path.with_suffix(".stamp.json"), fingerprint(parts)
        if not path.is_file() or (read_stamp(stamp) or {}).get("hash") != new:
            stamp.unlink(missing_ok=True)
            with self.progress.task(f"evaluate {entry.label} {subject.label}", None), Writer(path) as out:
                for row in self._scored(entry, found.inputs, subject, choosing):
                    out.write_row(row)
            write_json(stamp, {"hash": new, "screening": self.teachers.watch.taken()})
        return [row for _, row in read_jsonl(path)]

    def _scored(
        self, entry: EvaluateEntry, inputs: Sequence[str], subject: Subject, choosing: bool
    ) -> Iterable[dict[str, Any]]:
        bound = Knowledge(self.recipe, self.folder, self.run, self.teachers, self.progress).bound(
            "evaluate", entry, "evaluate"
        )
        if self.limit is not None:
            bound.keywords.setdefault("limit", self.limit)
        results = bound(*self._inputs(inputs, subject, entry))
        for result in results:
            values = asdict(result)
            item = str(values.pop("item_id"))
            aside = choosing and int(content_id(item), 16) % VALIDATION == 0
            yield {
                "task": entry.label, "arm": subject.arm, "seed": subject.seed, "item": item,
                "split": "validation" if aside else "test", "metric": result.metric, **values, "value": result.value,
            }  # fmt: skip

    def _inputs(self, names: Sequence[str], subject: Subject, entry: EvaluateEntry) -> list[Any]:
        backend = self._backend(subject)
        offered: dict[str, Callable[[], Any]] = {
            "ask": lambda: lambda prompts, limit: self._ask(subject, backend, prompts, limit),
            "student": lambda: backend.module(),
            "tokenizer": lambda: backend.tokenizer(),
            "scorer": lambda: Scorer(str(subject.path)),
            "verifier": lambda: self._verifier(subject),
            "generator": lambda: self.candidates,
            "embedder": lambda: Embedder(str(subject.path)),
            "teacher": lambda: self.teachers.backend(entry.teacher).module() if entry.teacher else None,
        }
        return [offered[name]() for name in names]

    def _verifier(self, subject: Subject) -> Scorer | Likelihood:
        """By its head where it has one, and else by how likely it finds an answer."""
        assert subject.path is not None
        config = Path(subject.path) / "config.json"
        scores = config.is_file() and "SequenceClassification" in config.read_text(encoding="utf-8")
        return Scorer(subject.path) if scores else Likelihood(subject.path)

    def _backend(self, subject: Subject) -> Any:
        if subject.path is None:
            return self.teachers.backend(subject.arm.partition(":")[2])
        from stillhouse.teachers.transformers import Teacher

        return Teacher(model=subject.path)

    def _ask(self, subject: Subject, backend: Any, prompts: Sequence[Prompt], limit: int) -> list[str]:
        """Greedy answers in order. Local models are asked directly: answers that met the limit are graded as they are."""
        local = subject.path or "logits" in backend.capabilities
        asked = backend if local else self.teachers.ask(subject.arm.partition(":")[2], {}, "evaluate")
        sampling = Sampling(temperature=0.0, max_tokens=limit)
        texts: dict[str, str] = {}
        requests = (Request(prompt, sampling, tag=str(number)) for number, prompt in enumerate(prompts))
        with self.progress.task(f"evaluate {subject.label}: answers", len(prompts)) as task:
            for outcome in asked.ask(requests):
                texts[outcome.request.tag] = outcome.result.text if isinstance(outcome.result, Answer) else ""
                task.advance()
        return [texts.get(str(number), "") for number in range(len(prompts))]


def _summaries(rows: list[dict[str, Any]], tasks: list[dict[str, Any]]) -> dict[str, Any]:
    from stillhouse.evaluate.compare import paired, single

    summary, comparisons, validation = [], [], []
    for task in tasks:
        mine = [row for row in rows if row["task"] == task["task"]]
        tables = {arm: _table(mine, arm, "test") for arm in dict.fromkeys(row["arm"] for row in mine)}
        for arm, (values_SI, seeds) in tables.items():
            summary.append(
                {"task": task["task"], "arm": arm, "per_seed": _per_seed(values_SI, seeds), **_told(single(values_SI))}
            )
        arms = list(tables)
        for number, arm in enumerate(arms):
            for other in arms[:number]:
                told = _told(paired(tables[arm][0], tables[other][0]), "difference")
                comparisons.append({"task": task["task"], "arm": arm, "against": other, **told})
        validation += [
            {"task": task["task"], "arm": arm, **seed_mean}
            for arm in arms
            for seed_mean in _per_seed(*_table(mine, arm, "validation"))
        ]
    return {"summary": summary, "comparisons": comparisons, "validation": validation}


def broken(scores: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """What each gate that did not hold says; raises RunFailed where the recipe wants a lost skill to fail the run."""
    said = [gate for gate in scores.get("gates", []) if gate["state"] != "held"]
    strict = {entry.label for entry in recipe.evaluate if entry.on_loss == "fail"}
    for gate in said:
        if gate["state"] == "lost" and gate["task"] in strict:
            raise RunFailed(
                f"evaluate: {told(gate)}; add replay or a divergence to `teacher: reference`, or allow more (may_lose)"
            )
    return [told(gate) for gate in said]


def across(run: Path, other: Path) -> Iterator[dict[str, Any]]:
    """Each arm of one run minus each arm of another, on tasks of one name where both were asked the very same items."""
    from stillhouse.evaluate.compare import paired

    ours, theirs = _rows_of(run), _rows_of(other)
    for task in sorted(set(ours) & set(theirs)):
        for arm in dict.fromkeys(row["arm"] for row in ours[task]):
            for against in dict.fromkeys(row["arm"] for row in theirs[task]):
                left, right = _table(ours[task], arm, "test"), _table(theirs[task], against, "test")
                seeds = {len(left[1]), len(right[1])}
                if _items(ours[task], arm) == _items(theirs[task], against) and (len(seeds) == 1 or 1 in seeds):
                    told = _told(paired(left[0], right[0]), "difference")
                    yield {"task": task, "arm": f"{run.name}:{arm}", "against": f"{other.name}:{against}", **told}


def _rows_of(run: Path) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((run / "evaluate").glob("*/*.jsonl")):
        found.setdefault(path.parent.name, []).extend(row for _, row in read_jsonl(path))
    return found


def _items(rows: list[dict[str, Any]], arm: str) -> list[str]:
    return [row["item"] for row in rows if row["arm"] == arm and row["split"] == "test"]


def _table(rows: list[dict[str, Any]], arm: str, split: str) -> tuple[np.ndarray, list[int | None]]:
    """values_SI and the seeds of its rows; an answer that could not be graded is nan."""
    mine = [row for row in rows if row["arm"] == arm and row["split"] == split]
    if not mine:  # nothing was set aside for choosing
        return np.zeros((0, 0)), []
    seeds = list(dict.fromkeys(row["seed"] for row in mine))
    table = [[_number(row["value"]) for row in mine if row["seed"] == seed] for seed in seeds]
    if len({len(values) for values in table}) > 1:
        raise RunFailed(
            f"evaluate: the students of arm {arm!r} have unequal numbers of items; delete evaluate/ and run again"
        )
    return np.asarray(table, dtype=np.float64).reshape(len(seeds), -1), seeds


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _per_seed(values_SI: np.ndarray, seeds: Sequence[int | None]) -> list[dict[str, Any]]:
    return [
        {"seed": seed, "mean": float(np.nanmean(values_I)), "unknown": int(np.isnan(values_I).sum())}
        for seed, values_I in zip(seeds, values_SI)
        if values_I.size and not np.isnan(values_I).all()
    ]


def _told(interval: Any, name: str = "mean") -> dict[str, Any]:
    return {
        name: interval.mean, "low": interval.low, "high": interval.high, "seeds": interval.seeds, "items": interval.items,
        "left_out": interval.left_out,
    }  # fmt: skip
