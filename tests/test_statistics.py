import dataclasses
import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from lsce.judging import statistics
from lsce.judging.statistics import Interval

RNG = np.random.default_rng(0)
TREATMENT = RNG.normal(0.5, 1, 7)
CONTROL = RNG.normal(0, 1, 7)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_paired_difference_equals_scipy(level):
    ours = statistics.paired_difference(TREATMENT, CONTROL, level)
    theirs = scipy_stats.ttest_rel(TREATMENT, CONTROL)
    ci = theirs.confidence_interval(level)
    assert (ours.low, ours.high, ours.p) == pytest.approx((ci.low, ci.high, theirs.pvalue))
    assert (ours.n, ours.level) == (7, level)
    assert ours.mean == pytest.approx(TREATMENT.mean() - CONTROL.mean())
    assert ours.sd == pytest.approx(math.sqrt(sum((TREATMENT - CONTROL - ours.mean) ** 2) / 6))


def test_mean_interval_by_hand():
    # t(0.975, 2) = 4.302653, sd 1, n 3.
    interval = statistics.mean_interval([1, 2, 3])
    assert interval.mean == 2 and interval.sd == 1
    assert interval.high - 2 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    theirs = scipy_stats.ttest_1samp([1, 2, 3], 0)
    assert interval.p == pytest.approx(theirs.pvalue)
    with pytest.raises(dataclasses.FrozenInstanceError):
        interval.mean = 0


def test_t_interval_covers_as_often_as_it_says():
    draws = np.random.default_rng(1).normal(0.3, 2, (1000, 5))
    intervals = [statistics.mean_interval(d, 0.9) for d in draws]
    covered = sum(i.low <= 0.3 <= i.high for i in intervals)
    assert scipy_stats.binomtest(covered, 1000, 0.9).pvalue > 0.001


def test_one_seed_has_no_interval():
    interval = statistics.paired_difference([0.75], [0.5])
    assert (interval.mean, interval.n) == (0.25, 1)
    assert all(math.isnan(x) for x in (interval.low, interval.high, interval.sd, interval.p))


def test_differences_without_spread():
    interval = statistics.mean_interval([0.5, 0.5])
    assert interval == Interval(0.5, 0.5, 0.5, 2, 0.0, 1.0)


def test_bad_values_are_named():
    with pytest.raises(ValueError, match="paired by seed, but have 2 and 3 values"):
        statistics.paired_difference([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match=r"control must be finite, but they are \[1.0, nan\]"):
        statistics.paired_difference([1, 2], [1, math.nan])
    with pytest.raises(ValueError, match=r"values must be one or more numbers.*\(0,\)"):
        statistics.mean_interval([])
    with pytest.raises(ValueError, match=r"\(1, 2\)"):
        statistics.mean_interval([[1, 2]])
    with pytest.raises(ValueError, match="level must lie between 0 and 1, but it is 95"):
        statistics.mean_interval([1, 2], 95)


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.04 by 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.04 -> running maximum.
    np.testing.assert_allclose(statistics.holm([0.04, 0.01, 0.03, 0.02]), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(statistics.holm([0.5, 0.9]), [1, 1])
    np.testing.assert_allclose(statistics.holm([0.3]), [0.3])
    for wrong in (-0.1, 1.1):
        with pytest.raises(ValueError, match=r"p_values must lie in \[0, 1\]"):
            statistics.holm([0.1, wrong])
    with pytest.raises(ValueError, match="p_values must be finite"):
        statistics.holm([0.1, math.nan])


def test_holm_rejects_what_the_step_down_procedure_rejects():
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = rng.uniform(0, 0.1, 6)
        rejected = np.zeros(6, dtype=bool)
        for step, i in enumerate(np.argsort(p)):
            if p[i] > 0.05 / (6 - step):
                break
            rejected[i] = True
        assert (statistics.holm(p) <= 0.05).tolist() == rejected.tolist()
