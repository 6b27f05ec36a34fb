"""A plan from plain fields of a recipe: which access path a teacher has, and what the recipe says about terms itself.

What a recipe states (`terms: {record: ...}` or `{own_rights: ...}`) adds records to the plan; it never takes the place
of a registry row that was read.
"""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from stillhouse.compliance import stated
from stillhouse.compliance.plan import STARTED, Plan, Teacher, parse_plan
from stillhouse.compliance.registry import Registry, builtin
from stillhouse.compliance.stated import Kind
from stillhouse.compliance.terms import TermsRecord
from stillhouse.errors import RecipeError, nearest
from stillhouse.teachers.asking.http import is_own

__all__ = ["access_of", "card_licence", "plan_of"]

POCKET = {"teacher": "stillhouse/pocket-teacher", "student": "stillhouse/pocket-student"}
SCRIPTED = "stillhouse/scripted"
HOSTED_BY_DEFAULT = {"openai": "api:openai", "anthropic": "api:anthropic"}
LOCAL_BACKENDS = ("transformers", "vllm_offline", "pocket", "scripted")
SERVED_HERE_BY_DEFAULT = ("vllm",)  # without an address the server is this machine's own
# what a student of the trainer is to a contract; the mildest reading that is certain
STUDENT_KINDS = {
    "causal_lm": "general_llm",
    "seq2seq": "general_llm",
    "classifier": "classifier",
    "encoder": "embedding",
    "reranker": "task_llm",
    "reward": "reward_model",
}
USE_KEYS = (
    "purpose",
    "distributes",
    "competes",
    "student_kind",
    "student_name",
    "student_licence",
    "licensee",
    "as_of",
)
TERMS_KEYS = ("record", "own_rights", "access", "routed_to", "obtained_on", "obtained_by")


def plan_of(
    *,
    use: Mapping[str, Any] | None,
    teachers: Sequence[Mapping[str, Any]],
    seeds: Sequence[Mapping[str, Any]],
    student: Mapping[str, Any],
    registry: Registry | None = None,
    folder: Path | None = None,
) -> Plan:
    """The plan of a recipe.

    `teachers`: {name, backend, model, base_url, revision, terms, method, card_licence, plan}, all but name and backend
    optional; `plan` is `Plan.as_dict()` of the run that a teacher of backend `run` comes from; it `judges` where nothing of
    it is learnt. `seeds`: {path or
    dataset, revision, role, terms, card_licence}. `student`: {model, kind, revision, terms, card_licence, plan}: one
    that starts from the student of an earlier run stands on what that one started from, and under everything that taught it.
    Paths inside `folder`, the recipe's, are written relative to it, so that a plan has one hash on every machine.
    Raises RecipeError.
    """
    known = registry or builtin()
    if not isinstance(use, Mapping) or "purpose" not in use:
        raise RecipeError("use: missing; say what the student is for: use: {purpose: research, distributes: []}")
    if unknown := [key for key in use if key not in USE_KEYS]:
        raise RecipeError(f"use.{unknown[0]}: unknown; {nearest(str(unknown[0]), USE_KEYS)}")
    rows = _Rows(known, folder)
    base = rows.student(student)
    by_name: dict[str, list[dict[str, Any]]] = {}
    for spec in teachers:  # one name may stand for several teachers, one in each arm of a recipe
        by_name.setdefault(str(spec["name"]), []).extend(rows.teacher(spec, base))
    earlier = [spec["plan"] for spec in (student, *teachers) if spec.get("plan")]
    if student.get("plan"):
        by_name.setdefault(STARTED, []).extend(rows.taught(student["plan"]))
    inherited = [row for before in earlier for row in before["datasets"]]
    datasets = _once([*(rows.seed(s) for s in seeds), *inherited])
    document = {
        "teachers": _once(doc for docs in by_name.values() for doc in docs),
        "datasets": datasets,
        "student_base": base,
        "use": {"student_kind": STUDENT_KINDS[student.get("kind") or "causal_lm"], **use},
    }
    plan = parse_plan(document, "recipe")
    names = {name: tuple(Teacher.model_validate(doc) for doc in docs) for name, docs in by_name.items()}
    return plan.model_copy(update={"records": tuple(rows.records.values()), "by_name": names})


