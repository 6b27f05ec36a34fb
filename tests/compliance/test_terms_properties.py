"""What holds for every plan: order does not matter, more never helps, reasons are complete."""

from dataclasses import replace
from datetime import date, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.compliance.decision import VERDICTS, class_of, verdict_of
from stillhouse.compliance.evaluate import evaluate
from stillhouse.compliance.plan import parse_plan
from stillhouse.compliance.registry import builtin

REGISTRY = builtin()
PLAN_ALONE = (
    "NO_RECORD",
    "OWN_RIGHTS_",
    "NAME_CONFLICT",
    "LICENCE_CHOICE_CONFLICT",
    "SECRET_FOUND",
    "PII_REVIEW",
    "USE_CHANGED",
)
METHODS = ["train_on_outputs", "logits", "judge_or_reward", "prompt_generation", "evaluate_only"]


def ids(kind):
    return sorted({p.match.replace("*", "x") for r in REGISTRY.records if r.kind in kind for p in r.models})


ACCESSES = [
    *sorted({a for r in REGISTRY.records for a in r.access if a not in ("dataset", "incorporated")}),
    "api:unknown",
]
NAMES = [*ids(("weights", "contract")), "acme/unheard-of"]
teacher = st.fixed_dictionaries(
    {"model": st.sampled_from(NAMES), "access": st.sampled_from(ACCESSES), "method": st.sampled_from(METHODS)},
    optional={"routed_to": st.sampled_from(["together", "anthropic", "openai", "openrouter"])},
)
dataset = st.fixed_dictionaries(
    {"id": st.sampled_from([*ids(("dataset",)), "acme/rows"])},
    optional={"obtained_by": st.sampled_from(["self", "third_party"]), "role": st.sampled_from(["train", "eval"])},
)
DISTRIBUTIONS = ["weights", "hosted_api", "dataset", "merged_dataset"]
use = st.fixed_dictionaries(
    {
        "purpose": st.sampled_from(["research", "internal", "commercial_product", "open_release"]),
        "as_of": st.dates(date(2026, 8, 1), date(2029, 1, 1)).map(str),
    },
    optional={
        "student_kind": st.sampled_from(["general_llm", "task_llm", "classifier", "embedding", "reward_model"]),
        "distributes": st.lists(st.sampled_from(DISTRIBUTIONS), unique=True),
        "competes": st.sampled_from(["yes", "no", "undeclared"]),
        "student_name": st.sampled_from(["Llama-x", "deepseek-x", "plain"]),
        "student_licence": st.sampled_from(["mit", "other", "cc-by-nc-4.0", "gemma"]),
        "licensee": st.fixed_dictionaries(
            {}, optional={"mau": st.sampled_from([0, 10**9]), "region": st.sampled_from(["CH", "FR"])}
        ),
    },
)
plans = st.fixed_dictionaries(
    {
        "teachers": st.lists(teacher, max_size=4),
        "datasets": st.lists(dataset, max_size=4),
        "student_base": st.sampled_from([*ids(("weights",)), "none", "acme/base"]),
        "use": use,
    }
)
quick = settings(max_examples=150, deadline=None)


def verdict(plan):
    return VERDICTS.index(decided(plan).verdict)


def decided(plan):
    return evaluate(parse_plan(plan), REGISTRY)


@quick
@given(plans)
def test_the_verdict_is_the_worst_class_of_the_codes_and_every_code_has_a_reason(plan):
    decision = decided(plan)
    assert decision.verdict == verdict_of(decision.codes)
    assert list(decision.codes) == sorted({r.code for r in decision.reasons})
    for r in decision.reasons:
        assert r.text
        assert r.subject
        if not r.code.startswith(PLAN_ALONE):
            assert r.record
            assert r.clause
            assert r.quote
            assert r.source
            assert r.read
            assert len(r.quote.split()) <= 25
    # whatever is asked of the user is on the list that is ticked off
    assert {a.code for a in decision.obligations} == {c for c in decision.codes if class_of(c) == "obligation"}
    assert not set(decision.obligations) & set(decision.deferred)


