"""The gates: before the first teacher call, before step 0, before anything is handed out. This is what others call.

plan = plan_of(...)                                     # recipe_plan.py
decision = decide(plan, registry=registry)               # plan gate
enforce(decision, registry)                             # TermsRefused (exit 3) or TermsUnknown (exit 4)
decide_rows(plan, teachers_of_rows(run), ...)           # train gate: from the rows, not from the recipe
publish_gaps(decide(plan, gate="publish", ...), ...)    # publish gate: duties that are not met
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from stillhouse.compliance import acknowledge
from stillhouse.compliance.acknowledge import Acknowledgment
from stillhouse.compliance.decision import Active, Decision
from stillhouse.compliance.evaluate import evaluate
from stillhouse.compliance.explain import summary
from stillhouse.compliance.notices import credits_to_display
from stillhouse.compliance.plan import STARTED, Gate, Plan, Screening, Teacher, plan_hash
from stillhouse.compliance.registry import Registry, builtin, user_folders, user_records
from stillhouse.errors import RecipeError, TermsRefused, TermsUnknown

__all__ = [
    "acknowledgments_of",
    "decide",
    "decide_rows",
    "enforce",
    "may_be_sent",
    "publish_gaps",
    "registry_for",
]


def registry_for(folder: Path | None = None, base: Registry | None = None) -> Registry:
    """The registry with the user's records: terms.d beside the recipe, then ~/.config/stillhouse/terms.d."""
    folders = [folder / "terms.d"] if folder is not None else []
    folders += [home / "terms.d" for home in user_folders()]
    return (base or builtin()).with_records(user_records(folders, today=date.today()))


def acknowledgments_of(listed: Sequence[Any], folder: Path) -> tuple[Acknowledgment, ...]:
    """The recipe's `acknowledgments:`: paths of signed files (relative to the recipe), or unsigned ones in place."""
    out = []
    for i, entry in enumerate(listed):
        if isinstance(entry, str):
            out.append(acknowledge.read_acknowledgment(folder / entry, acknowledge.signer_files(folder)))
        else:
            out.append(acknowledge.from_mapping(entry, f"acknowledgments[{i}]"))
    return tuple(out)


def decide(
    plan: Plan,
    *,
    registry: Registry | None = None,
    today: date | None = None,
    acknowledgments: Sequence[Acknowledgment] = (),
    gate: Gate = "plan",
    screening: Mapping[str, Mapping[str, Any]] | None = None,
) -> Decision:
    """The decision of a plan at a gate, acknowledgments applied.

    Judged on the later of today and the plan's `as_of`. `screening` is what `screening.as_use` gives.
    """
    day = today or date.today()
    update: dict[str, Any] = {"gate": gate, "as_of": max(day, plan.use.as_of or day)}
    if screening is not None:
        update["screening"] = {point: Screening.model_validate(dict(row)) for point, row in screening.items()}
    now = plan.model_copy(update={"use": plan.use.model_copy(update=update)})
    return acknowledge.apply(evaluate(now, registry or builtin()), now, acknowledgments, day)


def decide_rows(
    plan: Plan,
    names: Iterable[str],
    *,
    registry: Registry | None = None,
    today: date | None = None,
    acknowledgments: Sequence[Acknowledgment] = (),
    screening: Mapping[str, Mapping[str, Any]] | None = None,
) -> Decision:
    """The train gate: the plan as the rows have it. `names` are the teachers that rows name (lineage.teachers_of_rows).

    A teacher without rows drops out; a row whose teacher the recipe does not know fails closed, under a plan hash of its
    own, so that no acknowledgment of the recipe's plan reaches it.
    """
    found: list[Teacher] = [t for t in plan.teachers if t.method != "train_on_outputs"]
    strangers = []
    for name in sorted({*names, *(name for name in plan.by_name if name == STARTED)}):
        mine = plan.by_name.get(name) or tuple(t for t in plan.teachers if t.model.lower() == name.lower())
        found += mine
        if not mine:
            strangers.append({"model": name, "access": "api:unknown"})
    update: dict[str, Any] = {"teachers": tuple(dict.fromkeys(found))}
    if strangers:
        document = {**plan.document, "teachers": [*plan.document["teachers"], *strangers]}
        update["teachers"] += tuple(Teacher.model_validate(row) for row in strangers)
        update |= {"document": document, "sha256": plan_hash(document)}
    return decide(
        plan.model_copy(update=update),
        registry=registry,
        today=today,
        acknowledgments=acknowledgments,
        gate="train",
        screening=screening,
    )


