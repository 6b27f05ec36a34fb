"""Programs, graded by running them. Nothing runs unless the recipe says where: `sandbox` has no default."""

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stillhouse.errors import RecipeError
from stillhouse.graders import CANNOT_TELL_NO_REFERENCE, Grade
from stillhouse.graders import math as mathematics

__all__ = ["output", "passes"]

Sandbox = Literal["process", "namespace"]

_FENCE = re.compile(r"```[ \t]*(\w*)[^\n]*\n(.*?)```", re.S)
_MOST_OUTPUT = 1 << 16

# runs in the child: limits first, then the program, then the checks, then a word that only a finished run can say
_RUNNER = """
import json, resource, sys
job = json.loads(sys.stdin.readline())
memory = job["memory_mb"] << 20
for kind, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, job["seconds"] + 1),
                   (resource.RLIMIT_FSIZE, job["most_output"]), (resource.RLIMIT_NPROC, 0), (resource.RLIMIT_CORE,
                   0)): resource.setrlimit(kind, (most, most))
import os, socket, _posixsubprocess
def refused(*_, **__): raise OSError("no network and no other process in here")
for home, names in ((socket, "socket create_connection getaddrinfo"), (_posixsubprocess, "fork_exec"),
                    (os, "fork forkpty kill killpg posix_spawn posix_spawnp system")):
    for name in names.split(): hasattr(home, name) and setattr(home, name, refused)
scope = {"__name__": "__main__"}
for part in job["parts"]:
    exec(compile(part, "<answer>", "exec"), scope)
sys.stdout.flush()
sys.__stdout__.write(job["word"])
sys.__stdout__.flush()
"""


def passes(
    responses: Sequence[str],
    references: Sequence[str | None],
    *,
    sandbox: Sandbox,
    seconds: float = 5.0,
    memory_mb: int = 512,
) -> list[Grade]:
    """Whether the program in a response passes the reference, which is Python code that raises where it does not.

    The program is the longest fenced block, or the whole text where nothing is fenced. `sandbox: process` runs it in
    a fresh interpreter with limits on time, memory, output and processes, in an empty folder, without the
    environment and with Python's ways to sockets, other processes and signals closed: good against accidents, not
    against malice; files elsewhere can be read and written. `sandbox: namespace` takes network and sight of other
    processes away in the kernel too (`unshare`, Linux), and whatever was started ends with the program. Reasons for
    0: the exception's name, "timed_out", "no_program", "left_early" (it ended before the tests could). Sources: R60,
    R22.
    """
    jobs = [
        None if reference is None else _Job((program(response), reference), seconds, memory_mb)
        for response, reference in zip(responses, references, strict=True)
    ]
    return [CANNOT_TELL_NO_REFERENCE if run is None else _graded(run) for run in _all(jobs, sandbox)]


def output(
    responses: Sequence[str],
    references: Sequence[str | None],
    *,
    sandbox: Sandbox,
    seconds: float = 5.0,
    memory_mb: int = 512,
    tolerance: float = 1e-6,
) -> list[Grade]:
    """Whether the last line that the program in a response prints is the reference, as a number or as text.

    For programs of thought: kept only if running them gives the gold answer. A program that prints nothing but sets
    `answer` has that printed. Sandbox and limits as in `passes`. Sources: R22 (MAmmoTH, ToRA), SK14.
    """
    shown = "if 'answer' in globals():\n    print()\n    print(answer)"
    jobs = [
        None if reference is None else _Job((program(response), shown), seconds, memory_mb)
        for response, reference in zip(responses, references, strict=True)
    ]
    grades = []
    for run, reference in zip(_all(jobs, sandbox), references, strict=True):
        if run is None or reference is None:
            grades.append(CANNOT_TELL_NO_REFERENCE)
        elif run.fault or not run.printed.strip():
            grades.append(Grade(0.0, run.fault or "printed_nothing"))
        else:
            last = run.printed.strip().splitlines()[-1].strip()
            grades += mathematics.equal([f"The answer is: {last}"], [reference], tolerance=tolerance)
    return grades


def printed(parts: Sequence[str], *, sandbox: Sandbox, seconds: float = 5.0, memory_mb: int = 512) -> tuple[str, str]:
    """What the last of several programs prints when they run in turn, in one scope; and why it stopped early, or nothing.

    Sandbox and limits as in `passes`. Source: R22 (ToRA).
    """
    mark = secrets.token_hex(8)
    cut = f"import sys\nsys.stdout.write({mark!r})"
    (run,) = _all([_Job((*parts[:-1], cut, parts[-1]), seconds, memory_mb)], sandbox)
    assert run is not None
    return run.printed.rpartition(mark)[2], run.fault


def program(response: str) -> str:
    """The code of a response: its longest fenced block (Python ones first), else all of it."""
    blocks = _FENCE.findall(response)
    python = [code for language, code in blocks if language.lower() in ("python", "py", "python3")]
    return max(python or [code for _, code in blocks] or [response], key=len)


@dataclass(frozen=True, slots=True)
class _Job:
    parts: tuple[str, ...]
    seconds: float
    memory_mb: int


@dataclass(frozen=True, slots=True)
class _Run:
    printed: str
    fault: str


def _graded(run: _Run) -> Grade:
    return Grade(0.0, run.fault) if run.fault else Grade(1.0, "passed")


def _all(jobs: Sequence[_Job | None], sandbox: Sandbox) -> list[_Run | None]:
    prefix = _prefix(sandbox)
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        return list(pool.map(lambda job: None if job is None else _run(job, prefix), jobs))


def _prefix(sandbox: Sandbox) -> list[str]:
    if sandbox == "process":
        return []
    if sandbox != "namespace":
        raise RecipeError(f"code graders: no sandbox {sandbox!r}; known: process, namespace")
    unshare = shutil.which("unshare")
    prefix = [unshare or "unshare", "--user", "--net", "--pid", "--fork", "--kill-child", "--"]
    if unshare is None or subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
        raise RecipeError(
            "sandbox: namespace needs `unshare --user --net --pid`, which this machine refuses; write `process`"
        )
    return prefix


def _run(job: _Job, prefix: list[str]) -> _Run:
    if not job.parts[0].strip():
        return _Run("", "no_program")
    word = secrets.token_hex(16)
    limits = {"memory_mb": job.memory_mb, "seconds": int(job.seconds) + 1, "most_output": _MOST_OUTPUT}
    order = json.dumps({"parts": job.parts, "word": word, **limits}) + "\n"
    with tempfile.TemporaryDirectory() as folder:
        printed, errors = Path(folder, ".out"), Path(folder, ".err")
        with printed.open("wb") as out, errors.open("wb") as err:
            process = subprocess.Popen(
                [*prefix, sys.executable, "-I", "-B", "-c", _RUNNER],
                stdin=subprocess.PIPE, stdout=out, stderr=err, cwd=folder, env={}, start_new_session=True,
            )  # fmt: skip
            ended = _finished(process, order.encode(), job.seconds)
        text = printed.read_text(encoding="utf-8", errors="replace")
        if text.endswith(word):
            return _Run(text.removesuffix(word), "")
        return _Run(text, _fault(errors.read_text(encoding="utf-8", errors="replace")) if ended else "timed_out")


def _finished(process: "subprocess.Popen[bytes]", order: bytes, seconds: float) -> bool:
    try:
        process.communicate(order, timeout=seconds)
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return process.returncode != -signal.SIGXCPU


def _fault(errors: str) -> str:
    found = re.findall(r"^(\w+(?:Error|Exception|Interrupt|Exit|Iteration)\b)", errors, re.M)
    return found[-1] if found else "left_early"
