"""Everything about a recipe that can be refused before anything is spent, and the plan of what would be done.

What a function needs and may be told is its own signature (`resolve.py`); this file only compares. Nothing is loaded but
the functions' sources, the first rows of the seeds, and the tokenizers of local models.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from stillhouse.errors import RecipeError, nearest
from stillhouse.recipe import (
    Branch,
    Entry,
    Loaded,
    ObjectiveEntry,
    Phase,
    Recipe,
    RewardEntry,
    RolloutsEntry,
    TeacherEntry,
)
from stillhouse.records import Lost
from stillhouse.resolve import Signature, backend_signature, backends, import_file, names, signature
from stillhouse.soundness import refuse_phase, refuse_student, refuse_task, warnings

RECORD_KINDS = ("Seed", "Example", "TopLogprobs", "StoredSignal", "Ranking", "Trajectory")
# the protocol that annotates an elicitor's `teacher` -> the capability a backend must state
CAPABILITY = {"Generates": "generate", "Scores": "top_logprobs", "Reveals": "logits"}
MEANING = {
    "generate": "answer prompts",
    "top_logprobs": "tell log-probs of given text",
    "logits": "give its logits (a local model)",
}
SIMPLE_TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}
REFERENCE = "reference"  # `teacher: reference` of an objective means the student as it was before training
STUDENT = "student"  # `teacher: student` means the student as the round begins; the base student in the first
BASE_STUDENT = "base_student"  # `teacher: base_student` means the student before any training, in every round


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do: per branch the rows and the requests to each teacher; per arm the training."""

    name: str
    branches: list[dict[str, Any]] = field(default_factory=list)
    arms: list[dict[str, Any]] = field(default_factory=list)
    teachers: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


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
        plan.arms.append(_arm_plan(arm, recipe))
        seen |= gives
    _final(loaded)
    plan.teachers.extend(_teacher_plan(name, entry) for name, entry in loaded.recipe.teachers.items())
    for name, branch in loaded.recipe.knowledge.items():
        plan.branches.append(_branch_plan(name, branch, loaded, limit, seen.get(name, "")))
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
            held = _ends_with(branch, folder, (_kinds(seeds.returns) or ["Seed"])[-1])
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
    held = (_kinds(found.returns) or ["Seed"])[-1]
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
    return held


def _follows(found: Signature, held: str, where: str) -> str:
    """The kind of record after a step; refuses a step that cannot read what the one before it gives."""
    first = found.annotations.get(found.inputs[0], "") if found.inputs else ""
    wanted = _kinds(first)
    if wanted and held not in wanted:
        raise RecipeError(
            f"{where}: {found.name} reads {' or '.join(wanted)}, but the step before it gives {held}; reorder the steps"
        )
    given = _kinds(found.returns)
    return given[-1] if given and "tuple" not in found.returns else held


def _kinds(annotation: str) -> list[str]:
    words = re.findall(r"\w+", annotation)
    if "Record" in words:
        return []
    return [word for word in words if word in RECORD_KINDS]


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


def require(name: str, capability: str, recipe: Recipe, where: str) -> None:
    """Refuses a teacher that is not there or that cannot do what is needed, as its backend states it."""
    if name in (STUDENT, BASE_STUDENT):
        if recipe.student is None:
            raise RecipeError(f"{where}: `teacher: {name}` needs a `student:`")
        return
    if name not in recipe.teachers:
        raise RecipeError(f"{where}: no teacher {name!r}; {nearest(name, [*recipe.teachers, STUDENT])}")
    backend = recipe.teachers[name].backend
    if capability not in capabilities(backend):
        able = [each for each in backends() if capability in capabilities(each)]
        raise RecipeError(
            f"{where}: teacher {name!r} (backend {backend}) cannot {MEANING[capability]}; backends that can: {', '.join(able)}"
        )


def capabilities(backend: str) -> frozenset[str]:
    """What a backend states about itself; its module imports nothing heavy."""
    return frozenset(import_file(backend_signature(backend, where="teachers").path).Teacher.capabilities)


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
            _comparable(found, name, recipe, at)
        if held in ("TopLogprobs", "StoredSignal"):
            for name in _believed(recipe.knowledge[entry.on], folder, at):
                _same_tokens(name, recipe, at)
            if not entry.teachers:
                _form_fits(found, stored_form(recipe.knowledge[entry.on], folder), entry.knobs, at)
    _arguments(phase.args, where)
    refuse_phase(seen, recipe.train.index(phase), recipe, where)


def _rollouts(rollouts: RolloutsEntry, recipe: Recipe, folder: Path, where: str) -> None:
    """A reward is a grader, or an elicitor whose judgement lies in a column; a teacher may take part in sampling."""
    if rollouts.teacher is not None:
        require(rollouts.teacher, "logits", recipe, f"{where}.teacher")
        _same_tokens(rollouts.teacher, recipe, f"{where}.teacher")
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


