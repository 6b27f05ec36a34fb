"""The plan: which teachers, data sets and starting weights, for which use. One JSON object with four keys.

Validated here, trusted behind. The hash of a plan covers the four keys as they were written, so an acknowledgment
stays with exactly what its signer saw.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from stillhouse.compliance.licences import normal
from stillhouse.compliance.registry import first_error
from stillhouse.compliance.terms import Date, StudentKind, TermsRecord, Text
from stillhouse.errors import RecipeError

__all__ = ["Base", "Dataset", "Licensee", "OwnRights", "Plan", "Teacher", "Use", "parse_plan", "plan_hash", "restored"]

KEYS = ("teachers", "datasets", "student_base", "use")
STARTED = "student_base"  # names, in `by_name`, what taught the student that this one starts from
IGNORED = ("id", "expected", "expected_codes", "reason")
Gate = Literal["plan", "train", "publish"]
Point = Literal["egress", "ingest", "pretrain", "publish"]
Distribution = Literal["weights", "hosted_api", "dataset", "merged_dataset"]
Purpose = Literal["research", "internal", "commercial_product", "open_release"]
Competes = Literal["yes", "no", "undeclared"]
Access = Annotated[
    str,
    BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value),
    StringConstraints(strict=True, pattern=r"^(weights|(api|app):[a-z0-9._-]+)$"),
]
Region = Annotated[
    str,
    BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value),
    StringConstraints(strict=True, pattern=r"^[A-Z]{2}$"),
]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Count = Annotated[int, Field(ge=0, strict=True)]
ALWAYS_DISTRIBUTED: dict[str, tuple[Distribution, ...]] = {
    "open_release": ("weights",),
    "commercial_product": ("hosted_api",),
}
EU = frozenset("AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK EU".split())  # noqa: SIM905


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OwnRights(_Part):
    """A declaration that something is one's own. Complete when all of the first five are given."""

    holder: Text | None = None
    basis: Literal["trained_in_house", "work_for_hire", "assignment"] | None = None
    declared_by: Text | None = None
    date: Date | Literal["undated"] | None = None
    built_on: tuple[Text, ...] | None = None
    statement: Text | None = None

    @property
    def complete(self) -> bool:
        return None not in (self.holder, self.basis, self.declared_by, self.date, self.built_on)


class Teacher(_Part):
    model: Text
    access: Access
    method: Literal[
        "train_on_outputs", "logits", "hidden_states", "judge_or_reward", "prompt_generation", "evaluate_only"
    ] = "train_on_outputs"
    routed_to: Text | None = None
    revision: Text | None = None
    obtained_on: Date | None = None
    own_rights: OwnRights | None = None


class Dataset(_Part):
    id: Text
    revision: Text | None = None
    role: Literal["train", "eval"] = "train"
    obtained_by: Literal["third_party", "self"] = "third_party"
    own_rights: OwnRights | None = None


class Base(_Part):
    id: Text
    revision: Text | None = None
    own_rights: OwnRights | None = None


class Licensee(_Part):
    mau: Amount | None = None
    annual_revenue_usd: Amount | None = None
    monthly_revenue_usd: Amount | None = None
    region: Region | None = None
    legal_kind: Text | None = None


class Screening(_Part):
    secrets: Count = 0
    pii: Count = 0
    pii_redacted: bool = False


