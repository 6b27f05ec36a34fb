import json
import os
from pathlib import Path

import pytest

from stillhouse.errors import RecipeError
from stillhouse.evaluate.agreement import agreement, beats_constants, fleiss, kappa, majority

DATA = os.environ.get("STILLHOUSE_TEST_DATA")


def test_kappa_by_hand() -> None:
    """20 both yes, 15 both no, 5 and 10 apart: observed 0.7, chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5, kappa 0.4."""
    ours = ["y"] * 20 + ["n"] * 15 + ["y"] * 5 + ["n"] * 10
    theirs = ["y"] * 20 + ["n"] * 15 + ["n"] * 5 + ["y"] * 10
    assert kappa(ours, theirs) == pytest.approx(0.4)
    assert kappa(["y"] * 4, ["y"] * 4) == 1.0
    assert kappa(["y"] * 4, ["y", "y", "n", "n"]) == 0.0
    with pytest.raises(RecipeError, match="3 against 2"):
        kappa([1, 2, 3], [1, 2])


def test_fleiss_by_hand() -> None:
    """Two items, three annotators: (3,0) and (1,2): P = (1 + 1/3)/2 = 2/3, chance (4/6)^2 + (2/6)^2 = 5/9, kappa 0.25."""
    assert fleiss([["a", "a", "a"], ["a", "b", "b"]]) == pytest.approx(0.25)


def test_majority() -> None:
    assert majority([1, 1, 2]) == 1
    assert majority([0, 1, 2]) is None


def test_a_missing_verdict_is_wrong_and_counted() -> None:
    got = agreement([1, None, 2, 1], [1, 1, 2, None])
    assert (got.items, got.missing) == (3, 0.25)
    assert got.accuracy == pytest.approx(2 / 3)
    assert got.accuracy_interval[0] <= got.accuracy <= got.accuracy_interval[1]


@pytest.mark.skipif(DATA is None, reason="STILLHOUSE_TEST_DATA is not set")
def test_human_votes_on_pairs() -> None:
    """R59 on PandaLM: three people agree; one of them, as a judge of the others, beats constants; a constant does not."""
    rows = json.loads((Path(DATA or "") / "preference" / "testset-v1.json").read_text(encoding="utf-8"))
    votes = [[row[f"annotator{i}"] for i in (1, 2, 3)] for row in rows]
    assert len(rows) == 999
    assert fleiss(votes) > 0.6
    gold = [majority(each) for each in votes]
    one = agreement([each[0] for each in votes], gold, resamples=300)
    assert one.kappa > 0.7
    assert one.kappa_interval[0] < one.kappa < one.kappa_interval[1]
    assert beats_constants([each[0] for each in votes], gold)
    most_common = max({1, 2, 0}, key=gold.count)
    constant = agreement([most_common] * 999, gold, resamples=300)
    assert constant.kappa == 0.0
    assert not beats_constants([most_common] * 999, gold)
