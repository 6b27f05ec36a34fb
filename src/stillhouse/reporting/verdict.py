"""Did distilling help? The answer in words, computed from the paired comparisons and nothing else."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stillhouse.reporting.reading import BASE, RunFacts

__all__ = ["Contrast", "Headline", "Scale", "contrast", "headline", "role_of", "scale_of", "taught_arm"]

TEACHER = "teacher:"
START = "start:"
State = Literal["better", "unclear", "worse"]
Role = Literal["base", "control", "taught", "teacher"]


@dataclass(frozen=True, slots=True)
class Scale:
    """How the numbers of a task are written: scores as per cent and points, likelihoods in nats per token."""

    task: str
    higher_is_better: bool
    percent: bool

    def value(self, number: float) -> str:
        return f"{100 * number:.1f} %" if self.percent else f"{number:.3f} nats per token"

    def bare(self, number: float) -> str:
        return f"{100 * number:.1f}" if self.percent else f"{number:.3f}"

    def signed(self, number: float) -> str:
        return signed(100 * number, 1) if self.percent else signed(number, 3)

    @property
    def unit(self) -> str:
        return "points" if self.percent else "nats per token"


@dataclass(frozen=True, slots=True)
class Contrast:
    """`arm` minus `against` on one task, paired over items and seeds, with its 95 % interval."""

    arm: str
    against: str
    difference: float
    low: float
    high: float
    seeds: int
    items: int
    state: State


@dataclass(frozen=True, slots=True)
class Headline:
    """`answer` in a word or two, `sentence` in full, `more` what has to be known beside it."""

    answer: str
    sentence: str
    tone: Literal["good", "neutral", "bad"]
    more: tuple[str, ...] = ()

    @property
    def explained(self) -> str:
        """The sentence where the answer stands above it already."""
        rest = self.sentence.removeprefix(f"{self.answer}: ")
        return rest[:1].upper() + rest[1:]


def signed(number: float, digits: int) -> str:
    """With its sign, a real minus and no negative zero."""
    text = f"{abs(number):.{digits}f}"
    if not text.strip("0."):
        return text
    return ("+" if number > 0 else "−") + text


def scale_of(task: Mapping[str, Any]) -> Scale:
    return Scale(task["task"], bool(task.get("higher_is_better", True)), task.get("metric", "score") == "score")


def contrast(scores: Mapping[str, Any], scale: Scale, arm: str, against: str) -> Contrast | None:
    """The comparison of two arms, turned round where it was stored the other way; None when they were not compared."""
    for row in scores.get("comparisons", []):
        if row["task"] != scale.task or {row["arm"], row["against"]} != {arm, against}:
            continue
        sign = 1 if row["arm"] == arm else -1
        low, high = sorted((sign * row["low"], sign * row["high"]))
        better = low > 0 if scale.higher_is_better else high < 0
        worse = high < 0 if scale.higher_is_better else low > 0
        state: State = "better" if better else "worse" if worse else "unclear"
        return Contrast(arm, against, sign * row["difference"], low, high, row["seeds"], row["items"], state)
    return None


def role_of(facts: RunFacts, arm: str) -> Role:
    if arm == BASE or arm.startswith(START):
        return "base"
    if arm.startswith(TEACHER):
        return "teacher"
    known = facts.arms.get(arm)
    if known is None:
        return "control" if "control" in arm.lower() else "taught"
    # with no teacher anywhere, training itself is what was tried
    none_taught = not any(each.taught for each in facts.arms.values())
    return "taught" if known.taught or (none_taught and "control" not in arm.lower()) else "control"


def taught_arm(facts: RunFacts) -> str | None:
    """The arm the answer is about: the final student's, or where that is a control, the taught arm best on validation."""
    arms = list(dict.fromkeys(each["arm"] for each in facts.manifest.get("students") or []))
    taught = [arm for arm in arms if role_of(facts, arm) == "taught"]
    if facts.final and facts.final["arm"] in taught:
        return facts.final["arm"]
    return max(taught, key=lambda arm: _validation(facts, arm)) if taught else None


def _validation(facts: RunFacts, arm: str) -> float:
    scores = facts.scores or {}
    if not scores.get("tasks"):
        return 0.0
    scale = scale_of(scores["tasks"][0])
    found = [row["mean"] for row in scores.get("validation", []) if row["arm"] == arm and row["task"] == scale.task]
    mean = sum(found) / len(found) if found else 0.0
    return mean if scale.higher_is_better else -mean


def headline(facts: RunFacts) -> Headline:
    """One sentence, with its verdict in front. Only an interval that leaves out zero makes it a yes or a no."""
    if missing := _not_measured(facts):
        return Headline("Not measured", f"Not measured: {missing}", "neutral")
    scores, arm = facts.scores or {}, taught_arm(facts)
    assert arm is not None
    tasks = [scale_of(task) for task in scores["tasks"]]
    answer, sentence, tone = _answer(facts, tasks[0], arm)
    others = [f"On {task.task}: {_answer(facts, task, arm)[1]}" for task in tasks[1:]]
    more = (
        *others,
        *_recovered(facts, tasks[0], arm),
        *_beliefs(facts, tasks[0]),
        *_beside(facts, tasks[0], arm),
        *_cautions(facts, tasks[0], arm),
    )
    return Headline(answer, sentence, tone, more)


