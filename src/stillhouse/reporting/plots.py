"""Pictures as inline SVG. Text keeps its size at every width: places along a line are per cent of the page, heights pixels;
only the curves lie in an inner drawing that is stretched. Colours are classes, given by the style sheet for light and dark.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from stillhouse.reporting.reading import Branch, Curve
from stillhouse.reporting.verdict import Scale

__all__ = ["Mark", "flow", "intervals", "losses", "ticks"]

_BAR, _LABEL, _LINE = 16, 20, 17  # heights in pixels
_EDGE = 4.0  # per cent kept free at both ends of an axis


@dataclass(frozen=True, slots=True)
class Mark:
    """One line of an interval plot. `role` picks the sign: base, control, taught, teacher; `dots` are the seeds' own means."""

    label: str
    role: str
    value: float
    low: float
    high: float
    text: str
    dots: tuple[float, ...] = ()


def element(name: str, attributes: Mapping[str, Any], *children: Any) -> Markup:
    """Everything that is not markup already is escaped."""
    told = Markup("").join(Markup(' {}="{}"').format(Markup(key), value) for key, value in attributes.items())
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), told, Markup("").join(escape(child) for child in children))


def text(x: str, y: float, words: str, kind: str = "", anchor: str = "start") -> Markup:
    return element("text", {"x": x, "y": round(y, 1), "class": kind, "text-anchor": anchor}, words)


def picture(height: float, said: str, kind: str, *children: Any) -> Markup:
    attributes = {"width": "100%", "height": round(height), "role": "img", "aria-label": said, "class": f"plot {kind}"}
    return element("svg", attributes, *children)


def flow(branch: Branch) -> Markup:
    """The rows of a branch from its seeds down: each bar is what a step had in hand, kept to the left, lost to the right."""
    widest = max(max(_slots(step) for step in branch.steps), 1)
    y, parts = 0.0, []
    for number, step in enumerate(branch.steps):
        reasons = _reasons(step["lost"])
        below = max(26, _LINE * len(reasons) + 10)
        last = number == len(branch.steps) - 1
        following = 0 if last else 100 * _slots(branch.steps[number + 1]) / widest
        parts += _step(step, reasons, y, 100 / widest)
        if not last:
            parts.insert(0, _ribbon(100 * step["out"] / widest, following, y + _LABEL + _BAR, below + _LABEL))
        parts += [
            text("100%", y + _LABEL + _BAR + _LINE * (i + 1) - 1, line, "lost", "end") for i, line in enumerate(reasons)
        ]
        y += _LABEL + _BAR + (below if not last or reasons else 4)
    said = f"Rows of branch {branch.name}: {branch.seeds} seeds, {branch.kept} kept at the end"
    return picture(y, said, "flow", *parts)


def _slots(step: Mapping[str, Any]) -> int:
    return step["out"] + sum(step["lost"].values())


def _reasons(lost: Mapping[str, int], most: int = 4) -> list[str]:
    ordered = sorted(lost.items(), key=lambda pair: (-pair[1], pair[0]))
    lines = [f"{count:,} {_short(reason, 34)}" for reason, count in ordered[:most]]
    rest = ordered[most:]
    return [*lines, f"{sum(n for _, n in rest):,} for {len(rest)} other reasons"] if rest else lines


def _step(step: Mapping[str, Any], reasons: list[str], y: float, per_row: float) -> list[Markup]:
    by = ", ".join(each["name"] for each in step.get("teachers") or [])
    label = f"{step['do']} · {by}" if by else str(step["do"])
    count = f"{step['out']:,}" if step["kind"] == "seeds" else f"{step['out']:,} of {_slots(step):,}"
    parts = [
        text("0", y + 14, _short(label, 32), "name"),
        text("100%", y + 14, f"{count} {'seeds' if step['kind'] == 'seeds' else 'kept'}", "count", "end"),
        element(
            "rect",
            {
                "x": "0", "y": y + _LABEL, "width": _percent(step["out"] * per_row), "height": _BAR, "class": "kept",
                "data-step": step["step"], "data-kept": step["out"],
            },
            element("title", {}, f"{step['step']}: {step['out']:,} kept"),
        ),
    ]  # fmt: skip
    x = step["out"] * per_row
    for number, (reason, rows) in enumerate(sorted(step["lost"].items(), key=lambda pair: (-pair[1], pair[0]))):
        place = {"x": _percent(x), "y": y + _LABEL, "width": _percent(rows * per_row), "height": _BAR}
        marks = {"class": f"gone gone{number % 2}", "data-reason": reason, "data-rows": rows}
        parts.append(element("rect", {**place, **marks}, element("title", {}, f"{rows:,} lost: {reason}")))
        x += rows * per_row
    return parts


