"""What the launcher may add to the environment."""

import os
import subprocess
import sys

import pytest

from stillhouse.train.environment import free_cores, recommended_environment


def test_what_a_person_has_set_stays():
    assert "OMP_NUM_THREADS" not in recommended_environment({"OMP_NUM_THREADS": "3"})
    found = recommended_environment({})
    assert found["OMP_WAIT_POLICY"] == "passive"
    assert int(found["OMP_NUM_THREADS"]) >= 1
    assert recommended_environment(found) == {}


@pytest.mark.parametrize(("busy", "free"), [(0.1, 4), (1.2, 3), (2.6, 1), (9.0, 1)])
def test_threads_are_the_cores_with_nothing_to_do(busy, free, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(os, "getloadavg", lambda: (busy, 0.0, 0.0))
    assert free_cores() == free


def test_it_is_known_before_anything_heavy_is_loaded():
    code = "import sys, stillhouse.train.environment; print(any(m in sys.modules for m in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
