"""The numbers of the report's tables: rows and dollars, seconds and tokens, as they stand in the manifest."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stillhouse.reporting.reading import Branch, RunFacts
from stillhouse.reporting.verdict import scale_of

__all__ = [
    "Gate",
    "Ledger",
    "Seen",
    "count",
    "dollars",
    "duration",
    "gates",
    "kept_rows",
    "ledger",
    "noted",
    "same_tokens",
    "stages",
    "tokens_seen",
    "when",
]


@dataclass(frozen=True, slots=True)
class Ledger:
    """What one teacher was asked and what it cost."""

    name: str
    who: str
    asked: int
    stored: int
    answered: int
    failed: dict[str, int]
    not_attempted: int
    input_tokens: int
    output_tokens: int
    stored_tokens: int
    usd: float
    stored_usd: float
    local: bool
    seconds: float

    @property
    def price(self) -> str:
        if self.local and not self.usd and not self.stored_usd:
            return "no price: local"
        stored = f" (answers from the store once cost {dollars(self.stored_usd)})" if self.stored_usd else ""
        return dollars(self.usd) + stored


@dataclass(frozen=True, slots=True)
class Seen:
    """What an arm was trained on, per seed: steps, tokens read and tokens learned from."""

    arm: str
    seeds: int
    steps: float
    input_tokens: float
    target_tokens: float
    seconds: float
    final_loss: float | None
    left_out: dict[str, int]
    coverage: dict[str, float]  # of teachers with another tokenizer: the share of targets where they were compared


@dataclass(frozen=True, slots=True)
class Gate:
    """What an arm was allowed to lose on a task against the base student, and whether it kept to that."""

    task: str
    arm: str
    allowed: str
    change: str
    interval: str
    state: str  # held, unclear or lost
    reading: str


def gates(facts: RunFacts) -> Iterator[Gate]:
    scores = facts.scores or {}
    scales = {task["task"]: scale_of(task) for task in scores.get("tasks", [])}
    said = {"held": "kept", "unclear": "lost more, which may be chance", "lost": "lost more than allowed"}
    for each in scores.get("gates") or []:
        scale, state = scales[each["task"]], each["state"]
        interval = f"{scale.signed(each['low'])} to {scale.signed(each['high'])}"
        allowed, change = scale.bare(each["may_lose"]), scale.signed(each["change"])
        yield Gate(each["task"], each["arm"], allowed, change, interval, state, said[state])


def ledger(facts: RunFacts) -> list[Ledger]:
    known = facts.teachers()
    return [_entry(name, each, known.get(name, {})) for name, each in (facts.manifest.get("calls") or {}).items()]


def _entry(name: str, calls: Mapping[str, Any], who: Mapping[str, Any]) -> Ledger:
    return Ledger(
        name,
        identity(who),
        calls.get("asked", 0),
        calls.get("hits", 0),
        calls.get("answered", 0),
        dict(calls.get("failed") or {}),
        calls.get("not_attempted", 0),
        calls.get("input_tokens", 0),
        calls.get("output_tokens", 0),
        calls.get("hit_input_tokens", 0) + calls.get("hit_output_tokens", 0),
        calls.get("cost_usd", 0.0),
        calls.get("hit_cost_usd", 0.0),
        not who.get("endpoint"),
        calls.get("seconds", 0.0),
    )


def identity(who: Mapping[str, Any]) -> str:
    """Backend, model and revision in one line."""
    revision = str(who.get("revision") or "")
    parts = [
        str(who.get("backend") or ""),
        str(who.get("model") or "").rsplit("/", 1)[-1] if _is_path(who) else str(who.get("model") or ""),
    ]
    return " ".join(filter(None, [*dict.fromkeys(parts), f"@{revision[:12]}" if revision else ""])) or "unknown"


def _is_path(who: Mapping[str, Any]) -> bool:
    return str(who.get("model") or "").startswith(("/", "~", "."))


def kept_rows(branches: list[Branch]) -> int:
    """Rows to be trained on: a pool holds those of the rounds before it."""
    last = {branch.name.partition("/")[0]: branch for branch in branches}
    pooled = {name for name, branch in last.items() if branch.steps[-1]["kind"] == "union"}
    return sum(branch.kept for branch in branches if branch.name.partition("/")[0] not in pooled) + sum(
        last[name].kept for name in pooled
    )


def stages(facts: RunFacts) -> Iterator[tuple[str, float]]:
    yield from (facts.manifest.get("seconds") or {}).items()


def stored_signals(facts: RunFacts) -> Iterator[dict[str, Any]]:
    """What each step put into a store of signals: bytes per token, and how far that is from the teacher."""
    for step in facts.manifest.get("steps") or []:
        for told in step.get("signals") or []:
            settings = ", ".join(f"{name} {value}" for name, value in told["settings"].items())
            yield {"branch": step["branch"], "do": step["do"], "settings_text": settings, **told}


def tokens_seen(facts: RunFacts) -> list[Seen]:
    students = facts.manifest.get("students") or []
    return [_seen(arm, [s for s in students if s["arm"] == arm]) for arm in dict.fromkeys(s["arm"] for s in students)]


def _seen(arm: str, students: list[dict[str, Any]]) -> Seen:
    phases = [phase for student in students for phase in student["phases"]]
    last = [student["phases"][-1].get("final_loss") for student in students if student["phases"]]
    known = [loss for loss in last if loss is not None]
    left_out: dict[str, int] = {}
    # the same rows are left out under every seed: the first student's are told
    for phase in students[0]["phases"]:
        for reason, rows in (phase.get("left_out") or {}).items():
            left_out[reason] = left_out.get(reason, 0) + rows

    def each(key: str) -> float:
        return sum(phase.get(key, 0) for phase in phases) / len(students)

    seconds = sum(student.get("seconds", 0.0) for student in students) / len(students)
    mean = sum(known) / len(known) if known else None
    return Seen(
        arm, len(students), each("steps"), each("input_tokens"), each("target_tokens"), seconds, mean, left_out,
        _coverage(phases),
    )  # fmt: skip


def _coverage(phases: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The mean over phases and seeds, by teacher."""
    found: dict[str, list[float]] = {}
    for phase in phases:
        for teacher, share in (phase.get("coverage") or {}).items():
            found.setdefault(teacher, []).append(share)
    return {teacher: sum(shares) / len(shares) for teacher, shares in found.items()}


