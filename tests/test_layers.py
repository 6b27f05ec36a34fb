"""Imports point one way (architecture, section 2), those inside functions too, and tops of light modules stay light."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import stillhouse

PACKAGE = Path(stillhouse.__file__).parent
MODULES = {
    ".".join(("stillhouse", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

# left may be imported by right; names beside each other may import each other
LAYERS = (
    ("errors", "files", "records", "lines", "store", "render", "quiet", "rows", "markup", "numbers"),
    (
        "teachers",
        "graders",
        "compliance",
        "pocket",
        "generate",
        "continuous",
        "inference",
        "decoder",
        "reading",
        "narrow_attention",
        "apart",
        "scoring",
        "embedding",
        "products",
    ),
    ("seeds", "elicit", "selection", "objectives", "kernels", "signals", "tools", "environments"),
    ("train", "evaluate", "testing"),
    ("recipe", "plain", "resolve", "knobs", "matching", "plan", "check", "soundness"),
    (
        "run",
        "rounds",
        "overlap",
        "passing",
        "steps",
        "students",
        "scores",
        "progress",
        "books",
        "costs",
        "ledger",
        "provenance",
        "report",
        "reporting",
        "terms",
        "papers",
        "phases",
        "exporting",
        "probing",
        "estimate",
        "ranges",
        "preflight",
    ),
    ("cli", "cli_store", "cli_terms", "cli_measure", "catalogue", "copying", "chatting", "launch", "__main__"),
)
HEAVY = ("torch", "transformers", "datasets", "openai", "accelerate", "peft", "pyarrow", "scipy", "sklearn")
# imported only when something is trained, evaluated or generated, or by the recipe's own door
MAY_BE_HEAVY = ("train", "objectives", "kernels", "products", "generate", "continuous", "inference", "decoder", "reading",
                "narrow_attention", "apart", "recipe", "check", "testing", "cli")  # fmt: skip


def rank(module: str) -> int | None:
    part = module.split(".")[1] if "." in module else ""
    return next((number for number, layer in enumerate(LAYERS) if part in layer), None)


def imports(path: Path, *, top_only: bool = False) -> Iterator[tuple[str, int]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in _top(tree) if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            yield node.module or "", node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def _top(tree: ast.Module) -> Iterator[ast.stmt]:
    """What is executed on import; `if TYPE_CHECKING:` is not."""
    for node in tree.body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        if isinstance(node, (ast.Try, ast.If, ast.With)):
            yield from node.body


def test_every_module_has_a_layer() -> None:
    known = {name for layer in LAYERS for name in layer}
    parts = {module.split(".")[1] for module in MODULES if "." in module}
    assert parts - known == set(), "say in LAYERS where these belong"


@pytest.mark.parametrize("module", [name for name in MODULES if "." in name])
def test_a_module_imports_only_from_its_left(module: str) -> None:
    mine = rank(module)
    assert mine is not None
    for name, line in imports(MODULES[module]):
        theirs = rank(name) if name.startswith("stillhouse.") else None
        if theirs is not None:
            assert theirs <= mine, f"{MODULES[module]}:{line}: {module} imports {name}, which is to its right"


def light(module: str) -> bool:
    parts = module.split(".")
    return len(parts) < 2 or parts[1] not in MAY_BE_HEAVY


@pytest.mark.parametrize("module", [name for name in MODULES if light(name)])
def test_a_light_module_imports_nothing_heavy_at_its_top(module: str) -> None:
    for name, line in imports(MODULES[module], top_only=True):
        assert name.split(".")[0] not in HEAVY, f"{MODULES[module]}:{line}: {module} imports {name} at its top"


def test_nothing_outside_the_tests_needs_the_tests_tools() -> None:
    for module, path in MODULES.items():
        for name, line in imports(path):
            assert name.split(".")[0] not in ("pytest", "hypothesis", "trl", "tests"), f"{path}:{line}: {module}"


def test_no_module_catches_everything_quietly() -> None:
    """A broad except stands only at the outermost border, and there it raises again."""
    broad = []
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ExceptHandler):
                continue
            kinds = ast.unparse(node.type) if node.type else "everything"
            if kinds in ("everything", "Exception", "BaseException") or "BaseException" in kinds:
                raises = any(isinstance(each, ast.Raise) for each in ast.walk(node))
                if not raises:
                    broad.append(f"{module}:{node.lineno}")
    assert broad == []
