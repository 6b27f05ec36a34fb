"""A small teacher and examples, as the training tests make them."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
from train_helpers import make_examples, make_model, make_tokenizer

from stillhouse.render import fingerprint
from stillhouse.teachers.base import Identity


@dataclass
class SmallTeacher:
    """White box over a random Llama; its signals lie in `home`."""

    home: Path
    model: Any
    own: Any
    name: str = "main"

    def identity(self) -> Identity:
        return Identity("hf-local", "small", revision=str(self.model.lm_head.weight.sum().item()))

    def module(self) -> Any:
        return self.model

    def tokenizer(self) -> Any:
        return self.own

    def tokenizer_fingerprint(self) -> str:
        return fingerprint(self.own)

    def top_logprobs(self, pairs: Any, *, k: int) -> Any:
        raise AssertionError("a white box is read by its own forward pass")

    def signals(self) -> Path:
        return self.home


@pytest.fixture
def tokenizer() -> Any:
    return make_tokenizer()


@pytest.fixture
def teacher(tmp_path: Path, tokenizer: Any) -> SmallTeacher:
    return SmallTeacher(tmp_path / "signals", make_model(tokenizer, seed=1), tokenizer)


@pytest.fixture
def examples() -> Any:
    return make_examples(20)
