"""One answer to one question about a recipe."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

# ok: as it should be; note: worth knowing; warning: known to lose; refused: cannot be right
Verdict = Literal["ok", "note", "warning", "refused"]


@dataclass(frozen=True, slots=True)
class Finding:
    about: str
    verdict: Verdict
    text: str
    numbers: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
