"""YAML to Recipe: what is read, what is refused and how, what --set and arms change."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from stillhouse import plain, recipe
from stillhouse.errors import RecipeError
from stillhouse.recipe import Loaded, load_recipe

MINIMAL = """\
name: one
knowledge:
  answers:
    seeds: {do: file, path: seeds.jsonl}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def loaded(folder: Path, text: str, *changes: str) -> Loaded:
    return load_recipe(written(folder, text), changes)


def refused(folder: Path, text: str, *changes: str) -> str:
    with pytest.raises(RecipeError) as error:
        loaded(folder, text, *changes)
    return str(error.value)


def test_words_of_yaml_1_2_are_words_and_numbers_are_numbers(tmp_path: Path) -> None:
    """`on:` is a key of the recipe; a library that reads YAML 1.1 makes it `True`."""
    path = written(tmp_path, "on: no\noff: yes\na: 1e-3\nb: -2E+4\nc: .5e1\nd: 1_000\ne: true\nf: 0.1\ng: 1.e3\n")
    assert plain.read_yaml(path) == {
        "on": "no", "off": "yes", "a": 0.001, "b": -20000.0, "c": 5.0, "d": 1000, "e": True, "f": 0.1, "g": 1000.0,
    }  # fmt: skip


def test_a_date_of_a_recipe_is_a_word(tmp_path: Path) -> None:
    """Dates of `use` and of acknowledgments are read where they are judged; a recipe has an id with them."""
    found = loaded(tmp_path, MINIMAL, "use={purpose: research, as_of: 2026-11-21}")
    assert found.data["use"]["as_of"] == "2026-11-21"
    assert recipe.fingerprint(found.data)
    assert plain.read_yaml(written(tmp_path, "day: 2026-11-21\n")) == {"day": "2026-11-21"}


def test_an_objective_reads_the_branch_it_is_on(tmp_path: Path) -> None:
    text = MINIMAL + "student: {model: pocket}\ntrain: {objectives: [{do: supervised.cross_entropy, on: answers}]}\n"
    assert loaded(tmp_path, text).recipe.train[0].objectives[0].on == "answers"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: a\nname: b\n", "line 2: not valid YAML (the key 'name' is written twice)"),
        ("name: a\nknowledge:\n  x: {do: 1, do: 2}\n", "line 3: not valid YAML (the key 'do' is written twice)"),
        ("name: [a\n", "not valid YAML"),
        ("name: !!python/object:os.system x\n", "not valid YAML"),
        ("- a\n", "a recipe is a mapping with `name:` and `knowledge:`, not list"),
        ("", "not NoneType"),
        ("name: a\n", "knowledge: missing"),
        ("knowledge: {}\n", "name: missing"),
        ("name: ../up\n" + MINIMAL.split("\n", 1)[1], "name: string should match pattern"),
        (MINIMAL + "trian: {}\n", "trian: unknown key; did you mean 'train'?"),
        (MINIMAL + "repeats: 0\n", "repeats: input should be greater than 0 (got '0')"),
        (MINIMAL + "student: {modle: pocket}\n", "did you mean 'model'?"),
        (MINIMAL + "train: {objectives: [], args: {}}\n", "objectives"),
        (MINIMAL + "train: {objectives: [{do: a, on: b}], arg: {}}\n", "train.0.arg: unknown key; did you mean 'args'"),
        (MINIMAL.replace("seeds:", "sed:"), "knowledge.answers"),
        (MINIMAL + "    keep: 0\n", "knowledge.answers.keep: input should be greater than 0"),
        (MINIMAL + "student: {model: pocket, kind: casual_lm}\n", "student.kind: input should be 'causal_lm'"),
    ],
)
def test_what_cannot_be_right_is_one_sentence_that_says_where(tmp_path: Path, text: str, said: str) -> None:
    assert said in refused(tmp_path, text)


def test_unknown_recipes_list_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no recipe file 'nowhere' and no shipped recipe of that name"):
        load_recipe("nowhere")
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"name: caf\xe9\n")
    with pytest.raises(RecipeError, match="not UTF-8"):
        load_recipe(path)


def test_set_reaches_everything(tmp_path: Path) -> None:
    text = MINIMAL + "train: {objectives: [{do: a, on: answers}]}\n"
    found = loaded(
        tmp_path,
        text,
        "seed=3",
        "train.args.learning_rate=1e-4",
        "train.objectives.0.weight=0.5",
        "knowledge.answers.seeds.limit=7",
        "teachers.new={backend: pocket}",
        "budget=5usd",
        "knowledge.answers.seeds.reference=null",
    ).recipe
    assert (found.seed, found.train[0].args["learning_rate"], found.train[0].objectives[0].weight) == (3, 1e-4, 0.5)
    assert found.knowledge["answers"].seeds.knobs["limit"] == 7
    assert found.knowledge["answers"].seeds.knobs["reference"] is None
    assert found.budget is not None and (found.teachers["new"].backend, found.budget.usd) == ("pocket", 5)


