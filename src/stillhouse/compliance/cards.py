"""What cards say about terms: fields for the front matter, sections for the body. Returned, not written.

A card states what was found in which text on which date. It calls nothing cleared, and it does not relicense.
"""

from collections.abc import Mapping
from typing import Any

from stillhouse.compliance.decision import Active, Decision
from stillhouse.compliance.notices import credits_to_display
from stillhouse.compliance.plan import Plan
from stillhouse.compliance.registry import Registry

__all__ = ["data_card_fields", "data_card_section", "model_card_fields", "model_card_section"]

GAPS = (
    "Texts can have changed since they were read; agreements signed separately are not known here.",
    "Whether weights adapt the data they were trained on is unsettled, so this card names licences and changes none.",
)


def model_card_fields(decision: Decision, plan: Plan, *, rows: Mapping[str, int] | None = None) -> dict[str, Any]:
    """The front matter that follows from the terms. `rows` counts training rows per teacher model.

    `license` is left out where the plan names none: a placeholder would be read as a grant.
    """
    out: dict[str, Any] = {}
    if plan.use.student_licence:
        out |= _licence_fields(plan.use.student_licence)
    if plan.student_base.id != "none":
        out |= {"base_model": plan.student_base.id, "base_model_relation": "finetune"}
    if named := [d.id for d in plan.datasets if d.own_rights is None and d.role == "train"]:
        out["datasets"] = named
    out["tags"] = ["distilled", "knowledge-distillation"]
    out["distillation"] = {
        "teachers": _teachers(decision, plan, rows or {}),
        "verdict": decision.verdict,
        "obligations": sorted({a.code for a in decision.carried}),
        "declared_use": {"purpose": plan.use.purpose, "distributes": sorted(plan.use.distributed)},
        "override": [o.as_dict() for o in decision.overrides],
        "registry": f"{decision.registry['version']} sha256:{decision.registry['sha256'][:16]}",
        "as_of": decision.as_of.isoformat(),
    }
    return out


def _licence_fields(licence: str) -> dict[str, str]:
    if " " in licence or licence.startswith("LicenseRef-"):
        return {"license": "other", "license_name": licence, "license_link": "LICENSE"}
    if licence == "other":
        return {"license": "other", "license_name": "see LICENSE", "license_link": "LICENSE"}
    return {"license": licence.lower()}


def _teachers(decision: Decision, plan: Plan, rows: Mapping[str, int]) -> list[dict[str, Any]]:
    out = []
    for t in plan.teachers:
        row: dict[str, Any] = {"id": t.model, "access": t.access, "method": t.method}
        row |= {"revision": t.revision} if t.revision else {}
        row["terms"] = decision.records_about(f"teacher:{t.model}")
        row |= {"rows": rows[t.model]} if t.model in rows else {}
        out.append(row)
    return out


def model_card_section(
    decision: Decision, plan: Plan, registry: Registry, *, rows: Mapping[str, int] | None = None, changes: str = ""
) -> str:
    """The section "Provenance and obligations" of a model card, in Markdown. `changes` says what was done to the base."""
    registry = registry.with_records(plan.records)
    out = ["## Provenance and obligations", "", _made_from(plan, rows or {}), ""]
    out += ["Obligations known to the publisher:", ""]
    out += _duties(decision, registry) or ["- none was found in the records listed"]
    out += _to_display(decision)
    if any(a.code == "STATE_CHANGES" for a in decision.obligations):
        done = changes or f"fine-tuned from {plan.student_base.id}; every weight may differ from the original"
        out += ["", f"Changes: {done}."]
    out += _credits(plan, decision, registry)
    out += ["", f"Compliance override: {_overrides(decision)}.", ""]
    out += ["Known gaps:", "", *(f"- {gap}" for gap in GAPS), *_open_points(decision)]
    found = f"{decision.registry['version']}, sha256 {decision.registry['sha256'][:16]}"
    out += ["", f"Read on {decision.as_of} from the terms registry {found}. Not legal advice."]
    return "\n".join(out) + "\n"


def _made_from(plan: Plan, rows: Mapping[str, int]) -> str:
    training = [t for t in plan.teachers if t.method != "evaluate_only"]
    base = "random initialisation" if plan.student_base.id == "none" else plan.student_base.id
    if not training:
        return f"Starting weights: {base}. No model's outputs were used for training."
    named = [f"{t.model} ({t.access}, {t.method}{_count(rows.get(t.model))})" for t in training]
    return f"Student trained on outputs of {'; '.join(named)}. Starting weights: {base}."


def _count(rows: int | None) -> str:
    return "" if rows is None else f", {rows} rows"


