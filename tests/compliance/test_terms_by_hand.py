"""Plans whose codes were worked out by hand from the rules and the facts, one reading of the text against the other.

Every case is judged on 2026-10-09 unless it says otherwise and names all of its codes; the verdict is the worst class.
"""

from typing import Any

import pytest

from stillhouse.compliance.evaluate import evaluate
from stillhouse.compliance.plan import parse_plan
from stillhouse.compliance.registry import builtin, user_record

R1, GPT, GEMINI = "deepseek-ai/DeepSeek-R1", "openai/gpt-5.1", "google/gemini-2.5-pro"
DEEPSEEK, LLAMA3, LLAMA31 = "deepseek/deepseek-chat", "meta-llama/Meta-Llama-3-70B-Instruct", "meta-llama/Llama-3.1-8B"
VISION, GEMMA, KIMI = "meta-llama/Llama-3.2-11B-Vision", "google/gemma-3-27b-it", "moonshotai/Kimi-K2-Instruct"
DOLLY, NO_ROBOTS, STORIES = "databricks/databricks-dolly-15k", "HuggingFaceH4/no_robots", "roneneldan/TinyStories"
QWEN = "Qwen/Qwen3-8B-Base"
OWN = {"holder": "Acme", "basis": "trained_in_house", "declared_by": "Ada", "date": "2026-01-01", "built_on": []}


def asked(model: str, access: str = "weights", **more: Any) -> dict[str, Any]:
    """Teachers of a plan."""
    return {"teachers": [{"model": model, "access": access, **more}]}


def rows(*ids: Any) -> dict[str, Any]:
    return {"datasets": list(ids)}


def plan(part: dict[str, Any], purpose: str, base: str = QWEN, **use: Any) -> dict[str, Any]:
    whole = {"teachers": [], "datasets": [], "student_base": base, **part}
    return whole | {"use": {"purpose": purpose, "as_of": "2026-10-09", **use}}


def told(case: dict[str, Any]) -> tuple[str, set[str]]:
    found = evaluate(parse_plan(case), builtin())
    return found.verdict, set(found.codes)


