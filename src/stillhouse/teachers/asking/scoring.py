"""Teachers as elicitors see them that also say how likely tokens are, or show the model itself."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stillhouse.errors import TeacherError
from stillhouse.records import Prompt
from stillhouse.teachers.asking.asked import Asked
from stillhouse.teachers.asking.beliefs import beliefs_of
from stillhouse.teachers.base import Answer, Failure, Outcome, Request, Reveals, Sampling, Scores, TokenBeliefs

__all__ = ["Revealing", "Scoring"]


class Scoring(Asked):
    """Also says how likely the tokens of a response are.

    What a server says is stored like an answer; a local teacher's beliefs cost no money and are worked out again.
    """

    def tokenizer_fingerprint(self) -> str:
        return _scores(self.backend).tokenizer_fingerprint()

    def signals(self) -> Path:
        """The folder of what this store keeps of teachers' signals."""
        return self._calls.store.folder / "signals"

    def telling(self, request: Request, k: int) -> Request:
        """The request itself where the weights lie here: its answer is then read once more (`told`)."""
        return replace(request, top_logprobs=k) if getattr(self.backend, "tells", False) else request

    def told(self, outcomes: Sequence[Outcome], *, k: int) -> list[TokenBeliefs | None]:
        """What was believed at each token of answers, in their order."""
        if not getattr(self.backend, "tells", False):
            pairs = [(o.request.messages, o.result.text) for o in outcomes if isinstance(o.result, Answer)]
            return list(self.top_logprobs(pairs, k=k))
        marks = ", ".join("?" * len(outcomes))
        sql = f"SELECT key, logprobs FROM answer WHERE key IN ({marks})"
        packed = dict(self._calls.store.rows(sql, [outcome.key for outcome in outcomes]))
        return [beliefs_of(packed[o.key]) if packed.get(o.key) else None for o in outcomes]

    def top_logprobs(self, pairs: Iterable[tuple[Prompt, str]], *, k: int) -> Iterator[TokenBeliefs]:
        if not hasattr(self.backend, "exchange"):
            yield from _scores(self.backend).top_logprobs(pairs, k=k)
            return
        limit = Sampling(max_tokens=1)
        for outcome in self.ask(Request(prompt, limit, scored=response, top_logprobs=k) for prompt, response in pairs):
            if isinstance(outcome.result, Failure):
                why = f"{outcome.result.kind}: {outcome.result.detail}"
                raise TeacherError(f"teacher {self.name!r} could not tell how likely a response is ({why})")
            ((packed,),) = self._calls.store.rows("SELECT logprobs FROM answer WHERE key = ?", [outcome.key])
            yield beliefs_of(packed)


class Revealing(Scoring):
    """Also gives the model itself."""

    def module(self) -> Any:
        return _reveals(self.backend).module()

    def tokenizer(self) -> Any:
        return _reveals(self.backend).tokenizer()


def _scores(backend: Any) -> Scores:
    return backend


def _reveals(backend: Any) -> Reveals:
    return backend
