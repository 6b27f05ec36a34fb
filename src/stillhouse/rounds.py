"""Rounds: knowledge and training in turn; each round reads what the one before it left (R01, R12, R21, R38, R39, J5).

Round K lies in `knowledge/<branch>/round-K/` and `students/<arm>/<seed>/round-K/`. Every step and student has its stamp, so a
run that stops in the middle of a round goes on there. A round's rows are looked at before they are trained on: a student
that learns from its own narrowing output gets worse with every round, so such a round ends the run with the student before.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from stillhouse.check import asks_student
from stillhouse.errors import GoalNotMet
from stillhouse.recipe import Branch, Loaded, Recipe, StopEntry, fingerprint
from stillhouse.records import Record
from stillhouse.selection.texts import responses, text_of
from stillhouse.selection.tokens import words
from stillhouse.steps import Data, Knowledge, Teachers
from stillhouse.store import Records, write_json
from stillhouse.students import Students

PAIRS_AT_ONCE = 500  # variety depends on how much is read: it is told for blocks of this many word pairs


@dataclass(frozen=True, slots=True)
class Health:
    """What is watched in a round's rows: share of slots kept, variety of word pairs, mean words of a text."""

    rows: int
    accepted: float
    distinct: float
    words: float


@dataclass(slots=True)
class Rounds:
    """The rounds of every arm and repeat of a run.

    `knowledge` makes the worker for one branch, `validated` tells the score of a student on the items set aside, `saved` takes
    the state after each round into the manifest.
    """

    loaded: Loaded
    run: Path
    knowledge: Callable[[Recipe, Teachers], Knowledge]
    teachers: Callable[[Recipe, Path | None], Teachers]
    students: Callable[[Mapping[str, Mapping[str, Data]]], Students]
    validated: Callable[[str, int, dict[str, Any] | None, int], float]
    before_training: Callable[[], None]
    timed: Callable[[str, Callable[[], Any]], Any]
    saved: Callable[["Rounds"], None]
    say: Callable[[str], None]
    steps: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    trained: list[dict[str, Any]] = field(default_factory=list)
    told: list[dict[str, Any]] = field(default_factory=list)

    def all(self) -> None:
        """Runs them. Raises `GoalNotMet` where the first round already keeps too little."""
        arms = self.loaded.arms()
        for repeat in range(self.loaded.recipe.repeats):
            for arm, recipe in arms.items():
                self._arm(arm, recipe, recipe.seed + repeat)
        self._sweep()

    def _arm(self, arm: str, recipe: Recipe, seed: int) -> None:
        ended: dict[str, Data] = {}
        pools: dict[str, Data] = {}
        student: dict[str, Any] | None = None
        first: Health | None = None
        score = self._score(recipe, arm, seed, None, 0)
        for number in range(1, recipe.rounds.most + 1):
            teachers = self.teachers(recipe, self.run / student["path"] if student else None)
            try:
                for name, branch in recipe.knowledge.items():
                    ended[name], pools[name] = self.timed(
                        "knowledge",
                        partial(self._branch, arm, recipe, seed, number, name, branch, ended, pools, teachers),
                    )
            except GoalNotMet as error:
                if number == 1 or any(branch.keep for branch in recipe.knowledge.values()):
                    raise
                self._ends(arm, seed, number, None, f"no rows: {error}")
                break
            health = self._health(arm, recipe, seed, number, ended)
            first = first or health
            if reason := fault(health, first, recipe.rounds.stop):
                self._ends(arm, seed, number, health, reason)
                if number == 1:
                    raise GoalNotMet(f"rounds: the first round of arm {arm} is not fit to learn from: {reason}")
                break
            self._tell(arm, seed, number, health)
            if recipe.train:
                learned = pools if recipe.rounds.learn == "all" else ended
                train = partial(self._train, arm, recipe, seed, number, learned, teachers, student)
                student, before = self.timed("train", train), student
                now = self._score(recipe, arm, seed, student, number)
                if score is not None and now is not None:
                    self.told[-1]["score"] = now
                    if number > 1 and now - score < (recipe.rounds.stop.gain or 0.0):
                        student = student if now >= score else before
                        self.told[-1]["stopped"] = f"held-out gain {now - score:+.3f}"
                        break
                    score = now
        if student is not None:
            self.trained.append(self._settled(arm, seed, student))
        self.saved(self)

    def _branch(
        self,
        arm: str,
        recipe: Recipe,
        seed: int,
        number: int,
        name: str,
        branch: Branch,
        ended: Mapping[str, Data],
        pools: Mapping[str, Data],
        teachers: Teachers,
    ) -> tuple[Data, Data]:
        """What the round's rows are, and the pool with them in it."""
        work = self.knowledge(recipe, teachers)
        work.last, work.pool = ended.get(name), pools.get(name)
        work.union = recipe.rounds.learn == "all" or branch.carry == "pool"
        work.drawn = self._drawn(arm, seed, number, name)
        place = self.place(arm, recipe, seed, name, branch)
        try:
            path = work.branch(name, branch, f"{place}/round-{number}")
        finally:
            self.steps |= {(step["branch"], step["step"]): step for step in work.steps}
            self.saved(self)
        made = Data(path, work.steps[-1]["hash"])
        if not work.union:
            return made, made
        before = work.steps[-2]
        return Data(path.parent.parent / before["step"] / path.name, before["hash"]), made

    def place(self, arm: str, recipe: Recipe, seed: int, name: str, branch: Branch) -> str:
        """Where a branch lies: arms and repeats share what none of their students had a part in."""
        plain = self.loaded.recipe
        several = plain.repeats * len(self.loaded.arms()) > 1
        if asks_student(branch) and several:
            return f"{name}@{arm}.{seed}"
        same = plain.knowledge.get(name) == branch and recipe.teachers == plain.teachers and recipe.seed == plain.seed
        return name if same else f"{name}@{arm}"

    def _drawn(self, arm: str, seed: int, number: int, name: str) -> dict[int, int]:
        """How many rows each selector kept in the arm that this one stands against."""
        sibling = arm.removesuffix("-random")
        recipe = self.loaded.arms().get(sibling)
        if sibling == arm or recipe is None:
            return {}
        place = self.place(sibling, recipe, seed, name, recipe.knowledge[name])
        return drawn_sizes(f"{place}/round-{number}", self.steps.values())

    def _health(self, arm: str, recipe: Recipe, seed: int, number: int, ended: Mapping[str, Data]) -> Health:
        """Of the branches that training reads, or of all where there is none."""
        read = {entry.on for phase in recipe.train for entry in phase.objectives} & set(ended) or set(ended)
        places = {f"{self.place(arm, recipe, seed, n, recipe.knowledge[n])}/round-{number}" for n in read}
        steps = [step for (branch, _), step in self.steps.items() if branch in places]
        kept = sum(len(Records(ended[name].path)) for name in read)
        lost = sum(sum(step["lost"].values()) for step in steps if step["kind"] not in ("keep", "union"))
        rows = [record for name in sorted(read) for record in Records(ended[name].path)]
        distinct, length = variety(rows)
        return Health(kept, kept / max(kept + lost, 1), distinct, length)

    def _train(
        self,
        arm: str,
        recipe: Recipe,
        seed: int,
        number: int,
        learned: Mapping[str, Data],
        teachers: Teachers,
        before: dict[str, Any] | None,
    ) -> dict[str, Any]:
        self.before_training()
        work = self.students({arm: learned})
        work.round = number
        work.before = Data(self.run / before["path"], before["hash"]) if before else None
        return work.train(arm, recipe, seed, teachers)

    def _score(self, recipe: Recipe, arm: str, seed: int, student: dict[str, Any] | None, number: int) -> float | None:
        return self.validated(arm, seed, student, number) if recipe.rounds.stop.gain is not None else None

    def _tell(self, arm: str, seed: int, number: int, health: Health | None) -> None:
        seen = {} if health is None else {key: getattr(health, key) for key in Health.__dataclass_fields__}
        self.told.append({"arm": arm, "seed": seed, "round": number, **seen, "score": None, "stopped": ""})

    def _ends(self, arm: str, seed: int, number: int, health: Health | None, reason: str) -> None:
        self._tell(arm, seed, number, health)
        self.told[-1]["stopped"] = reason
        self.say(f"round {number} of {arm}, seed {seed}, is not trained on: {reason}")

    def _settled(self, arm: str, seed: int, student: dict[str, Any]) -> dict[str, Any]:
        """Puts the last good round's student where every student of a run lies, without a second copy of its weights."""
        home = self.run / "students" / arm / str(seed)
        source = self.run / student["path"]
        record = {**student, "path": str(home.relative_to(self.run)), "round": int(source.name.removeprefix("round-"))}
        record["hash"] = fingerprint({"settled": student["hash"]})
        for old in home.iterdir():
            if not old.name.startswith("round-"):
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        shutil.copytree(
            source, home, copy_function=_linked, ignore=shutil.ignore_patterns("phases"), dirs_exist_ok=True
        )
        write_json(home / "stamp.json", record)
        return record

    def _sweep(self) -> None:
        """What an earlier plan had and this one has not would be counted by whoever reads the folder."""
        planned = {branch for branch, _ in self.steps}
        for place in list((self.run / "knowledge").iterdir()):
            for inside in list(place.iterdir()) if place.is_dir() else []:
                if inside.is_dir() and f"{place.name}/{inside.name}" not in planned:
                    shutil.rmtree(inside)
            if place.is_dir() and not any(branch.split("/")[0] == place.name for branch in planned):
                shutil.rmtree(place)
        for home in (self.run / "students").glob("*/*/round-*"):
            if home.is_dir() and int(home.name.removeprefix("round-")) > self.loaded.recipe.rounds.most:
                shutil.rmtree(home)


