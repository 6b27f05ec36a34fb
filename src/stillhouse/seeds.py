"""Where seeds come from. A function here is a name for `seeds: {do: NAME}` of a branch.

Each takes knobs only and yields `Seed`s one by one. Columns are named to be used, never guessed: `prompt`, `reference` and
`columns` say which fields of a row mean what.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from stillhouse.elicit.asking import Unparsed
from stillhouse.elicit.parsing import acts
from stillhouse.errors import RecipeError, nearest
from stillhouse.markup import as_markdown
from stillhouse.numbers import Numbers
from stillhouse.records import Example, Lost, Message, Prompt, Seed, Trajectory, content_id, user
from stillhouse.rows import Row, readable, rows, template_of

__all__ = ["captions", "conversations", "documents", "file", "hub", "texts", "trajectories"]

ROLES = ("system", "user", "assistant", "tool")


def file(
    *,
    path: Path,
    prompt: str = "prompt",
    reference: str | None = "reference",
    template: str | None = None,
    columns: Sequence[str] = (),
    each: str | None = None,
    limit: int | None = None,
) -> Iterator[Seed]:
    """Seeds from a JSONL, JSON (a list, or an object, of objects), CSV, TSV or Parquet file.

    `prompt` names the field that holds the prompt (a string or chat messages); `template` (Jinja, strict) writes it from
    the row instead. `reference` names the known answer where there is one, or is itself such a template where it holds
    `{{`; `columns` are kept for later steps. `each` names a field that holds a list: every member of it is a row of its
    own, with the fields around it (the questions about one table, say).
    Raises `RecipeError` with the file and the row where something cannot be read.
    """
    path = Path(path)
    yield from _seeds(_each(rows(path), each, path), str(path), prompt, reference, template, columns, limit)


def _each(given: Iterable[tuple[int, Row]], field: str | None, path: Path) -> Iterator[tuple[int, Row]]:
    for number, row in given:
        if field is None:
            yield number, row
            continue
        members = _field(row, field, f"{path}, row {number}")
        if not isinstance(members, list):
            raise RecipeError(f"{path}, row {number}: {field!r} is a {type(members).__name__}, and `each` needs a list")
        for member in members:
            yield number, {**row, **(member if isinstance(member, dict) else {field: member})}


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
    """Passages of text files (one file, or a folder and a pattern), cut at paragraph ends, at most `max_chars` long.

    Files named .html or .htm are read as Markdown.
    """
    root = Path(path)
    files = sorted(root.rglob(pattern)) if root.is_dir() else [root]
    if not files or not files[0].exists():
        raise RecipeError(f"{root}: no file matches {pattern!r}")
    made = 0
    for each in files:
        with readable(each):
            whole = each.read_text(encoding="utf-8")
        if each.suffix.lower() in (".html", ".htm"):
            whole = as_markdown(whole)
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
    equals = Numbers()
    made = 0
    for text in _texts(path, field):
        for passage in _passages(text, max_chars):
            if limit is not None and made >= limit:
                return
            made += 1
            identity = content_id("Text", passage)
            ordinal = equals.another(identity)
            yield Example(identity if ordinal == 1 else f"{identity}.{ordinal}", (), passage)
    if not made:
        raise RecipeError(f"{path}: holds no text")


def captions(*, path: Path, limit: int | None = None) -> Iterator[Seed]:
    """Pictures told by their captions: a folder or a tar file of images, each with a `.txt` of the same name beside it.

    The caption is the prompt, for teachers that read text only; the columns `image` (where the picture lies) and `sha256`
    (of its bytes) refer to it, so that a picture can be joined to what was made of it. A picture without a caption gives
    no seed. Sources: R61 (text proxies of media), SK15.
    """
    import hashlib

    made = 0
    for name, image, caption in islice(_captioned(Path(path)), limit):
        made += 1
        digest = hashlib.sha256(image).hexdigest()
        yield Seed(content_id("Seed", name, caption, digest), user(caption), columns={"image": name, "sha256": digest})
    if not made:
        raise RecipeError(
            f"{path}: no picture with a caption (name.jpg and name.txt); name a folder or a tar file of such"
        )


IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif")


def _captioned(path: Path) -> Iterator[tuple[str, bytes, str]]:
    """(where the picture lies, its bytes, its caption), in the order of the names."""
    with readable(path):
        if path.is_dir():
            files = {each.name: each.read_bytes for each in sorted(path.iterdir()) if each.is_file()}
        else:
            files = _members(path)
        for name, read in sorted(files.items()):
            stem, dot, kind = name.rpartition(".")
            caption = files.get(f"{stem}.txt")
            if f".{kind.lower()}" in IMAGES and dot and caption and (text := caption().decode("utf-8").strip()):
                yield f"{path.name}/{name}", read(), text


def _members(path: Path) -> dict[str, Callable[[], bytes]]:
    import tarfile

    try:
        tar = tarfile.open(path)
    except tarfile.TarError as error:
        raise RecipeError(f"{path}: neither a folder nor a tar file ({error})") from None
    return {each.name: partial(_content, tar, each) for each in tar if each.isfile()}


def _content(tar: Any, member: Any) -> bytes:
    return bytes(tar.extractfile(member).read())


def conversations(
    *,
    path: Path,
    field: str = "conversations",
    role: str = "from",
    text: str = "value",
    columns: Sequence[str] = (),
    max_chars: int | None = None,
    html: bool = False,
    limit: int | None = None,
) -> Iterator[Example]:
    """Conversations that people had with a model: one example per assistant turn, learnt under what was said before it.

    Each row's `field` is the list of turns, whose `role` is human, user, gpt, assistant, bot or system. A turn that
    does not alternate ends the conversation, and so does the turn with which it grows beyond `max_chars`; what stands
    before it is kept. `limit` counts rows. A row without one answered question gives nothing. Who may be quoted, and
    whether they agreed, is for the person who names the file: say it under `terms`. Sources: R07 (Vicuna, Koala),
    SK02.
    """
    path = Path(path)
    for number, row in islice(rows(path), limit):
        where = f"{path}, row {number}"
        turns = _field(row, field, where)
        if not isinstance(turns, list):
            raise RecipeError(f"{where}: {field!r} is a {type(turns).__name__}, not a list of turns")
        read = [_turn(turn, role, text, where) for turn in turns]
        if html:
            read = [replace(turn, content=as_markdown(turn.content)) for turn in read]
        said = _alternating(read, max_chars)
        kept = {column: _field(row, column, where) for column in columns}
        for i, message in enumerate(said):
            if message.role == "assistant":
                name = content_id("Conversation", number, said[: i + 1])
                yield Example(name, tuple(said[:i]), message.content, columns=kept)


SPEAKERS = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "bot": "assistant", "chatgpt": "assistant",
    "system": "system",
}  # fmt: skip


def trajectories(
    *, path: Path, prompt: str = "prompt", text: str = "text", shown: str | None = None, limit: int | None = None
) -> Iterator[Trajectory | Lost]:
    """Recorded trajectories of agents: thought, action and observation in turn, as text in the field `text`.

    `prompt` names the goal; what stands in `text` before the first thought (options of a question) is added to it. The reward
    is read from the last observation ("reward = True"). Rows that cannot be read are lost with the parser's reason. Next:
    `quality.rewarded`, then `labeling.acts`. Sources: R50 (FireAct), 12.1.
    """
    path = Path(path)
    equals = Numbers()
    for number, row in islice(rows(path), limit):
        where = f"{path}, row {number}"
        goal, raw = _field(row, prompt, where), str(_field(row, text, where))
        before = re.split(r"^[ \t]*(?:Thought|Action)(?:[ \t]+\d+)?[ \t]*:", raw, maxsplit=1, flags=re.M)[0].strip()
        messages = _messages(f"{goal}\n{before}" if before and isinstance(goal, str) else goal, where)
        identity = content_id("Trajectory", messages, raw)
        ordinal = equals.another(identity)
        name = identity if ordinal == 1 else f"{identity}.{ordinal}"
        read = acts(raw)
        yield (
            Lost(name, read.reason, "quarantined", detail=read.detail)
            if isinstance(read, Unparsed)
            else Trajectory(name, messages, read[0], read[1])
        )


def _turn(turn: Any, role: str, text: str, where: str) -> Message:
    who, said = (turn.get(role), turn.get(text)) if isinstance(turn, dict) else (None, None)
    if who not in SPEAKERS or not isinstance(said, str):
        raise RecipeError(
            f"{where}: a turn needs {role!r} ({', '.join(SPEAKERS)}) and {text!r} (a string); name the fields with "
            "`role` and `text`"
        )
    return Message(SPEAKERS[who], said.strip())  # type: ignore[arg-type]


def _alternating(turns: list[Message], max_chars: int | None) -> list[Message]:
    """The turns from the first on, as long as user and assistant take turns and say something, within `max_chars`."""
    kept: list[Message] = []
    size = 0
    for turn in turns:
        before = kept[-1].role if kept else "system"
        fits = (
            turn.role == "assistant"
            if before == "user"
            else turn.role == "user" or (turn.role == "system" and not kept)
        )
        size += len(turn.content)
        if not fits or not turn.content or (max_chars is not None and size > max_chars):
            break
        kept.append(turn)
    return kept


def _texts(path: Path, field: str) -> Iterator[str]:
    if path.suffix.lower() == ".txt":
        with readable(path):
            yield path.read_text(encoding="utf-8")
        return
    for number, row in rows(path, bare=field):
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


def _seeds(
    rows: Iterable[tuple[int, dict[str, Any]]],
    source: str,
    prompt: str,
    reference: str | None,
    template: str | None,
    columns: Sequence[str],
    limit: int | None,
) -> Iterator[Seed]:
    render = template_of(template, "seeds.template") if template else None
    known_as = template_of(reference, "seeds.reference") if reference and "{{" in reference else None
    equals = Numbers()
    made = 0
    for number, row in rows:
        where = f"{source}, row {number}"
        messages = user(render(row, where)) if render else _messages(_field(row, prompt, where), where)
        known = known_as(row, where) if known_as else _reference(row, reference, where)
        kept = {column: _field(row, column, where) for column in columns}
        seed_id = content_id("Seed", messages, known, kept)
        ordinal = equals.another(seed_id)
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
