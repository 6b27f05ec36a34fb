"""All questions that `still check --deep` asks, in order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillhouse.errors import RecipeError
from stillhouse.knobs import nested
from stillhouse.plan import seeds_seen
from stillhouse.preflight.findings import Finding
from stillhouse.preflight.forecast import forecast
from stillhouse.preflight.likelihood import compared, graded
from stillhouse.preflight.turns import coloured, masked, own_turns, same_tokens
from stillhouse.probing import Probe, fitting, probing, student_of
from stillhouse.recipe import Loaded, Recipe
from stillhouse.records import Example, Seed
from stillhouse.render import fingerprint
from stillhouse.resolve import load, signature

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
    """Loads the teacher and the student of the first arm and looks. Raises RecipeError where there is nothing to load."""
    recipe = next(iter(loaded.arms().values()))
    student = student_of(loaded)
    findings: list[Finding] = []
    with probing(loaded, rows=_ROWS, local=False) as probe:
        if student is None and probe.backend is None:
            raise RecipeError(
                "check --deep: there is neither a student of kind causal_lm nor a teacher whose weights lie here, so there "
                "is nothing to load; run `still check` without --deep"
            )
        shown_by = student.tokenizer if student is not None else probe.backend.tokenizer()
        if student is None:
            findings.append(
                Finding(
                    "student", "note", "the recipe has no student of kind causal_lm: only the teacher was looked at"
                )
            )
        else:
            findings += own_turns("student", student.model, student.tokenizer)
        if probe.backend is None:
            findings.append(Finding("teacher", "note", "no teacher's weights lie here: only the student was looked at"))
            if student is not None:
                rows = fitting(probe.examples, student.tokenizer, student.model)
                findings += _took(recipe, loaded, probe, rows, student, None, folder)
        else:
            findings += _with_teacher(recipe, loaded, probe, student, folder)
    shown = [masked(shown_by, example) for example in probe.examples[:_SHOWN]]
    return Deep(findings, shown)


def _with_teacher(recipe: Recipe, loaded: Loaded, probe: Probe, student: Any, folder: Path) -> Iterator[Finding]:
    model, tokenizer = probe.backend.module(), probe.backend.tokenizer()
    yield from own_turns("teacher", model, tokenizer)
    if student is None:
        return
    objectives = [entry.do for each in loaded.arms().values() for phase in each.train for entry in phase.objectives]
    by_token = any(_by_token(name, loaded) for name in objectives)
    yield from same_tokens(tokenizer, student.tokenizer, by_token=by_token)
    rows = fitting(probe.examples, student.tokenizer, student.model, model)
    if (long := len(probe.examples) - len(rows)) > 0:
        yield Finding(
            "length", "warning", f"{long} of {len(probe.examples)} rows do not fit teacher and student and are left out"
        )
    if fingerprint(tokenizer) == fingerprint(student.tokenizer):
        yield from compared(model, student.model, tokenizer, rows, answered_by=probe.answered_by, objectives=objectives)
    yield from _answers(recipe, loaded, probe)
    yield from _took(recipe, loaded, probe, rows, student, model, folder)


def _took(
    recipe: Recipe, loaded: Loaded, probe: Probe, rows: Any, student: Any, teacher: Any, folder: Path
) -> Iterator[Finding]:
    if recipe.train:
        count, _ = seeds_seen(recipe.knowledge[probe.branch], loaded.folder, "knowledge", None)
        yield from forecast(recipe, rows, count, student.model, teacher, student.tokenizer, folder)


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
