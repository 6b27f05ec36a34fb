"""The command starts itself again with what only the start of a process can set."""

import os
import subprocess
import sys


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
    found = environment_of("demo", OMP_NUM_THREADS="7", OMP_WAIT_POLICY="active")
    assert (found["OMP_NUM_THREADS"], found["OMP_WAIT_POLICY"]) == ("7", "active")
    assert "OMP_" not in found["STILLHOUSE_LAUNCHED"]


def test_commands_that_do_not_train_and_second_starts_are_left_alone():
    assert environment_of("list") == {}
    assert environment_of("run", "recipe.yaml", STILLHOUSE_LAUNCHED="OMP_NUM_THREADS=2") == {}
