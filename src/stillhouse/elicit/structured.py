"""Structured answers: one JSON value in the form of a schema, or a reason why there is none."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from stillhouse.elicit.asking import Unparsed, born, instructed, read_each, seeds_of
from stillhouse.errors import RecipeError
from stillhouse.records import Example, Lost, Seed
from stillhouse.teachers.asking.reading import Read, Unreadable, looks_cut, read_json
from stillhouse.teachers.base import Generates

__all__ = ["answer"]

INSTRUCTION = "Answer with one JSON value and nothing else. It fits this JSON schema:\n{schema}"


def answer(
    seeds: Iterable[Seed | Example],
    teacher: Generates,
    *,
    schema: dict[str, Any],
    instruction: str = INSTRUCTION,
    repair: bool = False,
) -> Iterator[Example | Lost]:
    """The teacher's answers that are JSON of a given form; the response is that JSON, written again without blanks around.

    `schema` is a JSON schema; from Python a pydantic model is one, too. A server that takes a schema is sent it, and
    every teacher is told it by `instruction` ({schema}). Read strictly: exactly one value, no duplicate keys, no NaN, nothing
    closed that was left open; backslashes of LaTeX survive. `repair` forgives trailing commas and single quotes. Lost:
    `cut_off`, `several`, `no_json`, `syntax`, `schema` and other codes of the reader, and `looks_cut` for a string that
    ends in mid-sentence inside legal JSON. What was mended stands in the column `read`. Raises RecipeError for a schema
    that is none. Source: Eq. 3.
    """
    from jsonschema import Draft202012Validator, SchemaError

    form: dict[str, Any] = schema if isinstance(schema, dict) else schema.model_json_schema()
    try:
        Draft202012Validator.check_schema(form)
    except SchemaError as error:
        raise RecipeError(f"structured.answer: schema is none ({error.message})") from None
    validator = Draft202012Validator(form)

    def read(text: str) -> Read | Unparsed:
        try:
            found = read_json(text, repair=repair)
        except Unreadable as error:
            return Unparsed(error.reason, error.detail)
        fault = next(iter(validator.iter_errors(found.value)), None)
        if fault is not None:
            return Unparsed("schema", f"{'.'.join(map(str, fault.path)) or 'the value'}: {fault.message}"[:200])
        cut = next((why for each in _strings(found.value) if (why := looks_cut(each))), None)
        return Unparsed("looks_cut", cut) if cut else found

    told = instruction.replace("{schema}", json.dumps(form, ensure_ascii=False))
    rows = read_each(seeds_of(seeds), teacher, lambda seed: instructed(seed.prompt, told), read, response_schema=form)
    for seed, _, outcome, found in rows:
        if isinstance(found, Lost):
            yield found
        else:
            made = born(seed, json.dumps(found.value, ensure_ascii=False), outcome, teacher.name)
            yield replace(made, columns={**made.columns, "read": " ".join(found.flags)}) if found.flags else made


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)
