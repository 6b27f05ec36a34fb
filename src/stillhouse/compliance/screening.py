"""Finds credentials and personal data in text, by pattern and checksum, before it leaves, is stored, trains or is published.

Reports hold counts, rule ids and salted hashes, never what was found. Patterns miss things: a clean report is not a
promise, and the recall on a seeded set is measured in the tests and stated in the guide.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Literal

__all__ = ["RULES", "Finding", "Tally", "as_use", "merged", "redacted", "scan"]

Kind = Literal["secret", "pii"]
SHORTEST = 6  # characters of the shortest match, an e-mail address


@dataclass(frozen=True, slots=True)
class Rule:
    id: str
    kind: Kind
    pattern: re.Pattern[str]
    holds: Callable[[str], bool]
    needs: tuple[str, ...]  # one of these is in every match: most texts have none, and are not searched
    digits: bool  # a match has seven digits close together, and so does the text
    gates: str  # where given, a match holds one of these characters too
    may: Callable[[str], bool]  # whether a text that has what it needs may hold a match


@dataclass(frozen=True, slots=True)
class Finding:
    """Where a rule matched (`start`, `end` in characters). The hash lets equal values be counted, not read."""

    rule: str
    kind: Kind
    start: int
    end: int
    hash: str


@dataclass
class Tally:
    """Counts of one point over all texts. `secrets` and `pii` are what went on, `lost` the texts that did not."""

    redacts: bool = False
    texts: int = 0
    lost: int = 0
    rules: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    hashes: set[str] = field(default_factory=set)

    def add(self, findings: Iterable[Finding], *, lost: bool = False) -> None:
        self.texts += 1
        self.lost += lost
        for found in findings:
            self.rules[found.rule] += 1
            self.kinds[found.kind] += not lost
            self.hashes.add(found.hash)

    def as_dict(self) -> dict[str, Any]:
        """The report: no value is in it."""
        return {
            "texts": self.texts,
            "lost": self.lost,
            "rules": dict(sorted(self.rules.items())),
            "distinct": len(self.hashes),
            "secrets": self.kinds["secret"],
            "pii": self.kinds["pii"],
            "pii_redacted": self.redacts,
        }


def merged(reports: Iterable[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Reports by point, added up. Values found twice in different reports cannot be told apart: `distinct` goes."""
    out: dict[str, dict[str, Any]] = {}
    for report in reports:
        for point, one in report.items():
            sum_of = out.setdefault(point, {"rules": {}, "pii_redacted": True})
            for key in ("texts", "lost", "secrets", "pii"):
                sum_of[key] = sum_of.get(key, 0) + one[key]
            for rule, n in one["rules"].items():
                sum_of["rules"][rule] = sum_of["rules"].get(rule, 0) + n
            sum_of["pii_redacted"] = sum_of["pii_redacted"] and one["pii_redacted"]
    return out


