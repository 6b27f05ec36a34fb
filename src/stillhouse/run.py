"""The stages in order: seeds, elicit, select, train, evaluate, report. Owns the run folder and its manifest (architecture, 6)."""

import errno
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError

from stillhouse.check import check
from stillhouse.compliance.lineage import branch_steps
from stillhouse.compliance.watch import Watch
from stillhouse.errors import RecipeError, RunFailed, StillhouseError, nearest
from stillhouse.papers import on_the_cards, papers
from stillhouse.plain import dump_yaml
from stillhouse.progress import Progress
from stillhouse.provenance import commit, hardware, summed, versions
from stillhouse.recipe import Branch, Loaded, Recipe, fingerprint, load_recipe
from stillhouse.resolve import locate
from stillhouse.rounds import Rounds, drawn_sizes
from stillhouse.scores import Evaluation, broken
from stillhouse.steps import Data, Knowledge, Teachers
from stillhouse.store import Records, read_json, write_json
from stillhouse.students import Students, choose_final
from stillhouse.teachers.asking.budget import budget_of
from stillhouse.terms import Terms, keep_terms, screened, teachers_in, terms_of

_FULL = ("No space left", "Disk quota exceeded", "file write failed", "unexpected pos")
_UNWRITABLE = (errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


@dataclass(frozen=True, slots=True)
class Options:
    """How a recipe is run, none of which changes what comes out but `limit` (a trial on the first rows)."""

    limit: int | None = None
    budget: str | None = None
    without: tuple[str, ...] = ()
    registry: Path | None = None
    quiet: bool = False
    command: str = ""
    on: Literal["ray"] | None = None
    retry: tuple[str, ...] = ()  # reasons (truncated, refused ...) whose requests are asked once more


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder. Everything is read from disk when asked for."""

    path: Path

    @property
    def manifest(self) -> dict[str, Any]:
        return read_json(self.path / "manifest.json")

    @property
    def scores(self) -> dict[str, Any]:
        return read_json(self.path / "evaluate" / "scores.json")

    @property
    def student(self) -> Path:
        """The final student: a folder for `from_pretrained`."""
        return self.path / "student"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def records(self, branch: str) -> Records:
        """The records that a branch ended with; with rounds, in the last of them."""
        steps = branch_steps(self.path).get(branch)
        if not steps:
            raise RecipeError(f"{self.path}: no branch {branch!r} with records")
        return Records(steps[-1])


def distill(
    recipe: str | Path | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    limit: int | None = None,
    quiet: bool = False,
) -> Run:
    """Runs a recipe (a file, the name of a shipped one, or the same as a mapping) and returns its run folder.

    The same call again resumes: what is done is not done again, and no stored answer is asked for twice.
    """
    return execute(load_recipe(recipe), Path(out) if out else None, Options(limit=limit, quiet=quiet))


def load_run(path: str | Path) -> Run:
    """An earlier run. Raises `RecipeError` when the folder is none."""
    run = Run(Path(path))
    if not (run.path / "manifest.json").is_file():
        raise RecipeError(
            f"{path}: no manifest.json in it; a run folder is what `still run` made, for example runs/NAME"
        )
    return run


def execute(loaded: Loaded, out: Path | None, options: Options) -> Run:
    """Runs every stage. Whatever stops it, what was made is kept and the same command goes on from there."""
    folder = out or Path("runs") / loaded.recipe.name
    if options.limit is not None and options.limit < 1:
        raise RecipeError(f"limit: {options.limit}: at least 1, or leave it out for all seeds and questions")
    check(loaded, limit=options.limit)
    for name in options.without:
        _can_be_left_out(name, loaded)
    terms = terms_of(loaded, without=options.without, registry_file=options.registry)
    verdict = terms.before_spending()
    with _writing_said(folder):
        _made(folder)
    with _locked(folder), _writing_said(folder), Progress(folder, quiet=options.quiet) as progress:
        stages = _Stages(loaded, folder, options, progress, terms)
        stages.manifest["terms"] = verdict
        try:
            stages.run()
        except BaseException as error:
            stages.stopped(error)
            raise
        finally:
            stages.calls.close()  # gives back what was leased and settles what was in flight
    return Run(folder)


def _can_be_left_out(name: str, loaded: Loaded) -> None:
    known = {each for recipe in loaded.arms().values() for each in recipe.teachers}
    if name not in known:
        raise RecipeError(f"--without-teacher {name}: no such teacher; {nearest(name, known)}")
    for arm, recipe in loaded.arms().items():
        if name in teachers_in(recipe.train):
            raise RecipeError(
                f"--without-teacher {name}: the training of arm {arm} asks this teacher as it goes; take that out of `train`"
            )


def _made(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise RecipeError(f"--out {folder}: a file is in the way; name a folder that is there or can be made") from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Two processes in one run folder would write over each other."""
    import fcntl

    with open(folder / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RecipeError(
                f"{folder}: another process is running in this folder; wait for it, or give --out"
            ) from None
        yield


@contextmanager
def _writing_said(folder: Path) -> Iterator[None]:
    """A disk that takes no more is one sentence, whoever met it: files, the libraries that save weights, the store."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = _unwritable(error)
        if reason is None:
            raise
        raise RunFailed(f"{folder}: {reason} and run again, nothing made so far is lost") from error


def _unwritable(error: BaseException) -> str | None:
    """What stopped the writing and what to do about it; None where the error is about something else."""
    # copying a folder, safetensors and torch tell it in words of their own
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or any(said in str(error) for said in _FULL):
        return "the disk is full; free some space"
    if isinstance(error, OSError) and error.errno in _UNWRITABLE:
        return f"{error.filename or 'a file'} cannot be written ({error.strerror}); change that"
    return None


class _Stages:
    def __init__(self, loaded: Loaded, folder: Path, options: Options, progress: Progress, terms: Terms) -> None:
        from stillhouse.teachers.calls import Calls

        self.loaded, self.recipe, self.terms = loaded, loaded.recipe, terms
        self.folder, self.options, self.progress = folder, options, progress
        self.manifest = self._manifest()
        self.calls_before = self.manifest["calls"]
        store = Path(self.recipe.store).expanduser() if self.recipe.store else None
        watch = Watch(self.recipe.screening.secrets, self.recipe.screening.egress)
        told = self.recipe.budget.at("budget") if self.recipe.budget else None
        budget = budget_of(options.budget) if options.budget else told
        self.calls = Calls(
            store, run=self.manifest["run_id"], budget=budget, retry=options.retry, watch=watch, say=progress.say,
            on=options.on,
        )  # fmt: skip
        self.manifest["store"] = str(self.calls.store.folder.resolve())

    def _manifest(self) -> dict[str, Any]:
        old = read_json(self.folder / "manifest.json") if (self.folder / "manifest.json").is_file() else {}
        return {
            "version": 1,
            "name": self.recipe.name,
            "run_id": old.get("run_id", uuid.uuid4().hex),  # under which the store keeps the books of this run
            "state": "running",
            "created": old.get("created", time.time()),
            "updated": time.time(),
            "command": self.options.command,
            "recipe_hash": fingerprint(self.loaded.data),
            "seed": self.recipe.seed,
            "limit": self.options.limit,
            "use": self.recipe.use.model_dump() if self.recipe.use else None,
            "versions": versions(),
            "commit": commit(),
            "hardware": hardware(accelerators=bool(self.recipe.student)),
            "steps": old.get("steps", []),
            "students": old.get("students", []),
            "teachers": old.get("teachers", []),
            "calls": old.get("calls", {}),
            "prices": old.get("prices", {}),
            "retried": old.get("retried", 0) + bool(self.options.retry),
            "seconds": old.get("seconds", {}),
            "attempts": [*old.get("attempts", []), time.time()],
        }

    def run(self) -> None:
        (self.folder / "recipe.yaml").write_text(dump_yaml(self.loaded.data), encoding="utf-8")
        self._keep_user_code()
        keep_terms(self.loaded, self.folder, self.options.registry)
        self._save()
        if self.recipe.rounds.most > 1:
            students = self._rounds()
        else:
            branches = self._timed("knowledge", self._knowledge)
            students = self._timed("train", lambda: self._train(branches))
        self._timed("evaluate", lambda: self._evaluate(students))
        self.manifest["terms"]["card"] = self._card()
        self.manifest["state"] = "done"
        self._save()
        self._papers()
        self._report()
        self.progress.finished("done")

    def stopped(self, error: BaseException) -> None:
        self.manifest["state"] = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        self.manifest["stopped_by"] = str(error) if isinstance(error, StillhouseError) else type(error).__name__
        try:
            self._save()
            self._report()
        except (OSError, StillhouseError):  # the disk may be what stopped it, and the first error is the one to show
            return

    def _timed(self, stage: str, work: Any) -> Any:
        started = time.monotonic()
        result = work()
        self.manifest["seconds"][stage] = round(self.manifest["seconds"].get(stage, 0) + time.monotonic() - started, 3)
        self._save()
        return result

    def _save(self) -> None:
        self.manifest["updated"] = time.time()
        counts = {name: asdict(each) for name, each in self.calls.counts().items()}
        self.manifest["calls"] = summed([self.calls_before, counts])
        self.manifest["prices"] = {**self.manifest.get("prices", {}), **self.calls.prices()}
        write_json(self.folder / "manifest.json", self.manifest)

    def _knowledge(self) -> dict[str, dict[str, Data]]:
        """Runs each distinct branch once; arms that say the same about a branch share its folder."""
        made: dict[str, Data] = {}
        branches: dict[str, dict[str, Data]] = {}
        steps: list[dict[str, Any]] = []
        for arm, recipe in self.loaded.arms().items():
            branches[arm] = {}
            for name, branch in recipe.knowledge.items():
                place = self._place(arm, recipe, name, branch)
                if place not in made:
                    work = self._work(recipe, Teachers(recipe, self.calls))
                    work.drawn = self._drawn(arm, name, steps)
                    try:
                        last = work.branch(name, branch, place)
                    finally:
                        steps += work.steps
                        self.manifest["steps"] = steps
                        self._save()
                    made[place] = Data(last, work.steps[-1]["hash"])
                branches[arm][name] = made[place]
        self._sweep({place.split("/")[0] for place in made})
        return branches

    def _work(self, recipe: Recipe, teachers: Teachers) -> Knowledge:
        folder, options = self.loaded.folder, self.options
        retried = self.manifest["retried"]
        return Knowledge(
            recipe, folder, self.folder, teachers, self.progress, options.limit, options.without, retried=retried
        )

    def _drawn(self, arm: str, name: str, steps: list[dict[str, Any]]) -> dict[int, int]:
        """How many rows each selector kept in the arm that this one stands against: selectors are run once."""
        sibling = arm.removesuffix("-random")
        if sibling == arm or (recipe := self.loaded.arms().get(sibling)) is None:
            return {}
        return drawn_sizes(self._place(sibling, recipe, name, recipe.knowledge[name]), steps)

    def _rounds(self) -> list[dict[str, Any]]:
        """Knowledge and training in turn, for every arm and repeat."""

        def students(branches: Mapping[str, Mapping[str, Data]]) -> Students:
            return Students(self.folder, self.loaded.folder, self.progress, branches)

        def saved(work: Rounds) -> None:
            self.manifest |= {"steps": list(work.steps.values()), "students": work.trained, "rounds": work.told}
            self._save()

        def validated(arm: str, seed: int, student: dict[str, Any] | None, number: int) -> float:
            return self._evaluation(Teachers(self.recipe, self.calls)).validated(arm, seed, student, number)

        work = Rounds(
            self.loaded,
            self.folder,
            self._work,
            lambda recipe, student: Teachers(recipe, self.calls, student),
            students,
            validated,
            self._before_training,
            self._timed,
            saved,
            self.progress.say,
        )
        work.all()
        return work.trained

    def _place(self, arm: str, recipe: Recipe, name: str, branch: Branch) -> str:
        same = self.recipe.knowledge.get(name) == branch and recipe.teachers == self.recipe.teachers
        return name if same and recipe.seed == self.recipe.seed else f"{name}@{arm}"

    def _sweep(self, planned: set[str]) -> None:
        for old in (self.folder / "knowledge").iterdir():
            if old.is_dir() and old.name not in planned:
                shutil.rmtree(old)

    def _train(self, branches: Mapping[str, Mapping[str, Data]]) -> list[dict[str, Any]]:
        arms = {arm: recipe for arm, recipe in self.loaded.arms().items() if recipe.train}
        if arms:
            self._before_training()
        work = Students(self.folder, self.loaded.folder, self.progress, branches)
        students = []
        # repeats outside, arms inside: whatever stops a run leaves whole pairs behind
        for repeat in range(self.recipe.repeats):
            for arm, recipe in arms.items():
                students.append(work.train(arm, recipe, recipe.seed + repeat, Teachers(recipe, self.calls)))
                self.manifest["students"] = students
                self._save()
        return students

    def _evaluate(self, students: list[dict[str, Any]]) -> None:
        final = self.recipe.final or ""
        candidates = [s for s in students if final in ("", s["arm"], f"{s['arm']}/{s['seed']}")]
        scores: dict[str, Any] = {"version": 1, "tasks": [], "summary": [], "comparisons": [], "validation": []}
        if self.recipe.evaluate and self.recipe.student is not None:
            teachers = Teachers(self.recipe, self.calls)
            choosing = len(candidates) > 1 or self.recipe.rounds.stop.gain is not None
            last = {step["branch"]: step["step"] for step in self.manifest["steps"]}
            trained = [self.folder / "knowledge" / branch / step / "out.jsonl" for branch, step in last.items()]
            scores = self._evaluation(teachers).all(students, choosing, trained if students else ())
        if students:
            chosen = choose_final(self.recipe, students, lambda arm, seed: _validated(scores, arm, seed))
            scores["final"] = {"arm": chosen["arm"], "seed": chosen["seed"]}
            self._put_final(self.folder / chosen["path"], chosen["hash"])
        write_json(self.folder / "evaluate" / "scores.json", scores)
        for warning in broken(scores, self.recipe):
            self.progress.say(f"warning: {warning}")

    def _evaluation(self, teachers: Teachers) -> Evaluation:
        folder, limit = self.loaded.folder, self.options.limit
        return Evaluation(self.folder, folder, self.recipe, teachers, self.progress, limit)

    def _put_final(self, home: Path, stamp: str) -> None:
        target = self.folder / "student"
        mark = target / ".from"
        if mark.is_file() and mark.read_text() == stamp:
            return
        part = self.folder / "student.part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(home, part, ignore=shutil.ignore_patterns("stamp.json", "phases", "round-*"))
        (part / ".from").write_text(stamp)
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)

    def _card(self) -> dict[str, Any]:
        """What the terms want on the cards; the files that go with the student are put beside it."""
        self.manifest["screening"] = self.manifest.get("screening", {}) | screened(self.folder)
        card = on_the_cards(self.terms, self.folder, self.manifest["screening"])
        if (self.folder / "student").is_dir():
            for name, text in card["files"].items():
                (self.folder / "student" / name).write_text(text, encoding="utf-8")
        return card

    def _papers(self) -> None:
        """What is made from the finished manifest lies beside the card: the student's, else that of the data."""
        home = self.folder / ("student" if (self.folder / "student").is_dir() else "knowledge")
        for name, text in papers(self.terms, self.folder, self.manifest["screening"]).items():
            (home / name).write_text(text, encoding="utf-8")

    def _before_training(self) -> None:
        self.manifest["screening"] = self.terms.before_training(self.folder)

    def _report(self) -> None:
        from stillhouse.report import write_report

        write_report(self.folder)

    def _keep_user_code(self) -> None:
        """The user's own functions are announced before they are imported and copied into the run."""
        for name in sorted(set(_names(self.loaded.data))):
            if ".py:" in name:
                path, _ = locate("elicit", name, folder=self.loaded.folder, where="recipe")
                self.progress.say(f"uses your code: {path}")
                (self.folder / "code").mkdir(exist_ok=True)
                shutil.copy2(path, self.folder / "code" / path.name)


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get("do"), str):
            yield value["do"]
        for each in value.values():
            yield from _names(each)
    elif isinstance(value, list):
        for each in value:
            yield from _names(each)


def _validated(scores: Mapping[str, Any], arm: str, seed: int) -> float:
    """The validation mean of a student on the first task, negated where lower is better; without a task all are equal."""
    for row in scores["validation"]:
        if row["arm"] == arm and row["seed"] == seed:
            better = next(task["higher_is_better"] for task in scores["tasks"] if task["task"] == row["task"])
            return row["mean"] if better else -row["mean"]
    return 0.0
