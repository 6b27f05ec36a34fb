"""The summands of Eq. 2, and the branches they read."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import nn

from stillhouse.errors import RecipeError, nearest
from stillhouse.records import Record
from stillhouse.train.batch import REWARD_PROVIDES, ROLLOUTS_PROVIDE, TEACHER_PROVIDES, Branch, rendered
from stillhouse.train.rollout import Rollouts

ROLLOUTS = "rollouts"  # the name under which terms read the student's own answers
REFERENCE = "reference"  # the teacher's name under which they find the student as it was before training
_REFERENCES = frozenset({"reference_logprobs_N", "reference_logprobs_S"})


@dataclass(frozen=True, slots=True)
class Term:
    """One summand: an objective that reads the branch `on`, or the student's own answers (`on="rollouts"`).

    `objective` returns the sum over its mask; it is a function or an nn.Module, whose parameters are then trained too.
    `teacher` names the teacher (or several) that shows its logits and hidden states; `reference` is the student as it
    was before training. `weight_column` names a column of the records that weighs each example. `layers` are the
    student's and the teacher's layer whose states are compared: 0 the embeddings, -1 the last.
    """

    name: str
    objective: Callable[..., Any]
    on: str
    weight: float = 1.0
    knobs: Mapping[str, Any] = field(default_factory=dict)
    teacher: str | Sequence[str] | None = None
    weight_column: str | None = None
    layers: tuple[int, int] = (-1, -1)

    @property
    def teachers(self) -> tuple[str, ...]:
        if self.teacher is None:
            return ()
        return (self.teacher,) if isinstance(self.teacher, str) else tuple(self.teacher)

    @property
    def label(self) -> str:
        return f"{self.name} on {self.on}"

    def bound(self) -> Callable[..., Any]:
        return partial(self.objective, **self.knobs)

    def wants(self) -> tuple[str, ...]:
        """The names of the arrays it reads: its positional parameters."""
        call = self.objective.forward if isinstance(self.objective, nn.Module) else self.objective
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        return tuple(name for name, p in inspect.signature(call).parameters.items() if p.kind in kinds)

    def judges(self) -> bool:
        """Whether it holds an answer against something; learning one's own answers as they are teaches nothing."""
        return bool((TEACHER_PROVIDES | REWARD_PROVIDES | _REFERENCES) & set(self.wants()))


def branches(
    tokenizer: Any,
    terms: Sequence[Term],
    data: Mapping[str, Sequence[Record]],
    rollouts: Rollouts | None,
    max_length: int | None,
) -> dict[str, Branch]:
    """What the terms read, rendered once, each under the name by which they read it."""
    found: dict[str, Branch] = {}
    for term in terms:
        if term.on in found:
            continue
        columns = sorted({t.weight_column for t in terms if t.on == term.on and t.weight_column is not None})
        if term.on != ROLLOUTS:
            records = _records(term.on, data, f"objective {term.name}")
            found[term.on] = rendered(term.on, records, tokenizer, max_length=max_length, weight_columns=columns)
            continue
        if rollouts is None:
            raise RecipeError(
                f"train: objective {term.name} learns from rollouts and there are none; "
                "say which prompts the student answers (rollouts: {on: <branch>})"
            )
        found[ROLLOUTS] = rendered(
            rollouts.on,
            _records(rollouts.on, data, "rollouts.on"),
            tokenizer,
            max_length=max_length,
            answered=rollouts.fraction < 1,
            room=rollouts.max_new_tokens if rollouts.fraction > 0 else 0,
            weight_columns=columns,
        )
    if rollouts is not None and ROLLOUTS not in found:
        raise RecipeError("train: no objective learns from the rollouts; write `on: rollouts` in one or leave them out")
    return found


def online(terms: Sequence[Term]) -> set[str]:
    """The teachers that are read beside the student, the reference among them."""
    found = {name for term in terms if TEACHER_PROVIDES & set(term.wants()) for name in term.teachers}
    return found | ({REFERENCE} if any(_REFERENCES & set(term.wants()) for term in terms) else set())


def check(
    terms: Sequence[Term],
    found: Mapping[str, Branch],
    teachers: Mapping[str, Any],
    rollouts: Rollouts | None,
    *,
    windows_are_whole: bool,
) -> None:
    """Refuses terms that ask for arrays nobody provides, or that could not mean what they say."""
    if not terms:
        raise RecipeError("train: there are no objectives; write at least one, e.g. {do: supervised.cross_entropy}")
    for term in terms:
        _check_arrays(term, found, teachers, rollouts)
        if "mask_N" in term.wants() and not windows_are_whole:
            raise RecipeError(
                f"train: objective {term.name} compares the positions of a batch as one set and cannot be cut into "
                "micro-batches; set gradient_accumulation_steps to 1 and train in one process"
            )
        if term.on == ROLLOUTS and rollouts is not None:
            _check_rollouts(term, rollouts)


def _check_arrays(
    term: Term, found: Mapping[str, Branch], teachers: Mapping[str, Any], rollouts: Rollouts | None
) -> None:
    offered = ROLLOUTS_PROVIDE if term.on == ROLLOUTS else found[term.on].provides
    if term.on == ROLLOUTS and rollouts is not None and rollouts.reward is not None:
        offered = offered | REWARD_PROVIDES
    for name in term.teachers:
        if name not in teachers and name != REFERENCE:
            known = nearest(name, {*teachers, REFERENCE})
            raise RecipeError(f"train: objective {term.name} names a teacher {name!r}; {known}")
        offered = offered | TEACHER_PROVIDES
    missing = [name for name in term.wants() if name not in offered]
    if missing:
        advice = "look at what `still explain` says of its arrays"
        if set(missing) <= TEACHER_PROVIDES:
            advice = "give it a teacher that shows its logits (teacher: <name>), or elicit feature.top_logprobs first"
        if set(missing) <= REWARD_PROVIDES:
            advice = "learn from rollouts with a reward (rollouts: {on: <branch>, samples: 4, reward: {do: <grader>}})"
        raise RecipeError(
            f"train: objective {term.name} needs {', '.join(missing)}, which {term.on!r} does not provide; {advice}"
        )


def _check_rollouts(term: Term, rollouts: Rollouts) -> None:
    if rollouts.fraction == 1 and not term.judges():
        raise RecipeError(
            f"train: objective {term.name} would only repeat the student's own answers; "
            "use one that holds them against a teacher, e.g. divergence.reverse_kl with teacher: <name>"
        )
    if "rollout_logprobs_N" in term.wants() and (rollouts.temperature, rollouts.top_p) != (1, 1):
        raise RecipeError(
            f"train: objective {term.name} needs answers drawn from the student's own distribution; "
            f"set temperature and top_p of the rollouts to 1 (they are {rollouts.temperature} and {rollouts.top_p})"
        )
    if REWARD_PROVIDES & set(term.wants()) and (rollouts.fraction < 1 or rollouts.samples < 2):
        raise RecipeError(
            f"train: objective {term.name} compares the rewards of several own answers to each prompt; "
            "set fraction to 1 and samples to 2 or more"
        )


def _records(name: str, data: Mapping[str, Sequence[Record]], who: str) -> Sequence[Record]:
    if name not in data:
        raise RecipeError(f"train: {who} reads a branch {name!r}; {nearest(name, data)}")
    return data[name]
