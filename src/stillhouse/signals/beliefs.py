"""Stored rows as the beliefs that divergences take, and the test that they stand where they should.

Legend: N positions, K kept tokens, V vocabulary, H hidden width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stillhouse.errors import RecipeError
from stillhouse.signals.codecs import Draws, Kept
from stillhouse.signals.contract import ids_hash
from stillhouse.signals.store import HEAD, SignalReader

_PROBED_ROWS = 64
_PROBED_POSITIONS = 32  # fewer tell nothing
_SHIFTS = (-1, 0, 1)
# another alignment is believed where it explains the tokens better and follows the rows better, by so much;
_CLEARLY, _MORE = 0.25, 0.2
# where there is nothing to follow: much better, and by a teacher that knows the text
_FEW_ROWS, _SURELY, _KNOWS = 6, 1.0, -4.0


class StoredSignals:
    """The rows that a branch of training data learns from, checked against the student's own tokens.

    `rows` are the keys of the rows and `responses` the student's token ids of each. Raises RecipeError, in one
    sentence, where the student, the data or the alignment is not what the signals are about.
    """

    def __init__(
        self, where: str, folder: Path, rows: Sequence[str], responses: Sequence[Sequence[int]], tokenizer: Any
    ) -> None:
        self._reader = SignalReader(folder)
        self._reader.contract.check_student(where, tokenizer)
        self._places = self._reader.places(rows)
        self._where, self._head = where, Head.read(folder) if self._reader.contract.form == "Dense" else None
        self._same_data(rows, responses)
        self._aligned(responses)

    @property
    def form(self) -> str:
        return self._reader.contract.form

    def beliefs(self, numbers: Sequence[int], *, vocabulary: int, device: Any = "cpu") -> Any:
        """What the teacher believes at the targets of these rows (indices into `rows`), one after the other."""
        read = self._reader.read(self._places[np.asarray(numbers)])
        return beliefs_of(read, self._head, vocabulary=vocabulary, device=device)

    def told(self) -> dict[str, Any]:
        return self._reader.told()

    def _same_data(self, rows: Sequence[str], responses: Sequence[Sequence[int]]) -> None:
        missing = int((self._places < 0).sum())
        if missing:
            raise RecipeError(
                f"{self._where}: {missing} of {len(rows)} rows have no signals in {self._reader.folder}; "
                "the texts were changed or the store was emptied, so run the step that elicits them again"
            )
        stored = self._reader.entries["ids"][self._places]
        for row, response, mark in zip(rows, responses, stored):
            if ids_hash(response) != int(mark):
                raise RecipeError(
                    f"{self._where}: the signals of row {row} are about other tokens than the student learns there; "
                    "elicit them again with the same chat template"
                )

    def _aligned(self, responses: Sequence[Sequence[int]]) -> None:
        """Off by one, the beliefs would be about the neighbour of each token.

        They would explain it better; and where the teacher's own log-probability of each row is known, they would follow
        it better too: a teacher that repeats itself on a text it does not know explains neighbours, and follows nothing.
        """
        spread = np.linspace(0, len(responses) - 1, min(_PROBED_ROWS, len(responses))).astype(int)
        chosen = [int(number) for number in np.unique(spread) if len(responses[number]) > 2]
        ids = [responses[number] for number in chosen]
        if sum(len(each) - 2 for each in ids) < _PROBED_POSITIONS:
            return
        score_RS = shifted_scores(self._reader.read(self._places[chosen]), ids, self._head)
        mean_S = dict(zip(_SHIFTS, score_RS.mean(0).tolist()))
        best = max(_SHIFTS, key=lambda shift: mean_S[shift])
        entries = self._reader.entries[self._places[chosen]]
        if best == 0 or not _believable(best, mean_S, score_RS, entries["logprob"] / entries["tokens"]):
            return
        raise RecipeError(
            f"{self._where}: the signals stand 1 place {'later' if best < 0 else 'earlier'} than the tokens they are about "
            f"(they give the tokens {mean_S[best]:.2f} nats each there and {mean_S[0]:.2f} where they stand); "
            f"delete {self._reader.folder} and run the recipe again"
        )


def _believable(best: int, mean_S: dict[int, float], score_RS: np.ndarray, logprob_R: np.ndarray) -> bool:
    gain = mean_S[best] - mean_S[0]
    sure = gain > _SURELY and mean_S[best] > _KNOWS
    if len(score_RS) < _FEW_ROWS or not np.isfinite(logprob_R).all():
        return sure
    follows = {shift: _follows(score_RS[:, at], logprob_R) for at, shift in enumerate(_SHIFTS)}
    more = follows[best] - follows[0]
    return (sure and more >= 0) or (gain > _CLEARLY and more > _MORE)


def _follows(score_R: np.ndarray, logprob_R: np.ndarray) -> float:
    """The correlation over rows; 0 where all rows are alike."""
    if min(score_R.std(), logprob_R.std()) < 1e-6:
        return 0.0
    return float(np.corrcoef(score_R, logprob_R)[0, 1])


class Head:
    """The teacher's output embedding: from a store, or as `taking.head_of` gives it."""

    def __init__(self, told: dict[str, Any], scale: float) -> None:
        self.weight_VH, self.bias_V, self.scale = told["weight"], told.get("bias"), scale

    @classmethod
    def read(cls, folder: Path) -> "Head":
        from safetensors.torch import load_file

        told = load_file(folder / HEAD)
        return cls(told, float(told["scale"]))

    def projected(self, hidden_NH: np.ndarray, device: Any = "cpu") -> Any:
        import torch

        from stillhouse.kernels.fused import Projected

        self.weight_VH = self.weight_VH.to(device)
        self.bias_V = None if self.bias_V is None else self.bias_V.to(device)
        hidden = torch.from_numpy(np.array(hidden_NH)).to(device)
        if self.weight_VH.dtype == torch.bfloat16:
            hidden = hidden.bfloat16()
        return Projected(hidden, self.weight_VH, self.bias_V, self.scale)


