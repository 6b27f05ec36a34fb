"""What the check says: codes, their classes and sentences, reasons with clause, source and date, and the verdict.

The verdict is the worst class among the codes. Sentences say what a record states; they never call a plan lawful.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Literal

__all__ = [
    "CODES",
    "NOTICE",
    "Active",
    "Decision",
    "Override",
    "Reason",
    "Verdict",
    "class_of",
    "sentence",
    "verdict_of",
]

Class = Literal["information", "obligation", "unknown", "refuse"]
Verdict = Literal["permit", "permit-with-obligations", "unknown", "refuse"]
ORDER: tuple[Class, ...] = ("information", "obligation", "unknown", "refuse")
VERDICTS: tuple[Verdict, ...] = ("permit", "permit-with-obligations", "unknown", "refuse")

NOTICE = (
    "This is an automated reading of published terms as of the dates shown. It is not legal advice, may be wrong or "
    "out of date, and does not cover agreements you signed separately. 'permit' means: no blocking clause was found in "
    "the records listed; it is not a clearance. 'unknown' is an evidence gap, not a finding. Check the linked source; "
    "ask a lawyer where the stakes are real."
)

# stem of a code -> class and sentence; what follows a colon in a code is said by {what}
CODES: dict[str, tuple[Class, str]] = {
    "FLOW_DOWN": ("information", "the host's text passes the model's own terms on"),
    "USE_CHANGED": (
        "information",
        "the use differs from the one that passed the plan gate; this verdict is about the new one",
    ),
    "OWN_RIGHTS_DECLARED": ("information", "declared as the user's own by {by}: {said}"),
    "STALE_NOTE": (
        "information",
        "the record is past its review date, or a later text is known: read the source again",
    ),
    "AUP": ("obligation", "requires you to keep to a use policy"),
    "LAWFUL_USE": ("obligation", "requires you to keep to the law and the terms"),
    "FIELD_OF_USE": ("obligation", "requires you to stay out of the restricted uses"),
    "AI_LABEL": ("obligation", "requires you to label published output as made by a machine"),
    "NAME_PREFIX": ("obligation", "requires the student's name to begin with “{what}”"),
    "BUILT_WITH": ("obligation", "requires a displayed credit to {what}"),
    "UI_NAME": ("obligation", "requires the name {what} on the user interface"),
    "TRADEMARK": ("obligation", "requires the student's name to do without “{what}”"),
    "ATTRIBUTION": ("obligation", "requires you to credit the source"),
    "LICENCE_COPY": ("obligation", "requires you to pass on a copy of the text"),
    "NOTICE_FILE": ("obligation", "requires a notice file"),
    "STATE_CHANGES": ("obligation", "requires changes to be stated"),
    "PASS_THROUGH": ("obligation", "requires its restrictions in the student's own licence ({what})"),
    "NONCOMMERCIAL": ("obligation", "the record allows non-commercial use only; so may the result be used"),
    "SHARE_ALIKE": ("obligation", "requires an adapted, published dataset to carry the same licence"),
    "NO_COMPETE": ("obligation", "the record bars competing models; you declared that yours does not compete"),
    "PERMITTED_EXCEPTION": ("obligation", "the record makes an exception for this kind of student"),
    "NO_DISTRIBUTION": ("obligation", "the exception ends with any distribution"),
    "SAME_FAMILY_ONLY": ("obligation", "the record's bar spares students of its own model family only"),
    "EVAL_ONLY_SEPARATION": ("obligation", "for evaluation only: keep it out of everything that trains"),
    "DISCLOSE_UPSTREAM": (
        "obligation",
        "rows were written by {generator}; say so, whether its terms bind you is unsettled",
    ),
    "CONFIRM_SOURCE": (
        "obligation",
        "known from a secondary source or a card only: confirm it at the publisher's own text",
    ),
    "DECLARE": ("obligation", "the record depends on a fact you have not given: write use.licensee.{what}"),
    "LICENCE_CHOICE_CONFLICT": ("obligation", "the student's licence does not carry what has to be passed on"),
    "NAME_CONFLICT": ("obligation", "the student's name is not what a record asks for"),
    "PII_REVIEW": ("obligation", "personal data was found at {what} and not redacted: review it"),
    "NO_RECORD": ("unknown", "no record says under which terms this stands"),
    "TERMS_UNREAD": ("unknown", "these terms exist and nobody has read them for the registry"),
    "STALE_RECORD": (
        "unknown",
        "the record is past its review date or a later text is known, so it cannot carry this use",
    ),
    "SECONDARY_ONLY": ("unknown", "known from a secondary source only, which cannot carry this use"),
    "ROUTE_UNPINNED": ("unknown", "the host forwards to others and nothing says who served the model: write routed_to"),
    "COMPETE_UNDECLARED": (
        "unknown",
        "the record bars competing models, 'compete' is undefined, and use.competes is not given",
    ),
    "UPSTREAM_UNSETTLED": ("unknown", "rows were written by {generator}; whether its terms bind you is unsettled"),
    "PUBLISHED_OUTPUTS_UNSETTLED": (
        "unknown",
        "the record bars help to competing developers, and publishing outputs may be that",
    ),
    "DISPUTED_LICENCE": ("unknown", "statements about the licence differ, and one of them would block this use"),
    "DATASET_LICENCE_UNSPECIFIED": ("unknown", "the dataset states no licence, or one of its own that nobody read"),
    "NC_INTERNAL": ("unknown", "non-commercial terms, and whether internal use is commercial is unsettled"),
    "SCOPE_UNCLEAR": (
        "unknown",
        "the record's bar names other kinds of student; whether it reaches this one is unclear",
    ),
    "EVAL_UNREAD": ("unknown", "whether the terms let outputs be used for evaluation was not read"),
    "OWN_RIGHTS_INCOMPLETE": (
        "unknown",
        "a declaration of own rights needs holder, basis, declared_by, date and built_on",
    ),
    "SA_MIX_UNSETTLED": ("unknown", "two different ShareAlike licences in one merged dataset"),
    "PROHIBITED_CLAUSE": ("refuse", "found a clause against this use"),
    "PRESUMED_COMPETING": (
        "refuse",
        "bars competing models, and a general model that is shipped is presumed to be one",
    ),
    "COMPETING_DECLARED": ("refuse", "bars competing models, and you declared that yours competes"),
    "NC_VS_USE": ("refuse", "non-commercial or research terms against this purpose"),
    "SCALE_EXCEEDED": (
        "refuse",
        "your figures are above the limit of the grant: a licence of your own has to be requested",
    ),
    "REGION_EXCLUDED": ("refuse", "the record grants nothing to licensees of this region"),
    "SA_NC_CONFLICT": ("refuse", "a ShareAlike set and a NonCommercial set cannot be merged into one published work"),
    "ND_ADAPTED": ("refuse", "a NoDerivatives set may not be published in adapted form"),
    "EVAL_BARRED": ("refuse", "the record bars use for evaluation"),
    "SECRET_FOUND": ("refuse", "a credential was found at {what}: remove and revoke it; nothing lifts this"),
}


# asked of whoever runs it, before anything is handed on
HOMEWORK = (
    "CONFIRM_SOURCE",
    "DECLARE",
    "EVAL_ONLY_SEPARATION",
    "LICENCE_CHOICE_CONFLICT",
    "NAME_CONFLICT",
    "PII_REVIEW",
)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a code was emitted. `record` to `read` are None only where the code rests on the plan alone."""

    code: str
    subject: str
    text: str
    record: str | None = None
    clause: str | None = None
    quote: str | None = None
    source: str | None = None
    read: str | None = None
    origin: str = "registry"

    def as_dict(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "class": class_of(self.code),
            "record": self.record,
            "subject": self.subject,
            "clause": self.clause,
            "quote": self.quote,
            "source": self.source,
            "read": self.read,
            "text": self.text,
            **({} if self.origin == "registry" else {"origin": self.origin}),
        }


