"""Is a difference real? Intervals for means over items and seeds, paired where two arms share both.

Legend: S seeds (repeats of a training), I items (held-out questions or windows), R resamples. values_SI[s, i] is the
score of item i under the student of seed s. Items are the same for all seeds, so both are resampled: seeds and items
independently.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stillhouse.errors import RecipeError

__all__: list[str] = []

_Counted = Callable[[np.ndarray, float], tuple[float, float]]
_RESAMPLES_AT_ONCE = 500  # bounds memory at about 500 x items numbers


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its interval: `low` and `high` are those of the widest of the methods.

    `bootstrap` resamples seeds and items; `t_over_seeds` is Student's t on one mean per seed (None with one seed).
    Where items are right or wrong, `counted` stands beside them (None otherwise): resampling knows only what was seen,
    and says 0 to 0 of a student that got none of 40 right, which is up to 8.8 %.
    `left_out` counts items without a value in some seed or arm.
    """

    mean: float
    low: float
    high: float
    bootstrap: tuple[float, float]
    t_over_seeds: tuple[float, float] | None
    counted: tuple[float, float] | None
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
    counted = _agresti_min if _graded(ours_SI) and _graded(theirs_SI) else None
    return _interval(ours_SI - theirs_SI, counted, level, resamples, seed)


def single(values_SI: np.ndarray, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Interval:
    """The mean of one arm with its interval over seeds and items. Items with a missing value (nan) are left out."""
    values_SI = _checked(values_SI)
    return _interval(values_SI, _clopper_pearson if _graded(values_SI) else None, level, resamples, seed)


def _interval(values_SI: np.ndarray, counted: _Counted | None, level: float, resamples: int, seed: int) -> Interval:
    whole_I = ~np.isnan(values_SI).any(axis=0)
    left_out = int((~whole_I).sum())
    values_SI = values_SI[:, whole_I]
    S, I = values_SI.shape
    if I == 0:
        raise RecipeError("no item has a value in every seed and arm; there is nothing to compare")
    bootstrap = _bootstrap(values_SI, level, resamples, np.random.default_rng(seed))
    over_seeds = _student(values_SI.mean(axis=1), level) if S > 1 else None
    by_count = counted(values_SI.mean(axis=0), level) if counted else None
    widest = max((bootstrap, over_seeds or bootstrap, by_count or bootstrap), key=lambda ends: ends[1] - ends[0])
    return Interval(float(values_SI.mean()), *widest, bootstrap, over_seeds, by_count, S, I, left_out, level)


def _graded(values_SI: np.ndarray) -> bool:
    return bool(np.isin(values_SI[~np.isnan(values_SI)], (0.0, 1.0)).all())


def _clopper_pearson(values_I: np.ndarray, level: float) -> tuple[float, float]:
    """The exact binomial interval of a share of I items; seeds of one item count as one, and fractions are allowed."""
    from scipy.stats import beta

    I, right, tail = len(values_I), float(values_I.sum()), (1 - level) / 2
    low = float(beta.ppf(tail, right, I - right + 1)) if right > 0 else 0.0
    high = float(beta.ppf(1 - tail, right + 1, I - right)) if right < I else 1.0
    return low, high


def _agresti_min(differences_I: np.ndarray, level: float) -> tuple[float, float]:
    """For matched pairs: half an item added to each of the four cells, then the normal interval.

    Source: Agresti and Min, Simple improved confidence intervals for comparing matched proportions (2005).
    """
    from scipy.stats import norm

    n = len(differences_I) + 2
    gained, lost = np.clip(differences_I, 0, None).sum() + 0.5, np.clip(-differences_I, 0, None).sum() + 0.5
    mean = float(gained - lost) / n
    half = float(norm.ppf((1 + level) / 2)) * (float(gained + lost) / n - mean**2) ** 0.5 / n**0.5
    return max(mean - half, -1.0), min(mean + half, 1.0)


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
