"""The summands of Eq. 2, and the branches they read."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import nn

from stillhouse.errors import RecipeError, nearest
from stillhouse.records import Ranking, Record
from stillhouse.render import TOGETHER, Reading
from stillhouse.train.batch import (
    AS_ONE,
    EMBEDDED,
    RELATIONS,
    REWARD_PROVIDES,
    SCORERS,
    TEACHER_PROVIDES,
    Branch,
    Layer,
    provided,
    rendered,
)
from stillhouse.train.rollout import Rollouts
from stillhouse.train.stored import joined

ROLLOUTS = "rollouts"  # the name under which terms read the student's own answers
REFERENCE = "reference"  # the teacher's name under which they find the student as it was before training
_REFERENCES = frozenset({"reference_logprobs_N", "reference_logprobs_S", "reference_mismatched_logprobs_S"})
_TEACHERS = TEACHER_PROVIDES | EMBEDDED | {"judge_probabilities_N"}
_HELD_AGAINST = _TEACHERS | REWARD_PROVIDES | _REFERENCES
_MISMATCHED = frozenset({"student_mismatched_logprobs_S", "reference_mismatched_logprobs_S"})


@dataclass(frozen=True, slots=True)
class Term:
    """One summand: an objective that reads the branch `on`, or the student's own answers (`on="rollouts"`).

    `objective` returns the sum over its mask; it is a function or an nn.Module, whose parameters are then trained too.
    `teacher` names the teacher (or several) that shows its logits and hidden states; `reference` is the student as it
    was before training. `weight_column` names a column of the records that weighs each example, `score_column` one that
    says how good it is, `route` one that names the teacher of each. `layers` are the student's and the teacher's layer
    whose states are compared: 0 the embeddings, -1 the last; for attention relations 0 is the first block, and
    `relations` says which: queries, keys or values. `align` pairs the positions of a teacher with another tokenizer:
    where both have read the same bytes, or by count from the first token.
    """

    name: str
    objective: Callable[..., Any]
    on: str
    weight: float = 1.0
    knobs: Mapping[str, Any] = field(default_factory=dict)
    teacher: str | Sequence[str] | None = None
    weight_column: str | None = None
    layers: tuple[int, int] = (-1, -1)
    score_column: str = "score"
    route: str | None = None
    relations: str = "queries"
    align: str = "bytes"

    @property
    def teachers(self) -> tuple[str, ...]:
        if self.teacher is None:
            return ()
        return (self.teacher,) if isinstance(self.teacher, str) else tuple(self.teacher)

    @property
    def label(self) -> str:
        return f"{self.name} on {self.on}"

    @property
    def places(self) -> tuple[Any, ...]:
        """Where in the records and the models it looks."""
        return (self.weight_column, self.layers, self.score_column, self.route, self.relations, self.align)

    @property
    def mark(self) -> str:
        """By which an objective's own parameters are known from one phase to the next."""
        return f"{self.name} {self.layers[0]} {self.layers[1]}"

    def bound(self) -> Callable[..., Any]:
        return partial(self.objective, **self.knobs)

    def wants(self) -> tuple[str, ...]:
        """The names of the arrays it reads: its positional parameters."""
        return tuple(self._parameters())

    def believes(self) -> Any:
        """The kind of beliefs that it declares to read: one class, or all of them."""
        return self._parameters()["teacher_beliefs"].annotation if "teacher_beliefs" in self.wants() else None

    def reads_stored(self) -> bool:
        """Whether its beliefs are those of the records, and not of a teacher beside the student."""
        return "teacher_beliefs" in self.wants() and not self.teachers

    def compares(self) -> bool:
        """Whether it looks at the positions of the teachers that it names, one by one."""
        looked_at = {"teacher_beliefs", "all_teacher_beliefs", "teacher_hidden_NH"}
        return bool(self.teachers and looked_at & set(self.wants()))

    def mismatches(self) -> bool:
        """Whether it asks for the answers of other prompts."""
        return bool(_MISMATCHED & set(self.wants()))

    def judges(self) -> bool:
        """Whether it holds an answer against something; learning one's own answers as they are teaches nothing."""
        return bool(_HELD_AGAINST & set(self.wants()))

    def reads(self, side: int) -> set[Layer]:
        """The layers of the student (0) or of the teacher (1) that it compares."""
        who = ("student", "teacher")[side]
        found: set[Layer] = {self.layers[side]} if f"{who}_hidden_NH" in self.wants() else set()
        return found | ({(self.layers[side], self.relations)} if f"{who}_relations_BTH" in self.wants() else set())

    def _parameters(self) -> dict[str, inspect.Parameter]:
        call = self.objective.forward if isinstance(self.objective, nn.Module) else self.objective
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        return {name: p for name, p in inspect.signature(call).parameters.items() if p.kind in kinds}