@dataclass(frozen=True, slots=True)
class Active:
    """A duty of this plan: active now, or deferred until its trigger holds."""

    code: str
    record: str | None
    subject: str
    trigger: str
    strength: str
    text: str

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("code", "record", "subject", "trigger", "strength", "text")}


@dataclass(frozen=True, slots=True)
class Override:
    """An acknowledgment that lifted something, as the card shows it; the document behind it is never copied."""

    basis: str
    date: str
    expires: str
    person: str
    signed: bool
    lifted: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "basis": self.basis,
            "date": self.date,
            "expires": self.expires,
            "person": self.person,
            "signed": self.signed,
            "lifted": list(self.lifted),
        }


@dataclass(frozen=True)
class Decision:
    """The answer: verdict, codes with their reasons, duties now and later, what is missing, what it was made from."""

    verdict: Verdict
    codes: tuple[str, ...]
    obligations: tuple[Active, ...]
    deferred: tuple[Active, ...]
    reasons: tuple[Reason, ...]
    missing_facts: tuple[str, ...]
    registry: dict[str, str]
    plan_sha256: str
    as_of: date
    gate: str = "plan"
    records: tuple[tuple[str, str], ...] = ()  # subject and id of every record that was consulted
    screened: tuple[str, ...] = ()  # the points a screening report was given for
    lifted: tuple[Reason, ...] = ()
    overrides: tuple[Override, ...] = ()
    ignored: tuple[str, ...] = field(default=())  # why an acknowledgment did nothing

    @property
    def carried(self) -> tuple[Active, ...]:
        """The duties that go out with the work; what was asked of the publisher alone stays behind."""
        return tuple(a for a in self.obligations if a.code.partition(":")[0] not in HOMEWORK)

    def records_about(self, subject: str) -> list[str]:
        """The ids of the records that govern a subject such as `teacher:<model>`."""
        return [record for about, record in self.records if about == subject]

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of `still terms check --json`, and of the manifest."""
        return {
            "verdict": self.verdict,
            "codes": list(self.codes),
            "obligations": [row.as_dict() for row in self.obligations],
            "reasons": [row.as_dict() for row in self.reasons],
            "deferred": [row.as_dict() for row in self.deferred],
            "records": [{"subject": subject, "record": record} for subject, record in self.records],
            "missing_facts": list(self.missing_facts),
            "registry": dict(self.registry),
            "plan_sha256": self.plan_sha256,
            "as_of": self.as_of.isoformat(),
            "gate": self.gate,
            "lifted": [row.as_dict() for row in self.lifted],
            "overrides": [row.as_dict() for row in self.overrides],
            "acknowledgments_ignored": list(self.ignored),
            "notice": NOTICE,
        }

    def lifting(self, overrides: Iterable[Override], lifted: Iterable[Reason], ignored: Iterable[str]) -> "Decision":
        """This decision without the reasons that acknowledgments lift; the verdict is that of what is left."""
        gone = tuple(lifted)
        left = tuple(r for r in self.reasons if r not in gone)
        codes = tuple(sorted({r.code for r in left}))
        return replace(
            self,
            verdict=verdict_of(codes),
            codes=codes,
            reasons=left,
            lifted=gone,
            overrides=tuple(overrides),
            ignored=tuple(ignored),
        )


def class_of(code: str) -> Class:
    return CODES[code.partition(":")[0]][0]


def sentence(code: str, **more: str) -> str:
    stem, _, what = code.partition(":")
    return CODES[stem][1].format(what=what, **more)


def rank(code: str) -> int:
    return ORDER.index(class_of(code))


def verdict_of(codes: Iterable[str]) -> Verdict:
    return VERDICTS[max((rank(code) for code in codes), default=0)]
