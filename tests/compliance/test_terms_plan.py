"""Plans come from outside: what cannot be right is one sentence and exit code 2, and the hash is stable."""

import hashlib
import json

import pytest

from stillhouse.compliance.licences import alternatives, is_noncommercial, is_plain_public, normal, share_alike_family
from stillhouse.compliance.plan import parse_plan, plan_hash
from stillhouse.errors import RecipeError

PLAN = {
    "teachers": [{"model": "deepseek-ai/DeepSeek-R1", "access": "weights"}],
    "datasets": ["openai/gsm8k", {"id": "OpenAssistant/oasst2", "obtained_by": "third_party"}],
    "student_base": "Qwen/Qwen2.5-7B",
    "use": {"purpose": "research", "distributes": []},
}


def changed(**change):
    return {**PLAN, **change}


def use(**change):
    return changed(use={**PLAN["use"], **change})


def test_defaults():
    plan = parse_plan(PLAN)
    assert plan.teachers[0].method == "train_on_outputs"
    assert [d.obtained_by for d in plan.datasets] == ["third_party", "third_party"]
    assert plan.use.student_kind == "general_llm"
    assert plan.use.competes_with("anyone") == "undeclared"


@pytest.mark.parametrize(
    ("purpose", "given", "distributed"),
    [
        ("open_release", [], {"weights"}),
        ("open_release", ["dataset"], {"weights", "dataset"}),
        ("commercial_product", [], {"hosted_api"}),
        ("internal", [], set()),
    ],
)
def test_the_purpose_brings_its_own_distribution(purpose, given, distributed):
    assert parse_plan(use(purpose=purpose, distributes=given)).use.distributed == distributed


def test_keys_of_a_case_file_are_ignored():
    extra = {"id": "C01", "expected": "refuse", "expected_codes": [], "reason": "because"}
    assert parse_plan({**PLAN, **extra}).sha256 == parse_plan(PLAN).sha256


def test_the_hash_is_over_canonical_json_of_the_four_keys():
    text = json.dumps(PLAN, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert parse_plan(PLAN).sha256 == hashlib.sha256(text.encode()).hexdigest()
    turned = dict(reversed(list(PLAN.items())))
    assert plan_hash(turned) == plan_hash(PLAN) != plan_hash(use(purpose="internal"))


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ([], "one object"),
        ({k: v for k, v in PLAN.items() if k != "use"}, "use: missing"),
        ({**PLAN, "colour": "red"}, "colour: unknown key"),
        (changed(teachers={}), "teachers: must be a list"),
        (changed(teachers=["gpt"]), "teachers.0"),
        (changed(teachers=[{"model": "m"}]), "teachers.0.access: missing"),
        (changed(teachers=[{"model": "m", "access": "phone"}]), "teachers.0.access"),
        (changed(teachers=[{"model": "m", "access": "weights", "methd": "logits"}]), "teachers.0.methd: unknown key"),
        (changed(teachers=[{"model": "m", "access": "weights", "method": "osmosis"}]), "teachers.0.method"),
        (changed(teachers=[{"model": 3, "access": "weights"}]), "teachers.0.model"),
        (changed(teachers=[{"model": "", "access": "weights"}]), "teachers.0.model"),
        (changed(datasets=[{"id": "x", "role": "fun"}]), "datasets.0.role"),
        (changed(student_base=None), "student_base"),
        (use(purpose="fun"), "use.purpose"),
        (changed(use={}), "use.purpose: missing"),
        (use(distributes=["everything"]), "use.distributes.0"),
        (use(competes="perhaps"), "use.competes"),
        (use(as_of="yesterday"), "use.as_of"),
        (use(as_of=20261121), "use.as_of"),
        (use(licensee={"mau": -1}), "use.licensee.mau"),
        (use(licensee={"mau": "many"}), "use.licensee.mau"),
        (use(licensee={"mau": float("nan")}), "use.licensee.mau"),
        (use(licensee={"mau": True}), "use.licensee.mau"),
        (use(licensee={"region": "Europe"}), "use.licensee.region"),
        (use(screening={"lunch": {}}), "use.screening"),
        (use(student_licence="MIT AND"), "is not a licence expression"),
        (use(student_licence="Apache 2"), "is not a licence expression"),
        (changed(datasets=[{"id": "x", "own_rights": {"basis": "found it"}}]), "datasets.0.own_rights.basis"),
    ],
)
def test_bad_plans(plan, said):
    with pytest.raises(RecipeError) as e:
        parse_plan(plan, "p.json")
    message = str(e.value)
    assert said in message
    assert "\n" not in message
    assert e.value.exit_code == 2


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("apache-2.0", "Apache-2.0"),
        ("mit and (apache-2.0 or cc-by-4.0)", "MIT AND (Apache-2.0 OR CC-BY-4.0)"),
        ("Llama3.1", "llama3.1"),
        ("other", "other"),
        (
            "Apache-2.0 AND LicenseRef-scancode-gemma-tou-2024-04-01",
            "Apache-2.0 AND LicenseRef-scancode-gemma-tou-2024-04-01",
        ),
    ],
)
def test_licence_expressions_are_canonical(written, canonical):
    assert normal(written, "here") == canonical


@pytest.mark.parametrize("broken", ["", "MIT OR OR MIT", "(MIT", "no such licence", "MIT WITH nothing", "AND"])
def test_unparsable_expressions_say_what_to_write(broken):
    with pytest.raises(RecipeError, match=r"^here: .*SPDX"):
        normal(broken, "here")


def test_choices_of_an_expression():
    a, b, c = "MIT", "Apache-2.0", "CC-BY-4.0"
    assert alternatives(f"{a} AND ({b} OR {c})") == [{a, b}, {a, c}]
    assert alternatives(f"{a} OR {b} AND {c}") == [{a}, {b, c}]
    assert alternatives("GPL-2.0-only WITH Classpath-exception-2.0") == [{"GPL-2.0-only WITH Classpath-exception-2.0"}]


def test_what_a_student_licence_can_carry():
    assert is_noncommercial("CC-BY-NC-4.0")
    assert not is_noncommercial("CC-BY-NC-4.0 OR MIT")
    assert is_noncommercial("MIT AND CC-BY-NC-SA-4.0")
    assert is_noncommercial("apple-amlr")
    assert is_plain_public("MIT", [])
    assert is_plain_public("llama3.1", ["gemma"])
    assert not is_plain_public("gemma", ["gemma"])
    assert not is_plain_public("other", [])
    assert not is_plain_public("MIT AND LicenseRef-mine", [])
    assert share_alike_family("CC-BY-SA-3.0") == share_alike_family("CC-BY-SA-4.0") == "CC BY-SA"
    assert share_alike_family("CC-BY-NC-SA-4.0") == "CC BY-NC-SA"
    assert share_alike_family("MIT") is None


@pytest.mark.parametrize("day", ["2026-10-09T00:00:00", "1760000000", "20261009", "2026-W41-5", "2026-13-01", 20261009])
def test_a_day_is_written_in_one_way(day):
    use = {"purpose": "research", "as_of": day}
    with pytest.raises(RecipeError, match="as_of"):
        parse_plan({"teachers": [], "datasets": [], "student_base": "none", "use": use})
