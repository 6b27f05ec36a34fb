"""Programs graded by running them: R22 (programs of thought), R60 (unit tests)."""

import fcntl
import gzip
import json
import os
import subprocess
from pathlib import Path

import pytest

from stillhouse.errors import RecipeError
from stillhouse.graders import Grade
from stillhouse.graders.code import output, passes, program

DATA = os.environ.get("STILLHOUSE_TEST_DATA")
CHECK = "assert add(2, 3) == 5"


def test_nothing_runs_without_a_sandbox() -> None:
    with pytest.raises(TypeError):
        passes(["x"], ["y"])  # type: ignore[call-arg]
    with pytest.raises(RecipeError, match="no sandbox 'none'"):
        passes(["x"], ["y"], sandbox="none")  # type: ignore[arg-type]


def test_passing_and_failing_programs_by_reason() -> None:
    programs = {
        "def add(a, b):\n    return a + b": Grade(1.0, "passed"),
        "Here it is:\n```python\ndef add(a, b):\n    return a + b\n```\nDone.": Grade(1.0, "passed"),
        "def add(a, b):\n    return a - b": Grade(0.0, "AssertionError"),
        "def add(a, b) return a": Grade(0.0, "SyntaxError"),
        "while True: pass": Grade(0.0, "timed_out"),
        "x = 'a' * 10**10": Grade(0.0, "MemoryError"),
        "import os\nos._exit(0)": Grade(0.0, "left_early"),
        "import sys\nsys.exit(0)": Grade(0.0, "left_early"),
        "import socket\nsocket.socket()": Grade(0.0, "OSError"),
        "import os\nwhile True:\n    os.fork()": Grade(0.0, "OSError"),
        "import os\nos.kill(os.getppid(), 9)": Grade(0.0, "OSError"),
        "import subprocess\nsubprocess.run(['true'])": Grade(0.0, "OSError"),
        "   ": Grade(0.0, "no_program"),
        "open('here', 'w').write('x')": Grade(0.0, "NameError"),
    }
    assert passes(list(programs), [CHECK] * len(programs), sandbox="process", seconds=1.5) == list(programs.values())


def test_in_a_namespace_no_other_process_is_seen_and_none_is_left(tmp_path: Path) -> None:
    """What a program starts behind Python's back ends with it, and its parent has no number it could send a signal to."""
    if subprocess.run(["unshare", "--user", "--net", "--pid", "--fork", "true"], capture_output=True).returncode:
        pytest.skip("this machine refuses `unshare --user --net --pid`")
    held = tmp_path / "held"
    held.touch()
    started = f"""
import ctypes, fcntl, os, time
assert os.getppid() == 0
libc, (told, tell) = ctypes.CDLL(None), os.pipe()
child = libc.fork()
if child == 0:
    libc.setsid()
    file = open({str(held)!r}, "w")
    fcntl.flock(file, fcntl.LOCK_EX)
    os.write(tell, b"held")
    time.sleep(600)
if child > 0:  # who is not the superuser is refused a second process, which is as good
    os.read(told, 4)
"""
    assert passes([started], ["pass"], sandbox="namespace") == [Grade(1.0, "passed")]
    with held.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises while somebody holds it


def test_it_runs_in_an_empty_folder_without_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET_OF_THE_USER", "x")
    look = "import os\nassert 'A_SECRET_OF_THE_USER' not in os.environ\nassert set(os.listdir('.')) <= {'.out', '.err'}"
    assert passes([look], ["pass"], sandbox="process") == [Grade(1.0, "passed")]


def test_no_reference_is_nobody_s_failure() -> None:
    assert passes(["pass"], [None], sandbox="process") == [Grade(None, "no_reference")]


def test_a_program_of_thought_is_its_last_line() -> None:
    """R22: kept only if running it gives the gold answer."""
    responses = [
        "```python\na = 84\nprint('working')\nprint(a / 2)\n```",
        "answer = 84 / 2",
        "print(41)",
        "x = 1",
        "print(1/0)",
    ]
    grades = output(responses, ["#### 42"] * 5, sandbox="process")
    assert [(g.value, g.reason) for g in grades] == [
        (1.0, "equal"), (1.0, "equal"), (0.0, "different"), (0.0, "printed_nothing"), (0.0, "ZeroDivisionError"),
    ]  # fmt: skip


def test_the_program_is_the_longest_python_block() -> None:
    text = "```bash\npip install a very long list of things\n```\n```python\nx = 1\n```\n```py\nx = 1234\n```"
    assert program(text) == "x = 1234\n"
    assert program("x = 2") == "x = 2"


@pytest.mark.skipif(DATA is None, reason="STILLHOUSE_TEST_DATA is not set")
def test_humaneval_solutions_pass_their_tests_and_empty_ones_do_not() -> None:
    """R60, SK14: ten canonical solutions against the benchmark's own checks."""
    with gzip.open(Path(DATA or "") / "code" / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as source:
        rows = [json.loads(line) for line in source][:10]
    checks = [f"{row['test']}\ncheck({row['entry_point']})" for row in rows]
    right = [row["prompt"] + row["canonical_solution"] for row in rows]
    assert [g.reason for g in passes(right, checks, sandbox="process", seconds=10)] == ["passed"] * 10
    empty = [row["prompt"] + "    return None" for row in rows]
    assert sum(g.value or 0 for g in passes(empty, checks, sandbox="process", seconds=10)) == 0
