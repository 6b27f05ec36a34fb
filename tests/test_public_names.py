"""What is public says so, in one literal list per module, and every name of it is documented."""

import ast
import importlib
from pathlib import Path

import pytest

import stillhouse
from stillhouse import resolve

# whose name and fields say all there is to say
PLAIN = {"records.py:Message"}
PACKAGE = Path(stillhouse.__file__).parent
TAXONOMY = sorted(
    path
    for folder in ("elicit", "selection", "graders", "objectives", "evaluate/tasks", "teachers")
    for path in (PACKAGE / folder).glob("*.py")
    if path.name not in ("__init__.py", "base.py")
)


def named(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", TAXONOMY, ids=named)
def test_a_module_of_the_taxonomy_lists_its_public_names_literally(path: Path) -> None:
    assigned = [
        node
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if "__all__" in [ast.unparse(t) for t in getattr(node, "targets", [getattr(node, "target", None)]) if t]
    ]
    assert len(assigned) == 1, "one literal __all__, even where it is empty"
    value = ast.literal_eval(assigned[0].value)
    assert value == sorted(value), "in order, so that two people do not add the same name"


@pytest.mark.parametrize("path", [path for path in TAXONOMY if resolve.public(path)], ids=named)
def test_a_public_name_is_defined_there_and_documented(path: Path) -> None:
    for name in resolve.public(path):
        home = resolve.defined_in(path, name)
        defined = {
            node.name: node
            for node in ast.parse(home.read_text(encoding="utf-8")).body
            if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        }
        if name not in defined and path.parent.name == "teachers":
            continue  # what `calls.py` hands on from its own parts
        assert ast.get_docstring(defined[name]), f"{path}: {name} has no docstring"


def test_what_the_package_offers_can_be_imported() -> None:
    assert {"distill", "load_run", "Run", "Seed", "Example"} <= set(stillhouse.__all__)
    for name in stillhouse.__all__:
        assert getattr(stillhouse, name).__doc__
    with pytest.raises(AttributeError, match="has no attribute 'destil'"):
        stillhouse.destil  # noqa: B018


def test_every_module_says_what_it_is_about() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


def test_every_public_class_is_documented() -> None:
    """Also those that no recipe names: the entries of a recipe are described by them in `still schema`."""
    missing = [
        f"{path.name}:{node.name}"
        for path in sorted(PACKAGE.glob("*.py"))
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node)
    ]
    assert set(missing) <= PLAIN, "what is it?"


@pytest.mark.parametrize("module", ["stillhouse.errors"])
def test_every_error_knows_its_exit_code(module: str) -> None:
    errors = importlib.import_module(module)
    kinds = {name: each for name, each in vars(errors).items() if getattr(each, "__module__", "") == module}
    codes = {name: each.exit_code for name, each in kinds.items() if isinstance(each, type)}
    assert codes == {
        "StillhouseError": 1, "RunFailed": 1, "RecipeError": 2, "TermsRefused": 3, "TermsUnknown": 4, "TeacherError": 5,
        "BudgetReached": 6, "GoalNotMet": 7,
    }  # fmt: skip
