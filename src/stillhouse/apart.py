"""Encoder-decoders: a row's prompt goes to the encoder, its response to the decoder.

Legend: R rows of C tokens, each one sequence; P tokens of a prompt, T of a response.
"""

from typing import Any

import torch
from torch import Tensor

from stillhouse.errors import RecipeError


def given_apart(model: Any, ids_RC: Tensor, target_RC: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """What encoder and decoder are given, and at_RT: where in the decoder's rows the targets are told.

    `target_RC` marks the position before each token of the response, as everywhere; what stands up to there is the prompt.
    """
    start_R, size_R = target_RC.int().argmax(1) + 1, target_RC.sum(1)
    columns = torch.arange(ids_RC.shape[1], device=ids_RC.device)
    mask_RP = columns[: int(start_R.max())] < start_R[:, None]
    place_T = columns[: int(size_R.max())]
    target_RT = ids_RC.gather(1, (start_R[:, None] + place_T).clamp(max=ids_RC.shape[1] - 1))
    first_R = torch.full_like(target_RT[:, :1], decoder_start(model))
    given = {
        "input_ids": ids_RC[:, : mask_RP.shape[1]],
        "attention_mask": mask_RP.long(),
        "decoder_input_ids": torch.cat([first_R, target_RT[:, :-1]], 1),
    }
    return given, place_T < size_R[:, None]


def decoder_start(model: Any) -> int:
    """The token that an encoder-decoder's decoder begins with. Raises RecipeError where its configuration names none."""
    told = (getattr(model.config, "decoder_start_token_id", None), model.generation_config.decoder_start_token_id)
    found = next((each for each in told if each is not None), None)
    if found is None:
        raise RecipeError(
            f"{type(model).__name__}: its config.json names no decoder_start_token_id, so nobody knows what its decoder "
            "begins with; write it there"
        )
    return int(found)
