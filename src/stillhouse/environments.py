"""Environments: worlds that answer what an agent does.

An environment is a function `(seed, *, knobs) -> World`, called once for each goal; one of your own is `{do:
mine.py:shop}`. A world is asked with all that was done before, so that a search can go back without anything to undo:
one with a state replays it.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from stillhouse.errors import RecipeError
from stillhouse.records import Act, Seed
from stillhouse.tools import Tool, ToolFaultError

__all__ = ["toolbox"]

FINISH, GIVE_UP = "finish", "give_up"


@dataclass(frozen=True, slots=True)
class Observed:
    """What the world answers. `over` ends the episode; `reward` is the world's own (1: the goal is reached), None
    where it has none.
    """

    text: str
    over: bool = False
    reward: float | None = None


class World(Protocol):
    """The world of one goal. `actions` tells an agent what it can do, one action to a line."""

    @property
    def actions(self) -> str: ...

    def observe(self, past: Sequence[Act], act: Act) -> Observed: ...


@dataclass(frozen=True, slots=True)
class Toolbox:
    """The world of tools that answer whatever they are asked: it is never over by itself and has no reward."""

    tools: dict[str, Tool]

    @property
    def actions(self) -> str:
        told = [f"{name}[...]: {_summary(tool)}" for name, tool in self.tools.items()]
        return "\n".join([*told, ENDS])

    def observe(self, past: Sequence[Act], act: Act) -> Observed:
        if ended := ends(act):
            return ended
        if act.action not in self.tools:
            return Observed(f"Error: there is no action {act.action}; there are {', '.join([*self.tools, FINISH])}")
        try:
            return Observed(self.tools[act.action](act.argument))
        except ToolFaultError as fault:
            return Observed(f"Error: {fault}")


ENDS = f"{FINISH}[answer]: ends the task with this answer\n{GIVE_UP}[]: ends it without one"


def ends(act: Act) -> Observed | None:
    """What every world says to the two acts that end an episode."""
    if act.action == FINISH:
        return Observed("The task is finished.", over=True)
    return Observed("The task was given up.", over=True, reward=0.0) if act.action == GIVE_UP else None


def toolbox(seed: Seed, *, tools: Sequence[Tool]) -> World:
    """A world of tools without a memory; a call that a tool cannot answer is told as an error.

    `tools` are entries such as `{do: search, path: passages.jsonl}` (`still list tools`) or functions of your own. It
    gives no reward: the agent's `grader` holds the answer against the known one. Sources: R48, R50.
    """
    if not tools:
        raise RecipeError("environments: toolbox: tools is empty; name at least one, for example {do: calculator}")
    return Toolbox({name_of(tool): tool for tool in tools})


def name_of(tool: Tool) -> str:
    return str(_function(tool).__name__)


def _summary(tool: Tool) -> str:
    return (inspect.getdoc(_function(tool)) or "").split("\n")[0]


def _function(tool: Tool) -> Tool:
    return tool.func if isinstance(tool, partial) else tool
