"""The gates: what stops a run, what the rows say at training, what is missing at publication."""

from datetime import date

import pytest
import yaml

from stillhouse.compliance.cards import model_card_section
from stillhouse.compliance.gates import (
    acknowledgments_of,
    decide,
    decide_rows,
    enforce,
    publish_gaps,
    registry_for,
)
from stillhouse.compliance.notices import notice_files
from stillhouse.compliance.recipe_plan import plan_of
from stillhouse.compliance.registry import builtin
from stillhouse.errors import RecipeError, TermsRefused, TermsUnknown

TODAY = date(2026, 11, 21)
POCKET = {"name": "main", "backend": "pocket"}
LLAMA3 = {"name": "big", "backend": "vllm", "model": "meta-llama/Meta-Llama-3-70B-Instruct"}
CLEAN = {"publish": {"secrets": 0, "pii": 0}}


def recipe(*teachers, student=None, seeds=(), **use):
    return plan_of(
        use={"purpose": "research", **use},
        teachers=list(teachers),
        seeds=list(seeds),
        student=student or {"model": "pocket"},
    )


def test_a_refusal_names_clause_source_date_and_alternatives():
    decision = decide(recipe(LLAMA3), today=TODAY)
    with pytest.raises(TermsRefused) as e:
        enforce(decision)
    said = str(e.value)
    assert e.value.exit_code == 3
    assert len(said.splitlines()) < 12
    for part in (
        "PROHIBITED_CLAUSE",
        "1.b.v",
        "read 2026-11-21",
        "https://github.com/meta-llama",
        "deepseek-ai/DeepSeek-R1",
    ):
        assert part in said


def test_unknown_blocks_and_names_the_line_that_resolves_it():
    plan = recipe({"name": "m", "backend": "transformers", "model": "models/x"})
    with pytest.raises(TermsUnknown) as e:
        enforce(decide(plan, today=TODAY))
    said = str(e.value)
    assert e.value.exit_code == 4
    assert "terms: {record: <record id or licence such as apache-2.0>}" in said
    assert f"sha256:{plan.sha256}" in said


def test_a_permit_passes():
    decided = decide(recipe(POCKET), today=TODAY)
    assert decided.verdict == "permit"
    enforce(decided)


def test_an_acknowledgment_in_the_recipe_opens_the_gate_in_research(tmp_path):
    """R20: the research acknowledgment that a run on PaLM's rationales carries."""
    plan = recipe({"name": "m", "backend": "recorded", "model": "palm-540b", "terms": {"record": "google.palm"}})
    given = {
        "type": "stillhouse-ack/v1",
        "plan_hash": f"sha256:{plan.sha256}",
        "registry": builtin().label,
        "lifts": ["TERMS_UNREAD"],
        "basis": "risk_accepted",
        "scope": {"purpose": "research"},
        "statement": "Published for research; kept inside the lab.",
        "person": "ada",
        "date": date(2026, 11, 21),
        "expires": date(2027, 5, 21),
    }
    acks = acknowledgments_of([given], tmp_path)
    enforce(decide(plan, today=TODAY, acknowledgments=acks))
    with pytest.raises(TermsUnknown, match="expired"):
        enforce(decide(plan, today=date(2027, 6, 1), acknowledgments=acks))


