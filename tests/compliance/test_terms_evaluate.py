"""The decision, rule by rule; the acceptance cases; and what the rules say about real text of large teachers."""

import json
from datetime import date
from pathlib import Path

import pytest

from stillhouse.compliance.decision import CODES, class_of, verdict_of
from stillhouse.compliance.evaluate import evaluate
from stillhouse.compliance.plan import parse_plan
from stillhouse.compliance.registry import builtin, user_record
from stillhouse.errors import RecipeError

CASES = [json.loads(line) for line in (Path(__file__).parent / "cases.jsonl").read_text().splitlines()]
FRESH = "2026-10-09"  # before the contracts of August are due for review
APACHE, OLMO = "Qwen/Qwen3-8B-Base", "allenai/OLMo-2-1124-7B"
OWN = {"holder": "us", "basis": "trained_in_house", "declared_by": "us", "date": "2026-11-01", "built_on": []}


def decide(*teachers, data=(), base=APACHE, registry=None, **use):
    use = {"purpose": "research", "as_of": FRESH, **use}
    rows = [t if isinstance(t, dict) else dict(zip(("model", "access"), t)) for t in teachers]
    plan = {"teachers": rows, "datasets": list(data), "student_base": base, "use": use}
    return evaluate(parse_plan(plan), registry or builtin())


def weights(model, **more):
    return {"model": model, "access": "weights", **more}


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["id"])
def test_acceptance(case):
    decision = evaluate(parse_plan(case), builtin())
    assert decision.verdict == case["expected"]
    assert set(case["expected_codes"]) <= set(decision.codes)


# R1 to R4 ---------------------------------------------------------------------------------------------------------


def test_r1_no_record_is_an_evidence_gap_for_each_kind_of_edge():
    decision = decide(weights("acme/m"), data=["acme/d"], base="acme/b")
    assert decision.verdict == "unknown"
    assert decision.codes == ("NO_RECORD", "NO_RECORD:dataset", "NO_RECORD:student_base")


def test_r1_own_rights_are_believed_recorded_and_followed_to_what_they_were_built_on():
    """A model of one's own built on Llama 3 is still under Llama 3; a made-up list of nothing is not."""
    assert decide(weights("our/m", own_rights=OWN)).codes == ("OWN_RIGHTS_DECLARED",)
    built = {**OWN, "built_on": ["meta-llama/Meta-Llama-3-8B"]}
    assert "PROHIBITED_CLAUSE" in decide(weights("our/m", own_rights=built)).codes
    built = {**OWN, "built_on": ["tatsu-lab/alpaca"]}
    assert "NC_VS_USE" in decide(weights("our/m", own_rights=built), purpose="commercial_product").codes
    half = {k: v for k, v in OWN.items() if k != "date"}
    assert decide(weights("our/m", own_rights=half)).verdict == "unknown"


def test_r1_own_rights_do_not_displace_a_record():
    assert "PROHIBITED_CLAUSE" in decide(weights("meta-llama/Meta-Llama-3-8B", own_rights=OWN)).codes


def test_r2_unread_terms_say_nothing_else():
    decision = decide(weights("HuggingFaceTB/SmolLM2-1.7B"))
    assert decision.codes == ("TERMS_UNREAD",)
    assert decision.reasons[0].source == "https://huggingface.co/HuggingFaceTB"
    assert decision.reasons[0].read == "not read"


def test_r3_a_stale_yes_decays_outward_and_is_a_note_otherwise():
    teacher = ("deepseek/deepseek-chat", "api:deepseek")
    assert "STALE_NOTE" not in decide(teacher, as_of="2026-11-20").codes
    assert decide(teacher, as_of="2026-11-21").codes == ("LAWFUL_USE", "STALE_NOTE")
    assert decide(teacher, as_of="2026-11-21", purpose="open_release").verdict == "unknown"


def test_r3_a_stale_refusal_stays_one():
    old = decide(("xai/grok", "api:xai"), as_of="2030-01-01", purpose="commercial_product")
    assert old.verdict == "refuse"
    assert "STALE_RECORD" in old.codes


