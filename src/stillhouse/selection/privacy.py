"""Privacy and safety: what must not be learned, found without ever writing it into a report."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from stillhouse.compliance.screening import RULES, scan
from stillhouse.errors import RecipeError, nearest
from stillhouse.graders import Grader
from stillhouse.records import Example, Record
from stillhouse.selection.texts import Side, text_of

__all__ = ["personal_data", "secrets", "toxic"]

_PERSONAL = tuple(dict.fromkeys(rule.id for rule in RULES if rule.kind == "pii"))
_SECRETS = tuple(dict.fromkeys(rule.id for rule in RULES if rule.kind == "secret"))


def personal_data(
    records: Iterable[Record], *, kinds: Sequence[str] | None = None, on: Side = "both"
) -> Iterator[tuple[Record, str | None]]:
    """Drops records that hold data by which a person can be found.

    Kinds: email, phone, card_number and iban (checksums), ip_address (public ones), ssn_number (US), and national numbers
    with check digits (ahv_number, cpf_number, dni_number, nir_number). Addresses of example hosts do not count. Patterns
    find most and not all; names are not looked for. The reason names the kind, never the text: "personal_data:<kind>".
    The rules are those of the screening of every run. Sources: R07, O6. Raises RecipeError for a kind nobody knows.
    """
    for kind in kinds or ():
        if kind not in _PERSONAL:
            raise RecipeError(f"privacy.personal_data: no kind {kind!r}; {nearest(kind, _PERSONAL)}")
    yield from _searched(records, _PERSONAL if kinds is None else tuple(kinds), "personal_data", on)


def secrets(records: Iterable[Record], *, on: Side = "both") -> Iterator[tuple[Record, str | None]]:
    """Drops records that hold keys, tokens or passwords.

    Looked for: published formats of well-known services, private keys, and values of some entropy assigned to a telling
    name.
    Reason: "secret:<rule>". The rules are those of the screening of every run. Source: O6.
    """
    yield from _searched(records, _SECRETS, "secret", on)


def toxic(records: Iterable[Example], *, grader: Grader, most: float = 0.5) -> Iterator[tuple[Example, str | None]]:
    """Drops responses to which a classifier gives more than `most`.

    `grader` is any grader whose value is the probability of harm; it is given no reference. What it cannot tell is
    dropped as "could_not_tell". Other reason: "toxic". Source: O6.
    """
    stream = iter(records)
    while chunk := list(islice(stream, 256)):
        grades = grader([record.response for record in chunk], [None] * len(chunk))
        for record, grade in zip(chunk, grades, strict=True):
            yield record, "could_not_tell" if grade.value is None else "toxic" if grade.value > most else None


def _searched(
    records: Iterable[Record], rules: Sequence[str], prefix: str, on: Side
) -> Iterator[tuple[Record, str | None]]:
    for record in records:
        found = scan(text_of(record, on))
        yield record, next((f"{prefix}:{one.rule}" for one in found if one.rule in rules), None)