def test_null_leaves_a_part_out(tmp_path: Path) -> None:
    text = MINIMAL + "student: {model: pocket}\ntrain: {objectives: [{do: a, on: answers}]}\nevaluate: [{do: qa}]\n"
    found = loaded(tmp_path, text, "train=null", "student=null", "evaluate=null").recipe
    assert (found.train, found.student, found.evaluate) == ([], None, [])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("seed", "write it as a.b=value"),
        ("=3", "write it as a.b=value"),
        ("name.x=3", "'name' is a value, not a mapping"),
        ("seed=[1", "the value is not valid YAML"),
        ("train.objectives.4.weight=1", "'4' is no index of a list of 1"),
        ("sede=3", "sede: unknown key; did you mean 'seed'"),
    ],
)
def test_a_set_that_cannot_be_is_refused(tmp_path: Path, change: str, said: str) -> None:
    text = MINIMAL + "train: {objectives: [{do: a, on: answers}]}\n"
    assert said in refused(tmp_path, text, change)


def test_an_arm_is_the_file_with_its_part_laid_over(tmp_path: Path) -> None:
    text = MINIMAL + (
        "student: {model: pocket, lora: {rank: 4}}\n"
        "train: {objectives: [{do: a, on: answers}], args: {max_steps: 5, learning_rate: 0.1}}\n"
        "arms:\n"
        "  plain: {}\n"
        "  longer: {train: {args: {max_steps: 9}}}\n"
        "  full: {student: {lora: null}}\n"
        "  other: {train: {objectives: [{do: b, on: answers}]}}\n"
    )
    arms = loaded(tmp_path, text).arms()
    assert list(arms) == ["plain", "longer", "full", "other"]
    assert arms["plain"].train[0].args == {"max_steps": 5, "learning_rate": 0.1}
    assert arms["longer"].train[0].args == {"max_steps": 9, "learning_rate": 0.1}
    assert arms["full"].student is not None
    assert arms["full"].student.lora is None
    assert [entry.do for entry in arms["other"].train[0].objectives] == ["b"]  # a list is replaced, not appended to
    assert loaded(tmp_path, MINIMAL).arms().keys() == {"main"}


def test_an_arm_is_checked_like_the_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="studnet: unknown key"):
        loaded(tmp_path, MINIMAL + "arms: {a: {studnet: {}}}\n").arms()


def test_merging_removes_by_null_and_never_changes_its_inputs() -> None:
    base: dict[str, Any] = {"a": {"b": 1, "c": [1, 2]}, "d": 4}
    assert recipe.merged(base, {"a": {"b": None, "c": [3]}, "e": 5}) == {"a": {"c": [3]}, "d": 4, "e": 5}
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 4}


def test_paths_start_at_the_recipe_and_models_only_where_a_folder_lies(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "config.json").write_text("{}")
    found = loaded(
        tmp_path,
        "name: a\nteachers: {t: {backend: recorded, path: [x.jsonl, ../y.jsonl]}, u: {backend: transformers, model: own}}\n"
        "knowledge: {k: {seeds: {do: file, path: sub/s.jsonl}}}\nstudent: {model: Some/Model}\n",
    ).recipe
    assert found.knowledge["k"].seeds.knobs["path"] == str(tmp_path / "sub" / "s.jsonl")
    assert found.teachers["t"].knobs["path"] == [str(tmp_path / "x.jsonl"), str(tmp_path.parent / "y.jsonl")]
    assert found.teachers["u"].knobs["model"] == str(tmp_path / "own")
    assert found.student is not None
    assert found.student.model == "Some/Model"


def test_one_phase_or_a_list_of_phases(tmp_path: Path) -> None:
    one = "{objectives: [{do: a, on: answers}]}"
    assert len(loaded(tmp_path, MINIMAL + f"train: {one}\n").recipe.train) == 1
    assert len(loaded(tmp_path, MINIMAL + f"train: [{one}, {one}]\n").recipe.train) == 2


def test_what_is_written_down_is_read_again_as_the_same(tmp_path: Path) -> None:
    text = MINIMAL + "student: {model: pocket}\ntrain: {objectives: [{do: a, on: answers, weight: 1e-3}]}\nseed: 4\n"
    first = loaded(tmp_path, text)
    again = load_recipe(written(tmp_path, plain.dump_yaml(first.data)))
    assert again.recipe == first.recipe
    assert recipe.fingerprint(again.data) == recipe.fingerprint(first.data)


def test_a_recipe_holds_no_credential(tmp_path: Path) -> None:
    """A key in a shared file is a leak: backends take the name of a variable, never the key."""
    from stillhouse.check import check

    text = MINIMAL + "teachers: {t: {backend: openai, model: m, api_key: sk-123}}\n"
    with pytest.raises(RecipeError, match=r"teachers\.t: openai has no knob 'api_key'"):
        check(loaded(tmp_path, text))


def test_no_two_shipped_recipes_share_a_name() -> None:
    assert len(recipe.shipped_recipes()) == len(list(recipe.RECIPES.rglob("*.yaml")))


@pytest.mark.parametrize("name", sorted(recipe.shipped_recipes()))
def test_every_shipped_recipe_can_be_read_and_says_what_it_is_for(name: str) -> None:
    path = recipe.shipped_recipes()[name]
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert load_recipe(name).recipe.name
    assert yaml.safe_load(path.read_text(encoding="utf-8"))
