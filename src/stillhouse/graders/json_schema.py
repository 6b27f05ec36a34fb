"""JSON answers."""

from collections.abc import Sequence
from typing import Any

from stillhouse.errors import RecipeError
from stillhouse.graders import CANNOT_TELL_NO_REFERENCE, Grade
from stillhouse.graders.strict_json import NotStrictError, read

__all__ = ["equal", "valid"]


def valid(
    responses: Sequence[str], references: Sequence[str | None], *, schema: dict[str, Any] | None = None
) -> list[Grade]:
    """Whether a response holds exactly one JSON value that fits a schema: the knob, or the reference where it is left out.

    Read strictly: no duplicate keys, NaN, second object or repaired ending. Reasons for 0: the parser's code, or
    "schema:<path of the first fault>". Raises RecipeError for a knob that is no schema. Source: section 12.2
    (parsers).
    """
    from jsonschema import Draft202012Validator, SchemaError

    if schema is not None:
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            raise RecipeError(f"json_schema.valid: schema is none ({error.message})") from None
    grades = []
    for response, reference in zip(responses, references, strict=True):
        wanted = schema if schema is not None else _read(reference)
        if not isinstance(wanted, dict):
            grades.append(CANNOT_TELL_NO_REFERENCE if reference is None else Grade(None, "unreadable_reference"))
            continue
        try:
            faults = sorted(
                Draft202012Validator(wanted).iter_errors(read(response)), key=lambda fault: list(map(str, fault.path))
            )
        except NotStrictError as error:
            grades.append(Grade(0.0, str(error)))
            continue
        grades.append(
            Grade(0.0, f"schema:{'.'.join(map(str, faults[0].path)) or 'root'}") if faults else Grade(1.0, "valid")
        )
    return grades


def equal(responses: Sequence[str], references: Sequence[str | None]) -> list[Grade]:
    """Whether a response holds the same JSON value as the reference; key order does not count."""
    grades = []
    for response, reference in zip(responses, references, strict=True):
        wanted = _read(reference)
        if wanted is None:
            grades.append(CANNOT_TELL_NO_REFERENCE if reference is None else Grade(None, "unreadable_reference"))
            continue
        try:
            same = _same(read(response), wanted)
        except NotStrictError as error:
            grades.append(Grade(0.0, str(error)))
            continue
        grades.append(Grade(1.0, "equal") if same else Grade(0.0, "different"))
    return grades


def _read(text: str | None) -> Any:
    try:
        return None if text is None else read(text)
    except NotStrictError:
        return None


def _same(a: Any, b: Any) -> bool:
    """Equality in which true is not 1."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)
