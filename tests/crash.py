"""Kills a run at each moment at which it puts something on disk, then lets it finish; prints what came of it as JSON.

Started by test_run.py in a process of its own without torch, so that it may fork.
Usage: crash.py RECIPE FOLDER EVERY. Moments are calls of the functions by which files and commits become durable.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stillhouse import distill, store
from stillhouse.teachers.asking.answers import AnswerStore


def in_a_child(work: Callable[[], object]) -> int:
    """How a child process that does `work` ended; 0 or a negative signal."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def counted(moment: int, after: bool) -> list[int]:
    """Kills this process before (or after) the `moment`-th time that something becomes durable."""
    seen = [0]

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            seen[0] += 1
            here = seen[0] == moment
            if here and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            value = function(*args, **kwargs)
            if here:
                os.kill(os.getpid(), signal.SIGKILL)
            return value

        return call

    os.replace = watched(os.replace)
    os.fsync = watched(os.fsync)
    AnswerStore.commit = watched(AnswerStore.commit)  # type: ignore[method-assign]
    store.Writer.write = watched(store.Writer.write)  # type: ignore[method-assign]
    return seen


def main(recipe: Path, folder: Path, every: int) -> None:
    whole = folder / "whole"

    def count() -> None:
        os.environ["STILLHOUSE_STORE"] = str(folder / "store")
        seen = counted(-1, False)
        distill(recipe, out=whole, quiet=True)
        (folder / "moments").write_text(str(seen[0]))

    os.environ["STILLHOUSE_STORE"] = str(folder / "warm")
    distill(recipe, out=folder / "once", quiet=True)  # what is imported here need not be in every child
    assert in_a_child(count) == 0
    moments = int((folder / "moments").read_text())
    found = []
    for moment in range(1, moments + 1, every):
        place = folder / str(moment)
        os.environ["STILLHOUSE_STORE"] = str(place / "store")

        def dies(moment: int = moment, place: Path = place) -> None:
            counted(moment, after=bool(moment // every % 2))
            distill(recipe, out=place / "run", quiet=True)

        killed = in_a_child(dies)
        resumed = in_a_child(lambda place=place: distill(recipe, out=place / "run", quiet=True))
        found.append({"moment": moment, "killed": killed, "resumed": resumed, "place": str(place)})
    print(json.dumps({"whole": str(whole), "runs": found}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
