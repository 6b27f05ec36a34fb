"""A small teacher and examples, as the training tests make them."""

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
from small_teacher import SmallTeacher
from train_helpers import make_examples, make_model, make_tokenizer


@pytest.fixture
def tokenizer() -> Any:
    return make_tokenizer()


@pytest.fixture
def teacher(tmp_path: Path, tokenizer: Any) -> SmallTeacher:
    return SmallTeacher(tmp_path / "signals", make_model(tokenizer, seed=1), tokenizer)


@pytest.fixture
def examples() -> Any:
    return make_examples(20)
