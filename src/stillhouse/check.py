"""Everything about a recipe that can be refused before anything is spent.

What a function needs and may be told is its own signature (`resolve.py`); this file only compares. Nothing is loaded but
the functions' sources, the first rows of the seeds, and the tokenizers of local models.
"""

import re
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stillhouse.errors import RecipeError, nearest
from stillhouse.knobs import check_knobs, check_sampling, nested
from stillhouse.matching import (
    CAPABILITY,
    believed,
    comparable,
    form_fits,
    record_kinds,
    require,
    same_tokens,
    stored_form,
)
from stillhouse.plan import Plan, of_arm, of_branch, of_teacher
from stillhouse.recipe import (
    BASE_STUDENT,
    REFERENCE,
    STUDENT,
    Branch,
    Loaded,
    ObjectiveEntry,
    Phase,
    Recipe,
    RewardEntry,
    RolloutsEntry,
    SelectEntry,
)
from stillhouse.resolve import PACKAGE, Signature, backend_signature, load, names, signature
from stillhouse.soundness import refuse_phase, refuse_student, refuse_task, warnings

LOADED = ("model",)  # knobs of selectors that name something heavy


def check(loaded: Loaded, *, limit: int | None = None) -> Plan:
    """Raises `RecipeError` for the first thing that cannot be right; returns the plan otherwise."""
    plan = Plan(loaded.recipe.name)
    seen: dict[str, str] = {}
    for arm, recipe in loaded.arms().items():
        where = f"arms.{arm}." if loaded.recipe.arms else ""
        _teachers(recipe, loaded.folder, where)
        gives = {name: _branch(name, branch, recipe, loaded.folder, where) for name, branch in recipe.knowledge.items()}
        for number, phase in enumerate(recipe.train):
            _phase(
                phase,
                f"{where}train[{number}]" if len(recipe.train) > 1 else f"{where}train",
                gives,
                recipe,
                loaded.folder,
            )
        _evaluate(recipe, loaded.folder, where)
        _rounds(recipe, loaded.folder, where)
        _student(recipe, loaded.folder, where)
        plan.warnings.extend(warning for warning in warnings(recipe, where) if warning not in plan.warnings)
        plan.arms.append(of_arm(arm, recipe))
        seen |= gives
    _final(loaded)
    plan.teachers.extend(of_teacher(name, entry) for name, entry in loaded.recipe.teachers.items())
    for name, branch in loaded.recipe.knowledge.items():
        plan.branches.append(of_branch(name, branch, loaded, limit, seen.get(name, "")))
    return plan


def _rounds(recipe: Recipe, folder: Path, where: str) -> None:
    """What is topped up has a goal; a later round has something to go on from: a student that learned, or rows carried on."""
    for name, branch in recipe.knowledge.items():
        if branch.attempts is not None and branch.keep is None:
            raise RecipeError(
                f"{where}knowledge.{name}.attempts: it bounds `keep`, which is not given; write `keep: N` too"
            )
    if recipe.rounds.most == 1:
        for name, branch in recipe.knowledge.items():
            if branch.carry != "seeds":
                raise RecipeError(
                    f"{where}knowledge.{name}.carry: there is one round only; write `rounds: {{most: 3}}`"
                )
        return
    for name, branch in recipe.knowledge.items():
        if branch.carry == "last" or (branch.carry == "pool" and branch.elicit):
            first = signature("elicit", branch.elicit[0].do, folder=folder, where=where) if branch.elicit else None
            seeds = signature("seeds", branch.seeds.do, folder=folder, where=where)
            held = _ends_with(branch, folder, (record_kinds(seeds.returns) or ["Seed"])[-1])
            if first is not None:
                _follows(first, held, f"{where}knowledge.{name}.carry ({branch.carry}) brings {held} rows to elicit[0]")
    carried = any(branch.carry != "seeds" for branch in recipe.knowledge.values())
    if not carried and not (recipe.train and any(asks_student(branch) for branch in recipe.knowledge.values())):
        raise RecipeError(
            f"{where}rounds: every round would make the same rows; ask `teacher: student` in a branch and train it, or "
            "write `carry: pool` or `carry: last` on a branch"
        )
    if recipe.rounds.stop.gain is not None and not recipe.evaluate:
        raise RecipeError(f"{where}rounds.stop.gain: there is nothing to gain on; add an `evaluate:` task or remove it")


def asks_student(branch: Branch) -> bool:
    """Whether a branch asks the student that rounds train."""
    named = (entry.teacher for entry in branch.elicit)
    return any(STUDENT in ([each] if isinstance(each, str) else each or []) for each in named)


def _ends_with(branch: Branch, folder: Path, held: str) -> str:
    for entry in branch.elicit:
        held = _follows(signature("elicit", entry.do, folder=folder, where="knowledge"), held, "knowledge")
    return held


