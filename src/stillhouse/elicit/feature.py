"""Feature knowledge: what the teacher believes about tokens (Eq. 6)."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from stillhouse.errors import RecipeError
from stillhouse.records import Example, Lost, Prompt, StoredSignal, TopLogprobs
from stillhouse.signals.eliciting import stored
from stillhouse.teachers.base import Reveals, Scores

__all__ = ["hidden_states", "sampled_tokens", "top_k", "top_logprobs"]


def top_logprobs(
    examples: Iterable[Example], teacher: Scores, *, k: int = 50, under: Literal["prompt", "asked"] = "prompt"
) -> Iterator[TopLogprobs]:
    """The teacher's `k` most likely tokens at each position of each response, with their log-probabilities.

    The teacher scores the response under the prompt the student will train on; `under: asked` lets it see the prompt
    the answer was elicited with instead, which distils a context that the student never sees (R43). 50 tokens hold
    nearly all of the mass of a confident teacher; what is missing is the tail. Raises RecipeError for a teacher that
    cannot tell log-probabilities. Sources: Eq. 6, R25-R28.
    """
    if not isinstance(teacher, Scores):
        raise RecipeError(
            f"feature.top_logprobs: teacher {getattr(teacher, 'name', '?')!r} cannot tell log-probabilities of a text; "
            "use a local one (backend: transformers or pocket), or labeling instead"
        )
    if k < 1:
        raise RecipeError(f"feature.top_logprobs: k is {k}; write 1 or more")
    waiting: deque[Example] = deque()
    fingerprint = teacher.tokenizer_fingerprint()

    def pairs() -> Iterator[tuple[Prompt, str]]:
        for example in examples:
            waiting.append(example)
            yield (example.asked or example.prompt) if under == "asked" else example.prompt, example.response

    for beliefs in teacher.top_logprobs(pairs(), k=k):
        yield waiting.popleft().believed(
            token_ids_T=beliefs.token_ids_T,
            top_ids_TK=beliefs.top_ids_TK,
            top_logprobs_TK=beliefs.top_logprobs_TK,
            tokenizer=fingerprint,
            teacher=getattr(teacher, "name", ""),
        )


def top_k(
    examples: Iterable[Example],
    teacher: Scores,
    *,
    k: int = 128,
    least: float = 1e-4,
    under: Literal["prompt", "asked"] = "prompt",
) -> Iterator[Annotated[StoredSignal, "TopK"] | Lost]:
    """The teacher's likeliest tokens at each position, in a store of signals: a tenth of the bytes of top_logprobs.

    At most `k` tokens a position, of these the ones of probability `least` or more (0 keeps all k); the rest is one
    bucket, the tail, whose mass is exact. The defaults take half the bytes of the plain top 64 at about its fidelity.
    Log-probabilities are kept in steps of 1/16 nat. What the store holds is not worked out again. Every divergence but
    universal_logit learns from it. Lost: "too_long" for the teacher. Sources: Eq. 6, R25-R28, methods 1.E.
    """
    if k < 1 or not 0 <= least < 1:
        raise RecipeError(
            f"feature.top_k: k is {k} and least {least}; write k of 1 or more and least from 0 to below 1"
        )
    _able("top_k", teacher, Scores, "tell log-probabilities of a text")
    yield from stored(examples, teacher, "TopK", {"k": k, "least": least}, asked=under == "asked")


def sampled_tokens(
    examples: Iterable[Example],
    teacher: Reveals,
    *,
    draws: int = 50,
    seed: int = 0,
    under: Literal["prompt", "asked"] = "prompt",
) -> Iterator[Annotated[StoredSignal, "Sampled"] | Lost]:
    """Tokens drawn from the teacher at each position, with how often each came: the fewest bytes, and no bias.

    The expected gradient is that of the whole distribution. The draws of a position are evenly spaced with one
    random offset, which varies less than independent ones. Serves divergence.forward_kl and nothing else: `still check`
    refuses others. What the store holds is not drawn again. Lost: "too_long" for the teacher. Source: Sparse Logit
    Sampling (arXiv 2503.16870).
    """
    if draws < 1:
        raise RecipeError(f"feature.sampled_tokens: draws is {draws}; write 1 or more")
    _able("sampled_tokens", teacher, Reveals, "show its distributions")
    yield from stored(examples, teacher, "Sampled", {"draws": draws, "seed": seed}, asked=under == "asked")


def hidden_states(
    examples: Iterable[Example],
    teacher: Reveals,
    *,
    dtype: Literal["exact", "bfloat16", "int8"] = "exact",
    under: Literal["prompt", "asked"] = "prompt",
) -> Iterator[Annotated[StoredSignal, "Dense"] | Lost]:
    """The teacher's last hidden states and, once, its output embedding: the whole distribution in 2 bytes per dimension.

    `exact` keeps them in the dtype the teacher computes in, bfloat16 halves a float32 teacher, int8 has a scale per
    position. For teachers of small width (below about 100 dimensions it is smaller than 64 tokens, in int8 below 200)
    and for every objective on beliefs. What the store holds is not worked out again. Lost: "too_long" for the teacher.
    Raises RecipeError for a teacher whose logits are more than its output embedding. Sources: Eq. 6, KDFlow.
    """
    _able("hidden_states", teacher, Reveals, "show its hidden states")
    if dtype not in ("exact", "bfloat16", "int8"):
        raise RecipeError(f"feature.hidden_states: dtype is {dtype!r}; write exact, bfloat16 or int8")
    held = str(teacher.module().dtype).removeprefix("torch.") if dtype == "exact" else dtype
    # float16 has digits that bfloat16 has not
    settings = {"dtype": held if held in ("bfloat16", "int8") else "float32"}
    yield from stored(examples, teacher, "Dense", settings, asked=under == "asked")


def _able(name: str, teacher: object, protocol: type, what: str) -> None:
    if not isinstance(teacher, protocol):
        raise RecipeError(
            f"feature.{name}: teacher {getattr(teacher, 'name', '?')!r} cannot {what}; "
            "use a local one (backend: transformers or pocket), or labeling instead"
        )
