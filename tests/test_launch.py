"""The command starts itself again with what only the start of a process can set."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest


def environment_of(*words: str, **given: str) -> dict[str, str]:
    """What a `still` process has in its environment when it begins its work."""
    code = (
        "import os, sys; os.execv = lambda path, words: print(dict(os.environ)); sys.argv = ['still', *sys.argv[1:]]; "
        "from stillhouse.launch import with_environment; with_environment(sys.argv[1:])"
    )
    base = {
        name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MALLOC_", "STILLHOUSE_"))
    }
    done = subprocess.run(
        [sys.executable, "-c", code, *words], env={**base, **given}, capture_output=True, text=True, check=True
    )
    return eval(done.stdout) if done.stdout else {}


def test_a_run_gets_threads_that_sleep_and_says_so():
    found = environment_of("run", "recipe.yaml")
    assert found["OMP_WAIT_POLICY"] == "passive"
    assert found["OMP_NUM_THREADS"] == str(len(os.sched_getaffinity(0)))
    assert "OMP_WAIT_POLICY=passive" in found["STILLHOUSE_LAUNCHED"]


def test_what_a_person_set_wins():
    given = {
        "OMP_NUM_THREADS": "7",
        "OMP_WAIT_POLICY": "active",
        "MALLOC_MMAP_MAX_": "9",
        "MALLOC_TRIM_THRESHOLD_": "1",
        "LRU_CACHE_CAPACITY": "5",
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "5",
    }
    found = environment_of("demo", **given)
    assert given.items() <= found.items()
    assert found["STILLHOUSE_LAUNCHED"] == ""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator's settings are glibc's")
def test_a_run_keeps_what_it_frees() -> None:
    """A fresh page costs more than the arithmetic on it."""
    found = environment_of("run", "recipe.yaml")
    assert (found["MALLOC_MMAP_MAX_"], found["MALLOC_TRIM_THRESHOLD_"]) == ("0", "100000000000")
    assert "MALLOC_MMAP_MAX_=0" in found["STILLHOUSE_LAUNCHED"]


def test_what_was_set_is_said_before_the_run(tmp_path: Path) -> None:
    """On the error stream of a real command, and nothing where nothing was set."""
    for mark, said in [("OMP_NUM_THREADS=2", True), ("", False)]:
        done = subprocess.run(
            [sys.executable, "-m", "stillhouse", "run", str(tmp_path / "none.yaml")],
            env={**os.environ, "STILLHOUSE_LAUNCHED": mark}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode != 0
        assert ("set for speed: OMP_NUM_THREADS=2" in done.stderr) == said


def test_commands_that_do_not_train_and_second_starts_are_left_alone():
    assert environment_of("list") == {}
    assert environment_of("run", "recipe.yaml", STILLHOUSE_LAUNCHED="OMP_NUM_THREADS=2") == {}