def test_users_records_beside_the_recipe_and_at_home_count(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    row = {
        "kind": "contract", "holder": "Acme", "title": "Our agreement", "access": ["api:acme"], "grade": "P",
        "read": "2026-11-01", "outputs_may_train": True, "evaluation": True, "source": "2026/17", "quote": "may train",
    }  # fmt: skip
    for folder, id in (
        (tmp_path / "terms.d", "acme.here"),
        (tmp_path / "home/.config/stillhouse/terms.d", "acme.home"),
    ):
        folder.mkdir(parents=True)
        (folder / "acme.yaml").write_text(yaml.safe_dump({**row, "id": id, "models": [{"match": f"{id}/*"}]}))
    registry = registry_for(tmp_path)
    assert [r.origin for r in registry.find("acme.here/m", "api:acme")] == ["user"]
    assert registry.find("acme.home/m", "api:acme")[0].outputs_may_train == "yes"


# train ------------------------------------------------------------------------------------------------------------


def test_the_train_gate_asks_the_rows_not_the_recipe():
    plan = recipe(POCKET, LLAMA3)
    assert decide(plan, today=TODAY).verdict == "refuse"
    assert decide_rows(plan, ["main"], today=TODAY).verdict == "permit"
    assert decide_rows(plan, ["main", "big"], today=TODAY).verdict == "refuse"
    assert decide_rows(plan, ["meta-llama/Meta-Llama-3-70B-Instruct"], today=TODAY).verdict == "refuse"


def test_rows_of_a_teacher_that_the_edited_recipe_no_longer_names_fail_closed():
    plan = recipe(POCKET)
    decision = decide_rows(plan, ["main", "gone"], today=TODAY)
    assert decision.verdict == "unknown"
    assert decision.reasons[0].subject == "teacher:gone"
    # an acknowledgment of the recipe's own plan does not reach them
    assert decision.plan_sha256 != plan.sha256 == decide_rows(plan, ["main"], today=TODAY).plan_sha256


def test_a_judge_stays_in_the_train_gate_though_no_row_names_it():
    judge = {**LLAMA3, "method": "judge_or_reward"}
    assert decide_rows(recipe(POCKET, judge), ["main"], today=TODAY).verdict == "refuse"


def test_two_arms_may_use_one_name_for_different_teachers():
    plan = recipe(POCKET, {**LLAMA3, "name": "main"})
    assert decide_rows(plan, ["main"], today=TODAY).verdict == "refuse"


# publish ----------------------------------------------------------------------------------------------------------


def publishing(plan, files, screening=CLEAN):
    return publish_gaps(decide(plan, today=TODAY, gate="publish", screening=screening), plan, files, builtin())


def test_the_pocket_student_is_published_with_a_screening_report_alone():
    plan = recipe(POCKET, purpose="open_release")
    assert publishing(plan, {}) == ()
    assert "SCREENING" in publishing(plan, {}, screening=None)[0]


def test_a_student_on_llama_goes_out_with_name_files_and_credits():
    use = {"purpose": "open_release", "licensee": {"mau": 0}, "student_licence": "llama3.1"}
    plan = recipe(POCKET, student={"model": "meta-llama/Llama-3.1-8B"}, student_name="us/Llama-Small", **use)
    gaps = publishing(plan, {})
    assert [gap.partition(":")[0] for gap in gaps] == ["BUILT_WITH", "NOTICE_FILE", "LICENCE_COPY"]
    decision = decide(plan, today=TODAY, gate="publish", screening=CLEAN)
    files = {
        **notice_files(decision, builtin()),
        "README.md": model_card_section(decision, plan, builtin()),
        "LICENSE": "the text of the agreement",
    }
    assert publishing(plan, files) == ()
    nameless = recipe(POCKET, student={"model": "meta-llama/Llama-3.1-8B"}, **use)
    assert any(gap.startswith("NAME_PREFIX:Llama") for gap in publishing(nameless, files))
    misnamed = recipe(POCKET, student={"model": "meta-llama/Llama-3.1-8B"}, student_name="Small", **use)
    assert any(gap.startswith("NAME_CONFLICT") for gap in publishing(misnamed, files))


def test_restrictions_have_to_be_filled_in_and_the_licence_to_carry_them():
    gemma = {"name": "g", "backend": "vllm", "model": "google/gemma-3-27b-it"}
    plan = recipe(gemma, purpose="open_release", student_licence="apache-2.0")
    decision = decide(plan, today=TODAY, gate="publish", screening=CLEAN)
    files = notice_files(decision, builtin())
    assert "FILL IN" in files["USE_RESTRICTIONS.md"]
    assert "gemma" in files["USE_RESTRICTIONS.md"]
    gaps = publishing(plan, files)
    assert any(gap.startswith("PASS_THROUGH:gemma-3.2") for gap in gaps)
    assert any(gap.startswith("LICENCE_CHOICE_CONFLICT") for gap in gaps)
    filled = {**files, "USE_RESTRICTIONS.md": files["USE_RESTRICTIONS.md"].replace("FILL IN", "3.2 You must not")}
    plan = recipe(gemma, purpose="open_release", student_licence="gemma")
    assert not any("PASS_THROUGH" in gap or "CONFLICT" in gap for gap in publishing(plan, filled))


def test_each_text_that_is_passed_on_has_a_file_and_one_licence_needs_one():
    """An Apache base and a MIT one would be two texts; two Apache bases are one."""
    use = {"purpose": "open_release", "licensee": {"mau": 0}}
    base = {"model": "Qwen/Qwen3-0.6B"}
    itself = recipe({"name": "b", "backend": "transformers", "model": "google/gemma-3-1b-it"}, student=base, **use)
    files = {"LICENSE": "Apache License", "USE_RESTRICTIONS.md": "3.2 ...", "README.md": "Changes: all"}
    (gap,) = [gap for gap in publishing(itself, files) if gap.startswith("LICENCE_COPY")]
    assert "copies of 2 texts go with it, 1 LICENSE* files are there" in gap
    assert "Gemma Terms of Use" in gap
    assert not any(gap.startswith("LICENCE_COPY") for gap in publishing(itself, {**files, "LICENSE-gemma": "Gemma"}))


def test_a_stale_record_and_undisclosed_generators_hold_publication_back():
    chat = {"name": "m", "backend": "openai", "model": "deepseek-chat", "base_url": "https://api.deepseek.com"}
    plan = recipe(chat, seeds=[{"dataset": "anchen1011/FireAct"}], distributes=["dataset"])
    gaps = publishing(plan, {"README.md": "# card"})
    assert [g.partition(":")[0] for g in gaps] == ["AI_LABEL", "LICENCE_COPY", "DISCLOSE_UPSTREAM", "STALE_NOTE"]


def test_publish_gaps_wants_a_decision_of_its_own_gate():
    plan = recipe(POCKET)
    with pytest.raises(RecipeError, match="gate publish"):
        publish_gaps(decide(plan, today=TODAY), plan, {}, builtin())
