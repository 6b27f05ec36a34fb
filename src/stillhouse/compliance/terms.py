"""A terms record: what one text says about training on what a model writes, or on the rows of a data set.

Records are data (terms.yaml, or a user's terms.d/*.yaml); this file is their schema and the rules every record keeps.
"""

import re
from datetime import date, timedelta
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

__all__ = ["LONGEST_QUOTE", "Condition", "Obligation", "Pattern", "Reading", "TermsRecord", "Upstream", "review_by"]

LONGEST_QUOTE = 25  # words; the texts stay their owners'


def _iso(value: object) -> object:
    """Dates are written as 2026-11-21 and nothing else: a number or a time would be read as some other day."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        return date.fromisoformat(value)
    if type(value) is not date:
        raise ValueError("write a date as 2026-11-21")
    return value


def _word(value: object) -> object:
    """YAML reads a bare yes or no as true or false; here both are words."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


Date = Annotated[date, BeforeValidator(_iso)]
Text = Annotated[str, StringConstraints(strict=True, min_length=1)]
Kind = Literal["contract", "host", "weights", "dataset"]
Trigger = Literal["always", "shipped", "weights_shipped", "distributed", "outputs_published", "data_published", "scale"]
StudentKind = Literal["general_llm", "task_llm", "classifier", "embedding", "reward_model"]
FACTS = ("mau", "annual_revenue_usd", "monthly_revenue_usd")


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Pattern(_Row):
    """Ids a record speaks of: `*` stands for anything, case does not count."""

    match: Text
    excepted: tuple[Text, ...] = Field((), alias="except")


class Condition(_Row):
    kind: Literal[
        "no_compete",
        "no_assist",
        "permitted_exception",
        "eval_exception",
        "same_family",
        "scope",
        "noncommercial",
        "scale_cap",
        "region_excluded",
        "no_derivatives",
        "modality_limit",
        "flow_down",
    ]
    student_kinds: tuple[StudentKind, ...] = ()
    requires: Literal["no_distribution"] | None = None
    families: tuple[Text, ...] = ()
    scope: Literal["research_only", "noncommercial"] | None = None
    mau: float | None = None
    annual_revenue_usd: float | None = None
    monthly_revenue_usd: float | None = None
    at: Text | None = None
    regions: tuple[Text, ...] = ()
    no_train: tuple[Text, ...] = ()
    quote: Text | None = None
    source: Text | None = None


class When(_Row):
    purpose: tuple[Text, ...] = ()
    mau_over: float | None = None
    annual_revenue_usd_over: float | None = None
    monthly_revenue_usd_over: float | None = None


class Obligation(_Row):
    """A duty: `reach` says whether it follows the outputs, the weights, both, or the rows of a data set."""

    code: Text
    trigger: Trigger
    reach: Literal["outputs", "weights", "both", "data"]
    text: Text
    quote: Text | None = None
    when: When | None = None
    strength: Literal["required", "precautionary", "required_for_weights"] = "required"


class Reading(_Row):
    licence: Text
    stated_by: Text
    commercial: Annotated[Text, BeforeValidator(_word)]


class Upstream(_Row):
    generator: Text
    terms: Text


class TermsRecord(_Row):
    """What one text says: may outputs (or rows) train a model, under which conditions, with which duties."""

    id: Text
    kind: Kind
    holder: Text
    title: Text
    access: tuple[Text, ...] = Field(min_length=1)
    models: tuple[Pattern, ...] = Field(min_length=1)
    bounds: Text = "as named"
    version: Text | None = None
    effective: Date | None = None
    read: Date | None = None
    review_by: Date | None = None
    later_text: bool = False
    superseded_by: Text | None = None
    grade: Literal["P", "P~", "S", "M"]
    outputs_may_train: Annotated[Literal["yes", "no", "conditional", "unread"], BeforeValidator(_word)]
    evaluation: Annotated[Literal["yes", "no", "unread"], BeforeValidator(_word)] = "unread"
    conditions: tuple[Condition, ...] = ()
    obligations: tuple[Obligation, ...] = ()
    source: Text | None = None
    source_sha256: Text | None = None
    locator: Text | None = None
    quote: Text | None = None
    where_to_read: Text | None = None
    family: Text | None = None
    inherits: tuple[Text, ...] = ()
    spdx: Text | None = None
    hf_license: Text | None = None
    provider_trains_on_inputs: Annotated[Text | None, BeforeValidator(_word)] = None
    own_licence: Text | None = None
    readings: tuple[Reading, ...] = ()
    upstream: tuple[Upstream, ...] = ()
    personal_data: Literal["likely", "unlikely"] | None = None
    aggregator: bool = False
    notes: Text | None = None
    origin: Literal["registry", "user", "recipe", "card"] = "registry"

    @property
    def unread(self) -> bool:
        return self.outputs_may_train == "unread"

    def condition(self, kind: str) -> Condition | None:
        return next((c for c in self.conditions if c.kind == kind), None)

    @model_validator(mode="after")
    def _keeps_the_rules(self) -> Self:
        for broken in (self._unsourced(), self._undated(), self._too_wide(), self._too_long(), self._wrong_access()):
            if broken:
                raise ValueError(broken)
        return self

    def _unsourced(self) -> str | None:
        if self.grade == "M" and not self.unread:
            return "a text nobody read (grade M) must say outputs_may_train: unread"
        if not self.unread and not (self.source and self.quote):
            return "a row that says yes, no or conditional needs a source and a quote"
        return None

    def _undated(self) -> str | None:
        if self.unread:
            return None
        if not (self.read and self.review_by):
            return "a row that says yes, no or conditional needs the dates `read` and `review_by`"
        if self.review_by > review_by(self.kind, self.read):
            return f"review_by may be at most {review_by(self.kind, self.read)} for a {self.kind} read on {self.read}"
        return None

    def _too_wide(self) -> str | None:
        wide = any(p.match.replace("*", "").endswith("/") or not p.match.strip("*") for p in self.models)
        if self.kind == "weights" and wide and self.outputs_may_train in ("yes", "conditional"):
            return "a pattern for a whole family of weights can refuse or leave open, never permit: name the models"
        return None

    def _too_long(self) -> str | None:
        quotes = [self.quote, *(c.quote for c in self.conditions), *(o.quote for o in self.obligations)]
        if any(len(quote.split()) > LONGEST_QUOTE for quote in quotes if quote):
            return f"a quotation has at most {LONGEST_QUOTE} words"
        return None

    def _wrong_access(self) -> str | None:
        wanted = {"weights": ("weights",), "dataset": ("dataset",)}.get(self.kind)
        if wanted and self.access != wanted and self.origin in ("registry", "user"):
            return f"a record of kind {self.kind} has access [{self.kind}]"
        if not wanted and not all(a == "incorporated" or a.startswith(("api:", "app:")) for a in self.access):
            return f"a record of kind {self.kind} has access api:<name>, app:<name> or incorporated"
        return None


def review_by(kind: Kind, read: date) -> date:
    """Contracts and hosts change without notice: 90 days. A file is pinned by its revision: 730."""
    return read + timedelta(days=90 if kind in ("contract", "host") else 730)
