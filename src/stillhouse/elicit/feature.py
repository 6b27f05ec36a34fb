"""Feature knowledge: what the teacher believes about tokens (Eq. 6)."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Literal

from stillhouse.errors import RecipeError
from stillhouse.records import Example, Prompt, TopLogprobs
from stillhouse.teachers.base import Scores

__all__ = ["top_logprobs"]


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
