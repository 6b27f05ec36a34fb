"""The page: what each section shows, filled into `report.html.j2`. Everything that was not written here is escaped."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from stillhouse.compliance.watch import screening_lines
from stillhouse.files import replacing
from stillhouse.papers import BOM, SUMMARY
from stillhouse.reporting import plots, tables
from stillhouse.reporting.model_card import says
from stillhouse.reporting.reading import (
    BASE,
    Answered,
    RunFacts,
    answered_alike,
    branches_of,
    empty_answers,
    loss_curves,
)
from stillhouse.reporting.verdict import (
    START,
    TEACHER,
    Contrast,
    Scale,
    contrast,
    headline,
    role_of,
    scale_of,
    taught_arm,
)

__all__ = ["render_report", "write_page"]

_MOST_CHARS = 700  # of one answer or question
_PAPERS = ("README.md", "LICENSE", "NOTICE", "THIRD_PARTY_TERMS.md", "USE_RESTRICTIONS.md", BOM, SUMMARY)
_MOST_ROWS = 200  # of one table
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_ROLES = {"base": "untaught base", "control": "control", "taught": "taught", "teacher": "teacher"}


@dataclass(frozen=True, slots=True)
class Difference:
    """A comparison as the table shows it."""

    arm: str
    against: str
    value: str
    interval: str
    reading: str
    state: str


def render_report(facts: RunFacts) -> str:
    """The whole page. It asks for nothing from outside: style and pictures are in it, and there is no script."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("stillhouse", "reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": tables.count, "dollars": tables.dollars, "duration": tables.duration, "shortened": shortened,
    }  # fmt: skip
    page = environment.get_template("report.html.j2").render(**_views(facts))
    return _UNPRINTABLE.sub("\ufffd", page)


def shortened(text: str, most: int = _MOST_CHARS) -> str:
    """The beginning of a long text, and how much is missing."""
    return text if len(text) <= most else f"{text[:most]} … ({len(text) - most:,} more characters)"


def _views(facts: RunFacts) -> dict[str, Any]:
    branches = branches_of(facts.manifest)
    books = tables.ledger(facts)
    seen = tables.tokens_seen(facts)
    usd = sum(each.usd for each in books)
    kept = tables.kept_rows(branches)
    return {
        "manifest": facts.manifest,
        "head": headline(facts),
        "created": tables.when(facts.manifest.get("created")),
        "updated": tables.when(facts.manifest.get("updated")),
        "figures": _figures(facts, kept, usd, all(each.local for each in books)),
        "taught": list(_taught(facts)),
        "terms": _terms(facts),
        "declared": list(_declared(facts)),
        "screening": list(screening_lines(facts.manifest.get("screening") or {})),
        "papers": list(_papers(facts.path)),
        "gates": list(tables.gates(facts)),
        "gives": says(facts),
        "judges": (facts.scores or {}).get("judges") or [],
        "calibration": (facts.scores or {}).get("calibration") or [],
        "overlap": (facts.scores or {}).get("overlap") or [],
        "noted": list(tables.noted(facts.manifest.get("steps") or [])),
        "rounds": facts.manifest.get("rounds") or [],
        "flows": [(branch, plots.flow(branch)) for branch in branches],
        "tasks": [_task(facts, task) for task in (facts.scores or {}).get("tasks", [])],
        "curves": list(_curves(facts)),
        "seen": seen,
        "same_tokens": tables.same_tokens(seen),
        "side_by_side": _side_by_side(facts),
        "ledger": books,
        "stages": list(tables.stages(facts)),
        "signals": list(tables.stored_signals(facts)),
        "steps": facts.manifest.get("steps") or [],
        "kept": kept,
        "usd": usd,
        "stored_usd": sum(each.stored_usd for each in books),
        "recipe_text": facts.recipe_text,
        "hardware": _hardware(facts.manifest.get("hardware")),
        "seeds": sorted({student["seed"] for student in facts.manifest.get("students") or []}),
        "final": facts.final,
        "has_student": (facts.path / "student").is_dir(),
    }


def _figures(facts: RunFacts, kept: int, usd: float, local: bool) -> list[tuple[str, str]]:
    seconds = sum((facts.manifest.get("seconds") or {}).values())
    return [
        ("examples kept", tables.count(kept)),
        ("students trained", tables.count(len(facts.manifest.get("students") or []))),
        ("spent on teachers", "no price: local" if local and not usd else tables.dollars(usd)),
        ("time", tables.duration(seconds)),
    ]