def _teachers(recipe: Recipe, folder: Path, where: str) -> None:
    for reserved in (STUDENT, BASE_STUDENT):
        if reserved in recipe.teachers:
            raise RecipeError(f"{where}teachers.{reserved}: this name means the recipe's own student; choose another")
    for name, entry in recipe.teachers.items():
        place = f"{where}teachers.{name}"
        check_knobs(backend_signature(entry.backend, where=place), entry.knobs, place, folder)
        check_sampling(entry.sampling, f"{place}.sampling")


def _branch(name: str, branch: Branch, recipe: Recipe, folder: Path, where: str) -> str:
    """The kind of record that a branch ends with, after every name, knob and order in it was compared."""
    place = f"{where}knowledge.{name}"
    found = signature("seeds", branch.seeds.do, folder=folder, where=f"{place}.seeds")
    check_knobs(found, branch.seeds.knobs, f"{place}.seeds", folder)
    held = (record_kinds(found.returns) or ["Seed"])[-1]
    for number, entry in enumerate(branch.elicit):
        at = f"{place}.elicit[{number}]"
        found = signature("elicit", entry.do, folder=folder, where=at)
        check_knobs(found, entry.knobs, at, folder)
        check_sampling(entry.sampling, f"{at}.sampling")
        held = _follows(found, held, at)
        _teacher_fits(found, entry.teacher, recipe, at)
    for number, chosen in enumerate(branch.select):
        at = f"{place}.select[{number}]"
        found = signature("select", chosen.do, folder=folder, where=at)
        check_knobs(found, chosen.knobs, at, folder)
        _follows(found, held, at)
        _tried(found, chosen, folder, at)
    return held


def _tried(found: Signature, entry: SelectEntry, folder: Path, where: str) -> None:
    """A shipped selector looks at its knobs and files when it begins: it is begun here, without rows.

    Not those that load a model or run another function, nor a user's own: nothing is loaded by a check.
    """
    if found.path.is_relative_to(PACKAGE) and not any(
        name in LOADED or (isinstance(value, Mapping | list) and dict(nested(name, value, where)))
        for name, value in entry.knobs.items()
    ):
        try:
            deque(load("select", entry.do, folder=folder, where=where)([], **entry.knobs), maxlen=0)
        except RecipeError as error:
            raise RecipeError(f"{where}: {error}") from None


def _follows(found: Signature, held: str, where: str) -> str:
    """The kind of record after a step; refuses a step that cannot read what the one before it gives."""
    first = found.annotations.get(found.inputs[0], "") if found.inputs else ""
    wanted = record_kinds(first)
    if wanted and held not in wanted:
        raise RecipeError(
            f"{where}: {found.name} reads {' or '.join(wanted)}, but the step before it gives {held}; reorder the steps"
        )
    given = record_kinds(found.returns)
    return given[-1] if given and "tuple" not in found.returns else held


def _teacher_fits(found: Signature, names: str | list[str] | None, recipe: Recipe, where: str) -> None:
    if "teacher" not in found.inputs:
        if names:
            raise RecipeError(f"{where}: {found.name} asks no teacher; remove `teacher:`")
        return
    if not names:
        raise RecipeError(f"{where}: {found.name} needs `teacher:`; {nearest('', [*recipe.teachers, STUDENT])}")
    needed = [
        CAPABILITY[word] for word in re.findall(r"\w+", found.annotations.get("teacher", "")) if word in CAPABILITY
    ]
    for name in [names] if isinstance(names, str) else names:
        for capability in needed:
            require(name, capability, recipe, where)


def _phase(phase: Phase, where: str, gives: Mapping[str, str], recipe: Recipe, folder: Path) -> None:
    if phase.rollouts:
        _rollouts(phase.rollouts, recipe, folder, f"{where}.rollouts")
    if phase.rollouts and phase.rollouts.on not in gives:
        raise RecipeError(f"{where}.rollouts.on: no branch {phase.rollouts.on!r}; {nearest(phase.rollouts.on, gives)}")
    seen = []
    for number, entry in enumerate(phase.objectives):
        at = f"{where}.objectives[{number}]"
        found = signature("objectives", entry.do, folder=folder, where=at)
        seen.append((entry, found))
        check_knobs(found, entry.knobs, at, folder)
        known = [*gives, *(["rollouts"] if phase.rollouts else [])]
        if entry.on not in known:
            raise RecipeError(f"{at}.on: no branch {entry.on!r}; {nearest(entry.on, known)}")
        held = gives.get(entry.on, "rollouts")
        _arrays(found, held, entry, phase, recipe, at)
        for name in entry.teachers:
            comparable(found, name, recipe, at)
        if held in ("TopLogprobs", "StoredSignal"):
            for name in believed(recipe.knowledge[entry.on], folder, at):
                same_tokens(name, recipe, at)
            if not entry.teachers:
                form_fits(found, stored_form(recipe.knowledge[entry.on], folder), entry.knobs, at)
    _arguments(phase.args, where)
    refuse_phase(seen, recipe.train.index(phase), recipe, where)


