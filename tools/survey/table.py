"""rows.yaml -> docs/survey.md. A row is done when a test that names its id passes; here: what can be held without running it."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml

from stillhouse.recipe import shipped_recipes
from stillhouse.resolve import HOMES, backends, names

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "survey.md"
ROWS = Path(__file__).parent / "rows.yaml"
IDS = [
    *(f"R{n:02}" for n in range(1, 67)), *(f"J{n}" for n in range(1, 11)), *(f"K{n}" for n in range(1, 4)),
    *(f"SK{n:02}" for n in range(1, 16)), *(f"V{n}" for n in range(1, 6)), *(f"O{n}" for n in range(1, 9)),
    *(f"C{n:02}" for n in range(1, 12)),
]  # fmt: skip
PARTS = {
    "R": "Recipes", "J": "Loops", "K": "Pipelines", "SK": "Skills", "V": "Verticals", "O": "Open problems", "C": "Conformance"
}  # fmt: skip
_ID = re.compile(r"\b(?:R\d\d|J\d{1,2}|K\d|SK\d\d|V\d|O\d|C\d\d)\b")
HEAD = """# The survey, row by row

The contract is *A Survey on Knowledge Distillation of Large Language Models* (arXiv 2402.13116): recipes R01-R66, loops J1-J10,
pipelines K1-K3, skills SK01-SK15, verticals V1-V5, open problems O1-O8, checklist C01-C11. A row is **done** when what
it names exists and a test that names its id passes; **partly** says what of it is missing; **later** says why nothing
is there. Written by `python -m tools.survey` from `tools/survey/rows.yaml`; `tests/test_survey.py` holds it to the code.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """`by`: names of functions, recipes or backends, or files. `tests`: `file::function` under tests/."""

    id: str
    what: str
    by: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    but: str = ""
    later: str = ""

    @property
    def state(self) -> str:
        return "later" if self.later else "partly" if self.but else "done"


def read_rows(path: Path = ROWS) -> list[Row]:
    return [
        Row(
            name,
            each["what"],
            tuple(each.get("by", ())),
            tuple(each.get("tests", ())),
            each.get("but", ""),
            each.get("later", ""),
        )
        for name, each in yaml.safe_load(path.read_text(encoding="utf-8")).items()
    ]


def faults(row: Row) -> Iterator[str]:
    """What keeps a row from being what it says."""
    if row.later:
        if row.by or row.tests:
            yield f"{row.id} is for later and names {row.by or row.tests}"
        return
    yield from (f"{row.id}: there is no {name!r}" for name in row.by if not exists(name))
    if not row.by or not row.tests:
        yield f"{row.id} names {'no test' if row.by else 'nothing that does it'}"
    found = named_in_tests().get(row.id, ())
    yield from (f"{row.id}: {test} is no test that names it" for test in row.tests if test not in found)


def exists(name: str) -> bool:
    return name in _known() or (ROOT / name).is_file()


@lru_cache
def _known() -> frozenset[str]:
    return frozenset([*shipped_recipes(), *backends(), *(name for kind in HOMES for name in names(kind))])


@lru_cache
def named_in_tests() -> dict[str, tuple[str, ...]]:
    """Id -> the test functions whose docstring or other strings hold it. A test that is always skipped does not count."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for place, node in _tests(ast.parse(path.read_text(encoding="utf-8")).body):
            strings = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
            for name in sorted(set(_ID.findall(" ".join(strings)))):
                found.setdefault(name, []).append(f"{path.relative_to(ROOT / 'tests')}::{place}{node.name}")
    return {name: tuple(tests) for name, tests in found.items()}


def _tests(body: list[ast.stmt], place: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            yield from _tests(node.body, f"{place}{node.name}::")
        elif isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not _skipped(node):
            yield place, node


def _skipped(node: ast.FunctionDef) -> bool:
    return any(re.search(r"mark\.skip\b", ast.unparse(each)) for each in node.decorator_list)


def page(rows: list[Row]) -> str:
    states = [row.state for row in rows]
    counted = ", ".join(f"{states.count(state)} {state}" for state in ("done", "partly", "later"))
    parts = [HEAD, f"{len(rows)} rows: {counted}.\n"]
    for prefix, title in PARTS.items():
        parts.append(f"## {title}\n\n| row | what | state | by | test |\n|---|---|---|---|---|")
        parts += [_line(row) for row in rows if row.id.rstrip("0123456789") == prefix]
        parts.append("")
    return "\n".join(parts)


def _line(row: Row) -> str:
    remark = f": {row.but or row.later}" if row.but or row.later else ""
    by = ", ".join(f"`{name.removeprefix('src/stillhouse/')}`" for name in row.by)
    tests = ", ".join(f"`{test}`" for test in row.tests)
    return f"| {row.id} | {row.what} | **{row.state}**{remark} | {by} | {tests} |"
