"""What every elicitor does around its own prompt and parser: ask in a stream, keep order, name what was lost.

Asking and parsing are separate, so that a better parser re-reads stored answers: `asked` yields raw outcomes,
`complete` decides whether there is a text to parse at all.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal, Protocol, TypeVar

from stillhouse.errors import RecipeError
from stillhouse.records import (
    Example,
    Lost,
    Message,
    Origin,
    Prompt,
    Seed,
    content_id,
    user,
)
from stillhouse.teachers.asking.gate import usable
from stillhouse.teachers.base import Failure, Generates, Outcome, Request, Sampling

__all__: list[str] = []

Position = Literal["before", "after", "system"]


class About(Protocol):
    """What a teacher can be asked about: it is named in losses, and the scripted teacher may know its answer."""

    @property
    def id(self) -> str: ...

    @property
    def reference(self) -> str | None: ...


class OfSeed:
    """For what is asked about a seed in several turns: it goes by the seed's name and reference. Give it a field `seed`."""

    __slots__ = ()
    seed: Seed

    @property
    def id(self) -> str:
        return self.seed.id

    @property
    def reference(self) -> str | None:
        return self.seed.reference


Item = TypeVar("Item", bound=About)
Value = TypeVar("Value")
Made = TypeVar("Made", Seed, Example)


def asked(
    items: Iterable[Item],
    teacher: Generates,
    prompt_of: Callable[[Item], Prompt],
    *,
    sampling: Sampling | None = None,
    expected_of: Callable[[Item], str | None] = lambda item: item.reference,
    response_schema: dict[str, Any] | None = None,
) -> Iterator[tuple[Item, int, Outcome]]:
    """Every item asked about `sampling.n` times, in the order of the items, then of the samples.

    Streams: held at any moment are the items whose answers are still out, as many as the teacher reorders. A request
    that the teacher never answered comes back as a failure "unanswered", not attempted. `expected_of` tells the
    scripted teacher what to say.
    """
    sampling = sampling or teacher.sampling
    waiting: dict[int, tuple[Item, list[Request]]] = {}
    answers: dict[int, dict[int, Outcome]] = {}
    following = 0

    def stream() -> Iterator[Request]:
        for ordinal, item in enumerate(items):
            messages, expected = prompt_of(item), expected_of(item)
            requests = [
                Request(messages, sampling, index, f"{ordinal}/{index}", expected, response_schema)
                for index in range(sampling.n)
            ]
            waiting[ordinal] = item, requests
            yield from requests

    for outcome in teacher.ask(stream()):
        number, _, sample = outcome.request.tag.partition("/")
        ordinal, index = int(number), int(sample)
        answers.setdefault(ordinal, {})[index] = outcome
        while len(answers.get(following, ())) == sampling.n:
            (item, _), done = waiting.pop(following), answers.pop(following)
            following += 1
            for i in range(sampling.n):
                yield item, i, done[i]
    for ordinal, (item, requests) in sorted(waiting.items(), key=lambda entry: entry[0]):
        done = answers.get(ordinal, {})
        for i, request in enumerate(requests):
            yield item, i, done.get(i) or Outcome(request, Failure("unanswered", state="not_attempted"))


def read_each(
    items: Iterable[Item],
    teacher: Generates,
    prompt_of: Callable[[Item], Prompt],
    read: "Callable[[str], Value | Unparsed]",
    *,
    sampling: Sampling | None = None,
    response_schema: dict[str, Any] | None = None,
) -> "Iterator[tuple[Item, int, Outcome, Value | Lost]]":
    """`asked`, with each complete answer read by a parser; what gave no value is a `Lost` in its place."""
    for item, slot, outcome in asked(items, teacher, prompt_of, sampling=sampling, response_schema=response_schema):
        text = complete(item, slot, outcome)
        if isinstance(text, Lost):
            yield item, slot, outcome, text
            continue
        value = read(text)
        if isinstance(value, Unparsed):
            yield item, slot, outcome, lost(item, slot, outcome, value.reason, value.detail)
        else:
            yield item, slot, outcome, value


def answered_by(
    seeds: Iterable[Seed | Example],
    teacher: Generates,
    prompt_of: Callable[[Seed], Prompt],
    read: "Callable[[str], str | Unparsed]",
    learn_under: Callable[[Seed, Outcome], Prompt] = lambda seed, _: seed.prompt,
) -> Iterator[Example | Lost]:
    """One example for each answer that could be read, learned under `learn_under`: the seed's own prompt by default."""
    for seed, _, outcome, value in read_each(seeds_of(seeds), teacher, prompt_of, read):
        if isinstance(value, Lost):
            yield value
        else:
            prompt = learn_under(seed, outcome)
            learner = seed if prompt is seed.prompt else replace(seed, prompt=prompt)
            yield born(learner, value, outcome, teacher.name)