def as_use(reports: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What `use.screening` of a plan takes."""
    return {p: {key: one[key] for key in ("secrets", "pii", "pii_redacted")} for p, one in reports.items()}


def scan(text: str, *, salt: bytes = b"") -> tuple[Finding, ...]:
    """Every match of every rule, in the order of the text; where matches overlap, the first and longest."""
    if len(text) < SHORTEST:
        return ()
    found: list[Finding] = []
    for rule in _within(text):
        for match in rule.pattern.finditer(text):
            group = 1 if match.re.groups else 0
            value = match.group(group)
            if rule.holds(value):
                digest = hashlib.sha256(salt + value.encode("utf-8", "surrogatepass")).hexdigest()[:16]
                found.append(Finding(rule.id, rule.kind, match.start(group), match.end(group), digest))
    return _apart(found) if found else ()


def _within(text: str) -> list[Rule]:
    """The rules that may match: nearly every text ends here, so what is looked for first is rare and found quickly."""
    wanted = {n for gate, parts in _GATES if gate in text for part, rules in parts if part in text for n in rules}
    if _digits_close(text):
        wanted.update(n for n, rule in _BY_DIGITS if any(part in text for part in rule.needs))
    return [RULES[n] for n in sorted(wanted) if RULES[n].may(text)] if wanted else []


def _digits_close(text: str) -> bool:
    """Whether seven digits may stand with at most two separators between neighbours."""
    if text.isascii():
        return b"0000000" in text.encode().translate(_DIGITS_ONLY, b" .()/-")
    return _SEVEN_DIGITS.search(text) is not None


def _apart(found: list[Finding]) -> tuple[Finding, ...]:
    out: list[Finding] = []
    for one in sorted(found, key=lambda f: (f.kind != "secret", f.start, -f.end)):
        if all(one.end <= other.start or one.start >= other.end for other in out):
            out.append(one)
    return tuple(sorted(out, key=lambda f: f.start))


def redacted(text: str, findings: Iterable[Finding]) -> str:
    """The text with each finding replaced by its rule in brackets."""
    for found in sorted(findings, key=lambda f: -f.start):
        text = f"{text[: found.start]}[{found.rule.upper()}]{text[found.end :]}"
    return text


# checks ----------------------------------------------------------------------------------------------------------------


def _digits(value: str) -> list[int]:
    return [int(c) for c in value if c.isdigit()]


def _luhn(value: str) -> bool:
    digits = _digits(value)
    doubled = [d * 2 - 9 if d > 4 else d * 2 for d in digits[-2::-2]]
    return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and (sum(doubled) + sum(digits[-1::-2])) % 10 == 0


def _iban(value: str) -> bool:
    plain = re.sub(r"[ -]", "", value).upper()
    turned = plain[4:] + plain[:4]
    return 15 <= len(plain) <= 34 and int("".join(str(int(c, 36)) for c in turned)) % 97 == 1


def _ahv(value: str) -> bool:
    digits = _digits(value)
    total = sum(d * (3 if i % 2 else 1) for i, d in enumerate(digits[:12]))
    return len(digits) == 13 and (10 - total % 10) % 10 == digits[12]


def _cpf(value: str) -> bool:
    digits = _digits(value)
    if len(digits) != 11 or len(set(digits)) == 1:
        return False
    for n in (9, 10):
        rest = sum(d * (n + 1 - i) for i, d in enumerate(digits[:n])) * 10 % 11 % 10
        if rest != digits[n]:
            return False
    return True


def _dni(value: str) -> bool:
    letters = "TRWAGMYFPDXBNJZSQVHLCKE"
    number = value.upper().replace("-", "").replace("X", "0", 1).replace("Y", "1", 1).replace("Z", "2", 1)
    head = number[:-1] if number[:-1].isdigit() else ""
    return bool(head) and letters[int(head) % 23] == value[-1].upper()


def _nir(value: str) -> bool:
    digits = re.sub(r"\s", "", value).upper().replace("2A", "19").replace("2B", "18")
    return digits.isdigit() and len(digits) == 15 and 97 - int(digits[:13]) % 97 == int(digits[13:])


def _public_address(value: str) -> bool:
    try:
        return ip_address(value).is_global
    except ValueError:
        return False


def _phone(value: str) -> bool:
    return 8 <= len(_digits(value)) <= 15


def _someones_mail(value: str) -> bool:
    """Names reserved for examples belong to nobody."""
    domain = value.rpartition("@")[2].lower()
    return not re.search(r"(^|\.)(example\.(com|org|net)|example|test|invalid|localhost)$", domain)


def _entropy(value: str) -> float:
    counts = Counter(value)
    return -sum(n / len(value) * math.log2(n / len(value)) for n in counts.values())


def _random(value: str) -> bool:
    """Keys look drawn by chance: digits and letters mixed, and more than 3.3 bits a character."""
    mixed = any(c.isdigit() for c in value) and any(c.isalpha() for c in value)
    return mixed and _entropy(value) > 3.3


def _chosen(value: str) -> bool:
    """A password in quotes is shorter than a key: letters and digits, 24 bits in all, and not a place to put one."""
    mixed = any(c.isdigit() for c in value) and any(c.isalpha() for c in value)
    return mixed and len(value) * _entropy(value) >= 24 and not _PLACEHOLDER.match(value)


def _always(_: str) -> bool:
    return True


def _dotted(text: str) -> bool:
    """Two numbers between dots."""
    return sum([part.isdigit() for part in text.split(".")[1:-1]]) >= 2


def _many_colons(text: str) -> bool:
    return text.count(":") >= 4


def _rule(
    id: str,
    kind: Kind,
    needs: str,
    pattern: str,
    holds: Callable[[str], bool] = _always,
    *,
    digits: bool = False,
    gates: str = "",
    may: Callable[[str], bool] = _always,
) -> Rule:
    parts = tuple(needs.split(" ")) if needs else ("",)
    return Rule(id, kind, re.compile(pattern), holds, parts, digits, gates, may)


_DIGITS_ONLY = bytes(ord("0") if chr(code).isdigit() else ord("x") for code in range(128)) + bytes(128)
_SEVEN_DIGITS = re.compile(r"\d(?:[ .()/-]{0,2}\d){6}")
_PLACEHOLDER = re.compile(r"(?i:<|\$|\{|x{4}|\*{4}|your|my|example|changeme)")
_NAMES = "key KEY Key secret SECRET Secret token TOKEN Token passw PASSW Passw"
_NAMED = r"(?i:api[_-]?key|secret|token|passw(?:or)?d|access[_-]?key|client[_-]?secret)[\"']?\s*[:=]\s*"
_KEY_HEADER = r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----"
_CODE_HOST = "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_"
_PUBLISHER = r"\b(pypi-[A-Za-z0-9_-]{40,}|npm_[A-Za-z0-9]{36})"
_CARD = r"(?<![\w.,-])([3-6]\d{3}([ -]?)\d{4}\2\d{4}\2\d{1,7}|3[47]\d{2}([ -]?)\d{6}\3\d{5})(?![\w-]|[.,]\d)"
_CALLED = r"(?i:\b(?:tel|phone|call|mobile|fax))\W{0,6}(\(?\d{2,5}\)?(?:[ ./-]\d{2,8}){1,4})(?!\w)"
_NO_VERSION = r"(?<!ersion )(?<!elease )(?<!er\. )(?<!EC )"  # nor an enzyme's number
_IP4 = _NO_VERSION + r"(?<![\w.])((?:\d{1,3}\.){3}\d{1,3})(?!\w|\.\d)"
_IP6 = r"(?<![\w:])((?:[0-9A-Fa-f]{1,4}:){4,7}[0-9A-Fa-f]{1,4})(?![\w:])"
_NIR = r"\b([12] ?\d{2} ?(?:0[1-9]|1[0-2]|[2-9]\d) ?(?:\d{2}|2[AB]) ?\d{3} ?\d{3} ?\d{2})\b"

RULES: tuple[Rule, ...] = (
    _rule("private_key", "secret", "-----BEGIN", _KEY_HEADER),
    _rule("aws_key", "secret", "AKIA ASIA", r"\b((?:AKIA|ASIA)[0-9A-Z]{16})\b"),
    _rule("github_token", "secret", _CODE_HOST, r"\b(gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,})\b"),
    _rule("gitlab_token", "secret", "glpat-", r"\b(glpat-[A-Za-z0-9_-]{20,})"),
    _rule("hub_token", "secret", "hf_", r"\b(hf_[A-Za-z0-9]{30,})\b"),
    _rule("provider_key", "secret", "sk-", r"\b(sk-(?:ant-|proj-|or-v1-)?[A-Za-z0-9_-]{20,})", _random),
    _rule("google_key", "secret", "AIza", r"\b(AIza[0-9A-Za-z_-]{35})"),
    _rule("slack_token", "secret", "xox", r"\b(xox[abeprs]-[A-Za-z0-9-]{10,})"),
    _rule("stripe_key", "secret", "_live_", r"\b((?:sk|rk)_live_[A-Za-z0-9]{16,})\b"),
    _rule("package_token", "secret", "pypi- npm_", _PUBLISHER),
    _rule("jwt", "secret", "eyJ", r"\b(eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,})"),
    _rule("named_secret", "secret", _NAMES, rf"{_NAMED}[\"']?([A-Za-z0-9+/_=.-]{{16,}})", _random, gates=":="),
    _rule("named_secret", "secret", _NAMES, rf"{_NAMED}[\"']([^\s\"']{{8,}})[\"']", _chosen, gates=":="),
    _rule("email", "pii", "@", r"(?<![\w.+-])[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}\b", _someones_mail),
    _rule(
        "iban", "pii", "", r"\b([A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?)\b", _iban, digits=True
    ),
    _rule("card_number", "pii", "", _CARD, _luhn, digits=True),
    _rule("ahv_number", "pii", "756.", r"\b(756\.\d{4}\.\d{4}\.\d{2})\b", _ahv, digits=True),
    _rule("cpf_number", "pii", "-", r"\b(\d{3}\.\d{3}\.\d{3}-\d{2})\b", _cpf, digits=True),
    _rule("dni_number", "pii", "", r"\b((?:\d{8}|[XYZ]\d{7})-?[A-HJ-NP-TV-Z])\b", _dni, digits=True),
    _rule("nir_number", "pii", "", _NIR, _nir, digits=True),
    _rule(
        "ssn_number", "pii", "-", r"(?<![\w-])((?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4})(?![\w-])", digits=True
    ),
    _rule(
        "phone", "pii", "+", r"(?<![\w+])(\+\d{1,3}(?:[ .-]?(?:\(\d{1,4}\)|\d{1,4})){2,5})(?!\w)", _phone, digits=True
    ),
    _rule("phone", "pii", "-", r"(?<![\w+(-])(\(\d{3}\) ?\d{3}-\d{4}|\d{3}-\d{3}-\d{4})(?![\w-])", _phone, digits=True),
    _rule("phone", "pii", "", _CALLED, _phone, digits=True),
    _rule("ip_address", "pii", ".", _IP4, _public_address, may=_dotted),
    _rule("ip_address", "pii", ":", _IP6, _public_address, may=_many_colons),
)
_BY_DIGITS = tuple((n, rule) for n, rule in enumerate(RULES) if rule.digits)


def _by_gate() -> tuple[tuple[str, tuple[tuple[str, tuple[int, ...]], ...]], ...]:
    """(character, ((part, rules that need it), ...)): of each part the character that texts have least often."""
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for n, rule in enumerate(RULES):
        for part in () if rule.digits else rule.needs:
            for gate in rule.gates or next(c for c in "_@JKz-xA.:" if c in part):
                parts = found.setdefault(gate, {})
                parts[part] = (*parts.get(part, ()), n)
    return tuple((gate, tuple(parts.items())) for gate, parts in found.items())


_GATES = _by_gate()
