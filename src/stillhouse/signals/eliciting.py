"""Signals elicited into a store: what is there is not worked out again, and what is there is checked when it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stillhouse.errors import RunFailed
from stillhouse.records import Example, Lost, Prompt, StoredSignal
from stillhouse.render import Rendered, reading_of
from stillhouse.signals.bits import PrefixCode
from stillhouse.signals.codecs import Draws, Kept, id_gaps
from stillhouse.signals.contract import Contract, Form, contract_of, ids_hash, row_key
from stillhouse.signals.fidelity import note_fidelity
from stillhouse.signals.store import FIDELITY, SignalWriter
from stillhouse.signals.taking import head_of, kept, sampled, save_head, scale_of, top_k
from stillhouse.teachers.asking.answers import default_store
from stillhouse.teachers.base import Reveals

if TYPE_CHECKING:
    import torch

_AT_ONCE = 128  # rows read and written together; a killed run repeats at most these
_MEASURED = 8  # rows of a new store that are held against the teacher once more


@dataclass(frozen=True, slots=True)
class _Row:
    """What was taken of one response."""

    taken: Any  # Kept, Draws or hidden_TH
    ids: list[int]
    logprob: float


def stored(
    examples: Iterable[Example], teacher: Any, form: Form, settings: dict[str, Any], *, asked: bool
) -> Iterator[StoredSignal | Lost]:
    """Each example with its signals in the store; lost as "too_long" where it does not fit the teacher.

    `asked`: the teacher reads the prompt that the response was elicited with and not the one the student learns under.
    """
    home = teacher.signals() if hasattr(teacher, "signals") else default_store() / "signals"
    work: _Local | _Served = (
        _Local(teacher, form, settings) if isinstance(teacher, Reveals) else _Served(teacher, settings)
    )
    source = iter(examples)
    with SignalWriter(home, contract_of(form, settings, teacher)) as writer:
        while chunk := list(islice(source, _AT_ONCE)):
            pairs = [((one.asked or one.prompt) if asked else one.prompt, one.response) for one in chunk]
            keys = [row_key(*pair) for pair in pairs]
            missing = {key: pair for key, pair in zip(keys, pairs) if key not in writer}
            too_long = _add(writer, missing, work)
            writer.flush()
            for one, key in zip(chunk, keys):
                if key in too_long:
                    yield Lost(one.id, "too_long", detail=too_long[key])
                else:
                    yield one.signalled(str(writer.folder), key, teacher=getattr(teacher, "name", ""))


def _add(writer: SignalWriter, missing: dict[str, tuple[Prompt, str]], work: _Local | _Served) -> dict[str, str]:
    """Works out and writes what is missing; returns what does not fit the teacher, and why."""
    too_long: dict[str, str] = {}
    if not missing:
        return too_long
    rows = {key: row for key, row in work.rows(missing, too_long)}
    if not rows:
        return too_long
    new = not (writer.folder / FIDELITY).is_file()
    if new:
        work.verify(missing, rows)
    work.prepare(writer.folder)
    codec = writer.codec(lambda: work.coding([row.taken for row in rows.values()], writer.contract))
    for key, row in rows.items():
        writer.add(key, ids_hash(row.ids), codec.encode(row.taken), len(row.ids), row.logprob)
    if new:
        writer.flush()
        work.measure(writer.folder, {key: missing[key] for key in islice(rows, _MEASURED)})
    return too_long


class _Local:
    """A teacher whose weights lie here: one forward pass over the response shows everything."""

    def __init__(self, teacher: Reveals, form: Form, settings: dict[str, Any]) -> None:
        self.model, self.tokenizer = teacher.module(), teacher.tokenizer()
        self.whole = reading_of(self.model).whole
        self.form, self.settings, self.name = form, settings, getattr(teacher, "name", "?")
        self._take = self._taker()
        self._head = head_of(self.model) if form == "Dense" else {}
        self._scale: float | None = None

    def rows(self, missing: dict[str, tuple[Prompt, str]], too_long: dict[str, str]) -> Iterator[tuple[str, _Row]]:
        from stillhouse.teachers.forced import context, forced

        rendered = {key: self.whole(self.tokenizer, *pair) for key, pair in missing.items()}
        room = context(self.model)
        for key, row in rendered.items():
            if len(row.ids) > room:
                too_long[key] = f"{len(row.ids)} tokens, the teacher's context holds {room}"
        fitting = {key: row for key, row in rendered.items() if key not in too_long}
        taken = forced(self.model, self.tokenizer, list(fitting.values()), self._row, hidden=self.form == "Dense")
        yield from zip(fitting, taken)

    def prepare(self, folder: Path) -> None:
        if self.form == "Dense":
            assert self._scale is not None
            save_head(folder, self._head, self._scale)

    def verify(self, missing: dict[str, tuple[Prompt, str]], rows: dict[str, _Row]) -> None:
        """A new store: what is taken for a row's log-probability must be what the model's own loss says of it."""
        import torch

        key = min(rows, key=lambda each: len(rows[each].ids))
        whole = self.whole(self.tokenizer, *missing[key])
        ids = torch.tensor([whole.ids], device=self.model.device)
        labels = ids.clone()
        labels[:, : whole.start] = -100
        if self.model.config.is_encoder_decoder:
            ids, labels = ids[:, : whole.start], ids[:, whole.start :]
        with torch.inference_mode():
            loss = float(self.model(input_ids=ids, labels=labels).loss)
        ours = -rows[key].logprob / len(whole.response)
        if abs(loss - ours) > 0.02 + 0.02 * abs(loss):
            raise RunFailed(
                f"signals of teacher {self.name!r}: its own loss of a row is {loss:.3f} and the signals say {ours:.3f}: they "
                "do not stand at their tokens; report this with the model's name"
            )

    def measure(self, folder: Path, pairs: dict[str, tuple[Prompt, str]]) -> None:
        rows = [self.whole(self.tokenizer, *pair) for pair in pairs.values()]
        note_fidelity(folder, list(pairs), rows, self.model, self.tokenizer)

    def coding(self, taken: list[Any], contract: Contract) -> dict[str, Any]:
        assert contract.vocabulary is not None
        if self.form == "Dense":
            return {"width": taken[0].shape[1]}
        return {"ids": _fitted(taken, contract.vocabulary)}

    def _row(self, row: Rendered, logits_TV: torch.Tensor, hidden_TH: torch.Tensor | None) -> _Row:
        import torch

        from stillhouse.render import addressable

        if self.form == "Dense" and self._scale is None:
            assert hidden_TH is not None
            self._scale = scale_of(self._head, logits_TV, hidden_TH)
        # columns beyond what the tokenizer can give belong to no token
        logits_TV = logits_TV[:, : addressable(self.tokenizer)]
        targets = torch.tensor(row.response, device=logits_TV.device)
        hit = logits_TV.float().log_softmax(-1).gather(-1, targets[:, None])
        return _Row(self._take(row, logits_TV, hidden_TH), row.response, float(hit.double().sum()))

    def _taker(self) -> Callable[..., Any]:
        settings = self.settings
        if self.form == "TopK":
            return lambda row, logits, _: top_k(logits, k=settings["k"], least=settings["least"])
        if self.form == "Sampled":
            # by content: the same response is drawn in the same way, whatever stands beside it
            return lambda row, logits, _: sampled(
                logits, draws=settings["draws"], seed=ids_hash(row.ids) ^ settings["seed"]
            )
        return lambda row, _, hidden: np.array(hidden.float().cpu().numpy())


class _Served:
    """A teacher behind a server, which tells its likeliest tokens."""

    def __init__(self, teacher: Any, settings: dict[str, Any]) -> None:
        self.teacher, self.settings = teacher, settings

    def rows(self, missing: dict[str, tuple[Prompt, str]], too_long: dict[str, str]) -> Iterator[tuple[str, _Row]]:
        for key, told in zip(missing, self.teacher.top_logprobs(missing.values(), k=self.settings["k"])):
            row = kept(told.top_ids_TK.astype(np.int64), told.top_logprobs_TK, self.settings["least"])
            yield key, _Row(row, told.token_ids_T.tolist(), float("nan"))

    def prepare(self, folder: Path) -> None:
        pass

    def verify(self, missing: dict[str, tuple[Prompt, str]], rows: dict[str, _Row]) -> None:
        pass  # the server echoed each token, and that was checked

    def measure(self, folder: Path, pairs: dict[str, tuple[Prompt, str]]) -> None:
        pass  # the rest of the distribution was never seen

    def coding(self, taken: list[Any], contract: Contract) -> dict[str, Any]:
        # nobody says how many ids a server's tokenizer has: room for every one that 18 bits can number
        largest = max(int(one.ids_n.max()) for one in taken)
        return {"ids": _fitted(taken, max(largest + 1, 1 << 18))}


def _fitted(taken: list[Kept] | list[Draws], vocabulary: int) -> list[int]:
    numbers = [id_gaps(one) if isinstance(one, Draws) else one.ids_n for one in taken]
    return list(PrefixCode.fitted(np.concatenate(numbers), vocabulary).widths)