def _not_measured(facts: RunFacts) -> str:
    scores = facts.scores or {}
    state = facts.manifest.get("state")
    if state in ("failed", "interrupted") and not scores.get("summary"):
        return (
            f"the run {'was interrupted' if state == 'interrupted' else 'failed'} before its students were evaluated."
        )
    if not facts.manifest.get("students"):
        return "this run trained no student; it made data only."
    if scores.get("summary") and not scores.get("comparisons"):
        return "there is nobody to compare with; a control arm (under `arms:`) would answer the question."
    if not scores.get("summary"):
        return "this run evaluated nothing; an `evaluate:` entry in the recipe would answer the question."
    if taught_arm(facts) is None:
        return "every arm of this run is a control; there is no taught student to compare with them."
    return ""


def _answer(facts: RunFacts, scale: Scale, arm: str) -> tuple[str, str, Literal["good", "neutral", "bad"]]:
    scores = facts.scores or {}
    controls = [row["arm"] for row in scores["summary"] if row["task"] == scale.task]
    start = f"{START}{arm}" if f"{START}{arm}" in controls else BASE
    controls = [each for each in controls if role_of(facts, each) == "control"] + [start]
    found = [each for other in controls if (each := contrast(scores, scale, arm, other))]
    mean = next((r["mean"] for r in scores["summary"] if r["task"] == scale.task and r["arm"] == arm), None)
    if mean is None or not found:
        return "Not measured", f"Not measured: “{arm}” was not evaluated on {scale.task}.", "neutral"
    states = {each.state for each in found}
    answer = _word(states)
    size = f"{_count(found[0].seeds, 'seed')}, {_count(found[0].items, 'item')}"
    said = "; ".join(_said(each, scale) for each in found)
    verb = "scores" if scale.percent else "has a loss of"
    text = f"{answer}: on {scale.task} the student taught as “{arm}” {verb} {scale.value(mean)}, {said} ({size})."
    tone: Literal["good", "neutral", "bad"] = "good" if answer == "Yes" else "bad" if answer == "No" else "neutral"
    return answer, text, tone


def _word(states: set[State]) -> str:
    if states == {"better"}:
        return "Yes"
    if "better" in states:
        return "Partly"
    return "No" if "worse" in states else "Not shown"


def _said(each: Contrast, scale: Scale) -> str:
    named = {BASE: "the untaught base", "control": "the control arm"}
    who = named.get(each.against, f"the control “{each.against}”")
    if each.against.startswith(START):
        who = "the same cut or rounded model before it learned"
    text = f"{_difference(each, scale)} against {who}"
    return text if each.state != "unclear" else f"{text}, an interval that includes zero: no clear difference"


def _difference(each: Contrast, scale: Scale) -> str:
    interval = f"95 % interval {scale.signed(each.low)} to {scale.signed(each.high)}"
    return f"{scale.signed(each.difference)} {scale.unit} ({interval})"


def _recovered(facts: RunFacts, scale: Scale, arm: str) -> Iterator[str]:
    """How far a student that was cut or rounded is from the whole model."""
    whole = contrast(facts.scores or {}, scale, arm, BASE)
    if whole is not None and contrast(facts.scores or {}, scale, arm, f"{START}{arm}") is not None:
        clear = "" if whole.state != "unclear" else ", no clear difference"
        yield f"Against the whole model that it was made from: {_difference(whole, scale)}{clear}."


def _beliefs(facts: RunFacts, scale: Scale) -> Iterator[str]:
    """What a teacher's probabilities add to its text, for every pair of arms that differ so."""
    taught = [arm for arm in facts.arms.values() if arm.taught]
    for rich in (arm for arm in taught if arm.beliefs):
        for plain in (arm for arm in taught if not arm.beliefs):
            each = contrast(facts.scores or {}, scale, rich.name, plain.name)
            if each is not None:
                end = "" if each.state != "unclear" else ", which includes zero: no clear difference"
                yield (
                    f"What the teacher's beliefs add to its text: “{rich.name}” minus “{plain.name}” is "
                    f"{_difference(each, scale)}{end}."
                )


def _beside(facts: RunFacts, scale: Scale, arm: str) -> Iterator[str]:
    for row in (facts.scores or {})["summary"]:
        if row["task"] == scale.task and row["arm"].startswith(TEACHER):
            name = row["arm"].removeprefix(TEACHER)
            yield f"The teacher “{name}” itself has {scale.value(row['mean'])} on the same items."
    final = facts.final
    if final and final["arm"] != arm:
        yield f"The student in `student/` is that of arm “{final['arm']}”, a control; the answer above is about “{arm}”."


def _cautions(facts: RunFacts, scale: Scale, arm: str) -> Iterator[str]:
    row = next(r for r in (facts.scores or {})["summary"] if r["task"] == scale.task and r["arm"] == arm)
    if row["seeds"] == 1:
        yield "One seed: the interval covers the choice of items, not the luck of one training (repeats: 3 would)."
    if row.get("left_out"):
        yield f"{_count(row['left_out'], 'item')} could not be graded in some seed and count for nobody."
    if facts.manifest.get("limit") is not None:
        yield f"A trial on the first {facts.manifest['limit']} rows (`--limit`), not the whole recipe."
    if facts.manifest.get("state") != "done":
        yield f"The run is not finished (state: {facts.manifest.get('state')}); these numbers may change."


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
