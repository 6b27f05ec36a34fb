"""Teacher forcing: what a local model says at each place of responses that are given, in one forward pass for many.

Legend: B rows, T places of a response (its end-of-turn token included), V vocabulary, H hidden width.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from stillhouse.errors import RecipeError
from stillhouse.render import Rendered, pad_id

if TYPE_CHECKING:
    import torch

__all__ = ["context", "forced"]

_LOGITS_BYTES = 1 << 29  # of float32 logits at a time

Taken = TypeVar("Taken")
# (logits_TV, hidden_TH: what the output embedding was given, or None) of one row
Take = Callable[[Rendered, "torch.Tensor", "torch.Tensor | None"], Taken]


def forced(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Rendered],
    take: Take[Taken],
    *,
    batch_size: int = 32,
    hidden: bool = False,
) -> Iterator[Taken]:
    """What `take` makes of each row, in their order; rows are read longest first. `take` must copy what it keeps.

    `hidden` shows the states after the final norm too. Raises RecipeError for a row that does not fit the model.
    """
    vocabulary = model.get_output_embeddings().weight.shape[0]
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index].ids))
    found: dict[int, Taken] = {}
    while order:
        batch = order[: _rows_at_once(rows, order[:batch_size], vocabulary)]
        order = order[len(batch) :]
        read = _read_apart if model.config.is_encoder_decoder else _read
        found.update(zip(batch, read(model, tokenizer, [rows[index] for index in batch], take, hidden)))
    yield from (found[index] for index in range(len(rows)))


def context(model: Any) -> int:
    """How many tokens the model reads at once; a very large number where its configuration does not say."""
    return getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None) or 1 << 30


def _rows_at_once(rows: Sequence[Rendered], order: Sequence[int], vocabulary: int) -> int:
    taken, longest = 0, 1
    for index in order:
        longest = max(longest, len(rows[index].response) + 1)
        if taken and (taken + 1) * longest * vocabulary * 4 > _LOGITS_BYTES:
            break
        taken += 1
    return taken


def _read(model: Any, tokenizer: Any, rows: list[Rendered], take: Take[Taken], hidden: bool) -> Iterator[Taken]:
    """Left-padded rows, so that the responses stand together at the end."""
    import torch

    longest, kept = max(len(row.ids) for row in rows), max(len(row.response) for row in rows) + 1
    if longest > context(model):
        raise RecipeError(f"a row of {longest} tokens does not fit the teacher's context of {context(model)}")
    ids_BT = torch.full((len(rows), longest), pad_id(tokenizer))
    mask_BT = torch.zeros_like(ids_BT)
    for row, rendered in enumerate(rows):
        ids_BT[row, longest - len(rendered.ids) :] = torch.tensor(rendered.ids)
        mask_BT[row, longest - len(rendered.ids) :] = 1
    given = {
        "input_ids": ids_BT,
        "attention_mask": mask_BT,
        "position_ids": (mask_BT.cumsum(-1) - 1).clamp(min=0),
    }
    with _heard(model, hidden) as seen, torch.inference_mode():
        given = {name: tensor.to(model.device) for name, tensor in given.items()}
        logits_BTV = model(**given, use_cache=False, logits_to_keep=kept).logits[:, -kept:]
    with torch.inference_mode():
        for row, rendered in enumerate(rows):
            places = slice(kept - len(rendered.response) - 1, kept - 1)
            hidden_TH = seen[0][row, -kept:][places] if seen else None
            yield take(rendered, logits_BTV[row, places], hidden_TH)


def _read_apart(model: Any, tokenizer: Any, rows: list[Rendered], take: Take[Taken], hidden: bool) -> Iterator[Taken]:
    """The same of an encoder-decoder: the prompts go to the encoder, the responses to the decoder."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    from stillhouse.apart import given_apart

    ids_BT = pad_sequence([torch.tensor(row.ids) for row in rows], batch_first=True, padding_value=pad_id(tokenizer))
    told_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
    for at, row in enumerate(rows):
        told_BT[at, row.start - 1 : len(row.ids) - 1] = True
    with _heard(model, hidden) as seen, torch.inference_mode():
        given, _ = given_apart(model, ids_BT.to(model.device), told_BT.to(model.device))
        logits_BTV = model(**given, use_cache=False).logits
        for at, row in enumerate(rows):
            places = slice(len(row.response))
            yield take(row, logits_BTV[at, places], seen[0][at, places] if seen else None)


@contextmanager
def _heard(model: Any, hidden: bool) -> Iterator[list["torch.Tensor"]]:
    """What the output embedding is given, where it is wanted."""
    seen: list[torch.Tensor] = []
    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) if hidden else None
    try:
        yield seen
    finally:
        if hook is not None:
            hook.remove()
