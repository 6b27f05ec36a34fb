"""What every elicitor does around its own prompt and parser: ask in a stream, keep order, name what was lost.

Asking and parsing are separate, so that a better parser re-reads stored answers: `asked` yields raw outcomes,
`complete` decides whether there is a text to parse at all.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from stillhouse.errors import RecipeError
from stillhouse.records import Example, Lost, Message, Prompt, Ranking, Seed, TopLogprobs
from stillhouse.teachers.asking.gate import usable
from stillhouse.teachers.base import Answer, Failure, Generates, Outcome, Request, Sampling

__all__: list[str] = []

Position = Literal["before", "after", "system"]


def asked(
    records: Iterable[Seed | Example],
    teacher: Generates,
    prompt_of: Callable[[Seed], Prompt],
    *,
    sampling: Sampling | None = None,
    expected_of: Callable[[Seed], str | None] = lambda seed: seed.reference,
) -> Iterator[tuple[Seed, int, Outcome]]:
    """Every record asked `sampling.n` times, in the order of the records, then of the samples.

    Streams: held at any moment are the records whose answers are still out, as many as the teacher reorders. A request
    that the teacher never answered comes back as a failure "unanswered", not attempted. `expected_of` tells the
    scripted teacher what to say.
    """
    sampling = sampling or teacher.sampling
    open_seeds: dict[int, Seed] = {}
    answers: dict[int, dict[int, Outcome]] = {}
    requests: dict[int, list[Request]] = {}
    following = 0

    def stream() -> Iterator[Request]:
        for ordinal, record in enumerate(records):
            seed = as_seed(record)
            messages, expected = prompt_of(seed), expected_of(seed)
            open_seeds[ordinal] = seed
            requests[ordinal] = [
                Request(messages, sampling, index, tag=f"{ordinal}/{index}", expected=expected)
                for index in range(sampling.n)
            ]
            yield from requests[ordinal]

    for outcome in teacher.ask(stream()):
        ordinal, index = map(int, outcome.request.tag.split("/"))
        answers.setdefault(ordinal, {})[index] = outcome
        while len(answers.get(following, ())) == sampling.n:
            seed, done = open_seeds.pop(following), answers.pop(following)
            del requests[following]
            following += 1
            for i in range(sampling.n):
                yield seed, i, done[i]
    for ordinal in sorted(open_seeds):
        done = answers.get(ordinal, {})
        for i, request in enumerate(requests[ordinal]):
            yield open_seeds[ordinal], i, done.get(i) or Outcome(request, Failure("unanswered", state="not_attempted"))


def complete(seed: Seed, slot: int, outcome: Outcome) -> str | Lost:
    """The text of a finished answer, or the slot that was lost with its reason. A cut-off answer is never parsed."""
    result = outcome.result if isinstance(outcome.result, Failure) else usable(outcome.result)
    keys = (outcome.key,) if outcome.key else ()
    if isinstance(result, Failure):
        return Lost(seed.id, result.kind, result.state, slot, result.detail, keys)
    return result.text


def lost(seed: Seed, slot: int, outcome: Outcome, reason: str, detail: str = "") -> Lost:
    """A complete answer that a parser could not read: quarantined, because a better parser may."""
    return Lost(seed.id, reason, "quarantined", slot, detail, (outcome.key,) if outcome.key else ())


def born(seed: Seed, response: str, outcome: Outcome, teacher: str) -> Example:
    """The example that an answer makes of its seed, trained on under the seed's own prompt."""
    return seed.answered(
        response, asked=outcome.request.messages, teacher=teacher, keys=(outcome.key,) if outcome.key else ()
    )


def as_seed(record: Seed | Example) -> Seed:
    """An example asked about again is a seed with the example as its parent; its old answer stays behind."""
    if isinstance(record, Seed):
        return record
    if isinstance(record, TopLogprobs | Ranking):
        raise RecipeError(
            f"this elicitor asks about seeds or examples and was given a {type(record).__name__}; "
            "put it before the step that makes those"
        )
    return Seed(record.id, record.prompt, record.reference, record.columns, record.origin)


def instructed(prompt: Prompt, instruction: str | None, position: Position = "after") -> Prompt:
    """A prompt fused with an instruction (the circled plus of Eq. 1), in its last user turn or as a system message."""
    if not instruction:
        return prompt
    if position == "system":
        if prompt and prompt[0].role == "system":
            return (Message("system", f"{prompt[0].content}\n\n{instruction}"), *prompt[1:])
        return (Message("system", instruction), *prompt)
    last = max((i for i, message in enumerate(prompt) if message.role == "user"), default=None)
    if last is None:
        return (*prompt, Message("user", instruction))
    content = prompt[last].content
    joined = f"{content}\n\n{instruction}" if position == "after" else f"{instruction}\n\n{content}"
    return (*prompt[:last], replace(prompt[last], content=joined), *prompt[last + 1 :])


@dataclass(frozen=True, slots=True)
class Unparsed:
    """Why a parser could not read a text; `detail` may quote a little of it."""

    reason: str
    detail: str = ""


def answer_of(outcome: Outcome) -> Answer:
    """The answer of an outcome already known to be complete."""
    assert isinstance(outcome.result, Answer)
    return outcome.result
