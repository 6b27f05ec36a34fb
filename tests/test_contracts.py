"""What others rely on: the recipe of the design, the run folder, the commands and their exit codes."""

import json
from pathlib import Path
from typing import Any

from small_runs import sums, write_jsonl
from typer.testing import CliRunner

from stillhouse import distill, errors
from stillhouse.check import check
from stillhouse.cli import app
from stillhouse.recipe import Recipe, load_recipe

# the recipe of the design, word for word
RECIPE = """\
name: arithmetic-rationales
use:       {purpose: research, distributes: []}          # what the terms are checked against
teachers:
  main:    {backend: pocket}
knowledge:                                   # equation 1, a branch each
  rationales:
    seeds:  {do: file, path: seeds.jsonl}
    elicit: [{do: labeling.reason, teacher: main}]
    select: [{do: quality.correct, grader: {do: math.equal}}]
student:   {model: pocket}
train:                                       # equation 2, a weighted sum; or a list of such phases, each starting where the last ended
  objectives: [{do: supervised.cross_entropy, on: rationales, weight: 1.0}]
  args: {max_steps: 200, learning_rate: 1.0e-3}          # transformers.TrainingArguments, refused if unknown
evaluate: [{do: qa, path: held_out.jsonl, grader: {do: math.equal}}]
"""  # noqa: E501
DATA = Path(__file__).parent.parent / "src" / "stillhouse" / "recipes" / "demo"


def test_the_recipe_of_the_design_is_accepted_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    write_jsonl(tmp_path / "seeds.jsonl", sums(3))
    write_jsonl(tmp_path / "held_out.jsonl", sums(2, start=50))
    loaded = load_recipe(tmp_path / "recipe.yaml")
    plan = check(loaded)
    branch = plan.branches[0]
    assert (branch["branch"], branch["seeds"], branch["requests"], branch["gives"]) == (
        "rationales",
        3,
        {"main": 3},
        "Example",
    )
    assert loaded.recipe.train[0].args == {"max_steps": 200, "learning_rate": 1e-3}


def test_the_recipe_of_the_design_runs(tmp_path: Path) -> None:
    """On the demo's word problems; shorter by --set only, and the seeds that the teacher gets wrong fall away."""
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    for name, rows in (("seeds.jsonl", 12), ("held_out.jsonl", 4)):
        lines = (DATA / name).read_text(encoding="utf-8").splitlines(keepends=True)[:rows]
        (tmp_path / name).write_text("".join(lines), encoding="utf-8")
    changes = [
        "teachers.main.sampling={max_tokens: 96}",
        "knowledge.rationales.elicit.0.instruction=null",
        "train.args.max_steps=3",
        "evaluate.0.max_new_tokens=8",
    ]
    from stillhouse.run import Options, execute

    run = execute(load_recipe(tmp_path / "recipe.yaml", changes), tmp_path / "run", Options(quiet=True))
    assert run.manifest["state"] == "done"
    assert {row["arm"] for row in run.scores["summary"]} == {"base", "main"}
    assert run.scores["final"] == {"arm": "main", "seed": 0}


def test_two_lines_change_for_a_real_teacher(tmp_path: Path) -> None:
    text = RECIPE.replace(
        "main:    {backend: pocket}",
        "main: {backend: openai, model: my-model, base_url: http://127.0.0.1:8000/v1, sampling: {n: 4, temperature: 0.7}}",
    ).replace("student:   {model: pocket}", "student: {model: Qwen/Qwen3-0.6B, lora: {rank: 32}}")
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    write_jsonl(tmp_path / "seeds.jsonl", sums(3))
    write_jsonl(tmp_path / "held_out.jsonl", sums(2, start=50))
    assert check(load_recipe(tmp_path / "recipe.yaml")).branches[0]["requests"] == {"main": 12}


def test_the_keys_of_a_recipe() -> None:
    assert set(Recipe.model_fields) >= {
        "name", "use", "teachers", "knowledge", "student", "train", "evaluate", "arms", "repeats", "rounds", "final",
        "budget", "store", "seed", "acknowledgments",
    }  # fmt: skip
    schema = json.dumps(Recipe.model_json_schema())
    for key in (
        "elicit",
        "select",
        "route",
        "weight",
        "rollouts",
        "reference",
        "init",
        "keep",
        "lora",
        "kind",
        "terms",
    ):
        assert f'"{key}"' in schema