def _ribbon(above: float, below: float, y: float, height: float) -> Markup:
    top, end = round(10 * above, 1), round(10 * below, 1)
    return _stretched(
        y, height, element("path", {"d": f"M0,0 H{top} C{top},500 {end},500 {end},1000 H0 Z", "class": "ribbon"})
    )


def _stretched(y: float, height: float, *children: Any) -> Markup:
    """An inner drawing of 1000 by 1000 units over the full width."""
    box = {"x": "0", "y": round(y, 1), "width": "100%", "height": round(height, 1)}
    return element("svg", {**box, "viewBox": "0 0 1000 1000", "preserveAspectRatio": "none"}, *children)


def intervals(marks: Sequence[Mark], scale: Scale, *, zero: bool, said: str) -> Markup:
    """A dot with its whiskers per line over one common axis. `zero` draws the line of no difference."""
    ends = [number for mark in marks for number in (mark.low, mark.high, *mark.dots)]
    # a share starts at nothing; a difference needs its zero in sight; a likelihood has no natural end
    ends += [0.0] if zero or scale.percent else []
    axis = _Axis.over(min(ends), max(ends))
    height = 46.0 * len(marks)
    parts: list[Markup] = [
        text(axis.place(tick), height + 13, scale.signed(tick) if zero else scale.bare(tick), "tick", "middle")
        for tick in axis.ticks
    ]
    for number, mark in enumerate(marks):
        # lines beside the marks only, so that none runs through a label
        for tick in axis.ticks:
            kind = "zero" if zero and tick == 0 else "grid"
            parts.append(_line(axis.place(tick), 46.0 * number + 21, axis.place(tick), 46.0 * number + 41, kind))
        parts += _mark(mark, axis, 46.0 * number)
    return picture(height + 18, said, "intervals", *parts)


def _mark(mark: Mark, axis: "_Axis", y: float) -> list[Markup]:
    middle = y + 31
    line = [_line(axis.place(mark.low), middle, axis.place(mark.high), middle, "whisker")]
    line += [
        _line(axis.place(end), middle - 5, axis.place(end), middle + 5, "whisker") for end in (mark.low, mark.high)
    ]
    dots = [element("circle", {"cx": axis.place(dot), "cy": middle, "r": 2.5, "class": "seed"}) for dot in mark.dots]
    data = {"data-arm": mark.label, "data-mean": round(mark.value, 6), "data-low": round(mark.low, 6)}
    group = {**data, "data-high": round(mark.high, 6), "class": f"mark {mark.role}"}
    return [
        text("0", y + 16, _short(mark.label, 34), "name"),
        text("100%", y + 16, mark.text, "count", "end"),
        element("g", group, *line, *dots, _sign(mark, axis, middle)),
    ]


def _sign(mark: Mark, axis: "_Axis", middle: float) -> Markup:
    """Roles differ in shape as well as in colour."""
    place = axis.place(mark.value)
    if mark.role == "teacher":
        turned = element(
            "rect", {"x": -5, "y": -5, "width": 10, "height": 10, "transform": "rotate(45)", "class": "dot"}
        )
        return element("svg", {"x": place, "y": round(middle, 1), "overflow": "visible"}, turned)
    if mark.role == "control":
        square = element("rect", {"x": -5, "y": -5, "width": 10, "height": 10, "class": "dot"})
        return element("svg", {"x": place, "y": round(middle, 1), "overflow": "visible"}, square)
    return element("circle", {"cx": place, "cy": round(middle, 1), "r": 5.5, "class": "dot"})


