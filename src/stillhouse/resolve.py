"""Names of recipes to functions: the tree is the registry (architecture, section 2).

`labeling.reason` under `elicit:` is `stillhouse/elicit/labeling.py:reason`; a user's own is `mine.py:fn`. What a function
needs and may be told is read from its source without importing it, so that `still list` and `still check` are quick.
"""

import ast
import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from stillhouse.errors import RecipeError, nearest

PACKAGE = Path(__file__).parent
# kind of name in a recipe -> where its modules lie
HOMES = {
    "seeds": "seeds.py",
    "elicit": "elicit",
    "select": "selection",
    "graders": "graders",
    "objectives": "objectives",
    "evaluate": "evaluate/tasks",
    "tools": "tools.py",
    "environments": "environments.py",
}


@dataclass(frozen=True, slots=True)
class Signature:
    """A function as its source declares it. `inputs` are the positional parameters, `knobs` the keyword-only ones."""

    name: str
    path: Path
    line: int
    inputs: tuple[str, ...]
    knobs: tuple[str, ...]
    required: frozenset[str]
    annotations: dict[str, str]
    defaults: dict[str, str]
    returns: str
    doc: str

    @property
    def summary(self) -> str:
        return self.doc.strip().split("\n")[0]


def modules(kind: str) -> dict[str, Path]:
    """Module name in recipes -> file, for a kind of name."""
    home = PACKAGE / HOMES[kind]
    if home.is_file():
        return {"": home}
    return {path.stem: path for path in sorted(home.glob("*.py")) if not path.stem.startswith("_")}


def names(kind: str) -> list[str]:
    """Every public name of a kind, as written in a recipe."""
    return sorted(_spelled(kind, module, fn) for module, path in modules(kind).items() for fn in public(path))


def backends() -> dict[str, Path]:
    """Teacher backends: the files of `teachers/` that declare a class `Teacher`."""
    return {path.stem: path for path in sorted((PACKAGE / "teachers").glob("*.py")) if "Teacher" in _definitions(path)}


def public(path: Path) -> tuple[str, ...]:
    """The literal `__all__` of a module, read without importing it; a module without one has no public names."""
    for node in _tree(path).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            return tuple(ast.literal_eval(node.value))  # type: ignore[attr-defined]
    return ()


def signature(kind: str, name: str, *, folder: Path, where: str) -> Signature:
    """What the function behind a name needs. Raises `RecipeError` for an unknown name, listing the nearest known ones."""
    path, function = locate(kind, name, folder=folder, where=where)
    return read_signature(path, function, name)


def backend_signature(backend: str, *, where: str) -> Signature:
    known = backends()
    if backend not in known:
        raise RecipeError(f"{where}: no backend {backend!r}; {nearest(backend, known)}")
    return read_signature(known[backend], "Teacher", backend)


def locate(kind: str, name: str, *, folder: Path, where: str) -> tuple[Path, str]:
    if ".py:" in name:
        file, function = name.split(".py:")
        path = (folder / f"{file}.py").resolve()
        if not path.is_file():
            raise RecipeError(f"{where}: {name!r} names a file that is not there: {path}")
        if function not in _definitions(path):
            raise RecipeError(f"{where}: {path.name} has no {function!r}; {nearest(function, _definitions(path))}")
        return path, function
    if name not in names(kind):
        raise RecipeError(f"{where}: no {kind} named {name!r}; {nearest(name, names(kind))}")
    module, _, function = name.rpartition(".")
    found = modules(kind)
    return defined_in(found[module if module in found else function], function), function


def defined_in(path: Path, function: str) -> Path:
    """The file that defines a public name of a module: its own, or the neighbour it takes the name from."""
    if function in _definitions(path):
        return path
    for node in _tree(path).body:
        if isinstance(node, ast.ImportFrom) and any(each.name == function for each in node.names):
            beside = path.parent / f"{(node.module or '').rpartition('.')[2]}.py"
            if beside.is_file():
                return beside
    return path


def load(kind: str, name: str, *, folder: Path, where: str) -> Callable[..., Any]:
    """Imports the function behind a name."""
    path, function = locate(kind, name, folder=folder, where=where)
    return getattr(import_file(path), function)


def import_file(path: Path) -> Any:
    """A module of the package by its dotted name; a user's file by its path, under a name that worker processes find too."""
    if path.is_relative_to(PACKAGE):
        return importlib.import_module(".".join(("stillhouse", *path.relative_to(PACKAGE).with_suffix("").parts)))
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def read_signature(path: Path, function: str, name: str) -> Signature:
    node = _definitions(path)[function]
    doc = ast.get_docstring(node) or ""
    called = _callee(node)
    if called is None:
        return Signature(name, path, node.lineno, (), (), frozenset(), {}, {}, "", doc)
    arguments = called.args
    positional = [each.arg for each in (*arguments.posonlyargs, *arguments.args) if each.arg != "self"]
    defaults = {
        each.arg: ast.unparse(value) for each, value in zip(arguments.kwonlyargs, arguments.kw_defaults) if value
    }
    knobs = tuple(each.arg for each in arguments.kwonlyargs)
    every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    annotations = {each.arg: _spelled_out(path, each.annotation) for each in every if each.annotation}
    returns = ast.unparse(called.returns) if called.returns else ""
    if isinstance(node, ast.ClassDef):
        positional = _forward_inputs(node)
    required = frozenset(knobs) - set(defaults)
    return Signature(name, path, node.lineno, tuple(positional), knobs, required, annotations, defaults, returns, doc)


def _spelled_out(path: Path, annotation: ast.expr) -> str:
    """An annotation as text, with its values where it is the name of a `Literal` of this file or of one it imports from."""
    if isinstance(annotation, ast.Name) and (values := _literal(path, annotation.id)):
        return values
    return ast.unparse(annotation)


def _literal(path: Path, name: str) -> str:
    for node in _tree(path).body:
        if isinstance(node, ast.Assign) and any(
            isinstance(each, ast.Name) and each.id == name for each in node.targets
        ):
            values = ast.unparse(node.value)
            return values if values.startswith("Literal[") else ""
        if isinstance(node, ast.ImportFrom) and any((each.asname or each.name) == name for each in node.names):
            first, *inner = (node.module or "").split(".")
            home = PACKAGE.joinpath(*inner).with_suffix(".py") if inner else PACKAGE
            return _literal(home, name) if first == PACKAGE.name and home.is_file() else ""
    return ""


def _callee(node: ast.AST) -> ast.FunctionDef | None:
    """The function whose parameters count: the node itself, or a class's `__init__`."""
    if isinstance(node, ast.FunctionDef):
        return node
    body = node.body if isinstance(node, ast.ClassDef) else []
    return next((each for each in body if isinstance(each, ast.FunctionDef) and each.name == "__init__"), None)


def _forward_inputs(node: ast.ClassDef) -> list[str]:
    """An objective that is a module takes its data in `forward`."""
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and each.name == "forward":
            return [argument.arg for argument in each.args.args if argument.arg != "self"]
    return []


def _spelled(kind: str, module: str, function: str) -> str:
    if not module or (kind == "evaluate" and module == function):
        return function
    return f"{module}.{function}"


def _tree(path: Path) -> ast.Module:
    return _parsed(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=512)
def _parsed(path: Path, modified: int) -> ast.Module:
    # keyed by the time of the last change: a notebook edits its own file and runs again in one process
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise RecipeError(f"{path}, line {error.lineno}: not Python ({error.msg})") from None


def _definitions(path: Path) -> dict[str, ast.FunctionDef | ast.ClassDef]:
    return {node.name: node for node in _tree(path).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
