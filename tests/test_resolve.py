"""Names to functions: everything listed resolves, documents itself, and agrees with what Python sees."""

import inspect
import sys
from pathlib import Path

import pytest

from stillhouse import resolve
from stillhouse.catalogue import catalogue, explained
from stillhouse.errors import RecipeError

EVERY = [(kind, name) for kind in resolve.HOMES for name in resolve.names(kind)]


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_a_listed_name_loads_and_its_source_says_the_same_as_python(kind: str, name: str) -> None:
    read = resolve.signature(kind, name, folder=Path(), where="test")
    loaded = resolve.load(kind, name, folder=Path(), where="test")
    if inspect.isclass(loaded):
        parameters = {
            **inspect.signature(loaded).parameters,
            **dict(list(inspect.signature(loaded.forward).parameters.items())[1:]),
        }
    else:
        parameters = dict(inspect.signature(loaded).parameters)
    keyword = [name for name, each in parameters.items() if each.kind is each.KEYWORD_ONLY]
    positional = [name for name, each in parameters.items() if each.kind is each.POSITIONAL_OR_KEYWORD]
    assert list(read.knobs) == keyword
    assert list(read.inputs) == positional
    assert read.required == {name for name in keyword if parameters[name].default is inspect.Parameter.empty}


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_a_listed_name_has_one_line_that_says_what_it_gives(kind: str, name: str) -> None:
    summary = resolve.signature(kind, name, folder=Path(), where="test").summary
    assert 10 <= len(summary) <= 130
    assert summary.endswith(".")


def test_every_kind_has_names_and_teachers_state_what_they_can() -> None:
    found = catalogue()
    assert all(found[kind] for kind in (*resolve.HOMES, "teachers"))
    assert found["teachers"]["scripted"].endswith("[generate]")
    assert "top_logprobs" in found["teachers"]["pocket"]


@pytest.mark.parametrize("backend", sorted(resolve.backends()))
def test_a_backend_can_be_read_without_its_libraries(backend: str) -> None:
    found = resolve.backend_signature(backend, where="test")
    module = resolve.import_file(found.path)
    assert module.Teacher.capabilities >= {"embed" if backend == "encoder" else "generate"}
    assert found.inputs == ()
    assert found.summary


def test_unknown_names_list_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"x: no elicit named 'labeling\.reson'; did you mean 'labeling\.reason'"):
        resolve.locate("elicit", "labeling.reson", folder=Path(), where="x")
    with pytest.raises(RecipeError, match="t: no backend 'pockets'; did you mean 'pocket'"):
        resolve.backend_signature("pockets", where="t")
    with pytest.raises(RecipeError, match=r"nothing is called 'math\.equl'; did you mean 'math\.equal'"):
        explained("math.equl")
    with pytest.raises(RecipeError, match="list: no kind 'graders2'"):
        catalogue("graders2")


def test_names_that_are_not_public_do_not_resolve() -> None:
    for name in (
        "labeling.Rationale",
        "labeling.rationale",
        "asking.asked",
        "labeling",
        "labeling.",
        ".answer",
        "../x",
    ):
        with pytest.raises(RecipeError, match="no elicit named"):
            resolve.locate("elicit", name, folder=Path(), where="x")


def test_a_users_own_function(tmp_path: Path) -> None:
    (tmp_path / "own_grader.py").write_text(
        'def yes(responses, references, *, value: float, word: str = "y"):\n    """All are right."""\n    return value\n'
    )
    found = resolve.signature("graders", "own_grader.py:yes", folder=tmp_path, where="x")
    assert (found.inputs, found.knobs, found.required) == (("responses", "references"), ("value", "word"), {"value"})
    assert resolve.load("graders", "own_grader.py:yes", folder=tmp_path, where="x")([], [], value=3) == 3
    assert sys.modules["own_grader"].yes  # a worker process imports it by that name
    with pytest.raises(RecipeError, match=r"own_grader\.py has no 'yess'; did you mean 'yes'"):
        resolve.locate("graders", "own_grader.py:yess", folder=tmp_path, where="x")
    with pytest.raises(RecipeError, match="names a file that is not there"):
        resolve.locate("graders", "none.py:yes", folder=tmp_path, where="x")


def test_a_users_file_that_is_not_python_is_said_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("x = 1\ndef f(:\n")
    with pytest.raises(RecipeError, match=r"bad\.py, line 2: not Python"):
        resolve.locate("graders", "bad.py:f", folder=tmp_path, where="x")


def test_a_file_that_was_edited_is_read_again(tmp_path: Path) -> None:
    import os

    path = tmp_path / "edited.py"
    path.write_text("def f(a, *, x=1): ...\n")
    assert resolve.signature("graders", "edited.py:f", folder=tmp_path, where="x").knobs == ("x",)
    path.write_text("def f(a, *, y=1): ...\n")
    os.utime(path, ns=(1, 1))
    assert resolve.signature("graders", "edited.py:f", folder=tmp_path, where="x").knobs == ("y",)


def test_a_name_that_a_module_takes_from_its_neighbour_keeps_its_spelling() -> None:
    path, function = resolve.locate("elicit", "feedback.revise", folder=Path(), where="test")
    assert (path.name, function) == ("revising.py", "revise")
    told = resolve.signature("elicit", "feedback.revise", folder=Path(), where="test")
    assert (told.name, told.path) == ("feedback.revise", path)
    assert resolve.load("elicit", "feedback.revise", folder=Path(), where="test").__module__.endswith(".revising")
    assert not [name for name in resolve.names("elicit") if name.startswith("revising.")]
