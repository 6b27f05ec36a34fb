"""The registry keeps its own rules, and the right record speaks for an id."""

import importlib.util
from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml

from stillhouse.compliance.registry import _glob, builtin, from_text, load, user_record, user_records
from stillhouse.compliance.terms import review_by
from stillhouse.errors import RecipeError

ROOT = Path(__file__).parents[2]
REGISTRY = builtin()
RECORDS = REGISTRY.records
MINE = {
    "id": "acme.contract@1",
    "kind": "contract",
    "holder": "Acme",
    "title": "Our agreement with Acme",
    "access": ["api:acme"],
    "models": [{"match": "acme/*"}],
    "grade": "P",
    "read": "2026-11-01",
    "outputs_may_train": "yes",
    "evaluation": "yes",
    "source": "contract 2026/17",
    "locator": "4.2",
    "quote": "Customer may train models on output.",
}


def the(id, access="weights"):
    found = REGISTRY.find(id, access)
    return found[0].id if found else None


def test_every_record_has_an_id_of_its_own():
    ids = [r.id for r in RECORDS]
    assert len(ids) == len(set(ids)) == 131


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.id)
def test_a_record_says_no_more_than_its_source(record):
    quotes = [record.quote, *(c.quote for c in record.conditions), *(o.quote for o in record.obligations)]
    assert all(len(q.split()) <= 25 for q in quotes if q)
    if record.outputs_may_train == "unread":
        assert record.read is None
        assert record.quote is None
        assert not record.obligations
        assert record.where_to_read
    else:
        assert record.source
        assert record.quote
        assert record.read
        assert record.read <= REGISTRY.compiled
        assert record.review_by == review_by(record.kind, record.read)
    if record.grade == "M":
        assert record.outputs_may_train == "unread"


def test_texts_of_the_archive_carry_their_hash():
    archived = [r for r in RECORDS if r.source and "OpenTermsArchive" in r.source]
    assert len(archived) == 19
    assert all(len(r.source_sha256 or "") == 16 for r in archived)
    assert REGISTRY.by_id["meta.llama3@2024-04-18"].source_sha256 == "6afe79695ec2b066"


def test_review_is_due_after_90_days_for_contracts_and_two_years_for_files():
    assert review_by("contract", date(2026, 8, 22)) == date(2026, 11, 20)
    assert review_by("weights", date(2026, 11, 21)) == date(2028, 11, 20)


def test_the_registry_is_what_the_facts_give():
    """One row is touched for a new licence; the built file follows from the two source files alone."""
    spec = importlib.util.spec_from_file_location("terms_build", ROOT / "tools/terms/build.py")
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    assert build.build() == (ROOT / "src/stillhouse/compliance/terms.yaml").read_text(encoding="utf-8")


def test_a_new_record_is_one_more_line():
    text = (ROOT / "src/stillhouse/compliance/terms.yaml").read_text(encoding="utf-8")
    assert sum(line.startswith('- {"id"') for line in text.splitlines()) == len(RECORDS)


def test_own_grants_are_quoted_from_the_file_that_ships():
    text = (ROOT / "src/stillhouse/compliance/pocket_terms.md").read_text(encoding="utf-8")
    for id in ("stillhouse.pocket", "stillhouse.scripted"):
        assert REGISTRY.by_id[id].quote in text


def test_the_most_literal_pattern_wins_and_exceptions_hold():
    assert the("meta-llama/Llama-3.2-1B") == "meta.llama3.2@2024-09-25"
    assert the("meta-llama/Llama-3.2-11B-Vision-Instruct") == "meta.llama3.2-vision@2024-09-25"
    assert the("meta-llama/Meta-Llama-3-8B") == "meta.llama3@2024-04-18"
    assert the("meta-llama/Meta-Llama-3.1-8B") == "meta.llama3.1@2024-07-23"
    assert the("google/gemma-3-4b-it") == "google.gemma-terms@2024-04-01"
    assert the("google/gemma-4-31B-it") == "google.gemma-4.apache"
    assert the("deepseek-ai/DeepSeek-V3") == "deepseek.licence-agreement@1.0"
    assert the("deepseek-ai/DeepSeek-V3-0324") == "deepseek.v3-0324-v4"
    assert the("openai/gpt-oss-20b") == "openai.gpt-oss.apache"
    assert the("openai/gpt-oss-20b", "api:openai") is None
    assert the("openai/gpt-5.1", "api:openai") == "openai.services-agreement@2026-01-01"


def test_case_does_not_count_and_copies_have_no_record():
    assert the("QWEN/qwen3-8b-base") == "qwen.qwen3.apache"
    assert the("someone/Llama-3.1-8B") is None
    assert the("anthropic/claude", "incorporated") is None


@pytest.mark.parametrize(
    ("pattern", "id", "matches"),
    [
        ("a*c", "abc", True),
        ("a*c", "ac", True),
        ("a*c", "acb", False),
        ("a*a", "a", False),
        ("*", "", True),
        ("m[1]", "m1", False),
        ("m[1]", "m[1]", True),
        ("a*b*c", "a-c-b-c", True),
        ("a*bb*b", "abb", False),
    ],
)
def test_only_the_star_is_special(pattern, id, matches):
    assert _glob(pattern, id) is matches