def test_r4_a_secondary_source_warns_and_never_carries_an_outward_use():
    mixtral = weights("mistralai/Mixtral-8x7B-Instruct-v0.1")
    assert decide(mixtral).codes == ("CONFIRM_SOURCE",)
    assert decide(mixtral, purpose="internal").verdict == "permit-with-obligations"
    assert decide(mixtral, purpose="commercial_product").verdict == "unknown"


# R5 hosts ---------------------------------------------------------------------------------------------------------


def test_r5_an_aggregator_without_a_pinned_route_is_unknown():
    host = {"model": "deepseek-ai/DeepSeek-R1", "access": "api:openrouter"}
    assert "ROUTE_UNPINNED" in decide(host).codes
    pinned = decide({**host, "routed_to": "together"})
    assert pinned.verdict == "permit"
    assert pinned.codes == ("FLOW_DOWN",)


def test_r5_a_host_of_weights_passes_their_licence_on():
    host = {"model": "meta-llama/Meta-Llama-3-70B-Instruct", "access": "api:together"}
    assert {"FLOW_DOWN", "PROHIBITED_CLAUSE"} <= set(decide(host).codes)


def test_r5_a_host_that_bars_it_refuses_whatever_the_model_says():
    host = {"model": "deepseek-ai/DeepSeek-R1", "access": "api:perplexity", "routed_to": "together"}
    assert decide(host).verdict == "refuse"
    assert "PROHIBITED_CLAUSE" not in decide({**host, "method": "evaluate_only"}).codes


def test_r5_an_unread_host_is_unknown_even_with_a_known_model():
    assert decide({"model": "deepseek-ai/DeepSeek-R1", "access": "api:groq"}).codes == ("FLOW_DOWN", "TERMS_UNREAD")


# R6 limits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("use", "code"),
    [
        ({"purpose": "research"}, "NONCOMMERCIAL"),
        ({"purpose": "internal"}, "NC_INTERNAL"),
        ({"purpose": "commercial_product"}, "NC_VS_USE"),
        ({"purpose": "open_release"}, "LICENCE_CHOICE_CONFLICT"),
    ],
)
def test_r6_noncommercial_by_purpose(use, code):
    assert code in decide(data=["HuggingFaceH4/no_robots"], **use).codes


def test_r6_research_only_bars_internal_use():
    assert "NC_VS_USE" in decide(weights("Qwen/Qwen2.5-3B"), purpose="internal").codes


def test_r6_a_non_commercial_student_licence_carries_the_limit():
    use = {"purpose": "open_release", "student_licence": "cc-by-nc-4.0"}
    assert "LICENCE_CHOICE_CONFLICT" not in decide(data=["HuggingFaceH4/no_robots"], **use).codes


@pytest.mark.parametrize(
    ("mau", "code"), [(None, "DECLARE:mau"), (700_000_000, None), (700_000_001, "SCALE_EXCEEDED"), (0, None)]
)
def test_r6_the_cap_is_above_not_at(mau, code):
    codes = decide(weights("meta-llama/Llama-3.1-8B"), licensee={"mau": mau} if mau is not None else {}).codes
    assert set(codes) - {"AUP"} == ({code} if code else set())


@pytest.mark.parametrize(
    ("region", "code"), [(None, "DECLARE:region"), ("EU", "REGION_EXCLUDED"), ("FR", "REGION_EXCLUDED"), ("CH", None)]
)
def test_r6_regions(region, code):
    licensee = {"mau": 0} | ({"region": region} if region else {})
    codes = decide(weights("meta-llama/Llama-4-Scout"), licensee=licensee).codes
    assert set(codes) - {"AUP"} == ({code} if code else set())


# R7 to R11 --------------------------------------------------------------------------------------------------------


def test_r7_evaluation_only():
    assert decide(weights("deepseek-ai/DeepSeek-R1", method="evaluate_only")).codes == ("EVAL_ONLY_SEPARATION",)
    assert "EVAL_UNREAD" in decide({"model": "openai/gpt-5", "access": "api:openai", "method": "evaluate_only"}).codes


