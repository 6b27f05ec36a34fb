"""Bytes against fidelity of the ways to store one teacher's beliefs, on the user's own text and student.

Legend: N positions, V vocabulary, P parameters of the student.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stillhouse.render import Rendered, addressable
from stillhouse.signals.beliefs import Head, beliefs_of
from stillhouse.signals.bits import PrefixCode, padded
from stillhouse.signals.codecs import SampledCodec, StatesCodec, TopKCodec, id_gaps
from stillhouse.signals.contract import ids_hash
from stillhouse.signals.fidelity import kl_error
from stillhouse.signals.store import ENTRY
from stillhouse.signals.taking import head_of, sampled, scale_of, top_k
from stillhouse.teachers.forced import forced

if TYPE_CHECKING:
    import torch

# what is worth choosing between; all of it is measured on the same forward pass
TOP_K = (*((k, least) for k in (8, 16, 32, 64, 128) for least in (0.0, 1e-3)), (128, 1e-4), (256, 1e-4))
DRAWS = (12, 25, 50, 100)
STATES = ("bfloat16", "int8")
_NO_GRADIENT = 1e-3  # nats a token: a student this near its teacher has rounding for a gradient


@dataclass(frozen=True, slots=True)
class Measured:
    """One way to store. `kl`: mean KL(teacher || stored) in nats, None for samples; `cosine`: of the student's gradient.

    `bytes_per_token` includes the index and not the head of hidden states, which is kept once (`once` bytes).
    """

    do: str
    knobs: dict[str, Any]
    bytes_per_token: float
    kl: float | None
    cosine: float | None
    norm: float | None
    tokens_kept: float | None
    once: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def measured(rows: Sequence[Rendered], teacher: Any, student: Any, tokenizer: Any) -> Iterator[Measured]:
    """All ways, fewest bytes first. `teacher` and `student` are models over one tokenizer; without a student no gradients."""
    import torch

    width = addressable(tokenizer)
    head = head_of(teacher)
    taken = list(forced(teacher, tokenizer, rows, _both, hidden=True))
    logits_NV = torch.cat([logits[:, :width] for logits, _ in taken])
    lengths = [len(row.response) for row in rows]
    gradients = Gradients(student, tokenizer, rows, logits_NV) if student is not None else None
    found = []
    for do, knobs, codec, each in _ways(rows, [logits[:, :width] for logits, _ in taken], [h for _, h in taken], width):
        encoded = [codec.encode(one) for one in each]
        sizes = np.array([len(row) for row in encoded])
        ends = np.cumsum(sizes)
        read = codec.decode(padded(b"".join(encoded)), ends - sizes, ends, np.array(lengths))
        loose = Head(head, scale_of(head, *taken[0])) if do == "feature.hidden_states" else None
        cosine, norm = gradients.against(beliefs_of(read, loose, vocabulary=width)) if gradients else (None, None)
        found.append(
            Measured(
                do, knobs, round((int(sizes.sum()) + ENTRY.itemsize * len(rows)) / sum(lengths), 2),
                kl_error(logits_NV, read, loose), cosine, norm,
                round(float(read.counts_N.mean()), 2) if loose is None else None,
                sum(tensor.numel() * tensor.element_size() for tensor in head.values()) if loose else 0,
            )
        )  # fmt: skip
    yield from sorted(found, key=lambda one: one.bytes_per_token)


def bytes_per_token(do: str, knobs: dict[str, Any], rows: Sequence[Rendered], teacher: Any, tokenizer: Any) -> float:
    """What one elicitor with these knobs will store, by what it stores for these rows."""
    width = addressable(tokenizer)
    taken = list(forced(teacher, tokenizer, rows, _both, hidden=True))
    codec, each = way(do, knobs, rows, [logits[:, :width] for logits, _ in taken], [h for _, h in taken], width)
    size = sum(len(codec.encode(one)) for one in each) + ENTRY.itemsize * len(rows)
    return size / sum(len(row.response) for row in rows)


def _both(_: Rendered, logits_TV: Any, hidden_TH: Any) -> tuple[Any, Any]:
    return logits_TV.float().cpu(), hidden_TH.cpu()


def _ways(
    rows: Sequence[Rendered], logits: list[Any], hidden: list[Any], width: int
) -> Iterator[tuple[str, Any, Any, Any]]:
    ways: list[tuple[str, dict[str, Any]]] = [
        ("feature.top_k", {"k": k, "least": least}) for k, least in TOP_K if k < width
    ]
    ways += [("feature.sampled_tokens", {"draws": draws}) for draws in DRAWS]
    ways += [("feature.hidden_states", {"dtype": dtype}) for dtype in STATES]
    for do, knobs in ways:
        yield do, knobs, *way(do, knobs, rows, logits, hidden, width)


def way(
    do: str, knobs: dict[str, Any], rows: Sequence[Rendered], logits: list[Any], hidden: list[Any], width: int
) -> tuple[Any, Any]:
    """A codec and what it is given for each row."""
    if do == "feature.top_k":
        k = min(knobs.get("k", 128), width - 1)
        kept = [top_k(one, k=k, least=knobs.get("least", 1e-4)) for one in logits]
        return TopKCodec(k, PrefixCode.fitted(np.concatenate([one.ids_n for one in kept]), width)), kept
    if do == "feature.sampled_tokens":
        draws = knobs.get("draws", 50)
        drawn = [sampled(one, draws=draws, seed=ids_hash(row.ids)) for row, one in zip(rows, logits)]
        gaps = np.concatenate([id_gaps(one) for one in drawn])
        return SampledCodec(draws, PrefixCode.fitted(gaps, width)), drawn
    dtype = knobs.get("dtype", "exact")
    states = [one.float().numpy() for one in hidden]
    exact = "bfloat16" if str(hidden[0].dtype) == "torch.bfloat16" else "float32"
    return StatesCodec(states[0].shape[1], exact if dtype == "exact" else dtype), states


class Gradients:
    """The student's gradient of the forward KL over all rows at once, for any beliefs about them."""

    def __init__(self, student: Any, tokenizer: Any, rows: Sequence[Rendered], logits_NV: "torch.Tensor") -> None:
        import torch

        from stillhouse.kernels.beliefs import Dense
        from stillhouse.objectives.divergence import forward_kl

        self.model, self.vocabulary = student, addressable(tokenizer)
        self.parameters = [each for each in student.parameters() if each.requires_grad]
        outputs = []
        for row in rows:
            out = student(input_ids=torch.tensor([row.ids], device=student.device), use_cache=False).logits[0]
            outputs.append(out[row.start - 1 : -1])
        self.logits_NV = torch.cat(outputs).float()
        self._weight = torch.ones(len(self.logits_NV), device=self.logits_NV.device)
        dense = Dense(logits_NV.to(student.device), vocabulary=self.vocabulary)
        self.dense_P = self._of(dense)
        self.same = float(forward_kl(self.logits_NV.detach(), dense, self._weight)) < _NO_GRADIENT * len(self.logits_NV)

    def against(self, beliefs: Any) -> tuple[float | None, float | None]:
        """Cosine with the gradient of the whole distribution, and the ratio of their norms; None where that has none."""
        if self.same:
            return None, None
        mine_P = self._of(beliefs)
        norms = float(mine_P.norm()), float(self.dense_P.norm())
        return round(float(mine_P @ self.dense_P) / (norms[0] * norms[1]), 5), round(norms[0] / norms[1], 4)

    def _of(self, beliefs: Any) -> "torch.Tensor":
        import torch

        from stillhouse.objectives.divergence import forward_kl

        loss = forward_kl(self.logits_NV, beliefs, self._weight)
        found = torch.autograd.grad(loss, self.parameters, retain_graph=True, allow_unused=True)
        return torch.cat([each.flatten().double() for each in found if each is not None])
