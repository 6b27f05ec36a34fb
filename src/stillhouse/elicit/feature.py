"""Feature knowledge: what the teacher believes about tokens (Eq. 6)."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Annotated, Any, Literal

from stillhouse.elicit.asking import asked, born, complete, instructed, keys_of, lost, seeds_of
from stillhouse.errors import RecipeError
from stillhouse.records import Example, Lost, Origin, Prompt, Seed, StoredSignal, TopLogprobs
from stillhouse.signals.eliciting import stored
from stillhouse.teachers.base import Outcome, Request, Reveals, Scores, Tells

__all__ = ["answer_top_logprobs", "hidden_states", "sampled_tokens", "top_k", "top_logprobs"]

_READ = 256  # answers whose beliefs are fetched, or worked out, together


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


def answer_top_logprobs(
    seeds: Iterable[Seed | Example], teacher: Scores, *, k: int = 20, instruction: str | None = None
) -> Iterator[TopLogprobs | Lost]:
    """The teacher's own answer to each seed with its `k` likeliest tokens at each place, as it wrote them: one request, not two.

    A vLLM server or engine tells them with the answer (`k` up to its `--max-logprobs`, 20 by default); weights that lie here
    read their answer once more. With a temperature they are those before it. `instruction` is for the teacher only, and its
    beliefs are then those under it (R43). Lost: "other_tokens" where the tokens that were written are not those that
    the text is read as, end of turn included, or where the server told none; failures of the answer by their names.
    Raises RecipeError for a teacher that cannot tell log-probabilities. Sources: Eq. 3 and 6, R25-R28.
    """
    _able("answer_top_logprobs", teacher, Tells, "tell log-probabilities of its answers")
    if k < 1:
        raise RecipeError(f"feature.answer_top_logprobs: k is {k}; write 1 or more")
    telling: Any = teacher
    asking, fingerprint = _Telling(telling, k), telling.tokenizer_fingerprint()
    rows = asked(seeds_of(seeds), asking, lambda seed: instructed(seed.prompt, instruction))
    while chunk := list(islice(rows, _READ)):
        texts = [complete(seed, slot, outcome) for seed, slot, outcome in chunk]
        found = iter(telling.told([row[2] for row, text in zip(chunk, texts) if not isinstance(text, Lost)], k=k))
        for (seed, slot, outcome), text in zip(chunk, texts):
            if isinstance(text, Lost):
                yield text
                continue
            beliefs = next(found)
            if beliefs is None:
                yield lost(seed, slot, outcome, "other_tokens", "the text is read as other tokens than were written")
                continue
            made = born(seed, text, outcome, asking.name).believed(
                token_ids_T=beliefs.token_ids_T,
                top_ids_TK=beliefs.top_ids_TK,
                top_logprobs_TK=beliefs.top_logprobs_TK,
                tokenizer=fingerprint,
                teacher=asking.name,
            )
            yield replace(made, origin=Origin((seed.id,), asking.name, keys_of(outcome)))


class _Telling:
    """The teacher, every request of which asks for log-probs."""

    def __init__(self, teacher: Any, k: int) -> None:
        self.name, self.sampling, self._teacher, self._k = teacher.name, teacher.sampling, teacher, k

    def ask(self, requests: Iterable[Request]) -> Iterator[Outcome]:
        yield from self._teacher.ask(self._teacher.telling(request, self._k) for request in requests)


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