def test_r8_llama_3_bars_other_families_and_3_1_does_not():
    llama3 = weights("meta-llama/Meta-Llama-3-70B-Instruct")
    assert decide(llama3).verdict == "refuse"
    assert "SAME_FAMILY_ONLY" in decide(llama3, base="meta-llama/Meta-Llama-3-8B").codes
    assert decide(llama3, base="meta-llama/Meta-Llama-3-8B").verdict == "permit-with-obligations"
    assert decide(llama3, base="meta-llama/Llama-3.1-8B").verdict == "refuse"
    assert "SCOPE_UNCLEAR" in decide(llama3, student_kind="classifier").codes
    assert decide(weights("meta-llama/Llama-3.1-70B")).verdict == "permit-with-obligations"


def test_r8_a_users_record_cannot_lend_a_family_to_known_weights():
    mine = user_record(
        {
            "id": "mine", "kind": "weights", "holder": "me", "title": "t", "access": ["weights"], "family": "llama3",
            "models": [{"match": "Qwen/Qwen3-8B-Base"}], "grade": "P", "read": "2026-11-01", "outputs_may_train": "yes",
            "source": "s", "quote": "q", "locator": "1",
        },
        "mine",
    )  # fmt: skip
    registry = builtin().with_records([mine])
    assert decide(weights("meta-llama/Meta-Llama-3-8B"), registry=registry).verdict == "refuse"


@pytest.mark.parametrize(
    ("use", "code"),
    [
        ({"purpose": "internal", "student_kind": "embedding"}, "PERMITTED_EXCEPTION"),
        ({"purpose": "research", "student_kind": "embedding", "distributes": ["dataset"]}, "COMPETE_UNDECLARED"),
        ({"competes": "yes"}, "COMPETING_DECLARED"),
        ({"competes": "no"}, "NO_COMPETE"),
        ({"competes": {"OpenAI": "no", "*": "yes"}}, "NO_COMPETE"),
        ({"competes": {"Google": "no", "*": "yes"}}, "COMPETING_DECLARED"),
        ({"competes": {"Google": "no"}}, "COMPETE_UNDECLARED"),
        ({"competes": "no", "distributes": ["weights"]}, "PRESUMED_COMPETING"),
        ({"competes": "no", "distributes": ["weights"], "student_kind": "task_llm"}, "NO_COMPETE"),
    ],
)
def test_r9_competing(use, code):
    decision = decide(("openai/gpt-5.1", "api:openai"), base="none", **use)
    with_it = {"NO_DISTRIBUTION"} if code == "PERMITTED_EXCEPTION" else set()
    assert set(decision.codes) == {code} | with_it


def test_r9_a_flat_bar_is_lifted_by_no_declaration():
    assert decide(("anthropic/claude", "api:anthropic"), competes="no").verdict == "refuse"


def test_r10_publishing_outputs_may_help_others_compete():
    use = {"distributes": ["dataset"], "competes": "no"}
    assert "PUBLISHED_OUTPUTS_UNSETTLED" in decide(("meta/muse", "api:meta"), **use).codes


def test_r11_the_name_prefix_reaches_a_student_trained_on_outputs_only_when_shipped():
    llama = weights("meta-llama/Llama-3.3-70B-Instruct")
    kept = decide(llama, licensee={"mau": 0})
    assert "NAME_PREFIX:Llama" not in kept.codes
    assert "NAME_PREFIX:Llama" in {a.code for a in kept.deferred}
    assert "NAME_PREFIX:Llama" in decide(llama, licensee={"mau": 0}, distributes=["hosted_api"]).codes
    assert "BUILT_WITH:Llama" not in decide(llama, licensee={"mau": 0}, distributes=["weights"]).codes


def test_r11_inherited_records_bring_their_duties():
    codes = decide(weights("allenai/Llama-3.1-Tulu-3-8B"), distributes=["weights"], licensee={"mau": 0}).codes
    assert {"NAME_PREFIX:Llama", "PASS_THROUGH:gemma-3.2", "BUILT_WITH:Qwen"} <= set(codes)


