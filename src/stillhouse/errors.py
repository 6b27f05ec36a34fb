"""The one tree of errors. Each class knows the exit code of the command line (architecture, section 5)."""

from collections.abc import Iterable
from difflib import get_close_matches

_SHOWN = 24  # names that one sentence can carry


class StillhouseError(Exception):
    """Something a person can act on: one sentence saying what is wrong, where, and what to write instead."""

    exit_code = 1


class RunFailed(StillhouseError):
    """Failed while running; what was made is kept (disk full, non-finite loss, books that do not balance)."""


class RecipeError(StillhouseError):
    """The recipe, a file it names, or the way a command was called cannot be right."""

    exit_code = 2


class TermsRefused(StillhouseError):
    """A licence or contract forbids the plan."""

    exit_code = 3


class TermsUnknown(StillhouseError):
    """Nobody has read the terms that govern the plan."""

    exit_code = 4


class TeacherError(StillhouseError):
    """The teacher cannot be asked at all: authentication, quota, unreachable, model missing."""

    exit_code = 5


class BudgetReached(StillhouseError):
    """A budget is spent; the same command with a larger one goes on. `larger` is the option that gives twice as much."""

    exit_code = 6

    def __init__(self, text: str, larger: str = "") -> None:
        super().__init__(text)
        self.larger = larger


class GoalNotMet(StillhouseError):
    """Fewer rows were kept than the recipe asked for."""

    exit_code = 7


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known ones, then all of them, or the first of very many."""
    known = sorted(known)
    near = get_close_matches(name, known, n=2)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return f"{hint}known: {', '.join(known[:_SHOWN]) or 'none'}{more}"