def drawn_sizes(branch: str, steps: Iterable[Mapping[str, Any]]) -> dict[int, int]:
    """Step number -> rows kept, of the branch whose selectors are stood against."""
    return {int(step["step"][:2]): step["out"] for step in steps if step["branch"] == branch}


def fault(health: Health, first: Health, stop: StopEntry) -> str:
    """Why a round is not to be learned from, or nothing. Source: 3.6 (collapse monitors), J5."""
    if health.accepted < stop.accepted:
        return f"{health.accepted:.1%} of the slots were kept, fewer than {stop.accepted:.1%}"
    if health.distinct < stop.distinct * first.distinct:
        return f"variety fell to {health.distinct:.3f} of {first.distinct:.3f} in the first round"
    ratio = health.words / first.words if first.words and health.words else 1.0
    if max(ratio, 1 / ratio) > stop.length:
        return f"texts have {health.words:.1f} words, {first.words:.1f} in the first round"
    return ""


def variety(records: Iterable[Record]) -> tuple[float, float]:
    """Distinct word pairs among all (distinct-2) and mean words of a text.

    In blocks of `PAIRS_AT_ONCE`, so that rounds of different size can be compared; rows are taken in the order of their ids,
    because samples of one seed lie beside each other. A last block that is not full counts only where it is the only one.
    """
    texts = [text for record in sorted(records, key=lambda r: r.id) for text in _texts(record)]
    tokens = [words(text) for text in texts]
    pairs = [pair for each in tokens for pair in pairwise(each)]
    shares = [len(set(block)) / len(block) for block in _blocks(pairs)]
    return (
        sum(shares) / len(shares) if shares else 0.0,
        sum(map(len, tokens)) / len(tokens) if tokens else 0.0,
    )


def _blocks(pairs: list[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    for start in range(0, len(pairs), PAIRS_AT_ONCE):
        if start == 0 or start + PAIRS_AT_ONCE <= len(pairs):
            yield pairs[start : start + PAIRS_AT_ONCE]


def _texts(record: Record) -> Iterable[str]:
    return responses(record) or (text_of(record, "prompt"),)


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copy2(source, target)
