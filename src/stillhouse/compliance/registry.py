"""The registry: records by id, and which of them speaks of a model or data set reached in a given way.

Matching: the whole id against each pattern, only `*` special, case ignored; the pattern with the most literal
characters wins, on a tie the stricter record. A user's records (terms.d) add to what the registry says; they take the
place of its row only where that row says nothing, because nobody read the text.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stillhouse.compliance.terms import Condition, Date, Pattern, TermsRecord, Text, review_by
from stillhouse.errors import RecipeError

__all__ = [
    "Endpoint",
    "Licence",
    "Registry",
    "builtin",
    "first_error",
    "from_text",
    "load",
    "user_folders",
    "user_record",
    "user_records",
]

SCHEMA = "stillhouse.terms/1"
DAY = timedelta(days=1)  # of grace: midnight does not fall everywhere at once
STRICTNESS = {"yes": 0, "conditional": 1, "unread": 2, "no": 3}


class Endpoint(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    access: Text
    hosts: tuple[Text, ...]
    vendor: Text | None = None


class Duty(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    code: Text
    trigger: Literal["distributed", "weights_shipped", "data_published"]
    text: Text


class Licence(BaseModel):
    """A plain public licence and what it asks of whoever passes on weights or data under it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    spdx: Text
    open: bool = False
    source: Text
    locator: Text
    quote: Text
    conditions: tuple[Condition, ...] = ()
    weights: tuple[Duty, ...] = ()
    dataset: tuple[Duty, ...] = ()


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    schema_: Text = Field(alias="schema")
    version: Text
    compiled: Date
    endpoints: tuple[Endpoint, ...] = ()
    licences: tuple[Licence, ...] = ()
    records: tuple[TermsRecord, ...]


@dataclass(frozen=True)
class Registry:
    version: str
    compiled: date
    sha256: str
    records: tuple[TermsRecord, ...]
    endpoints: tuple[Endpoint, ...] = ()
    licences: tuple[Licence, ...] = ()
    by_id: dict[str, TermsRecord] = field(default_factory=dict, repr=False)

    @property
    def label(self) -> str:
        return f"{self.version} sha256:{self.sha256}"

    def find(self, id: str, access: str) -> tuple[TermsRecord, ...]:
        """The records that govern `id` reached by `access`: the registry's best, then a user's best; empty if none."""
        current = [r for r in self.records if not r.superseded_by]
        own = [r for r in current if r.origin == "registry"]
        added = [r for r in current if r.origin != "registry"]
        best, extra = _best(own, id, access), _best(added, id, access)
        if best and extra:
            return (extra,) if best.unread and best.kind == extra.kind else (best, extra)
        return tuple(r for r in (best, extra) if r)

    def speaking_of(self, id: str) -> tuple[TermsRecord, ...]:
        """Every record that names `id`, however it is reached; where one names it exactly, only such."""
        found = [r for r in self.records if any(_literal(p) and _matches(p, id) for p in r.models)]
        exact = [r for r in found if any(p.match.lower() == id.lower() for p in r.models)]
        return tuple(exact or found)

    def is_host(self, access: str) -> bool:
        """Whether other people's models are reached by `access`; a user's record cannot turn a vendor into a host."""
        there = [r for r in self.records if access in r.access]
        known = [r for r in there if r.origin == "registry"] or there
        return any(r.kind == "host" for r in known)

    def licence(self, spdx: str) -> Licence | None:
        return next((row for row in self.licences if row.spdx.lower() == spdx.lower()), None)

    def with_records(self, extra: Iterable[TermsRecord]) -> "Registry":
        """This registry and more records; its hash then covers both. Raises RecipeError on an id used twice."""
        added = tuple(sorted(extra, key=lambda r: (r.id, [p.match for p in r.models])))
        if not added:
            return self
        payload = json.dumps([r.model_dump(mode="json", by_alias=True) for r in added], sort_keys=True)
        digest = hashlib.sha256(f"{self.sha256}{payload}".encode()).hexdigest()
        return _registry(self.version, self.compiled, digest, (*self.records, *added), self.endpoints, self.licences)


def _best(records: Iterable[TermsRecord], id: str, access: str) -> TermsRecord | None:
    found = [
        (score, STRICTNESS[r.outputs_may_train], r.id, r) for r in records if (score := _score(r, id, access)) >= 0
    ]
    return max(found, key=lambda row: row[:3])[3] if found else None


def _score(record: TermsRecord, id: str, access: str) -> int:
    if access not in record.access or access == "incorporated":
        return -1
    return max((_literal(p) for p in record.models if _matches(p, id)), default=-1)


def _literal(pattern: Pattern) -> int:
    return len(pattern.match.replace("*", ""))


def _matches(pattern: Pattern, id: str) -> bool:
    return _glob(pattern.match, id) and not any(_glob(e, id) for e in pattern.excepted)


def _glob(pattern: str, id: str) -> bool:
    """Only `*` is special: fnmatch would read the brackets that ids may hold."""
    first, *rest = pattern.lower().split("*")
    id = id.lower()
    if not rest:
        return id == first
    if not id.startswith(first) or not id.endswith(rest[-1]) or len(id) < len(first) + len(rest[-1]):
        return False
    at, end = len(first), len(id) - len(rest[-1])
    for part in rest[:-1]:
        at = id.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True


