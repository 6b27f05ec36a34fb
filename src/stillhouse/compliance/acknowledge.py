"""Acknowledgments: the one way past `unknown`, and past `refuse` only with a permission on record.

An acknowledgment is bound to the hash of a plan, names the codes it lifts and expires. A signature (ssh-keygen,
name space `stillhouse-ack`, beside the file as FILE.sig) proves who accepted; it is checked against a file of allowed
signers.
"""

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stillhouse.compliance.decision import Decision, Override, Reason, class_of
from stillhouse.compliance.plan import ALWAYS_DISTRIBUTED, Distribution, Plan, Purpose
from stillhouse.compliance.registry import first_error, user_folders
from stillhouse.compliance.terms import Date, Text
from stillhouse.errors import RecipeError

__all__ = ["Acknowledgment", "apply", "from_mapping", "read_acknowledgment", "signer_files"]

NAMESPACE = "stillhouse-ack"
Signature = Literal["none", "good", "bad", "unchecked"]
PERMISSIONS = ("written_permission", "separate_licence", "own_rights")


class Scope(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    purpose: Purpose
    distributes: tuple[Distribution, ...] = ()


class Acknowledgment(BaseModel):
    """What a person accepted, for which plan, until when. `signature` is set by whoever verified it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    type: Literal["stillhouse-ack/v1"]
    plan_hash: Text = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    registry: Text
    lifts: tuple[Text, ...] = Field(min_length=1)
    basis: Literal["written_permission", "separate_licence", "own_rights", "legal_review", "risk_accepted"]
    document_sha256: Text | None = Field(None, pattern=r"^(sha256:)?[0-9a-f]{64}$")
    scope: Scope
    statement: Text
    person: Text
    organisation: Text | None = None
    date: Date
    expires: Date
    signature: Signature = Field("none", exclude=True)
    where: Text = Field("acknowledgment", exclude=True)


def from_mapping(data: object, where: str, signature: Signature = "none") -> Acknowledgment:
    """An acknowledgment from decoded JSON or YAML. Raises RecipeError."""
    if not isinstance(data, Mapping):
        raise RecipeError(f"{where}: an acknowledgment is one object with type, plan_hash, lifts, basis, scope, ...")
    if reserved := {"signature", "where"} & set(data):
        raise RecipeError(f"{where}: {min(reserved)}: unknown key; a signature lies beside the file, as FILE.sig")
    try:
        return Acknowledgment.model_validate({**data, "signature": signature, "where": where})
    except ValidationError as e:
        raise RecipeError(f"{where}: {first_error(e)}") from e


def read_acknowledgment(path: Path, signers: Sequence[Path] = ()) -> Acknowledgment:
    """An acknowledgment file with its signature, if any, checked against the first of `signers` that exists."""
    try:
        raw = path.read_bytes()
        data = json.loads(raw)
    except (OSError, ValueError) as e:
        raise RecipeError(f"{path}: is no readable JSON file ({e}); an acknowledgment is one JSON object") from e
    unsigned = from_mapping(data, str(path))
    return unsigned.model_copy(update={"signature": _verified(path, raw, unsigned.person, signers)})


def signer_files(folder: Path) -> tuple[Path, ...]:
    """Where allowed signers are looked for: beside the plan or recipe, then in the user's configuration."""
    return folder / "allowed_signers", *(home / "allowed_signers" for home in user_folders())


def _verified(path: Path, raw: bytes, person: str, signers: Sequence[Path]) -> Signature:
    signature = path.with_name(path.name + ".sig")
    if not signature.exists():
        return "none"
    allowed = next((file for file in signers if file.is_file()), None)
    program = shutil.which("ssh-keygen")
    if allowed is None or program is None:
        return "unchecked"
    command = [program, "-Y", "verify", "-f", str(allowed), "-I", person, "-n", NAMESPACE, "-s", str(signature)]
    done = subprocess.run(command, input=raw, capture_output=True, check=False)
    return "good" if done.returncode == 0 else "bad"


def apply(
    decision: Decision, plan: Plan, acknowledgments: Sequence[Acknowledgment], today: date | None = None
) -> Decision:
    """The decision with what valid acknowledgments lift; those that do nothing are listed with the reason why.

    They are judged on the later of `today` and the decision's own day, so that a plan dated back revives none.
    """
    day = max(decision.as_of, today or decision.as_of)
    overrides: list[Override] = []
    lifted: dict[Reason, None] = {}
    ignored: list[str] = []
    for ack in acknowledgments:
        if why := _void(ack, plan, day):
            ignored.append(f"{ack.where}: not applied: {why}")
            continue
        mine: list[Reason] = []
        for lift in ack.lifts:
            found = [r for r in decision.reasons if _names(lift, r)]
            good = [r for r in found if not (why := _cannot_lift(ack, r, plan))]
            ignored += [f"{ack.where}: {r.code}: {_cannot_lift(ack, r, plan)}" for r in found if r not in good]
            if not found:
                ignored.append(f"{ack.where}: {lift}: nothing of this name was found in the plan")
            mine += good
        if mine:
            lifted.update(dict.fromkeys(mine))
            codes = tuple(sorted({r.code for r in mine}))
            signed = ack.signature == "good"
            overrides.append(Override(ack.basis, str(ack.date), str(ack.expires), ack.person, signed, codes))
    return decision.lifting(overrides, lifted, ignored)


def _void(ack: Acknowledgment, plan: Plan, day: date) -> str | None:
    """Why the whole acknowledgment counts for nothing."""
    if ack.signature == "bad":
        return f"its signature is not that of {ack.person} over this text"
    if ack.plan_hash != f"sha256:{plan.sha256}":
        return f"it was given for another plan ({ack.plan_hash[:19]}...; this one is sha256:{plan.sha256[:12]}...)"
    if ack.expires < day:
        return f"it expired on {ack.expires}"
    if ack.date > day:
        return f"it is dated {ack.date}, after {day}"
    allowed = {*ack.scope.distributes, *ALWAYS_DISTRIBUTED.get(ack.scope.purpose, ())}
    if ack.scope.purpose != plan.use.purpose or not plan.use.distributed <= allowed:
        use = f"{plan.use.purpose}, {', '.join(sorted(plan.use.distributed)) or 'nothing distributed'}"
        return f"its scope ({ack.scope.purpose}) does not hold this use ({use})"
    return None


def _cannot_lift(ack: Acknowledgment, reason: Reason, plan: Plan) -> str | None:
    """Why this acknowledgment cannot lift this reason."""
    kind = class_of(reason.code)
    if reason.code.startswith("SECRET_FOUND"):
        return "nothing lifts a credential that was found"
    if kind not in ("unknown", "refuse"):
        return "a duty is carried out, not lifted"
    if kind == "refuse" and not (ack.basis in PERMISSIONS and ack.document_sha256):
        return f"a refusal is lifted only by {', '.join(PERMISSIONS)} with document_sha256, not by {ack.basis}"
    if ack.basis == "risk_accepted" and plan.use.outward:
        return f"risk_accepted does not hold for {plan.use.purpose}"
    if (kind == "refuse" or plan.use.outward) and ack.signature != "good":
        return _unsigned(ack.signature)
    return None


def _unsigned(signature: Signature) -> str:
    if signature == "unchecked":
        return "it is signed, but there is no file allowed_signers (or no ssh-keygen) to check it against"
    return "it has to be signed: ssh-keygen -Y sign -n stillhouse-ack -f KEY FILE"


def _names(lift: str, reason: Reason) -> bool:
    """`CODE` means every reason of that code, `CODE:<id>` only the one about that id."""
    if lift == reason.code:
        return True
    id = reason.subject.partition(":")[2].partition(" written by ")[0].partition(" built on ")[0]
    return lift == f"{reason.code}:{id}"
