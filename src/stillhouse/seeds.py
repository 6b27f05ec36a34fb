"""Where seeds come from. A function here is a name for `seeds: {do: NAME}` of a branch.

Each takes knobs only and yields `Seed`s one by one. Columns are named to be used, never guessed: `prompt`, `reference` and
`columns` say which fields of a row mean what.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stillhouse.errors import RecipeError, nearest
from stillhouse.records import Example, Message, Prompt, Seed, content_id, user
from stillhouse.store import read_jsonl

__all__ = ["documents", "file", "hub", "texts"]

ROLES = ("system", "user", "assistant", "tool")


def file(
    *,
    path: Path,
    prompt: str = "prompt",
    reference: str | None = "reference",
    template: str | None = None,
    columns: Sequence[str] = (),
    limit: int | None = None,
) -> Iterator[Seed]:
    """Seeds from a JSONL, JSON (a list of objects), CSV or Parquet file.

    `prompt` names the field that holds the prompt (a string or chat messages); `template` (Jinja, strict) writes it from the
    row instead. `reference` names the known answer where there is one; `columns` are kept for later steps.
    Raises `RecipeError` with the file and the row where something cannot be read.
    """
    path = Path(path)
    yield from _seeds(_rows(path), str(path), prompt, reference, template, columns, limit)


def hub(
    *,
    dataset: str,
    split: str,
    name: str | None = None,
    prompt: str = "prompt",
    reference: str | None = "reference",
    template: str | None = None,
    columns: Sequence[str] = (),
    limit: int | None = None,
) -> Iterator[Seed]:
    """Seeds from a data set of the hub (or a folder that `datasets` can load), streamed."""
    from datasets import load_dataset

    rows = enumerate(load_dataset(dataset, name, split=split, streaming=True), 1)
    yield from _seeds(((n, dict(row)) for n, row in rows), dataset, prompt, reference, template, columns, limit)


def documents(*, path: Path, pattern: str = "*.txt", max_chars: int = 2000, limit: int | None = None) -> Iterator[Seed]:
    """Passages of text files (one file, or a folder and a pattern), cut at paragraph ends, at most `max_chars` long."""
    root = Path(path)
    files = sorted(root.rglob(pattern)) if root.is_dir() else [root]
    if not files or not files[0].exists():
        raise RecipeError(f"{root}: no file matches {pattern!r}")
    made = 0
    for each in files:
        with _readable(each):
            whole = each.read_text(encoding="utf-8")
        for passage in _passages(whole, max_chars):
            if limit is not None and made >= limit:
                return
            made += 1
            yield Seed(content_id("Seed", str(each.name), passage), user(passage), columns={"file": each.name})


def texts(*, path: Path, field: str = "text", max_chars: int = 2000, limit: int | None = None) -> Iterator[Example]:
    """Plain text to be learned as it stands: examples without a prompt, for language modelling with or without a teacher.

    A `.txt` file is one text; of a JSON, JSONL, CSV or Parquet file each row's `field` is one (rows of a JSON list may be
    bare strings). Texts longer than `max_chars` are cut at paragraph ends. Nothing is masked: every token is learned,
    the end of the text too. Source: R11.
    """
    path = Path(path)
    equals: dict[str, int] = {}
    made = 0
    for text in _texts(path, field):
        for passage in _passages(text, max_chars):
            if limit is not None and made >= limit:
                return
            made += 1
            identity = content_id("Text", passage)
            equals[identity] = ordinal = equals.get(identity, 0) + 1
            yield Example(identity if ordinal == 1 else f"{identity}.{ordinal}", (), passage)
    if not made:
        raise RecipeError(f"{path}: holds no text")


def _texts(path: Path, field: str) -> Iterator[str]:
    if path.suffix.lower() == ".txt":
        with _readable(path):
            yield path.read_text(encoding="utf-8")
        return
    for number, row in _rows(path, bare=field):
        value = _field(row, field, f"{path}, row {number}")
        if not isinstance(value, str):
            raise RecipeError(f"{path}, row {number}: {field!r} is a {type(value).__name__}, not text")
        yield value


def _passages(text: str, max_chars: int) -> Iterator[str]:
    held = ""
    for paragraph in text.split("\n\n"):
        if held and len(held) + len(paragraph) + 2 > max_chars:
            yield held
            held = ""
        held = f"{held}\n\n{paragraph}".strip()
        while len(held) > max_chars:
            cut = held.rfind(" ", 0, max_chars)
            cut = cut if cut > 0 else max_chars
            yield held[:cut]
            held = held[cut:].strip()
    if held:
        yield held


def _rows(path: Path, *, bare: str | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbered rows; `bare` is the field under which a string in a JSON list counts as a row."""
    suffix = path.suffix.lower()
    with _readable(path):
        if suffix == ".csv":
            import csv

            with open(path, newline="", encoding="utf-8-sig") as source:
                yield from enumerate(csv.DictReader(source), 2)
        elif suffix == ".parquet":
            yield from _parquet(path)
        elif suffix == ".json" and _starts_a_list(path):
            yield from _json_list(path, bare)
        else:
            yield from read_jsonl(path)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text at byte {error.start}; save it as UTF-8") from None
    except OSError as error:
        told = {FileNotFoundError: "no such file", IsADirectoryError: "is a folder, and a file is needed"}
        raise RecipeError(f"{path}: {told.get(type(error), f'cannot be read ({error.strerror})')}") from None


