"""What a recipe says to a function or a teacher, compared with what it may be told."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stillhouse.errors import RecipeError, nearest
from stillhouse.recipe import Entry
from stillhouse.resolve import Signature, signature

# knobs of one name mean the same everywhere, so that their ranges can stand here: shares, and whole numbers that may be 0
# (of any other there is at least one)
SHARES = ("share", "threshold")
FROM_ZERO = (
    "at_least", "canaries", "demonstrations", "digits", "each", "limit", "machine_made", "memory", "min_chars",
    "min_words", "probes",
    "rebuttals", "retries", "shown", "warm_up",
)  # fmt: skip
ANY = ("good", "high", "low", "seed")
FUNCTIONS = {"Grader", "Callable", "Environment", "Divergence", "Tool"}
ORDERED = (("low", "high"), ("min_words", "max_words"), ("min_chars", "max_chars"))
SIMPLE_TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}


def check_knobs(found: Signature, knobs: Mapping[str, Any], where: str, folder: Path) -> None:
    """Compares what the recipe says with the signature: unknown, missing, of another type or range; nested names too."""
    for name, value in knobs.items():
        if name not in found.knobs:
            raise RecipeError(f"{where}: {found.name} has no knob {name!r}; {nearest(name, found.knobs)}")
        at = f"{where}.{name}"
        _typed(found.annotations.get(name, ""), value, at, folder)
        local = name == "model" and isinstance(value, str) and value.startswith((".", "/", "~"))
        if local and not (folder / Path(value).expanduser()).exists():
            raise RecipeError(f"{at}: {value!r} is no folder")
        inside = list(nested(name, value, where))
        if not inside and value and FUNCTIONS & set(re.findall(r"\w+", found.annotations.get(name, ""))):
            raise RecipeError(f"{at}: a function is named with its knobs, as {{do: {value}}}; not {value!r}")
        for at, inner in inside:
            kind = nested_kind(name)
            check_knobs(signature(kind, inner.do, folder=folder, where=at), inner.knobs, at, folder)
    _ranges(found, knobs, where)
    missing = sorted(found.required - set(knobs))
    if missing:
        raise RecipeError(f"{where}: {found.name} needs {', '.join(missing)}")


def _ranges(found: Signature, knobs: Mapping[str, Any], where: str) -> None:
    """Refuses numbers that mean nothing: none of what there is at least one of, shares above 1, an end before its start."""
    for name, value in knobs.items():
        annotation = found.annotations.get(name, "")
        if name in SHARES and isinstance(value, int | float) and not 0 < value <= 1:
            raise RecipeError(f"{where}.{name}: must be above 0 and at most 1, not {value!r}")
        if name == "seconds" and isinstance(value, int | float) and value <= 0:
            raise RecipeError(f"{where}.seconds: must be above 0, not {value!r}")
        if annotation in ("int", "int | None") and isinstance(value, int) and name not in ANY:
            least = 0 if name in FROM_ZERO or found.defaults.get(name) == "0" else 1
            if value < least:
                raise RecipeError(f"{where}.{name}: must be {least} or more, not {value!r}")
    for first, last in ORDERED:
        low, high = (knobs.get(each, _number(found.defaults.get(each))) for each in (first, last))
        if low is not None and high is not None and low > high:
            raise RecipeError(f"{where}: {first} is {low} and {last} is {high}; {last} must not be below {first}")


def _number(written: str | None) -> int | float | None:
    value = ast.literal_eval(written) if written and written[-1].isdigit() else None
    return value if isinstance(value, int | float) else None


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


def _typed(annotation: str, value: Any, where: str, folder: Path) -> None:
    """Refuses a value that is certainly not what an annotation says; types that a recipe cannot write are left alone."""
    declared = ast.parse(annotation or "Any", mode="eval").body
    if annotation in ("Path", "Path | None") and isinstance(value, str):
        path = folder / Path(value).expanduser()
        if (
            not path.exists() and "runs" not in path.parts
        ):  # a part of a chain may be checked before the one it reads from
            raise RecipeError(f"{where}: {value}: no such file")
        return
    if _fits(declared, value):
        return
    if isinstance(declared, ast.Subscript) and ast.unparse(declared.value) == "Literal":
        known = list(map(str, ast.literal_eval(ast.Tuple(_values(declared), ast.Load()))))
        raise RecipeError(f"{where}: {value!r} is not known; {nearest(str(value), known)}")
    if annotation.startswith("Sequence[") and not isinstance(value, list | tuple):
        raise RecipeError(f"{where}: must be a list, not {value!r}; write it in brackets: [{value}]")
    raise RecipeError(f"{where}: must be {annotation}, not {value!r}")


def _fits(declared: ast.expr, value: Any) -> bool:
    match declared:
        case ast.Constant(value=None):
            return value is None
        case ast.Name(id=name) if name in SIMPLE_TYPES:
            kinds = SIMPLE_TYPES[name]
            return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
        case ast.BinOp(left=left, right=right):
            return _fits(left, value) or _fits(right, value)
        case ast.Subscript(value=ast.Name(id="Literal")):
            return any(value == ast.literal_eval(each) for each in _values(declared))
        case ast.Subscript(value=ast.Name(id="Sequence"), slice=inner):
            return isinstance(value, list | tuple) and all(_fits(inner, each) for each in value)
        case ast.Subscript(value=ast.Name(id="Mapping" | "dict"), slice=ast.Tuple(elts=[_, inner])):
            return isinstance(value, Mapping) and all(_fits(inner, each) for each in value.values())
    return True


def _values(declared: ast.Subscript) -> list[ast.expr]:
    return declared.slice.elts if isinstance(declared.slice, ast.Tuple) else [declared.slice]


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
