"""What only the whole plan shows: licences that meet in one work, the student's name and licence, screening, change of use."""

from collections.abc import Iterable

from stillhouse.compliance.licences import is_plain_public, share_alike_family
from stillhouse.compliance.plan import Dataset, Plan
from stillhouse.compliance.registry import Registry
from stillhouse.compliance.rules import Findings
from stillhouse.compliance.terms import TermsRecord

__all__ = ["changed", "merging", "name_and_licence", "screening"]


def merging(plan: Plan, registry: Registry, out: Findings) -> None:
    """R14: licences that cannot live in one published work; a set of the user's own holds what it was built on."""
    sets = [
        (f"dataset:{d.id}", record)
        for d in plan.datasets
        if d.role == "train"
        for record in _records_of(d, registry)
        if not record.unread
    ]
    if plan.use.outputs_published:
        for subject, record in sets:
            if part := record.condition("no_derivatives"):
                out.found("ND_ADAPTED", subject, record, part)
    if "merged_dataset" not in plan.use.distributed:
        return
    alike = [(subject, record, family) for subject, record in sets if (family := _share_alike(record))]
    limited = [record for _, record in sets if record.condition("noncommercial")]
    for subject, record, _ in alike:
        # a BY-NC-SA set carries the limit itself; the conflict is with sets whose licence forbids adding it
        if limited and not record.condition("noncommercial"):
            out.found("SA_NC_CONFLICT", subject, record)
    if len({family for _, _, family in alike}) > 1:
        for subject, record, _ in alike:
            out.found("SA_MIX_UNSETTLED", subject, record)


def _records_of(dataset: Dataset, registry: Registry) -> Iterable[TermsRecord]:
    found = registry.find(dataset.id, "dataset")
    if not found and dataset.own_rights and dataset.own_rights.complete:
        return [record for id in dataset.own_rights.built_on or () for record in registry.find(id, "dataset")]
    return found


def _share_alike(record: TermsRecord) -> str | None:
    if not any(o.code == "SHARE_ALIKE" for o in record.obligations):
        return None
    return share_alike_family(record.own_licence or record.spdx or "") or record.id


def name_and_licence(plan: Plan, registry: Registry, out: Findings) -> None:
    """R15: the student's name and licence against what is active."""
    licence = plan.use.student_licence
    passing = [registry.by_id[a.record] for a in out.active if a.record and a.code.startswith("PASS_THROUGH:")]
    # the licence of one record carries that record's restrictions, not those of another
    if licence and any(is_plain_public(licence, [n for n in (r.hf_license, r.spdx) if n]) for r in passing):
        out.plain("LICENCE_CHOICE_CONFLICT", "use.student_licence")
    name = (plan.use.student_name or "").rpartition("/")[2]
    for duty in out.active if name else ():
        stem, _, what = duty.code.partition(":")
        wrong_start = stem == "NAME_PREFIX" and not _squeezed(name).startswith(_squeezed(what))
        wrong_mark = stem == "TRADEMARK" and _squeezed(what).lower() in _squeezed(name).lower()
        if wrong_start or wrong_mark:
            out.plain("NAME_CONFLICT", "use.student_name")


def _squeezed(name: str) -> str:
    """Names on hubs hold no spaces: `Llama-3-x` begins with “Llama 3”."""
    return name.replace(" ", "-").replace("_", "-")


def screening(plan: Plan, out: Findings) -> None:
    """R16."""
    for point, counts in plan.use.screening.items():
        if counts.secrets:
            out.plain(f"SECRET_FOUND:{point}", f"screening:{point}")
        if counts.pii and not counts.pii_redacted:
            out.plain(f"PII_REVIEW:{point}", f"screening:{point}")


def changed(plan: Plan, out: Findings) -> None:
    """R17."""
    if plan.use.planned is not None and plan.use.planned.decisive != plan.use.decisive:
        out.plain("USE_CHANGED", "use.planned")