def _comparable(found: Signature, name: str, recipe: Recipe, where: str) -> None:
    """A teacher with another tokenizer can be compared by some objectives, and only by those."""
    from stillhouse.train.batch import TOKENWISE

    if TOKENWISE & set(found.inputs):
        _same_tokens(name, recipe, where)


def _believed(branch: Branch, folder: Path, where: str) -> list[str]:
    """The teachers whose beliefs a branch ends with."""
    told: list[str] = []
    for entry in branch.elicit:
        kinds = _kinds(signature("elicit", entry.do, folder=folder, where=where).returns)
        if {"TopLogprobs", "StoredSignal"} & set(kinds):
            told = [entry.teacher] if isinstance(entry.teacher, str) else list(entry.teacher or [])
    return told


# the forms of stored beliefs that an objective can read, by how it annotates `teacher_beliefs` (kernels.beliefs)
_READS = {"Beliefs": {"Dense", "TopK", "Sampled"}, "Distributions": {"Dense", "TopK"}, "Dense": {"Dense"}}
_ELICITED_BY = {"Dense": "hidden_states", "TopK": "top_k", "Sampled": "sampled_tokens"}


def stored_form(branch: Branch, folder: Path) -> str:
    """In which form the beliefs of a branch are stored: a class of kernels.beliefs, as its elicitor annotates it."""
    form = ""
    for entry in branch.elicit:
        words = re.findall(r"\w+", signature("elicit", entry.do, folder=folder, where="knowledge").returns)
        if "StoredSignal" in words:
            form = next((word for word in words if word in _ELICITED_BY), "")
        elif "TopLogprobs" in words:
            form = "TopK"
    return form


def _form_fits(found: Signature, form: str, knobs: Mapping[str, Any], where: str) -> None:
    """Refuses beliefs stored in a form that an objective cannot be right on."""
    reads = _READS.get(found.annotations.get("teacher_beliefs", ""), set(_ELICITED_BY))
    if form and form not in reads:
        able = " or ".join(f"feature.{_ELICITED_BY[each]}" for each in sorted(reads))
        raise RecipeError(
            f"{where}: {found.name} cannot be right on beliefs stored by feature.{_ELICITED_BY[form]}; elicit {able}"
            + (", or use divergence.forward_kl" if form == "Sampled" else "")
        )
    if form in ("TopK", "Sampled") and float(knobs.get("temperature", 1.0)) != 1.0:
        raise RecipeError(
            f"{where}.temperature: beliefs stored by feature.{_ELICITED_BY[form]} are of temperature 1 and cannot be "
            "tempered; leave it out, or elicit feature.hidden_states"
        )


def _same_tokens(name: str, recipe: Recipe, where: str) -> None:
    """Beliefs are about tokens: refuses a teacher and a student that cut text differently, where both lie on this disk."""
    if recipe.student is None or name in (STUDENT, BASE_STUDENT, REFERENCE):
        return
    theirs, ours = _teacher_folder(recipe.teachers[name]), _student_folder(recipe.student.model)
    if theirs is None or ours is None or tokenizer_of(theirs) == tokenizer_of(ours):
        return
    raise RecipeError(
        f"{where}: teacher {name!r} and the student cut text with different tokenizers, so their distributions cannot be "
        "compared token by token; take a student of the teacher's family, an objective that aligns text (a divergence, "
        "cross_tokenizer.*), or learn from the teacher's text alone"
    )


def _teacher_folder(entry: TeacherEntry) -> Path | None:
    """Where a teacher's tokenizer can be read without loading or fetching anything."""
    from stillhouse.pocket import teacher_path

    if entry.backend == "pocket":
        return teacher_path()
    if entry.backend == "run":
        return _folder(str(Path(str(entry.knobs["path"])) / "student"))
    return _folder(str(entry.knobs.get("model", "")))


def _student_folder(model: str) -> Path | None:
    from stillhouse.pocket import student_path

    return student_path() if model == "pocket" else _folder(model)


def _folder(name: str) -> Path | None:
    return Path(name) if name and (Path(name) / "config.json").is_file() else None


@lru_cache(maxsize=16)
def tokenizer_of(folder: Path) -> str:
    """The fingerprint of a local model's tokenizer."""
    from transformers import AutoTokenizer

    from stillhouse.render import fingerprint

    try:
        return fingerprint(AutoTokenizer.from_pretrained(folder))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{folder}: its tokenizer cannot be loaded: {str(error).strip().splitlines()[0]}") from error


def _arrays(found: Signature, held: str, entry: ObjectiveEntry, phase: Phase, recipe: Recipe, where: str) -> None:
    """Refuses an objective that asks for arrays which nobody gives."""
    from stillhouse.train.batch import provided
    from stillhouse.train.terms import lacking

    for name in entry.teachers:
        if name != REFERENCE:
            require(name, "logits", recipe, where)
    kind = recipe.student.kind if recipe.student else "causal_lm"
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


