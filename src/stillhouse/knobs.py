"""What a recipe says to a function or a teacher, compared with what it may be told."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stillhouse.errors import RecipeError, nearest
from stillhouse.recipe import Entry
from stillhouse.resolve import Signature, signature

SIMPLE_TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}


def check_knobs(found: Signature, knobs: Mapping[str, Any], where: str, folder: Path) -> None:
    """Compares what the recipe says with the signature: unknown, missing, of the wrong simple type; nested names too."""
    for name, value in knobs.items():
        if name not in found.knobs:
            raise RecipeError(f"{where}: {found.name} has no knob {name!r}; {nearest(name, found.knobs)}")
        _simple_type(found.annotations.get(name, ""), value, f"{where}.{name}")
        for at, inner in nested(name, value, where):
            kind = nested_kind(name)
            check_knobs(signature(kind, inner.do, folder=folder, where=at), inner.knobs, at, folder)
    missing = sorted(found.required - set(knobs))
    if missing:
        raise RecipeError(f"{where}: {found.name} needs {', '.join(missing)}")


def check_sampling(sampling: Mapping[str, Any], where: str) -> None:
    from stillhouse.teachers.base import Sampling

    known = list(Sampling.__dataclass_fields__)
    for key, value in sampling.items():
        if key not in known:
            raise RecipeError(f"{where}: unknown key {key!r}; {nearest(key, known)}")
        if key in ("temperature", "top_p") and not isinstance(value, (int, float)):
            raise RecipeError(f"{where}.{key}: must be a number, not {value!r}")
        if key in ("n", "max_tokens") and (not isinstance(value, int) or value < 1):
            raise RecipeError(f"{where}.{key}: must be a whole number above 0, not {value!r}")


def _simple_type(annotation: str, value: Any, where: str) -> None:
    allowed = [part.strip() for part in annotation.split("|")]
    if not all(part in SIMPLE_TYPES or part == "None" for part in allowed) or annotation == "":
        return
    if value is None and "None" in allowed:
        return
    kinds = tuple(kind for part in allowed for kind in SIMPLE_TYPES.get(part, ()))
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise RecipeError(f"{where}: must be {annotation}, not {value!r}")


def nested(name: str, value: Any, where: str) -> Iterator[tuple[str, Entry]]:
    """Knobs that are functions themselves: `grader: {do: math.equal}`, or a list of such."""
    values = value if isinstance(value, list) else [value]
    for number, each in enumerate(values):
        if isinstance(each, Mapping) and "do" in each:
            at = f"{where}.{name}[{number}]" if isinstance(value, list) else f"{where}.{name}"
            yield at, Entry.model_validate(each)


def nested_kind(knob: str) -> str:
    """The kind of name a knob holds, by the knob's own name: graders, unless it says selector or elicitor."""
    kinds = {
        "selector": "select",
        "elicitor": "elicit",
        "divergence": "objectives",
        "distance": "objectives",
        "tool": "tools",
        "environment": "environments",
    }
    return kinds.get(knob.rstrip("s"), "graders")
