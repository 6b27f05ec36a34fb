"""A decision in lines for a person: notice, verdict, one line per reason, duties to tick, and the ways on."""

from collections.abc import Iterable
from datetime import date, timedelta

from stillhouse.compliance.decision import NOTICE, Active, Decision, Reason, class_of
from stillhouse.compliance.registry import Registry
from stillhouse.compliance.terms import TermsRecord

__all__ = ["ageing", "alternatives", "due_soon", "lines", "record_lines", "summary", "ways_on"]

SHOWN = 12
SOON = timedelta(weeks=8)


def lines(decision: Decision, registry: Registry) -> list[str]:
    """The whole report."""
    out = [NOTICE, "", f"verdict on {decision.as_of}: {decision.verdict}"]
    duties = {(a.code, a.subject, a.record) for a in decision.obligations}
    told = [r for r in decision.reasons if (r.code, r.subject, r.record) not in duties]
    out += [f"  {_line(r)}" for r in told] or ["  no blocking clause was found in the records"]
    if duties:
        out += ["", "duties that apply now:"]
        out += [f"  [ ] {_duty(a, registry)}" for a in decision.obligations]
    if decision.deferred:
        later = sorted({f"{a.code} ({a.trigger.replace('_', ' ')})" for a in decision.deferred})
        out += ["", f"duties that do not apply to this use, and come with others: {', '.join(later)}"]
    for override in decision.overrides:
        by = f"{override.person}, {override.basis}, {override.date}, until {override.expires}"
        out += ["", f"lifted by acknowledgment ({by}): {', '.join(override.lifted)}"]
    out += [f"acknowledgment {text}" for text in decision.ignored]
    if decision.records:
        out += ["", f"records consulted: {', '.join(sorted({record for _, record in decision.records}))}"]
    if on := ways_on(decision, registry):
        out += ["", "ways on:", *(f"  - {text}" for text in on)]
    consulted = {record for _, record in decision.records}
    out += [
        f"{r.id} is to be read again by {r.review_by}, in {(r.review_by - decision.as_of).days} days"
        for r in registry.records
        if r.id in consulted and r.review_by and due_soon(r, decision.as_of)
    ]
    dated = {r.id for r in registry.records if r.kind in ("contract", "host")}
    if dated.intersection(record for _, record in decision.records) and (note := ageing(decision.as_of, registry)):
        out += ["", note]
    return out


def summary(decision: Decision, registry: Registry) -> str:
    """What a gate says when it stops: the verdict, what blocks, and the ways on."""
    blocking = [r for r in decision.reasons if class_of(r.code) in ("unknown", "refuse")]
    head = {"refuse": "terms refuse this plan", "unknown": "nobody has settled the terms of this plan"}[
        decision.verdict
    ]
    text = [f"{head} (gate {decision.gate}, {decision.as_of}):"]
    text += [f"  {_line(r)}" for r in blocking]
    text += [f"  acknowledgment {why}" for why in decision.ignored]
    text += [f"  - {way}" for way in ways_on(decision, registry)]
    return "\n".join(text)


def _line(r: Reason) -> str:
    said = f"{class_of(r.code)}: {r.code}: {r.subject}: {r.text}"
    if r.record is None:
        return said
    mark = "" if r.origin == "registry" else f", {r.origin} record"
    quote = "" if r.quote in (None, "(not read)") else f" “{r.quote}”"
    when = "not read" if r.read == "not read" else f"read {r.read}"
    return f"{said} [{r.record}{mark}, {r.clause}, {when}, {r.source}]{quote}"


def _duty(a: Active, registry: Registry) -> str:
    record = registry.by_id.get(a.record or "")
    where = f", {record.locator or 'statement of the licence'}, read {record.read}, {record.source}" if record else ""
    return f"{a.code}: {a.text} ({a.subject}{f', {a.record}' if a.record else ''}{where})"


def ways_on(decision: Decision, registry: Registry) -> list[str]:
    """What to write to get from this verdict to another, most direct first."""
    if decision.verdict not in ("unknown", "refuse"):
        return []
    blocking = [r for r in decision.reasons if class_of(r.code) in ("unknown", "refuse")]
    out = list(dict.fromkeys(way for r in blocking if (way := _resolving(r))))
    if any(r.subject.startswith("teacher:") for r in blocking):
        out.append(f"another teacher; records that say yes: {', '.join(alternatives(registry))}")
    lifts = sorted({r.code for r in blocking if not r.code.startswith("SECRET_FOUND")})
    if lifts:
        needs = (
            "a written permission, separate licence or own rights, with document_sha256, signed"
            if decision.verdict == "refuse"
            else "a person's acknowledgment (signed for commercial and open use)"
        )
        bound = f"plan_hash sha256:{decision.plan_sha256}"
        out.append(f"{needs}: {bound}, lifts {', '.join(lifts)}; see the guide on terms")
    return out


