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

import functools
import math
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
    """An estimate with its interval, which holds together with all of its family, of that
    `family_size`; NaN without."""

    low: float
    high: float
    family: float


def estimate(effects: ArrayLike, by_group: ArrayLike | None = None) -> Estimate:
    """An effect's mean with the variance that seeds and test images give it.

    effects: floats (n,), of each seed. by_group: floats (n, G >= 2), for each seed how the effect
    varies between G groups of test images (see `lsce.measures.jackknife.by_group`), an image being
    in the same group for all seeds; None for a measure that is not of test images. Raises
    ValueError for no effect, or for a number that is not finite.
    """
    values = np.asarray(effects, dtype=np.float64)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise ValueError(f"effects must be one or more finite numbers (n,), but are {values!r}")
    n, mean = len(values), float(values.mean())
    groups = np.zeros((n, 2)) if by_group is None else np.asarray(by_group, dtype=np.float64)
    if groups.ndim != 2 or groups.shape[0] != n or groups.shape[1] < 2:
        raise ValueError(f"by_group must have shape ({n}, G) with G >= 2, but has {groups.shape}")
    if not np.isfinite(groups).all():
        raise ValueError("by_group must be finite, but some numbers are NaN or infinite")
    if n == 1:
        return Estimate(mean, 1, np.nan, np.nan)
    of_seeds, of_images = map(float, standard_errors(values, groups))
    return Estimate(mean, n, of_seeds, np.nan if by_group is None else of_images)


def standard_errors(effects: np.ndarray, by_group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The parts of the standard errors of means over seeds that seeds and test images have, both of
    shape (...).

    effects: floats (..., n >= 2). by_group: floats (..., n, G >= 2), see `estimate`.

    The jackknife's pseudo-values of seeds × groups are analysed as two crossed random factors, as
    readers × cases are in radiology (Dorfman, Berbaum & Metz 1992, Investigative Radiology 27):
    with the mean squares of seeds, groups and what neither explains, the variance of the mean is
    (MS_seeds + MS_groups − MS_rest) / nG, for the first two both hold the rest. It is taken off the
    images' part. (The crossed bootstrap of Owen 2007, Annals of Applied Statistics 1, adds MS_rest
    instead, so that of the mean of a complete table it counts the rest three times.)
    """
    n, groups = by_group.shape[-2:]
    of_groups = by_group.mean(-2, keepdims=True)
    of_seeds = by_group.mean(-1, keepdims=True)
    rest = by_group - of_seeds - of_groups + of_groups.mean(-1, keepdims=True)
    both = (rest**2).sum((-2, -1)) / ((n - 1) * (groups - 1) * n * groups)
    of_images = of_groups[..., 0, :].var(-1, ddof=1) / groups - both
    return effects.std(-1, ddof=1) / np.sqrt(n), np.sqrt(np.maximum(of_images, 0.0))


def family_size(effects: int, chosen_among: Iterable[int] = ()) -> float:
    """For how many effects the intervals of a page have to hold.

    effects: how many are judged whatever validation says. chosen_among: for each that may be judged
    beside them at a setting that validation chooses, among how many other settings k. What chance
    did to a seed's validation value it also did to its test value; so it may have raised any of k
    effects into the tail above, while the choice makes the tail below none the likelier. Such an
    effect counts (k + 1) / 2 times, whether or not validation chose another setting.
    """
    return effects + sum((k + 1) / 2 for k in chosen_among)


def intervals(
    estimates: Sequence[Estimate], size: float | None = None, level: float = LEVEL
) -> list[Effect]:
    """Two-sided intervals that hold together with probability `level`. size: `family_size`, by
    default the number of estimates.

    Half an interval's width is √(t²_seeds se²_seeds + t²_images se²_images), each part with the t
    quantile of its own degrees of freedom (Banerjee 1960, Sankhyā 22): such an interval holds at
    least as often as it says, also where chance makes one part small. The quantiles are
    Bonferroni's, so that it does not matter how the effects of a page depend on each other.
    """
    effects, family = [], float(size or len(estimates))
    for each in estimates:
        half = math.nan
        if each.se_seeds > 0:  # without any spread between seeds there is no saying
            tail = (1 - level) / (2 * family)
            of_images = 0.0 if math.isnan(each.se_images) else each.se_images
            half = math.hypot(
                _quantile(tail, each.n - 1) * each.se_seeds,
                _quantile(tail, GROUPS - 1) * of_images,
            )
        low, high = each.mean - half, each.mean + half
        effects.append(Effect(**vars(each), low=low, high=high, family=family))
    return effects


@functools.cache
def _quantile(tail: float, freedom: int) -> float:
    """What Student's t exceeds with probability `tail`."""
    return float(stats.t.isf(tail, freedom))


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
