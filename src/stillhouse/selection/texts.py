"""The texts of a record that selectors look at."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from stillhouse.records import Example, Prompt, Ranking, Record, Seed, Trajectory

__all__: list[str] = []

Side = Literal["prompt", "response", "both"]


def prompt_text(prompt: Prompt) -> str:
    return prompt[0].content if len(prompt) == 1 else "\n".join(message.content for message in prompt)


def instruction_text(record: Record) -> str:
    """The user's words of a prompt, without system messages and earlier answers."""
    return "\n".join(message.content for message in record.prompt if message.role == "user")


def responses(record: Record) -> Sequence[str]:
    if isinstance(record, Ranking):
        return record.responses
    if isinstance(record, Trajectory):
        return ("\n".join(f"{act.thought}\n{act.action}[{act.argument}]" for act in record.acts),)
    return () if isinstance(record, Seed) else (record.response,)


def text_of(record: Record, on: Side) -> str:
    if on == "prompt":
        return prompt_text(record.prompt)
    parts = [prompt_text(record.prompt)] if on != "response" else []
    parts.extend(responses(record))
    return "\n".join(parts)


def replayed(records: Iterable[Record]) -> Iterable[Record]:
    """Records that can be read twice: a file of records is read again, a one-way stream is held."""
    return list(records) if isinstance(records, Iterator) else records


def grouped(records: Iterable[Example]) -> Iterator[list[Example]]:
    """Runs of neighbouring examples with one prompt: the samples of one seed."""
    group: list[Example] = []
    for record in records:
        if group and record.prompt != group[0].prompt:
            yield group
            group = []
        group.append(record)
    if group:
        yield group
