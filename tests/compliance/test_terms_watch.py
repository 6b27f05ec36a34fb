"""Screening in real runs: what a server gets to see, what a run stores, what stops it, and that the books balance."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from small_runs import knowledge, write_jsonl

from stillhouse import distill
from stillhouse.books import audit
from stillhouse.compliance.screening import as_use, merged
from stillhouse.compliance.watch import Watch
from stillhouse.errors import RecipeError, TermsRefused
from stillhouse.files import writing_durably
from stillhouse.records import Act, Example, Lost, Origin, Seed, Trajectory, content_id, user
from stillhouse.teachers.asking import jobs
from stillhouse.teachers.base import Failure, Request
from stillhouse.testing.provider import FakeProvider

KEY = "ghp_" + "a1B2" * 9
MAIL = "ada@analytical.uk"


class Elsewhere(BaseHTTPRequestHandler):
    """Stands in the way of all HTTP and answers in the place of the server asked, so that a public name can be asked."""

    seen: list[str]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.seen.append(body.decode())  # type: ignore[attr-defined]
        answer = {
            "id": "1", "object": "chat.completion", "created": 1, "model": "acme-1",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Noted."}}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
        }  # fmt: skip
        out = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(out)))
        self.end_headers()
        self.wfile.write(out)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    server.seen = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_port}")
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def hosted(tmp_path, prompts, *, seeds=None, **more):
    """A run on a hosted model of one's own contract; the instruction, not the seed, may hold what is looked for."""
    write_jsonl(tmp_path / "seeds.jsonl", seeds or [{"prompt": text} for text in prompts])
    recipe = knowledge(str(tmp_path / "seeds.jsonl"))
    recipe["teachers"]["main"] = {
        "backend": "openai", "model": "acme-1", "base_url": "http://llm.acme.example/v1", "price": {"in": 0, "out": 0},
        "terms": {"own_rights": "our own model, at our provider's"},
    }  # fmt: skip
    recipe["knowledge"]["answers"]["select"] = []
    recipe["store"] = str(tmp_path / "store")
    return {**recipe, **more}


def sent(server):
    return "\n".join(server.seen)


def texts(path):
    return "\n".join(p.read_text() for p in path.rglob("*") if p.suffix in (".jsonl", ".json", ".html", ".md"))


def test_personal_data_does_not_leave_and_the_row_keeps_it(tmp_path, elsewhere):
    run = distill(hosted(tmp_path, [f"Write to {MAIL}.", "Say hello."]), out=tmp_path / "run", quiet=True)
    assert MAIL not in sent(elsewhere)
    assert "Write to [EMAIL]." in sent(elsewhere)
    rows = list(run.records("answers"))
    assert rows[0].prompt[0].content == f"Write to {MAIL}."
    step = next(s for s in run.manifest["steps"] if s["do"] == "labeling.answer")
    assert step["screening"]["egress"] == {
        "texts": 2, "lost": 0, "rules": {"email": 1}, "distinct": 1, "secrets": 0, "pii": 1, "pii_redacted": True,
    }  # fmt: skip
    assert step["screening"]["ingest"]["pii"] == 1
    assert not step["screening"]["ingest"]["pii_redacted"]
    assert audit(run.path)["balanced"]
    assert MAIL not in texts(tmp_path / "run" / "evaluate") + (tmp_path / "run" / "manifest.json").read_text()


def test_a_row_can_be_lost_rather_than_sent_and_the_books_balance(tmp_path, elsewhere):
    recipe = hosted(tmp_path, [f"Write to {MAIL}.", "Say hello."], screening={"egress": "drop"})
    run = distill(recipe, out=tmp_path / "run", quiet=True)
    assert len(elsewhere.seen) == 1
    lost = next(s for s in run.manifest["steps"] if s["do"] == "labeling.answer")["lost"]
    assert lost == {"personal_data_found": 1}
    assert audit(run.path)["balanced"]
    detail = (tmp_path / "run/knowledge/answers/01-labeling.answer/lost.jsonl").read_text()
    assert MAIL not in detail
    assert '"detail":"email ' in detail


def test_a_credential_in_a_seed_stops_the_run_before_anything_is_sent(tmp_path, elsewhere):
    with pytest.raises(TermsRefused) as e:
        distill(hosted(tmp_path, ["Say hello.", f"Log in with {KEY}"]), out=tmp_path / "run", quiet=True)
    assert e.value.exit_code == 3
    assert "SECRET_FOUND:ingest" in str(e.value)
    assert KEY not in str(e.value) + texts(tmp_path / "run")
    assert elsewhere.seen == []


@pytest.fixture
def batched(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeProvider]:
    """A provider with batch interfaces that stands in the way of all HTTP."""
    with FakeProvider("Noted.") as provider:
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, provider.url.removesuffix("/v1"))
        for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
            monkeypatch.setenv(name, "none")
        yield provider


def by_batch(tmp_path, prompts, backend, **more):
    recipe = hosted(tmp_path, prompts, **more)
    recipe["teachers"]["main"] |= {"backend": backend, "transport": "batch"}
    return recipe


