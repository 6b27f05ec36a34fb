"""Rows of a table on disk, numbered as a person would find them: JSONL, JSON, CSV, TSV and Parquet."""

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stillhouse.errors import RecipeError
from stillhouse.store import read_jsonl

Row = dict[str, Any]
KEY = "key"


def rows(path: Path, *, bare: str | None = None) -> Iterator[tuple[int, Row]]:
    """Numbered rows of a file.

    A JSON file is a list of objects, an object of objects (the key is then in the field `key`), or one object to a
    line. `bare` is the field under which a string in a JSON list counts as a row. Raises `RecipeError` with the file
    and the row.
    """
    suffix = path.suffix.lower()
    with readable(path):
        if suffix in (".csv", ".tsv"):
            with open(path, newline="", encoding="utf-8-sig") as source:
                reader = csv.DictReader(source, delimiter="\t" if suffix == ".tsv" else ",")
                yield from enumerate(reader, 2)
        elif suffix == ".parquet":
            yield from _parquet(path)
        elif suffix == ".json" and (whole := _whole(path)) is not None:
            yield from _members(path, whole, bare)
        else:
            yield from read_jsonl(path)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """What goes wrong in reading a file, as one sentence."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text at byte {error.start}; save it as UTF-8") from None
    except OSError as error:
        told = {FileNotFoundError: "no such file", IsADirectoryError: "is a folder, and a file is needed"}
        raise RecipeError(f"{path}: {told.get(type(error), f'cannot be read ({error.strerror})')}") from None


def _parquet(path: Path) -> Iterator[tuple[int, Row]]:
    import pyarrow.parquet

    try:
        batches = pyarrow.parquet.ParquetFile(path).iter_batches(1024)
        yield from enumerate((row for batch in batches for row in batch.to_pylist()), 1)
    except pyarrow.ArrowInvalid as error:
        raise RecipeError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})") from None


def _whole(path: Path) -> list[Any] | dict[str, Any] | None:
    """The list, or the object of objects, that a file is; None where it has one object to a line."""
    with open(path, encoding="utf-8-sig") as source:
        starts_a_list = source.read(64).lstrip().startswith("[")
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        if starts_a_list:
            raise RecipeError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None
        return None
    if isinstance(found, dict) and not all(isinstance(each, dict) for each in found.values()):
        return [found]
    return found if isinstance(found, list | dict) else None


def _members(path: Path, whole: list[Any] | dict[str, Any], bare: str | None) -> Iterator[tuple[int, Row]]:
    members = whole if isinstance(whole, list) else [{KEY: key, **each} for key, each in whole.items()]
    for number, row in enumerate(members, 1):
        if bare is not None and isinstance(row, str):
            row = {bare: row}
        if not isinstance(row, dict):
            raise RecipeError(f"{path}, row {number}: a {type(row).__name__}, but every row must be a JSON object")
        yield number, row


def template_of(source: str, knob: str) -> Callable[[Row, str], str]:
    """Writes text from a row (Jinja, strict and sandboxed). `RecipeError` names the knob, or the row that lacks a field."""
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    try:
        compiled = SandboxedEnvironment(undefined=StrictUndefined).from_string(source)
    except TemplateError as error:
        raise RecipeError(f"{knob}: {error}") from None

    def write(row: Row, where: str) -> str:
        try:
            return str(compiled.render(**row))
        except TemplateError as error:
            raise RecipeError(f"{where}: the template cannot be filled ({error})") from None

    return write