def _taught(facts: RunFacts) -> Iterator[dict[str, Any]]:
    """Per teacher: who it is, what it wrote or scored, and what governs that as far as the recipe says."""
    uses: dict[str, list[str]] = {}
    for step in facts.manifest.get("steps") or []:
        for each in step.get("teachers") or []:
            uses.setdefault(each["name"], []).append(f"{step['do']} for {step['branch']} ({step['out']:,} rows)")
    for name, who in facts.teachers().items():
        entry = facts.recipe.teachers.get(name) if facts.recipe else None
        yield {
            "name": name,
            "who": tables.identity(who),
            "endpoint": str(who.get("endpoint") or ""),
            "uses": uses.get(name) or ["asked in training or evaluation only"],
            "terms": _plain(entry.terms) if entry and entry.terms else "",
        }


def _declared(facts: RunFacts) -> Iterator[tuple[str, str]]:
    """What the recipe itself says about terms: seeds and student."""
    if facts.recipe is None:
        return
    for name, branch in facts.recipe.knowledge.items():
        own = "counted as your own declaration" if branch.seeds.do != "hub" else "none given"
        yield f"seeds of {name}", _plain(branch.seeds.terms) if branch.seeds.terms else own
    if facts.recipe.student is not None and facts.recipe.student.terms:
        yield f"student {facts.recipe.student.model}", _plain(facts.recipe.student.terms)


def _papers(run: Path) -> Iterator[str]:
    """The files that go with the student, or with the data where there is no student."""
    for home in ("student", "knowledge"):
        yield from sorted(
            f"{home}/{path.name}" for path in (run / home).glob("*") if path.name.startswith(_PAPERS) and path.is_file()
        )


def _plain(terms: Mapping[str, Any]) -> str:
    return "; ".join(f"{key}: {value}" for key, value in terms.items())


def _terms(facts: RunFacts) -> dict[str, Any] | None:
    """What the check of the terms said before anything was spent; None where there was none."""
    if not facts.terms.get("verdict"):
        return None
    decision = facts.terms.get("decision") or {}
    notice = str(decision.get("notice") or "")
    lines = [str(line) for line in facts.terms.get("lines") or []]
    said = "\n".join(line for line in lines if line != notice).strip()
    return {"verdict": facts.terms["verdict"], "as_of": decision.get("as_of"), "said": said, "notice": notice}


def _hardware(told: Any) -> str:
    if isinstance(told, Mapping):
        return ", ".join(f"{key} {value}" for key, value in told.items() if value not in (None, "", 0))
    return str(told or "not recorded")


def _task(facts: RunFacts, task: Mapping[str, Any]) -> dict[str, Any]:
    scores, scale = facts.scores or {}, scale_of(task)
    summary = [row for row in scores["summary"] if row["task"] == scale.task]
    marks = [_mean_mark(facts, row, scale) for row in summary]
    found = [
        each
        for row in scores["comparisons"]
        if row["task"] == scale.task and (each := contrast(scores, scale, row["arm"], row["against"]))
    ]
    shown = [each for each in found if _worth_drawing(facts, each)] or found
    empty = empty_answers(facts.path, scale.task)
    return {
        "scale": scale,
        "about": task,
        "rows": [(row, mark, _ROLES[mark.role], empty.get(row["arm"], (0, 0))) for row, mark in zip(summary, marks)],
        "means": plots.intervals(marks, scale, zero=False, said=_spoken(f"Means on {scale.task}", marks))
        if marks
        else "",
        "differences": _differences_plot(facts, shown, scale),
        "table": [_difference(each, scale) for each in found[:_MOST_ROWS]],
        "left": max(len(found) - _MOST_ROWS, 0),
        "mute": [f"{gone:,} of {every:,} answers of {arm}" for arm, (gone, every) in empty.items() if 2 * gone > every],
    }


def _worth_drawing(facts: RunFacts, each: Contrast) -> bool:
    """Taught arms against what they should beat, and against each other; teachers and the rest stand in the table."""
    return role_of(facts, each.arm) == "taught" and role_of(facts, each.against) != "teacher"


def _mean_mark(facts: RunFacts, row: Mapping[str, Any], scale: Scale) -> plots.Mark:
    words = f"{scale.bare(row['mean'])} [{scale.bare(row['low'])}, {scale.bare(row['high'])}]"
    seeds = tuple(each["mean"] for each in row.get("per_seed", []))
    return plots.Mark(
        row["arm"],
        role_of(facts, row["arm"]),
        row["mean"],
        row["low"],
        row["high"],
        words,
        seeds if len(seeds) > 1 else (),
    )


