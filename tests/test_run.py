"""A run that is killed, interrupted or out of disk goes on where it was, pays for nothing twice and ends the same."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from small_runs import Workspace, knowledge, sums, trial_recipe, write_jsonl

from stillhouse import distill, load_run
from stillhouse.books import audit
from stillhouse.errors import RecipeError, RunFailed, TeacherError
from stillhouse.recipe import load_recipe
from stillhouse.run import Options, execute
from stillhouse.store import read_json

HERE = Path(__file__).parent


def answered(store: Path) -> Counter[str]:
    """How many attempts at each request gave an answer."""
    with sqlite3.connect(f"file:{store / 'store.sqlite'}?mode=ro", uri=True) as db:
        return Counter(key for (key,) in db.execute("SELECT key FROM attempt WHERE outcome = 'answered'"))


def final(run: Path) -> dict[str, bytes]:
    """Everything that a run ends with and that does not tell the time."""
    patterns = (
        "knowledge/*/*/*.jsonl", "knowledge/*/*/*.safetensors", "students/*/*/*.safetensors", "student/*.safetensors",
        "evaluate/*/*.jsonl", "evaluate/scores.json",
    )  # fmt: skip
    found = {path for pattern in patterns for path in run.glob(pattern)}
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(found)}


def left_over(run: Path) -> list[str]:
    return [str(path.relative_to(run)) for path in run.rglob("*") if ".part" in path.name or path.name == "phases"]


def crashes(*words: object) -> list[dict[str, Any]]:
    done = subprocess.run([sys.executable, HERE / "crash.py", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("every", [12, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_moment_the_knowledge_is_finished_as_if_nothing_had_been(
    every: int, workspace: Workspace, tmp_path: Path
) -> None:
    """SIGKILL before or after each write, fsync, rename and commit of a run (every so many of them)."""
    path = workspace(knowledge(fail={"refused": 3}), seeds=6)
    told = crashes("every", every, path, tmp_path)
    whole, requests = final(tmp_path / "whole" / "run"), answered(tmp_path / "whole" / "store")
    assert len(told) * every > 40
    assert len(requests) == 4
    for each in told:
        place = tmp_path / str(each["moment"])
        assert (each["killed"], each["resumed"]) == (-signal.SIGKILL, 0), each
        assert final(place / "run") == whole, each
        assert answered(place / "store") == requests, each
        assert audit(place / "run")["balanced"], each


def local_recipe() -> dict[str, Any]:
    """A local teacher that draws at random in small chunks; checkpoints often enough to be killed between them."""
    recipe = trial_recipe()
    recipe["teachers"] = {
        "main": {"backend": "pocket", "batch_size": 1, "sampling": {"max_tokens": 8, "temperature": 1.0}}
    }
    answers = [{"do": "labeling.answer", "teacher": "main"}]
    beliefs = [{"do": "labeling.reference"}, {"do": "feature.top_logprobs", "teacher": "main", "k": 8}]
    for name, elicit in (("answers", answers), ("beliefs", beliefs)):
        recipe["knowledge"][name] = {"seeds": {"do": "file", "path": "seeds.jsonl"}, "elicit": elicit}
    for arm in recipe["arms"].values():
        arm["train"]["args"] |= {"max_steps": 6, "save_steps": 2}
    recipe["evaluate"][0] |= {"teacher": "main", "max_new_tokens": 4}
    return recipe | {"repeats": 1}


@pytest.mark.slow
def test_killed_again_and_again_a_run_ends_bit_for_bit_the_same(workspace: Workspace, tmp_path: Path) -> None:
    """While answers come in, between steps, in training, while weights are written, in the evaluation."""
    told = {each["moment"]: each["killed"] for each in crashes("chain", workspace(local_recipe(), held=6), tmp_path)}
    assert (told.pop("never"), told.pop("never again")) == (0, 0)
    assert told == dict.fromkeys(told, -signal.SIGKILL)
    whole, run = final(tmp_path / "whole" / "run"), tmp_path / "killed" / "run"
    assert {name for name in whole if name.endswith("model.safetensors")} == {
        "student/model.safetensors", "students/beliefs/0/model.safetensors", "students/text/0/model.safetensors",
    }  # fmt: skip
    different = [name for name, content in final(run).items() if whole.get(name) != content]
    assert different == []
    assert final(run).keys() == whole.keys()
    assert set(answered(tmp_path / "killed" / "store").values()) == {1}
    assert answered(tmp_path / "killed" / "store") == answered(tmp_path / "whole" / "store")
    assert audit(run)["balanced"]
    assert left_over(run) == []
    assert len(read_json(run / "manifest.json")["attempts"]) == len(told) + 1


def test_interrupted_it_says_so_and_goes_on(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while the second chunk of answers is stored."""
    monkeypatch.setenv("STILLHOUSE_STORE", str(tmp_path / "store"))
    recipe = workspace(knowledge(), seeds=300)
    script = (
        "import os, signal\nfrom stillhouse.teachers.asking.answers import AnswerStore\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job inherits it ignored
        "commit, calls = AnswerStore.commit, []\n"
        "def watched(*args, **kwargs):\n    commit(*args, **kwargs)\n    calls.append(1)\n"
        "    if len(calls) == 1:\n        os.kill(os.getpid(), signal.SIGINT)\n"
        "AnswerStore.commit = watched\nfrom stillhouse.cli import main\nmain()\n"
    )
    words = [sys.executable, "-c", script, "run", str(recipe), "--out", str(tmp_path / "run")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 130, done.stderr
    assert done.stderr.strip().splitlines()[-1] == "still: interrupted; the same command again goes on from here"
    assert "Traceback" not in done.stderr
    assert read_json(tmp_path / "run" / "manifest.json")["state"] == "interrupted"
    assert 0 < len(answered(tmp_path / "store")) < 300
    assert distill(recipe, out=tmp_path / "run", quiet=True).manifest["state"] == "done"
    assert answered(tmp_path / "store") == Counter(dict.fromkeys(answered(tmp_path / "store"), 1))
    assert len(answered(tmp_path / "store")) == 300


def test_two_processes_in_one_folder_are_refused(tmp_path: Path) -> None:
    hold = (
        f"import fcntl\nfile = open({str(tmp_path / '.lock')!r}, 'w')\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\nprint('held', flush=True)\ninput()\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    holder.stdout.readline()
    write_jsonl(tmp_path / "seeds.jsonl", sums(2))
    recipe = knowledge(str(tmp_path / "seeds.jsonl"))
    with pytest.raises(RecipeError, match="another process is running in this folder; wait for it, or give --out"):
        distill(recipe, out=tmp_path, quiet=True)
    holder.communicate("\n")
    assert distill(recipe, out=tmp_path, quiet=True).manifest["state"] == "done"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A file system of its own with only so much room, where this user may mount one."""
    mounted = []

    def mount(size: str) -> Path:
        place = tmp_path / "disk"
        place.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        if shutil.which("mount") is None or subprocess.run(words, capture_output=True).returncode:
            pytest.skip("only root can mount a small disk to fill")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize("size", ["64k", "1500k"])
def test_a_full_disk_is_one_sentence_and_nothing_made_is_lost(
    size: str, workspace: Workspace, small_disk: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Full while records are written, and while weights are; with room again the run ends as any other."""
    disk = small_disk(size)
    monkeypatch.setenv("STILLHOUSE_STORE", str(tmp_path / "store"))
    recipe = trial_recipe() | {"repeats": 1, "evaluate": []}
    recipe["arms"]["beliefs"]["train"]["args"] = {"max_steps": 1}
    recipe["arms"].pop("text")
    path = workspace(recipe)
    with pytest.raises(RunFailed, match="the disk is full; free some space and run again, nothing made so far is lost"):
        distill(path, out=disk / "run", quiet=True)
    kept = {out: out.read_bytes() for out in disk.rglob("out.jsonl")}
    assert kept
    subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
    run = distill(path, out=disk / "run", quiet=True)
    assert all(out.read_bytes() == content for out, content in kept.items())
    assert (run.student / "model.safetensors").stat().st_size > 1_000_000
    assert audit(run.path)["balanced"]
    assert left_over(run.path) == []


def test_a_full_disk_under_the_store_is_said_too(
    workspace: Workspace, small_disk: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = small_disk("200k")
    monkeypatch.setenv("STILLHOUSE_STORE", str(disk / "store"))
    recipe = workspace(knowledge(reply="x" * 4000 + ". The answer is {reference}."), seeds=200)
    with pytest.raises(RunFailed, match=r"answers committed before are kept|the disk is full"):
        distill(recipe, out=recipe.parent / "run", quiet=True)
    subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
    distill(recipe, out=recipe.parent / "run", quiet=True)
    assert set(answered(disk / "store").values()) == {1}


def test_what_cannot_be_written_is_named(workspace: Workspace, tmp_path: Path) -> None:
    """RLIMIT_FSIZE: a file may not grow further."""
    recipe = workspace(knowledge(), seeds=300)
    script = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60000, 60000))\n"
        "from stillhouse.cli import main\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "run", str(recipe), "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "File too large" in done.stderr or "cannot be written" in done.stderr


def test_a_loss_that_is_not_finite_ends_the_run_with_its_step(workspace: Workspace) -> None:
    recipe = trial_recipe()
    recipe["arms"] = {"text": recipe["arms"]["text"]}
    recipe["arms"]["text"]["train"]["args"] = {"max_steps": 30, "learning_rate": 1e9, "max_grad_norm": 0}
    recipe["repeats"] = 1
    path = workspace(recipe)
    with pytest.raises(RunFailed, match=r"train: .* is not finite at step \d+; lower learning_rate"):
        distill(path, out=path.parent / "run", quiet=True)
    manifest = read_json(path.parent / "run" / "manifest.json")
    assert manifest["state"] == "failed"
    assert "is not finite" in manifest["stopped_by"]
    assert manifest["steps"][0]["out"] == 24  # the knowledge is kept


def test_a_server_nobody_reaches_is_one_sentence(workspace: Workspace) -> None:
    recipe = knowledge()
    recipe["teachers"]["main"] = {"backend": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"}
    recipe["teachers"]["main"]["terms"] = {"own_rights": "a server of our own"}
    path = workspace(recipe)
    with pytest.raises(TeacherError, match=r"127\.0\.0\.1:9") as error:
        distill(path, out=path.parent / "run", quiet=True)
    assert error.value.exit_code == 5
    assert "\n" not in str(error.value)


def test_a_student_of_the_trial_is_the_one_named_final(trial: Any) -> None:
    scores = trial.scores
    chosen = scores["final"]
    home = trial.path / "students" / chosen["arm"] / str(chosen["seed"])
    assert (trial.student / "model.safetensors").read_bytes() == (home / "model.safetensors").read_bytes()
    assert {row["arm"] for row in scores["summary"]} == {"base", "text", "beliefs", "teacher:pocket"}
    assert left_over(trial.path) == []


def test_every_arm_is_trained_once_per_repeat_each_with_a_seed_of_its_own(trial: Any) -> None:
    students = {(s["arm"], s["seed"]): s for s in trial.manifest["students"]}
    assert students.keys() == {(arm, seed) for arm in ("text", "beliefs") for seed in (0, 1)}
    weights = {key: (trial.path / s["path"] / "model.safetensors").read_bytes() for key, s in students.items()}
    assert len(set(weights.values())) == 4
    assert {s["phases"][0]["steps"] for s in students.values()} == {4}


def test_items_set_aside_for_choosing_count_in_no_score(trial: Any) -> None:
    task = trial.scores["tasks"][0]
    assert task["items"] + task["validation_items"] == 12
    assert task["validation_items"] > 0
    assert {row["items"] for row in trial.scores["summary"]} == {task["items"]}


def test_another_name_or_final_changes_no_student(trial: Any, tmp_path: Path) -> None:
    shutil.copytree(trial.path, tmp_path / "run")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "students").rglob("model.safetensors")}
    recipe = load_recipe(trial_recipe() | {"final": "text/1", "name": "renamed"}, folder=trial.path.parent)
    run = execute(recipe, tmp_path / "run", Options(quiet=True))
    assert run.scores["final"] == {"arm": "text", "seed": 1}
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_run_folder_is_told_from_any_other(trial: Any, tmp_path: Path) -> None:
    assert load_run(trial.path).manifest["state"] == "done"
    with pytest.raises(RecipeError, match=r"no manifest\.json in it; a run folder is what `still run` made"):
        load_run(tmp_path)
    with pytest.raises(RecipeError, match="no branch 'nothing' with records"):
        trial.records("nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(RecipeError, match="a file is in the way"):
        distill(knowledge(str(trial.path.parent / "seeds.jsonl")), out=tmp_path / "file", quiet=True)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff"])
def test_a_damaged_manifest_is_said(damage: bytes, workspace: Workspace) -> None:
    path = workspace(knowledge())
    run = distill(path, out=path.parent / "run", quiet=True)
    (run.path / "manifest.json").write_bytes(damage)
    with pytest.raises(RunFailed, match=r"manifest\.json: damaged .* delete it and run again"):
        distill(path, out=run.path, quiet=True)
    (run.path / "manifest.json").unlink()
    assert distill(path, out=run.path, quiet=True).manifest["state"] == "done"


def peak(recipe: Path, folder: Path) -> int:
    """MiB that a run of its own needs at most."""
    script = (
        "import resource, sys\nfrom stillhouse import distill\n"
        f"distill({str(recipe)!r}, out={str(folder)!r}, quiet=True)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)\n"
    )
    environment = {**os.environ, "STILLHOUSE_STORE": str(folder.parent / f"{folder.name}-store")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(workspace: Workspace, tmp_path: Path) -> None:
    """Twenty times the rows: what is held is an id and an offset each, not the rows (they weigh 2 KB)."""
    recipe = knowledge(reply="It is {reference}. " + "Because. " * 100 + "The answer is {reference}.")
    few, many = (
        peak(workspace(recipe, seeds=2_000), tmp_path / "few"),
        peak(workspace(recipe, seeds=40_000), tmp_path / "many"),
    )
    assert many - few < 25, (few, many)  # the rows of one step alone are more than 80 MiB
