"""Every pitfall (P01-P35 of the survey of peers) and golden value (G01-G19) is named by a test: its name, docstring or id."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
IDS = [f"P{n:02}" for n in range(1, 36)] + [f"G{n:02}" for n in range(1, 20)]
NAMED = re.compile(r"(?i)(?<![a-z0-9])([pg][0-9]{2})(?:-([pg]?)([0-9]{2}))?(?![0-9a-z])")


@cache
def named_by_tests():
    found = set()
    for path in TESTS.rglob("test_*.py"):
        if path != Path(__file__):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name.lower().startswith("test"):
                    decorators = " ".join(ast.unparse(decorator) for decorator in node.decorator_list)
                    found |= ids_in(f"{node.name} {ast.get_docstring(node) or ''} {decorators}")
    return found


def ids_in(text):
    found = set()
    for first, _, last in NAMED.findall(text):
        kind, start = first[0].upper(), int(first[1:])
        found |= {f"{kind}{number:02}" for number in range(start, int(last or start) + 1)}
    return found


def test_ids_are_found_in_names_ranges_and_marks():
    assert ids_in("test_golden_g10 P12-P14: id='G03-0.1'") == {"G10", "P12", "P13", "P14", "G03"}


@pytest.mark.parametrize("mark", IDS)
def test_a_test_bears_its_name(mark):
    assert mark in named_by_tests()