@pytest.mark.parametrize(
    ("licensee", "codes"),
    [
        ({}, {"DECLARE:mau", "DECLARE:monthly_revenue_usd"}),
        ({"mau": 5}, {"DECLARE:monthly_revenue_usd"}),
        ({"mau": 5, "monthly_revenue_usd": 5}, set()),
        ({"mau": 2e8}, {"UI_NAME:Kimi K2"}),
    ],
)
def test_r11_a_duty_of_scale(licensee, codes):
    decision = decide(weights("moonshotai/Kimi-K2-Instruct"), purpose="commercial_product", licensee=licensee)
    assert set(decision.codes) == codes
    assert all(a.strength == "precautionary" for a in decision.obligations if a.code.startswith("UI_NAME"))


# R12 to R17 -------------------------------------------------------------------------------------------------------


def test_r12_disputed_and_unspecified_licences():
    assert "NONCOMMERCIAL" in decide(data=["stingning/ultrachat"]).codes
    assert "DISPUTED_LICENCE" in decide(data=["stingning/ultrachat"], purpose="internal").codes
    assert "DATASET_LICENCE_UNSPECIFIED" in decide(data=["sahil2801/CodeAlpaca-20k"]).codes
    # both readings of OASST1 allow commercial use, so nothing is in dispute
    assert decide(data=["OpenAssistant/oasst1"], purpose="internal").verdict == "permit"


def test_r12_an_evaluation_set_is_kept_apart_and_asks_no_more():
    row = {"id": "HuggingFaceH4/no_robots", "role": "eval"}
    assert decide(data=[row], purpose="internal").codes == ("CONFIRM_SOURCE", "EVAL_ONLY_SEPARATION")


def test_r13_the_generator_of_a_set():
    """Third party: disclosed in research, unsettled when shipped; one's own call: as a teacher; Llama 3.1: its duties."""
    assert "DISCLOSE_UPSTREAM" in decide(data=["Open-Orca/OpenOrca"]).codes
    assert "UPSTREAM_UNSETTLED" in decide(data=["Open-Orca/OpenOrca"], distributes=["weights"]).codes
    own = {"id": "Open-Orca/OpenOrca", "obtained_by": "self"}
    assert "COMPETE_UNDECLARED" in decide(data=[own]).codes
    magpie = "Magpie-Align/Magpie-Llama-3.1-Pro-1M-v0.1"
    assert "NAME_PREFIX:Llama" in decide(data=[magpie], distributes=["weights"], licensee={"mau": 0}).codes


def test_r14_licences_that_cannot_be_merged():
    dolly, alpaca, lima, stories = (
        "databricks/databricks-dolly-15k", "HuggingFaceH4/no_robots", "GAIR/lima", "roneneldan/TinyStories",
    )  # fmt: skip
    merged = {"distributes": ["merged_dataset"]}
    assert "SA_NC_CONFLICT" in decide(data=[dolly, alpaca], **merged).codes
    assert "SA_NC_CONFLICT" not in decide(data=[dolly, alpaca], distributes=["dataset"]).codes
    assert "SA_MIX_UNSETTLED" in decide(data=[dolly, stories], **merged).codes
    # BY-NC-SA holds the limit itself: alone or with another non-commercial set there is no conflict
    assert "SA_NC_CONFLICT" not in decide(data=[lima, alpaca], **merged).codes
    assert "SA_NC_CONFLICT" in decide(data=[lima, dolly], **merged).codes


def test_r15_names_and_licences():
    llama = weights("meta-llama/Llama-3.3-70B-Instruct")
    use = {"purpose": "open_release", "licensee": {"mau": 0}}
    assert "NAME_CONFLICT" in decide(llama, student_name="Distilled-7B", **use).codes
    assert "NAME_CONFLICT" not in decide(llama, student_name="us/Llama-Distilled", **use).codes
    chat = ("deepseek/deepseek-chat", "api:deepseek")
    assert "NAME_CONFLICT" in decide(chat, student_name="my-deepseek-7b", purpose="open_release").codes
    gemma = weights("google/gemma-3-27b-it")
    for licence, conflict in [
        ("mit", True),
        ("gemma", False),
        ("other", False),
        ("Apache-2.0 AND LicenseRef-x", False),
    ]:
        codes = decide(gemma, student_licence=licence, purpose="open_release").codes
        assert ("LICENCE_CHOICE_CONFLICT" in codes) is conflict


