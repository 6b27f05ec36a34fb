"""The terms of a recipe at its three gates: before anything is spent, before training, before a student is handed out.

What the terms say lies in `compliance/`; this file only tells it what a recipe and its rows are made of.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from stillhouse.compliance.acknowledge import Acknowledgment
from stillhouse.compliance.decision import Decision
from stillhouse.compliance.explain import lines
from stillhouse.compliance.gates import acknowledgments_of, decide, decide_rows, enforce, may_be_sent, registry_for
from stillhouse.compliance.lineage import branch_ends, branch_steps, teachers_of_rows
from stillhouse.compliance.plan import Plan, restored
from stillhouse.compliance.recipe_plan import card_licence, plan_of
from stillhouse.compliance.registry import Registry, load
from stillhouse.compliance.screening import as_use, merged
from stillhouse.compliance.watch import Watch, texts_of
from stillhouse.errors import RecipeError, TermsUnknown
from stillhouse.recipe import BASE_STUDENT, STUDENT, EvaluateEntry, Loaded, Recipe, TeacherEntry
from stillhouse.store import read_json, read_jsonl, read_stamp, write_json

# ways in which a teacher is used, from the one that takes least to the one that takes most
_METHODS = ("evaluate_only", "judge_or_reward", "logits", "train_on_outputs")


@dataclass(frozen=True, slots=True)
class Terms:
    """The plan that the terms are asked about, and what it is judged with. `others`: the same with the students of arms
    that start from other weights.
    """

    plan: Plan
    registry: Registry
    acknowledgments: tuple[Acknowledgment, ...] = ()
    others: tuple[Plan, ...] = ()

    def before_spending(self) -> dict[str, Any]:
        """What the manifest keeps. Raises `TermsRefused` or `TermsUnknown` with the ways on."""
        for plan in self.others:
            enforce(decide(plan, registry=self.registry, acknowledgments=self.acknowledgments), self.registry)
        decision = decide(self.plan, registry=self.registry, acknowledgments=self.acknowledgments)
        enforce(decision, self.registry)
        told = lines(decision, self.registry)
        return {
            "plan": self.plan.as_dict(),
            "others": [plan.as_dict() for plan in self.others],
            "verdict": decision.verdict,
            "decision": decision.as_dict(),
            "teachers": self._by_name(decision),
            "lines": told,
        }

    def _by_name(self, decision: Decision) -> dict[str, list[dict[str, Any]]]:
        """Which records govern the teachers that rows name: a row carries its teacher's name and not its terms."""
        return {
            name: [
                {
                    "model": teacher.model,
                    "access": teacher.access,
                    "method": teacher.method,
                    "records": decision.records_about(f"teacher:{teacher.model}"),
                }
                for teacher in teachers
            ]
            for name, teachers in self.plan.by_name.items()
        }

    def before_training(self, run: Path) -> dict[str, Any]:
        """The same question about the rows that are there, whatever the recipe says now. Gives the screening by point."""
        names = teachers_of_rows(run) - {STUDENT, BASE_STUDENT}
        found = screened(run) | Watch().over("pretrain", texts_that_train(run))
        for plan in (*self.others, self.plan):
            decision = decide_rows(
                plan, names, registry=self.registry, acknowledgments=self.acknowledgments, screening=as_use(found)
            )
            enforce(decision, self.registry)
        return found

    def before_handing_out(self, screening: Mapping[str, Any], plan: Plan | None = None) -> Decision:
        """The decision of the publish gate, not enforced."""
        return decide(
            plan or self.plan,
            registry=self.registry,
            acknowledgments=self.acknowledgments,
            gate="publish",
            screening=as_use(screening),
        )


def keep_terms(loaded: Loaded, run: Path, registry_file: Path | None = None) -> None:
    """Copies what the gates were judged with beside the recipe into `terms/` of the run, for the gate of publication."""
    home = run / "terms"
    (home / "terms.d").mkdir(parents=True, exist_ok=True)
    for old in [path for path in home.rglob("*") if path.is_file()]:
        old.unlink()
    for path in (loaded.folder / "terms.d").glob("*.yaml"):
        shutil.copy2(path, home / "terms.d")
    if registry_file:
        shutil.copyfile(registry_file, home / "registry.yaml")
    if (loaded.folder / "allowed_signers").is_file():
        shutil.copy2(loaded.folder / "allowed_signers", home)
    for number, entry in enumerate(loaded.recipe.acknowledgments):
        kept = home / f"acknowledgment-{number}.json"
        if isinstance(entry, str):
            shutil.copy2(loaded.folder / entry, kept)
            signature = loaded.folder / f"{entry}.sig"
            shutil.copy2(signature, f"{kept}.sig") if signature.is_file() else None
        else:
            write_json(kept, entry)