def test_a_users_contract_is_added_and_marked(tmp_path):
    (tmp_path / "acme.yaml").write_text(yaml.safe_dump(MINE))
    registry = REGISTRY.with_records(user_records([tmp_path, tmp_path / "nowhere"]))
    assert [r.origin for r in registry.find("acme/large", "api:acme")] == ["user"]
    assert registry.sha256 != REGISTRY.sha256
    assert registry.find("acme/large", "api:acme")[0].review_by == date(2027, 1, 30)


def test_a_users_record_adds_to_a_read_record_and_replaces_an_unread_one():
    mine = {**MINE, "id": "mine", "kind": "weights", "access": ["weights"]}
    read = user_record({**mine, "models": [{"match": "meta-llama/Meta-Llama-3-8B"}]}, "mine")
    unread = user_record({**mine, "models": [{"match": "HuggingFaceTB/SmolLM2-135M"}]}, "mine")
    ids = [r.id for r in REGISTRY.with_records([read]).find("meta-llama/Meta-Llama-3-8B", "weights")]
    assert ids == ["meta.llama3@2024-04-18", "mine"]
    ids = [r.id for r in REGISTRY.with_records([unread]).find("HuggingFaceTB/SmolLM2-135M", "weights")]
    assert ids == ["mine"]


def test_a_users_record_does_not_turn_a_vendor_into_a_host():
    host = user_record({**MINE, "kind": "host", "access": ["api:anthropic"], "models": [{"match": "*"}]}, "mine")
    assert not REGISTRY.with_records([host]).is_host("api:anthropic")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"quote": "word " * 26}, "25 words"),
        ({"source": None}, "source and a quote"),
        ({"grade": "M"}, "grade M"),
        ({"read": "2026-13-01"}, "2026-11-21"),
        ({"review_by": "2029-01-01"}, "at most 2027-01-30"),
        ({"kind": "weights", "access": ["weights"], "models": [{"match": "acme/*"}]}, "whole family"),
        ({"access": ["weights"]}, "api:<name>"),
        ({"colour": "red"}, "colour: unknown key"),
        ({"outputs_may_train": "maybe"}, "outputs_may_train"),
    ],
)
def test_a_users_record_that_breaks_a_rule_is_refused_in_one_sentence(change, said):
    with pytest.raises(RecipeError, match=said) as e:
        user_record({**MINE, **change}, "terms.d/acme.yaml")
    assert str(e.value).startswith("terms.d/acme.yaml")
    assert e.value.exit_code == 2


def test_a_users_record_may_not_take_a_registry_id():
    with pytest.raises(RecipeError, match=r"two records are called 'stillhouse\.pocket'"):
        REGISTRY.with_records([user_record({**MINE, "id": "stillhouse.pocket"}, "mine")])


def test_a_record_may_only_inherit_what_exists():
    with pytest.raises(RecipeError, match="'nothing', which is no record"):
        REGISTRY.with_records([user_record({**MINE, "inherits": ["nothing"]}, "mine")])


def test_a_users_record_read_tomorrow_is_refused(tmp_path):
    (tmp_path / "acme.yaml").write_text(yaml.safe_dump({**MINE, "read": "2031-01-01"}))
    with pytest.raises(RecipeError, match=r"acme\.contract@1 says it was read on 2031-01-01"):
        user_records([tmp_path], today=date(2026, 11, 21))


def test_a_superseded_record_stays_and_no_longer_speaks():
    old = {**MINE, "id": "acme.contract@0", "outputs_may_train": "no", "superseded_by": "acme.contract@1"}
    registry = REGISTRY.with_records([user_record(MINE, "new"), user_record(old, "old")])
    assert [r.id for r in registry.find("acme/large", "api:acme")] == ["acme.contract@1"]
    assert registry.by_id["acme.contract@0"].outputs_may_train == "no"


def test_a_registry_from_the_future_is_refused(tmp_path):
    """A schema this version cannot read, or a date that lies ahead: neither is silently used."""
    with pytest.raises(RecipeError, match=r"stillhouse\.terms/1, not 'stillhouse\.terms/2'"):
        from_text("schema: stillhouse.terms/2\nrecords: []\n", "new.yaml")
    ahead = tmp_path / "ahead.yaml"
    ahead.write_text("schema: stillhouse.terms/1\nversion: '2031.01'\ncompiled: '2031-01-01'\nrecords: []\n")
    with pytest.raises(RecipeError, match="compiled on 2031-01-01, after today"):
        load(ahead, today=date(2026, 11, 21))
    assert load(ahead, today=date(2031, 1, 1) - timedelta(days=1)).version == "2031.01"


@pytest.mark.parametrize("text", ["{", "[]", "schema: stillhouse.terms/1\n", "a: b: c"])
def test_a_broken_registry_is_one_sentence(text):
    with pytest.raises(RecipeError, match=r"^r\.yaml: "):
        from_text(text, "r.yaml")
