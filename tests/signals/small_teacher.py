"""A white-box teacher small enough to be made in every test."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
