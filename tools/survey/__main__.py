"""`python -m tools.survey`: writes docs/survey.md from rows.yaml; with an id, lists the tests that name it."""

import sys

from tools.survey.table import PAGE, named_in_tests, page, read_rows


def main(ids: list[str]) -> None:
    for each in ids:
        print(each, *named_in_tests().get(each, ()), sep="\n    ")
    if not ids:
        PAGE.write_text(page(read_rows()), encoding="utf-8")


main(sys.argv[1:])
