"""From a teacher's forward pass to the rows of a store: what each form keeps of logits_TV and hidden_TH.

Legend: T places of a response, V vocabulary, H hidden width, K kept tokens, n kept tokens of all places.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stillhouse.errors import RecipeError
from stillhouse.files import replacing
from stillhouse.signals.codecs import Draws, Kept

if TYPE_CHECKING:
    import torch

_ROUNDING = 2e-3  # of the largest logit: how far two ways to one product may be apart in half precision


def top_k(logits_TV: torch.Tensor, *, k: int, least: float) -> Kept:
    """The `k` likeliest tokens of each place, of these the ones at least that likely; the likeliest always."""
    logprobs_TK, ids_TK = logits_TV.float().log_softmax(-1).topk(min(k, logits_TV.shape[-1] - 1), dim=-1)
    return kept(ids_TK.cpu().numpy(), logprobs_TK.cpu().numpy(), least)


def kept(ids_TK: np.ndarray, logprobs_TK: np.ndarray, least: float) -> Kept:
    enough_TK = logprobs_TK >= np.log(max(least, 1e-30))
    enough_TK[:, 0] = True
    return Kept(enough_TK.sum(-1), ids_TK[enough_TK].astype(np.int64), logprobs_TK[enough_TK])


def sampled(logits_TV: torch.Tensor, *, draws: int, seed: int) -> Draws:
    """`draws` tokens of each place: evenly spaced points of the cumulative probability, moved by one random offset.

    Each point is uniform, so counts / draws is an unbiased estimate of every probability, as with independent draws;
    a token of probability p comes either floor(p draws) or ceil(p draws) times, which is the least that can vary.
    """
    import torch

    # float64: the cumulative sum of 150,000 float32 would move the last tokens
    cdf_TV = logits_TV.double().softmax(-1).cumsum(-1)
    offset_T1 = np.random.Generator(np.random.Philox(key=seed)).random((len(cdf_TV), 1))
    point_TD = torch.from_numpy((np.arange(draws) + offset_T1) / draws).to(cdf_TV.device) * cdf_TV[:, -1:]
    ids_TD = torch.searchsorted(cdf_TV, point_TD, right=True).clamp_(max=cdf_TV.shape[-1] - 1).cpu().numpy()
    new_TD = np.diff(ids_TD, axis=1, prepend=-1) > 0
    counts_T = new_TD.sum(-1)
    at_n = np.flatnonzero(new_TD)
    return Draws(counts_T, ids_TD[new_TD], np.diff(np.append(at_n, ids_TD.size)))


def head_of(model: Any) -> dict[str, torch.Tensor]:
    """The output embedding as a store keeps it: weight, bias where there is one, and the scale of the logits."""
    head = model.get_output_embeddings()
    told = {"weight": head.weight.detach().cpu().contiguous().clone()}
    if getattr(head, "bias", None) is not None:
        told["bias"] = head.bias.detach().cpu().contiguous().clone()
    return told


def scale_of(head: dict[str, torch.Tensor], logits_TV: torch.Tensor, hidden_TH: torch.Tensor) -> float:
    """logits / (hidden @ head): 1 but for models that scale them. Raises RecipeError where the logits are no multiple of it."""
    import torch

    weight = head["weight"].float()
    plain_TV = torch.nn.functional.linear(
        hidden_TH.float().cpu(), weight, head["bias"].float() if "bias" in head else None
    )
    logits_TV = logits_TV.float().cpu()
    scale = float((plain_TV * logits_TV).sum() / plain_TV.square().sum())
    scale = 1.0 if abs(scale - 1) < 1e-3 else scale
    error = float((scale * plain_TV - logits_TV).abs().max() / logits_TV.abs().max())
    if error > (_ROUNDING if hidden_TH.dtype == torch.float32 else 10 * _ROUNDING):
        raise RecipeError(
            "feature.hidden_states: this teacher's logits are not its output embedding applied to its last hidden states "
            "(a soft cap or another head); use feature.top_k or feature.sampled_tokens"
        )
    return scale


def save_head(folder: Path, head: dict[str, torch.Tensor], scale: float) -> None:
    import torch
    from safetensors.torch import save_file

    from stillhouse.signals.store import HEAD

    if not (folder / HEAD).is_file():
        with replacing(folder / HEAD) as part:
            save_file({**head, "scale": torch.tensor(scale)}, part)