def test_r16_screening():
    counts = {"ingest": {"secrets": 1}, "egress": {"pii": 2}, "publish": {"pii": 1, "pii_redacted": True}}
    decision = decide(weights("deepseek-ai/DeepSeek-R1"), screening=counts)
    assert decision.codes == ("PII_REVIEW:egress", "SECRET_FOUND:ingest")
    assert decision.verdict == "refuse"


def test_r17_a_changed_use_is_said_and_judged_anew():
    planned = {"purpose": "research", "student_kind": "general_llm"}
    same = decide(weights("deepseek-ai/DeepSeek-R1"), planned=planned)
    assert same.codes == ()
    moved = decide(weights("deepseek-ai/DeepSeek-R1"), planned=planned, purpose="internal")
    assert moved.codes == ("USE_CHANGED",)
    assert moved.verdict == "permit"


# the whole --------------------------------------------------------------------------------------------------------


def test_a_day_is_needed_and_the_plans_own_comes_first():
    plan = parse_plan({"teachers": [], "datasets": [], "student_base": "none", "use": {"purpose": "research"}})
    with pytest.raises(RecipeError, match="as_of"):
        evaluate(plan, builtin())
    assert evaluate(plan, builtin(), date(2026, 11, 21)).as_of == date(2026, 11, 21)


def test_every_code_has_a_sentence_that_clears_nobody():
    for stem, (kind, said) in CODES.items():
        assert kind in ("information", "obligation", "unknown", "refuse"), stem
        assert not {"legal", "safe", "compliant"} & set(said.lower().replace(",", " ").split()), stem
        assert "allowed by law" not in said
    assert verdict_of([]) == "permit"
    assert verdict_of(["FLOW_DOWN"]) == "permit"
    assert verdict_of(["AUP", "NO_RECORD:dataset"]) == "unknown"


# text that large teachers wrote -----------------------------------------------------------------------------------


def test_palm_text_is_unread_so_a_person_has_to_accept_it():
    """R20: the rationales of the step-by-step work are PaLM's, and nobody read PaLM's terms."""
    decision = decide(("google/palm-540b", "api:google"), data=["arkilpatel/SVAMP", "tau/commonsense_qa"])
    assert decision.verdict == "unknown"
    assert [c for c in decision.codes if class_of(c) == "unknown"] == ["TERMS_UNREAD"]


def test_llama_3_rationales_may_not_improve_another_model():
    """R20: the same rationales written by Llama 3 are refused for a student of any other family."""
    decision = decide(
        weights("meta-llama/Meta-Llama-3-8B-Instruct"), data=["arkilpatel/SVAMP"], base="stillhouse/pocket-student"
    )
    (reason,) = [r for r in decision.reasons if r.code == "PROHIBITED_CLAUSE"]
    assert decision.verdict == "refuse"
    assert "improve any other large language model" in (reason.quote or "")


def test_gpt_4_trajectories_are_disclosed_in_research_and_unsettled_when_shipped():
    """R50: FireAct is MIT, and GPT-4 wrote it."""
    assert decide(data=["anchen1011/FireAct"]).codes == ("DISCLOSE_UPSTREAM",)
    assert decide(data=["anchen1011/FireAct"], purpose="open_release").verdict == "unknown"


def test_data_sets_with_a_plain_licence_of_their_own_are_plain():
    for id in ("arkilpatel/SVAMP", "pubmedqa/pubmedqa", "openai/gsm8k"):
        assert decide(data=[id], purpose="commercial_product").verdict == "permit"
    # R59: judged pairs; the models that wrote the answers were not all read
    assert decide(data=["WeOpenML/PandaLM"]).verdict == "permit-with-obligations"
    assert decide(data=["WeOpenML/PandaLM"], purpose="commercial_product").verdict == "unknown"
    assert decide(weights("karpathy/stories260K"), base="karpathy/stories260K").verdict == "permit"
