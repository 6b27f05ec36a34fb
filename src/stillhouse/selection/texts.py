"""The texts of a record that selectors look at."""

from collections.abc import Sequence
from typing import Literal

from stillhouse.records import Prompt, Ranking, Record, Seed

__all__: list[str] = []

Side = Literal["prompt", "response", "both"]


def prompt_text(prompt: Prompt) -> str:
    return "\n".join(message.content for message in prompt)


def instruction_text(record: Record) -> str:
    """The user's words of a prompt, without system messages and earlier answers."""
    return "\n".join(message.content for message in record.prompt if message.role == "user")


def responses(record: Record) -> Sequence[str]:
    if isinstance(record, Ranking):
        return record.responses
    return () if isinstance(record, Seed) else (record.response,)


def text_of(record: Record, on: Side) -> str:
    parts = [prompt_text(record.prompt)] if on != "response" else []
    if on != "prompt":
        parts.extend(responses(record))
    return "\n".join(parts)
