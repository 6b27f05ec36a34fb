"""The guide's plans have the verdicts that the guide says."""

import json
import re
from pathlib import Path

import yaml

from stillhouse.compliance.acknowledge import from_mapping
from stillhouse.compliance.decision import NOTICE
from stillhouse.compliance.evaluate import evaluate
from stillhouse.compliance.plan import parse_plan
from stillhouse.compliance.recipe_plan import plan_of
from stillhouse.compliance.registry import builtin, user_record
from stillhouse.recipe import ScreeningEntry

GUIDE = (Path(__file__).parents[2] / "docs/guides/terms.md").read_text(encoding="utf-8")


def blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", GUIDE, re.DOTALL)


def test_four_plans_four_verdicts():
    plans = [json.loads(b) for b in blocks("json") if '"teachers"' in b]
    said = re.findall(r"Verdict on 2026-11-21: \*\*([a-z-]+)\*\*", GUIDE)
    assert said == ["permit", "permit-with-obligations", "unknown", "refuse"]
    decisions = [evaluate(parse_plan(plan), builtin()) for plan in plans]
    assert [d.verdict for d in decisions] == said
    assert decisions[1].codes == ("AUP", "LICENCE_COPY", "NAME_PREFIX:Llama", "STATE_CHANGES")
    assert "STALE_RECORD" in decisions[2].codes
    earlier = {**plans[2], "use": {**plans[2]["use"], "as_of": "2026-11-20"}}
    assert evaluate(parse_plan(earlier), builtin()).verdict == "permit-with-obligations"


def test_the_guide_shows_what_the_program_prints(monkeypatch, tmp_path):
    from typer.testing import CliRunner

    from stillhouse.cli_terms import app

    monkeypatch.setenv("HOME", str(tmp_path))  # nobody's own records
    monkeypatch.chdir(tmp_path)
    plans, printed = [b for b in blocks("json") if '"teachers"' in b], blocks("text")
    assert len(plans) == len(printed) == 4
    for plan, shown, code in zip(plans, printed, (0, 0, 4, 3), strict=True):
        done = CliRunner().invoke(app, ["check", "-"], input=plan)
        assert done.exit_code == code
        notice, _, rest = done.stdout.partition("\n\n")
        assert notice == NOTICE
        assert rest.strip("\n") == shown.strip("\n")


def test_the_figure_about_stale_contracts():
    dated = [r for r in builtin().records if r.kind in ("contract", "host") and r.review_by]
    past = [r for r in dated if str(r.review_by) < "2026-11-21"]
    assert (len(past), len(dated)) == (19, 20)


def test_the_guides_recipe_record_and_acknowledgment_are_well_formed():
    recipe, record, screening = (yaml.safe_load(b) for b in blocks("yaml"))
    assert ScreeningEntry.model_validate(screening["screening"]).egress == "drop"
    teachers = [{"name": name, **spec} for name, spec in recipe["teachers"].items()]
    use = {**recipe["use"], "competes": "no"}  # a recipe's YAML reads `no` as a word
    plan = plan_of(
        use=use, teachers=teachers, seeds=[recipe["knowledge"]["sums"]["seeds"]], student={"model": "pocket"}
    )
    assert plan.teachers[2].model == "openai/gpt-5.1"
    assert user_record(record, "guide").outputs_may_train == "yes"
    (ack,) = [b for b in blocks("json") if "stillhouse-ack" in b]
    assert from_mapping(json.loads(ack.replace("<from the message>", "0" * 64)), "guide").basis == "legal_review"


def test_every_code_of_the_guide_exists():
    from stillhouse.compliance.decision import CODES

    named = {code.partition(":")[0] for code in re.findall(r"`([A-Z][A-Z_]+(?::[^`]*)?)`", GUIDE)} - {"A OR B", "RUN"}
    assert {code for code in named if "_" in code} <= set(CODES)
