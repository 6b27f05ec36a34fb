"""Objectives that look back at earlier steps."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Remembers(Protocol):
    """An objective that is told when a step begins, so that what it met inside a step is no part of that step's loss."""

    def begin_step(self) -> None: ...
