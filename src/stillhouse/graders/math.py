"""Mathematical answers."""

import re
from collections.abc import Sequence
from fractions import Fraction

from stillhouse.graders import CANNOT_TELL_NO_REFERENCE, Grade
from stillhouse.graders.final import balanced, last_marked
from stillhouse.graders.numbers import NotANumberError, Number, last, read
from stillhouse.graders.symbolic import Verifier

__all__ = ["equal"]


def equal(
    responses: Sequence[str],
    references: Sequence[str | None],
    *,
    tolerance: float = 0.0,
    symbolic: bool = True,
    seconds: float = 5.0,
) -> list[Grade]:
    """Whether the final answer of a response is the reference, as numbers or as mathematics.

    The final answer stands behind the last of "answer is", "Answer:", "####" or in the last \\boxed{}; without any of
    them a response that is one number as a whole counts, and else its last number, with a reason ending in
    "by_last_number". Numbers are compared as exact fractions, within a relative `tolerance`; "50 %" may mean 50 or
    0.5. What is not a number goes to math-verify in a process killed after `seconds`; its "not equal" counts only
    when a numeric comparison agrees. An unreadable response is worth 0; None means that nobody could tell: an
    unreadable reference, a time-out or crash of the verifier, a difference that was not confirmed. Sources: R20-R24.
    """
    with Verifier(seconds=seconds) as verifier:
        judge = verifier if symbolic else None
        return [
            CANNOT_TELL_NO_REFERENCE
            if reference is None
            else _grade(response, reference, Fraction(str(tolerance)), judge)
            for response, reference in zip(responses, references, strict=True)
        ]


def _grade(response: str, reference: str, tolerance: Fraction, verifier: Verifier | None) -> Grade:
    stated, by = _final(response)
    wanted = _wanted(reference)
    if not wanted:
        return Grade(None, "unreadable_reference")
    if not stated:
        return Grade(0.0, "unparsable")
    given, gold = _number(stated), _number(wanted)
    if given and gold:
        return Grade(1.0, f"equal{by}") if given.equals(gold, tolerance) else Grade(0.0, f"different{by}")
    if _same_text(stated, wanted):
        return Grade(1.0, "same_text")
    if verifier is None or not _mathematical(wanted):
        return Grade(0.0, "unparsable") if gold else Grade(None, "unreadable_reference")
    if not _mathematical(stated) or not balanced(stated):
        return Grade(0.0, "unparsable")
    return _symbolic(stated, wanted, verifier)


def _final(response: str) -> tuple[str, str]:
    marked = last_marked(response)
    if marked:
        return marked.text, ""
    whole = response.strip()
    if len(whole) < 60 and (_number(whole) or _mathematical(whole)):
        return whole, ""
    number = last(response)
    return (f"{number.value}{'%' if number.percent else ''}", "_by_last_number") if number else ("", "")


def _wanted(reference: str) -> str:
    marked = last_marked(reference)
    return marked.text if marked else reference.strip()


def _number(text: str) -> Number | None:
    try:
        return read(text)
    except NotANumberError:
        return None


def _same_text(a: str, b: str) -> bool:
    plain = [re.sub(r"\\text\{([^{}]*)\}|[\s$().]", lambda m: m[1] or "", side).casefold() for side in (a, b)]
    return plain[0] == plain[1] != ""


def _mathematical(text: str) -> bool:
    """LaTeX or an expression rather than prose: no two words beside each other, some digit, operator or lone letter."""
    bare = re.sub(r"\\[a-zA-Z]+|\\text\{[^{}]*\}", " ", text)
    prose = re.search(r"[a-zA-Z]{3,}", re.sub(r"\b(?:sqrt|sin|cos|tan|log|exp|pi|infty|and|or)\b", " ", bare))
    return bool(text.strip()) and not prose and bool(re.search(r"[\d\\+*/^=]|\b[a-zA-Z]\b", text))


def _symbolic(stated: str, wanted: str, verifier: Verifier) -> Grade:
    match verifier.verdict(stated, wanted):
        case "equal":
            return Grade(1.0, "equal_symbolically")
        case "different":
            return Grade(0.0, "different")
        case "unparsable":
            return Grade(0.0, "unparsable")
        case "unparsable_reference":
            return Grade(None, "unreadable_reference")
        case "timed_out" | "verifier_failed" as trouble:
            return Grade(None, trouble)
        case _:
            return Grade(None, "difference_unconfirmed")
