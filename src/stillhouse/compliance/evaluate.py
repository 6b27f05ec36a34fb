"""The decision: a pure function of a plan, a registry and a day. No clock, no file, no network."""

from dataclasses import dataclass
from datetime import date

from stillhouse.compliance import rules, whole
from stillhouse.compliance.decision import Active, Decision, Reason, class_of, rank, verdict_of
from stillhouse.compliance.plan import Dataset, OwnRights, Plan, Teacher
from stillhouse.compliance.registry import Registry
from stillhouse.compliance.rules import Findings, Situation
from stillhouse.compliance.terms import TermsRecord, Upstream
from stillhouse.errors import RecipeError

__all__ = ["evaluate"]

FROM_OUTPUTS = ("outputs", "both")
FROM_WEIGHTS = ("weights", "both")


def evaluate(plan: Plan, registry: Registry, today: date | None = None) -> Decision:
    """Permit, permit with obligations, unknown or refuse, with every reason.

    The day is the plan's `as_of`, else `today`. Raises RecipeError where neither is given, or where a record that came
    with the plan has an id that is taken.
    """
    as_of = plan.use.as_of or today
    if as_of is None:
        raise RecipeError("use.as_of: missing; write the day the plan is judged on, such as 2026-11-21")
    registry = registry.with_records(plan.records)
    out = Findings()
    edges = _Edges(registry, Situation(plan.use, as_of, _families(plan, registry)), out)
    for teacher in plan.teachers:
        edges.teacher(teacher)
    edges.base(plan)
    for dataset in plan.datasets:
        edges.dataset(dataset)
    whole.merging(plan, registry, out)
    whole.name_and_licence(plan, registry, out)
    whole.screening(plan, out)
    whole.changed(plan, out)
    return _decision(plan, registry, as_of, out)


def _decision(plan: Plan, registry: Registry, as_of: date, out: Findings) -> Decision:
    reasons = sorted(out.reasons, key=_order)
    codes = tuple(sorted({r.code for r in reasons}))
    active = sorted(out.active | _from_reasons(out), key=_row_order)
    deferred = sorted(out.deferred, key=_row_order)
    source = {"name": "stillhouse-terms", "version": registry.version, "sha256": registry.sha256}
    missing = tuple(sorted(out.missing))
    return Decision(
        verdict_of(codes),
        codes,
        tuple(active),
        tuple(deferred),
        tuple(reasons),
        missing,
        source,
        plan.sha256,
        as_of,
        plan.use.gate,
        tuple(sorted(out.used)),
        tuple(sorted(plan.use.screening)),
    )


def _from_reasons(out: Findings) -> set[Active]:
    """What a reason asks of the user without being a duty of a record: to keep apart, to disclose, to declare."""
    known = {(a.code, a.subject, a.record) for a in out.active}
    asked = [r for r in out.reasons if class_of(r.code) == "obligation" and (r.code, r.subject, r.record) not in known]
    return {Active(r.code, r.record, r.subject, "always", "required", r.text) for r in asked}


def _row_order(a: Active) -> tuple[str, ...]:
    return a.code, a.subject, a.record or "", a.text, a.trigger, a.strength


def _order(r: Reason) -> tuple[int | str, ...]:
    return (-rank(r.code), r.code, r.subject, r.record or "", r.clause or "", r.quote or "", r.text, r.source or "")


