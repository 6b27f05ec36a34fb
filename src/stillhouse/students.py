"""The students of a run: each arm trained once per repeat, in `students/<arm>/<seed>/[round-K/]` (Eq. 2).

A repeat gives every arm the same start, the same seed and so the same order of rows: arms are compared in pairs.
"""

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillhouse.errors import RecipeError
from stillhouse.files import replacing
from stillhouse.lines import dump_line
from stillhouse.phases import OBJECTIVES, Parts, asked_in, reward_models
from stillhouse.progress import Progress
from stillhouse.recipe import REFERENCE, Phase, Recipe, fingerprint
from stillhouse.resolve import PACKAGE
from stillhouse.steps import Data, Knowledge, Teachers, file_hash, student_path
from stillhouse.store import Records, read_json, read_stamp, write_json

_TRAINING_CODE = ("train", "objectives", "kernels", "signals", "render.py", "generate.py")


@dataclass(slots=True)
class Students:
    """Trains the arms of a run. `branches[arm][name]` is the data that an arm's branch of that name ended with.

    In rounds, `round` counts from 1 and `before` is the student that the round before left.
    """

    run: Path
    folder: Path
    progress: Progress
    branches: Mapping[str, Mapping[str, Data]]
    round: int = 0
    before: Data | None = None

    def train(self, arm: str, recipe: Recipe, seed: int, teachers: Teachers) -> dict[str, Any]:
        """Trains one student, or finds it trained. Returns its stamp: hash, seconds, tokens, where it lies."""
        home = self.run / "students" / arm / str(seed)
        home = home / f"round-{self.round}" if self.round else home
        new = self._hash(arm, recipe, seed, teachers)
        # a later round asks this student: the seconds in its stamp are no part of what it is
        stamp = home.with_name(f"{home.name}.stamp.json") if self.round else home / "stamp.json"
        if (found := read_stamp(stamp)) is not None and found["hash"] == new and home.is_dir():
            shutil.rmtree(home / "phases", ignore_errors=True)  # left where a kill came after the stamp
            return found
        self._make_room(home, new)
        start = self._start(arm, recipe, seed, teachers)
        started = time.monotonic()
        phases = [
            self._phase(arm, recipe, seed, number, phase, teachers, home) for number, phase in enumerate(recipe.train)
        ]
        record = {
            "hash": new,
            "arm": arm,
            "seed": seed,
            "phases": phases,
            "seconds": round(time.monotonic() - started, 3),
            "path": str(home.relative_to(self.run)),
            **({"start": start} if start else {}),
            "screening": teachers.watch.taken(),
        }
        write_json(stamp, record)
        shutil.rmtree(home / "phases")
        return record

    def _start(self, arm: str, recipe: Recipe, seed: int, teachers: Teachers) -> dict[str, str] | None:
        """The student as it is cut or rounded and has learned nothing: what training is to be held against. None where it is
        the model of the recipe, or where nothing is evaluated.
        """
        from stillhouse.train.student import save_student

        told = recipe.student
        assert told is not None
        if (told.prune is None and told.quantise is None) or self.round or not recipe.evaluate:
            return None
        home, model = self.run / "students" / arm / "start", student_path(told.model)
        parts = {
            "student": told.model_dump(),
            "model": file_hash(Path(model)) if Path(model).is_dir() else model,
            "data": self.branches[arm][told.prune.on].stamp if told.prune else "",
            "code": [file_hash(PACKAGE / name) for name in _TRAINING_CODE],
        }
        new = fingerprint(parts)
        if not home.is_dir() or (read_stamp(home / "stamp.json") or {}).get("hash") != new:
            shutil.rmtree(home, ignore_errors=True)
            knowledge = Knowledge(recipe, self.folder, self.run, teachers, self.progress)
            made = Parts(recipe.train[0], recipe, self.folder, knowledge, teachers, seed)
            save_student(made.student(model, lambda name: Records(self.branches[arm][name].path)), home)
            write_json(home / "stamp.json", {"hash": new})
        return {"hash": new, "path": str(home.relative_to(self.run))}

    def _hash(self, arm: str, recipe: Recipe, seed: int, teachers: Teachers) -> str:
        assert recipe.student is not None
        read = {entry.on for phase in recipe.train for entry in phase.objectives} - {"rollouts"}
        read |= {phase.rollouts.on for phase in recipe.train if phase.rollouts}
        read |= {recipe.student.prune.on} if recipe.student.prune else set()
        online = {name for phase in recipe.train for name in asked_in(phase)} - {REFERENCE}
        model = student_path(recipe.student.model)
        parts = {
            "data": {name: self.branches[arm][name].stamp for name in sorted(read)},
            "student": recipe.student.model_dump(),
            "start": file_hash(Path(model)) if Path(model).is_dir() else model,
            **({"before": self.before.stamp} if self.before else {}),
            "train": [phase.model_dump() for phase in recipe.train],
            "teachers": [teachers.describe(name) for name in sorted(online)],
            "rewards": [file_hash(path) for phase in recipe.train for path in reward_models(phase)],
            "seed": seed,
            "code": [file_hash(PACKAGE / name) for name in _TRAINING_CODE],
        }
        return fingerprint(parts)

    @staticmethod
    def _make_room(home: Path, new: str) -> None:
        """Checkpoints are continued only under the plan that made them; a trained student of another plan is replaced."""
        plan = home / "phases" / "plan"
        if home.exists() and not (plan.is_file() and plan.read_text() == new):
            shutil.rmtree(home)
        plan.parent.mkdir(parents=True, exist_ok=True)
        plan.write_text(new)

    def _phase(
        self, arm: str, recipe: Recipe, seed: int, number: int, phase: Phase, teachers: Teachers, home: Path
    ) -> dict[str, Any]:
        """One phase: loads what it starts from, trains, saves to the student's folder."""
        from stillhouse.train.student import save_student

        place = home / "phases" / str(number)
        done = place / "done.json"
        if done.is_file():
            return read_json(done)
        base = student_path(recipe.student.model)  # type: ignore[union-attr]
        first = str(self.before.path) if self.before else base
        previous = str(home / "phases" / str(number - 1) / "student") if number else first
        start = previous if phase.init == "previous" else base
        earlier = place.with_name(str(number - 1)) if number and phase.init == "previous" else None
        student, trained = self._fit(arm, recipe, seed, phase, teachers, start, place, earlier)
        last = number == len(recipe.train) - 1
        save_student(student, home if last else place / "student")
        record = {
            "steps": trained.steps,
            "input_tokens": trained.input_tokens,
            "target_tokens": trained.target_tokens,
            "seconds": round(trained.seconds, 3),
            "left_out": dict(Counter(lost.reason for lost in trained.left_out)),
            "final_loss": trained.history[-1]["loss"] if trained.history else None,
            **({"coverage": trained.coverage} if trained.coverage else {}),
        }
        self._log(arm, seed, max(self.round - 1, 0) * len(recipe.train) + number, trained.history)
        write_json(done, record)
        return record

    def _fit(
        self,
        arm: str,
        recipe: Recipe,
        seed: int,
        phase: Phase,
        teachers: Teachers,
        start: str,
        place: Path,
        earlier: Path | None,
    ) -> Any:
        import torch

        from stillhouse.train.trainer import train

        knowledge = Knowledge(recipe, self.folder, self.run, teachers, self.progress)
        parts = Parts(phase, recipe, self.folder, knowledge, teachers, seed, earlier)
        student = parts.student(start, lambda name: Records(self.branches[arm][name].path))
        names = {entry.on for entry in phase.objectives if entry.on != "rollouts"}
        names |= {phase.rollouts.on} if phase.rollouts else set()
        steps = phase.args.get("max_steps")
        with self.progress.task(f"train {arm}/{seed}", int(steps) if steps else None) as task:
            trained = train(
                student,
                parts.terms(student),
                {name: Records(self.branches[arm][name].path) for name in sorted(names)},
                teachers={name: teachers.backend(name) for name in sorted(parts.named())},
                arguments=phase.args,
                out=place / "checkpoints",
                seed=seed,
                rollouts=parts.rollouts(),
                reference=parts.reference(start),
                packing=phase.packing,
                max_length=phase.max_length,
                on_progress=lambda row: task.advance(row["step"] - task.done, note=f"loss {row['loss']:.4f}"),
            )
        if trained.objectives:
            torch.save(trained.objectives, place / OBJECTIVES)
        return student, trained

    def _log(self, arm: str, seed: int, phase: int, rows: list[dict[str, Any]]) -> None:
        """Adds a phase's rows to `metrics.jsonl`; what an earlier attempt at the same phase wrote is replaced."""
        path, kept = self.run / "metrics.jsonl", b""
        mark = {"arm": arm, "seed": seed, "phase": phase}
        if path.is_file():
            lines = path.read_bytes().splitlines(keepends=True)
            kept = b"".join(line for line in lines if not mark.items() <= json.loads(line).items())
        with replacing(path) as part:
            part.write_bytes(kept + b"".join(dump_line({**mark, **row}) for row in rows))


def choose_final(
    recipe: Recipe, students: list[dict[str, Any]], validation: Callable[[str, int], float]
) -> dict[str, Any]:
    """The student that lies in `student/`: the one `final:` names, else the best on the validation items (first on a tie)."""
    wanted, _, seed = (recipe.final or "").partition("/")
    found = [
        each for each in students if (not wanted or each["arm"] == wanted) and (not seed or str(each["seed"]) == seed)
    ]
    if not found:
        raise RecipeError(
            f"final: no student {recipe.final!r}; there are {', '.join(e['arm'] + '/' + str(e['seed']) for e in students)}"
        )
    if len(found) == 1:
        return found[0]
    return max(found, key=lambda each: validation(each["arm"], each["seed"]))