def _duties(decision: Decision, registry: Registry) -> list[str]:
    out = []
    for a in decision.carried:
        record = registry.by_id.get(a.record or "")
        clause = f", {record.locator}" if record and record.locator else ""
        read = f", read {record.read}" if record and record.read else ""
        source = f", {record.source}" if record and record.source else ""
        out.append(f"- {a.code}: {a.text}. Because of {a.subject} ({a.record}{clause}{read}{source}).{_downstream(a)}")
    return out


def _downstream(a: Active) -> str:
    stem = a.code.partition(":")[0]
    travels = ("PASS_THROUGH", "NAME_PREFIX", "LICENCE_COPY", "NOTICE_FILE", "AUP", "FIELD_OF_USE", "BUILT_WITH")
    return " Tell whoever receives this model." if stem in travels else ""


def _to_display(decision: Decision) -> list[str]:
    """Credits that a record wants displayed, in the words of its own duty."""
    owed = [a for a in decision.obligations if a.code.startswith("BUILT_WITH:")]
    said = dict.fromkeys(credits_to_display(a)[0] for a in owed)
    return ["", *(f"**{line}**" for line in said)] if said else []


def _credits(plan: Plan, decision: Decision, registry: Registry) -> list[str]:
    owed = [a for a in decision.obligations if a.code == "ATTRIBUTION"]
    told = [r for r in (*decision.reasons, *decision.lifted) if r.code in ("DISCLOSE_UPSTREAM", "UPSTREAM_UNSETTLED")]
    if not owed and not told:
        return []
    out = ["", "Credits:", ""]
    for a in owed:
        record = registry.by_id.get(a.record or "")
        licence = (record.own_licence or record.spdx or "see source") if record else "see the recipe"
        title = f"{record.title} by {record.holder}" if record else a.subject
        out.append(f"- {a.subject.partition(':')[2]}: {title}, {licence}, {record.source if record else ''}")
    generators = sorted({f"{r.subject.partition(':')[2]}: {r.text}" for r in told})
    return [*out, *(f"- {line}" for line in generators)]


def _overrides(decision: Decision) -> str:
    if not decision.overrides:
        return "no"
    said = [f"{o.basis}, {o.date}, until {o.expires}, lifting {', '.join(o.lifted)}" for o in decision.overrides]
    return f"yes ({'; '.join(said)})"


def _open_points(decision: Decision) -> list[str]:
    lifted = sorted({f"{r.code}: {r.subject}: {r.text}" for r in decision.lifted})
    return [f"- accepted by a person, not settled: {line}" for line in lifted]


def data_card_fields(decision: Decision, plan: Plan) -> dict[str, Any]:
    """Front matter of the card of a published data set: sources, and that it was made by a machine."""
    sources = [d.id for d in plan.datasets if d.role == "train" and d.own_rights is None]
    out: dict[str, Any] = {"tags": ["synthetic", "distilled"], "annotations_creators": ["machine-generated"]}
    if sources:
        out["source_datasets"] = sources
    out["distillation"] = {
        "teachers": _teachers(decision, plan, {}),
        "verdict": decision.verdict,
        "obligations": sorted({a.code for a in decision.carried}),
        "as_of": decision.as_of.isoformat(),
    }
    return out


def data_card_section(
    decision: Decision, plan: Plan, registry: Registry, *, rows: Mapping[str, int] | None = None, human_rows: int = 0
) -> str:
    """The section "Sources and terms" of a data card. `rows` counts rows per teacher model, `human_rows` the others."""
    registry = registry.with_records(plan.records)
    rows = rows or {}
    synthetic = sum(rows.values())
    total = synthetic + human_rows
    out = ["## Sources and terms", ""]
    if total:
        out += [f"{synthetic} of {total} rows ({synthetic / total:.1%}) were generated by artificial intelligence:", ""]
        out += [f"- {model}: {count} rows" for model, count in sorted(rows.items())]
    for d in plan.datasets:
        held = registry.find(d.id, "dataset")
        what = "; ".join(f"{r.own_licence or r.title} ({r.id}, read {r.read})" for r in held)
        own = f"own data, as declared: {d.own_rights.statement or d.own_rights.holder}" if d.own_rights else ""
        out.append(f"- {d.id} ({d.role}): {what or own or 'no record'}")
    out += ["", "Obligations known to the publisher:", ""]
    out += _duties(decision, registry) or ["- none was found in the records listed"]
    out += _credits(plan, decision, registry)
    out += ["", f"Read on {decision.as_of}. Not legal advice."]
    return "\n".join(out) + "\n"
