"""docs/survey.md cannot go stale: what a row names exists, the tests it names exist, name it, and are collected."""

from pathlib import Path

import pytest

from tools.survey.table import IDS, PAGE, Row, exists, faults, named_in_tests, page, read_rows

ROWS = read_rows()


def test_every_row_of_the_survey_is_there_once() -> None:
    """C07-C09: R01-R66, J1-J10, K1-K3, SK01-SK15, V1-V5, O1-O8, C01-C11, in this order."""
    assert [row.id for row in ROWS] == IDS


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_row_is_what_it_says(row: Row) -> None:
    assert list(faults(row)) == []


def test_the_page_is_what_the_tool_writes() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(ROWS), "python -m tools.survey writes it"


def test_the_tests_it_names_are_collected(request: pytest.FixtureRequest) -> None:
    """Of the files that this session collects; a whole run of the suite collects them all."""
    collected = {item.nodeid.split("[")[0].removeprefix("tests/") for item in request.session.items}
    files = {nodeid.split("::")[0] for nodeid in collected}
    named = {test for row in ROWS for test in row.tests if test.split("::")[0] in files}
    assert named - collected <= {test for test in named if _slow(test)}


def _slow(test: str) -> bool:
    path, *_, name = test.split("::")
    source = (Path(__file__).parent / path).read_text(encoding="utf-8")
    return (
        "mark.slow" in source.split(f"def {name}(")[0].rsplit("\n\n\n", 1)[-1]
        or "pytestmark = pytest.mark.slow" in source
    )


def test_a_row_that_claims_too_much_is_found() -> None:
    assert list(faults(Row("R01", "x", ("expansion.nothing",), ("elicit/test_expansion.py::test_nothing",)))) == [
        "R01: there is no 'expansion.nothing'",
        "R01: elicit/test_expansion.py::test_nothing is no test that names it",
    ]
    assert list(faults(Row("R01", "x"))) == ["R01 names nothing that does it"]
    assert list(faults(Row("R01", "x", ("expansion.self_instruct",)))) == ["R01 names no test"]
    assert [each[:26] for each in faults(Row("R01", "x", ("demo",), later="no time"))] == ["R01 is for later and names"]
    assert exists("demo") and exists("labeling.answer") and exists("tools/survey/table.py") and not exists("labeling")
    assert "recipes/test_rows.py::test_the_same_prompts_get_new_answers" in named_in_tests()["R02"]
