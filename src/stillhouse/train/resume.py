"""What a resumed training needs beside the library's own checkpoint, and when there is one to go on from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from stillhouse.train.batch import Branch
from stillhouse.train.terms import Term

TOTALS = "stillhouse.json"
OBJECTIVES = "objectives.pt"
MEMORY = "rollouts-{}.json"  # of each process
_STATE = "trainer_state.json"  # the last file the library writes: without it a checkpoint is not whole


@dataclass(slots=True)
class Totals:
    """Counted since the first step. `losses` are the terms' sums over the `steps` since the last row of `history`."""

    losses: list[float]
    rewards: list[float] = field(default_factory=lambda: [0.0, 0.0])  # their sum and number, since the last row too
    steps: int = 0
    input_tokens: int = 0
    target_tokens: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    met: dict[str, list[float]] = field(default_factory=dict)  # by teacher: positions compared, and asked for

    def meet(self, teacher: str, met: float, asked: float) -> None:
        if asked:
            known = self.met.setdefault(teacher, [0.0, 0.0])
            known[:] = [known[0] + met, known[1] + asked]

    def write(self, folder: Path, identity: str) -> None:
        (folder / TOTALS).write_text(json.dumps({"identity": identity, **asdict(self)}))

    @classmethod
    def read(cls, folder: Path) -> "Totals":
        found = json.loads((folder / TOTALS).read_text())
        return cls(**{name: value for name, value in found.items() if name != "identity"})


def resume_point(out: Path, identity: str) -> Path | None:
    """The last whole checkpoint in `out` that was made from the same inputs."""
    folders = [folder for folder in out.glob("checkpoint-*") if folder.name.split("-")[-1].isdigit()]
    for folder in sorted(folders, key=lambda folder: -int(folder.name.split("-")[-1])):
        try:
            json.loads((folder / _STATE).read_text())
            if json.loads((folder / TOTALS).read_text())["identity"] == identity:
                return folder
        except (FileNotFoundError, json.JSONDecodeError, KeyError):
            continue  # the process ended while it wrote this one
    return None


def identity_of(
    model: Any,
    terms: Sequence[Term],
    branches: Mapping[str, Branch],
    arguments: Mapping[str, Any],
    rollouts: Any,
    *rest: Any,
) -> str:
    """Equal for two calls that would train the same student in the same way."""
    told = [
        _weights(model),
        [(term.label, term.weight, term.teachers, _told(term.objective), *term.places) for term in terms],
        [sorted((name, _told(value)) for name, value in term.knobs.items()) for term in terms],
        sorted((name, branch.content()) for name, branch in branches.items()),
        # how often to save and to log does not change what is learned
        sorted((name, repr(value)) for name, value in arguments.items() if not name.startswith(("save_", "logging_"))),
        [] if rollouts is None else sorted((f.name, _told(getattr(rollouts, f.name))) for f in fields(rollouts)),
        [repr(value) for value in rest],
    ]
    return sha256(json.dumps(told).encode()).hexdigest()[:16]


def _weights(model: Any) -> str:
    """A hash of a sample of every parameter: enough to tell another starting point."""
    digest = sha256()
    for name, parameter in model.named_parameters():
        flat = parameter.detach().flatten()
        sample = flat[:: max(1, flat.numel() // 64)].float().cpu()
        digest.update(name.encode() + sample.numpy().tobytes())
    return digest.hexdigest()


def _told(value: Any) -> str:
    """What a knob is, without the addresses that change from process to process."""
    if isinstance(value, partial):
        return f"{_told(value.func)}{value.args}{sorted((name, _told(v)) for name, v in value.keywords.items())}"
    if isinstance(value, torch.nn.Module):
        return f"{type(value).__qualname__} {_weights(value)}"
    if callable(value):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    return repr(value)
