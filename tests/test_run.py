"""A run that is killed, interrupted or out of disk goes on where it was, pays for nothing twice and ends the same."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import COMMAND, Workspace, knowledge, trial_recipe

from stillhouse import distill, load_run
from stillhouse.books import audit
from stillhouse.errors import RecipeError, RunFailed, TeacherError
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


@pytest.mark.parametrize("every", [12, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_moment_the_knowledge_is_finished_as_if_nothing_had_been(
    every: int, workspace: Workspace, tmp_path: Path
) -> None:
    """SIGKILL before or after each write, fsync, rename and commit of a run (every so many of them)."""
    path = workspace(knowledge(fail={"refused": 3}), seeds=6)
    words = [sys.executable, HERE / "crash.py", path, tmp_path, str(every)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    whole, requests = final(Path(told["whole"])), answered(tmp_path / "store")
    assert len(told["runs"]) * every > 40
    for run in told["runs"]:
        place = Path(run["place"])
        assert (run["killed"], run["resumed"]) == (-signal.SIGKILL, 0), run
        assert final(place / "run") == whole, run
        assert answered(place / "store") == requests, run
        assert audit(place / "run")["balanced"], run


@pytest.fixture(scope="module")
def local(workspace: Workspace) -> Path:
    """A recipe whose teacher is slow and draws at random, with checkpoints often enough to be killed between them."""
    recipe = trial_recipe()
    recipe["teachers"] |= {
        "main": {"backend": "pocket", "batch_size": 1, "sampling": {"max_tokens": 24, "temperature": 1.0}}
    }
    recipe["knowledge"]["answers"] = {
        "seeds": {"do": "file", "path": "seeds.jsonl"},
        "elicit": [{"do": "labeling.answer", "teacher": "main"}],
    }
    recipe["knowledge"]["beliefs"]["elicit"][1]["teacher"] = "main"
    for arm in recipe["arms"].values():
        arm["train"]["args"] |= {"max_steps": 12, "save_steps": 2}
    recipe["repeats"] = 1
    return workspace(recipe, seeds=48, held=6)


@pytest.fixture(scope="module")
def whole(local: Path) -> dict[str, bytes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STILLHOUSE_STORE", str(local.parent / "store"))
        return final(distill(local, out=local.parent / "whole", quiet=True).path)


def started(recipe: Path, folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "STILLHOUSE_STORE": str(folder / "store")}
    words = [*COMMAND, "run", str(recipe), "--out", str(folder / "run")]
    return subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def until(process: subprocess.Popen[str], seen: Callable[[], object]) -> None:
    end = time.monotonic() + 120
    while not seen() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.003)


def stored(folder: Path) -> int:
    try:
        return sum(answered(folder / "store").values())
    except sqlite3.Error:
        return 0


def moments(folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    run = folder / "run"
    yield "while the teacher answers", lambda: stored(folder) >= 8
    yield "between two steps", lambda: (run / "knowledge/answers/01-labeling.answer/stamp.json").exists()
    yield "in training", lambda: any(run.glob("students/text/0/phases/0/checkpoints/checkpoint-[46]"))
    yield "while a student is written", lambda: (run / "students/text/0/model.safetensors").exists()
    yield "in the second training", lambda: any(run.glob("students/beliefs/0/phases/0/checkpoints/checkpoint-*"))
    yield "in the evaluation", lambda: (run / "evaluate/qa/base.jsonl").exists()


def test_killed_again_and_again_the_run_ends_bit_for_bit_the_same(
    local: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    killed = []
    for moment, seen in moments(tmp_path):
        process = started(local, tmp_path)
        until(process, seen)
        process.kill()
        process.communicate()
        killed.append((moment, process.returncode))
    assert [code for _, code in killed] == [-signal.SIGKILL] * len(killed), killed
    last = started(local, tmp_path)
    _, said = last.communicate(timeout=200)
    assert last.returncode == 0, said
    run = tmp_path / "run"
    assert final(run) == whole
    assert any(name.startswith("students/beliefs/0/") for name in whole)
    assert set(answered(tmp_path / "store").values()) == {1}
    assert answered(tmp_path / "store") == answered(local.parent / "store")
    assert audit(run)["balanced"]
    assert left_over(run) == []
    assert len(read_json(run / "manifest.json")["attempts"]) == len(killed) + 1


def test_interrupted_it_says_so_and_goes_on(local: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    process = started(local, tmp_path)
    until(process, lambda: stored(tmp_path) >= 4)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip().splitlines()[-1] == "still: interrupted; the same command again goes on from here"
    assert "Traceback" not in said
    assert read_json(tmp_path / "run" / "manifest.json")["state"] == "interrupted"
    before = answered(tmp_path / "store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STILLHOUSE_STORE", str(tmp_path / "store"))
        assert final(distill(local, out=tmp_path / "run", quiet=True).path) == whole
    assert set(answered(tmp_path / "store").values()) == {1}
    assert before.keys() < answered(tmp_path / "store").keys()


def test_two_processes_in_one_folder_are_refused(local: Path, tmp_path: Path) -> None:
    first = started(local, tmp_path)
    until(first, lambda: stored(tmp_path) >= 4)
    with pytest.raises(RecipeError, match="another process is running in this folder; wait for it, or give --out"):
        distill(local, out=tmp_path / "run", quiet=True)
    first.kill()
    first.communicate()


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


def grown(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)


@pytest.mark.parametrize("size", ["64k", "300k", "1200k"])
def test_a_full_disk_is_one_sentence_and_nothing_made_is_lost(
    size: str,
    workspace: Workspace,
    trial: Any,
    small_disk: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Full while rows are written, while arrays are, while a student is saved; with room again the run ends as any other."""
    disk = small_disk(size)
    monkeypatch.setenv("STILLHOUSE_STORE", str(tmp_path / "store"))
    recipe = workspace(trial_recipe())
    with pytest.raises(RunFailed, match="the disk is full; free some space and run again, nothing made so far is lost"):
        distill(recipe, out=disk / "run", quiet=True)
    kept = {path: path.read_bytes() for path in disk.rglob("out.jsonl")}
    grown(disk)
    run = distill(recipe, out=disk / "run", quiet=True)
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert {name: len(content) for name, content in final(run.path).items()} == {
        name: len(content) for name, content in final(trial.path).items()
    }
    assert audit(run.path)["balanced"]
    assert left_over(run.path) == []


