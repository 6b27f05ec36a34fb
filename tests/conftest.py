"""Shared ground: a store of its own for the whole session, small recipes on disk, one finished trial run, the real data."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_runs import Workspace, sums, trial_recipe, write_jsonl

os.environ["HF_HUB_OFFLINE"] = "1"  # no test may fetch anything

COMMAND = [sys.executable, "-m", "stillhouse"]


def pytest_sessionstart(session: pytest.Session) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["STILLHOUSE_LAUNCHED"] = (
        ""  # commands are started as they are; tests/test_launch.py looks at the other way
    )


@pytest.fixture(autouse=True, scope="session")
def _own_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nobody's cache folder is read or written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STILLHOUSE_STORE", str(tmp_path_factory.mktemp("store")))
        yield


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real inputs made by others."""
    named = os.environ.get("STILLHOUSE_TEST_DATA")
    if not named:
        pytest.skip("STILLHOUSE_TEST_DATA is not set: no real input to test on")
    return Path(named)


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Writes a recipe with its seeds and held-out questions into a new folder; gives the recipe's path."""

    def make(recipe: Mapping[str, Any], *, seeds: int = 24, held: int = 12) -> Path:
        folder = tmp_path_factory.mktemp("work")
        write_jsonl(folder / "seeds.jsonl", sums(seeds))
        write_jsonl(folder / "held.jsonl", sums(held, start=1000))
        path = folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(dict(recipe), sort_keys=False), encoding="utf-8")
        return path

    return make


@pytest.fixture(scope="session")
def trial(workspace: Workspace) -> Any:
    """A finished run of the trial recipe. Tests that change it work on a copy."""
    from stillhouse import distill

    recipe = workspace(trial_recipe())
    return distill(recipe, out=recipe.parent / "run", quiet=True)


@pytest.fixture
def still() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line in a process of its own."""

    def call(*words: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *map(str, words)],
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, **environment},
        )

    return call
