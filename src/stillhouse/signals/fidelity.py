"""How far what a store gives back is from what the teacher said.

Legend: N positions, V vocabulary, H hidden width.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stillhouse.files import replacing
from stillhouse.render import Rendered, addressable
from stillhouse.signals.beliefs import Head
from stillhouse.signals.codecs import Draws, Kept
from stillhouse.signals.store import FIDELITY, SignalReader

if TYPE_CHECKING:
    import torch


def kl_error(logits_NV: "torch.Tensor", read: Any, head: Head | None) -> float | None:
    """Mean KL(teacher || stored) in nats a position; the tail of a top-k counts as spread evenly. None for a sample.

    A sample says nothing about what was not drawn, so its divergence is infinite; its gradients are right on average.
    """
    import torch

    log_p_NV = logits_NV.double().log_softmax(-1)
    if isinstance(read, Draws):
        return None
    if isinstance(read, Kept):
        log_q_NV = _spread(read, log_p_NV.shape[1])
    else:
        assert head is not None
        rows = head.projected(read).source().rows(torch.arange(len(log_p_NV)), log_p_NV.shape[1], torch.float32)
        log_q_NV = rows.double().log_softmax(-1)
    return float(torch.nn.functional.kl_div(log_q_NV, log_p_NV, log_target=True, reduction="none").sum(-1).mean())


def _spread(read: Kept, vocabulary: int) -> "torch.Tensor":
    import torch

    ids_NK, logprobs_NK = (torch.from_numpy(array) for array in read.padded())
    tail_N1 = (1 - logprobs_NK.double().exp().sum(-1, keepdim=True)).clamp(min=1e-9)
    left_N1 = torch.from_numpy(vocabulary - read.counts_N)[:, None].clamp(min=1)
    log_q_NV = (tail_N1 / left_N1).log().repeat(1, vocabulary)
    # what fills a row up repeats its first token
    filled_NK = ids_NK < 0
    ids_NK = torch.where(filled_NK, ids_NK[:, :1], ids_NK)
    logprobs_NK = torch.where(filled_NK, logprobs_NK[:, :1], logprobs_NK)
    return log_q_NV.scatter_(-1, ids_NK, logprobs_NK.double())


def note_fidelity(folder: Path, keys: Sequence[str], rows: Sequence[Rendered], model: Any, tokenizer: Any) -> None:
    """Measures a few rows of a new store against the teacher once more, and writes it beside them."""
    import torch

    from stillhouse.teachers.forced import forced

    reader = SignalReader(folder)
    read = reader.read(reader.places(keys))
    width = addressable(tokenizer)
    logits = forced(model, tokenizer, rows, lambda _, logits_TV, hidden: logits_TV[:, :width].float().cpu())
    head = Head.read(folder) if reader.contract.form == "Dense" else None
    told: dict[str, Any] = {"positions": sum(len(row.response) for row in rows)}
    told["kl"] = kl_error(torch.cat(list(logits)), read, head)
    if isinstance(read, Kept | Draws):
        told["tokens_kept"] = round(float(read.counts_N.mean()), 2)
    if isinstance(read, Kept):
        told["mass_kept"] = round(float(np.exp(read.logprobs_n).sum() / len(read.counts_N)), 5)
    with replacing(folder / FIDELITY) as part:
        part.write_text(json.dumps(told), encoding="utf-8")
