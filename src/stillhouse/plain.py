"""Plain data: read from YAML 1.2, laid over each other, changed in one place, written."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from stillhouse.errors import RecipeError


class _Loader(yaml.SafeLoader):
    """Safe YAML as version 1.2 has it: `on`, `no` and dates are words, 1e-3 is a number; a key written twice is refused."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (the parent's attribute, replaced and not changed)
        first: [(tag, pattern) for tag, pattern in pairs if tag.rpartition(":")[2] not in ("bool", "timestamp")]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *anchor`, whose keys may be written again
            continue
        key = loader.construct_object(key_node)
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} is written twice", key_node.start_mark
            )
        seen.add(key)
    loader.flatten_mapping(node)
    return dict(loader.construct_pairs(node, deep=True))


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except UnicodeDecodeError:
        raise RecipeError(f"{path}: not UTF-8 text") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f", line {mark.line + 1}" if mark else ""
        raise RecipeError(f"{path}{at}: not valid YAML ({getattr(error, 'problem', None) or error})") from None
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: a recipe is a mapping with `name:` and `knowledge:`, not {type(data).__name__}")
    return data


def dump_yaml(data: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True)


def merged(base: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """`part` laid over `base`: mappings are merged key by key, everything else is replaced; null removes a key."""
    out = dict(base)
    for key, value in part.items():
        if value is None:
            out.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(out.get(key), Mapping):
            out[key] = merged(out[key], value)
        else:
            out[key] = value
    return out


def changed(data: dict[str, Any], change: str) -> dict[str, Any]:
    """`a.b=value` applied to plain data, in place; the value is YAML, a number is an index of a list.

    Raises RecipeError for what cannot be read or is not there.
    """
    key, equals, text = change.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {change!r}: write it as a.b=value, for example train.args.max_steps=50")
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        raise RecipeError(f"--set {change!r}: the value is not valid YAML") from None
    place: Any = data
    parts = key.split(".")
    for part in parts[:-1]:
        place = _step_into(place, part, change)
    last = parts[-1]
    if isinstance(place, list):
        place[_index(place, last, change)] = value
    else:
        place[last] = value
    return data


def _step_into(place: Any, part: str, change: str) -> Any:
    if isinstance(place, list):
        return place[_index(place, part, change)]
    inner = place.setdefault(part, {})
    if not isinstance(inner, (dict, list)):
        raise RecipeError(f"--set {change!r}: {part!r} is a value, not a mapping")
    return inner


def _index(place: list[Any], part: str, change: str) -> int:
    if not part.isdigit() or int(part) >= len(place):
        raise RecipeError(f"--set {change!r}: {part!r} is no index of a list of {len(place)}")
    return int(part)
