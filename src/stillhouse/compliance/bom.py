"""A CycloneDX 1.6 bill of materials for a student: its weights, its data, and the models whose outputs taught it.

Written as JSON fields directly; libraries drop the model cards when they read and write it again.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from stillhouse.compliance.decision import Decision
from stillhouse.compliance.plan import Plan

__all__ = ["ml_bom"]


def ml_bom(
    decision: Decision,
    plan: Plan,
    *,
    name: str,
    version: str,
    shards: Sequence[Mapping[str, Any]] = (),
    manifest_sha256: str | None = None,
) -> dict[str, Any]:
    """The document as a dictionary, ready for JSON. `shards`: {name, sha256, rows, teachers: [model id]} of the made data.

    The serial number follows from what is described, so the same run gives the same document.
    """
    teachers = {t.model: f"teacher:{t.model}" for t in plan.teachers}
    data = {d.id: f"dataset:{d.id}" for d in plan.datasets}
    made = [_shard(shard) for shard in shards]
    components = [
        *(_teacher(plan, decision, model, ref) for model, ref in sorted(teachers.items())),
        *(_dataset(id, ref) for id, ref in sorted(data.items())),
        *made,
    ]
    depends = [{"ref": "student", "dependsOn": [*(row["bom-ref"] for row in made), *sorted(data.values())]}]
    for shard, row in zip(shards, made, strict=True):
        behind = sorted({teachers[m] for m in shard.get("teachers", ()) if m in teachers})
        depends.append({"ref": row["bom-ref"], "dependsOn": behind})
    serial = uuid5(NAMESPACE_URL, f"{name} {version} {decision.plan_sha256} {manifest_sha256}")
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"component": _student(decision, plan, name, version, manifest_sha256)},
        "components": components,
        "dependencies": depends,
    }


def _student(decision: Decision, plan: Plan, name: str, version: str, manifest_sha256: str | None) -> dict[str, Any]:
    out: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": "student",
        "name": name,
        "version": version,
        "modelCard": {"modelParameters": {"datasets": [{"ref": f"dataset:{d.id}"} for d in plan.datasets]}},
        "properties": [
            {"name": "stillhouse:verdict", "value": decision.verdict},
            {"name": "stillhouse:as-of", "value": decision.as_of.isoformat()},
            *({"name": "stillhouse:obligation", "value": code} for code in sorted({a.code for a in decision.carried})),
            *({"name": "stillhouse:override", "value": f"{o.basis} {o.date}"} for o in decision.overrides),
        ],
    }
    if plan.use.student_licence:
        out["licenses"] = [_licence(plan.use.student_licence)]
    if plan.student_base.id != "none":
        base = plan.student_base
        ancestor = {"type": "machine-learning-model", "bom-ref": f"base:{base.id}", "name": base.id}
        out["pedigree"] = {"ancestors": [ancestor | ({"version": base.revision} if base.revision else {})]}
    if manifest_sha256:
        hashes = [{"alg": "SHA-256", "content": manifest_sha256}]
        out["externalReferences"] = [{"type": "evidence", "url": "manifest.json", "hashes": hashes}]
    return out


def _licence(expression: str) -> dict[str, Any]:
    if expression.islower():  # a hub tag: no SPDX expression
        return {"license": {"name": expression}}
    return {"expression": expression}


def _teacher(plan: Plan, decision: Decision, model: str, ref: str) -> dict[str, Any]:
    mine = [t for t in plan.teachers if t.model == model]
    records = decision.records_about(ref)
    revision = next((t.revision for t in mine if t.revision), None)
    relation = "evaluation-only" if all(t.method == "evaluate_only" for t in mine) else "teacher-outputs"
    return {
        "type": "machine-learning-model",
        "bom-ref": ref,
        "name": model,
        **({"version": revision} if revision else {}),
        "properties": [
            {"name": "stillhouse:relation", "value": relation},
            *({"name": "stillhouse:access", "value": access} for access in sorted({t.access for t in mine})),
            *({"name": "stillhouse:terms-record", "value": record} for record in records),
        ],
    }


def _dataset(id: str, ref: str) -> dict[str, Any]:
    return {"type": "data", "bom-ref": ref, "name": id, "data": [{"type": "dataset", "name": id}]}


def _shard(shard: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "data",
        "bom-ref": f"shard:{shard['name']}",
        "name": shard["name"],
        "hashes": [{"alg": "SHA-256", "content": shard["sha256"]}],
        "data": [{"type": "dataset", "name": shard["name"]}],
        "properties": [{"name": "stillhouse:rows", "value": str(shard["rows"])}],
    }
