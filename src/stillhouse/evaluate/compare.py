"""Is a difference real? Intervals for means over items and seeds, paired where two arms share both.

Legend: S seeds (repeats of a training), I items (held-out questions or windows), R resamples. values_SI[s, i] is the
score of item i under the student of seed s. Items are the same for all seeds, so both are resampled: seeds and items
independently.
"""

from dataclasses import dataclass

import numpy as np

from stillhouse.errors import RecipeError

__all__: list[str] = []

_RESAMPLES_AT_ONCE = 500  # bounds memory at about 500 x items numbers


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its interval: `low` and `high` are those of the wider of the two methods.

    `bootstrap` resamples seeds and items; `t_over_seeds` is Student's t on one mean per seed (None with one seed).
    `left_out` counts items without a value in some seed or arm.
    """

    mean: float
    low: float
    high: float
    bootstrap: tuple[float, float]
    t_over_seeds: tuple[float, float] | None
    seeds: int
    items: int
    left_out: int = 0
    level: float = 0.95

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def paired(
    ours_SI: np.ndarray, theirs_SI: np.ndarray, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """The mean of ours - theirs with its interval; seeds and items are paired by position.

    An arm measured once (a teacher, a base student: shape (1, I)) stands against every seed of the other. Source:
    hierarchical paired bootstrap beside a t-interval over seeds, the wider of the two reported.
    """
    ours_SI, theirs_SI = _checked(ours_SI), _checked(theirs_SI)
    if ours_SI.shape[1] != theirs_SI.shape[1]:
        raise RecipeError(f"{ours_SI.shape[1]} items against {theirs_SI.shape[1]}: compare arms on the same items")
    if ours_SI.shape[0] != theirs_SI.shape[0] and 1 not in (ours_SI.shape[0], theirs_SI.shape[0]):
        raise RecipeError(f"{ours_SI.shape[0]} seeds against {theirs_SI.shape[0]}: pair the repeats of both arms")
    return single(ours_SI - theirs_SI, level=level, resamples=resamples, seed=seed)


def single(values_SI: np.ndarray, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Interval:
    """The mean of one arm with its interval over seeds and items. Items with a missing value (nan) are left out."""
    values_SI = _checked(values_SI)
    whole_I = ~np.isnan(values_SI).any(axis=0)
    left_out = int((~whole_I).sum())
    values_SI = values_SI[:, whole_I]
    S, I = values_SI.shape
    if I == 0:
        raise RecipeError("no item has a value in every seed and arm; there is nothing to compare")
    bootstrap = _bootstrap(values_SI, level, resamples, np.random.default_rng(seed))
    over_seeds = _student(values_SI.mean(axis=1), level) if S > 1 else None
    widest = max((bootstrap, over_seeds or bootstrap), key=lambda ends: ends[1] - ends[0])
    return Interval(float(values_SI.mean()), *widest, bootstrap, over_seeds, S, I, left_out, level)


def _checked(values_SI: np.ndarray) -> np.ndarray:
    values_SI = np.asarray(values_SI, dtype=np.float64)
    if values_SI.ndim != 2:
        raise RecipeError(f"values have shape {values_SI.shape}; give one row per seed and one column per item")
    return values_SI


def _bootstrap(values_SI: np.ndarray, level: float, resamples: int, rng: np.random.Generator) -> tuple[float, float]:
    """Percentile interval; a resample is a count of how often each seed and each item was drawn."""
    S, I = values_SI.shape
    means = []
    for start in range(0, resamples, _RESAMPLES_AT_ONCE):
        R = min(_RESAMPLES_AT_ONCE, resamples - start)
        seed_counts_RS, item_counts_RI = _counts(rng, R, S), _counts(rng, R, I)
        means.append(((seed_counts_RS @ values_SI) * item_counts_RI).sum(axis=1) / (S * I))
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def _counts(rng: np.random.Generator, R: int, n: int) -> np.ndarray:
    drawn_Rn = rng.integers(0, n, size=(R, n)) + n * np.arange(R)[:, None]
    return np.bincount(drawn_Rn.ravel(), minlength=R * n).reshape(R, n).astype(np.float64)


def _student(means_S: np.ndarray, level: float) -> tuple[float, float]:
    from scipy.stats import t

    S = len(means_S)
    half = float(t.ppf((1 + level) / 2, S - 1)) * float(means_S.std(ddof=1)) / S**0.5
    return float(means_S.mean()) - half, float(means_S.mean()) + half
