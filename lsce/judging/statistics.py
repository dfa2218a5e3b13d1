"""Intervals and tests of plain numbers, one a seed; verdicts have a rule of their own.

The unit of replication is the training seed; arms that are compared share seeds and are paired
by them (Bouthillier et al. 2021).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """A mean over `n` seeds with its two-sided Student t interval at `level`, the sample standard
    deviation (n − 1) and the two-sided p-value for a mean of 0; a single seed has NaN for these."""

    mean: float
    low: float
    high: float
    n: int
    sd: float
    p: float
    level: float = 0.95


def mean_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """The t interval of the mean of `values` (n,), one a seed.

    Raises ValueError if there are none or one is not finite (a diverged run must be dealt with
    before), or if not 0 < level < 1.
    """
    numbers = _finite("values", values)
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, but it is {level!r}")
    n, mean = len(numbers), float(numbers.mean())
    if n == 1:
        return Interval(mean, np.nan, np.nan, 1, np.nan, np.nan, level)
    sd = float(numbers.std(ddof=1))
    half = float(stats.t.ppf((1 + level) / 2, n - 1) * sd / np.sqrt(n))
    # Where nothing varies, as when a measure is at the end of its scale, nothing can be said.
    p = float(2 * stats.t.sf(abs(mean) * np.sqrt(n) / sd, n - 1)) if sd > 0 else 1.0
    return Interval(mean, mean - half, mean + half, n, sd, p, level)


def paired_difference(treatment: ArrayLike, control: ArrayLike, level: float = 0.95) -> Interval:
    """The t interval of mean(treatment − control), both (n,) with the seeds in the same order.

    Raises ValueError as `mean_interval` does, and if the lengths differ.
    """
    first, second = _finite("treatment", treatment), _finite("control", control)
    if len(first) != len(second):
        raise ValueError(
            "treatment and control must be paired by seed, but have"
            f" {len(first)} and {len(second)} values"
        )
    return mean_interval(first - second, level)


def prediction_interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """The two-sided Student t interval for one more value like `values` (n,), n >= 2.

    Raises ValueError as `mean_interval` does, and for a single value.
    """
    interval = mean_interval(values, level)
    if interval.n < 2:
        raise ValueError("values must hold two or more numbers, but there is one")
    half = (interval.high - interval.mean) * np.sqrt(interval.n + 1)
    return interval.mean - float(half), interval.mean + float(half)


def holm(p_values: ArrayLike) -> np.ndarray:
    """Holm's (1979) adjusted p-values of one family, in the order given."""
    p = _finite("p_values", p_values)
    if p.min() < 0 or p.max() > 1:
        raise ValueError(f"p_values must lie in [0, 1], but they are {p.tolist()}")
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return adjusted.clip(max=1)


def _finite(name: str, values: ArrayLike) -> np.ndarray:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers):
        raise ValueError(f"{name} must be one or more numbers (n,), but has shape {numbers.shape}")
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be finite, but they are {numbers.tolist()}")
    return numbers