def noted(steps: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """What steps say beside their counts: how a selector does on texts put together by chance, how evenly pieces were used."""
    for step in steps:
        where = f"{step['branch']} {step['step']}"
        if control := step.get("control"):
            hit, texts = control["dropped"], control["texts"]
            share = f"{100 * hit / texts:.2f} %" if texts else "none made"
            yield f"{where}: of {texts:,} texts put together by chance it would drop {hit:,} (false positives: {share})."
        if doubt := step.get("judge"):
            yield f"{where}: the judge is not to be trusted: {doubt}. Its rows carry the column `untrusted`."
        if coverage := step.get("coverage"):
            used = coverage["pieces"] - coverage["unused"]
            of = f"{used:,} of {coverage['pieces']:,} pieces of meta-information were used"
            yield f"{where}: {of}, the most {coverage['most']:,} times."


def same_tokens(seen: list[Seen], tolerance: float = 0.01) -> str:
    """Whether arms can be compared as having learned from equally many tokens, in one sentence."""
    if len(seen) < 2:
        return ""
    unequal = [
        what for key, what in (("input_tokens", "input"), ("target_tokens", "target")) if _apart(seen, key) > tolerance
    ]
    if not unequal:
        return "All arms read and learned from equally many tokens (within 1 %)."
    most = max(_apart(seen, f"{what}_tokens") for what in unequal)
    return f"Arms differ in {' and '.join(unequal)} tokens by up to {100 * most:.0f} %: they are not compared at equal tokens."


def _apart(seen: list[Seen], key: str) -> float:
    numbers = [getattr(each, key) for each in seen]
    return (max(numbers) - min(numbers)) / max(max(numbers), 1)


def count(number: float) -> str:
    return f"{number:,.0f}"


def dollars(amount: float) -> str:
    """Cents where they say enough, more digits where they do not."""
    return (
        f"${amount:,.2f}" if amount >= 0.1 or amount == 0 else f"${amount:.2g}" if amount >= 1e-4 else f"${amount:.1e}"
    )


def duration(seconds: float) -> str:
    if seconds < 0.1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def when(stamp: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(stamp)) if stamp else "unknown"
