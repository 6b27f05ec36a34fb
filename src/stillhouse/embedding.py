"""Texts to vectors: how a model's states become one vector, a student that encodes at work, and its folder's layout.

Legend: R rows of C tokens, H hidden width, T texts. The folder is one that `transformers.AutoModel` loads, with the files
beside it by which sentence-transformers knows how to pool.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stillhouse.errors import RecipeError, nearest
from stillhouse.quiet import quiet
from stillhouse.records import user
from stillhouse.render import render_source

POOLINGS = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "last": "pooling_mode_lasttoken"}
_POOLING = Path("1_Pooling") / "config.json"


class Embedder:
    """A folder that encodes, one of our students or one in the layout of sentence-transformers.

    Raises RecipeError where no model can be loaded from it, or where it says a pooling that is not one of `POOLINGS`.
    """

    def __init__(self, path: str | Path, batch_size: int = 32):
        from transformers import AutoModel, AutoTokenizer

        folder = Path(path)
        folder = folder / "student" if (folder / "student" / "config.json").is_file() else folder
        try:
            with quiet():
                self.tokenizer = AutoTokenizer.from_pretrained(folder)
                self.model: Any = AutoModel.from_pretrained(folder).eval()
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise RecipeError(f"{path}: no model that encodes can be loaded from it: {reason}") from error
        self.pooling, self.batch_size = pooling_of(folder) or "mean", batch_size

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """[T, H] float32, as the model gives them: no length is changed."""
        import torch

        rows = [torch.tensor(render_source(self.tokenizer, user(text))) for text in texts]
        found = []
        for first in range(0, len(rows), self.batch_size):
            part = rows[first : first + self.batch_size]
            ids_RC = torch.nn.utils.rnn.pad_sequence(part, batch_first=True)
            size_R = torch.tensor([len(row) for row in part])
            with torch.inference_mode():
                found.append(pooled(self.model, ids_RC, size_R, self.pooling).float().numpy())
        return np.concatenate(found)


def pooled(model: Any, ids_RC: Any, size_R: Any, pooling: str) -> Any:
    """vectors_RH of the first `size_R` tokens of each row: their mean, or the state of the first or the last of them."""
    import torch

    read_RC = torch.arange(ids_RC.shape[1], device=ids_RC.device) < size_R[:, None]
    states_RCH = model(input_ids=ids_RC, attention_mask=read_RC.long()).last_hidden_state
    if pooling == "mean":
        return (states_RCH * read_RC[..., None]).sum(1) / size_R[:, None]
    at_R = size_R - 1 if pooling == "last" else torch.zeros_like(size_R)
    return states_RCH[torch.arange(len(ids_RC), device=ids_RC.device), at_R]


def pooling_of(folder: Path) -> str | None:
    """What a folder says about itself; None where it says nothing."""
    if not (folder / _POOLING).is_file():
        return None
    told = json.loads((folder / _POOLING).read_text(encoding="utf-8"))
    known = {key: name for name, key in POOLINGS.items()}
    said = [key for key, value in told.items() if key.startswith("pooling_mode") and value is True]
    # the newer layout names the pooling in one word
    named = [known.get(key, key) for key in said] or [
        str(told.get("pooling_mode", "mean")).replace("lasttoken", "last")
    ]
    if len(named) != 1 or named[0] not in POOLINGS:
        raise RecipeError(f"{folder}: pools by {', '.join(named)}; {nearest(named[0], POOLINGS)}")
    return named[0]


def write_layout(folder: Path, pooling: str, width: int, longest: int) -> None:
    """The files by which sentence-transformers finds the model and its pooling in `folder`."""
    kinds = [("", "Transformer"), (_POOLING.parent.name, "Pooling")]
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(kinds)
    ]
    told = {"word_embedding_dimension": width, **{key: name == pooling for name, key in POOLINGS.items()}}
    (folder / _POOLING).parent.mkdir(exist_ok=True)
    for name, content in (
        (Path("modules.json"), modules),
        (Path("sentence_bert_config.json"), {"max_seq_length": longest, "do_lower_case": False}),
        (_POOLING, told),
    ):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
