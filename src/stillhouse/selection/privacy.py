"""Privacy and safety: what must not be learned, found without ever writing it into a report."""

import ipaddress
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from stillhouse.errors import RecipeError, nearest
from stillhouse.graders import Grader
from stillhouse.records import Example, Record
from stillhouse.selection.texts import Side, text_of

__all__ = ["personal_data", "secrets", "toxic"]

_Found = Callable[[str], bool]

_EMAIL = re.compile(r"\b[\w.+-]{1,64}@(?:[a-z0-9-]{1,63}\.)+[a-z]{2,24}\b", re.I)
_EXAMPLE_HOSTS = re.compile(r"@(?:[\w-]+\.)*(?:example|test|invalid|localhost)(?:\.(?:com|org|net))?$", re.I)
_PHONE = re.compile(r"(?<![\w.+])(?:\+\d{1,3}[\s./-]?)?(?:\(\d{1,5}\)[\s./-]?)?\d{2,5}(?:[\s./-]\d{2,8}){1,4}(?![\w.])")
_CARD = re.compile(r"(?<![\d.])(?:\d[ -]?){12,18}\d(?![\d.])")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?:\s?[A-Z0-9]{4}){3,7}(?:\s?[A-Z0-9]{1,3})?\b")
_SOCIAL = re.compile(r"(?<![\d-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])")
_ADDRESS = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])")

_VERSION = re.compile(r"\b(?:v|ver|version|release)\.?\s*$", re.I)

_KEY_BLOCK = re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----")
_KNOWN_TOKENS = re.compile(
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"  # cloud access keys
    r"|\bgh[pousr]_[A-Za-z0-9]{36,}\b|\bgithub_pat_\w{50,}\b|\bglpat-[\w-]{20,}\b"
    r"|\bxox[abprs]-[\w-]{10,}\b|\bhf_[A-Za-z0-9]{30,}\b|\bsk-[\w-]{20,}\b|\bAIza[\w-]{35}\b"
    r"|\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}\b"  # signed web tokens
)
_ASSIGNED = re.compile(
    r"(?:pass(?:word|wd)?|secret|api[_-]?key|access[_-]?key|auth[_-]?token|client[_-]?secret)[\"']?\s*[:=]\s*[\"']?([^\s\"',;]{8,})",
    re.I,
)
_PLACEHOLDER = re.compile(
    r"^(?:<.*|\$.*|\{.*|x{4,}|\*{4,}|your.*|my.*|example.*|changeme.*|os\..*|get.*\(.*|none|null|true|false)$", re.I
)


def personal_data(
    records: Iterable[Record], *, kinds: Sequence[str] | None = None, on: Side = "both"
) -> Iterator[tuple[Record, str | None]]:
    """Drops records that hold data by which a person can be found.

    Kinds: email, phone, card (Luhn check), iban (checksum), social_security (US), ip_address (public ones).
    Addresses of example hosts do not count. Patterns find most and not all; names are not looked for. The reason
    names the kind, never the text: "personal_data:<kind>". Sources: R07, O6.
    """
    yield from _searched(records, _chosen(_PERSONAL, kinds, "personal_data"), "personal_data", on)


def secrets(records: Iterable[Record], *, on: Side = "both") -> Iterator[tuple[Record, str | None]]:
    """Drops records that hold keys, tokens or passwords.

    Kinds: private_key, token (published formats of well-known services), password (a value assigned to a telling
    name, of some entropy, no placeholder). Reason: "secret:<kind>". Source: O6.
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
    records: Iterable[Record], finders: dict[str, _Found], prefix: str, on: Side
) -> Iterator[tuple[Record, str | None]]:
    for record in records:
        text = text_of(record, on)
        yield record, next((f"{prefix}:{kind}" for kind, found in finders.items() if found(text)), None)


def _chosen(known: dict[str, _Found], kinds: Sequence[str] | None, where: str) -> dict[str, _Found]:
    for kind in kinds or ():
        if kind not in known:
            raise RecipeError(f"privacy.{where}: no kind {kind!r}; {nearest(kind, known)}")
    return {kind: known[kind] for kind in kinds} if kinds is not None else known


def _email(text: str) -> bool:
    return any(not _EXAMPLE_HOSTS.search(found[0]) for found in _EMAIL.finditer(text))


def _phone(text: str) -> bool:
    for found in _PHONE.finditer(text):
        digits = re.sub(r"\D", "", found[0])
        marked = (
            found[0].startswith("+")
            or "(" in found[0]
            or re.search(r"(?:tel|phone|call|mobile|fax)\W{0,12}$", text[: found.start()], re.I)
        )
        grouped = re.fullmatch(r"\d{3}[ .-]\d{3}[ .-]\d{4}", found[0])
        if 9 <= len(digits) <= 15 and (marked or grouped):
            return True
    return False


def _card(text: str) -> bool:
    return any(_luhn(re.sub(r"\D", "", found[0])) for found in _CARD.finditer(text))


def _luhn(digits: str) -> bool:
    if not 13 <= len(digits) <= 19 or len(set(digits)) < 2 or digits[0] not in "3456":
        return False
    doubled = [int(d) if i % 2 == 0 else sum(divmod(2 * int(d), 10)) for i, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def _iban(text: str) -> bool:
    for found in _IBAN.finditer(text):
        code = re.sub(r"\s", "", found[0])
        rearranged = code[4:] + code[:4]
        if 15 <= len(code) <= 34 and int("".join(str(int(c, 36)) for c in rearranged)) % 97 == 1:
            return True
    return False


def _ip(text: str) -> bool:
    return any(_public(found[0]) for found in _ADDRESS.finditer(text) if not _VERSION.search(text, 0, found.start()))


def _public(address: str) -> bool:
    try:
        return ipaddress.IPv4Address(address).is_global
    except ValueError:  # 999.1.1.1, or a version number with leading zeros
        return False


def _password(text: str) -> bool:
    return any(not _PLACEHOLDER.match(found[1]) and _bits(found[1]) >= 24 for found in _ASSIGNED.finditer(text))


def _bits(value: str) -> float:
    counts = Counter(value)
    return -sum(n * math.log2(n / len(value)) for n in counts.values())


_PERSONAL: dict[str, _Found] = {
    "email": _email,
    "phone": _phone,
    "card": _card,
    "iban": _iban,
    "social_security": lambda text: bool(_SOCIAL.search(text)),
    "ip_address": _ip,
}
_SECRETS: dict[str, _Found] = {
    "private_key": lambda text: bool(_KEY_BLOCK.search(text)),
    "token": lambda text: bool(_KNOWN_TOKENS.search(text)),
    "password": _password,
}