def enforce(decision: Decision, registry: Registry | None = None) -> None:
    """Returns where the verdict lets the gate open. Raises TermsRefused or TermsUnknown, with the ways on."""
    if decision.verdict == "refuse":
        raise TermsRefused(summary(decision, registry or builtin()))
    if decision.verdict == "unknown":
        raise TermsUnknown(summary(decision, registry or builtin()))


def may_be_sent(plan: Plan, registry: Registry) -> None:
    """Personal data goes out as it is only to providers that a record says do not train on it. Raises RecipeError."""
    for name, rows in plan.by_name.items():
        for t in (t for t in rows if t.access != "weights"):
            held = registry.find(t.model, t.access)
            if not held or any(r.provider_trains_on_inputs != "no" for r in held):
                raise RecipeError(
                    f"screening.egress: send: no record says that the provider of teacher {name!r} keeps what it is sent "
                    "out of training; write redact or drop, or `provider_trains_on_inputs: no` into terms.d/*.yaml"
                )


def publish_gaps(decision: Decision, plan: Plan, files: Mapping[str, str], registry: Registry) -> tuple[str, ...]:
    """Duties not met by what is about to be handed out: one sentence each, empty when the gate may open.

    `files` are the texts of the student's folder by name (README.md, NOTICE ...); `decision` is that of gate publish.
    """
    if decision.gate != "publish":
        raise RecipeError("publish_gaps needs a decision of gate publish; call decide(plan, gate='publish')")
    gaps = [gap for duty in decision.obligations if (gap := _gap(duty, plan, files))]
    gaps += _licence_gaps(decision, files, registry.with_records(plan.records))
    for reason in decision.reasons:
        stem = reason.code.partition(":")[0]
        if stem in ("NAME_CONFLICT", "LICENCE_CHOICE_CONFLICT", "STALE_NOTE", "DECLARE"):
            gaps.append(f"{reason.code}: {reason.subject}: {reason.text}")
        if stem == "PII_REVIEW" and plan.use.distributed:
            gaps.append(f"{reason.code}: {reason.text}; rows without it: select: [{{do: privacy.personal_data}}]")
        if stem == "DISCLOSE_UPSTREAM" and reason.subject.partition(" written by ")[2] not in files.get(
            "README.md", ""
        ):
            gaps.append(f"{reason.code}: {reason.subject}: README.md does not say so")
    if plan.use.distributed and "publish" not in decision.screened:
        gaps.append("SCREENING: no report of the publish point; screen what is handed out")
    return tuple(dict.fromkeys(gaps))


def _gap(duty: Active, plan: Plan, files: Mapping[str, str]) -> str | None:
    stem = duty.code.partition(":")[0]
    card = files.get("README.md", "")
    restrictions = files.get("USE_RESTRICTIONS.md", "")
    met = {
        "NAME_PREFIX": bool(plan.use.student_name),  # a name that does not fit is a NAME_CONFLICT
        "TRADEMARK": bool(plan.use.student_name),
        "NOTICE_FILE": bool(files.get("NOTICE", "").strip()),
        "PASS_THROUGH": bool(restrictions.strip()) and "FILL IN" not in restrictions and bool(plan.use.student_licence),
        "BUILT_WITH": any(phrase in card for phrase in credits_to_display(duty)),
        "AI_LABEL": "generated by artificial intelligence" in card,
        "ATTRIBUTION": duty.subject.partition(":")[2] in card,
        "STATE_CHANGES": "Changes:" in card,
    }
    return None if met.get(stem, True) else f"{duty.code}: {duty.text}: {_missing(stem)}"


def _licence_gaps(decision: Decision, files: Mapping[str, str], registry: Registry) -> list[str]:
    """One LICENSE* file for each text that is to be passed on; two models under one plain licence share it."""
    there = [name for name in files if name.upper().startswith("LICENSE") and files[name].strip()]
    records = [registry.by_id[a.record] for a in decision.obligations if a.code == "LICENCE_COPY" and a.record]
    wanted = {r.spdx or r.hf_license or r.id: f"{r.title} ({r.source})" for r in records}
    if len(wanted) <= len(there):
        return []
    named = "; ".join(wanted[key] for key in sorted(wanted))
    return [f"LICENCE_COPY: copies of {len(wanted)} texts go with it, {len(there)} LICENSE* files are there: {named}"]


def _missing(stem: str) -> str:
    return {
        "NAME_PREFIX": "write use.student_name",
        "TRADEMARK": "write use.student_name",
        "NOTICE_FILE": "put a NOTICE file into the folder",
        "PASS_THROUGH": "fill in USE_RESTRICTIONS.md from the official source and write use.student_licence",
    }.get(stem, "README.md does not have it; use the sections of the card writers")