def test_a_full_disk_under_the_store_is_said_too(
    workspace: Workspace, small_disk: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = small_disk("200k")
    monkeypatch.setenv("STILLHOUSE_STORE", str(disk / "store"))
    recipe = workspace(knowledge(reply="The answer is {reference}. " + "x" * 4000), seeds=200)
    with pytest.raises(RunFailed, match=r"answers committed before are kept|the disk is full"):
        distill(recipe, out=recipe.parent / "run", quiet=True)
    grown(disk)
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


def test_repeats_differ_and_arms_share_their_batches(trial: Any) -> None:
    """A repeat has a seed of its own; under one seed both arms see as many tokens in the same order."""
    students = {(s["arm"], s["seed"]): s for s in trial.manifest["students"]}
    assert students.keys() == {(arm, seed) for arm in ("text", "beliefs") for seed in (0, 1)}
    weights = {key: (trial.path / s["path"] / "model.safetensors").read_bytes() for key, s in students.items()}
    assert len(set(weights.values())) == 4
    for seed in (0, 1):
        tokens = {students[arm, seed]["phases"][0]["target_tokens"] for arm in ("text", "beliefs")}
        assert len(tokens) == 1


def test_items_set_aside_for_choosing_count_in_no_score(trial: Any) -> None:
    task = trial.scores["tasks"][0]
    assert task["items"] + task["validation_items"] == 12
    assert task["validation_items"] > 0
    assert {row["items"] for row in trial.scores["summary"]} == {task["items"]}


def test_another_name_or_final_changes_no_student(trial: Any, tmp_path: Path, workspace: Workspace) -> None:
    shutil.copytree(trial.path, tmp_path / "run")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "students").rglob("model.safetensors")}
    recipe = trial_recipe() | {"final": "text/1", "name": "renamed"}
    run = distill(workspace(recipe), out=tmp_path / "run", quiet=True)
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
        distill(knowledge(), out=tmp_path / "file", quiet=True)


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
