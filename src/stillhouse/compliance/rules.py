"""What one record says about one edge of a plan. Rule numbers (R2 ...) are those of docs/guides/terms.md.

An edge is a teacher, the student's starting weights, a data set, or the model that wrote a data set. Every function
adds what it finds and decides nothing: the verdict is the worst class found.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date

from stillhouse.compliance.decision import Active, Reason, sentence
from stillhouse.compliance.licences import is_noncommercial
from stillhouse.compliance.plan import EU, Use
from stillhouse.compliance.terms import FACTS, Condition, Obligation, TermsRecord

__all__ = [
    "Findings",
    "Situation",
    "bars",
    "can_train",
    "evaluation",
    "limits",
    "obligations",
    "own_licence",
    "reliable",
]

NOT_READ = "(not read)"


@dataclass
class Findings:
    reasons: set[Reason] = field(default_factory=set)
    active: set[Active] = field(default_factory=set)
    deferred: set[Active] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    used: set[tuple[str, str]] = field(default_factory=set)

    def plain(self, code: str, subject: str, **more: str) -> None:
        """A code that rests on the plan alone."""
        self.reasons.add(Reason(code, subject, sentence(code, **more)))

    def found(
        self,
        code: str,
        subject: str,
        record: TermsRecord,
        part: Condition | Obligation | None = None,
        text: str = "",
        **more: str,
    ) -> None:
        """A code with the clause of the record (or of the part of it) that it rests on."""
        said = text or sentence(code, **more)
        if record.unread:
            unread_at = record.where_to_read or record.source or NOT_READ
            row = Reason(code, subject, said, record.id, NOT_READ, NOT_READ, unread_at, "not read", record.origin)
        else:
            quote = (part.quote if part else None) or record.quote
            source = (part.source if isinstance(part, Condition) else None) or record.source
            clause = record.locator or "statement of the licence"
            row = Reason(code, subject, said, record.id, clause, quote, source, str(record.read), record.origin)
        self.reasons.add(row)


@dataclass(frozen=True)
class Situation:
    """The use, the day, and the families of the student's starting weights."""

    use: Use
    as_of: date
    families: frozenset[str] = frozenset()


def reliable(now: Situation, record: TermsRecord, subject: str, out: Findings) -> None:
    """R3 age and R4 grade: may what was read carry this use today?"""
    assert record.review_by, "unread records end at R2"
    outdated = now.as_of > record.review_by or (record.later_text and record.kind in ("contract", "host"))
    if outdated:
        out.found("STALE_RECORD" if now.use.outward else "STALE_NOTE", subject, record, text=_age(now, record))
    if record.grade == "S":
        weak = now.use.outward or record.outputs_may_train == "no"
        out.found("SECONDARY_ONLY" if weak else "CONFIRM_SOURCE", subject, record)
    elif record.origin == "card":
        out.found("CONFIRM_SOURCE", subject, record)


def _age(now: Situation, record: TermsRecord) -> str:
    why = (
        f"its review date, {record.review_by}, has passed on {now.as_of}"
        if record.review_by and now.as_of > record.review_by
        else "a later text is known that nobody read"
    )
    then = "cannot carry an outward use" if now.use.outward else "read the source again"
    return f"the record was read on {record.read} and {why}: {then}"


def limits(now: Situation, record: TermsRecord, subject: str, out: Findings) -> None:
    """R6: non-commercial grants, figures above which a grant ends, excluded regions."""
    for condition in record.conditions:
        if condition.kind == "noncommercial":
            _noncommercial(now.use, record, condition, subject, out)
        elif condition.kind == "scale_cap":
            _scale_cap(now.use, record, condition, subject, out)
        elif condition.kind == "region_excluded":
            _region(now.use, record, condition, subject, out)