def _differences_plot(facts: RunFacts, shown: list[Contrast], scale: Scale) -> Markup | str:
    marks = [
        plots.Mark(
            f"{each.arm} − {each.against}", each.state, each.difference, each.low, each.high,
            f"{scale.signed(each.difference)} [{scale.signed(each.low)}, {scale.signed(each.high)}]",
        )
        for each in shown[:24]
    ]  # fmt: skip
    return (
        plots.intervals(marks, scale, zero=True, said=_spoken(f"Differences on {scale.task}", marks)) if marks else ""
    )


def _spoken(title: str, marks: list[plots.Mark]) -> str:
    return f"{title}, with 95 % intervals: " + "; ".join(f"{mark.label} {mark.text}" for mark in marks)


def _difference(each: Contrast, scale: Scale) -> Difference:
    reading = {"better": "better", "worse": "worse", "unclear": "no clear difference"}[each.state]
    interval = f"{scale.signed(each.low)} to {scale.signed(each.high)}"
    return Difference(each.arm, each.against, scale.signed(each.difference), interval, reading, each.state)


def _curves(facts: RunFacts) -> Iterator[tuple[str, tuple[str, ...], int, Markup]]:
    curves = loss_curves(facts.path)
    for arm in dict.fromkeys(curve.arm for curve in curves):
        mine = [curve for curve in curves if curve.arm == arm]
        known = facts.arms.get(arm)
        yield arm, known.objectives if known else (), len(mine), plots.losses(arm, mine)


def _side_by_side(facts: RunFacts) -> dict[str, Any] | None:
    """Ten questions on the first task that has answers to read."""
    arm = (facts.final or {}).get("arm") or taught_arm(facts)
    students = facts.manifest.get("students") or []
    seed = (facts.final or {}).get("seed", min((s["seed"] for s in students if s["arm"] == arm), default=0))
    for task in (facts.scores or {}).get("tasks", []) if arm else []:
        labels = _subjects(facts, task["task"], str(arm), seed)
        found, counts = answered_alike(facts.path, task["task"], list(labels), f"{arm}-{seed}")
        if found:
            told = [(each, list(_answers(each, labels))) for each in found]
            return {"task": task["task"], "items": told, "counts": counts, "student": f"{arm}, seed {seed}"}
    return None


def _subjects(facts: RunFacts, task: str, arm: str, seed: int) -> dict[str, tuple[str, str]]:
    """File label -> who it is and its role, in the order shown: base, final student, one student of each other arm, teachers."""
    found: dict[str, tuple[str, str]] = {
        BASE: ("base, untaught", "base"),
        f"{arm}-{seed}": (f"{arm}, seed {seed}", role_of(facts, arm)),
    }
    if any(row["arm"] == f"{START}{arm}" for row in (facts.scores or {})["summary"]):
        found[f"{START}{arm}".replace(":", "-")] = ("cut or rounded, untaught", "base")
    for student in facts.manifest.get("students") or []:
        if student["seed"] == seed and student["arm"] != arm and len(found) < 5:
            found[f"{student['arm']}-{seed}"] = (f"{student['arm']}, seed {seed}", role_of(facts, student["arm"]))
    for row in (facts.scores or {})["summary"]:
        if row["task"] == task and row["arm"].startswith(TEACHER):
            found[row["arm"].replace(":", "-")] = (f"teacher {row['arm'].removeprefix(TEACHER)}", "teacher")
    return found


def _answers(each: Answered, labels: Mapping[str, tuple[str, str]]) -> Iterator[dict[str, Any]]:
    for label, (who, role) in labels.items():
        if row := each.answers.get(label):
            value = row.get("value")
            grade = (
                "not graded" if value is None else "right" if value >= 1 else "wrong" if value <= 0 else f"{value:.2f}"
            )
            yield {
                "who": who,
                "role": role,
                "text": row.get("response") or "",
                "grade": grade,
                "reason": row.get("reason") or "",
            }


def write_page(facts: RunFacts) -> Path:
    """Writes `report.html` in one move, so that a reader never sees half of it."""
    path = facts.path / "report.html"
    with replacing(path) as part:
        part.write_text(render_report(facts), encoding="utf-8")
    return path