def as_asked(_: Seed, outcome: Outcome) -> Prompt:
    """For `answered_by`: the student learns under what the teacher was asked with."""
    return outcome.request.messages


def complete(item: About, slot: int, outcome: Outcome) -> str | Lost:
    """The text of a finished answer, or the slot that was lost with its reason. A cut-off answer is never parsed."""
    result = outcome.result if isinstance(outcome.result, Failure) else usable(outcome.result)
    if isinstance(result, Failure):
        return Lost(item.id, result.kind, result.state, slot, result.detail, keys_of(outcome))
    return result.text


def lost(item: About, slot: int, outcome: Outcome, reason: str, detail: str = "") -> Lost:
    """A complete answer that a parser could not read: quarantined, because a better parser may."""
    return Lost(item.id, reason, "quarantined", slot, detail, keys_of(outcome))


def keys_of(*outcomes: Outcome) -> tuple[str, ...]:
    return tuple(outcome.key for outcome in outcomes if outcome.key)


def born(seed: Seed, response: str, outcome: Outcome, teacher: str) -> Example:
    """The example that an answer makes of its seed, trained on under the seed's own prompt."""
    return seed.answered(response, asked=outcome.request.messages, teacher=teacher, keys=keys_of(outcome))


def annotated(one: Example, columns: Mapping[str, Any], outcome: Outcome, judge: str) -> Example:
    """The same example with what a judge said in its columns; who wrote it stays on record as its teacher."""
    name = content_id("Example", one.id, dict(columns), judge, outcome.key)
    origin = Origin((one.id,), one.origin.teacher, (*one.origin.keys, *keys_of(outcome)))
    return replace(one, id=name, columns={**one.columns, **columns}, origin=origin)


def grown(
    parents: Sequence[Seed | Example],
    text: str,
    outcome: Outcome,
    teacher: str,
    *,
    reference: str | None = None,
    **columns: Any,
) -> Seed:
    """A seed that a teacher made of others; `columns` joins what the first parent carries."""
    ids, keys = tuple(parent.id for parent in parents), keys_of(outcome)
    carried = {**(parents[0].columns if parents else {}), **columns}
    return Seed(content_id("Seed", ids, text, keys), user(text), reference, carried, Origin(ids, teacher, keys))


def seeds_of(records: Iterable[Seed | Example]) -> Iterator[Seed]:
    return map(as_seed, records)


def as_seed(record: Seed | Example) -> Seed:
    """An example asked about again is a seed with the example as its parent; its old answer stays behind."""
    if isinstance(record, Seed):
        return record
    if not isinstance(record, Example):
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


def numbered(text: str) -> list[str] | Unparsed:
    """The items of a numbered list, whatever stands before it; an item may run over several lines."""
    parts = re.split(r"^[ \t]*\**\d{1,3}[.):][ \t]*\**[ \t]*", text, flags=re.M)[1:]
    items = [re.sub(r"\s*\n\s*", "\n", part).strip().strip("*").strip() for part in parts]
    return [item for item in items if item] or Unparsed("no_list", text[-80:])


def sections(text: str, names: Sequence[str]) -> dict[str, str] | Unparsed:
    """The texts under `[Name]` marks, all of them once and none of them empty."""
    pattern = rf"^[ \t]*\**\[({'|'.join(map(re.escape, names))})\]\**[ \t]*:?"
    parts = re.split(pattern, text, flags=re.M | re.I)[1:]
    found = {name.casefold(): body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}
    if len(parts) != 2 * len(names) or len(found) != len(names):
        return Unparsed("sections", f"{len(parts) // 2} of {len(names)} sections")
    if not all(found.values()):
        return Unparsed("empty_section")
    return {name: found[name.casefold()] for name in names}


def accounted(
    given: Sequence[Seed | Example], results: "Iterable[Made | Lost]", reason: str = "not_shown"
) -> "Iterator[Made | Lost]":
    """`results`, and then a loss for each row that nothing was made of: demonstrations are drawn, not all are shown."""
    left = {one.id for one in given}
    for result in results:
        left.difference_update([result.parent] if isinstance(result, Lost) else result.origin.parents)
        yield result
    yield from (Lost(one.id, reason, "not_attempted") for one in given if one.id in left)


def in_chunks(items: Iterable[Value], size: int = 64) -> Iterator[list[Value]]:
    """For elicitors that ask again about what came back: so many items at a time, so that memory does not grow."""
    stream = iter(items)
    while chunk := list(islice(stream, size)):
        yield chunk
