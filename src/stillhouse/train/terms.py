"""The summands of Eq. 2, and the branches they read."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import nn

from stillhouse.errors import RecipeError, nearest
from stillhouse.records import Record
from stillhouse.train.batch import ROLLOUTS_PROVIDE, TEACHER_PROVIDES, Branch, rendered
from stillhouse.train.rollout import Rollouts

ROLLOUTS = "rollouts"  # the name under which terms read the student's own answers


@dataclass(frozen=True, slots=True)
class Term:
    """One summand: an objective that reads the branch `on`, or the student's own answers (`on="rollouts"`).

    `objective` returns the sum over its mask; it is a function or an nn.Module, whose parameters are then trained too.
    `teacher` names the teacher that gives `teacher_beliefs` as dense logits. `weight_column` names a column of the
    records that weighs each example.
    """

    name: str
    objective: Callable[..., Any]
    on: str
    weight: float = 1.0
    knobs: Mapping[str, Any] = field(default_factory=dict)
    teacher: str | None = None
    weight_column: str | None = None

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
        return bool(TEACHER_PROVIDES & set(self.wants()))


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


def check(terms: Sequence[Term], found: Mapping[str, Branch], teachers: Mapping[str, Any], rollouts: Any) -> None:
    """Refuses terms that ask for arrays nobody provides."""
    if not terms:
        raise RecipeError("train: there are no objectives; write at least one, e.g. {do: supervised.cross_entropy}")
    for term in terms:
        offered = ROLLOUTS_PROVIDE if term.on == ROLLOUTS else found[term.on].provides
        if term.teacher is not None:
            if term.teacher not in teachers:
                raise RecipeError(
                    f"train: objective {term.name} names a teacher {term.teacher!r}; {nearest(term.teacher, teachers)}"
                )
            offered = offered | TEACHER_PROVIDES
        missing = [name for name in term.wants() if name not in offered]
        if missing:
            raise RecipeError(
                f"train: objective {term.name} needs {', '.join(missing)}, which {term.on!r} does not provide; "
                "give it a teacher that shows its logits (teacher: <name>), or elicit feature.top_logprobs first"
            )
        if term.on == ROLLOUTS and rollouts.fraction == 1 and not term.judges():
            raise RecipeError(
                f"train: objective {term.name} would only repeat the student's own answers; "
                "use one that holds them against a teacher, e.g. divergence.reverse_kl with teacher: <name>"
            )


def _records(name: str, data: Mapping[str, Sequence[Record]], who: str) -> Sequence[Record]:
    if name not in data:
        raise RecipeError(f"train: {who} reads a branch {name!r}; {nearest(name, data)}")
    return data[name]