def _noncommercial(use: Use, record: TermsRecord, condition: Condition, subject: str, out: Findings) -> None:
    if use.purpose == "commercial_product":
        out.found("NC_VS_USE", subject, record, condition)
    elif use.purpose == "internal":
        out.found("NC_VS_USE" if condition.scope == "research_only" else "NC_INTERNAL", subject, record, condition)
    else:
        out.found("NONCOMMERCIAL", subject, record, condition)
        known = [name for name in (record.hf_license, record.spdx) if name and name != "other"]
        keeps = use.student_licence and is_noncommercial(use.student_licence, known)
        if use.purpose == "open_release" and not keeps:
            text = "the student's licence has to keep the non-commercial limit: write it in use.student_licence"
            out.found("LICENCE_CHOICE_CONFLICT", subject, record, condition, text)


def _scale_cap(use: Use, record: TermsRecord, condition: Condition, subject: str, out: Findings) -> None:
    for fact in FACTS:
        limit, value = getattr(condition, fact), getattr(use.licensee, fact)
        if limit is None:
            continue
        if value is None:
            _declare(fact, subject, record, out, condition)
        elif value > limit:
            text = (
                f"{fact} {value:.0f} is above {limit:.0f}, where the record's grant ends: a licence has to be requested"
            )
            out.found("SCALE_EXCEEDED", subject, record, condition, text)


def _region(use: Use, record: TermsRecord, condition: Condition, subject: str, out: Findings) -> None:
    region = use.licensee.region
    excluded = {r for name in condition.regions for r in (EU if name == "EU" else {name.upper()})}
    if region is None:
        _declare("region", subject, record, out, condition)
    elif region.upper() in excluded:
        out.found("REGION_EXCLUDED", subject, record, condition)


def _declare(
    fact: str, subject: str, record: TermsRecord, out: Findings, part: Condition | Obligation | None = None
) -> None:
    out.missing.add(f"use.licensee.{fact}")
    out.found(f"DECLARE:{fact}", subject, record, part)


def evaluation(now: Situation, record: TermsRecord, subject: str, out: Findings) -> None:
    """R7: a teacher that is only asked to evaluate."""
    code = {"yes": "EVAL_ONLY_SEPARATION", "no": "EVAL_BARRED", "unread": "EVAL_UNREAD"}[record.evaluation]
    out.found(code, subject, record, record.condition("eval_exception"))
    duties = [o for o in record.obligations if o.trigger == "always"]
    _add(now, record, duties, ("outputs", "both"), subject, out)


def bars(now: Situation, record: TermsRecord, subject: str, out: Findings) -> None:
    """R8 flat bars, R9 competing models, R10 help to others: a teacher whose answers train."""
    if record.outputs_may_train == "no":
        _flat_bar(now, record, subject, out)
    if competing := record.condition("no_compete"):
        _no_compete(now.use, record, competing, subject, out)
    assisting = record.condition("no_assist")
    if assisting and now.use.outputs_published:
        out.found("PUBLISHED_OUTPUTS_UNSETTLED", subject, record, assisting)


def _flat_bar(now: Situation, record: TermsRecord, subject: str, out: Findings) -> None:
    scope = record.condition("scope")
    if same_family(now, record):
        out.found("SAME_FAMILY_ONLY", subject, record, record.condition("same_family"))
    elif scope and now.use.student_kind not in scope.student_kinds:
        out.found("SCOPE_UNCLEAR", subject, record, scope)
    else:
        out.found("PROHIBITED_CLAUSE", subject, record)


def same_family(now: Situation, record: TermsRecord) -> bool:
    spared = record.condition("same_family")
    return bool(spared and now.families.intersection(spared.families))


def can_train(now: Situation, record: TermsRecord) -> bool:
    """R13: whether a generator's own licence settles that others may train on what it wrote."""
    if record.kind != "weights":
        return False
    spared = record.outputs_may_train == "no" and same_family(now, record)
    return spared or (record.outputs_may_train == "yes" and record.grade in ("P", "P~"))


