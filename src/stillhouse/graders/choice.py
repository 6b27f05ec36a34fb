"""Multiple choice: by letter, by text, or both."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from stillhouse.graders import CANNOT_TELL_NO_REFERENCE, Grade
from stillhouse.graders.final import last_marked
from stillhouse.graders.text import normalised

__all__ = ["equal"]

_LABELLED = re.compile(r"\(([A-Ja-j])\)|(?<![\w])([A-J])[.):](?=\s|$)")
_LETTER_ALONE = re.compile(r"\s*(?:option|choice)?\s*[\[(]?([A-Ja-j])[\])]?\s*[.)]?\s*", re.I)


@dataclass(frozen=True, slots=True)
class Option:
    letter: str = ""
    text: str = ""


def equal(
    responses: Sequence[str], references: Sequence[str | None], *, choices: Sequence[str] | None = None
) -> list[Grade]:
    """Whether a response settles on the option that the reference names.

    An option is a letter ("d", "(d)", "D."), a text ("math problem") or both ("(d) math problem"). The response's
    choice is what stands behind its last "answer is", "Answer:" or \\boxed{}, else the whole response, else the only
    labelled option it mentions. Two options ("either (a) or (b)") are no choice: 0, "ambiguous". `choices` are the
    texts of the options in the order of their letters, where all questions share them. A letter against a text that
    nothing ties together is None. Source: R20, SK09.
    """
    texts = [normalised(choice) for choice in choices or ()]
    return [
        CANNOT_TELL_NO_REFERENCE if reference is None else _grade(response, reference, texts)
        for response, reference in zip(responses, references, strict=True)
    ]


def _grade(response: str, reference: str, texts: list[str]) -> Grade:
    gold = _completed(_option(reference), texts)
    if not gold.letter and not gold.text:
        return Grade(None, "unreadable_reference")
    given = _chosen(response, texts)
    if isinstance(given, str):
        return Grade(0.0, given)
    if given.letter and gold.letter and given.letter != gold.letter:
        return Grade(0.0, "different")
    if given.text and gold.text and given.text != gold.text:
        same_letter = given.letter and given.letter == gold.letter
        # a letter followed by a remark ("(b), because ...") is still that letter
        return Grade(1.0, "equal_by_letter") if same_letter and not texts else Grade(0.0, "different")
    if (given.letter and gold.letter) or (given.text and gold.text):
        return Grade(1.0, "equal")
    return Grade(None, "letter_against_text")


def _chosen(response: str, texts: list[str]) -> Option | str:
    marked = last_marked(response)
    statement = marked.text if marked else response
    letters = {(a or b).lower() for a, b in _LABELLED.findall(statement)}
    if len(letters) > 1:
        return "ambiguous"
    option = _completed(_option(statement), texts)
    if marked or option.letter or option.text in texts:
        return option
    mentioned = [text for text in texts if f" {text} " in f" {normalised(statement)} "]
    if len(mentioned) == 1:
        return _completed(Option(text=mentioned[0]), texts)
    if mentioned:
        return "ambiguous"
    return option if len(statement.split()) <= 12 else "unparsable"


def _option(text: str) -> Option:
    alone = _LETTER_ALONE.fullmatch(text)
    if alone:
        return Option(alone[1].lower())
    labelled = _LABELLED.search(text)
    if labelled:
        return Option((labelled[1] or labelled[2]).lower(), normalised(text[labelled.end() :]))
    return Option("", normalised(text))


def _completed(option: Option, texts: list[str]) -> Option:
    """The letter or text that `choices` tells for the other."""
    if not texts:
        return option
    index = "abcdefghij".find(option.letter) if option.letter else -1
    if 0 <= index < len(texts):
        return Option(option.letter, texts[index])
    if not option.letter and option.text in texts:
        return Option("abcdefghij"[texts.index(option.text)], option.text)
    return option
