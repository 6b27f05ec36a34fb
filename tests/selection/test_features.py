"""The small classifier and its vectors, against hand values and against chance."""

import numpy as np
import pytest

from stillhouse.selection.features import area, chances, fitted, groups_of, rows_of


def test_vectors_have_length_one_and_know_word_order() -> None:
    """R11."""
    one, same, other, none = rows_of(["dog bites man", "Dog bites man!", "man bites dog", "--"], None)
    assert one @ one == pytest.approx(1) and one @ same == pytest.approx(1)
    assert 0.3 < one @ other < 0.9  # the words are the same, the pairs are not
    assert not none.any()


def test_the_fit_is_where_the_gradient_vanishes() -> None:
    """R11: balanced log loss and its penalty, in float64, by finite differences."""
    draw = np.random.default_rng(0)
    rows, labels = draw.normal(size=(40, 3)), np.arange(40) % 4 == 0
    weights = fitted(rows, labels, penalty=2.0)

    def loss(told: np.ndarray) -> float:
        margin = np.where(labels, 1, -1) * (rows @ told[:-1] + told[-1])
        each = np.log1p(np.exp(-margin))
        return each[labels].mean() / 2 + each[~labels].mean() / 2 + 2.0 / 40 * (told[:-1] ** 2).sum() / 2

    for at in range(4):
        step = np.eye(4)[at] * 1e-5
        assert (loss(weights + step) - loss(weights - step)) / 2e-5 == pytest.approx(0, abs=1e-4)
    assert chances(np.zeros((1, 3)), np.array([0.0, 0, 0, np.log(3)]))[0] == pytest.approx(0.75)


def test_area_by_hand() -> None:
    """R11: 3 of 4 pairs in order, a tie half."""
    assert area(np.array([0.9, 0.2, 0.3, 0.1]), [True, True, False, False]) == pytest.approx(0.75)
    assert area(np.array([0.5, 0.5]), [True, False]) == pytest.approx(0.5)
    assert area(np.array([0.5, 0.6]), [True, True]) is None


def test_groups_are_found() -> None:
    """R51: three clouds far apart; the same seed, the same groups."""
    draw = np.random.default_rng(1)
    rows = np.concatenate([draw.normal(size=(20, 4)) * 0.1 + 5 * np.eye(4)[k] for k in range(3)])
    found = groups_of(rows, 3, 0)
    assert [len(set(found[20 * k : 20 * k + 20])) for k in range(3)] == [1, 1, 1] and len(set(found)) == 3
    assert (found == groups_of(rows, 3, 0)).all()
    assert len(groups_of(rows[:2], 8, 0)) == 2