SAME, MAU = "permit-with-obligations", {"mau": 1}
CASES: list[tuple[dict[str, Any], str, str]] = [
    # services
    (plan(asked(GPT, "api:openai"), "internal", student_kind="task_llm"), "unknown", "COMPETE_UNDECLARED"),
    (plan(asked(GPT, "api:openai"), "internal", student_kind="task_llm", competes="no"), SAME, "NO_COMPETE"),
    (plan(asked(GPT, "api:openai"), "internal", competes={"OpenAI": "yes", "*": "no"}), "refuse", "COMPETING_DECLARED"),
    # distributed, so the exception is lost
    (
        plan(asked(GPT, "api:openai"), "commercial_product", student_kind="classifier", competes="no"),
        SAME,
        "NO_COMPETE",
    ),
    (
        plan(asked(GPT, "api:openai"), "research", student_kind="embedding", competes="yes"),
        SAME,
        "PERMITTED_EXCEPTION NO_DISTRIBUTION",
    ),
    # the app's text has no exception
    (plan(asked(GPT, "app:openai"), "internal", student_kind="classifier"), "unknown", "COMPETE_UNDECLARED"),
    (plan(asked("openai/gpt-oss-20b", "api:openai"), "internal"), "unknown", "NO_RECORD"),
    (plan(asked("openai/gpt-oss-20b"), "internal"), SAME, "LAWFUL_USE"),
    (plan(asked(R1), "research", "openai/gpt-oss-20b"), SAME, "LAWFUL_USE"),
    (plan(asked(GPT, "api:azure"), "research"), "unknown", "TERMS_UNREAD"),
    (
        plan(asked("anthropic/claude", "api:anthropic"), "research", competes="no"),
        "refuse",
        "NO_COMPETE PROHIBITED_CLAUSE AUP",
    ),
    (plan(asked("anthropic/claude", "api:anthropic", method="evaluate_only"), "research"), "unknown", "EVAL_UNREAD"),
    (plan(asked(GEMINI, "app:google"), "research", competes="no"), "refuse", "PROHIBITED_CLAUSE"),
    (plan(asked(GEMINI, "api:google"), "internal", competes="no", as_of="2026-12-15"), SAME, "NO_COMPETE"),
    (plan(asked(GEMINI, "api:google"), "internal", competes="no", as_of="2026-12-16"), SAME, "NO_COMPETE STALE_NOTE"),
    (
        plan(
            asked(GEMINI, "api:google"),
            "commercial_product",
            competes="no",
            student_kind="task_llm",
            as_of="2026-12-16",
        ),
        "unknown",
        "NO_COMPETE STALE_RECORD",
    ),
    (
        plan(asked("meta/muse-spark", "api:meta"), "internal", competes="no", distributes=["dataset"]),
        "unknown",
        "NO_COMPETE PUBLISHED_OUTPUTS_UNSETTLED AUP",
    ),
    (
        plan(asked(DEEPSEEK, "api:deepseek"), "commercial_product", student_name="Mini-DeepSeek", as_of="2026-11-20"),
        SAME,
        "LAWFUL_USE TRADEMARK:DeepSeek NAME_CONFLICT",
    ),
    (
        plan(asked(DEEPSEEK, "app:deepseek"), "research", distributes=["dataset"]),
        SAME,
        "LAWFUL_USE AI_LABEL",
    ),
    (plan(asked("mistral/mistral-large", "api:mistral"), "research"), "permit", "STALE_NOTE"),
    (plan(asked("xai/grok-4", "api:xai"), "internal"), "refuse", "STALE_NOTE PROHIBITED_CLAUSE AUP"),
    (plan(asked("kimi/k2", "app:kimi"), "research"), "unknown", "NONCOMMERCIAL COMPETE_UNDECLARED"),
    (plan(asked("kimi/k2", "app:kimi"), "internal", competes="no"), "unknown", "NC_INTERNAL NO_COMPETE"),
    (
        plan(asked("kimi/k2", "app:kimi"), "commercial_product", competes="no", student_kind="task_llm"),
        "refuse",
        "NC_VS_USE NO_COMPETE",
    ),
    (plan(asked("any/thing", "api:bedrock"), "research"), "unknown", "TERMS_UNREAD"),
    # hosts
    (plan(asked(R1, "api:openrouter"), "internal"), "unknown", "FLOW_DOWN ROUTE_UNPINNED"),
    (plan(asked(R1, "api:openrouter", routed_to="Together"), "internal"), "permit", "FLOW_DOWN"),
    (plan(asked(R1, "api:openrouter", routed_to="nowhere"), "internal"), "unknown", "FLOW_DOWN NO_RECORD"),
    (
        plan(asked(LLAMA3, "api:together"), "research", "meta-llama/Meta-Llama-3-8B"),
        SAME,
        "FLOW_DOWN SAME_FAMILY_ONLY AUP DECLARE:mau",
    ),
    (plan(asked(R1, "api:groq"), "internal"), "unknown", "FLOW_DOWN TERMS_UNREAD"),
    (
        plan(asked(DEEPSEEK, "api:perplexity", routed_to="deepseek"), "internal"),
        "refuse",
        "FLOW_DOWN PROHIBITED_CLAUSE LAWFUL_USE",
    ),
    (
        plan(asked(DEEPSEEK, "api:perplexity", routed_to="deepseek", method="evaluate_only"), "internal"),
        SAME,
        "FLOW_DOWN EVAL_ONLY_SEPARATION LAWFUL_USE",
    ),
    (
        plan(asked(LLAMA31, "api:fireworks"), "commercial_product", student_name="My-Llama", licensee=MAU),
        SAME,
        "FLOW_DOWN AUP NAME_PREFIX:Llama NAME_CONFLICT",
    ),
    # weights
    (
        plan(asked("meta-llama/Llama-2-7b"), "research", student_kind="classifier"),
        "unknown",
        "SCOPE_UNCLEAR AUP DECLARE:mau",
    ),
    (plan(asked(VISION), "research", licensee={"mau": 1, "region": "DE"}), "refuse", "REGION_EXCLUDED AUP"),
    (plan(asked(VISION), "research"), SAME, "DECLARE:region DECLARE:mau AUP"),
    (plan(asked("meta-llama/Llama-3.2-3B"), "research", licensee={"mau": 1, "region": "DE"}), SAME, "AUP"),
    (plan(asked(LLAMA31), "research", licensee={"mau": 700_000_000}), SAME, "AUP"),
    (plan(asked(LLAMA31), "research", licensee={"mau": 700_000_001}), "refuse", "SCALE_EXCEEDED AUP"),
    (
        plan(asked("Qwen/Qwen2.5-72B"), "open_release", licensee=MAU),
        SAME,
        "BUILT_WITH:Qwen LICENCE_COPY STATE_CHANGES",
    ),
    (plan(asked("Qwen/Qwen2.5-3B"), "internal"), "refuse", "NC_VS_USE"),
    (plan(asked("Qwen/Qwen2.5-3B"), "research"), SAME, "NONCOMMERCIAL"),
    (
        plan(asked("Qwen/Qwen2.5-3B"), "open_release", student_licence="cc-by-nc-4.0"),
        SAME,
        "NONCOMMERCIAL BUILT_WITH:Qwen LICENCE_COPY STATE_CHANGES",
    ),
    (
        plan(asked("Qwen/Qwen2.5-3B"), "open_release", student_licence="mit"),
        SAME,
        "NONCOMMERCIAL BUILT_WITH:Qwen LICENCE_COPY STATE_CHANGES LICENCE_CHOICE_CONFLICT",
    ),
    (plan(asked("Qwen/Qwen-7B"), "research", "Qwen/Qwen2-72B", licensee=MAU), SAME, "SAME_FAMILY_ONLY"),
    (
        plan(asked("Qwen/Qwen-1_8B"), "internal", "Qwen/Qwen-7B", licensee=MAU),
        "refuse",
        "NC_VS_USE SAME_FAMILY_ONLY",
    ),
    # terms of the weights that a teacher was made from come with it
    (
        plan(asked("deepseek-ai/DeepSeek-R1-Distill-Llama-70B"), "commercial_product", licensee=MAU),
        SAME,
        "AUP NAME_PREFIX:Llama",
    ),
    (plan(asked("deepseek-ai/DeepSeek-V3.2"), "research"), "unknown", "TERMS_UNREAD"),
    (plan(asked("deepseek-ai/DeepSeek-V3.2-Exp"), "internal"), "permit", ""),
    (
        plan(asked("deepseek-ai/DeepSeek-V3"), "open_release", student_licence="apache-2.0"),
        SAME,
        "FIELD_OF_USE PASS_THROUGH:deepseek-attachment-a LICENCE_COPY STATE_CHANGES LICENCE_CHOICE_CONFLICT",
    ),
    (plan(asked("mistralai/Mistral-7B-v0.1"), "internal"), SAME, "CONFIRM_SOURCE"),
    (plan(asked("mistralai/Mistral-7B-v0.1"), "commercial_product"), "unknown", "SECONDARY_ONLY"),
    (plan(asked("CohereLabs/aya-8b"), "research"), SAME, "CONFIRM_SOURCE NONCOMMERCIAL AUP"),
    (plan(asked(KIMI), "commercial_product"), SAME, "DECLARE:mau DECLARE:monthly_revenue_usd"),
    (plan(asked(KIMI), "commercial_product", licensee={"mau": 5, "monthly_revenue_usd": 5}), "permit", ""),
    (plan(asked(KIMI), "internal"), "permit", ""),
    (plan(asked("xai-org/grok-2"), "research", student_kind="embedding"), "unknown", "SCOPE_UNCLEAR AUP"),
    (
        plan(asked("stabilityai/stablelm-2-12b"), "research", licensee={"annual_revenue_usd": 2e6}),
        "refuse",
        "PROHIBITED_CLAUSE SCALE_EXCEEDED AUP",
    ),
    (plan(asked("bigscience/bloom"), "research", distributes=["dataset"]), SAME, "FIELD_OF_USE AI_LABEL"),
    (
        plan({}, "commercial_product", "tiiuae/falcon-11B", distributes=["weights"]),
        SAME,
        "AUP PASS_THROUGH:falcon-aup LICENCE_COPY BUILT_WITH:Falcon",
    ),
    (plan(asked(R1), "internal", "none"), "permit", ""),
    (plan(asked(R1), "internal", "acme/base"), "unknown", "NO_RECORD:student_base"),
    # the licence of one record does not carry the restrictions of another
    (
        plan(
            {"teachers": [*asked(GEMMA)["teachers"], *asked("deepseek-ai/DeepSeek-V3")["teachers"]]},
            "commercial_product",
            student_licence="gemma",
        ),
        SAME,
        "AUP FIELD_OF_USE PASS_THROUGH:gemma-3.2 PASS_THROUGH:deepseek-attachment-a LICENCE_COPY "
        "LICENCE_CHOICE_CONFLICT",
    ),
    (
        plan(asked(GEMMA), "commercial_product", student_licence="gemma"),
        SAME,
        "AUP PASS_THROUGH:gemma-3.2 LICENCE_COPY",
    ),
    # data sets
    (plan(rows("tatsu-lab/alpaca"), "research"), SAME, "NONCOMMERCIAL DISCLOSE_UPSTREAM"),
    (
        plan(rows({"id": "tatsu-lab/alpaca", "obtained_by": "self"}), "research"),
        "unknown",
        "NONCOMMERCIAL COMPETE_UNDECLARED",
    ),
    (
        plan(rows("sahil2801/CodeAlpaca-20k"), "research"),
        "unknown",
        "CONFIRM_SOURCE DATASET_LICENCE_UNSPECIFIED DISCLOSE_UPSTREAM",
    ),
    (
        plan(rows(DOLLY, NO_ROBOTS), "research", distributes=["merged_dataset"]),
        "refuse",
        "ATTRIBUTION SHARE_ALIKE NONCOMMERCIAL CONFIRM_SOURCE SA_NC_CONFLICT",
    ),
    (
        plan(rows(DOLLY, STORIES), "research", distributes=["merged_dataset"]),
        "unknown",
        "ATTRIBUTION SHARE_ALIKE CONFIRM_SOURCE DISCLOSE_UPSTREAM SA_MIX_UNSETTLED",
    ),
    (plan(rows("openbmb/UltraChat"), "research"), SAME, "NONCOMMERCIAL DISCLOSE_UPSTREAM"),
    (plan(rows("openbmb/UltraChat"), "internal"), "unknown", "DISPUTED_LICENCE UPSTREAM_UNSETTLED"),
    (
        plan(
            rows("Magpie-Align/Magpie-Llama-3.1-Pro-1M-v0.1"), "open_release", student_name="Llama-x", licensee=MAU
        ),
        SAME,
        "AUP NAME_PREFIX:Llama LICENCE_COPY STATE_CHANGES",
    ),
    (
        plan(
            rows("Magpie-Align/Magpie-Pro-300K-Filtered"), "research", "meta-llama/Meta-Llama-3-8B", licensee=MAU
        ),
        SAME,
        "NONCOMMERCIAL SAME_FAMILY_ONLY AUP",
    ),
    (plan(rows({"id": STORIES, "role": "eval"}), "internal"), SAME, "CONFIRM_SOURCE EVAL_ONLY_SEPARATION"),
    (plan(rows("no/such"), "research"), "unknown", "NO_RECORD:dataset"),
    # declarations, screening, a changed use
    (plan(asked("acme/m", own_rights=OWN), "commercial_product"), "permit", "OWN_RIGHTS_DECLARED"),
    (
        plan(asked("acme/m", own_rights={"holder": "Acme"}), "research"),
        "unknown",
        "OWN_RIGHTS_INCOMPLETE",
    ),
    (
        plan(asked("acme/m", own_rights=OWN | {"built_on": ["Qwen/Qwen2.5-3B"]}), "internal"),
        "refuse",
        "OWN_RIGHTS_DECLARED NC_VS_USE",
    ),
    (plan(asked(GPT, "api:openai", own_rights=OWN), "research"), "unknown", "COMPETE_UNDECLARED"),
    (
        plan(
            rows({"id": "our.jsonl", "own_rights": OWN | {"built_on": [DOLLY]}}, NO_ROBOTS),
            "research",
            distributes=["merged_dataset"],
        ),
        "refuse",
        "OWN_RIGHTS_DECLARED ATTRIBUTION SHARE_ALIKE NONCOMMERCIAL CONFIRM_SOURCE SA_NC_CONFLICT",
    ),
    (plan(asked(R1), "internal", screening={"egress": {"secrets": 1}}), "refuse", "SECRET_FOUND:egress"),
    (plan(asked(R1), "internal", screening={"publish": {"pii": 2}}), SAME, "PII_REVIEW:publish"),
    (plan(asked(R1), "internal", screening={"egress": {"pii": 2, "pii_redacted": True}}), "permit", ""),
    (plan(asked(R1), "commercial_product", planned={"purpose": "internal"}), "permit", "USE_CHANGED"),
]  # fmt: skip


