"""`still export`: what comes out loads by itself, and the publish gate says what is missing."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_runs import Workspace, knowledge

from stillhouse import distill
from stillhouse.errors import RecipeError, TermsRefused, TermsUnknown
from stillhouse.exporting import export
from stillhouse.store import read_json, write_json

LLAMA = {"record": "meta.llama3.1@2024-07-23"}


def student_recipe(**more: Any) -> dict[str, Any]:
    """A student of three steps, for a use of its own."""
    recipe = knowledge()
    recipe["student"] = {"model": "pocket"}
    recipe["train"] = {
        "objectives": [{"do": "supervised.cross_entropy", "on": "answers"}],
        "args": {"max_steps": 1, "per_device_train_batch_size": 2},
    }
    return {**recipe, **more}


@pytest.fixture(scope="module")
def llama_like(workspace: Workspace) -> Any:
    """Answers on file whose author's licence asks for a name and a policy; meant for everybody."""
    recipe = student_recipe(
        use={"purpose": "open_release", "distributes": [], "licensee": {"mau": 0}, "student_licence": "other"}
    )
    recipe["teachers"]["main"]["terms"] = LLAMA
    path = workspace(recipe, seeds=4)
    return distill(path, out=path.parent / "run", quiet=True)


@pytest.fixture(scope="module")
def with_data(workspace: Workspace) -> Any:
    """A student for research whose rows are handed out."""
    path = workspace(student_recipe(use={"purpose": "research", "distributes": ["dataset"]}), seeds=4)
    return distill(path, out=path.parent / "run", quiet=True)


def again(run: Any, tmp_path: Path, **use: Any) -> Any:
    """The same run under another declaration: nothing is trained again."""
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    recipe = yaml.safe_load((copy / "recipe.yaml").read_text())
    recipe["use"] |= use
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    before = run.manifest["students"][0]["hash"]
    found = distill(tmp_path / "recipe.yaml", out=copy, quiet=True)
    assert found.manifest["students"][0]["hash"] == before
    return found


def test_what_is_exported_loads_in_transformers_alone(trial: Any, tmp_path: Path) -> None:
    """In a process that cannot import this package."""
    out = export(trial.path, tmp_path / "out")
    assert {path.name for path in out.iterdir()} >= {
        "model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
        "README.md", "bom.cdx.json", "TRAINING_SUMMARY.md",
    }  # fmt: skip
    assert not (out / ".from").exists()
    code = (
        "import sys; sys.modules['stillhouse'] = None\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"model = AutoModelForCausalLM.from_pretrained({str(out)!r})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(out)!r})\n"
        "chat = tokenizer.apply_chat_template([{'role': 'user', 'content': 'What is 2 plus 3?'}], add_generation_prompt=True,"
        " return_tensors='pt', return_dict=True)\n"
        "print(model.generate(**chat, max_new_tokens=4).shape[1] > chat['input_ids'].shape[1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr


def test_the_command(trial: Any, tmp_path: Path, still: Callable[..., Any]) -> None:
    done = still("export", trial.path, tmp_path / "out", "--to", "transformers")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path / 'out'}: judged for research, handing out nothing declared\n"
    for words, said in (
        ((trial.path, tmp_path / "out"), "there already"),
        ((trial.path, tmp_path / "b", "--to", "onnx"), "known: transformers"),
        ((trial.path, tmp_path / "b", "--add", tmp_path / "none"), "no such file"),
        ((tmp_path, tmp_path / "b"), "no manifest.json"),
    ):
        done = still("export", *words)
        assert done.returncode == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_the_papers_of_a_run(trial: Any) -> None:
    """CycloneDX by its own schema; the hash in the evidence is that of the manifest that lies there."""
    from hashlib import sha256

    schema = pytest.importorskip("cyclonedx.schema", reason="cyclonedx-python-lib is not installed")
    from cyclonedx.validation.json import JsonStrictValidator

    text = (trial.student / "bom.cdx.json").read_text()
    assert JsonStrictValidator(schema.SchemaVersion.V1_6).validate_str(text) is None
    bom = json.loads(text)
    student = bom["metadata"]["component"]
    digest = sha256((trial.path / "manifest.json").read_bytes()).hexdigest()
    assert student["externalReferences"][0]["hashes"] == [{"alg": "SHA-256", "content": digest}]
    assert f"manifest_sha256: {digest}" in (trial.student / "README.md").read_text()
    links = {row["ref"]: row["dependsOn"] for row in bom["dependencies"]}
    assert {"shard:answers", "shard:beliefs"} <= set(links["student"])
    assert links["shard:beliefs"] == ["teacher:stillhouse/pocket-teacher", "teacher:stillhouse/scripted"]
    shard = next(c for c in bom["components"] if c["bom-ref"] == "shard:answers")
    rows = trial.path / "knowledge/answers/02-quality.correct/out.jsonl"
    assert shard["hashes"][0]["content"] == sha256(rows.read_bytes()).hexdigest()
    summary = (trial.student / "TRAINING_SUMMARY.md").read_text()
    assert "Draft, for review by the provider" in summary
    assert "stillhouse/scripted, run from its weights, wrote or scored answers" in summary
    page = (trial.path / "report.html").read_text()
    assert "<code>student/bom.cdx.json</code>" in page
    assert "screening at ingest: nothing found" in page