def arrived(provider: FakeProvider) -> str:
    """Everything that the provider was sent: uploaded files and the items of its batches."""
    files = b"".join(provider.batches.files.values()).decode()
    return files + json.dumps([batch.items for batch in provider.batches.made])


@pytest.mark.parametrize("backend", ["openai", "anthropic"])
def test_a_batch_is_screened_before_its_file_is_written(tmp_path, batched, backend, monkeypatch):
    """What leaves by batch is what would leave one by one, and the file that waits in the store's folder holds no more."""
    written: list[bytes] = []

    @contextmanager
    def seen(path):
        with writing_durably(path) as file:
            yield file
        written.append(path.read_bytes())

    monkeypatch.setattr(jobs, "writing_durably", seen)
    recipe = by_batch(tmp_path, [f"Write to {MAIL}.", "Say hello."], backend)
    run = distill(recipe, out=tmp_path / "run", quiet=True)
    assert [len(batch.items) for batch in batched.batches.made] == [2]
    assert written
    assert MAIL not in arrived(batched) + b"".join(written).decode()
    assert "Write to [EMAIL]." in arrived(batched)
    assert [row.prompt[0].content for row in run.records("answers")] == [f"Write to {MAIL}.", "Say hello."]
    step = next(s for s in run.manifest["steps"] if s["do"] == "labeling.answer")
    assert (step["screening"]["egress"]["texts"], step["screening"]["egress"]["pii"]) == (2, 1)
    assert audit(run.path)["balanced"]


@pytest.mark.parametrize("backend", ["openai", "anthropic"])
def test_a_row_that_may_not_leave_is_in_no_batch(tmp_path, batched, backend):
    recipe = by_batch(tmp_path, [f"Write to {MAIL}.", "Say hello."], backend, screening={"egress": "drop"})
    run = distill(recipe, out=tmp_path / "run", quiet=True)
    assert [len(batch.items) for batch in batched.batches.made] == [1]
    assert "Write to" not in arrived(batched)
    assert run.manifest["steps"][1]["lost"] == {"personal_data_found": 1}
    assert audit(run.path)["balanced"]


@pytest.mark.parametrize("backend", ["openai", "anthropic"])
def test_one_credential_keeps_the_whole_batch_at_home(tmp_path, batched, backend):
    recipe = by_batch(tmp_path, ["Say hello.", "Say goodbye."], backend)
    recipe["knowledge"]["answers"]["elicit"][0]["instruction"] = f"Use the token {KEY}."
    with pytest.raises(TermsRefused, match="SECRET_FOUND:egress"):
        distill(recipe, out=tmp_path / "run", quiet=True)
    assert (batched.batches.made, batched.batches.files, batched.requests) == ([], {}, [])
    assert not list((tmp_path / "store").glob("batches/*"))


def test_a_credential_in_an_instruction_stops_before_that_prompt_is_sent(tmp_path, elsewhere):
    recipe = hosted(tmp_path, ["Say hello."])
    recipe["knowledge"]["answers"]["elicit"][0]["instruction"] = f"Use the token {KEY}."
    with pytest.raises(TermsRefused, match="SECRET_FOUND:egress"):
        distill(recipe, out=tmp_path / "run", quiet=True)
    assert elsewhere.seen == []


def test_rows_with_credentials_can_be_lost(tmp_path, elsewhere):
    recipe = hosted(tmp_path, ["Say hello.", f"Log in with {KEY}"], screening={"secrets": "drop"})
    run = distill(recipe, out=tmp_path / "run", quiet=True)
    seeds = run.manifest["steps"][0]
    assert (seeds["in"], seeds["out"], seeds["lost"]) == (2, 1, {"secret_found": 1})
    assert seeds["screening"]["ingest"] == {
        "texts": 2, "lost": 1, "rules": {"github_token": 1}, "distinct": 1, "secrets": 0, "pii": 0, "pii_redacted": False,
    }  # fmt: skip
    assert audit(run.path)["balanced"]
    assert KEY not in sent(elsewhere) + texts(run.path)


def test_what_a_local_teacher_is_asked_does_not_leave(tmp_path):
    write_jsonl(tmp_path / "seeds.jsonl", [{"prompt": f"Write to {MAIL}.", "reference": "4"}])
    run = distill(knowledge(str(tmp_path / "seeds.jsonl")), out=tmp_path / "run", quiet=True)
    assert all("egress" not in step["screening"] for step in run.manifest["steps"])
    assert run.manifest["steps"][0]["screening"]["ingest"]["pii"] == 1


def test_a_recorded_answer_with_a_credential_is_found_as_it_comes_in(tmp_path):
    write_jsonl(tmp_path / "seeds.jsonl", [{"prompt": "How do I log in to the machine?"}])
    write_jsonl(
        tmp_path / "said.jsonl", [{"prompt": "How do I log in to the machine?", "response": f"With {KEY}, as always."}]
    )
    recipe = knowledge(str(tmp_path / "seeds.jsonl"))
    recipe["teachers"]["main"] = {
        "backend": "recorded", "path": str(tmp_path / "said.jsonl"), "terms": {"own_rights": "our support team's"},
    }  # fmt: skip
    recipe["knowledge"]["answers"]["select"] = []
    with pytest.raises(TermsRefused, match="SECRET_FOUND:ingest"):
        distill(recipe, out=tmp_path / "run", quiet=True)


