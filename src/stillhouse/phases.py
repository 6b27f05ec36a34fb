"""One phase of a recipe's training, from names to what the trainer takes: terms, rollouts, the reference model."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stillhouse.check import judges
from stillhouse.errors import RunFailed
from stillhouse.recipe import REFERENCE, ObjectiveEntry, Phase, Recipe, RewardEntry
from stillhouse.records import Example, Lost
from stillhouse.resolve import load
from stillhouse.steps import Knowledge, Teachers, student_path

OBJECTIVES = "objectives.pt"  # what a phase's objectives with parameters of their own learned


def asked_in(phase: Phase) -> set[str]:
    """Every teacher that has a say in a phase: beside the student, in its sampling, or as a judge of its answers."""
    found = {name for entry in phase.objectives for name in entry.teachers}
    if phase.rollouts is not None:
        reward = phase.rollouts.reward or {}
        found |= {name for name in (phase.rollouts.teacher, reward.get("teacher")) if name}
    return found


def reward_models(phase: Phase) -> list[Path]:
    """Folders of the models that a phase's reward is read from."""
    reward = (phase.rollouts.reward or {}) if phase.rollouts is not None else {}
    told = [Path(reward[key]) for key in ("path", "requests_path") if reward.get(key)]
    return [path / "student" if (path / "student").is_dir() else path for path in told]


