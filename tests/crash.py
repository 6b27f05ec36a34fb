"""Kills runs at chosen moments, lets them finish, and prints what came of it as JSON. Started by test_run.py.

Everything is imported here, once, and every run is a fork that ends itself by SIGKILL: the moments are calls of
functions, so that no test has to wait and guess. Usage: crash.py every N RECIPE FOLDER, or crash.py chain RECIPE FOLDER.
"""

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stillhouse import distill

DURABLE = (
    "os:replace",
    "os:fsync",
    "stillhouse.teachers.asking.answers:AnswerStore.commit",
    "stillhouse.store:Writer.write",
)
# function, which call of it, and whether the process dies after it or before
CHAIN = {
    "while the teacher answers": ("stillhouse.teachers.asking.answers:AnswerStore.commit", 2, True),
    "before a step is stamped": ("stillhouse.steps:write_json", 2, False),
    "while beliefs are written": ("stillhouse.store:Writer.write", 9, True),
    "while a checkpoint is written": ("transformers.trainer:Trainer._save_optimizer_and_scheduler", 2, False),
    "behind a checkpoint": ("stillhouse.train.trainer:_Trainer._save_checkpoint", 2, True),
    "while a student is written": (
        "transformers.tokenization_utils_base:PreTrainedTokenizerBase.save_pretrained",
        1,
        False,
    ),
    "before a student is stamped": ("stillhouse.students:write_json", 1, True),
    "while a student is tidied up": ("shutil:rmtree", 1, False),
    "in the evaluation": ("stillhouse.store:Writer.write_row", 5, True),
    "before answers are stamped": ("stillhouse.scores:write_json", 1, False),
    "while the final student is copied": ("shutil:copytree", 1, True),
}


def in_a_child(work: Callable[[], object]) -> int:
    """How a child process that does `work` ended; 0 or a negative signal."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def watch(targets: tuple[str, ...], moment: int, after: bool) -> list[int]:
    """Counts the calls of `targets` in this process, and kills it before (or after) the `moment`-th."""
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

    for target in targets:
        module, _, path = target.partition(":")
        owner: Any = importlib.import_module(module)
        *outer, name = path.split(".")
        for each in outer:
            owner = getattr(owner, each)
        setattr(owner, name, watched(getattr(owner, name)))
    return seen


def run(recipe: Path, place: Path) -> Any:
    os.environ["STILLHOUSE_STORE"] = str(place / "store")
    return distill(recipe, out=place / "run", quiet=True)


def every(step: int, recipe: Path, folder: Path) -> list[dict[str, Any]]:
    """A run killed once, for each (`step`-th) moment of it."""
    run(recipe, folder / "warm")  # what is imported here need not be in every child

    def count() -> None:
        seen = watch(DURABLE, -1, False)
        run(recipe, folder / "whole")
        (folder / "moments").write_text(str(seen[0]))

    assert in_a_child(count) == 0
    found = []
    for moment in range(1, int((folder / "moments").read_text()) + 1, step):
        place = folder / str(moment)

        def dies(moment: int = moment, place: Path = place) -> None:
            watch(DURABLE, moment, after=bool(moment // step % 2))
            run(recipe, place)

        killed = in_a_child(dies)
        found.append(
            {"moment": moment, "killed": killed, "resumed": in_a_child(lambda place=place: run(recipe, place))}
        )
    return found


def chain(recipe: Path, folder: Path) -> list[dict[str, Any]]:
    """One run killed again and again, each time a little further on."""
    for module in ("train.trainer", "train.student", "teachers.pocket", "teachers.transformers", "generate", "report"):
        importlib.import_module(f"stillhouse.{module}")
    found = [{"moment": "never", "killed": in_a_child(lambda: run(recipe, folder / "whole"))}]
    for moment, (target, number, after) in CHAIN.items():

        def dies(target: str = target, number: int = number, after: bool = after) -> None:
            watch((target,), number, after)
            run(recipe, folder / "killed")

        found.append({"moment": moment, "killed": in_a_child(dies)})
    found.append({"moment": "never again", "killed": in_a_child(lambda: run(recipe, folder / "killed"))})
    return found


if __name__ == "__main__":
    if sys.argv[1] == "every":
        print(json.dumps(every(int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))))
    else:
        print(json.dumps(chain(Path(sys.argv[2]), Path(sys.argv[3]))))