def access_of(backend: str, base_url: str | None, registry: Registry | None = None) -> str:
    """The access path of a backend at an address: weights where it is local, api:<name>, or api:unknown."""
    known = registry or builtin()
    if backend in LOCAL_BACKENDS or (backend in SERVED_HERE_BY_DEFAULT and not base_url):
        return "weights"
    if not base_url:
        return HOSTED_BY_DEFAULT.get(backend, "api:unknown")
    address = base_url if "//" in base_url else f"//{base_url}"
    if is_own(address):
        return "weights"
    host = (urlsplit(address).hostname or "").lower()
    for endpoint in known.endpoints:
        if any(fnmatchcase(host, pattern) for pattern in endpoint.hosts):
            return endpoint.access
    return "api:unknown"


def card_licence(folder: Path) -> str | None:
    """The `license` of a local checkpoint's model card (front matter of README.md), if it states one."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    text = card.read_text(encoding="utf-8", errors="replace")
    if not text.startswith("---\n"):
        return None
    try:
        front = yaml.safe_load(text[4:].partition("\n---")[0])
    except yaml.YAMLError:
        return None  # a card that cannot be read states nothing
    licence = front.get("license") if isinstance(front, dict) else None
    return licence if isinstance(licence, str) else None


def _once(rows: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for row in rows:
        if row not in found:
            found.append(row)
    return found


class _Rows:
    """The rows of one plan, and the records that the recipe's own statements add."""

    def __init__(self, registry: Registry, folder: Path | None) -> None:
        self.registry = registry
        self.folder = folder.resolve() if folder else None
        self.records: dict[tuple[str, ...], TermsRecord] = {}

    def _id(self, value: Any) -> str:
        text = str(value)
        if self.folder and Path(text).is_relative_to(self.folder):
            return Path(text).relative_to(self.folder).as_posix()
        return text

    def teacher(self, spec: Mapping[str, Any], base: Any) -> list[dict[str, Any]]:
        where = f"teachers.{spec['name']}"
        terms = _terms(spec, where)
        if spec.get("plan"):
            return self._of_run(spec)
        access = terms.get("access") or self._access(spec, terms, where)
        id = self._model_id(spec, access, base, where)
        row: dict[str, Any] = {"model": id, "access": access}
        for key in ("method", "revision", "routed_to", "obtained_on"):
            if value := terms.get(key, spec.get(key)):
                row[key] = value
        self._state(terms, spec, row, id, access, "weights", where)
        return [row]

    def _access(self, spec: Mapping[str, Any], terms: Mapping[str, Any], where: str) -> str:
        record = self.registry.by_id.get(str(terms.get("record")))
        if record and record.kind in ("contract", "host"):
            return next((a for a in record.access if a != "incorporated"), "api:unknown")
        backend = spec["backend"]
        if backend == "student" or (record and backend == "recorded"):
            return "weights"
        if backend != "recorded":
            return access_of(backend, spec.get("base_url"), self.registry)
        return self._obtained(str(spec.get("model") or ""))

    def _obtained(self, model: str) -> str:
        """Answers on file: from published weights, or from the service of the vendor in the id; else it has to be said."""
        vendors = [e.access for e in self.registry.endpoints if e.vendor == model.partition("/")[0].lower()]
        return next((a for a in ("weights", *vendors) if self.registry.find(model, a)), "api:unknown")

    def _model_id(self, spec: Mapping[str, Any], access: str, base: Any, where: str) -> str:
        backend = spec["backend"]
        if backend == "pocket":
            return POCKET["teacher"]
        if backend == "scripted":
            return SCRIPTED
        if backend == "student":
            return str(base["id"] if isinstance(base, dict) else base)
        model = spec.get("model") or spec.get("path")
        if not model:
            raise RecipeError(f"{where}.model: missing; the terms check needs to know which model answers")
        vendor = next((e.vendor for e in self.registry.endpoints if e.access == access), None)
        id = self._id(model)
        return id if not vendor or id.startswith(f"{vendor}/") else f"{vendor}/{id}"

    def _of_run(self, spec: Mapping[str, Any]) -> list[dict[str, Any]]:
        """A student of an earlier run as teacher: its starting weights and everything that taught it."""
        base = spec["plan"]["student_base"]
        own = {"own_rights": base["own_rights"]} if isinstance(base, dict) and base.get("own_rights") else {}
        id = base["id"] if isinstance(base, dict) else base
        rows = self.taught(spec["plan"])
        rows = rows if id == "none" else [*rows, {"model": id, "access": "weights", **own}]
        return [{**row, "method": "judge_or_reward"} for row in rows] if spec.get("judges") else rows

    def taught(self, plan: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The teachers of an earlier run, with the records that it was judged by."""
        for row in plan.get("records", ()):
            record = TermsRecord.model_validate(row)
            self.records.setdefault(_key(record), record)
        return [dict(row) for row in plan["teachers"]]

    def seed(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        where = f"seeds {spec.get('dataset') or spec.get('path') or spec.get('name')}"
        terms = _terms(spec, where)
        id = self._id(spec.get("dataset") or spec.get("path") or spec.get("name") or "inline seeds")
        row: dict[str, Any] = {"id": id}
        for key in ("revision", "role", "obtained_by"):
            if value := terms.get(key, spec.get(key)):
                row[key] = value
        self._state(terms, spec, row, id, "dataset", "dataset", where)
        if not spec.get("dataset") and not terms and not spec.get("card_licence"):
            row["own_rights"] = _own_rights("a file of the user's, given without terms", [])
        return row

    def student(self, spec: Mapping[str, Any]) -> Any:
        where = "student"
        model = spec.get("model")
        if not model:
            raise RecipeError("student.model: missing; name the starting weights (pocket, a path, a hub id) or none")
        if (spec.get("kind") or "causal_lm") not in STUDENT_KINDS:
            raise RecipeError(f"student.kind: unknown {spec['kind']!r}; {nearest(str(spec['kind']), STUDENT_KINDS)}")
        if spec.get("plan"):
            return spec["plan"]["student_base"]
        id = POCKET["student"] if model == "pocket" else self._id(model)
        row: dict[str, Any] = {"id": id}
        if spec.get("revision"):
            row["revision"] = spec["revision"]
        self._state(_terms(spec, where), spec, row, id, "weights", "weights", where)
        return id if len(row) == 1 else row

    def _state(
        self,
        terms: Mapping[str, Any],
        spec: Mapping[str, Any],
        row: dict[str, Any],
        id: str,
        access: str,
        kind: Kind,
        where: str,
    ) -> None:
        """Puts what the recipe or a model card states beside the row: own rights, a record, or a plain licence."""
        if "own_rights" in terms:
            own = terms["own_rights"]
            row["own_rights"] = _own_rights(own, []) if isinstance(own, str) else own
        elif "record" in terms:
            self._add(
                stated.named(self.registry, str(terms["record"]), id, access, kind, f"{where}.terms.record"), id, access
            )
        elif spec.get("card_licence") and not self.registry.find(id, access):
            self._add(stated.from_card(self.registry, str(spec["card_licence"]), id, access, kind), id, access)

    def _add(self, records: list[TermsRecord], id: str, access: str) -> None:
        known = {r.id for r in self.registry.find(id, access)}
        for record in records:
            if record.id not in known:
                self.records.setdefault(_key(record), record)


def _key(record: TermsRecord) -> tuple[str, ...]:
    return record.id, *record.access, *(p.match for p in record.models)


def _terms(spec: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    terms = spec.get("terms") or {}
    if not isinstance(terms, Mapping):
        raise RecipeError(f'{where}.terms: write {{record: apache-2.0}} or {{own_rights: "..."}}, not {terms!r}')
    if unknown := [key for key in terms if key not in TERMS_KEYS]:
        raise RecipeError(f"{where}.terms.{unknown[0]}: unknown; {nearest(str(unknown[0]), TERMS_KEYS)}")
    if "record" in terms and "own_rights" in terms:
        raise RecipeError(f"{where}.terms: record and own_rights exclude each other; keep one")
    return terms


def _own_rights(statement: str, built_on: list[str]) -> dict[str, Any]:
    """A declaration in a recipe carries no date of its own; the manifest dates it."""
    return {
        "holder": "the user",
        "basis": "trained_in_house",
        "declared_by": "the recipe",
        "date": "undated",
        "built_on": built_on,
        "statement": statement,
    }