@cache
def builtin() -> Registry:
    """The registry inside the package."""
    return from_text((files("stillhouse.compliance") / "terms.yaml").read_text(encoding="utf-8"), "terms.yaml")


def load(path: Path, *, today: date | None = None) -> Registry:
    """A registry from a file. With `today`, one compiled after it is refused. Raises RecipeError."""
    registry = from_text(_text(path), str(path))
    if today and registry.compiled > today + DAY:
        raise RecipeError(
            f"{path}: compiled on {registry.compiled}, after today ({today}); "
            "use a registry that exists already, or set the clock"
        )
    _not_ahead(registry.records, str(path), today)
    return registry


def user_folders() -> tuple[Path, ...]:
    """The user's own folder for terms, where there is a home to have one in."""
    try:
        return (Path.home() / ".config/stillhouse",)
    except RuntimeError:
        return ()


def user_records(folders: Sequence[Path], *, today: date | None = None) -> tuple[TermsRecord, ...]:
    """The records of every `*.yaml` in these folders (those that exist), marked as the user's.

    With `today`, a record read after it is refused. Raises RecipeError.
    """
    found: list[TermsRecord] = []
    for path in (path for folder in folders if folder.is_dir() for path in sorted(folder.glob("*.yaml"))):
        data = _yaml(_text(path), str(path))
        data = data["records"] if isinstance(data, dict) and "records" in data else data
        rows = data if isinstance(data, list) else [data]
        mine = [user_record(row, f"{path} record {i}") for i, row in enumerate(rows)]
        _not_ahead(mine, str(path), today)
        found += mine
    return tuple(found)


def _not_ahead(records: Iterable[TermsRecord], where: str, today: date | None) -> None:
    for record in records:
        if today and record.read and record.read > today + DAY:
            raise RecipeError(
                f"{where}: {record.id} says it was read on {record.read}, after today ({today}); correct it"
            )


def user_record(row: Any, where: str) -> TermsRecord:
    if not isinstance(row, dict):
        raise RecipeError(
            f"{where}: a terms record is a mapping with id, kind, holder, ...; this is {type(row).__name__}"
        )
    row = {**row, "origin": "user"}
    try:
        if row.get("read") and "review_by" not in row:
            row["review_by"] = review_by(row.get("kind", "contract"), date.fromisoformat(str(row["read"])))
        return TermsRecord.model_validate(row)
    except ValidationError as e:
        raise RecipeError(f"{where}: {first_error(e)}") from e
    except ValueError as e:
        raise RecipeError(f"{where}: read: write a date as 2026-11-21, not {row['read']!r}") from e


def from_text(text: str, where: str) -> Registry:
    data = _yaml(text, where)
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        found = data.get("schema") if isinstance(data, dict) else type(data).__name__
        raise RecipeError(
            f"{where}: this version reads registries of schema {SCHEMA}, not {found!r}; "
            "update stillhouse, or use a registry made for it"
        )
    try:
        file = _File.model_validate(data)
    except ValidationError as e:
        raise RecipeError(f"{where}: {first_error(e, data)}") from e
    digest = hashlib.sha256(text.encode()).hexdigest()
    return _registry(file.version, file.compiled, digest, file.records, file.endpoints, file.licences, where)


def _registry(
    version: str,
    compiled: date,
    digest: str,
    records: tuple[TermsRecord, ...],
    endpoints: tuple[Endpoint, ...],
    licences: tuple[Licence, ...],
    where: str = "terms",
) -> Registry:
    by_id: dict[str, TermsRecord] = {}
    for record in records:
        known = by_id.get(record.id)
        # a recipe may point several ids at one record; anything else is a second record under one name
        if known and record.origin in ("registry", "user"):
            raise RecipeError(f"{where}: two records are called {record.id!r}; give the second another id")
        by_id.setdefault(record.id, record)
    for record in records:
        for other in (*record.inherits, *(u.terms for u in record.upstream), record.superseded_by):
            if other is not None and other not in by_id:
                raise RecipeError(
                    f"{where}: {record.id} names {other!r}, which is no record; add it or correct the name"
                )
    return Registry(version, compiled, digest, records, endpoints, licences, by_id)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise RecipeError(f"{path}: cannot be read ({e}); give the path of a terms file") from e


def _yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as e:
        raise RecipeError(f"{where}: is not YAML ({str(e).splitlines()[0]}); correct the file") from e


def first_error(e: ValidationError, data: Any = None) -> str:
    """The first of pydantic's complaints as the end of a sentence: where, what, and how many more there are."""
    errors = e.errors(include_url=False)
    first, more = errors[0], len(errors) - 1
    loc = [str(part) for part in first["loc"]]
    if data and loc[:1] == ["records"] and len(loc) > 1 and isinstance(data["records"][int(loc[1])], dict):
        loc[1] = str(data["records"][int(loc[1])].get("id", loc[1]))
    said = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        said = "unknown key; remove it or correct its spelling"
    elif first["type"] == "missing":
        said = "missing; add it"
    return f"{'.'.join(loc) or 'the whole'}: {said}" + (f" (and {more} more)" if more else "")
