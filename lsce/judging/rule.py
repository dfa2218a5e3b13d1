"""The rule that turns paired runs into verdicts.

An *effect* is a number for each training seed, positive where it favours the claim: a difference
between runs that share the seed. Two things were sampled: the seeds, and the test images, which are
the same for all seeds. Its variance therefore has two parts (`estimate`); its interval holds with
those of the whole page (`intervals`); and interval and margin give the verdict (`verdict`):

supported     the interval lies above 0, and the estimate is at least the margin
opposite      the interval lies below 0, and the estimate is at most minus the margin
negligible    the interval lies within the margin on both sides of 0
undecided     anything else

A claim of "not worse than" is supported where the interval lies above minus the margin, opposite
where it lies below it, and else undecided. Where a precondition fails nothing is judged: the claim
is "not testable here" (`lsce.judging.preconditions`). `lsce.judging.simulation` tries the rule.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from lsce.measures.jackknife import GROUPS

SUPPORTED, OPPOSITE, NEGLIGIBLE = "supported", "opposite", "negligible"
UNDECIDED, UNTESTABLE, DEPENDS = "undecided", "not testable here", "depends"

#: What is said of one effect; of a claim in several regimes it may also be `DEPENDS`.
VERDICTS = (SUPPORTED, OPPOSITE, NEGLIGIBLE, UNDECIDED, UNTESTABLE)

#: The intervals of a page hold together with this probability.
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """The mean of an effect over `n` seeds and the parts of its standard error that seeds and test
    images have. NaN where there is a single seed; `se_images` also where the measure is not of test
    images."""

    mean: float
    n: int
    se_seeds: float
    se_images: float


@dataclass(frozen=True)
class Effect(Estimate):
    """An estimate with its interval, which holds together with all of its family; NaN without."""

    low: float
    high: float


def estimate(effects: ArrayLike, by_group: ArrayLike | None = None) -> Estimate:
    """An effect's mean with the variance that seeds and test images give it.

    effects: floats (n,), of each seed. by_group: floats (n, G), for each seed how the effect varies
    between G groups of test images (see `lsce.measures.jackknife.by_group`), an image being in the
    same group for all seeds; None for a measure that is not of test images. Raises ValueError for
    no effect, or for one that is not finite.

    The jackknife's pseudo-values of seeds × groups are analysed as two crossed random factors, as
    readers × cases are in radiology (Dorfman, Berbaum & Metz 1992, Investigative Radiology 27):
    the variances of the means over either factor both hold that of what neither explains, which is
    taken off the images' part. Of a mean over images this is the closed form of the crossed
    bootstrap (Owen 2007, Annals of Applied Statistics 1), which counts it twice.
    """
    values = np.asarray(effects, dtype=np.float64)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise ValueError(f"effects must be one or more finite numbers (n,), but are {values!r}")
    n, mean = len(values), float(values.mean())
    if n == 1:
        return Estimate(mean, 1, np.nan, np.nan)
    se_seeds = float(values.std(ddof=1) / np.sqrt(n))
    if by_group is None:
        return Estimate(mean, n, se_seeds, np.nan)
    deviations = np.asarray(by_group, dtype=np.float64)
    groups, of_groups = deviations.shape[1], deviations.mean(0)
    rest = deviations - deviations.mean(1, keepdims=True) - of_groups + deviations.mean()
    both = float((rest**2).sum()) / ((n - 1) * (groups - 1) * n * groups)
    of_images = max(float(of_groups.var(ddof=1)) / groups - both, 0.0)
    return Estimate(mean, n, se_seeds, float(np.sqrt(of_images)))


def intervals(estimates: Sequence[Estimate], level: float = LEVEL) -> list[Effect]:
    """Two-sided intervals that hold together with probability `level`.

    Half an interval's width is √(t²_seeds se²_seeds + t²_images se²_images), each part with the t
    quantile of its own degrees of freedom (Banerjee 1960, Sankhyā 22): such an interval holds at
    least as often as it says, also where chance makes one part small. The quantiles are
    Bonferroni's, so that it does not matter how the effects of a page depend on each other.
    """
    effects = []
    for each in estimates:
        half = np.nan
        if each.se_seeds > 0:  # without any spread between seeds there is no saying
            tail = (1 - level) / (2 * len(estimates))
            of_seeds = stats.t.isf(tail, each.n - 1) * each.se_seeds
            of_images = stats.t.isf(tail, GROUPS - 1) * np.nan_to_num(each.se_images)
            half = float(np.hypot(of_seeds, of_images))
        effects.append(Effect(**vars(each), low=each.mean - half, high=each.mean + half))
    return effects


def verdict(effect: Effect, margin: float, not_worse: bool = False) -> str:
    """What an effect says of a claim, see above. margin > 0, in the effect's unit; `not_worse`:
    the claim is that the effect is above minus the margin."""
    if not 0 < margin < np.inf:
        raise ValueError(f"margin must be positive and finite, but it is {margin!r}")
    mean, low, high = effect.mean, effect.low, effect.high
    if not_worse:
        return SUPPORTED if low > -margin else OPPOSITE if high < -margin else UNDECIDED
    if low > 0 and mean >= margin:
        return SUPPORTED
    if high < 0 and mean <= -margin:
        return OPPOSITE
    return NEGLIGIBLE if -margin < low and high < margin else UNDECIDED


def combine(verdicts: Iterable[str]) -> str:
    """One word for a claim that was judged in several regimes, without those where it was not
    testable: the verdict that they share; "depends" where decided ones differ; else "undecided"."""
    words = list(verdicts)
    if not words:
        raise ValueError("verdicts must hold at least one verdict, but it is empty")
    testable = set(words) - {UNTESTABLE}
    if not testable:
        return UNTESTABLE
    if len(testable) == 1:
        return testable.pop()
    return DEPENDS if len(testable - {UNDECIDED}) > 1 else UNDECIDED
