"""Trainings that could not be right, and those that are known to lose: said by `still check` before anything is spent."""

from collections.abc import Iterator, Mapping
from typing import Any

from stillhouse.errors import RecipeError, nearest
from stillhouse.recipe import EvaluateEntry, ObjectiveEntry, Phase, Recipe
from stillhouse.resolve import Signature

_MODE_SEEKING = ("divergence.reverse_kl", "divergence.total_variation", "divergence.jensen_shannon")
_TEACHES = ("supervised.", "divergence.forward_kl", "divergence.skew_forward_kl", "fusion.")
SMALL_BATCH = 8  # below it KTO's reference point is mostly noise
SMALL_RANK = 8  # an adapter of fewer ranks holds little of a teacher's distribution (P35)


def refuse_student(recipe: Recipe, where: str) -> None:
    """Raises RecipeError for students that cannot be made, or parts of one that exclude each other."""
    from stillhouse.train.batch import SCORERS

    student = recipe.student
    if student is None:
        return
    if student.pooling is not None and student.kind != "encoder":
        raise RecipeError(f"{where}student.pooling: only a student of kind encoder makes one vector of a text's states")
    if (student.kind == "classifier") != bool(student.labels):
        raise RecipeError(
            f"{where}student.labels: a student of kind classifier needs its classes, and no other takes any"
        )
    if student.quantise is not None and student.quantise.scale == "ternary" and student.quantise.bits != 2:
        raise RecipeError(f"{where}student.quantise.bits: ternary weights have two bits; write 2, or another scale")
    if student.experts is not None:
        beside = [name for name in ("lora", "quantise", "prune") if getattr(student, name) is not None]
        if beside or student.kind != "causal_lm" or student.experts.top > student.experts.number:
            raise RecipeError(
                f"{where}student.experts: a mixture of adapters is made of a causal_lm alone, with `top` within `number`; "
                f"leave out {' and '.join(beside) or 'the rest'}, or do that in a recipe of its own"
            )
    if student.quantise is not None and student.lora is not None:
        raise RecipeError(
            f"{where}student.quantise: the weights that learn to be rounded are the model's own, so `lora` has no place; "
            "leave out one of them (four bits under an adapter: `lora: {base: nf4}`)"
        )
    _refuse_lora(student.lora or {}, f"{where}student.lora")
    if student.prune is not None:
        if student.prune.on not in recipe.knowledge:
            raise RecipeError(
                f"{where}student.prune.on: no branch {student.prune.on!r}; {nearest(student.prune.on, recipe.knowledge)}"
            )
        if not student.prune.sizes:
            raise RecipeError(f"{where}student.prune: say what is left: layers, hidden, intermediate or heads")
        if student.kind != "causal_lm":
            raise RecipeError(f"{where}student.prune: only a causal_lm is cut; prune it in a recipe of its own first")
    if student.kind in SCORERS and recipe.rounds.most > 1:
        raise RecipeError(
            f"{where}rounds: a student of kind {student.kind} writes nothing that a round could begin with"
        )
    if student.kind == "seq2seq" and any(phase.rollouts and phase.rollouts.teacher for phase in recipe.train):
        raise RecipeError(
            f"{where}train.rollouts.teacher: a teacher takes part in sampling of a causal_lm only; let the student answer alone"
        )
    if student.kind in SCORERS and any(phase.rollouts for phase in recipe.train):
        raise RecipeError(f"{where}train.rollouts: a student of kind {student.kind} writes nothing; leave them out")