def needs_reference(objective: Any) -> bool:
    """Whether an objective asks for what the student said before training."""
    return bool(_REFERENCES & set(Term("", objective, "").wants())) if not inspect.isclass(objective) else False


def branches(
    tokenizer: Any,
    terms: Sequence[Term],
    data: Mapping[str, Sequence[Record]],
    rollouts: Rollouts | None,
    max_length: int | None,
    labels: Sequence[str] = (),
    reading: Reading = TOGETHER,
) -> dict[str, Branch]:
    """What the terms read, rendered once, each under the name by which they read it.

    `labels` are the classes of a student that classifies: it learns the prompt's, and writes nothing.
    """
    found: dict[str, Branch] = {}
    for term in terms:
        if term.on in found:
            continue
        mine = [t for t in terms if t.on == term.on]
        columns = {t.weight_column for t in mine if t.weight_column is not None}
        if term.on != ROLLOUTS:
            records = _records(term.on, data, f"objective {term.name}")
            scored = _lone(records) and not reading.alone  # the one passage of a query is its best
            columns |= {t.score_column for t in mine if scored and "scores_S" in t.wants()}
            found[term.on] = rendered(
                term.on, records, tokenizer, max_length=max_length, weight_columns=sorted(columns), labels=labels,
                reading=reading,
            )  # fmt: skip
            if found[term.on].kinds == ("StoredSignal",) and any(t.reads_stored() for t in mine):
                found[term.on].signals = joined(found[term.on], tokenizer)
            continue
        if rollouts is None:
            raise RecipeError(
                f"train: objective {term.name} learns from rollouts and there are none; "
                "say which prompts the student answers (rollouts: {on: <branch>})"
            )
        found[ROLLOUTS] = rendered(
            rollouts.on,
            trained_on(_records(rollouts.on, data, "rollouts.on"), rollouts),
            tokenizer,
            max_length=max_length,
            answered=rollouts.answered,
            room=rollouts.max_new_tokens if rollouts.fraction > 0 else 0,
            weight_columns=sorted(columns),
            reading=reading,
        )
    if rollouts is not None and ROLLOUTS not in found:
        raise RecipeError("train: no objective learns from the rollouts; write `on: rollouts` in one or leave them out")
    return found


def trained_on(records: Sequence[Record], rollouts: Rollouts) -> Sequence[Record]:
    """The records of a branch without those held out for an adaptive share of own answers."""
    if rollouts.adaptive is None:
        return records
    if len(records) <= rollouts.adaptive.examples:
        raise RecipeError(
            f"train.rollouts.adaptive.examples: {rollouts.adaptive.examples} held-out records of the {len(records)} that "
            f"branch {rollouts.on!r} has leave nothing to train on; hold out fewer"
        )
    return [records[at] for at in range(len(records) - rollouts.adaptive.examples)]


def held_out(
    tokenizer: Any,
    data: Mapping[str, Sequence[Record]],
    rollouts: Rollouts | None,
    max_length: int | None,
    reading: Reading = TOGETHER,
) -> Branch | None:
    """The records whose loss decides how many own answers are made."""
    if rollouts is None or rollouts.adaptive is None:
        return None
    records = data[rollouts.on]
    held = [records[at] for at in range(len(records) - rollouts.adaptive.examples, len(records))]
    return rendered(rollouts.on, held, tokenizer, max_length=max_length, reading=reading)


def online(terms: Sequence[Term], rollouts: Rollouts | None = None) -> set[str]:
    """The teachers that are read beside the student, the reference among them."""
    found = {rollouts.teacher} if rollouts is not None and rollouts.teacher is not None else set()
    found |= {name for term in terms if _TEACHERS & set(term.wants()) for name in term.teachers}
    return found | ({REFERENCE} if any(_REFERENCES & set(term.wants()) for term in terms) else set())


def check(
    terms: Sequence[Term],
    found: Mapping[str, Branch],
    teachers: Mapping[str, Any],
    rollouts: Rollouts | None,
    *,
    windows_are_whole: bool,
    kind: str = "causal_lm",
) -> None:
    """Refuses terms that ask for arrays nobody provides, or that could not mean what they say."""
    if not terms:
        raise RecipeError("train: there are no objectives; write at least one, e.g. {do: supervised.cross_entropy}")
    if rollouts is not None and rollouts.teacher is not None and rollouts.teacher not in teachers:
        raise RecipeError(
            f"train.rollouts.teacher: no teacher {rollouts.teacher!r}; {nearest(rollouts.teacher, teachers)}"
        )
    for term in terms:
        _check_arrays(term, found, teachers, rollouts, kind)
        if AS_ONE & set(term.wants()) and not windows_are_whole:
            raise RecipeError(
                f"train: objective {term.name} compares what a batch holds as one set and cannot be cut into "
                "micro-batches; set gradient_accumulation_steps to 1 and train in one process"
            )
        if term.on == ROLLOUTS and rollouts is not None:
            check_rollouts(term.name, term.wants(), rollouts)


