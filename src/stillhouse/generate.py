"""Batched generation with a key-value cache: the one loop in which a local model answers, teacher or student.

Each row draws from random numbers of its own, made from its own seed, so that an answer depends on its prompt and seed
and not on its neighbours (up to the last bits of the arithmetic, which the size of a batch can change). Models that have a
`Decoder` answer in continuous batches; in those of others, rows that have ended leave. On vocabularies of real size a draw by
cumulative sum and binary search costs a tenth of `torch.multinomial`.

Shapes: B rows, V vocabulary, S tokens so far, T new tokens.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import DynamicCache, DynamicLayer, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from stillhouse.apart import decoder_start
from stillhouse.continuous import Continuous, Generated
from stillhouse.errors import RecipeError
from stillhouse.inference import answering, decoder_of

__all__ = ["Batch", "Generated", "answering", "generate", "generate_sorted", "inverse_cdf"]

# (logits_BV, which prompt each row answers, which of its tokens is next) -> the next token of each row
Drawer = Callable[[torch.Tensor, torch.Tensor, Any], torch.Tensor]
_BLOCK = 128  # tokens whose probabilities are added up together where the vocabulary is large
_EVICT = 0.75  # of the rows still at work: below it, copying the cache costs less than carrying the dead rows


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    eos_ids: Sequence[int],
    pad_id: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seeds: Sequence[int] | None = None,
) -> list[Generated]:
    """The model's answers to `prompts` (token ids), in their order, all in one batch.

    `temperature` 0 is greedy. `seeds` has one seed per row (0, 1, 2 ... where left out). The model answers in eval mode
    and is given back with the flags it came with, after an error too.
    """
    drawn = dict(
        generate_sorted(
            model, prompts, batch_size=max(len(prompts), 1), seeds=seeds, max_new_tokens=max_new_tokens, eos_ids=eos_ids,
            pad_id=pad_id, temperature=temperature, top_p=top_p,
        )
    )  # fmt: skip
    return [drawn[index] for index in range(len(prompts))]


def generate_sorted(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    batch_size: int,
    max_new_tokens: int,
    eos_ids: Sequence[int],
    pad_id: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seeds: Sequence[int] | None = None,
) -> Iterator[tuple[int, Generated]]:
    """(index, answer) pairs as they come, for any number of prompts: the longest first, `batch_size` at a time.

    A model that has a Decoder takes up the next prompt when rows end; another one answers batch by batch.
    """
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    decoder = None if model.config.is_encoder_decoder or not prompts else decoder_of(model)
    size = batch_size if decoder is None else max(len(order), 1)
    for start in range(0, len(order), size):
        part = order[start : start + size]
        given = [prompts[index] for index in part]
        chosen = [index if seeds is None else seeds[index] for index in part]
        draw = _drawer(temperature, top_p, chosen, max_new_tokens, model.device)
        if decoder is None:
            answers = _batch(model, given, max_new_tokens, eos_ids, pad_id, draw)
            yield from zip(part, answers)
            continue
        limits = _limits(model.config, [len(prompt) for prompt in given], max_new_tokens)
        rows = Continuous(decoder, given, limits, eos_ids, batch_size)
        while rows.at_work:
            for row, answer in _some(rows, draw):
                yield part[row], answer


@torch.inference_mode()
def _batch(
    model: Any, prompts: Sequence[Sequence[int]], limit: int, eos_ids: Sequence[int], pad: int, draw: Drawer
) -> list[Generated]:
    with answering(model):
        batch = (_Apart if model.config.is_encoder_decoder else Batch)(model, prompts, limit, eos_ids, pad)
        while batch.at_work:
            batch.take(draw(batch.next_logits(), batch.rows, batch.step))
        return batch.answers()


@torch.inference_mode()
def _some(rows: Continuous, draw: Drawer) -> list[tuple[int, Generated]]:
    """Goes on until rows have ended."""
    while not (ended := rows.just_ended()):
        rows.take(draw(rows.next_logits(), rows.rows, rows.steps))
    return ended


class _Buffer(DynamicLayer):
    """Keys and values in a buffer with room to grow, so that a step copies the new token and not the whole past."""

    length = 0
    room: list[torch.Tensor]
    keys: torch.Tensor
    values: torch.Tensor

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[-2]
        if self.length == 0 or end > self.room[0].shape[-2]:
            self.room = [
                self._grown(new, old, end) for new, old in ((key_states, self.keys), (value_states, self.values))
            ]
        for room, new in zip(self.room, (key_states, value_states)):
            room[:, :, self.length : end] = new
        self._show(end)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        self.room = [room.index_select(0, beam_idx) for room in self.room]
        self._show(self.length)

    def _grown(self, new: torch.Tensor, old: torch.Tensor, end: int) -> torch.Tensor:
        room = new.new_empty(*new.shape[:-2], end + max(64, end // 2), new.shape[-1])
        if self.length:
            room[:, :, : self.length] = old
        return room

    def _show(self, end: int) -> None:
        self.length = end
        self.keys, self.values = (room[:, :, :end] for room in self.room)


class Batch:
    """The rows at work: `rows` says which prompt each of them answers, `step` how many tokens it has given."""

    def __init__(
        self, model: Any, prompts: Sequence[Sequence[int]], limit: int, eos_ids: Sequence[int], pad: int
    ) -> None:
        device, sizes = model.device, [len(prompt) for prompt in prompts]
        longest = max(sizes)
        self.model, self.pad, self.step = model, pad, 0
        self.eos = torch.tensor(list(eos_ids), device=device)
        self.rows = torch.arange(len(prompts), device=device)
        self.limit_B = torch.tensor(_limits(model.config, sizes, limit), device=device)
        self.new_BT = torch.full((len(prompts), limit), pad, device=device)
        self.length_B = torch.zeros_like(self.rows)
        self.finished_B = torch.zeros_like(self.rows, dtype=torch.bool)
        self.done_B = self.limit_B == 0
        left = [[pad] * (longest - size) + list(prompt) for size, prompt in zip(sizes, prompts)]
        self.ids_BS = torch.tensor(left, device=device)
        # everything a row will ever see, made once; a step looks at its first columns
        places = torch.arange(longest + limit, device=device)
        self.mask_BS = places >= longest - torch.tensor(sizes, device=device)[:, None]
        self.position_BS = (self.mask_BS.cumsum(-1) - 1).clamp(min=0)
        self.padded = min(sizes) < longest
        self.seen = longest
        self.cache = DynamicCache(config=model.config)
        self.plain = all(type(layer) is DynamicLayer for layer in self.cache.layers) and bool(self.cache.layers)
        if self.plain:
            self.cache.layers = [_Buffer() for _ in self.cache.layers]
        self.last_only = {"logits_to_keep": 1} if _takes(model, "logits_to_keep") else {}

    @property
    def at_work(self) -> bool:
        return not bool(self.done_B.all())

    def next_logits(self) -> torch.Tensor:
        new = self.ids_BS.shape[1]
        out = self.model(
            input_ids=self.ids_BS,
            attention_mask=self._mask(),
            position_ids=self.position_BS[:, self.seen - new : self.seen],
            past_key_values=self.cache,
            use_cache=True,
            **self.last_only,
        )
        return out.logits[:, -1]

    def take(self, next_B: torch.Tensor) -> None:
        """One new token per row; rows that have ended leave once enough of them have."""
        self.new_BT[self.rows, self.step] = torch.where(self.done_B, self.pad, next_B)
        self.step += 1
        self.seen += 1
        stopped_B = torch.isin(next_B, self.eos) & ~self.done_B
        done_B = self.done_B | stopped_B | (self.step >= self.limit_B)
        now_B = done_B & ~self.done_B
        if bool(now_B.any()):
            self.length_B[self.rows[now_B]] = self.step
            self.finished_B[self.rows] |= stopped_B
            self.done_B = done_B
            alive = (~done_B).nonzero()[:, 0]
            if 0 < len(alive) <= _EVICT * len(done_B):
                self._keep(alive)
                next_B = next_B[alive]
        self.ids_BS = next_B[:, None]

    def answers(self) -> list[Generated]:
        rows = zip(self.new_BT.tolist(), self.length_B.tolist(), self.finished_B.tolist())
        return [Generated(ids[:length], finished) for ids, length, finished in rows]

    def _mask(self) -> torch.Tensor | None:
        if not self.padded:
            return None
        mask_BS = self.mask_BS[:, : self.seen]
        # one new token sees all that is not padding: given as it is used, the model need not derive it again
        if self.step and self.plain and self.model.config._attn_implementation == "sdpa":
            return mask_BS[:, None, None]
        return mask_BS

    def _keep(self, alive: torch.Tensor) -> None:
        self.cache.reorder_cache(alive)
        for name in ("rows", "done_B", "limit_B", "mask_BS", "position_BS"):
            setattr(self, name, getattr(self, name).index_select(0, alive))


class _Apart(Batch):
    """Rows whose prompts an encoder has read, once: the decoder begins with its start token and looks at them."""

    def __init__(
        self, model: Any, prompts: Sequence[Sequence[int]], limit: int, eos_ids: Sequence[int], pad: int
    ) -> None:
        _limits(model.config, [len(prompt) for prompt in prompts], 0)
        super().__init__(model, [[decoder_start(model)]] * len(prompts), limit, eos_ids, pad)
        self.cache = EncoderDecoderCache(self.cache, DynamicCache())
        rows = [torch.tensor(prompt) for prompt in prompts]
        read_BS = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad).to(model.device)
        sizes_B = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
        self.read_mask_BS = (torch.arange(read_BS.shape[1], device=model.device) < sizes_B[:, None]).long()
        self.states_BSH = model.get_encoder()(input_ids=read_BS, attention_mask=self.read_mask_BS).last_hidden_state

    def next_logits(self) -> torch.Tensor:
        out = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=self.states_BSH),
            attention_mask=self.read_mask_BS,
            decoder_input_ids=self.ids_BS,
            past_key_values=self.cache,
            use_cache=True,
        )
        return out.logits[:, -1]

    def _keep(self, alive: torch.Tensor) -> None:
        super()._keep(alive)
        self.states_BSH, self.read_mask_BS = self.states_BSH[alive], self.read_mask_BS[alive]


def _limits(config: Any, sizes: Sequence[int], limit: int) -> list[int]:
    window = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    if window is None:
        return [limit] * len(sizes)
    if max(sizes) >= window:
        raise RecipeError(
            f"a prompt of {max(sizes)} tokens leaves no room for an answer in the model's context of {window} tokens; "
            "shorten the prompt or take a model with a longer context"
        )
    return [min(limit, window - size) for size in sizes]


def _takes(model: Any, name: str) -> bool:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return name in inspect.signature(base.forward).parameters


def _drawer(temperature: float, top_p: float, seeds: Iterable[int], limit: int, device: Any) -> Drawer:
    if temperature == 0:
        return lambda logits_BV, rows, step: logits_BV.argmax(-1)
    # 24 bits and no more, so that none of them rounds up to 1
    draws = [np.random.Generator(np.random.Philox(key=seed % 2**64)).random(limit, dtype=np.float32) for seed in seeds]
    uniform_BT = torch.from_numpy(np.stack(draws)).to(device)

    def draw(logits_BV: torch.Tensor, rows: torch.Tensor, step: Any) -> torch.Tensor:
        logits_BV = logits_BV.float()
        probs_BV = torch.softmax(logits_BV if temperature == 1 else logits_BV / temperature, -1)
        if top_p < 1:
            probs_BV = _nucleus(probs_BV, top_p)
        return inverse_cdf(probs_BV, uniform_BT[rows, step])

    return draw


def inverse_cdf(probs_BV: torch.Tensor, uniform_B: torch.Tensor) -> torch.Tensor:
    """The token at which each row's cumulative probability passes its number in [0, 1); never one of probability 0.

    A number of 24 bits times a sum of float32 is below that sum after rounding, so the last token is not passed by.
    """
    vocabulary = probs_BV.shape[-1]
    if vocabulary <= _BLOCK**2:
        cdf_BV = probs_BV.cumsum(-1)
        return torch.searchsorted(cdf_BV, uniform_B[:, None] * cdf_BV[:, -1:], right=True)[:, 0]
    # a running sum over a block of tokens in place of all of them: first which block, then which token in it
    whole = vocabulary // _BLOCK * _BLOCK
    mass_BN = probs_BV[:, :whole].unflatten(-1, (-1, _BLOCK)).sum(-1)
    if whole < vocabulary:
        mass_BN = torch.cat([mass_BN, probs_BV[:, whole:].sum(-1, keepdim=True)], -1)
    cdf_BN = mass_BN.cumsum(-1)
    target_B1 = uniform_B[:, None] * cdf_BN[:, -1:]
    block_B1 = torch.searchsorted(cdf_BN, target_B1, right=True)
    column_BW = block_B1 * _BLOCK + torch.arange(_BLOCK, device=probs_BV.device)
    inside_BW = probs_BV.gather(-1, column_BW.clamp(max=vocabulary - 1)) * (column_BW < vocabulary)
    mass_B1 = mass_BN.gather(-1, block_B1)
    share_B1 = (target_B1 - (cdf_BN.gather(-1, block_B1) - mass_B1)) / mass_B1
    cdf_BW = inside_BW.cumsum(-1)
    within_B1 = share_B1.clamp(0, 1 - 2**-24) * cdf_BW[:, -1:]
    return (block_B1 * _BLOCK + torch.searchsorted(cdf_BW, within_B1, right=True))[:, 0]


def _nucleus(probs_BV: torch.Tensor, top_p: float) -> torch.Tensor:
    """The most likely tokens whose mass reaches `top_p`, the one that crosses it included."""
    sorted_BV, order_BV = probs_BV.sort(dim=-1, descending=True, stable=True)
    sorted_BV[sorted_BV.cumsum(-1) - sorted_BV >= top_p] = 0
    return torch.zeros_like(probs_BV).scatter_(-1, order_BV, sorted_BV)
