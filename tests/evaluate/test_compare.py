"""Intervals: hand values, coverage by simulation, and the shape of the answer."""

import numpy as np
import pytest

from stillhouse.errors import RecipeError
from stillhouse.evaluate.compare import paired, single


def test_one_item_difference_by_hand() -> None:
    """Three seeds with mean differences 0.1, 0.2, 0.3: t interval 0.2 +- 4.3027 * 0.1 / sqrt(3)."""
    theirs_SI = np.zeros((3, 10))
    ours_SI = np.tile(np.array([[0.1], [0.2], [0.3]]), (1, 10))
    got = paired(ours_SI, theirs_SI)
    assert got.mean == pytest.approx(0.2)
    assert got.t_over_seeds == pytest.approx((0.2 - 4.302653 * 0.1 / 3**0.5, 0.2 + 4.302653 * 0.1 / 3**0.5), abs=1e-6)
    assert got.bootstrap == pytest.approx((0.1, 0.3))  # all three draws of one seed: probability 1/27 > 2.5 %
    assert (got.low, got.high) == got.t_over_seeds  # the wider
    assert not got.excludes_zero
    assert (got.seeds, got.items) == (3, 10)


def test_equal_arms_differ_by_nothing() -> None:
    values_SI = np.random.default_rng(0).random((3, 50))
    got = paired(values_SI, values_SI)
    assert (got.mean, got.low, got.high) == (0, 0, 0)
    assert not got.excludes_zero


def test_bootstrap_over_items_matches_the_normal_interval() -> None:
    """One seed, 400 items of 0 and 1: mean +- 1.96 standard errors, within the bootstrap's own noise."""
    values_SI = np.array([[1.0] * 300 + [0.0] * 100])
    got = single(values_SI)
    se = (0.75 * 0.25 / 400) ** 0.5
    assert got.t_over_seeds is None
    assert (got.low, got.high) == pytest.approx((0.75 - 1.96 * se, 0.75 + 1.96 * se), abs=0.004)


def test_none_right_is_not_known_to_be_none() -> None:
    """Rule of three, exactly: 0 of 40 is up to 1 - 0.025^(1/40); and 40 of 40 the mirror of it."""
    got = single(np.zeros((1, 40)))
    assert got.bootstrap == (0, 0)
    assert (got.low, got.high) == pytest.approx((0, 1 - 0.025 ** (1 / 40)))
    assert single(np.ones((3, 40))).low == pytest.approx(0.025 ** (1 / 40))
    # 7 of 20: the tabulated Clopper-Pearson limits
    assert single(np.array([[1.0] * 7 + [0.0] * 13])).counted == pytest.approx((0.1539, 0.5922), abs=1e-4)


def test_two_arms_that_agree_on_every_item_may_still_differ() -> None:
    """Agresti and Min: with nothing discordant among 40, +- 1.96 sqrt(1 / 42) / sqrt(42)."""
    got = paired(np.zeros((1, 40)), np.zeros((1, 40)))
    assert (got.low, got.high) == pytest.approx((-1.959964 / 42, 1.959964 / 42), abs=1e-6)
    # 12 gained, 4 lost of 100: mean 8 / 102, variance (17 / 102 - (8 / 102)^2) / 102
    ours, theirs = np.zeros((1, 100)), np.zeros((1, 100))
    ours[0, :12], theirs[0, 12:16] = 1, 1
    half = 1.959964 * ((17 / 102 - (8 / 102) ** 2) / 102) ** 0.5
    assert paired(ours, theirs).counted == pytest.approx((8 / 102 - half, 8 / 102 + half), abs=1e-6)
    assert paired(ours * 0.5, theirs).counted is None  # not right or wrong: nothing is known of where items can lie


def test_pairing_removes_what_both_arms_share() -> None:
    rng = np.random.default_rng(1)
    hard_I = rng.normal(size=(1, 200))
    theirs_SI = hard_I + rng.normal(scale=0.05, size=(3, 200))
    ours_SI = theirs_SI + 0.1 + rng.normal(scale=0.05, size=(3, 200))
    difference, alone = paired(ours_SI, theirs_SI), single(ours_SI)
    assert difference.excludes_zero
    assert difference.high - difference.low < (alone.high - alone.low) / 5


def test_an_arm_measured_once_stands_against_every_seed() -> None:
    ours_SI, teacher_SI = np.full((3, 5), 0.5), np.full((1, 5), 0.75)
    assert paired(ours_SI, teacher_SI).mean == pytest.approx(-0.25)


def test_the_same_seed_gives_the_same_interval_and_order_of_arms_flips_it() -> None:
    rng = np.random.default_rng(2)
    a_SI, b_SI = rng.random((3, 40)), rng.random((3, 40))
    assert paired(a_SI, b_SI, seed=5) == paired(a_SI, b_SI, seed=5)
    forth, back = paired(a_SI, b_SI), paired(b_SI, a_SI)
    assert forth.low == pytest.approx(-back.high)


def test_missing_values_leave_the_item_out_of_both_arms() -> None:
    ours_SI = np.array([[1.0, np.nan, 0.0, 1.0]])
    theirs_SI = np.array([[0.0, 1.0, 0.0, np.nan]])
    got = paired(ours_SI, theirs_SI)
    assert (got.items, got.left_out, got.mean) == (2, 2, 0.5)
    with pytest.raises(RecipeError, match="nothing to compare"):
        single(np.full((2, 3), np.nan))


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(RecipeError, match="same items"):
        paired(np.zeros((3, 4)), np.zeros((3, 5)))
    with pytest.raises(RecipeError, match="pair the repeats"):
        paired(np.zeros((3, 4)), np.zeros((2, 4)))
    with pytest.raises(RecipeError, match="one row per seed"):
        single(np.zeros(4))


@pytest.mark.parametrize(
    ("seeds", "items", "seed_spread", "least", "most"),
    [(3, 60, 0.3, 0.93, 1.0), (8, 80, 0.3, 0.90, 0.985), (1, 80, 0.0, 0.90, 0.98), (5, 60, 0.0, 0.91, 0.985)],
)
def test_coverage(seeds: int, items: int, seed_spread: float, least: float, most: float) -> None:
    """A nominal 95 % interval holds the truth in about 95 % of 300 experiments; with three seeds more often."""
    rng = np.random.default_rng(seeds)
    held = 0
    for k in range(300):
        noise_SI = 0.5 * rng.normal(size=(seeds, items))
        values_SI = 0.5 + seed_spread * rng.normal(size=(seeds, 1)) + rng.normal(size=(1, items)) + noise_SI
        got = single(values_SI, resamples=400, seed=k)
        held += got.low <= 0.5 <= got.high
    assert least <= held / 300 <= most