RESOLVING = {
    "NO_RECORD": "say what governs {id}: terms: {{record: <record id or licence such as apache-2.0>}} on its entry, "
    "or a row in terms.d/*.yaml",
    "TERMS_UNREAD": "read {source} and write what it says into terms.d/*.yaml",
    "STALE_RECORD": "read {source} again and use a registry with the new date (--registry FILE)",
    "SECONDARY_ONLY": "read the publisher's own text and use a registry that has it (--registry FILE)",
    "ROUTE_UNPINNED": "pin the route and write who served {id}: routed_to: <provider>",
    "COMPETE_UNDECLARED": "say whether the student competes with the holder: use: {{competes: no}} (or yes)",
    "OWN_RIGHTS_INCOMPLETE": "complete own_rights of {id}: holder, basis, declared_by, date, built_on",
    "SECRET_FOUND": "remove the credential from the data and revoke it",
    "REGION_EXCLUDED": "another model: the record grants nothing in use.licensee.region",
    "SCALE_EXCEEDED": "request a licence of your own from the holder",
}


def _resolving(r: Reason) -> str | None:
    template = RESOLVING.get(r.code.partition(":")[0])
    id = r.subject.partition(":")[2]
    return template.format(id=id, source=r.source) if template else None


def alternatives(registry: Registry) -> list[str]:
    """Some teachers whose own licence was read, says yes, and asks nothing of a student trained on their outputs."""
    return sorted(r.models[0].match for r in registry.records if _undemanding(r))[:SHOWN]


def _undemanding(r: TermsRecord) -> bool:
    settled = r.kind == "weights" and r.outputs_may_train == "yes" and r.grade in ("P", "P~")
    asks = any(o.reach in ("outputs", "both") for o in r.obligations)
    return settled and not asks and not r.conditions and not r.inherits and r.holder != "Stillhouse"


def due_soon(record: TermsRecord, day: date) -> bool:
    """Whether the record's review date lies within weeks of `day`."""
    return record.review_by is not None and day <= record.review_by <= day + SOON


def ageing(day: date, registry: Registry) -> str | None:
    """How many contracts are past their review date, or will be within weeks: they change, and their records with them."""
    dated = [r for r in registry.records if r.kind in ("contract", "host") and r.review_by]
    old = [r for r in dated if r.review_by and r.review_by < day]
    soon = [r for r in dated if due_soon(r, day)]
    if not old and not soon:
        return None
    return (
        f"{len(old)} of {len(dated)} records about contracts and hosts are past their review date on {day} (registry "
        f"{registry.version}) and {len(soon)} will be within {SOON.days // 7} weeks: such a record can still refuse, and "
        "no longer carries a commercial or open use"
    )


def record_lines(record: TermsRecord, day: date) -> list[str]:
    """One record, whole."""
    data = record.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    out = [f"{record.id}", f"  {record.holder}: {record.title} ({record.kind})"]
    skip = {"id", "holder", "title", "kind", "conditions", "obligations", "readings", "upstream", "models"}
    out += [f"  {key}: {_plain(value)}" for key, value in data.items() if key not in skip]
    for p in record.models:
        out.append(f"  speaks of: {p.match}" + (f" except {', '.join(p.excepted)}" if p.excepted else ""))
    for c in data.get("conditions", ()):
        out.append("  condition: " + ", ".join(f"{k} {_plain(v)}" for k, v in c.items()))
    for o in record.obligations:
        out.append(f"  duty: {o.code} ({o.trigger}, reaches {o.reach}): {o.text}")
    for row in record.readings:
        out.append(f"  reading: {row.licence} ({row.stated_by}; commercial use: {row.commercial})")
    for up in record.upstream:
        out.append(f"  written by: {up.generator} ({up.terms})")
    if record.review_by and record.review_by < day:
        out.append(f"  past its review date on {day}: read the source again")
    return out


def _plain(value: object) -> str:
    if isinstance(value, Iterable) and not isinstance(value, str | dict):
        return ", ".join(map(str, value))
    return str(value)