# the parts -------------------------------------------------------------------------------------------------------


def asked(text, **more):
    return Request(user(text), **more)


def test_hashes_need_the_salt():
    record = Seed("s", user(f"Log in with {KEY}"))
    one, other = (Watch("drop", salt=salt).coming(record)[0] for salt in (b"x", b"y"))
    assert isinstance(one, Lost)
    assert isinstance(other, Lost)
    assert one.detail != other.detail
    assert one.detail.startswith("github_token ")


def test_a_lost_row_of_several_parents_is_a_loss_for_each():
    record = Example(content_id("x"), user("q"), f"use {KEY}", origin=Origin(("a", "b"), "main"))
    assert [row.parent for row in Watch("drop").coming(record)] == ["a", "b"]


def test_every_text_of_a_row_is_looked_at_whatever_its_kind():
    walk = Trajectory("t", user("q"), (Act("think", "login", f"token {KEY}", "ok"),), origin=Origin(("a",), "main"))
    named = Seed("s", user("q"), columns={"notes": [{"by": f"{MAIL}"}]})
    watch = Watch("drop")
    assert [type(row) for row in (*watch.coming(walk), *watch.coming(named))] == [Lost, Seed]
    assert watch.taken()["ingest"]["rules"] == {"email": 1, "github_token": 1}


def test_what_is_scored_is_sent_as_it_stands_or_not_at_all():
    watch = Watch()
    assert isinstance(watch.leaving(asked("q", scored=f"to {MAIL}")), Failure)
    assert watch.leaving(asked("q", scored="to nobody")) == asked("q", scored="to nobody")
    assert isinstance(Watch(egress="send").leaving(asked("q", scored=f"to {MAIL}")), Request)


def test_reports_add_up_and_become_the_plans_counts():
    watch = Watch()
    watch.leaving(asked(f"to {MAIL}"))
    first = watch.taken()
    assert watch.taken() == {}
    watch.leaving(asked(f"from {MAIL} to {MAIL}"))
    total = merged([first, watch.taken()])
    assert total["egress"]["rules"] == {"email": 3}
    assert as_use(total) == {"egress": {"secrets": 0, "pii": 3, "pii_redacted": True}}


# the other points ------------------------------------------------------------------------------------------------


def test_a_row_that_was_changed_by_hand_is_looked_at_again_before_training(tmp_path):
    write_jsonl(tmp_path / "seeds.jsonl", [{"prompt": "What is 2 plus 2?", "reference": "4"}])
    recipe = knowledge(str(tmp_path / "seeds.jsonl"))
    distill(recipe, out=tmp_path / "run", quiet=True)
    rows = tmp_path / "run/knowledge/answers/02-quality.correct/out.jsonl"
    rows.write_text(rows.read_text().replace("The answer is 4.", f"Log in with {KEY}."))
    recipe["student"] = {"model": "pocket"}
    recipe["train"] = {"objectives": [{"do": "supervised.cross_entropy", "on": "answers"}], "args": {"max_steps": 1}}
    with pytest.raises(TermsRefused, match="SECRET_FOUND:pretrain") as e:
        distill(recipe, out=tmp_path / "run", quiet=True)
    assert KEY not in str(e.value)
    assert not (tmp_path / "run" / "students").exists()


OURS = """
id: acme.agreement
kind: contract
holder: Acme
title: Our agreement
access: ["api:acme"]
models: [{match: "acme-1"}]
grade: P
read: 2026-11-01
outputs_may_train: yes
provider_trains_on_inputs: no
source: contract 2026/17
quote: Customer may train models on output.
"""


def test_personal_data_goes_out_as_it_is_where_a_contract_keeps_it_out_of_training(tmp_path, elsewhere):
    recipe = hosted(tmp_path, [f"Write to {MAIL}."], screening={"egress": "send"})
    recipe["teachers"]["main"]["terms"] = {"access": "api:acme"}
    (tmp_path / "terms.d").mkdir()
    (tmp_path / "terms.d" / "acme.yaml").write_text(OURS.replace("inputs: no", "inputs: unpaid tier only"))
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    with pytest.raises(RecipeError, match="provider_trains_on_inputs"):
        distill(tmp_path / "recipe.yaml", out=tmp_path / "run", quiet=True)
    assert elsewhere.seen == []
    (tmp_path / "terms.d" / "acme.yaml").write_text(OURS)
    run = distill(tmp_path / "recipe.yaml", out=tmp_path / "run", quiet=True)
    assert MAIL in sent(elsewhere)
    asked = next(step for step in run.manifest["steps"] if step["do"] == "labeling.answer")
    assert not asked["screening"]["egress"]["pii_redacted"]
    assert MAIL not in json.dumps(run.manifest)
