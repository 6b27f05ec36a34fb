"""`still terms`: exit codes, one JSON object, one sentence for a mistake."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stillhouse.cli_terms import app

CASES = [json.loads(line) for line in (Path(__file__).parent / "cases.jsonl").read_text().splitlines()]
EXIT = {"permit": 0, "permit-with-obligations": 0, "refuse": 3, "unknown": 4}
ROOT = Path(__file__).parents[2]
EMPTY = '{"teachers": [], "datasets": [], "student_base": "none", "use": %s}'


@pytest.fixture(autouse=True)
def _empty_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def still_terms(*args, **more):
    return CliRunner().invoke(app, [str(a) for a in args], **more)


@pytest.fixture
def plan(tmp_path):
    def write(case):
        path = tmp_path / "plan.json"
        path.write_text(json.dumps(case))
        return path

    return write


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["id"])
def test_cases_through_the_command(case, plan):
    done = still_terms("check", plan(case), "--json")
    said = json.loads(done.stdout)
    assert (said["verdict"], done.exit_code) == (case["expected"], EXIT[case["expected"]])
    assert set(case["expected_codes"]) <= set(said["codes"])
    assert said["codes"] == sorted(set(said["codes"]))
    assert {r["code"] for r in said["reasons"]} == set(said["codes"])
    assert set(said["reasons"][0] if said["reasons"] else {}) >= (
        {"code", "class", "record", "subject", "clause", "quote", "source", "read", "text"}
        if said["reasons"]
        else set()
    )


def test_the_report_for_a_person(plan):
    done = still_terms("check", plan(next(c for c in CASES if c["id"].startswith("C14"))))
    assert done.exit_code == 4
    for part in ("not legal advice", "verdict on 2026-10-09: unknown", "STALE_RECORD", "read 2025-10-28", "ways on:"):
        assert part in done.stdout


def test_a_permit_lists_what_it_consulted(plan):
    done = still_terms("check", plan(next(c for c in CASES if c["id"].startswith("C19"))))
    assert done.exit_code == 0
    assert "records consulted: data.gsm8k, data.oasst2, deepseek.r1.mit, qwen.qwen3.apache" in done.stdout


def test_standard_input_and_the_day_it_is_run_on():
    text = json.dumps({"teachers": [], "datasets": [], "student_base": "none", "use": {"purpose": "research"}})
    done = still_terms("check", "-", "--json", input=text)
    assert done.exit_code == 0
    assert len(json.loads(done.stdout)["as_of"]) == 10


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "one object"),
        ('{"teachers": [], "datasets": [], "student_base": "none"}', "use: missing"),
        (EMPTY % '{"purpose": "research", "student_licence": "MIT OR"}', "licence"),
    ],
)
def test_unreadable_plans_exit_2_without_json(text, said):
    done = still_terms("check", "-", "--json", input=text)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_odd_characters_in_a_plan_neither_break_nor_move_the_output():
    teacher = '[{"model": "a%s", "access": "weights"}]'
    text = EMPTY.replace("[]", teacher % "\\u001b[2J", 1) % '{"purpose": "research"}'
    done = still_terms("check", "-", input=text)
    assert done.exit_code == 4
    assert "\x1b" not in done.stdout
    assert json.loads(still_terms("check", "-", "--json", input=text).stdout)["codes"] == ["NO_RECORD"]
    broken = still_terms("check", "-", input=text.replace("\\u001b", "\\ud800"))
    assert broken.exit_code == 2
    assert "teachers.0.model" in broken.stderr


def test_missing_files_exit_2(tmp_path, plan):
    assert still_terms("check", tmp_path / "no.json").exit_code == 2
    case = plan(CASES[0])
    assert still_terms("check", case, "--registry", tmp_path / "no.yaml").exit_code == 2
    assert still_terms("check", case, "--ack", tmp_path / "no.json").exit_code == 2


def test_a_registry_from_the_future_exits_2(tmp_path, plan):
    ahead = tmp_path / "ahead.yaml"
    ahead.write_text("schema: stillhouse.terms/1\nversion: '2099.01'\ncompiled: '2099-01-01'\nrecords: []\n")
    done = still_terms("check", plan(CASES[0]), "--registry", ahead, "--json")
    assert done.exit_code == 2
    assert "after today" in done.stderr
    assert done.stdout == ""


def test_another_registry_is_used(tmp_path, plan):
    text = (ROOT / "src/stillhouse/compliance/terms.yaml").read_text()
    (tmp_path / "r.yaml").write_text(text.replace("version: '2026.11'", "version: '2026.11b'"))
    done = still_terms("check", plan(CASES[0]), "--registry", tmp_path / "r.yaml", "--json")
    assert json.loads(done.stdout)["registry"]["version"] == "2026.11b"


def test_an_acknowledgment_that_does_not_hold_changes_nothing_and_says_so(tmp_path, plan):
    case = next(c for c in CASES if c["id"].startswith("C21"))
    path = plan(case)
    ack = {
        "type": "stillhouse-ack/v1", "plan_hash": "sha256:" + "0" * 64, "registry": "r", "lifts": ["NO_RECORD"],
        "basis": "risk_accepted", "scope": {"purpose": "research"}, "statement": "s", "person": "p",
        "date": "2026-10-01", "expires": "2099-01-01",
    }  # fmt: skip
    file = tmp_path / "ack.json"
    file.write_text(json.dumps(ack))
    done = still_terms("check", path, "--ack", file, "--json")
    assert done.exit_code == 4
    assert "another plan" in done.stderr
    ack["plan_hash"] = "sha256:" + json.loads(done.stdout)["plan_sha256"]
    file.write_text(json.dumps(ack))
    done = still_terms("check", path, "--ack", file, "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["overrides"][0]["lifted"] == ["NO_RECORD"]


def test_list_and_show():
    rows = json.loads(still_terms("list", "--json").stdout)
    assert len(rows) == 131
    assert {"id", "outputs_may_train", "grade", "read", "past_review"} <= set(rows[0])
    assert "meta.llama3@2024-04-18" in still_terms("list").stdout
    shown = still_terms("show", "meta.llama3@2024-04-18")
    assert shown.exit_code == 0
    assert "improve any other large language model" in shown.stdout
    by_model = json.loads(still_terms("show", "openai/gsm8k", "--json").stdout)
    assert [r["id"] for r in by_model] == ["data.gsm8k"]
    wrong = still_terms("show", "meta.lama3")
    assert wrong.exit_code == 2
    assert "did you mean" in wrong.stderr


def test_taint(tmp_path):
    step = tmp_path / "run/knowledge/b/01-ask"
    step.mkdir(parents=True)
    (step / "out.jsonl").write_text(
        '{"id": "x", "origin": {"parents": [], "teacher": "main", "keys": [], "step": "s"}}\n'
    )
    done = still_terms("taint", tmp_path / "run", "--teacher", "main", "--json")
    assert json.loads(done.stdout)["steps"] == [{"step": "b/01-ask", "rows": 1, "of": 1, "ids": ["x"]}]
    assert "b/01-ask: 1 of 1 rows" in still_terms("taint", tmp_path / "run", "--teacher", "main").stdout
    assert still_terms("taint", tmp_path / "run", "--teacher", "other").exit_code == 2


def test_help_loads_neither_records_nor_yaml():
    heavy = "('yaml', 'pydantic', 'stillhouse.compliance.registry')"
    code = f"import sys, stillhouse.cli_terms; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_plan_with_a_byte_order_mark_is_read_and_one_with_a_key_twice_is_not(tmp_path: Path) -> None:
    good = b'{"teachers": [], "datasets": [], "student_base": "none", "use": {"purpose": "research"}}'
    plan = tmp_path / "plan.json"
    plan.write_bytes(b"\xef\xbb\xbf" + good)
    assert CliRunner().invoke(app, ["check", str(plan), "--json"]).exit_code == 0
    plan.write_bytes(good.replace(b'"none"', b'"no/such", "student_base": "none"'))
    told = CliRunner().invoke(app, ["check", str(plan), "--json"])
    assert told.exit_code == 2
    assert "'student_base' is written twice" in told.stderr
    plan.write_bytes(b"[" * 100_000)
    assert CliRunner().invoke(app, ["check", str(plan)]).exit_code == 2
