"""A function with one thing in it changed, over and over: what a test of it should notice."""

import ast
import copy
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["mutants"]

_SWAPS: dict[type, type] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add,
}  # fmt: skip


def mutants(function: Callable[..., Any]) -> Iterator[tuple[str, Callable[..., Any]]]:
    """(what was changed, the changed function) for every comparison, condition, constant, sum, return and statement in it.

    Words for people (constants with a blank in them, f-strings) are left alone.
    """
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    body = tree.body[0]
    assert isinstance(body, ast.FunctionDef | ast.AsyncFunctionDef)
    body.decorator_list, body.returns = [], None
    words = {id(inner) for each in ast.walk(tree) if isinstance(each, ast.JoinedStr) for inner in each.values}
    for number, node in enumerate(ast.walk(tree)):
        for change, kinds in enumerate(_KINDS):
            if not isinstance(node, kinds) or id(node) in words:
                continue
            changed = copy.deepcopy(tree)
            told = _change(next(each for n, each in enumerate(ast.walk(changed)) if n == number), change)
            if told:
                names = dict(vars(inspect.getmodule(function)))
                exec(compile(ast.fix_missing_locations(changed), "<mutant>", "exec"), names)
                yield f"{ast.unparse(node).splitlines()[0]} -> {told}", names[body.name]


_BLOCKS = (ast.If, ast.For, ast.FunctionDef, ast.AsyncFunctionDef, ast.AsyncWith)
_KINDS: tuple[Any, ...] = (
    (ast.Compare, ast.BoolOp, ast.BinOp, ast.AugAssign), (ast.If, ast.IfExp, ast.While), ast.Constant, ast.Return, _BLOCKS,
)  # fmt: skip


def _change(node: Any, change: int) -> str:
    """Makes the change of this number in the node and names it; empty where there is none to make."""
    if change == 0:
        holder = "ops" if isinstance(node, ast.Compare) else "op"
        old = node.ops[0] if holder == "ops" else node.op
        if (new := _SWAPS.get(type(old))) is None:
            return ""
        if holder == "ops":
            node.ops[0] = new()
        else:
            node.op = new()
        return new.__name__
    if change == 1:
        node.test = ast.UnaryOp(ast.Not(), node.test)
        return "not"
    if change == 2:
        return _constant(node)
    if change == 3:
        node.value = ast.Constant(None)
        return "None"
    for number, each in enumerate(node.body):
        if isinstance(each, ast.AugAssign | ast.Continue | ast.Raise) or _awaits(each):
            node.body[number] = ast.Pass()
            return f"without {ast.unparse(each).splitlines()[0]}"
    return ""


def _awaits(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Await | ast.Call)


def _constant(node: ast.Constant) -> str:
    value = node.value
    if isinstance(value, bool):
        node.value = not value
    elif isinstance(value, int):
        node.value = value + 1
    elif isinstance(value, str) and value and " " not in value and len(value) < 40:
        node.value = value + "!"
    else:
        return ""
    return repr(node.value)