def test_an_open_release_names_what_is_missing_and_goes_out_when_it_is_met(llama_like: Any, tmp_path: Path) -> None:
    with pytest.raises(TermsRefused) as e:
        export(llama_like.path, tmp_path / "out")
    assert e.value.exit_code == 3
    assert "NAME_PREFIX:Llama" in str(e.value)
    assert "write use.student_name" in str(e.value)
    assert not (tmp_path / "out").exists()
    named = again(llama_like, tmp_path, student_name="Llama-Small")
    out = export(named.path, tmp_path / "out")
    assert "# Llama-Small" in (out / "README.md").read_text()
    assert "meta.llama3.1@2024-07-23" in (out / "THIRD_PARTY_TERMS.md").read_text()


def test_a_licence_to_pass_on_is_asked_for_and_taken(workspace: Workspace, tmp_path: Path) -> None:
    recipe = student_recipe(use={"purpose": "open_release", "distributes": []})
    recipe["student"]["terms"] = {"record": "apache-2.0"}  # stricter than what the shipped weights ask
    run = distill(workspace(recipe, seeds=4), out=tmp_path / "run", quiet=True)
    with pytest.raises(TermsRefused, match="LICENCE_COPY: copies of 1 texts go with it, 0 LICENSE"):
        export(run.path, tmp_path / "out")
    (tmp_path / "LICENSE").write_text("Apache License, Version 2.0 ...")
    out = export(run.path, tmp_path / "out", add=[tmp_path / "LICENSE"])
    assert (out / "LICENSE").is_file()


def test_a_credential_in_what_goes_along_refuses(trial: Any, tmp_path: Path) -> None:
    (tmp_path / "NOTES.md").write_text("push with ghp_" + "a1B2" * 9)
    (trial.student / "adapter").mkdir()  # as a student with LoRA has one: it stays behind
    (trial.student / "adapter" / "README.md").write_text("base_model: /home/ada/models")
    with pytest.raises(TermsRefused, match="SECRET_FOUND:publish") as e:
        export(trial.path, tmp_path / "out", add=[tmp_path / "NOTES.md"])
    assert "ghp_" not in str(e.value)
    assert not (tmp_path / "out").exists()
    (tmp_path / "NOTES.md").write_text("push with your own token")
    assert not (export(trial.path, tmp_path / "out", add=[tmp_path / "NOTES.md"]) / "adapter").exists()
    shutil.rmtree(trial.student / "adapter")


def test_the_rows_go_along_where_the_use_hands_them_out(with_data: Any, tmp_path: Path) -> None:
    out = export(with_data.path, tmp_path / "out")
    assert len((out / "data/answers/02-quality.correct/out.jsonl").read_text().splitlines()) == 4
    assert "generated by artificial intelligence" in (out / "data/README.md").read_text()


def test_records_and_acknowledgments_are_asked_again_at_the_gate(with_data: Any, tmp_path: Path) -> None:
    """A broken record is unknown, and so is a plan that is not the one that was judged."""
    run = tmp_path / "run"
    shutil.copytree(with_data.path, run)
    (run / "terms/terms.d/broken.yaml").write_text("id: [")
    with pytest.raises(TermsUnknown, match="is not YAML"):
        export(run, tmp_path / "out")
    (run / "terms/terms.d/broken.yaml").unlink()
    manifest = read_json(run / "manifest.json")
    manifest["terms"]["plan"]["use"]["purpose"] = "internal"
    write_json(run / "manifest.json", manifest)
    with pytest.raises(TermsUnknown, match="not the one that was judged"):
        export(run, tmp_path / "out")


def test_the_starting_weights_of_every_arm_are_asked_about(workspace: Workspace, tmp_path: Path) -> None:
    from stillhouse.pocket import student_path

    recipe = student_recipe(use={"purpose": "open_release", "distributes": []})
    llama = {"student": {"model": str(student_path()), "terms": {"record": "meta.llama3.1@2024-07-23"}}}
    recipe["arms"] = {"ours": {}, "theirs": llama}
    recipe["final"] = "ours"
    run = distill(workspace(recipe, seeds=4), out=tmp_path / "run", quiet=True)
    with pytest.raises(TermsRefused, match="NAME_PREFIX:Llama"):
        export(run.path, tmp_path / "out")


def test_a_run_that_is_not_finished_is_not_exported(trial: Any, tmp_path: Path) -> None:
    shutil.copytree(trial.path, tmp_path / "run")
    manifest = read_json(tmp_path / "run" / "manifest.json")
    write_json(tmp_path / "run" / "manifest.json", {**manifest, "state": "interrupted"})
    with pytest.raises(RecipeError, match="not finished"):
        export(tmp_path / "run", tmp_path / "out")


def test_a_run_without_a_student(workspace: Workspace, tmp_path: Path) -> None:
    run = distill(workspace(knowledge(), seeds=2), out=tmp_path / "run", quiet=True)
    with pytest.raises(RecipeError, match="no student in it"):
        export(run.path, tmp_path / "out")
    assert (run.path / "knowledge/bom.cdx.json").is_file()


def test_rows_of_a_teacher_that_nobody_asked_about_go_nowhere(trial: Any, tmp_path: Path) -> None:
    """Files can be changed between training and handing out."""
    run = tmp_path / "run"
    shutil.copytree(trial.path, run)
    for rows in (run / "knowledge").rglob("out.jsonl"):
        rows.write_text(rows.read_text().replace('"teacher":"main"', '"teacher":"mystery"'))
    with pytest.raises(TermsUnknown, match="rows name the teacher 'mystery'"):
        export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
