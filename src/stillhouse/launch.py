"""Starts `still run` again with what only the start of a process can set: threads, how they wait, how memory is kept."""

import os
import sys

from stillhouse.train.environment import recommended_environment

MARK = "STILLHOUSE_LAUNCHED"
TRAINING = ("run", "demo")


def with_environment(words: list[str]) -> None:
    """Replaces this process by the same command in a better environment, once; a user's own settings win.

    Does nothing for commands that do not train, or where everything is set already.
    """
    if not words or words[0] not in TRAINING or MARK in os.environ:
        return
    if words[0] == "demo":
        # a model of under a million parameters: a second thread waits longer than it works
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    added = recommended_environment()
    os.environ.update(added, **{MARK: " ".join(f"{name}={value}" for name, value in added.items())})
    os.execv(sys.executable, [sys.executable, "-m", "stillhouse", *words])


def said() -> str | None:
    """What was set, for the log; None where nothing was."""
    added = os.environ.get(MARK)
    return f"set for speed: {added}" if added else None