def check_sampling(sampling: Mapping[str, Any], where: str) -> None:
    from stillhouse.teachers.base import Sampling

    known = list(Sampling.__dataclass_fields__)
    for key, value in sampling.items():
        if key not in known:
            raise RecipeError(f"{where}: unknown key {key!r}; {nearest(key, known)}")
        if key in ("temperature", "top_p") and not isinstance(value, (int, float)):
            raise RecipeError(f"{where}.{key}: must be a number, not {value!r}")
        if key in ("n", "max_tokens") and (not isinstance(value, int) or value < 1):
            raise RecipeError(f"{where}.{key}: must be a whole number above 0, not {value!r}")


def check_knobs(found: Signature, knobs: Mapping[str, Any], where: str, folder: Path) -> None:
    """Compares what the recipe says with the signature: unknown, missing, of the wrong simple type; nested names too."""
    for name, value in knobs.items():
        if name not in found.knobs:
            raise RecipeError(f"{where}: {found.name} has no knob {name!r}; {nearest(name, found.knobs)}")
        _simple_type(found.annotations.get(name, ""), value, f"{where}.{name}")
        for at, inner in nested(name, value, where):
            kind = nested_kind(name)
            check_knobs(signature(kind, inner.do, folder=folder, where=at), inner.knobs, at, folder)
    missing = sorted(found.required - set(knobs))
    if missing:
        raise RecipeError(f"{where}: {found.name} needs {', '.join(missing)}")


def _simple_type(annotation: str, value: Any, where: str) -> None:
    allowed = [part.strip() for part in annotation.split("|")]
    if not all(part in SIMPLE_TYPES or part == "None" for part in allowed) or annotation == "":
        return
    if value is None and "None" in allowed:
        return
    kinds = tuple(kind for part in allowed for kind in SIMPLE_TYPES.get(part, ()))
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise RecipeError(f"{where}: must be {annotation}, not {value!r}")


def nested(name: str, value: Any, where: str) -> Iterator[tuple[str, Entry]]:
    """Knobs that are functions themselves: `grader: {do: math.equal}`, or a list of such."""
    values = value if isinstance(value, list) else [value]
    for number, each in enumerate(values):
        if isinstance(each, Mapping) and "do" in each:
            at = f"{where}.{name}[{number}]" if isinstance(value, list) else f"{where}.{name}"
            yield at, Entry.model_validate(each)


def nested_kind(knob: str) -> str:
    """The kind of name a knob holds, by the knob's own name: graders, unless it says selector or elicitor."""
    kinds = {"selector": "select", "elicitor": "elicit", "divergence": "objectives", "distance": "objectives"}
    return kinds.get(knob.rstrip("s"), "graders")


def _teacher_plan(name: str, entry: TeacherEntry) -> dict[str, Any]:
    return {
        "name": name,
        "backend": entry.backend,
        **{key: entry.knobs[key] for key in ("model", "base_url", "transport") if key in entry.knobs},
    }


def _arm_plan(arm: str, recipe: Recipe) -> dict[str, Any]:
    objectives = [entry.do for phase in recipe.train for entry in phase.objectives]
    told = {"arm": arm, "phases": len(recipe.train), "objectives": objectives, "repeats": recipe.repeats}
    return told | ({"rounds": recipe.rounds.most} if recipe.rounds.most > 1 else {})


def _branch_plan(name: str, branch: Branch, loaded: Loaded, limit: int | None, kind: str) -> dict[str, Any]:
    rows, chars = seeds_seen(branch, loaded.folder, f"knowledge.{name}.seeds", limit)
    requests: dict[str, int] = {}
    for entry in branch.elicit:
        for teacher in [entry.teacher] if isinstance(entry.teacher, str) else entry.teacher or []:
            declared = loaded.recipe.teachers.get(teacher)
            default = declared.sampling.get("n", 1) if declared else 1
            requests[teacher] = requests.get(teacher, 0) + rows * int(entry.sampling.get("n", default))
    return {"branch": name, "seeds": rows, "prompt_chars": chars, "requests": requests, "gives": kind}


def seeds_seen(branch: Branch, folder: Path, where: str, limit: int | None) -> tuple[int, int]:
    """How many seeds a local source holds and how many characters their prompts have; every row is read, none is held."""
    from stillhouse.resolve import load

    if branch.seeds.do == "hub":
        return limit or int(branch.seeds.knobs.get("limit") or 0), 0
    rows = chars = 0
    for seed in load("seeds", branch.seeds.do, folder=folder, where=where)(**branch.seeds.knobs):
        if isinstance(seed, Lost):
            continue
        rows += 1
        chars += sum(len(message.content) for message in seed.prompt) or len(getattr(seed, "response", ""))
        if limit is not None and rows >= limit:
            break
    return rows, chars