def _no_compete(use: Use, record: TermsRecord, condition: Condition, subject: str, out: Findings) -> None:
    excepted, declared = record.condition("permitted_exception"), use.competes_with(record.holder)
    if excepted and use.student_kind in excepted.student_kinds and not use.distributed:
        out.found("PERMITTED_EXCEPTION", subject, record, excepted)
        out.found("NO_DISTRIBUTION", subject, record, excepted)
    elif declared == "yes":
        out.found("COMPETING_DECLARED", subject, record, condition)
    elif use.student_kind == "general_llm" and use.shipped:
        # a bare "no" does not help here: nothing read defines "compete", and a shipped general model is the plain case
        out.found("PRESUMED_COMPETING", subject, record, condition)
    elif declared == "no":
        out.found("NO_COMPETE", subject, record, condition)
    else:
        out.missing.add(f"use.competes ({record.holder})")
        out.found("COMPETE_UNDECLARED", subject, record, condition)


def obligations(now: Situation, record: TermsRecord, reach: tuple[str, ...], subject: str, out: Findings) -> None:
    """R11: the duties that reach this edge, active or deferred."""
    _add(now, record, record.obligations, reach, subject, out)


def _add(
    now: Situation,
    record: TermsRecord,
    duties: Iterable[Obligation],
    reach: tuple[str, ...],
    subject: str,
    out: Findings,
) -> None:
    for duty in duties:
        if duty.reach not in reach:
            continue
        state = _triggered(now, duty, record, subject, out)
        if state is None:
            continue
        strength = duty.strength
        if strength == "required_for_weights":
            strength = "required" if "weights" in reach else "precautionary"
        row = Active(duty.code, record.id, subject, duty.trigger, strength, duty.text)
        if state:
            out.active.add(row)
            out.found(duty.code, subject, record, duty, f"{sentence(duty.code)}: {duty.text}")
        else:
            out.deferred.add(row)


def _triggered(now: Situation, duty: Obligation, record: TermsRecord, subject: str, out: Findings) -> bool | None:
    """Whether the duty is active; None where it never can be for this licensee."""
    use = now.use
    if duty.trigger == "scale":
        return _scale(use, duty, record, subject, out)
    return {
        "always": True,
        "shipped": use.shipped,
        "weights_shipped": "weights" in use.distributed,
        "distributed": bool(use.distributed),
        "outputs_published": use.outputs_published,
        "data_published": use.outputs_published,
    }[duty.trigger]


def _scale(use: Use, duty: Obligation, record: TermsRecord, subject: str, out: Findings) -> bool | None:
    when = duty.when
    if when is None or use.purpose not in when.purpose:
        return False
    limit_of = {fact: limit for fact in FACTS if (limit := getattr(when, f"{fact}_over")) is not None}
    value_of = {fact: getattr(use.licensee, fact) for fact in limit_of}
    if any(value is not None and value > limit_of[fact] for fact, value in value_of.items()):
        return True
    for fact, value in value_of.items():
        if value is None:
            _declare(fact, subject, record, out, duty)
    return None


def own_licence(now: Situation, record: TermsRecord, subject: str, out: Findings) -> None:
    """R12: what a data set says about itself."""
    if record.outputs_may_train == "no":
        out.found("PROHIBITED_CLAUSE", subject, record)
    if record.own_licence in ("unspecified", "custom"):
        out.found("DATASET_LICENCE_UNSPECIFIED", subject, record)
    if record.readings and {r.commercial for r in record.readings} != {"yes"}:
        said = "; ".join(f"{r.licence} ({r.stated_by})" for r in record.readings)
        if now.use.purpose == "research":
            out.found(
                "NONCOMMERCIAL",
                subject,
                record,
                text=f"statements about the licence differ: {said}; keep to the strictest",
            )
        else:
            out.found("DISPUTED_LICENCE", subject, record, text=f"statements about the licence differ: {said}")
