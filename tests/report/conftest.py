"""Run folders made of small JSON, and the facts of one with other scores or another manifest."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillhouse.reporting.reading import RunFacts, read_run

from . import folders


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return folders.run_folder(tmp_path)


@pytest.fixture
def facts(tmp_path: Path) -> Callable[..., RunFacts]:
    """Facts of a run with the given scores (None: nothing was evaluated) and changes to its manifest."""

    def make(scores: dict[str, Any] | None = None, **changes: Any) -> RunFacts:
        run = folders.run_folder(tmp_path, items=4, **changes)
        if scores is None:
            (run / "evaluate" / "scores.json").unlink()
        else:
            folders.write(run / "evaluate" / "scores.json", scores)
        return read_run(run)

    return make
