"""Screening at work: what leaves for somebody else's server, what comes into a run, what trains, what is handed out.

A credential stops the run at every point, or loses the row where the recipe says so. Personal data is replaced before it
leaves and counted elsewhere. What is said about a finding is its rule and a salted hash, never the text.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal

from stillhouse.compliance.screening import Finding, Tally, redacted, scan
from stillhouse.errors import TermsRefused
from stillhouse.lines import names_of
from stillhouse.records import Act, Lost, Message, Record, StoredSignal, TopLogprobs
from stillhouse.teachers.base import Failure, Request

__all__ = ["Watch", "screening_lines", "texts_of"]

_SECRET, _PERSONAL = "secret_found", "personal_data_found"
_NO_TEXT = frozenset(("id", "kind", "origin", "asked", "tokenizer", "store", "row", "arrays"))


@dataclass
class Watch:
    """Screens one run. `secrets` stop it or lose the row; `egress`: personal data in a prompt is replaced, loses the row
    or is sent as it is. `salt` goes into every hash.
    """

    secrets: Literal["stop", "drop"] = "stop"
    egress: Literal["redact", "drop", "send"] = "redact"
    salt: bytes = b""
    tallies: dict[str, Tally] = field(default_factory=dict)

    def leaving(self, request: Request) -> Request | Failure:
        """The request as it may be sent to somebody else's server, or why it may not. Raises TermsRefused."""
        found = [scan(message.content, salt=self.salt) for message in request.messages]
        scored = scan(request.scored, salt=self.salt) if request.scored else ()
        everything = (*(one for each in found for one in each), *scored)
        if (kind := self._stopped("egress", everything, "a prompt")) is None and self.egress != "send":
            # the likelihood of another text is no answer: what is scored is sent as it stands or not at all
            kind = _PERSONAL if everything and (self.egress == "drop" or scored) else None
        self._count("egress", everything, lost=kind is not None)
        if kind:
            return Failure(kind, _said(everything), "dropped")
        if not everything or self.egress == "send":
            return request
        plain = (replace(m, content=redacted(m.content, each)) for m, each in zip(request.messages, found, strict=True))
        return replace(request, messages=tuple(plain))

    def coming(self, record: Record) -> Sequence[Record | Lost]:
        """A row before it is written into the run; where it may not be, a loss for each row it was born from.

        Raises TermsRefused.
        """
        if isinstance(record, TopLogprobs | StoredSignal):  # its text was seen as the example it was born from
            return (record,)
        found = tuple([one for text in _texts(record) for one in scan(text, salt=self.salt)])
        kind = self._stopped("ingest", found, f"row {record.id}")
        self._count("ingest", found, lost=kind is not None)
        if kind is None:
            return (record,)
        return [Lost(one, kind, detail=_said(found)) for one in record.origin.parents or (record.id,)]

    def over(self, point: str, texts: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The report of texts that nothing can be taken out of any more: rows that train, files that are handed out."""
        tally = Tally()
        for text in texts:
            tally.add(scan(text, salt=self.salt))
        return {point: tally.as_dict()}

    def taken(self) -> dict[str, dict[str, Any]]:
        """The reports since the last time, by point; then counting starts anew."""
        told = {point: tally.as_dict() for point, tally in self.tallies.items() if tally.texts}
        self.tallies = {}
        return told

    def _count(self, point: str, found: tuple[Finding, ...], *, lost: bool) -> None:
        tally = self.tallies.get(point)
        if tally is None:
            tally = self.tallies[point] = Tally(redacts=point == "egress" and self.egress != "send")
        tally.add(found, lost=lost)

    def _stopped(self, point: str, found: tuple[Finding, ...], where: str) -> str | None:
        """What keeps a text with a credential from going on: the end of the run, or of the row."""
        secrets = tuple(one for one in found if one.kind == "secret")
        if not secrets:
            return None
        if self.secrets == "stop":
            raise TermsRefused(
                f"SECRET_FOUND:{point}: {where} holds a credential ({_said(secrets)}); remove it from the data and revoke "
                "it, or lose such rows with `screening: {secrets: drop}`; nothing lifts this"
            )
        return _SECRET


def texts_of(row: Mapping[str, Any]) -> Iterator[str]:
    """The texts of a row as it is stored, however deep; `asked` holds nothing that prompt, columns and the recipe do not."""
    found: list[str] = []
    for key, value in row.items():
        if key not in _NO_TEXT:
            _gather(value, found)
    return iter(found)


def _texts(record: Record) -> list[str]:
    """The same of a record that is still to be stored."""
    found: list[str] = []
    kind: type = type(record)
    for name in _names(kind):
        value = getattr(record, name)
        if type(value) is str:
            found.append(value)
        elif value:
            _gather(value, found)
    return found


@cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(name for name in names_of(kind) if name not in _NO_TEXT)


def _gather(value: Any, found: list[str]) -> None:
    kind = type(value)
    if kind is str:
        found.append(value)
    elif kind is Message:
        found.append(value.content)
    elif kind is list or kind is tuple:
        for each in value:
            _gather(each, found)
    elif isinstance(value, Mapping):
        for each in value.values():
            _gather(each, found)
    elif kind is Act:
        found += (value.thought, value.action, value.argument, value.observation)
    elif isinstance(value, str):
        found.append(value)


def screening_lines(reports: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A line for people about each point: rules and counts."""
    for point, found in reports.items():
        kinds = ", ".join(f"{n} {rule}" for rule, n in found["rules"].items()) or "nothing found"
        done = "; replaced before they left" if found["pii_redacted"] and found["pii"] else ""
        gone = f"; {found['lost']} lost" if found["lost"] else ""
        yield f"screening at {point}: {kinds} in {found['texts']} texts{done}{gone}"


def _said(found: Iterable[Finding]) -> str:
    return ", ".join(dict.fromkeys(f"{one.rule} {one.hash}" for one in found))