class Use(_Part):
    purpose: Purpose
    student_kind: StudentKind = "general_llm"
    distributes: tuple[Distribution, ...] = ()
    competes: Competes | dict[Text, Competes] = "undeclared"
    student_name: Text | None = None
    student_licence: Text | None = None
    licensee: Licensee = Licensee()
    as_of: Date | None = None
    gate: Gate = "plan"
    planned: "Use | None" = None
    screening: dict[Point, Screening] = Field(default_factory=dict)

    @field_validator("student_licence")
    @classmethod
    def _licence(cls, value: str | None) -> str | None:
        return normal(value, "use.student_licence") if value else value

    @property
    def distributed(self) -> frozenset[Distribution]:
        return frozenset((*self.distributes, *ALWAYS_DISTRIBUTED.get(self.purpose, ())))

    @property
    def outward(self) -> bool:
        return self.purpose in ("commercial_product", "open_release")

    @property
    def shipped(self) -> bool:
        return bool(self.distributed & {"weights", "hosted_api"})

    @property
    def outputs_published(self) -> bool:
        return bool(self.distributed & {"dataset", "merged_dataset"})

    def competes_with(self, holder: str) -> Competes:
        if isinstance(self.competes, str):
            return self.competes
        named = {name.lower(): value for name, value in self.competes.items()}
        return named.get(holder.lower(), named.get("*", "undeclared"))

    @property
    def decisive(self) -> tuple[object, ...]:
        """What a decision rested on: when it changes, an earlier decision is no guide (rule R17)."""
        competes = self.competes if isinstance(self.competes, str) else tuple(sorted(self.competes.items()))
        return self.purpose, self.distributed, self.student_kind, competes, self.licensee, self.student_licence


class Plan(_Part):
    """What a decision is about.

    `document` is the four keys as written and `sha256` covers it; `records` are rows that came with a recipe and
    `by_name` tells which teachers a recipe's names stand for.
    """

    teachers: tuple[Teacher, ...]
    datasets: tuple[Dataset, ...]
    student_base: Base
    use: Use
    document: dict[str, Any]
    sha256: Text
    records: tuple[TermsRecord, ...] = ()
    by_name: dict[str, tuple[Teacher, ...]] = Field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """What a manifest keeps: the four keys as written, and the records that came with the recipe."""
        records = [r.model_dump(mode="json", by_alias=True, exclude_none=True) for r in self.records]
        plain = json.loads(json.dumps(self.document, default=_plain))
        return {**plain, "records": records, "sha256": self.sha256}

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            data = dict(data)
            if isinstance(data.get("datasets"), list):
                data["datasets"] = [{"id": row} if isinstance(row, str) else row for row in data["datasets"]]
            if isinstance(data.get("student_base"), str):
                data["student_base"] = {"id": data["student_base"]}
        return data


def parse_plan(data: object, where: str = "plan") -> Plan:
    """A plan from decoded JSON. Raises RecipeError on an unknown key, a wrong type or an unknown value."""
    if not isinstance(data, Mapping):
        raise RecipeError(f"{where}: a plan is one object with the keys {', '.join(KEYS)}, not {type(data).__name__}")
    if missing := [key for key in KEYS if key not in data]:
        raise RecipeError(f"{where}: {missing[0]}: missing; a plan needs {', '.join(KEYS)} (lists may be empty)")
    if unknown := [str(key) for key in data if key not in (*KEYS, *IGNORED)]:
        raise RecipeError(f"{where}: {unknown[0]}: unknown key; a plan has {', '.join(KEYS)} and nothing else")
    document = {key: data[key] for key in KEYS}
    for key in ("teachers", "datasets"):
        if not isinstance(document[key], list):
            raise RecipeError(
                f"{where}: {key}: must be a list, not {type(document[key]).__name__}; [] where there are none"
            )
    try:
        return Plan.model_validate({**document, "document": document, "sha256": plan_hash(document)})
    except ValidationError as e:
        raise RecipeError(f"{where}: {first_error(e)}") from e


def restored(data: Mapping[str, Any], where: str) -> Plan:
    """A plan from `Plan.as_dict()`, as a manifest keeps it. Raises RecipeError where it is not what was hashed."""
    plan = parse_plan({key: data.get(key) for key in KEYS}, where)
    if data.get("sha256") != plan.sha256:
        raise RecipeError(f"{where}: the plan is not the one that was judged (its hash differs); run the recipe again")
    return plan.model_copy(
        update={"records": tuple(TermsRecord.model_validate(row) for row in data.get("records", ()))}
    )


def plan_hash(document: Mapping[str, Any]) -> str:
    """sha-256 over the four keys as canonical JSON: keys sorted, no spaces, UTF-8."""
    four = {key: document[key] for key in KEYS}
    text = json.dumps(four, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _plain(value: object) -> str:
    if isinstance(value, date):
        return value.isoformat()
    raise RecipeError(
        f"plan: {type(value).__name__} is nothing a plan can hold; write text, numbers, lists and objects"
    )