def _check_arrays(
    term: Term, found: Mapping[str, Branch], teachers: Mapping[str, Any], rollouts: Rollouts | None, kind: str
) -> None:
    for name in term.teachers:
        if name not in teachers and name != REFERENCE:
            known = nearest(name, {*teachers, REFERENCE})
            raise RecipeError(f"train: objective {term.name} names a teacher {name!r}; {known}")
    own = term.on == ROLLOUTS and rollouts is not None
    kinds = ["rollouts"] if term.on == ROLLOUTS else found[term.on].kinds
    for held in kinds:
        offered = provided(
            held,
            kind=kind,
            teachers=len(term.teachers),
            rewarded=own and rollouts.rewarded,  # type: ignore[union-attr]
            beside=own and rollouts.beside,  # type: ignore[union-attr]
        )
        if missing := [name for name in term.wants() if name not in offered]:
            raise RecipeError(lacking(f"train: objective {term.name}", missing, held, kind))


def lacking(who: str, missing: Sequence[str], held: str, kind: str) -> str:
    """One sentence: what an objective needs that nobody gives, and what to write."""
    needs = set(missing)
    advice = "look at what `still explain` says of its arrays"
    if needs <= EMBEDDED and kind == "encoder":
        advice = "name a teacher that encodes (teacher: <name>, backend: encoder)"
    elif kind in SCORERS:
        able = ", ".join(SCORERS[kind])
        advice = f"a student of kind {kind} learns from {able} and from objectives on its scores"
    elif kind == "seq2seq" and needs <= RELATIONS:
        advice = (
            "attention is compared within one sequence, and an encoder-decoder has two; compare hidden states instead"
        )
    elif needs & {"student_scores_S", "student_step_logits_N"}:
        advice = "give the student a scoring head (student: {kind: reward}, or reranker)"
    elif needs <= _TEACHERS - {"judge_probabilities_N"}:
        advice = "give it a teacher that shows its logits (teacher: <name>), or elicit feature.top_logprobs first"
    elif needs <= REWARD_PROVIDES | {"judge_probabilities_N"}:
        advice = "learn from rollouts with a reward (rollouts: {on: <branch>, samples: 4, reward: {do: <grader>}})"
    elif held != "Ranking" and needs & {"group_S", "weight_G", "edit_N"}:
        advice = "learn from rankings (feedback.compare, preferences.known), or from rollouts with a reward"
    return f"{who} needs {', '.join(missing)}, which {held} records do not give; {advice}"


def check_rollouts(name: str, wants: Sequence[str], rollouts: Rollouts) -> None:
    """Refuses an objective of the rollouts that could not learn from them."""
    asked = set(wants)
    if rollouts.fraction == 1 and not rollouts.beside and not asked & _HELD_AGAINST:
        raise RecipeError(
            f"train: objective {name} would only repeat the student's own answers; "
            "use one that holds them against a teacher, e.g. divergence.reverse_kl with teacher: <name>"
        )
    if "rollout_logprobs_N" in asked and not rollouts.plain:
        raise RecipeError(
            f"train: objective {name} needs fresh answers drawn from the student's own distribution; "
            "set temperature and top_p of the rollouts to 1 and leave out top_k and replay"
        )
    grouped = {"rewards_S", "scores_S"} & asked and "group_S" in asked
    if grouped and not rollouts.beside and (rollouts.fraction < 1 or rollouts.samples < 2):
        raise RecipeError(
            f"train: objective {name} compares the rewards of several own answers to each prompt; "
            "set fraction to 1 and samples to 2 or more"
        )
    if (REWARD_PROVIDES - {"scores_S"}) & asked and (rollouts.fraction < 1 or rollouts.beside):
        raise RecipeError(
            f"train: objective {name} learns from rewards, which only the student's own answers have; "
            "set fraction to 1 and leave out beside"
        )


def _lone(records: Sequence[Record]) -> bool:
    """Answers that stand alone have their scores in a column."""
    return len(records) > 0 and not isinstance(records[0], Ranking)


def _records(name: str, data: Mapping[str, Sequence[Record]], who: str) -> Sequence[Record]:
    if name not in data:
        raise RecipeError(f"train: {who} reads a branch {name!r}; {nearest(name, data)}")
    return data[name]
