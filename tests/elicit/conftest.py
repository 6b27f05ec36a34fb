"""Elicitors are tested through the layer that really asks: a store in a temporary folder and a scripted teacher."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stillhouse.teachers.base import Sampling
from stillhouse.teachers.calls import Calls
from stillhouse.teachers.scripted import Teacher


@pytest.fixture
def calls(tmp_path: Path) -> Iterator[Calls]:
    with Calls(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def scripted(calls: Calls) -> Callable[..., Any]:
    """`scripted(n=2, reply=...)`: a teacher that follows a script."""

    def make(n: int = 1, name: str = "script", **script: Any) -> Any:
        return calls.teacher(name, Teacher(**script), Sampling(n=n))

    return make
