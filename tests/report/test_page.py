"""The page as text: whole, offline, small, the same every time, and untouched by what models and users wrote."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from stillhouse.errors import RecipeError
from stillhouse.report import write_report
from stillhouse.reporting.pages import shortened
from stillhouse.reporting.reading import answered_alike, loss_curves

from . import folders

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Reader(HTMLParser):
    """Collects elements and text; complains about elements that are closed in the wrong order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.wrong: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def page_of(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_asks_for_nothing(run_folder: Path) -> None:
    read = Reader(page_of(run_folder))
    assert read.wrong == []
    assert read.open == []
    assert not {tag for tag, _ in read.elements} & {"script", "img", "iframe", "object", "embed", "form"}
    named = {
        value
        for _, attrs in read.elements
        for key in ("src", "href", "xlink:href", "action")
        if (value := attrs.get(key))
    }
    assert {value for value in named if not value.startswith("#")} == {"data:,"}
    style = next(text for text in read.texts if "prefers-color-scheme" in text)
    assert "url(" not in style
    assert "@import" not in style
    assert "@media print" in style
    policy = next(
        attrs["content"] for _, attrs in read.elements if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert (policy or "").startswith("default-src 'none'")


def test_hostile_text_is_shown_not_run(run_folder: Path) -> None:
    """Answers, questions, arm and reason names, stop messages: all of it may be markup, templates or control characters."""
    made = folders.manifest(state="failed", stopped_by=folders.HOSTILE, command=folders.HOSTILE)
    made["steps"][2]["lost"] = {folders.HOSTILE: 30, "refused": 10}
    made["use"]["purpose"] = folders.HOSTILE
    made["terms"] = {
        "verdict": "permit",
        "lines": [folders.HOSTILE],
        "decision": {"as_of": "2026-11-21", "notice": "n"},
    }
    folders.write(run_folder / "manifest.json", made)
    page = page_of(run_folder)
    read = Reader(page)
    assert read.wrong == []
    assert not {tag for tag, _ in read.elements} & {"script", "img"}
    assert not [key for _, attrs in read.elements for key in attrs if key.startswith("on")]
    shown = "".join(read.texts)
    assert '</script><script>alert(1)</script><img src=x onerror="alert(2)"> & “quotes” {{ 7 * 7 }}' in shown
    assert "beliefs says" in shown
    assert not set(page) & {chr(code) for code in range(32) if code not in (9, 10, 13)}


def test_lone_surrogates_do_not_stop_the_report(run_folder: Path) -> None:
    path = run_folder / "evaluate" / "qa" / "base.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    folders.write_rows(path, [{**row, "response": "half \ud83d"} for row in rows])
    assert "half \ufffd" in page_of(run_folder)


def test_the_page_is_the_same_every_time_and_small(run_folder: Path) -> None:
    first = page_of(run_folder)
    assert page_of(run_folder) == first
    assert len(first.encode()) < 200_000


def test_big_runs_stay_small(tmp_path: Path) -> None:
    """10^6 rows are counted from stamps; long curves and long answers are cut."""
    steps = [
        folders.step("big", 0, "file", "seeds", 1_000_000, {}),
        folders.step("big", 1, "q", "select", 400_000, {"x": 600_000}),
    ]
    run = folders.run_folder(tmp_path, steps=steps)
    rows = [{"arm": "text", "seed": 0, "phase": 0, "step": n, "loss": 1 / n} for n in range(1, 20_001)]
    folders.write_rows(run / "metrics.jsonl", rows)
    path = run / "evaluate" / "qa" / "beliefs-1.jsonl"
    told = [json.loads(line) for line in path.read_text().splitlines()]
    folders.write_rows(path, [{**row, "response": "long " * 100_000} for row in told])
    page = page_of(run)
    assert len(page.encode()) < 200_000
    assert "1,000,000 seeds, 400,000 kept" in page
    assert "more characters)" in page


def test_curves_are_thinned_by_averages_and_phases_follow_each_other(run_folder: Path) -> None:
    rows = [
        {"arm": "text", "seed": 0, "phase": phase, "step": n, "loss": float(n)}
        for phase in (0, 1)
        for n in range(1, 121)
    ]
    folders.write_rows(run_folder / "metrics.jsonl", [*rows, {"arm": "text", "seed": 0, "step": 3, "eval": 1}])
    (curve,) = loss_curves(run_folder)
    assert len(curve.steps) == 120
    assert curve.steps[:2] == [1.5, 3.5]
    assert curve.losses[:2] == [1.5, 3.5]
    assert curve.steps[60] == 121.5, "the second phase goes on where the first ended"
    assert curve.losses[60] == 1.5
    assert curve.ends == (120.0,)


def test_answers_are_taken_from_every_kind_in_turn(run_folder: Path) -> None:
    found, counts = answered_alike(run_folder, "qa", ["base", "beliefs-1"], "beliefs-1")
    # of 40 items those not divisible by 5 count; base is right on multiples of 7, the student on multiples of 2
    counted = [i for i in range(40) if i % 5]
    kinds = [(i % 7 == 0, i % 2 == 0) for i in counted]
    assert counts == {
        "gained": kinds.count((False, True)), "lost": kinds.count((True, False)),
        "both right": kinds.count((True, True)), "both wrong": kinds.count((False, False)),
    }  # fmt: skip
    taken = [each.group for each in found]
    assert len(found) == 10
    assert {kind: taken.count(kind) for kind in counts} == {"gained": 3, "lost": 2, "both right": 2, "both wrong": 3}
    assert all(set(each.answers) == {"base", "beliefs-1"} for each in found)
    assert len({each.item for each in found}) == 10
    again, _ = answered_alike(run_folder, "qa", ["base", "beliefs-1"], "beliefs-1")
    assert [each.item for each in again] == [each.item for each in found]


def test_the_page_tells_rows_costs_tokens_and_how_to_run_again(run_folder: Path) -> None:
    shown = " ".join("".join(Reader(page_of(run_folder)).texts).split())
    for said in (
        "still run arithmetic.yaml", "1x H200", "torch 2.13.0", "Terms check: not checked", "research; hands out weights",
        "$1.31 (answers from the store once cost $1.25)", "30 truncated, 10 refused", "equally many tokens",
        "openai example-large",
        # 1.31 and 2.56 dollars over 1000 + 700 + 960 kept rows
        "Per kept example: $0.00049 spent in this run, $0.00096 counting what its stored answers once cost",
    ):  # fmt: skip
        assert said in shown


def test_the_page_and_the_card_tell_what_was_lost_and_where_teachers_were_compared(run_folder: Path) -> None:
    gate = {"task": "qa", "arm": "text", "may_lose": 0.1, "change": -0.2, "low": -0.3, "high": -0.1, "state": "lost"}
    unclear = gate | {"arm": "beliefs", "low": -0.5, "high": 0.1, "state": "unclear"}
    told = folders.scores(gates=[gate, unclear], final={"arm": "text", "seed": 0})
    folders.write(run_folder / "evaluate" / "scores.json", told)
    told = folders.manifest()
    for number, each in enumerate(told["students"]):
        each["phases"][0]["coverage"] = {"big": 0.9 + 0.05 * (number // 3)}
    folders.write(run_folder / "manifest.json", told)
    shown = " ".join("".join(Reader(page_of(run_folder)).texts).split())
    card = (run_folder / "student" / "README.md").read_text()
    for page in (shown, card):
        assert "lost more than allowed" in page
        assert "92.5" in page  # the mean of the seeds' 90 and 95 per cent
    assert "lost more, which may be chance" in shown
    assert "lost more, which may be chance" not in card  # it speaks of the final student


def test_the_verdict_of_the_terms_is_shown_with_its_notice(run_folder: Path) -> None:
    decision = {"as_of": "2026-11-21", "notice": "This is an automated reading."}
    lines = ["This is an automated reading.", "", "verdict on 2026-11-21: permit", "  obligation: AUP: keep to it"]
    made = folders.manifest(terms={"verdict": "permit-with-obligations", "lines": lines, "decision": decision})
    folders.write(run_folder / "manifest.json", made)
    shown = "".join(Reader(page_of(run_folder)).texts)
    assert "Terms check: permit-with-obligations" in shown
    assert "obligation: AUP: keep to it" in shown
    assert shown.count("This is an automated reading.") == 1


@pytest.mark.parametrize("missing", ["evaluate", "metrics.jsonl", "recipe.yaml", "student"])
def test_a_run_without_a_part_gets_a_report(run_folder: Path, missing: str) -> None:
    import shutil

    path = run_folder / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    read = Reader(page_of(run_folder))
    assert read.wrong == []
    assert "Did distilling help?" in read.texts


def bare(**changes: Any) -> dict[str, Any]:
    """The manifest of a run that has only just begun."""
    return folders.manifest(steps=[], students=[], calls={}, seconds={}, **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"state": "interrupted", "stopped_by": "KeyboardInterrupt"}, "was interrupted before"),
        ({"state": "failed", "stopped_by": "the disk is full"}, "the disk is full"),
        ({"state": "running"}, "This run is not finished (running)"),
        ({"use": None, "commit": None, "hardware": None, "command": ""}, "not recorded"),
    ],
)
def test_a_run_that_stopped_at_its_start_gets_a_report(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    folders.write(tmp_path / "manifest.json", bare(**changes))
    read = Reader(page_of(tmp_path))
    assert read.wrong == []
    assert said in " ".join("".join(read.texts).split())


def test_a_log_cut_short_by_a_kill_is_read_up_to_there(run_folder: Path) -> None:
    path = run_folder / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    assert len(loss_curves(run_folder)) == 6


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is this a run folder"):
        write_report(tmp_path)


def test_long_text_says_how_much_is_missing() -> None:
    assert shortened("abc", 3) == "abc"
    assert shortened("abcde", 3) == "abc … (2 more characters)"