def beliefs_of(read: Any, head: Any, *, vocabulary: int, device: Any = "cpu") -> Any:
    """`Kept`, `Draws` or hidden states as `kernels.beliefs`."""
    import torch

    from stillhouse.kernels.beliefs import Dense, Sampled, TopK

    if isinstance(read, Kept):
        ids, logprobs = (torch.from_numpy(array).to(device) for array in read.padded())
        return TopK(ids, logprobs, vocabulary=vocabulary)
    if isinstance(read, Draws):
        ids, times = (torch.from_numpy(array).to(device) for array in read.padded())
        return Sampled(ids, times, vocabulary=vocabulary, distinct=True)
    return Dense(head.projected(read, device), vocabulary=vocabulary)


def shifted_scores(read: Any, responses: Sequence[Sequence[int]], head: Any) -> np.ndarray:
    """[R, 3] mean log-belief in each row's tokens if the beliefs were about the token before, at, or after their place.

    The first and the last token of each response are left out, so that all three are about the same positions.
    """
    score_NS = _beliefs_in(read, np.stack([_shifted(responses, shift) for shift in _SHIFTS], -1), head)
    ends = np.cumsum([len(ids) for ids in responses])
    return np.stack([score_NS[end - len(ids) + 1 : end - 1].mean(0) for end, ids in zip(ends, responses)])


def _shifted(responses: Sequence[Sequence[int]], shift: int) -> np.ndarray:
    """The token that stands `shift` places further, for each position."""
    return np.concatenate([np.roll(np.asarray(ids), -shift) for ids in responses])


def _beliefs_in(read: Any, ids_NS: np.ndarray, head: Any) -> np.ndarray:
    """The log-beliefs in several tokens at each position."""
    if isinstance(read, Kept):
        ids_NK, logprobs_NK = read.padded()
        tail_N = np.log((1 - np.exp(logprobs_NK).sum(-1)).clip(min=1e-9))
        hits = [ids_NK == ids_N[:, None] for ids_N in ids_NS.T]
        found = [np.where(hit_NK.any(-1), np.where(hit_NK, logprobs_NK, -np.inf).max(-1), tail_N) for hit_NK in hits]
        return np.stack(found, -1)
    if isinstance(read, Draws):
        ids_NK, times_NK = read.padded()
        drawn_NS = np.stack([((ids_NK == ids_N[:, None]) * times_NK).sum(-1) for ids_N in ids_NS.T], -1)
        # half a draw for what was never drawn
        return np.log(drawn_NS + 0.5) - np.log(times_NK.sum(-1, keepdims=True) + 0.5)
    import torch

    from stillhouse.kernels.fused import CPU_CHUNK_ROWS

    ids, source = torch.from_numpy(ids_NS.astype(np.int64)), head.projected(read).source()
    found = []
    for rows in torch.arange(len(ids)).split(CPU_CHUNK_ROWS):
        logits_nV = source.rows(rows, source.width, source.dtype)
        found.append((logits_nV.gather(-1, ids[rows]) - logits_nV.logsumexp(-1, keepdim=True)).numpy())
    return np.concatenate(found)