@pytest.mark.parametrize(("case", "verdict", "codes"), CASES)
def test_what_was_worked_out_by_hand_is_what_is_found(case: dict[str, Any], verdict: str, codes: str) -> None:
    assert told(case) == (verdict, set(codes.split()))


def test_one_figure_above_its_limit_is_enough_where_another_is_not_given() -> None:
    case = plan(asked(KIMI), "commercial_product", licensee={"monthly_revenue_usd": 3e7})
    assert told(case) == (SAME, {"UI_NAME:Kimi K2"})


def test_a_users_host_is_held_to_all_that_its_record_says() -> None:
    """Limits, bars and duties of a host count beside those of the model that it serves."""
    host = {
        "id": "acme.host", "kind": "host", "holder": "Acme", "title": "Acme hosting", "access": ["api:acme"],
        "models": [{"match": "*"}], "grade": "P", "read": "2026-10-01", "outputs_may_train": "conditional",
        "conditions": [{"kind": "no_compete"}, {"kind": "noncommercial", "scope": "noncommercial"}],
        "obligations": [{"code": "ATTRIBUTION", "trigger": "always", "reach": "outputs", "text": "credit Acme"}],
        "source": "contract", "locator": "1", "quote": "no competing models",
    }  # fmt: skip
    registry = builtin().with_records([user_record(host, "host")])
    found = evaluate(parse_plan(plan(asked(R1, "api:acme"), "commercial_product")), registry)
    assert found.verdict == "refuse"
    assert set(found.codes) == {"PRESUMED_COMPETING", "NC_VS_USE", "ATTRIBUTION", "FLOW_DOWN"}
