"""Pictures: places and widths by hand, text escaped, round ticks for every range."""

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.reporting.plots import Mark, flow, intervals, losses, ticks
from stillhouse.reporting.reading import Branch, Curve
from stillhouse.reporting.verdict import Scale

from . import folders

SCORE = Scale("qa", True, True)
numbers = st.floats(-1e6, 1e6, allow_nan=False)


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)


def percent(text: str | None) -> float:
    return float((text or "").rstrip("%"))


@given(numbers, numbers)
def test_ticks_are_round_rise_and_cover_the_range(one: float, other: float) -> None:
    low, high = sorted((one, other))
    found = ticks(low, high)
    slack = 1e-6 * max(abs(low), abs(high), 1)
    assert 2 <= len(found) <= 9
    assert found[0] <= low + slack
    assert found[-1] >= high - slack
    steps = [b - a for a, b in pairwise(found)]
    assert max(steps) - min(steps) <= 1e-6 * max(steps[0], 1)
    if low < 0 < high:
        assert any(abs(tick) <= 1e-9 * max(steps[0], 1) for tick in found)


def test_ticks_by_hand() -> None:
    assert ticks(0, 0.86) == (0, 0.25, 0.5, 0.75, 1.0)
    assert ticks(-0.013, 0.03) == (-0.02, 0, 0.02, 0.04)
    assert ticks(0.5, 0.5)[0] < 0.5 < ticks(0.5, 0.5)[-1]


def test_the_flow_has_a_bar_for_what_is_kept_and_for_each_reason() -> None:
    branch = Branch("answers", [s for s in folders.manifest()["steps"] if s["branch"] == "answers"])
    root = parsed(flow(branch))
    kept = {bar.get("data-step"): bar for bar in root.iter("rect") if bar.get("data-step")}
    assert {step: int(bar.get("data-kept", "")) for step, bar in kept.items()} == {
        "00-hub": 1000, "01-labeling.reason": 960, "02-quality.correct": 700,
    }  # fmt: skip
    assert percent(kept["02-quality.correct"].get("width")) == 70.0
    gone = {bar.get("data-reason"): bar for bar in root.iter("rect") if bar.get("data-reason")}
    assert {reason: int(bar.get("data-rows", "")) for reason, bar in gone.items()} == {
        "truncated": 30, "refused": 10, "different": 200, "unparsable": 60,
    }  # fmt: skip
    assert percent(gone["different"].get("x")) == 70.0, "the lost lie right of the kept"
    assert percent(gone["unparsable"].get("x")) == 90.0
    assert percent(gone["unparsable"].get("width")) == 6.0


def test_several_samples_widen_the_flow_and_no_rows_do_not_break_it() -> None:
    steps = [
        folders.step("b", 0, "file", "seeds", 10, {}),
        folders.step("b", 1, "x", "elicit", 35, {"empty": 5}, teacher=True),
    ]
    bars = {bar.get("data-step"): bar for bar in parsed(flow(Branch("b", steps))).iter("rect")}
    assert percent(bars["00-file"].get("width")) == 25.0
    assert percent(bars["01-x"].get("width")) == 87.5
    assert "0%" in flow(Branch("b", [folders.step("b", 0, "file", "seeds", 0, {})]))


def test_an_interval_plot_places_dots_and_whiskers_on_one_axis() -> None:
    marks = [Mark("text", "better", 0.2, 0.1, 0.3, "+20.0"), Mark("base", "worse", -0.2, -0.3, -0.1, "−20.0")]
    root = parsed(intervals(marks, SCORE, zero=True, said="differences"))
    groups = [group for group in root.iter("g") if group.get("data-arm")]
    assert [group.get("data-mean") for group in groups] == ["0.2", "-0.2"]
    assert [(group.get("data-low"), group.get("data-high")) for group in groups] == [("0.1", "0.3"), ("-0.3", "-0.1")]
    dots = [percent(dot.get("cx")) for dot in root.iter("circle") if dot.get("class") == "dot"]
    zero = [line for line in root.iter("line") if line.get("class") == "zero"]
    assert len(zero) == 2, "one beside each mark"
    middle = percent(zero[0].get("x1"))
    assert dots[0] - middle == pytest.approx(middle - dots[1], abs=0.01)
    whisker = next(line for line in groups[0].iter("line"))
    assert percent(whisker.get("x1")) < dots[0] < percent(whisker.get("x2"))


def test_roles_differ_in_shape_not_only_in_colour() -> None:
    def shape(role: str) -> str:
        svg = intervals([Mark("x", role, 0.5, 0.4, 0.6, "")], SCORE, zero=False, said="")
        return re.sub(r' class="mark \w+"', "", svg)

    shapes = [shape(role) for role in ("taught", "control", "teacher")]
    assert len(set(shapes)) == 3


def test_curves_run_over_the_whole_width_and_their_mean_is_thick() -> None:
    curves = [Curve("text", seed, [1, 2, 3], [4 + seed, 2 + seed, 1 + seed], (2,)) for seed in (0, 1)]
    root = parsed(losses("text", curves))
    thick = next(line for line in root.iter("polyline") if line.get("class") == "mean")
    assert thick.get("data-last") == "1.5"
    points = [tuple(map(float, pair.split(","))) for pair in (thick.get("points") or "").split()]
    assert [x for x, _ in points] == [0.0, 500.0, 1000.0]
    assert points[0][1] < points[1][1] < points[2][1], "a falling loss goes down the page"
    assert len([line for line in root.iter("polyline") if line.get("class") == "one"]) == 2
    assert [line.get("x1") for line in root.iter("line") if line.get("class") == "phase"] == ["50%"]


def test_names_from_outside_stay_text_in_a_picture() -> None:
    branch = Branch("b", [folders.step("b", 0, "<b>&", "seeds", 3, {'"><script>': 1})])
    svg = flow(branch)
    assert "<script" not in svg
    assert "<b>" not in svg
    mark = Mark('</svg><script>"', "taught", 0.5, 0.4, 0.6, "<i>")
    svg = intervals([mark], SCORE, zero=False, said='"<')
    assert "<script" not in svg
    assert parsed(svg).get("aria-label") == '"<'
