"""Text that large teachers really wrote, with the licence files that came with it: the verdicts follow from those."""

import json
import os
from datetime import date
from pathlib import Path

import pytest

from stillhouse.compliance.gates import acknowledgments_of, decide
from stillhouse.compliance.recipe_plan import plan_of
from stillhouse.compliance.registry import builtin
from stillhouse.compliance.screening import scan

TODAY = date(2026, 11, 21)
DATA = os.environ.get("STILLHOUSE_TEST_DATA")
pytestmark = pytest.mark.skipif(
    not DATA, reason="STILLHOUSE_TEST_DATA is not set: real texts and their licences are not here"
)


def words(path):
    return " ".join((Path(DATA) / path).read_text(encoding="utf-8").split())


@pytest.mark.parametrize(
    ("id", "licence_file"),
    [
        ("data.pubmedqa", "medical/LICENSE"),
        ("karpathy.tinyllamas.mit", "stories260K/LICENSE"),
        ("data.commonsenseqa", "step-by-step/LICENSE"),
    ],
)
def test_the_quotation_is_in_the_file_that_came_with_the_data(id, licence_file):
    assert builtin().by_id[id].quote in words(licence_file)


def recorded(model, file, seeds, **more):
    """A run on answers on file, in research, kept inside."""
    assert (Path(DATA) / file).is_file()
    assert (Path(DATA) / seeds[0]).is_file()
    teacher = {"name": "author", "backend": "recorded", "path": file, "model": model, **more}
    rows = [{"path": seeds[0], "terms": {"record": seeds[1]}}]
    return plan_of(
        use={"purpose": "research", "distributes": []}, teachers=[teacher], seeds=rows, student={"model": "pocket"}
    )


def test_palm_rationales_need_a_persons_acceptance_even_in_research():
    """R20: nobody read the terms under which PaLM's text was obtained."""
    plan = recorded(
        "palm-540b",
        "step-by-step/svamp/llm/train_CoT_0.json",
        ("step-by-step/svamp/svamp_train.json", "data.svamp"),
        terms={"record": "google.palm"},
    )
    assert decide(plan, today=TODAY).verdict == "unknown"
    accepted = {
        "type": "stillhouse-ack/v1",
        "plan_hash": f"sha256:{plan.sha256}",
        "registry": builtin().label,
        "lifts": ["TERMS_UNREAD"],
        "basis": "risk_accepted",
        "scope": {"purpose": "research"},
        "statement": "Published with a paper; used in a test and given to nobody.",
        "person": "the test",
        "date": "2026-11-21",
        "expires": "2027-05-21",
    }
    decision = decide(plan, today=TODAY, acknowledgments=acknowledgments_of([accepted], Path()))
    assert decision.verdict == "permit"
    assert decision.overrides[0].lifted == ("TERMS_UNREAD",)


def test_llama_3_rationales_are_refused_for_another_family():
    """R20: 1.b.v of the April 2024 licence; the apache tag of the repository they lie in does not change whose they are."""
    plan = recorded(
        "meta-llama/Meta-Llama-3-8B-Instruct",
        "step-by-step/llama3/svamp_train_llama3.json",
        ("step-by-step/svamp/svamp_train.json", "data.svamp"),
        terms={"record": "apache-2.0"},
    )
    decision = decide(plan, today=TODAY)
    assert decision.verdict == "refuse"
    assert "PROHIBITED_CLAUSE" in decision.codes


def test_gpt_4_trajectories_as_a_data_set_are_disclosed_and_as_a_teacher_unsettled():
    """R50: somebody else's published rows, against answers asked for oneself."""
    rows = [{"path": "agents/multitask_multimethod.json", "terms": {"record": "data.fireact"}}]
    use = {"purpose": "research", "distributes": []}
    published = plan_of(use=use, teachers=[], seeds=rows, student={"model": "pocket"})
    assert decide(published, today=TODAY).codes == ("DISCLOSE_UPSTREAM",)
    asked = {"name": "t", "backend": "recorded", "model": "gpt-4", "terms": {"access": "api:openai"}}
    own = plan_of(use=use, teachers=[asked], seeds=[], student={"model": "pocket"})
    assert decide(own, today=TODAY).verdict == "unknown"


def test_word_problems_raise_no_alarm():
    rows = (Path(DATA) / "gsm8k/train.jsonl").read_text(encoding="utf-8").splitlines()[:500]
    assert [f.rule for row in rows for f in scan(json.loads(row)["question"])] == []


@pytest.mark.parametrize(
    ("record", "file", "research", "released"),
    [
        # human labels over answers of models whose own licences speak: Bloom's restrictions travel, LLaMA's stay unsettled
        ("data.pandalm-test", "preference/testset-v1.json", {"DISCLOSE_UPSTREAM", "FIELD_OF_USE"}, "unknown"),
        ("data.pubmedqa", "medical/ori_pqal.json", set(), "permit"),  # MIT, written by people
        ("data.commonsenseqa", "step-by-step/cqa/cqa_train.json", {"CONFIRM_SOURCE"}, "unknown"),  # known second-hand
        ("data.svamp", "step-by-step/svamp/svamp_train.json", set(), "permit"),  # two readings, both of which allow it
        ("data.fireact", "agents/multitask_multimethod.json", {"DISCLOSE_UPSTREAM"}, "unknown"),  # GPT-4 wrote it
    ],
)
def test_data_sets_follow_their_facts(record, file, research, released):
    assert (Path(DATA) / file).is_file()

    def decided(purpose):
        rows = [{"path": file, "terms": {"record": record}}]
        return decide(
            plan_of(use={"purpose": purpose}, teachers=[], seeds=rows, student={"model": "pocket"}), today=TODAY
        )

    assert set(decided("research").codes) == research
    assert decided("open_release").verdict == released


@pytest.mark.parametrize("purpose", ["research", "commercial_product", "open_release"])
def test_the_smallest_real_llama_may_teach(purpose):
    """MIT, by the file beside its weights."""
    folder = Path(DATA) / "stories260K/hf"
    assert (folder / "model.safetensors").is_file()
    teacher = {
        "name": "t",
        "backend": "transformers",
        "model": str(folder),
        "terms": {"record": "karpathy.tinyllamas.mit"},
    }
    plan = plan_of(use={"purpose": purpose}, teachers=[teacher], seeds=[], student={"model": "pocket"})
    assert decide(plan, today=TODAY).codes == ()