def _parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow.parquet

    try:
        batches = pyarrow.parquet.ParquetFile(path).iter_batches(1024)
        yield from enumerate((row for batch in batches for row in batch.to_pylist()), 1)
    except pyarrow.ArrowInvalid as error:
        raise RecipeError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})") from None


def _starts_a_list(path: Path) -> bool:
    with open(path, encoding="utf-8-sig") as source:
        return source.read(64).lstrip().startswith("[")


def _json_list(path: Path, bare: str | None) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise RecipeError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None
    for number, row in enumerate(rows, 1):
        if bare is not None and isinstance(row, str):
            row = {bare: row}
        if not isinstance(row, dict):
            raise RecipeError(f"{path}, row {number}: a {type(row).__name__}, but every row must be a JSON object")
        yield number, row


def _seeds(
    rows: Iterable[tuple[int, dict[str, Any]]],
    source: str,
    prompt: str,
    reference: str | None,
    template: str | None,
    columns: Sequence[str],
    limit: int | None,
) -> Iterator[Seed]:
    render = _template(template) if template else None
    equals: dict[str, int] = {}
    made = 0
    for number, row in rows:
        where = f"{source}, row {number}"
        messages = user(render(row, where)) if render else _messages(_field(row, prompt, where), where)
        known = _reference(row, reference, where)
        kept = {column: _field(row, column, where) for column in columns}
        seed_id = content_id("Seed", messages, known, kept)
        equals[seed_id] = ordinal = equals.get(seed_id, 0) + 1
        yield Seed(seed_id if ordinal == 1 else f"{seed_id}.{ordinal}", messages, known, kept)
        made += 1
        if made == limit:
            return
    if not made:
        raise RecipeError(f"{source}: holds no row; a branch needs at least one seed")


def _field(row: dict[str, Any], name: str, where: str) -> Any:
    if name not in row:
        raise RecipeError(f"{where}: no field {name!r}; {nearest(name, row)}")
    return row[name]


def _reference(row: dict[str, Any], name: str | None, where: str) -> str | None:
    """The default name may be absent (no answer is known); a name that the recipe gave may not."""
    if name is None or (name == "reference" and name not in row):
        return None
    value = _field(row, name, where)
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _messages(value: Any, where: str) -> Prompt:
    if isinstance(value, str):
        if not value.strip():
            raise RecipeError(f"{where}: the prompt is empty")
        return user(value)
    if isinstance(value, list) and value:
        return tuple(_message(each, where) for each in value)
    raise RecipeError(f"{where}: the prompt must be a string or a list of chat messages, not {type(value).__name__}")


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict) or not isinstance(value.get("content"), str) or value.get("role") not in ROLES:
        raise RecipeError(f"{where}: a chat message needs `role` ({', '.join(ROLES)}) and `content` (a string)")
    return Message(value["role"], value["content"])


def _template(source: str) -> Any:
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    try:
        compiled = SandboxedEnvironment(undefined=StrictUndefined).from_string(source)
    except TemplateError as error:
        raise RecipeError(f"seeds.template: {error}") from None

    def write(row: dict[str, Any], where: str) -> str:
        try:
            return compiled.render(**row)
        except TemplateError as error:
            raise RecipeError(f"{where}: the template cannot be filled ({error})") from None

    return write
