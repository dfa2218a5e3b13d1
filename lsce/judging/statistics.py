"""Intervals, tests, and the rule that turns numbers into a verdict.

The unit of replication is the training seed; arms that are compared share seeds and are paired
by them (Bouthillier et al. 2021).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

SUPPORTED, REFUTED, UNDECIDED, DEPENDS = "supported", "refuted", "undecided", "depends"

#: What a single effect can say; claims judged in several regimes may also be `DEPENDS`.
VERDICTS = (SUPPORTED, REFUTED, UNDECIDED)

#: Beyond this many more runs, `judge_family` does not say how many are needed.
MOST_RUNS = 10_000


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


@dataclass(frozen=True)
class Verdict:
    """What an effect says of a claim: "supported", "refuted" or "undecided"."""

    verdict: str
    #: How many more runs would decide an undecided claim if mean and standard deviation stayed as
    #: they are; None for a decided one, and where that can't be told.
    more_runs: int | None
    #: Corrected for the family, see `judge_family`.
    p: float


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
    half = float(_half_width(sd, n, level))
    interval = Interval(mean, mean - half, mean + half, n, sd, np.nan, level)
    return replace(interval, p=_p(interval, 0.0))


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


def judge_family(effects: Sequence[Interval], smallest: Sequence[float]) -> list[Verdict]:
    """The verdicts on a family of claims from their effects, positive where they favour the claim,
    with Holm's correction over all of them.

    `smallest` >= 0 is the smallest effect worth the claim, in the effect's unit; else ValueError.
    Supported: the interval lies above 0 and the mean is at least `smallest`. Refuted: the interval
    lies below `smallest`. Undecided: neither, and always so with a single seed or without any
    spread. The hypothesis tested is that the effect is at most 0 where its mean reaches
    `smallest`, and that it is at least `smallest` elsewhere.
    """
    for value in smallest:
        if not 0 <= value < np.inf:
            raise ValueError(f"smallest must be at least 0 and finite, but it is {value!r}")
    if not len(effects):
        return []
    pairs = list(zip(effects, smallest, strict=True))
    p = holm([1.0 if e.n < 2 else _p(e, 0.0 if e.mean >= s else s) for e, s in pairs])
    alpha = 1 - effects[0].level
    left = int((p >= alpha).sum())
    verdicts = []
    for (effect, least), corrected in zip(pairs, p.tolist(), strict=True):
        if corrected >= alpha:
            more = _more_runs(effect, least, 1 - alpha / left)
            verdicts.append(Verdict(UNDECIDED, more, corrected))
        else:
            word = SUPPORTED if effect.mean >= least else REFUTED
            verdicts.append(Verdict(word, None, corrected))
    return verdicts


def _p(effect: Interval, value: float) -> float:
    """The two-sided p-value of the t test that the mean is `value`; 1 where nothing varies, as when
    a measure is at the end of its scale."""
    if effect.sd == 0:
        return 1.0
    distance = abs(effect.mean - value)
    return float(2 * stats.t.sf(distance * np.sqrt(effect.n) / effect.sd, effect.n - 1))


def combine(verdicts: Iterable[str]) -> str:
    """One word for a claim judged in several settings: the verdict they share; "depends" if some
    support and some refute it; else "undecided"."""
    distinct = set(verdicts)
    if not distinct:
        raise ValueError("verdicts must hold at least one verdict, but it is empty")
    if len(distinct) == 1:
        return distinct.pop()
    return DEPENDS if {SUPPORTED, REFUTED} <= distinct else UNDECIDED


def _finite(name: str, values: ArrayLike) -> np.ndarray:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers):
        raise ValueError(f"{name} must be one or more numbers (n,), but has shape {numbers.shape}")
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be finite, but they are {numbers.tolist()}")
    return numbers


def _half_width(sd: float, n: int | np.ndarray, level: float) -> np.ndarray:
    return np.asarray(stats.t.ppf((1 + level) / 2, n - 1) * sd / np.sqrt(n))


def _more_runs(effect: Interval, smallest: float, level: float) -> int | None:
    if effect.n < 2 or effect.sd == 0:
        return None
    room = effect.mean if effect.mean >= smallest else smallest - effect.mean
    more = np.arange(1, MOST_RUNS + 1)
    enough = _half_width(effect.sd, effect.n + more, level) < room
    return int(more[enough.argmax()]) if enough.any() else None