def _rollouts(rollouts: RolloutsEntry, recipe: Recipe, folder: Path, where: str) -> None:
    """A reward is a grader, or an elicitor whose judgement lies in a column; a teacher may take part in sampling."""
    if rollouts.teacher is not None:
        require(rollouts.teacher, "logits", recipe, f"{where}.teacher")
        same_tokens(rollouts.teacher, recipe, f"{where}.teacher")
    if rollouts.reward is None:
        return
    for at, inner in nested("reward", rollouts.reward, where):
        judge = RewardEntry.model_validate(rollouts.reward)
        if not judges(judge.do):
            check_knobs(signature("graders", inner.do, folder=folder, where=at), inner.knobs, at, folder)
            continue
        found = signature("elicit", judge.do, folder=folder, where=at)
        check_knobs(found, judge.knobs, at, folder)
        check_sampling(judge.sampling, f"{at}.sampling")
        _teacher_fits(found, judge.teacher, recipe, at)
        if _follows(found, "Example", at) != "Example":
            raise RecipeError(
                f"{at}: {judge.do} gives no column for each answer; take one that rates, as feedback.rate"
            )


def judges(name: str) -> bool:
    """Whether a reward is what a teacher says (an elicitor), not what a grader finds."""
    return name in names("elicit")


def _arrays(found: Signature, held: str, entry: ObjectiveEntry, phase: Phase, recipe: Recipe, where: str) -> None:
    """Refuses an objective that asks for arrays which nobody gives."""
    from stillhouse.train.batch import provided
    from stillhouse.train.terms import lacking

    kind = recipe.student.kind if recipe.student else "causal_lm"
    for name in entry.teachers:
        if name != REFERENCE:
            require(name, "embed" if kind == "encoder" else "logits", recipe, where)
    rewarded = bool(phase.rollouts and phase.rollouts.reward)
    beside = bool(phase.rollouts and phase.rollouts.beside)
    offered = provided(held, kind=kind, teachers=len(entry.teachers), rewarded=rewarded, beside=beside)
    if missing := [name for name in found.inputs if name not in offered]:
        raise RecipeError(lacking(f"{where}: {found.name}", missing, held, kind))
    if "route_N" in found.inputs and entry.route is None:
        raise RecipeError(f"{where}.route: missing; name the column of the rows that holds the name of their teacher")


def _arguments(arguments: Mapping[str, Any], where: str) -> None:
    from stillhouse.train.settings import settings

    try:
        settings(arguments, Path("checkpoints"), 0)
    except RecipeError as error:
        raise RecipeError(str(error).replace("train.args", f"{where}.args", 1)) from None


def _evaluate(recipe: Recipe, folder: Path, where: str) -> None:
    for number, entry in enumerate(recipe.evaluate):
        at = f"{where}evaluate[{number}]"
        found = signature("evaluate", entry.do, folder=folder, where=at)
        check_knobs(found, entry.knobs, at, folder)
        refuse_task(found, entry, recipe, at)
        if entry.teacher is not None:
            require(entry.teacher, "generate", recipe, at)
    labels = [entry.label for entry in recipe.evaluate]
    for label in labels:
        if labels.count(label) > 1:
            raise RecipeError(f"{where}evaluate: two entries are called {label!r}; give each a `name:`")


def _student(recipe: Recipe, folder: Path, where: str) -> None:
    if recipe.train and recipe.student is None:
        raise RecipeError(
            f"{where}student: missing; `train:` needs a student, for example `student: {{model: pocket}}`"
        )
    refuse_student(recipe, where)
    if recipe.student is None or recipe.student.model == "pocket":
        return
    model = recipe.student.model
    inside = folder / Path(model).expanduser()
    if _looks_local(model) and not inside.is_dir():
        raise RecipeError(f"{where}student.model: {model!r} is no folder")
    if inside.is_dir() and not (inside / "config.json").is_file():
        raise RecipeError(
            f"{where}student.model: the folder {model!r} holds no model (no config.json); "
            "name a folder that from_pretrained loads, a model's name, or pocket"
        )


def _looks_local(model: str) -> bool:
    return model.startswith((".", "/", "~"))


def _final(loaded: Loaded) -> None:
    final, arms = loaded.recipe.final, loaded.arms()
    if final is not None and final.partition("/")[0] not in arms:
        raise RecipeError(f"final: no arm {final!r}; {nearest(final, arms)}")
