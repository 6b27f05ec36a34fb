"""What the launcher may add to the environment."""

import os
import subprocess
import sys

from stillhouse.train.environment import recommended_environment


def test_what_a_person_has_set_stays():
    assert "OMP_NUM_THREADS" not in recommended_environment({"OMP_NUM_THREADS": "3"})
    found = recommended_environment({})
    assert found["OMP_WAIT_POLICY"] == "passive"
    assert int(found["OMP_NUM_THREADS"]) >= 1
    # both caches of oneDNN's products: either alone still grows with every new shape
    assert found["LRU_CACHE_CAPACITY"] == found["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "512"
    assert recommended_environment(found) == {}


def test_a_thread_for_each_core_it_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    assert recommended_environment({})["OMP_NUM_THREADS"] == "3"


def test_it_is_known_before_anything_heavy_is_loaded():
    code = "import sys, stillhouse.train.environment; print(any(m in sys.modules for m in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
