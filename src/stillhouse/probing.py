"""A few rows of a recipe's own data with its own teacher and student: what is measured before anything is trained."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from stillhouse.errors import RecipeError, nearest
from stillhouse.matching import capabilities
from stillhouse.recipe import Branch, Loaded, Recipe
from stillhouse.records import Example, Seed
from stillhouse.render import Reading, Rendered, reading_of
from stillhouse.resolve import load
from stillhouse.steps import Teachers, student_path
from stillhouse.teachers.forced import context

__all__ = ["Probe", "believed", "fitting", "probing", "read_by", "student_of"]


@dataclass(frozen=True, slots=True)
class Probe:
    """`examples` of `branch`: its texts as they are; else its `seeds` with the teacher's answer, or with their reference.

    `answered_by` says whose the responses are: "data", or the teacher's name. `backend` is None without a local teacher.
    """

    branch: str
    teacher: str
    backend: Any
    seeds: list[Seed]
    examples: list[Example]
    answered_by: str
    teachers: Teachers

    def answers(self, name: str, seeds: Sequence[Seed]) -> list[Example]:
        """What a teacher (or `base_student`) says to the bare prompts, greedily; stored like every answer."""
        if name == self.teacher and self.answered_by == name:
            return self.examples
        sampling = {} if name == self.teacher else self.teachers.sampling(self.teacher)
        return _answered(seeds, self.teachers.ask(name, {**sampling, "n": 1, "temperature": 0.0}))


@contextmanager
def probing(
    loaded: Loaded,
    *,
    arm: str | None = None,
    branch: str | None = None,
    teacher: str | None = None,
    rows: int = 64,
    local: bool = True,
) -> Iterator[Probe]:
    """By default the first arm. Raises RecipeError where the recipe has no such branch, no row, or (`local`) no teacher
    whose weights lie here.
    """
    from stillhouse.teachers.calls import Calls

    recipe = _of(loaded, arm)
    name = teacher or believed(recipe)
    place = branch or read_by(recipe, name)
    if place not in recipe.knowledge:
        raise RecipeError(f"--branch {place}: no such branch; {nearest(place, recipe.knowledge)}")
    able = name in recipe.teachers and "logits" in capabilities(recipe.teachers[name].backend)
    if local and not able:
        raise RecipeError(
            f"teacher {name or '(none)'}: its logits are needed; name a local one of the recipe with --teacher "
            "(backend: transformers, pocket or run)"
        )
    store = Path(recipe.store).expanduser() if recipe.store else None
    with Calls(store) as calls:
        teachers = Teachers(recipe, calls)
        seeds, texts = _rows(recipe.knowledge[place], loaded.folder, rows)
        examples, by = texts, "data"
        known = any(entry.do == "labeling.reference" for entry in recipe.knowledge[place].elicit)
        if not texts and able and not known:
            examples, by = _answered(seeds, teachers.ask(name, {"n": 1, "temperature": 0.0})), name
        if not examples:
            by, told = "data", [seed for seed in seeds if seed.reference]
            examples = [seed.answered(str(seed.reference), asked=seed.prompt, teacher="") for seed in told]
        if not examples:
            raise RecipeError(f"knowledge.{place}: there is no row to look at")
        yield Probe(place, name, teachers.backend(name) if able else None, seeds, examples, by, teachers)


def fitting(
    examples: Sequence[Example], tokenizer: Any, *models: Any, reading: Reading | None = None
) -> list[Rendered]:
    """The examples as the first of the models reads them, without those that are too long for one of the models."""
    room, reading = min(context(model) for model in models), reading or reading_of(models[0])
    rows = [reading.whole(tokenizer, one.prompt, one.response) for one in examples]
    fit = [row for row in rows if row.fits(room)]
    if not fit:
        raise RecipeError(f"none of the {len(rows)} rows looked at fits a context of {room} tokens; give shorter texts")
    return fit


def student_of(loaded: Loaded, arm: str | None = None, *, kinds: Sequence[str] = ("causal_lm",)) -> Any:
    """The student as an arm (the first one) starts from it (`train.student.Student`), None without one of these kinds."""
    from stillhouse.train.student import load_student

    entry = _of(loaded, arm).student
    if entry is None or entry.kind not in kinds:
        return None
    return load_student(
        student_path(entry.model), kind=entry.kind, labels=entry.labels, dtype=entry.dtype, pooling=entry.pooling
    )


def _of(loaded: Loaded, arm: str | None) -> Recipe:
    arms = loaded.arms()
    return next(iter(arms.values())) if arm is None else arms[arm]


def believed(recipe: Recipe) -> str:
    """The teacher whose beliefs are learned, else the first one that could show them, else none ("")."""
    named = [name for phase in recipe.train for entry in phase.objectives for name in entry.teachers]
    for branch in recipe.knowledge.values():
        named += _features(branch)
    named += list(recipe.teachers)
    able = (
        name for name in named if name in recipe.teachers and "logits" in capabilities(recipe.teachers[name].backend)
    )
    return next(able, "")


def read_by(recipe: Recipe, teacher: str) -> str:
    """The branch that is learned from with this teacher, else the first one."""
    for name, branch in recipe.knowledge.items():
        if teacher in _features(branch):
            return name
    for phase in recipe.train:
        for entry in phase.objectives:
            if teacher in entry.teachers and entry.on in recipe.knowledge:
                return entry.on
    return next(iter(recipe.knowledge))


def _features(branch: Branch) -> list[str]:
    """The teachers whose beliefs the branch elicits."""
    named = [entry.teacher for entry in branch.elicit if entry.do.startswith("feature.")]
    return [name for each in named for name in ([each] if isinstance(each, str) else each or [])]


def _rows(branch: Branch, folder: Path, rows: int) -> tuple[list[Seed], list[Example]]:
    source = load("seeds", branch.seeds.do, folder=folder, where="seeds")(**branch.seeds.knobs)
    found = list(islice(source, rows))
    return [each for each in found if isinstance(each, Seed)], [each for each in found if isinstance(each, Example)]


def _answered(seeds: Sequence[Seed], teacher: Any) -> list[Example]:
    from stillhouse.elicit.labeling import answer

    return [each for each in answer(seeds, teacher) if isinstance(each, Example)]