def _refuse_lora(knobs: Mapping[str, Any], where: str) -> None:
    from stillhouse.train.student import BASE, LORA_KNOBS

    for name, value in knobs.items():
        if name not in (*LORA_KNOBS, BASE):
            raise RecipeError(f"{where}: no knob {name!r}; {nearest(name, (*LORA_KNOBS, BASE))}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if name == "rank" and not (isinstance(value, int) and number and value > 0):
            raise RecipeError(f"{where}.rank: must be a whole number above 0, not {value!r}")
        if (name == "alpha" and not number) or (name == "dropout" and not (number and 0 <= value < 1)):
            raise RecipeError(
                f"{where}.{name}: must be a number{' from 0 to below 1' * (name == 'dropout')}, not {value!r}"
            )
        if name == BASE and value != "nf4":
            raise RecipeError(f"{where}.{BASE}: {value!r}; write nf4 (four bits a weight), or leave it out")


def refuse_task(found: Signature, entry: EvaluateEntry, recipe: Recipe, where: str) -> None:
    """Raises RecipeError where a student that scores is asked to write, or one that writes to score."""
    from stillhouse.train.batch import WRITERS

    if recipe.student is None:
        return
    kind, scores = recipe.student.kind, bool({"scorer", "embedder"} & set(found.inputs))
    if "verifier" in found.inputs:
        if kind in ("classifier", "encoder"):
            raise RecipeError(f"{where}: {entry.do} needs a student that writes, or one of kind reward; not {kind}")
        if entry.teacher is not None or (kind not in WRITERS and entry.may_lose is not None):
            raise RecipeError(f"{where}: {entry.do} is asked of students alone; leave out `teacher` (and `may_lose`)")
        return
    if kind == "encoder" or "embedder" in found.inputs:
        if kind != "encoder" or "embedder" not in found.inputs:
            able = "retrieval" if kind == "encoder" else "qa, scored.pairs or scored.labels, by its kind"
            raise RecipeError(f"{where}: {entry.do} cannot be asked of a student of kind {kind}; use {able}")
        if entry.teacher is not None:
            raise RecipeError(f"{where}: a teacher that is held against the student writes; leave out `teacher`")
        return
    if kind == "seq2seq" and "student" in found.inputs:
        raise RecipeError(f"{where}: {entry.do} reads plain text, which an encoder-decoder cannot; use qa")
    if scores == (kind in WRITERS):
        able = "qa, language_model" if scores else "scored.pairs, scored.labels"
        raise RecipeError(f"{where}: {entry.do} cannot be asked of a student of kind {kind}; use one of {able}")
    if kind not in WRITERS and (entry.teacher is not None or entry.may_lose is not None):
        raise RecipeError(f"{where}: a scoring student stands alone; leave out `teacher` and `may_lose`")


def refuse_phase(found: list[tuple[ObjectiveEntry, Signature]], number: int, recipe: Recipe, where: str) -> None:
    """Raises RecipeError for objectives that mean nothing under the settings of their phase."""
    from stillhouse.train.batch import AS_ONE
    from stillhouse.train.rollout import Adaptive, Rollouts
    from stillhouse.train.terms import check_rollouts

    phase = recipe.train[number]
    rollouts = None
    if phase.rollouts is not None:
        told = {**phase.rollouts.model_dump(), "reward": _nothing if phase.rollouts.reward else None}
        told["adaptive"] = Adaptive(**told["adaptive"]) if told["adaptive"] else None
        rollouts = Rollouts(**told)
    for at, (entry, objective) in enumerate(found):
        place = f"{where}.objectives[{at}]"
        wants = set(objective.inputs)
        accumulates = int(phase.args.get("gradient_accumulation_steps", 1)) > 1
        if accumulates and AS_ONE & wants:
            raise RecipeError(
                f"{place}: {entry.do} compares what a batch holds as one set and cannot be cut into micro-batches; "
                "set gradient_accumulation_steps to 1"
            )
        if entry.do == "similarity.task_aware" and entry.knobs.get("stage") == 2:
            _refuse_stage_two(entry, number, recipe, place)
        if entry.on == "rollouts" and rollouts is not None:
            check_rollouts(entry.do, objective.inputs, rollouts)


def _refuse_stage_two(entry: ObjectiveEntry, number: int, recipe: Recipe, where: str) -> None:
    before = recipe.train[number - 1].objectives if number and recipe.train[number].init == "previous" else []
    filters = [each for each in before if each.do == entry.do and each.layers == entry.layers]
    if not filters:
        raise RecipeError(
            f"{where}: stage 2 of {entry.do} needs the filters that stage 1 learned; put a phase before this one with "
            f"{{do: {entry.do}, stage: 1, layers: {list(entry.layers)}}}"
        )


def _nothing(*_: Any) -> list[Any]:
    raise AssertionError("only its presence is looked at")


def warnings(recipe: Recipe, where: str) -> Iterator[str]:
    """What can be run and is known, by measurement, to be worse than something as easy."""
    for number, phase in enumerate(recipe.train):
        at = f"{where}train[{number}]" if len(recipe.train) > 1 else f"{where}train"
        yield from _of_phase(phase, number, recipe, at)
    student = recipe.student
    if student is None or not recipe.train:
        return
    taught = any(entry.teachers for phase in recipe.train for entry in phase.objectives)
    if student.prune is not None and not taught:
        yield f"{where}student.prune: a pruned student recovers best from the model it was cut from; name it as a teacher"
    if student.lora is not None and taught and int(student.lora.get("rank", 16)) < SMALL_RANK:
        yield f"{where}student.lora.rank: below {SMALL_RANK} an adapter holds little of a teacher's distribution (P35)"


def _of_phase(phase: Phase, number: int, recipe: Recipe, where: str) -> Iterator[str]:
    named = [entry.do for entry in phase.objectives]
    settled = number > 0 or any(name.startswith(_TEACHES) for name in named)
    for entry in phase.objectives:
        if entry.do in _MODE_SEEKING and entry.on != "rollouts" and not settled:
            yield (
                f"{where}: {entry.do} from a start that does not yet speak lost even to plain text where it was measured "
                "(4.2 to 5.0 nats against 3.9); begin with a phase of divergence.forward_kl, or learn from rollouts"
            )
        if entry.do == "ranking.kto" and int(phase.args.get("per_device_train_batch_size", 8)) < SMALL_BATCH:
            yield f"{where}: ranking.kto measures its reference point on the batch; give it {SMALL_BATCH} or more"
        if entry.align == "count" and entry.do != "divergence.universal_logit":
            yield f"{where}: positions counted from the first token (align: count) mean little to {entry.do}; use bytes"
        if entry.do == "supervised.cross_entropy" and entry.on == "rollouts":
            yield f"{where}: {entry.do} learns only the records' own answers of the rollouts, never the student's"