def kept_terms(run: Path) -> Terms:
    """The plan of a run's manifest, with the registry of today and the records and acknowledgments kept in the run.

    Raises TermsUnknown where they cannot be asked.
    """
    home, said = run / "terms", read_json(run / "manifest.json").get("terms") or {}
    if "plan" not in said:
        raise TermsUnknown(f"{run}: the manifest holds no plan to judge; run the recipe again")
    if strangers := _strangers(run, said):
        raise TermsUnknown(
            f"{run}: rows name the teacher {min(strangers)!r}, whose terms nobody was asked about; run the recipe again"
        )
    newer = home / "registry.yaml"
    registry = _registry(home, newer if newer.is_file() else None)
    try:
        signed = acknowledgments_of([path.name for path in sorted(home.glob("acknowledgment-*.json"))], home)
        plan, *others = (restored(each, f"{run}/manifest.json") for each in (said["plan"], *said.get("others", ())))
        return Terms(plan, registry, signed, tuple(others))
    except RecipeError as error:
        raise TermsUnknown(str(error)) from error


def _strangers(run: Path, said: Mapping[str, Any]) -> set[str]:
    """Teachers of rows that were not in the plan: files can be changed after a run."""
    if (known := said.get("teachers")) is None:  # a manifest of an older version
        return set()
    models = {each["model"] for rows in known.values() for each in rows}
    return set(teachers_of_rows(run)) - {STUDENT, BASE_STUDENT, *known, *models}


def _registry(folder: Path, file: Path | None) -> Registry:
    """A gate that cannot ask has not been told yes."""
    try:
        return registry_for(folder, load(file, today=date.today()) if file else None)
    except RecipeError as error:
        raise TermsUnknown(str(error)) from error


def screened(run: Path) -> dict[str, dict[str, Any]]:
    """What screening found so far, by point: added up over the stamps of steps, students and evaluations."""
    stamps = [path for stage in ("knowledge", "students", "evaluate") for path in (run / stage).rglob("*stamp.json")]
    return merged((read_stamp(path) or {}).get("screening", {}) for path in sorted(stamps))


def texts_that_train(run: Path) -> Iterator[str]:
    """Every text of the rows that branches and their rounds end with."""
    for files in branch_steps(run).values():
        for file in branch_ends(files):
            for _, row in read_jsonl(file):
                yield from texts_of(row)


def terms_of(loaded: Loaded, *, without: Sequence[str] = (), registry_file: Path | None = None) -> Terms:
    """One plan for all arms: every teacher, source of seeds and student that any of them names.

    A teacher in `without` is not asked for anything that trains; it stays only where an evaluation holds against it.
    `registry_file` takes the place of the registry inside the package. Raises TermsUnknown where records cannot be read.
    """
    registry = _registry(loaded.folder, registry_file)
    recipes = list(loaded.arms().values())
    teachers = {
        (name, str(entry)): _teacher(name, entry, () if name in without else recipes)
        for each in recipes
        for name, entry in each.teachers.items()
        if name not in without or any(name == entry.teacher for entry in each.evaluate)
    }
    seeds = {str(b.seeds): _seeds(b.seeds) for each in recipes for b in each.knowledge.values()}
    seeds |= {str(e): _held_out(e) for each in recipes for e in each.evaluate if e.knobs.get("path")}
    first = loaded.recipe
    students = [_student(first), *(student for each in recipes if (student := _student(each)) != _student(first))]
    plan, *others = (
        plan_of(
            use=first.use.model_dump(exclude_unset=True) if first.use else None,
            teachers=[*teachers.values(), *_reward_models(recipes)],
            seeds=list(seeds.values()),
            student=student,
            registry=registry,
            folder=loaded.folder,
        )
        for student in students
    )
    if first.screening.egress == "send":
        may_be_sent(plan, registry)
    return Terms(plan, registry, acknowledgments_of(first.acknowledgments, loaded.folder), tuple(others))