def losses(arm: str, curves: Sequence[Curve]) -> Markup:
    """The loss of one arm: each seed a thin line, their mean a thick one, a dashed line where a phase ended."""
    height, label = 170.0, 14.0
    finite = [loss for curve in curves for loss in curve.losses if math.isfinite(loss)] or [0.0]
    up = _Axis.over(min(finite), max(finite))
    last = max((curve.steps[-1] for curve in curves), default=1.0)
    first = min((curve.steps[0] for curve in curves), default=0.0)
    span = max(last - first, 1e-9)

    def path(steps: Sequence[float], values: Sequence[float], kind: str, data: Mapping[str, Any]) -> Markup:
        points = [
            f"{1000 * (step - first) / span:.1f},{1000 * (1 - up.share(value)):.1f}"
            for step, value in zip(steps, values)
            if math.isfinite(value)
        ]
        return element("polyline", {"points": " ".join(points), "class": kind, **data})

    parts: list[Markup] = []
    names: list[Markup] = []
    for tick in up.ticks:
        y = label + height * (1 - up.share(tick))
        parts.append(_line("0", y, "100%", y, "grid"))
        names.append(text("100%", y - 3, f"{tick:g}", "tick over", "end"))
    ends = sorted({end for curve in curves for end in curve.ends})
    parts += [
        _line(
            _percent(100 * (end - first) / span), label, _percent(100 * (end - first) / span), label + height, "phase"
        )
        for end in ends
    ]
    thin = [path(c.steps, c.losses, "one", {"data-seed": c.seed, "data-points": len(c.steps)}) for c in curves[:20]]
    steps, mean = _mean_curve(curves)
    thick = path(steps, mean, "mean", {"data-arm": arm, "data-last": round(mean[-1], 6) if mean else ""})
    parts += [
        _stretched(label, height, *thin, thick),
        *names,
        text("0", label + height + 15, f"step {first:,.0f}", "tick"),
        text("100%", label + height + 15, f"{last:,.0f}", "tick", "end"),
    ]
    return picture(label + height + 20, f"Training loss of arm {arm} over {last:.0f} steps", "losses", *parts)


def _mean_curve(curves: Sequence[Curve]) -> tuple[list[float], list[float]]:
    """Over the points that every seed has."""
    common = min((len(curve.steps) for curve in curves), default=0)
    mean = [sum(curve.losses[i] for curve in curves) / len(curves) for i in range(common)]
    return (curves[0].steps[:common] if curves else []), mean


@dataclass(frozen=True, slots=True)
class _Axis:
    low: float
    high: float
    ticks: tuple[float, ...]

    @classmethod
    def over(cls, low: float, high: float) -> "_Axis":
        found = ticks(low, high)
        return cls(min(low, found[0]), max(high, found[-1]), found)

    def share(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)

    def place(self, value: float) -> str:
        return _percent(_EDGE + (100 - 2 * _EDGE) * self.share(value))


def ticks(low: float, high: float, about: int = 4) -> tuple[float, ...]:
    """Round numbers from at or below `low` to at or above `high`, zero among them where it lies between."""
    if not high - low > 1e-12:  # nothing to tell apart, and below the smallest numbers logarithms end
        room = max(abs(low), abs(high))
        room = room / 2 if room > 1e-12 else 0.5
        low, high = low - room, high + room
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * size for size in (1, 2, 2.5, 5, 10) if power * size >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(round(number * step, 12) for number in range(first, last + 1))


def _line(x1: str, y1: float, x2: str, y2: float, kind: str) -> Markup:
    return element("line", {"x1": x1, "y1": round(y1, 1), "x2": x2, "y2": round(y2, 1), "class": kind})


def _percent(number: float) -> str:
    return f"{number:.3f}".rstrip("0").rstrip(".") + "%"


def _short(words: str, most: int) -> str:
    return words if len(words) <= most else words[: most - 1] + "…"