@dataclass
class _Edges:
    registry: Registry
    now: Situation
    out: Findings

    # teachers ------------------------------------------------------------------------------------------------------

    def teacher(self, teacher: Teacher) -> None:
        subject = f"teacher:{teacher.model}"
        if self.registry.is_host(teacher.access):
            self._through_host(teacher, subject)
        else:
            self._model(teacher, teacher.access, subject)

    def _through_host(self, teacher: Teacher, subject: str) -> None:
        """R5: the host's own terms, then those of whoever serves the model."""
        aggregator = self._host(teacher.model, teacher.access, teacher.method, subject)
        served_by = f"api:{teacher.routed_to.lower()}" if teacher.routed_to else None
        if served_by and served_by != teacher.access and self.registry.is_host(served_by):
            aggregator = self._host(teacher.model, served_by, teacher.method, subject)
            served_by = None
        elif served_by == teacher.access:
            served_by = None
        if served_by:
            self._model(teacher, served_by, subject)
        elif aggregator:
            self.out.found("ROUTE_UNPINNED", subject, aggregator)
        else:
            self._model(teacher, "weights", subject)

    def _host(self, model: str, access: str, method: str, subject: str) -> TermsRecord | None:
        """Checks a host; gives its record back where it forwards to others and so settles nothing."""
        aggregator = None
        for host in self.registry.find(model, access):
            if host.kind != "host":
                continue
            self.out.used.add((subject, host.id))
            self.out.found("FLOW_DOWN", subject, host, host.condition("flow_down"))
            if host.unread:
                self.out.found("TERMS_UNREAD", subject, host)
            else:
                rules.reliable(self.now, host, subject, self.out)
                rules.limits(self.now, host, subject, self.out)
                if method != "evaluate_only":
                    rules.bars(self.now, host, subject, self.out)
                    rules.obligations(self.now, host, FROM_OUTPUTS, subject, self.out)
            aggregator = host if host.aggregator else aggregator
        return aggregator

    def _model(self, teacher: Teacher, access: str, subject: str) -> None:
        records = [r for r in self.registry.find(teacher.model, access) if r.kind != "host"]
        if not records:
            self._own(teacher.own_rights, "NO_RECORD", subject, f"terms of {teacher.model} reached by {access}")
        for record in records:
            self._teacher_record(record, teacher.method, subject)

    def _teacher_record(self, record: TermsRecord, method: str, subject: str) -> None:
        """R2 to R11 of a teacher, and of every record its record inherits."""
        for part in self._chain(record) if method != "evaluate_only" else [record]:
            self.out.used.add((subject, part.id))
            if part.unread:
                self.out.found("TERMS_UNREAD", subject, part)
                continue
            rules.reliable(self.now, part, subject, self.out)
            rules.limits(self.now, part, subject, self.out)
            if method == "evaluate_only":
                rules.evaluation(self.now, part, subject, self.out)
            else:
                rules.bars(self.now, part, subject, self.out)
                rules.obligations(self.now, part, FROM_OUTPUTS, subject, self.out)

    def _chain(self, record: TermsRecord) -> list[TermsRecord]:
        return _chain(self.registry, record)

    # own rights ----------------------------------------------------------------------------------------------------

    def _own(self, rights: OwnRights | None, otherwise: str, subject: str, missing: str) -> None:
        """R1 without a record: the user's declaration, or an evidence gap."""
        if rights is None:
            self.out.missing.add(missing)
            self.out.plain(otherwise, subject)
        elif not rights.complete:
            self.out.missing.add(f"own_rights of {subject}")
            self.out.plain("OWN_RIGHTS_INCOMPLETE", subject)
        else:
            self.out.plain(
                "OWN_RIGHTS_DECLARED", subject, said=rights.statement or str(rights.holder), by=str(rights.declared_by)
            )
            for id in rights.built_on or ():
                self._built_on(id, subject)

    def _built_on(self, id: str, subject: str) -> None:
        """What the user's own thing was made from is an edge of its own: a data set, or a model."""
        if self.registry.find(id, "dataset"):
            self.dataset(Dataset(id=id))
            return
        inner = f"{subject} built on {id}"
        records = self.registry.find(id, "weights")
        if not records:
            self.out.missing.add(f"terms of {id}")
            self.out.plain("NO_RECORD", inner)
        for record in records:
            if subject.startswith("student_base:"):
                self._base_record(record, inner)
            else:
                self._teacher_record(record, "train_on_outputs", inner)

    # starting weights ----------------------------------------------------------------------------------------------

    def base(self, plan: Plan) -> None:
        base = plan.student_base
        if base.id == "none":
            return
        subject = f"student_base:{base.id}"
        records = self.registry.find(base.id, "weights")
        if not records:
            self._own(base.own_rights, "NO_RECORD:student_base", subject, f"terms of {base.id}")
        for record in records:
            self._base_record(record, subject)

    def _base_record(self, record: TermsRecord, subject: str) -> None:
        for part in self._chain(record):
            self.out.used.add((subject, part.id))
            if part.unread:
                self.out.found("TERMS_UNREAD", subject, part)
                continue
            rules.reliable(self.now, part, subject, self.out)
            rules.limits(self.now, part, subject, self.out)
            rules.obligations(self.now, part, FROM_WEIGHTS, subject, self.out)

    # data sets -----------------------------------------------------------------------------------------------------

    def dataset(self, dataset: Dataset) -> None:
        subject = f"dataset:{dataset.id}"
        records = self.registry.find(dataset.id, "dataset")
        if not records:
            self._own(dataset.own_rights, "NO_RECORD:dataset", subject, f"licence of {dataset.id}")
        for record in records:
            self._dataset_record(record, dataset, subject)

    def _dataset_record(self, record: TermsRecord, dataset: Dataset, subject: str) -> None:
        self.out.used.add((subject, record.id))
        if record.unread:
            self.out.found("TERMS_UNREAD", subject, record)
            return
        if dataset.role == "eval":
            rules.reliable(self.now, record, subject, self.out)
            self.out.found("EVAL_ONLY_SEPARATION", subject, record)
            return
        for part in self._chain(record):
            self.out.used.add((subject, part.id))
            if part.unread:
                self.out.found("TERMS_UNREAD", subject, part)
                continue
            rules.reliable(self.now, part, subject, self.out)
            rules.limits(self.now, part, subject, self.out)
            rules.obligations(self.now, part, ("data",), subject, self.out)
            rules.own_licence(self.now, part, subject, self.out)
            for upstream in part.upstream:
                self._generator(part, upstream, dataset, subject)

    def _generator(self, record: TermsRecord, upstream: Upstream, dataset: Dataset, subject: str) -> None:
        """R13: the model that wrote the rows."""
        terms = self.registry.by_id[upstream.terms]
        inner = f"{subject} written by {upstream.generator}"
        if dataset.obtained_by == "self" or rules.can_train(self.now, terms):
            self._teacher_record(terms, "train_on_outputs", inner)
            return
        settled = self.now.use.purpose == "research" and not self.now.use.shipped
        code = "DISCLOSE_UPSTREAM" if settled else "UPSTREAM_UNSETTLED"
        self.out.found(code, inner, record, generator=upstream.generator)


def _chain(registry: Registry, record: TermsRecord) -> list[TermsRecord]:
    """The record and what it inherits, each once."""
    found, todo = {record.id: record}, list(record.inherits)
    while todo:
        id = todo.pop()
        if id not in found:
            found[id] = registry.by_id[id]
            todo += found[id].inherits
    return list(found.values())


def _families(plan: Plan, registry: Registry) -> frozenset[str]:
    """The families of the starting weights: of their record and of all it inherits."""
    base = plan.student_base
    found = registry.find(base.id, "weights")
    # a user's record may add duties to known weights, not a family that would spare a bar
    records = [r for r in found if r.origin == "registry"] or list(found)
    if not records and base.own_rights and base.own_rights.complete:
        records = [r for id in base.own_rights.built_on or () for r in registry.find(id, "weights")]
    return frozenset(part.family for r in records for part in _chain(registry, r) if part.family)
