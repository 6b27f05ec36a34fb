"""The command line as a program sees it: words in, exit codes and JSON out, never a traceback for a user's mistake."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_runs import Workspace, knowledge, sums, write_jsonl

from stillhouse.errors import RecipeError

Still = Callable[..., subprocess.CompletedProcess[str]]


def said(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The one sentence of an error."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()
    assert len([line for line in last if line.startswith("still: ")]) == 1, done.stderr
    return last[-1]


@pytest.fixture(scope="module")
def small(workspace: Workspace) -> Path:
    return workspace(knowledge())


@pytest.fixture(scope="module")
def done(small: Path) -> Path:
    from stillhouse import distill

    return distill(small, out=small.parent / "run", quiet=True).path


@pytest.mark.parametrize(
    "words", [["--help"], ["run", "--help"], ["terms", "--help"], ["list"], ["explain", "math.equal"]]
)
def test_what_only_tells_imports_nothing_heavy(words: list[str]) -> None:
    """`still --help` answers at once because it imports nothing it does not print from."""
    script = (
        "import sys\nfrom stillhouse.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print('\\n'.join(sorted({name.split('.')[0] for name in sys.modules})), file=sys.stderr)\n"
    )
    found = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    loaded = set(found.stderr.split())
    heavy = {"torch", "transformers", "datasets", "openai", "peft", "accelerate", "pandas", "pyarrow", "scipy", "sympy"}
    assert loaded & heavy == set()
    if words == ["--help"]:
        assert loaded & {"pydantic", "jinja2", "yaml", "safetensors"} == set()


def test_every_command_says_what_it_does(still: Still) -> None:
    found = still("--help")
    assert found.returncode == 0
    commands = [line.split()[0] for line in found.stdout.split("Commands:")[1].splitlines() if line.startswith("  ")]
    assert {"demo", "new", "list", "explain", "schema", "check", "run", "report", "compare", "why", "audit"} <= set(
        commands
    )


def test_both_ways_to_start_it_are_the_same() -> None:
    program = shutil.which("still", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert program is not None
    told = [
        subprocess.run([*start, "--help"], capture_output=True, text=True).stdout
        for start in ([program], [sys.executable, "-m", "stillhouse"])
    ]
    assert told[0].splitlines()[1:] == told[1].splitlines()[1:]
    assert told[0]


@pytest.mark.parametrize(
    "words",
    [
        ["frobnicate"],
        ["run"],
        ["check", "--limit", "many", "x"],
        ["run", "--limit", "0", "x"],
        ["audit"],
        ["list", "--frob"],
        ["compare"],
    ],
)
def test_a_command_written_wrongly_is_two(still: Still, words: list[str]) -> None:
    found = still(*words)
    assert found.returncode == 2
    assert "Traceback" not in found.stderr
    assert found.stderr


def test_mistakes_in_a_recipe_are_two(still: Still, small: Path, tmp_path: Path) -> None:
    assert "no recipe file 'nowhere.yaml'" in said(still("check", "nowhere.yaml"), 2)
    assert "sede: unknown key; did you mean 'seed'" in said(still("run", small, "--set", "sede=1"), 2)
    assert "no elicit named" in said(still("run", small, "--set", "knowledge.answers.elicit.0.do=labeling.anser"), 2)
    (tmp_path / "broken.yaml").write_text("a: [")
    assert "line 1: not valid YAML" in said(still("check", tmp_path / "broken.yaml"), 2)
    assert "no manifest.json in it" in said(still("audit", tmp_path), 2)
    assert (
        "no row 'zzz'" in said(still("why", small.parent / "run", "zzz"), 2)
        if (small.parent / "run").exists()
        else True
    )


def test_a_folder_that_cannot_be_made_is_one_sentence(still: Still, small: Path, tmp_path: Path) -> None:
    assert "/proc/run: " in said(still("run", small, "--out", "/proc/run"), 1)
    (tmp_path / "file").touch()
    assert f"{tmp_path}/file: " in said(
        still("run", small, "--out", tmp_path / "o", STILLHOUSE_STORE=str(tmp_path / "file")), 1
    )


def test_a_terminal_of_another_encoding_is_written_to(still: Still) -> None:
    found = still("terms", "show", "meta.llama3.3@2024-12-06", PYTHONIOENCODING="latin-1")
    assert found.returncode == 0, found.stderr
    assert "\\u201c" in found.stdout


def test_a_limit_of_nothing_is_refused_in_python_too(small: Path) -> None:
    from stillhouse import distill

    with pytest.raises(RecipeError, match="at least 1"):
        distill(small, limit=0)


def test_a_broken_row_is_two_with_its_line(still: Still, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "seeds.jsonl", sums(3))
    with open(tmp_path / "seeds.jsonl", "a") as file:
        file.write("{oops\n")
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(knowledge()))
    assert "seeds.jsonl, line 4: not JSON" in said(still("check", tmp_path / "r.yaml"), 2)


def test_nothing_left_is_seven(still: Still, workspace: Workspace) -> None:
    path = workspace(knowledge(reply="The answer is 0."))
    assert "no row is left" in said(still("run", path, "--out", path.parent / "run"), 7)


def test_an_unreachable_teacher_is_five(still: Still, workspace: Workspace) -> None:
    recipe = knowledge()
    recipe["teachers"]["main"] = {
        "backend": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1", "terms": {"own_rights": "ours"},
    }  # fmt: skip
    path = workspace(recipe)
    assert "127.0.0.1:9" in said(still("run", path, "--out", path.parent / "run"), 5)


def test_books_that_do_not_balance_are_one(still: Still, done: Path, tmp_path: Path) -> None:
    assert still("audit", done).returncode == 0
    shutil.copytree(done, tmp_path / "run")
    out = tmp_path / "run/knowledge/answers/02-quality.correct/out.jsonl"
    out.write_text("".join(out.read_text().splitlines(keepends=True)[1:]))
    found = still("audit", tmp_path / "run")
    assert found.returncode == 1
    assert "problem: " in found.stdout
    assert "Traceback" not in found.stderr


def test_json_for_programs(still: Still, small: Path, done: Path, trial: Any) -> None:
    assert "no row 'zzz'" in said(still("why", done, "zzz"), 2)
    row = json.loads((done / "knowledge/answers/02-quality.correct/out.jsonl").open().readline())["id"]
    commands: list[tuple[list[object], Callable[[Any], object]]] = [
        (["list", "graders", "--json"], lambda j: j["graders"]["math.equal"]),
        (["explain", "labeling.reason", "--json"], lambda j: j[0]["knobs"]["cut"]),
        (["schema"], lambda j: j["properties"]["knowledge"]),
        (["check", small, "--json"], lambda j: j["branches"][0]["requests"] == {"main": 24}),
        (["audit", done, "--json"], lambda j: j["balanced"] is True),
        (["report", done, "--json"], lambda j: Path(j["report"]).is_file()),
        (["why", done, row, "--json"], lambda j: len(j) == 3),
        (["compare", trial.path, "--json"], lambda j: j["summary"][0]["task"] == "qa"),
    ]
    for words, holds in commands:
        found = still(*words)
        assert found.returncode == 0, found.stderr
        assert holds(json.loads(found.stdout)), words


def test_run_prints_where_the_report_is_and_keeps_its_command(still: Still, workspace: Workspace) -> None:
    path = workspace(knowledge())
    found = still("run", "recipe.yaml", "--limit", "5", cwd=path.parent)
    assert found.returncode == 0, found.stderr
    again = json.loads(still("run", "recipe.yaml", "--limit", "5", "--json", cwd=path.parent).stdout)
    assert again["report"] == "runs/small/report.html"
    run = path.parent / "runs" / "small"
    assert found.stdout.splitlines()[-1] == f"report: {run.relative_to(path.parent) / 'report.html'}"
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["command"] == "still run recipe.yaml --limit 5 --json"
    assert manifest["steps"][0]["out"] == 5
    progress = json.loads((run / "progress.json").read_text())
    assert (progress["stage"], progress["done"], progress["total"]) == ("done", 1, 1)


def test_new_copies_a_recipe_and_never_writes_over_anything(still: Still, tmp_path: Path) -> None:
    names = still("new").stdout.split()
    assert "demo" in names
    found = still("new", "demo", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    wrote = [tmp_path / line.removeprefix("wrote ") for line in found.stdout.splitlines()]
    assert wrote[0] == tmp_path / "demo.yaml"
    assert all(path.is_file() for path in wrote)
    assert still("check", "demo.yaml", cwd=tmp_path).returncode == 0
    assert "demo.yaml: there already; name another file: still new demo FILE" in said(
        still("new", "demo", cwd=tmp_path), 2
    )
    assert still("new", "demo", "second.yaml", cwd=tmp_path).stdout == "wrote second.yaml\n"
    (tmp_path / "seeds.jsonl").write_text("{}")
    assert "still new demo FOLDER/FILE" in said(still("new", "demo", "third.yaml", cwd=tmp_path), 2)
    assert (tmp_path / "seeds.jsonl").read_text() == "{}"
    assert "did you mean 'demo'" in said(still("new", "dmeo", cwd=tmp_path), 2)


def test_chat_ends_with_an_empty_line(trial: Any) -> None:
    words = [sys.executable, "-m", "stillhouse", "chat", str(trial.path)]
    found = subprocess.run(words, input="What is 2 plus 3?\n\n", capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "student: " in found.stdout


def test_chat_without_a_student_is_two(still: Still, done: Path) -> None:
    assert "no student in it; the run has not trained one" in said(still("chat", done), 2)
