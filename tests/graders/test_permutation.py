import json
import os
from pathlib import Path

import pytest

from stillhouse.graders import Grade
from stillhouse.graders.permutation import gain, order, read

DATA = os.environ.get("STILLHOUSE_TEST_DATA")


def test_parsing_rules() -> None:
    """R56: digits, repeats dropped, out of range dropped, missing appended in their original order."""
    assert read("[2] > [1] > [2] > [9]", 4) == [2, 1, 3, 4]
    assert read("I think 3, then 1.", 3) == [3, 1, 2]
    assert read("[12] > [1]", 2) == [1, 2]
    assert read("none", 3) is None


def test_share_of_pairs_in_order() -> None:
    assert order(["[1] > [2] > [3]", "[3] > [2] > [1]", "[2] > [1] > [3]", "no"], ["[1] > [2] > [3]"] * 4) == [
        Grade(1.0, "pairs_in_order"), Grade(0.0, "pairs_in_order"), Grade(2 / 3, "pairs_in_order"), Grade(0.0, "unparsable"),
    ]  # fmt: skip
    assert order(["[1]"], ["[1] > [3]"]) == [Grade(None, "unreadable_reference")]
    assert order(["[1]"], [None]) == [Grade(None, "no_reference")]


def test_gain_by_hand() -> None:
    """Relevance 3 0 2: ideal 7 + 3/log2(3); the order 2, 1, 3 gives 0 + 7/log2(3) + 3/2."""
    ideal, got = 7 + 3 / 1.584962500721156, 7 / 1.584962500721156 + 1.5
    (grade,) = gain(["[2] > [1] > [3]"], ["3 0 2"])
    assert grade.value == pytest.approx(got / ideal)
    assert gain(["[1] > [3] > [2]"], ["3 0 2"])[0].value == pytest.approx(1.0)
    assert gain(["[1]"], ["0 0"]) == [Grade(None, "nothing_relevant")]


@pytest.mark.skipif(DATA is None, reason="STILLHOUSE_TEST_DATA is not set")
def test_graded_relevance_of_real_queries_has_an_ideal_order() -> None:
    """R56, SK11 on NovelEval: sorting by relevance gives 1, the worst order less."""
    data = json.loads((Path(DATA or "") / "recommend" / "data.json").read_text(encoding="utf-8"))
    assert data
    for relevance in ([2, 0, 1, 2, 0], [1, 0, 0, 0, 0, 2]):
        best = sorted(range(1, len(relevance) + 1), key=lambda i: -relevance[i - 1])
        text, worst = " > ".join(f"[{i}]" for i in best), " > ".join(f"[{i}]" for i in reversed(best))
        reference = " ".join(map(str, relevance))
        assert gain([text], [reference])[0].value == pytest.approx(1.0)
        assert (gain([worst], [reference])[0].value or 0) < 0.9
