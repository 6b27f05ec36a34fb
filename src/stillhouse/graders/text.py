"""Plain text, compared after normalisation: Unicode form, case, white space and punctuation do not count."""

import re
import unicodedata
from collections.abc import Callable, Sequence

from stillhouse.graders import CANNOT_TELL_NO_REFERENCE, Grade

__all__ = ["contains", "exact"]


def contains(responses: Sequence[str], references: Sequence[str | None]) -> list[Grade]:
    """Whether the reference occurs in the response, as whole words.

    Both are normalised (`normalised`). A reference without a letter or digit cannot be looked for: None.
    """
    return [
        _grade(r, e, lambda a, b: f" {b} " in f" {a} ", "missing") for r, e in zip(responses, references, strict=True)
    ]


def exact(responses: Sequence[str], references: Sequence[str | None]) -> list[Grade]:
    """Whether response and reference are the same text after normalisation."""
    return [_grade(r, e, str.__eq__, "different") for r, e in zip(responses, references, strict=True)]


def normalised(text: str) -> str:
    """Lower case, NFKC, words separated by one space; punctuation goes, except inside numbers ("3.5", "1,000")."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = re.sub(r"(?<!\d)[^\w\s]|[^\w\s](?!\d)", " ", text)
    return " ".join(text.replace("_", " ").split())


def _grade(response: str, reference: str | None, same: Callable[[str, str], bool], otherwise: str) -> Grade:
    if reference is None:
        return CANNOT_TELL_NO_REFERENCE
    wanted = normalised(reference)
    if not wanted:
        return Grade(None, "unreadable_reference")
    return Grade(1.0, "equal") if same(normalised(response), wanted) else Grade(0.0, otherwise)
