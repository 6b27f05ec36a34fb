"""All questions that `still check --deep` asks, in order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stillhouse.errors import RecipeError
from stillhouse.knobs import nested
from stillhouse.plan import seeds_seen
from stillhouse.preflight.findings import Finding
from stillhouse.preflight.forecast import forecast
from stillhouse.preflight.likelihood import compared, graded
from stillhouse.preflight.scores import own_scores
from stillhouse.preflight.turns import coloured, masked, own_turns, same_tokens
from stillhouse.probing import Probe, believed, fitting, probing, read_by, student_of
from stillhouse.recipe import Loaded, Recipe
from stillhouse.records import Example, Seed
from stillhouse.render import fingerprint, reading_of
from stillhouse.resolve import load, signature
from stillhouse.train.batch import SCORERS, WRITERS

__all__ = ["Deep", "deep"]

_ROWS = 32
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Deep:
    """`shown`: examples as the student reads them, piece by piece, with what is learned of them."""

    findings: list[Finding]
    shown: list[list[dict[str, Any]]]

    @property
    def refused(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.verdict == "refused"]

    def as_dict(self) -> dict[str, Any]:
        return {"findings": [finding.as_dict() for finding in self.findings], "shown": self.shown}

    def lines(self, *, colour: bool) -> Iterator[str]:
        for finding in self.findings:
            yield f"{finding.verdict:<8} {finding.about}: {finding.text}"
        yield "what is learned of the first rows:"
        for pieces in self.shown:
            yield f"  {coloured(pieces, colour=colour)}"


def deep(loaded: Loaded, *, folder: Path = Path("runs")) -> Deep:
    """Loads the teacher and the student of every arm that has others, and looks. Raises RecipeError where there is nothing
    to load.
    """
    groups: dict[str, list[str]] = {}
    for arm, recipe in loaded.arms().items():
        told = recipe.student.model_dump_json() if recipe.student is not None else ""
        teacher = believed(recipe)
        groups.setdefault(f"{told}|{teacher}|{read_by(recipe, teacher)}", []).append(arm)
    whole = Deep([], [])
    for arms in groups.values():
        found = _of_arms(loaded, arms, folder)
        named = f" ({', '.join(arms)})" if len(groups) > 1 else ""
        whole.findings.extend(replace(finding, about=f"{finding.about}{named}") for finding in found.findings)
        whole.shown.extend(found.shown if not whole.shown else [])
    return whole


def _of_arms(loaded: Loaded, arms: Sequence[str], folder: Path) -> Deep:
    """Of arms that share student, teacher and data."""
    recipes = [loaded.arms()[arm] for arm in arms]
    student = student_of(loaded, arms[0], kinds=(*WRITERS, *SCORERS))
    findings: list[Finding] = []
    with probing(loaded, arm=arms[0], rows=_ROWS, local=False) as probe:
        if student is None and probe.backend is None:
            raise RecipeError(
                "check --deep: there is neither a student nor a teacher whose weights lie here, so there is nothing to load; "
                "run `still check` without --deep"
            )
        if student is None:
            findings.append(Finding("student", "note", "the recipe has no student: only the teacher was looked at"))
        elif student.kind in SCORERS:
            findings += own_scores(student, probe.examples)
        else:
            findings += own_turns("student", student.model, student.tokenizer)
        if probe.backend is None:
            findings.append(Finding("teacher", "note", "no teacher's weights lie here: only the student was looked at"))
        else:
            findings += own_turns("teacher", probe.backend.module(), probe.backend.tokenizer())
        if student is not None:
            findings += _together(recipes, arms, loaded, probe, student, folder)
    if student is not None:
        shown = [masked(student.tokenizer, example, student.reading) for example in probe.examples[:_SHOWN]]
    else:
        reading, tokenizer = reading_of(probe.backend.module()), probe.backend.tokenizer()
        shown = [masked(tokenizer, example, reading) for example in probe.examples[:_SHOWN]]
    return Deep(findings, shown)


def _together(
    recipes: Sequence[Recipe], arms: Sequence[str], loaded: Loaded, probe: Probe, student: Any, folder: Path
) -> Iterator[Finding]:
    """The student on the data, beside the teacher where there is one."""
    teacher = probe.backend.module() if probe.backend is not None else None
    models = (student.model,) if teacher is None else (student.model, teacher)
    rows = fitting(probe.examples, student.tokenizer, *models, reading=student.reading)
    if (long := len(probe.examples) - len(rows)) > 0:
        yield Finding(
            "length", "warning", f"{long} of {len(probe.examples)} rows do not fit student and teacher and are left out"
        )
    read: list[Any] = []
    if teacher is not None:
        tokenizer = probe.backend.tokenizer()
        read = fitting(probe.examples, tokenizer, teacher, student.model)
        if student.kind not in SCORERS:
            yield from _compared(recipes, loaded, probe, student, rows, read)
    count, _ = seeds_seen(recipes[0].knowledge[probe.branch], loaded.folder, "knowledge", None)
    for arm, recipe in zip(arms, recipes, strict=True):
        if not recipe.train:
            continue
        for finding in forecast(recipe, rows, count, student.model, teacher, _tokenizer(probe, student), folder, read):
            yield replace(finding, about=f"{finding.about} of {arm}") if len(arms) > 1 else finding


def _tokenizer(probe: Probe, student: Any) -> Any:
    return student.tokenizer if probe.backend is None else probe.backend.tokenizer()


def _compared(
    recipes: Sequence[Recipe], loaded: Loaded, probe: Probe, student: Any, rows: Sequence[Any], read: Sequence[Any]
) -> Iterator[Finding]:
    model, tokenizer = probe.backend.module(), probe.backend.tokenizer()
    objectives = [entry.do for recipe in recipes for phase in recipe.train for entry in phase.objectives]
    by_token = any(_by_token(name, loaded) for name in objectives)
    yield from same_tokens(tokenizer, student.tokenizer, by_token=by_token)
    alike = len(rows) == len(read) and all(own.response == other.response for own, other in zip(rows, read))
    if alike and fingerprint(tokenizer) == fingerprint(student.tokenizer):
        yield from compared(
            model, student.model, tokenizer, rows, read_by_teacher=read, answered_by=probe.answered_by,
            objectives=objectives,
        )  # fmt: skip
    yield from _answers(recipes[0], loaded, probe)


def _by_token(objective: str, loaded: Loaded) -> bool:
    return "teacher_beliefs" in signature("objectives", objective, folder=loaded.folder, where="train").inputs


def _answers(recipe: Recipe, loaded: Loaded, probe: Probe) -> Iterator[Finding]:
    """The data's own questions to both, where the recipe has a grader and the data has references."""
    grader = _grader(recipe, loaded)
    questions = [(seed, seed.reference) for seed in probe.seeds if seed.reference is not None]
    if grader is None or not questions:
        return
    name, grade = grader
    seeds = [seed for seed, _ in questions]

    def asked(who: str) -> list[str]:
        return _in_order(seeds, probe.answers(who, seeds))

    ask = {"teacher": lambda: asked(probe.teacher), "student": lambda: asked("base_student")}
    yield from graded(ask, [str(reference) for _, reference in questions], grade, name)


def _in_order(seeds: Sequence[Seed], answers: Sequence[Example]) -> list[str]:
    """An answer that was lost counts as an empty one."""
    by_parent = {one.origin.parents[0]: one.response for one in answers}
    return [by_parent.get(seed.id, "") for seed in seeds]


def _grader(recipe: Recipe, loaded: Loaded) -> tuple[str, Any] | None:
    from functools import partial

    entries: list[Any] = [entry for branch in recipe.knowledge.values() for entry in branch.select]
    for entry in [*entries, *recipe.evaluate]:
        for at, inner in nested("grader", entry.knobs.get("grader"), "grader"):
            return inner.do, partial(load("graders", inner.do, folder=loaded.folder, where=at), **inner.knobs)
    return None