@dataclass(frozen=True, slots=True)
class Parts:
    """Makes the parts of `phase`. `knowledge` binds knobs; `earlier` is the folder of the phase before, if it goes on."""

    phase: Phase
    recipe: Recipe
    folder: Path
    knowledge: Knowledge
    teachers: Teachers
    seed: int
    earlier: Path | None = None

    def named(self) -> set[str]:
        """The teachers that stand beside the student."""
        found = {name for entry in self.phase.objectives for name in entry.teachers} - {REFERENCE}
        rollouts = self.phase.rollouts
        return found | ({rollouts.teacher} if rollouts is not None and rollouts.teacher else set())

    def student(self, start: str, data: Callable[[str], Sequence[Any]]) -> Any:
        """What this phase starts from: pruned where it is the base, made to round where it learns to be quantised.

        `data` gives the records of a branch.
        """
        from stillhouse.train.student import load_student

        told = self.recipe.student
        assert told is not None

        def adapt(model: Any, tokenizer: Any) -> Any:
            from stillhouse.train.experts import with_experts
            from stillhouse.train.prune import prune
            from stillhouse.train.quantise import quantise

            if told.prune is not None and start == student_path(told.model):
                prune(model, _rows(tokenizer, data(told.prune.on), told.prune.examples), sizes=told.prune.sizes)
            if told.quantise is not None:
                quantise(model, **told.quantise.model_dump())
            return (
                with_experts(model, **told.experts.model_dump(), seed=self.seed) if told.experts is not None else model
            )

        return load_student(
            start, kind=told.kind, lora=told.lora, labels=told.labels, dtype=told.dtype, seed=self.seed, adapt=adapt,
            pooling=told.pooling,
        )  # fmt: skip

    def terms(self, student: Any) -> list[Any]:
        """The summands of the loss; objectives that are modules are made to fit the student and its teacher."""
        return [self._term(entry, student) for entry in self.phase.objectives]

    def _term(self, entry: ObjectiveEntry, student: Any) -> Any:
        from stillhouse.train.trainer import Term

        objective: Any = load("objectives", entry.do, folder=self.folder, where="train.objectives")
        knobs = self.knobs(entry.knobs, "train.objectives")
        term = Term(
            entry.do, objective, entry.on, entry.weight, knobs, entry.teacher, entry.weight_column, entry.layers,
            entry.score_column, entry.route, entry.relations, entry.align,
        )  # fmt: skip
        return term if not inspect.isclass(objective) else self._made(term, objective, student)

    def _made(self, term: Any, module: Any, student: Any) -> Any:
        from dataclasses import replace

        import torch

        knobs = dict(term.knobs)
        known = inspect.signature(module).parameters
        for name, size in self._sizes(term, student).items():
            if name in known:
                knobs.setdefault(name, size)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            made = module(**knobs)
        if self.earlier is not None and (self.earlier / OBJECTIVES).is_file():
            learned = torch.load(self.earlier / OBJECTIVES, weights_only=True)
            if term.mark in learned:
                made.load_state_dict(learned[term.mark])
        return replace(term, objective=made, knobs={})

    def _sizes(self, term: Any, student: Any) -> dict[str, int]:
        own = student.model.config.get_text_config(decoder=True)
        sizes = {"student_width": own.hidden_size, "vocabulary": own.vocab_size}
        if term.teachers:
            first = term.teachers[0]
            other = own if first == REFERENCE else self.teachers.backend(first).module().config
            sizes["teacher_width"] = other.get_text_config(decoder=True).hidden_size
        return sizes

    def rollouts(self) -> Any:
        """How the student answers inside training; None where it does not."""
        from stillhouse.train.rollout import Adaptive, Rollouts

        if self.phase.rollouts is None:
            return None
        told = self.phase.rollouts.model_dump()
        if told["adaptive"] is not None:
            told["adaptive"] = Adaptive(**told["adaptive"])
        if told["reward"] is not None:
            entry = RewardEntry.model_validate(told["reward"])
            if judges(entry.do):
                told |= {"reward": None, "judge": self._judge(entry)}
            else:
                told["reward"] = self.knobs({"reward": told["reward"]}, "train.rollouts")["reward"]
        return Rollouts(**told)

    def _judge(self, entry: RewardEntry) -> Any:
        """Answers -> what the judge wrote into its column; several judgements of one answer are averaged."""
        bound = self.knowledge.bound("elicit", entry, "train.rollouts.reward")
        asked = () if entry.teacher is None else (self.teachers.ask(entry.teacher, entry.sampling, "train"),)
        return partial(_judged, bound, asked, entry.column)

    def reference(self, start: str) -> Any:
        """The model that `teacher: reference` means, where it is not the student as this phase gets it.

        The base student where a later phase is to be held against it; and the full-precision copy of a student that
        learns to be quantised.
        """
        from stillhouse.train.batch import SCORERS
        from stillhouse.train.student import load_student

        assert self.recipe.student is not None
        base = student_path(self.recipe.student.model)
        told = self.recipe.student
        if told.kind in SCORERS or REFERENCE not in self._references():
            return None
        changed = any(part is not None for part in (told.prune, told.quantise, told.experts))
        held = base if self.phase.reference == "base" else start
        return load_student(held, kind=told.kind, dtype=told.dtype).model if changed or start != held else None

    def _references(self) -> set[str]:
        """`reference`, where some objective holds the student against it: by name, or by the arrays it asks for."""
        from stillhouse.train.terms import needs_reference

        named = {name for entry in self.phase.objectives for name in entry.teachers}
        asked = [load("objectives", entry.do, folder=self.folder, where="train") for entry in self.phase.objectives]
        return named | ({REFERENCE} if any(map(needs_reference, asked)) else set())

    def knobs(self, values: Mapping[str, Any], where: str) -> dict[str, Any]:
        return {key: self.knowledge.knob(key, value, "", where) for key, value in values.items()}


def _rows(tokenizer: Any, records: Sequence[Any], number: int) -> list[list[int]]:
    """Token ids of the first records, as the student reads them."""
    from stillhouse.render import render

    found = []
    for at in range(min(number, len(records))):
        record = records[at]
        response = record.response if hasattr(record, "response") else record.responses[0]
        found.append(render(tokenizer, record.prompt, response).ids)
    return found


def _judged(
    judge: Callable[..., Any], asked: Sequence[Any], column: str, examples: Sequence[Example]
) -> list[float | None]:
    found: dict[str, list[float]] = {}
    for result in judge(examples, *asked):
        if isinstance(result, Lost):
            continue
        if doubt := result.columns.get("untrusted"):
            raise RunFailed(
                f"train.rollouts.reward: the judge is not to be trusted ({doubt}), and training would find out why; take "
                "another judge, or `untrusted: unchecked` if you know better"
            )
        if column not in result.columns:
            raise RunFailed(f"train.rollouts.reward: the judge wrote no column {column!r}; name the one it writes")
        found.setdefault(result.origin.parents[0], []).append(float(result.columns[column]))
    return [sum(found[e.id]) / len(found[e.id]) if e.id in found else None for e in examples]