@quick
@given(plans, st.randoms(use_true_random=False))
def test_order_does_not_matter_and_the_same_plan_gives_the_same_decision(plan, random):
    shuffled = {**plan, "teachers": list(plan["teachers"]), "datasets": list(plan["datasets"])}
    random.shuffle(shuffled["teachers"])
    random.shuffle(shuffled["datasets"])
    one, other = decided(plan), decided(shuffled)
    assert replace(one, plan_sha256="") == replace(other, plan_sha256="")
    assert decided(plan) == one


@quick
@given(plans, teacher, dataset)
def test_adding_a_teacher_or_a_data_set_never_makes_it_milder(plan, more_teacher, more_data):
    assert verdict({**plan, "teachers": [*plan["teachers"], more_teacher]}) >= verdict(plan)
    assert verdict({**plan, "datasets": [*plan["datasets"], more_data]}) >= verdict(plan)


@quick
@given(plans, st.sampled_from(DISTRIBUTIONS))
def test_more_distribution_never_makes_it_milder(plan, more):
    wider = {**plan["use"], "distributes": sorted({*plan["use"].get("distributes", []), more})}
    assert verdict({**plan, "use": wider}) >= verdict(plan)


@quick
@given(plans, st.integers(0, 2000))
def test_time_never_makes_it_milder(plan, days):
    later = date.fromisoformat(plan["use"]["as_of"]) + timedelta(days=days)
    assert verdict({**plan, "use": {**plan["use"], "as_of": str(later)}}) >= verdict(plan)


@quick
@given(plans, st.sampled_from(["egress", "ingest", "pretrain", "publish"]))
def test_a_credential_refuses_whatever_else_holds(plan, point):
    found = decided({**plan, "use": {**plan["use"], "screening": {point: {"secrets": 1}}}})
    assert found.verdict == "refuse"
    assert f"SECRET_FOUND:{point}" in found.codes


@quick
@given(plans)
def test_no_record_and_no_secondary_source_ever_yield_permit(plan):
    decision = decided(plan)
    if any(c.startswith("NO_RECORD") for c in decision.codes):
        assert decision.verdict in ("unknown", "refuse")
    grades = {REGISTRY.by_id[record].grade for _, record in decision.records}
    if "S" in grades:
        assert decision.verdict != "permit"
    if "M" in grades:
        assert decision.verdict in ("unknown", "refuse")


PERMISSIVE = {
    "weights": ["deepseek-ai/DeepSeek-R1", "Qwen/Qwen3-8B", "allenai/OLMo-2-1124-7B", "stillhouse/pocket-teacher"]
}


@quick
@given(
    st.lists(st.sampled_from(PERMISSIVE["weights"]), min_size=1),
    st.lists(st.sampled_from(["openai/gsm8k", "OpenAssistant/oasst2", "arkilpatel/SVAMP"])),
    st.sampled_from([*PERMISSIVE["weights"], "stillhouse/pocket-student", "none"]),
    st.sampled_from([("research", []), ("internal", []), ("internal", ["hosted_api"]), ("commercial_product", [])]),
)
def test_permissive_plans_are_permitted_without_any_duty(models, data, base, use):
    """Refusing too much is a fault of the same rank as missing a clause."""
    purpose, distributes = use
    decision = decided(
        {
            "teachers": [{"model": m, "access": "weights"} for m in models],
            "datasets": data,
            "student_base": base,
            "use": {"purpose": purpose, "distributes": distributes, "as_of": "2026-11-21"},
        }
    )
    assert decision.verdict == "permit"
    assert decision.codes == ()
    assert decision.obligations == ()


def test_a_pattern_for_a_whole_family_of_weights_permits_nothing():
    for record in REGISTRY.records:
        wide = [p.match for p in record.models if p.match.endswith("/*") and "*" not in p.match[:-1]]
        if record.kind == "weights" and wide:
            assert record.outputs_may_train in ("no", "unread"), record.id
    assert class_of("TERMS_UNREAD") == "unknown"