def test_the_exit_codes() -> None:
    codes = {
        errors.RunFailed: 1, errors.RecipeError: 2, errors.TermsRefused: 3, errors.TermsUnknown: 4,
        errors.TeacherError: 5, errors.BudgetReached: 6, errors.GoalNotMet: 7,
    }  # fmt: skip
    assert {kind: kind.exit_code for kind in codes} == codes


def test_the_run_folder(trial: Any) -> None:
    for name in (
        "recipe.yaml",
        "manifest.json",
        "metrics.jsonl",
        "progress.json",
        "report.html",
        "evaluate/scores.json",
    ):
        assert (trial.path / name).is_file(), name
    steps = sorted(str(path.relative_to(trial.path)) for path in (trial.path / "knowledge").glob("*/*"))
    assert steps == [
        "knowledge/answers/00-file", "knowledge/answers/01-labeling.answer", "knowledge/answers/02-quality.correct",
        "knowledge/beliefs/00-file", "knowledge/beliefs/01-labeling.answer", "knowledge/beliefs/02-feature.top_logprobs",
    ]  # fmt: skip
    for step in steps:
        assert {path.name for path in (trial.path / step).iterdir()} >= {"out.jsonl", "lost.jsonl"}
    assert (trial.path / "knowledge/beliefs/02-feature.top_logprobs/out.arrays-00000.safetensors").is_file()
    assert (trial.path / "student" / "README.md").is_file()  # its model card


def test_the_resolved_recipe_runs_again_from_anywhere(trial: Any, tmp_path: Path) -> None:
    """Paths in `recipe.yaml` are whole, so that the folder can be handed on."""
    again = load_recipe(trial.path / "recipe.yaml")
    assert check(again).branches[0]["seeds"] == 24
    assert again.recipe.evaluate[0].knobs["path"] == str((trial.path.parent / "held.jsonl").resolve())


def test_each_step_is_in_the_manifest_once(trial: Any) -> None:
    manifest = trial.manifest
    steps = [(step["branch"], step["step"]) for step in manifest["steps"]]
    assert len(steps) == len(set(steps)) == 6
    for step in manifest["steps"]:
        assert {"do", "knobs", "teachers", "in", "out", "lost", "seconds", "hash"} <= step.keys()
    believed = next(step for step in manifest["steps"] if step["do"] == "feature.top_logprobs")
    assert believed["teachers"][0]["revision"]  # the content of the weights
    assert manifest["version"] == 1
    assert {"python", "torch", "transformers", "stillhouse"} <= manifest["versions"].keys()
    assert manifest["terms"]


def test_metrics_are_rows_of_every_student(trial: Any) -> None:
    rows = [json.loads(line) for line in (trial.path / "metrics.jsonl").read_text().splitlines()]
    assert {(row["arm"], row["seed"]) for row in rows} == {
        (arm, seed) for arm in ("text", "beliefs") for seed in (0, 1)
    }
    assert all({"step", "loss", "learning_rate", "target_tokens"} <= row.keys() for row in rows)


def test_the_student_is_what_from_pretrained_loads(trial: Any) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(trial.student)
    tokenizer = AutoTokenizer.from_pretrained(trial.student)
    assert model.config.vocab_size >= len(tokenizer)
    assert tokenizer.chat_template


def test_a_notebook_does_what_the_command_does(tmp_path: Path) -> None:
    """`distill` takes a mapping as well as a file, relative to where the notebook runs."""
    from small_runs import knowledge

    write_jsonl(tmp_path / "seeds.jsonl", sums(4))
    run = distill(knowledge(str(tmp_path / "seeds.jsonl")), out=tmp_path / "run", quiet=True)
    assert len(run.records("answers")) == 4


def test_the_recipe_of_the_readme_is_accepted(tmp_path: Path) -> None:
    """As printed, but for the student, whose weights would have to be fetched; terms too, which the command decides."""
    readme = (DATA.parents[3] / "README.md").read_text(encoding="utf-8")
    printed = readme.split("```yaml\n")[1].split("```")[0]
    (tmp_path / "recipe.yaml").write_text(printed.replace("Qwen/Qwen3-0.6B", "pocket"), encoding="utf-8")
    write_jsonl(tmp_path / "questions.jsonl", sums(3))
    write_jsonl(tmp_path / "held_out.jsonl", sums(2, start=50))
    told = CliRunner().invoke(app, ["check", str(tmp_path / "recipe.yaml")])
    assert told.exit_code == 0, told.output