def _teacher(name: str, entry: TeacherEntry, recipes: Sequence[Recipe]) -> dict[str, Any]:
    told: dict[str, Any] = {"name": name, "backend": entry.backend, "terms": entry.terms}
    told["method"] = max(_methods(name, recipes), key=_METHODS.index, default="evaluate_only")
    told |= {key: entry.knobs[key] for key in ("model", "base_url", "revision", "path") if entry.knobs.get(key)}
    model = told.get("model")
    if isinstance(model, str) and Path(model).is_dir():
        told["card_licence"] = card_licence(Path(model))
    if entry.backend == "run":
        earlier = read_json(Path(told["path"]) / "manifest.json")
        told["plan"] = (earlier.get("terms") or {}).get("plan")
    return told


def _reward_models(recipes: Sequence[Recipe]) -> list[dict[str, Any]]:
    """Runs whose student rewards or ranks (`preferences.reward_model`, `step_rewards`): who taught them judges here."""
    entries: list[Mapping[str, Any]] = []
    for recipe in recipes:
        entries += [{"do": entry.do, **entry.knobs} for branch in recipe.knowledge.values() for entry in branch.elicit]
        entries += [phase.rollouts.reward for phase in recipe.train if phase.rollouts and phase.rollouts.reward]
    found = []
    judges = ("preferences.reward_model", "preferences.step_rewards")
    told = [each for each in entries if each.get("do") in judges]
    for path in sorted({str(each[key]) for each in told for key in ("path", "requests_path") if each.get(key)}):
        plan = _plan_of_run(Path(path)) or _started_from(Path(path))
        if plan is not None:
            found.append({"name": f"reward model {path}", "backend": "run", "path": path, "plan": plan, "judges": True})
    return found


def _methods(name: str, recipes: Sequence[Recipe]) -> Iterator[str]:
    """What is taken from a teacher: its answers, its beliefs, its judgement, or only a line to reach."""
    for recipe in recipes:
        for branch in recipe.knowledge.values():
            for entry in branch.elicit:
                if name in teachers_in(entry):
                    kind = entry.do.partition(".")[0]
                    yield {"feature": "logits", "feedback": "judge_or_reward"}.get(kind, "train_on_outputs")
            if name in teachers_in(branch.select):
                yield "judge_or_reward"
        for phase in recipe.train:
            rollouts = phase.rollouts.model_dump() if phase.rollouts else {}
            reward = rollouts.pop("reward", None)
            for part, method in (
                (phase.objectives, "logits"),
                (rollouts, "train_on_outputs"),
                (reward, "judge_or_reward"),
            ):
                if name in teachers_in(part):
                    yield method


def teachers_in(value: Any) -> set[str]:
    """Every name under a key `teacher`, however deep."""
    if isinstance(value, BaseModel):
        return teachers_in(value.model_dump())
    if isinstance(value, Mapping):
        named = value.get("teacher")
        mine = {named} if isinstance(named, str) else set(named or ())
        return mine.union(*(teachers_in(each) for each in value.values()))
    return set().union(*map(teachers_in, value)) if isinstance(value, list | tuple) else set()


def _held_out(entry: EvaluateEntry) -> dict[str, Any]:
    return {"name": entry.label, "path": entry.knobs["path"], "role": "eval"}


def _seeds(entry: Any) -> dict[str, Any]:
    told = {key: entry.knobs[key] for key in ("path", "dataset", "revision") if entry.knobs.get(key)}
    return {"name": entry.do, "terms": entry.terms, **told}


def _student(recipe: Recipe) -> dict[str, Any]:
    entry = recipe.student
    if entry is None:
        return {"model": "none"}
    told: dict[str, Any] = {"model": entry.model, "kind": entry.kind, "terms": entry.terms}
    if Path(entry.model).is_dir():
        told["card_licence"] = card_licence(Path(entry.model))
        if entry.terms is None and (earlier := _started_from(Path(entry.model))):
            told["plan"] = earlier
    return told


def _started_from(model: Path) -> dict[str, Any] | None:
    """The plan of the run whose student these weights are, or None where they are no run's."""
    return next((plan for run in model.resolve().parents[:3] if (plan := _plan_of_run(run))), None)


def _plan_of_run(run: Path) -> dict[str, Any] | None:
    manifest = run / "manifest.json"
    told = (read_json(manifest).get("terms") or {}).get("plan") if manifest.is_file() else None
    return told if isinstance(told, dict) else None
