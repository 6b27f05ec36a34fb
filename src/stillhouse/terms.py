"""The terms of a recipe at its three gates: before anything is spent, before training, and on the student's card.

What the terms say lies in `compliance/`; this file only tells it what a recipe and its rows are made of.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillhouse.check import STUDENT
from stillhouse.compliance.cards import data_card_section, model_card_fields, model_card_section
from stillhouse.compliance.explain import lines
from stillhouse.compliance.gates import acknowledgments_of, decide, decide_rows, enforce, registry_for
from stillhouse.compliance.lineage import rows_by_teachers, teachers_of_rows
from stillhouse.compliance.notices import notice_files
from stillhouse.compliance.recipe_plan import card_licence, plan_of
from stillhouse.recipe import EvaluateEntry, Loaded, Recipe, TeacherEntry
from stillhouse.store import read_json

# ways in which a teacher is used, from the one that takes least to the one that takes most
_METHODS = ("evaluate_only", "judge_or_reward", "logits", "train_on_outputs")


@dataclass(frozen=True, slots=True)
class Terms:
    """The plan that the terms are asked about, and what they are judged with."""

    plan: Any
    registry: Any
    acknowledgments: tuple[Any, ...]

    def before_spending(self) -> dict[str, Any]:
        """What the manifest keeps. Raises `TermsRefused` or `TermsUnknown` with the ways on."""
        decision = decide(self.plan, registry=self.registry, acknowledgments=self.acknowledgments)
        enforce(decision, self.registry)
        told = lines(decision, self.registry)
        return {"plan": self.plan.as_dict(), "verdict": decision.verdict, "decision": decision.as_dict(), "lines": told}

    def before_training(self, run: Path) -> None:
        """The same question about the rows that are there, whatever the recipe says now."""
        names = teachers_of_rows(run) - {STUDENT}
        enforce(
            decide_rows(
                self.plan,
                names,
                registry=self.registry,
                acknowledgments=self.acknowledgments,
                planned=self.plan.use.model_dump(),
            ),
            self.registry,
        )

    def on_the_card(self, run: Path) -> dict[str, Any]:
        """The cards' sections and front matter, and the files that go with the student, by name."""
        decision = decide(self.plan, registry=self.registry, acknowledgments=self.acknowledgments, gate="publish")
        rows, human = self._rows(run)
        return {
            "fields": model_card_fields(decision, self.plan, rows=rows),
            "model_card": model_card_section(decision, self.plan, self.registry, rows=rows),
            "data_card": data_card_section(decision, self.plan, self.registry, rows=rows, human_rows=human),
            "files": notice_files(decision, self.registry),
        }

    def _rows(self, run: Path) -> tuple[dict[str, int], int]:
        """Rows at the end of all branches by the model behind them, and those with no teacher behind them."""
        rows: dict[str, int] = {}
        human = 0
        for counts in rows_by_teachers(run).values():
            for names, count in counts.items():
                human += 0 if names else count
                for name in names:
                    for teacher in self.plan.by_name.get(name, ()):
                        rows[teacher.model] = rows.get(teacher.model, 0) + count
        return rows, human


def terms_of(loaded: Loaded, *, without: Sequence[str] = ()) -> Terms:
    """One plan for all arms: every teacher, source of seeds and student that any of them names.

    A teacher in `without` drops out: none of its rows is trained on.
    """
    registry = registry_for(loaded.folder)
    recipes = list(loaded.arms().values())
    teachers = {
        (name, str(entry)): _teacher(name, entry, recipes)
        for each in recipes
        for name, entry in each.teachers.items()
        if name not in without
    }
    seeds = {str(b.seeds): _seeds(b.seeds) for each in recipes for b in each.knowledge.values()}
    seeds |= {str(e): _held_out(e) for each in recipes for e in each.evaluate if e.knobs.get("path")}
    first = loaded.recipe
    plan = plan_of(
        use=first.use.model_dump(exclude_unset=True) if first.use else None,
        teachers=list(teachers.values()),
        seeds=list(seeds.values()),
        student=_student(first),
        registry=registry,
        folder=loaded.folder,
    )
    return Terms(plan, registry, acknowledgments_of(first.acknowledgments, loaded.folder))


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


def _methods(name: str, recipes: Sequence[Recipe]) -> Iterator[str]:
    """What is taken from a teacher: its answers, its beliefs, its judgement, or only a line to reach."""
    for recipe in recipes:
        for branch in recipe.knowledge.values():
            for entry in branch.elicit:
                if name == entry.teacher or (isinstance(entry.teacher, list) and name in entry.teacher):
                    kind = entry.do.partition(".")[0]
                    yield {"feature": "logits", "feedback": "judge_or_reward"}.get(kind, "train_on_outputs")
        if any(name in entry.teachers for phase in recipe.train for entry in phase.objectives):
            yield "logits"


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
    return told
