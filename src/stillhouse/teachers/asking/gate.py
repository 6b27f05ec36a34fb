"""What may pass as a complete answer. A cut-off answer never does, and is never mended into one."""

from dataclasses import dataclass, field

from stillhouse.teachers.base import Answer, Failure

__all__ = ["CUT", "Counts", "usable"]

CUT = ("truncated", "reasoning_truncated")  # met the limit of tokens: another rung may help


def usable(answer: Answer) -> Answer | Failure:
    """The answer itself, or why it is none. A missing finish reason counts as cut off: it is never read as "stop"."""
    if answer.finish_reason == "length":
        if answer.reasoning and not answer.text.strip():
            told = f"reasoning used up the limit: cut after {answer.output_tokens} tokens before any answer"
            return Failure("reasoning_truncated", told)
        return Failure("truncated", f"cut after {answer.output_tokens} tokens; raise sampling.max_tokens")
    if answer.finish_reason == "unknown":
        return Failure("truncated", "the server did not say why it stopped, so the answer may be cut off")
    if answer.finish_reason in ("refusal", "content_filter"):
        return Failure("refused", f"finish reason {answer.finish_reason}")
    if not answer.text.strip():
        return Failure("empty", "only reasoning, no answer" if answer.reasoning.strip() else "no text")
    for text in (answer.text, answer.reasoning):
        if "\x00" in text:
            return Failure("malformed", "the answer holds a NUL character")
        if not text.isascii() and _has_surrogate(text):
            return Failure("malformed", "the answer holds a lone surrogate")
    return answer


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


@dataclass(slots=True)
class Counts:
    """What a teacher was asked in this run. Tokens and dollars are those spent now; `hit_*` those an earlier run spent.

    `cut` is how many attempts met their limit of tokens, `rungs` how many answers came at which limit (1: the recipe's own,
    each twice the one before), `same` how many requests were those of an earlier row again, `seconds` the time a local
    teacher worked, `served` which models answered under the name that was asked, `ignored` which fields of requests a
    server passed over.
    """

    asked: int = 0
    hits: int = 0
    answered: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    not_attempted: int = 0
    attempts: int = 0
    cut: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    hit_input_tokens: int = 0
    hit_output_tokens: int = 0
    hit_cost_usd: float = 0.0
    ignored: dict[str, int] = field(default_factory=dict)
    served: dict[str, int] = field(default_factory=dict)
    rungs: dict[str, int] = field(default_factory=dict)
    same: int = 0
    seconds: float = 0.0

    def balanced(self) -> bool:
        """Every request asked ended in exactly one state."""
        return self.asked == self.answered + sum(self.failed.values()) + self.not_attempted
