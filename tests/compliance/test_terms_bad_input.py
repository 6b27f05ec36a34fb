"""What a person gets wrong: one sentence, the right exit code, and nothing that passes quietly."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_runs import knowledge, sums, write_jsonl

from stillhouse.check import check
from stillhouse.errors import StillhouseError
from stillhouse.recipe import load_recipe
from stillhouse.terms import terms_of

ROOT = Path(__file__).parents[2]
Still = Callable[..., Any]


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., Path]:
    def write(change: Callable[[dict[str, Any]], object] = lambda data: None) -> Path:
        data = knowledge(str(write_jsonl(tmp_path / "seeds.jsonl", sums(2))))
        change(data)
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(data, sort_keys=False))
        return path

    return write


def asked(path: Path, registry: Path | None = None) -> tuple[int, str]:
    """What `still check` says about a recipe and how it exits, without a process of its own."""
    try:
        loaded = load_recipe(path)
        check(loaded)
        return 0, json.dumps(terms_of(loaded, registry_file=registry).before_spending())
    except StillhouseError as error:
        return error.exit_code, str(error)


def local(model: str, **terms: Any) -> Callable[[dict[str, Any]], object]:
    entry = {"backend": "transformers", "model": model, **({"terms": terms} if terms else {})}
    return lambda data: data["teachers"].update(main=entry)


def remark(data: dict[str, Any], **use: Any) -> None:
    data["use"].update(use)


def acknowledged(data: dict[str, Any], **said: Any) -> None:
    local("acme/model")(data)
    data["acknowledgments"] = [
        {
            "type": "stillhouse-ack/v1", "plan_hash": "sha256:" + "0" * 64, "registry": "r", "lifts": ["NO_RECORD"],
            "basis": "risk_accepted", "scope": {"purpose": "research"}, "statement": "s", "person": "ada",
            "date": "2026-10-01", "expires": "2099-01-01", **said,
        }
    ]  # fmt: skip


def seeds_under(data: dict[str, Any], *licences: str) -> None:
    """Branches over the same file, each under a licence of its own, merged into one published work."""
    branch = data["knowledge"]["answers"]
    for number, licence in enumerate(licences):
        seeds = {**branch["seeds"], "terms": {"record": licence}, "path": branch["seeds"]["path"]}
        if number:
            other = Path(seeds["path"]).with_name(f"more{number}.jsonl")
            write_jsonl(other, sums(2, 10 * number))
            seeds["path"] = str(other)
        data["knowledge"][f"b{number}"] = {**branch, "seeds": seeds}
    del data["knowledge"]["answers"]
    remark(data, distributes=["merged_dataset"])


BAD = {
    "unknown model": (local("acme/model"), 4, "NO_RECORD: teacher:acme/model"),
    "unparsable licence": (local("acme/model", record="MIT OR"), 2, "is not a licence expression"),
    "licence of the student that cannot be parsed": (lambda d: remark(d, student_licence="MIT OR"), 2, "licence"),
    "conflicting licences in a mix": (lambda d: seeds_under(d, "CC-BY-SA-4.0", "CC-BY-NC-4.0"), 3, "SA_NC_CONFLICT"),
    "two share-alike families": (lambda d: seeds_under(d, "CC-BY-SA-4.0", "CC-BY-NC-SA-4.0"), 3, "SA_"),
    "no use": (lambda d: d.pop("use"), 2, "use: missing"),
    "unknown purpose": (lambda d: remark(d, purpose="fun"), 2, "purpose"),
    "another plan's acknowledgment": (acknowledged, 4, "it was given for another plan"),
    "an acknowledgment without a date": (lambda d: acknowledged(d, date="soon"), 2, "acknowledgments[0]: date"),
    "a file of an acknowledgment that is not there": (lambda d: d.update(acknowledgments=["a.json"]), 2, "a.json"),
    "personal data sent to nobody knows whom": (
        lambda d: (local("acme/model")(d), d["teachers"]["main"].update(
            backend="openai", base_url="https://llm.acme.example/v1", terms={"record": "mit"}
        ), d.update(screening={"egress": "send"})),
        2, "no record says that the provider of teacher 'main' keeps what it is sent out of training",
    ),
    "a knob of screening that is not there": (lambda d: d.update(screening={"secrets": "allow"}), 2, "screening.secrets"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_it_is_said_in_a_sentence_with_its_exit_code(name: str, recipe: Callable[..., Path]) -> None:
    change, code, said = BAD[name]
    found, told = asked(recipe(change))
    assert (found, said in told) == (code, True), told


def hash_of(path: Path) -> str:
    """The hash of the plan, from the message that asks for an acknowledgment."""
    return "sha256:" + asked(path)[1].partition("plan_hash sha256:")[2][:64]


def test_an_expired_acknowledgment_lifts_nothing(recipe: Callable[..., Path]) -> None:
    plan = hash_of(recipe(local("acme/model")))
    assert asked(recipe(lambda d: acknowledged(d, plan_hash=plan)))[0] == 0
    for said, changed in (
        ("it expired on 2026-10-02", {"expires": "2026-10-02"}),
        ("after", {"date": "2098-01-01"}),
        ("its scope", {"scope": {"purpose": "internal"}}),
    ):
        code, told = asked(recipe(lambda d, changed=changed: acknowledged(d, plan_hash=plan, **changed)))
        assert (code, said in told) == (4, True), told


def test_a_forged_signature_lifts_nothing(recipe: Callable[..., Path], tmp_path: Path) -> None:
    plan = hash_of(recipe(local("acme/model")))
    path = recipe(lambda d: acknowledged(d, plan_hash=plan))
    data = yaml.safe_load(path.read_text())
    (tmp_path / "ack.json").write_text(json.dumps(data["acknowledgments"][0]))
    (tmp_path / "ack.json.sig").write_text("-----BEGIN SSH SIGNATURE-----\nZm9yZ2Vk\n-----END SSH SIGNATURE-----\n")
    (tmp_path / "allowed_signers").write_text(
        "ada ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGx5bmRlcm5vbmVrZXlub25la2V5bm9uZWtleW5vbmVr\n"
    )
    data["acknowledgments"] = ["ack.json"]
    path.write_text(yaml.safe_dump(data))
    code, told = asked(path)
    assert (code, "its signature is not that of ada" in told) == (4, True), told


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id: [", "is not YAML"),
        ("id: acme\nkind: weights\n", "acme.yaml record 0"),
        ("- 3\n", "a terms record is a mapping"),
        (
            "{id: acme@1, kind: weights, holder: A, title: T, access: [weights], models: [{match: 'acme/*'}], grade: P, "
            "read: 2099-01-01, outputs_may_train: no, source: s, quote: q}",
            "after today",
        ),
    ],
)
def test_records_that_cannot_be_read_leave_the_gate_shut(
    text: str, said: str, recipe: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "terms.d").mkdir()
    (tmp_path / "terms.d" / "acme.yaml").write_text(text)
    code, told = asked(recipe())
    assert (code, said in told, len(told.splitlines())) == (4, True, 1), told


def test_through_the_command_line(recipe: Callable[..., Path], still: Still, tmp_path: Path) -> None:
    """One sentence on standard error, the exit code, and no run folder."""
    (tmp_path / "terms.d").mkdir()
    (tmp_path / "terms.d" / "acme.yaml").write_text("id: [")
    done = still("run", recipe(), "--out", tmp_path / "run")
    assert (done.returncode, len(done.stderr.strip().splitlines()), done.stdout) == (4, 1, "")
    assert not (tmp_path / "run").exists()
    plan = tmp_path / "plan.json"
    plan.write_text('{"teachers": [], "datasets": [], "student_base": "none", "use": {"purpose": "research"}}')
    assert still("terms", "check", plan).returncode == 2  # there is no gate here, only a file that cannot be read


def test_a_registry_from_the_future_and_a_newer_one(recipe: Callable[..., Path], tmp_path: Path) -> None:
    ahead, other, newer = (tmp_path / name for name in ("ahead.yaml", "other.yaml", "newer.yaml"))
    ahead.write_text("schema: stillhouse.terms/1\nversion: '2099.01'\ncompiled: '2099-01-01'\nrecords: []\n")
    code, told = asked(recipe(), ahead)
    assert (code, "after today" in told) == (4, True), told
    other.write_text("schema: stillhouse.terms/9\n")
    code, told = asked(recipe(), other)
    assert (code, "schema" in told) == (4, True), told
    text = (ROOT / "src/stillhouse/compliance/terms.yaml").read_text()
    newer.write_text(text.replace("version: '2026.11'", "version: '2026.11b'"))
    code, told = asked(recipe(), newer)
    assert (code, json.loads(told)["decision"]["registry"]["version"]) == (0, "2026.11b")
