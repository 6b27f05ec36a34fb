"""An acknowledgment lifts what it may, for the plan it was given for, while it lasts, and says why where it does not."""

import json
import subprocess
from datetime import date

import pytest

from stillhouse.compliance.acknowledge import apply, from_mapping, read_acknowledgment, signer_files
from stillhouse.compliance.evaluate import evaluate
from stillhouse.compliance.plan import parse_plan
from stillhouse.compliance.registry import builtin
from stillhouse.errors import RecipeError

TODAY = date(2026, 11, 21)
PALM = {"model": "google/palm-540b", "access": "api:google"}
LLAMA3 = {"model": "meta-llama/Meta-Llama-3-8B", "access": "weights"}


def plan_of(*teachers, purpose="research", data=(), **use):
    return parse_plan(
        {
            "teachers": list(teachers),
            "datasets": list(data),
            "student_base": "stillhouse/pocket-student",
            "use": {"purpose": purpose, **use},
        }
    )


def ack(plan, *lifts, **more):
    return {
        "type": "stillhouse-ack/v1",
        "plan_hash": f"sha256:{plan.sha256}",
        "registry": builtin().label,
        "lifts": list(lifts),
        "basis": "legal_review",
        "document_sha256": None,
        "scope": {"purpose": plan.use.purpose, "distributes": sorted(plan.use.distributed)},
        "statement": "I have read the quoted clauses and accept responsibility.",
        "person": "ada@acme.test",
        "organisation": "Acme",
        "date": "2026-11-21",
        "expires": "2027-05-21",
        **more,
    }


def applied(plan, *acks, signature="none", today=TODAY):
    given = [from_mapping(a, "ack", signature) for a in acks]
    return apply(evaluate(plan, builtin(), today), plan, given, today)


def test_research_on_palm_text_with_an_unsigned_acknowledgment():
    """R20: PaLM's terms are unread; in research a person may take that on, and the decision shows it."""
    plan = plan_of(PALM, data=["arkilpatel/SVAMP"])
    assert applied(plan).verdict == "unknown"
    decision = applied(plan, ack(plan, "TERMS_UNREAD", basis="risk_accepted"))
    assert decision.verdict == "permit"
    assert decision.codes == ()
    assert [r.code for r in decision.lifted] == ["TERMS_UNREAD"]
    assert decision.overrides[0].basis == "risk_accepted"
    assert decision.ignored == ()


def test_a_code_may_be_lifted_for_one_subject_only():
    plan = plan_of(PALM, {"model": "acme/x", "access": "weights"}, {"model": "acme/y", "access": "weights"})
    decision = applied(plan, ack(plan, "TERMS_UNREAD", "NO_RECORD:acme/x"))
    assert decision.verdict == "unknown"
    assert [r.subject for r in decision.reasons] == ["teacher:acme/y"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"plan_hash": "sha256:" + "0" * 64}, "another plan"),
        ({"expires": "2026-11-20", "date": "2026-01-01"}, "expired on 2026-11-20"),
        ({"date": "2026-11-22"}, "dated 2026-11-22, after"),
        ({"scope": {"purpose": "internal"}}, "scope"),
        ({"lifts": ["NO_RECORD"]}, "nothing of this name"),
    ],
)
def test_void_acknowledgments_change_nothing_and_say_why(change, said):
    plan = plan_of(PALM)
    decision = applied(plan, {**ack(plan, "TERMS_UNREAD"), **change})
    assert decision.verdict == "unknown"
    assert said in decision.ignored[0]
    assert decision.overrides == ()


def test_it_is_void_after_any_change_of_the_plan():
    given = ack(plan_of(PALM), "TERMS_UNREAD")
    assert applied(plan_of(PALM, distributes=["dataset"]), given).verdict == "unknown"
    assert applied(plan_of(PALM, data=["openai/gsm8k"]), given).verdict == "unknown"


def test_a_plan_dated_back_revives_no_expired_acknowledgment():
    plan = plan_of(PALM, as_of="2026-11-21")
    assert applied(plan, ack(plan, "TERMS_UNREAD"), today=date(2027, 6, 1)).verdict == "unknown"


def test_outward_use_needs_a_signature_and_more_than_accepted_risk():
    plan = plan_of(PALM, purpose="commercial_product")
    given = ack(plan, "TERMS_UNREAD")
    assert "has to be signed" in applied(plan, given).ignored[0]
    assert "allowed_signers" in applied(plan, given, signature="unchecked").ignored[0]
    assert applied(plan, given, signature="good").verdict == "permit"
    risk = {**given, "basis": "risk_accepted"}
    assert "risk_accepted does not hold" in applied(plan, risk, signature="good").ignored[0]


