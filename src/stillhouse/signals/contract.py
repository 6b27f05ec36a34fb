"""What a store of signals is about, and who may learn from it: checked on open, never assumed."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from stillhouse.errors import RecipeError, RunFailed
from stillhouse.files import replacing
from stillhouse.records import Prompt, content_id
from stillhouse.render import addressable, end_ids, fingerprint

VERSION = 1
FILE = "contract.json"

Form = Literal["TopK", "Sampled", "Dense"]  # what is read from it: a class of kernels.beliefs


@dataclass(frozen=True, slots=True)
class Contract:
    """Everything that decides what the rows mean. Its hash names the folder, so nothing in it can change unseen.

    `teacher` is the identity of the backend: wire, model, revision (for local weights a hash of their content), dtype.
    `template` is a hash of the teacher's chat template, "" where it has none and None where it is not known (a server
    renders the prompts), as `end_id` and `vocabulary` then are not.
    """

    form: Form
    settings: dict[str, Any]
    teacher: dict[str, Any]
    tokenizer: str
    template: str | None = None
    end_id: int | None = None
    vocabulary: int | None = None
    version: int = field(default=VERSION)

    @property
    def id(self) -> str:
        return content_id(asdict(self))

    @property
    def about(self) -> str:
        return f"the signals of teacher {self.teacher.get('model', '?')!r}"

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / FILE) as part:
            part.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Contract":
        """Raises RecipeError where there is no store, RunFailed where it is not what its name says."""
        try:
            told = json.loads((folder / FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RecipeError(f"{folder}: there is no store of signals here any more; run the recipe again") from None
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise RunFailed(f"{folder / FILE}: damaged ({error}); delete the folder and run the recipe again") from None
        if not isinstance(told, dict) or told.get("version") != VERSION:
            raise RunFailed(f"{folder}: its signals were written by another version; run the recipe again")
        made = cls(**told)
        if made.id != folder.name:
            raise RunFailed(
                f"{folder / FILE}: was changed after it was written; delete the folder and run the recipe again"
            )
        return made

    def check_student(self, where: str, tokenizer: Any) -> None:
        """Refuses a student whose tokens or turns are not those the teacher's beliefs are about."""
        own = fingerprint(tokenizer)
        if own != self.tokenizer:
            raise RecipeError(
                f"{where}: {self.about} belong to another tokenizer ({self.tokenizer}) than the student's ({own}); "
                "take a student of the teacher's family, or learn from its text alone"
            )
        if self.vocabulary is not None and addressable(tokenizer) > self.vocabulary:
            raise RecipeError(
                f"{where}: {self.about} cover {self.vocabulary} ids and the student's tokenizer gives "
                f"{addressable(tokenizer)}; take a student of the teacher's family"
            )
        end = end_ids(tokenizer)[0]
        if self.end_id is not None and end != self.end_id:
            raise RecipeError(
                f"{where}: {self.about} end a turn with token {self.end_id} and the student with {end}; "
                "give the student the teacher's chat template"
            )
        if self.template is not None and template_hash(tokenizer) != self.template:
            raise RecipeError(
                f"{where}: {self.about} were made under another chat template than the student's; "
                "give the student the teacher's chat template (chat_template.jinja) or elicit the signals again"
            )


def template_hash(tokenizer: Any) -> str:
    template = getattr(tokenizer, "chat_template", None)
    return "" if template is None else hashlib.sha256(str(template).encode()).hexdigest()[:16]


def contract_of(form: Form, settings: dict[str, Any], teacher: Any) -> Contract:
    """The contract of a teacher as it is now; what only a local one can tell is left out for a server."""
    told = asdict(teacher.identity())
    told["settings"] = {name: value for name, value in told["settings"]}
    if not hasattr(teacher, "tokenizer"):
        return Contract(form, settings, told, teacher.tokenizer_fingerprint())
    tokenizer = teacher.tokenizer()
    return Contract(
        form,
        settings,
        told | {"computed_in": str(teacher.module().dtype).removeprefix("torch.")},
        fingerprint(tokenizer),
        template_hash(tokenizer),
        end_ids(tokenizer)[0],
        addressable(tokenizer),
    )


def row_key(prompt: Prompt, response: str) -> str:
    """16 hex digits of what was scored: the prompt as the teacher saw it, and the response."""
    return content_id("signal", prompt, response)


def ids_hash(ids: Any) -> int:
    """64 bits of a run of token ids."""
    import numpy as np

    return int.from_bytes(hashlib.blake2b(np.asarray(ids, "<i4").tobytes(), digest_size=8).digest(), "little")