@pytest.mark.parametrize("basis", ["legal_review", "risk_accepted"])
def test_a_refusal_survives_review_and_accepted_risk(basis):
    plan = plan_of(LLAMA3)
    given = ack(plan, "PROHIBITED_CLAUSE", basis=basis, document_sha256="0" * 64)
    assert applied(plan, given, signature="good").verdict == "refuse"


def test_a_refusal_is_lifted_by_a_documented_permission_that_is_signed():
    plan = plan_of(LLAMA3)
    given = ack(plan, "PROHIBITED_CLAUSE", basis="separate_licence", document_sha256="sha256:" + "a" * 64)
    assert applied(plan, given).verdict == "refuse"
    assert applied(plan, {**given, "document_sha256": None}, signature="good").verdict == "refuse"
    lifted = applied(plan, given, signature="good")
    assert lifted.verdict == "permit-with-obligations"
    assert "AUP" in lifted.codes


def test_a_duty_is_not_lifted():
    plan = plan_of(LLAMA3)
    assert "carried out, not lifted" in applied(plan, ack(plan, "AUP")).ignored[0]


def test_nothing_lifts_a_credential():
    plan = plan_of(screening={"ingest": {"secrets": 1}})
    given = ack(plan, "SECRET_FOUND:ingest", basis="own_rights", document_sha256="0" * 64)
    decision = applied(plan, given, signature="good")
    assert decision.verdict == "refuse"
    assert "nothing lifts" in decision.ignored[0]


@pytest.mark.parametrize(
    "change",
    [
        {"type": "v2"},
        {"basis": "because"},
        {"lifts": []},
        {"expires": None},
        {"signature": "good"},
        {"colour": 1},
        {"plan_hash": "x"},
    ],
)
def test_malformed_acknowledgments_are_refused(change):
    with pytest.raises(RecipeError, match=r"^ack: ") as e:
        from_mapping({**ack(plan_of(PALM), "TERMS_UNREAD"), **change}, "ack")
    assert e.value.exit_code == 2


@pytest.fixture
def signed(tmp_path):
    """An acknowledgment on disk, signed with a real key whose owner is an allowed signer."""
    plan = plan_of(PALM, purpose="commercial_product")
    key, file = tmp_path / "key", tmp_path / "ack.json"
    run = {"check": True, "capture_output": True}
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], **run)
    file.write_text(json.dumps(ack(plan, "TERMS_UNREAD")))
    subprocess.run(["ssh-keygen", "-Y", "sign", "-n", "stillhouse-ack", "-f", str(key), str(file)], **run)
    (tmp_path / "allowed_signers").write_text(f"ada@acme.test {(tmp_path / 'key.pub').read_text()}")
    return plan, file


def test_a_real_signature_is_verified(signed, tmp_path):
    plan, file = signed
    given = read_acknowledgment(file, signer_files(tmp_path))
    assert given.signature == "good"
    assert apply(evaluate(plan, builtin(), TODAY), plan, [given], TODAY).verdict == "permit"
    assert read_acknowledgment(file, [tmp_path / "nobody"]).signature == "unchecked"


@pytest.mark.parametrize("forgery", ["text", "person", "name_space", "strangers_key", "another_signers_key"])
def test_a_forged_acknowledgment_lifts_nothing(signed, tmp_path, forgery):
    """The text changed after signing, somebody else's name, a signature made for another purpose, or one that is as well
    formed as any and made with a key that is nobody's, or that of another allowed signer.
    """
    plan, file = signed
    text = file.read_text()
    if forgery == "text":
        file.write_text(text.replace("TERMS_UNREAD", "TERMS_UNREAD "))
    elif forgery == "person":
        file.write_text(text.replace("ada@", "eve@"))
    else:
        (tmp_path / "ack.json.sig").unlink()
        key, space = tmp_path / "key", "stillhouse-ack"
        if forgery == "name_space":
            space = "git"
        else:
            key = tmp_path / "other"
            make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
            subprocess.run(make, check=True, capture_output=True)
        if forgery == "another_signers_key":
            with (tmp_path / "allowed_signers").open("a") as allowed:
                allowed.write(f"eve@acme.test {(tmp_path / 'other.pub').read_text()}")
        command = ["ssh-keygen", "-Y", "sign", "-n", space, "-f", str(key), str(file)]
        subprocess.run(command, check=True, capture_output=True)
    given = read_acknowledgment(file, signer_files(tmp_path))
    assert given.signature == "bad"
    decision = apply(evaluate(plan, builtin(), TODAY), plan, [given], TODAY)
    assert decision.verdict == "unknown"
    assert "signature is not that of" in decision.ignored[0]


def test_an_unreadable_file_is_one_sentence(tmp_path):
    (tmp_path / "a.json").write_text("{")
    for name in ("a.json", "missing.json"):
        with pytest.raises(RecipeError, match="no readable JSON"):
            read_acknowledgment(tmp_path / name)
