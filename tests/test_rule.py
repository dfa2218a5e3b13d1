"""The rule for verdicts: variances of seeds and test images, intervals of a page, the verdicts."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from lsce.judging import rule
from lsce.judging.rule import Effect, Estimate
from lsce.measures.calibration import debiased_calibration_error
from lsce.measures.jackknife import GROUPS, by_group, groups_of

NAN = math.nan
RNG = np.random.default_rng(0)


# ---- estimates ----


def table(seeds: int, groups: int, rng: np.random.Generator = RNG) -> np.ndarray:
    """Effects by seed and group, of both factors and of neither."""
    return (
        rng.normal(0.3, 1, (seeds, 1))
        + rng.normal(0, 2, (1, groups))
        + rng.normal(0, 1.5, (seeds, groups))
    )


def of_table(cells: np.ndarray) -> Estimate:
    """The estimate of a mean, whose parts by group are what its groups differ from it."""
    effects = cells.mean(1)
    return rule.estimate(effects, cells - effects[:, None])


def test_an_estimate_by_hand():
    # Rows (seeds) 1 3 | 5 5, so means 2 and 5; columns 3 and 4; grand mean 3.5.
    # MS_seeds = 2·((2 − 3.5)² + (5 − 3.5)²)/1 = 9, MS_groups = 2·(0.5² + 0.5²)/1 = 1, rest: cells
    # 1 − 2 − 3 + 3.5 = −0.5, 0.5, 0.5, −0.5, so MS_rest = 1. Variance (9 + 1 − 1)/4 = 2.25.
    found = of_table(np.array([[1.0, 3.0], [5.0, 5.0]]))
    assert (found.mean, found.n) == (3.5, 2)
    assert (found.se_seeds, found.se_images) == pytest.approx((1.5, 0))
    # With columns further apart: 0 4 | 4 6: means 2, 5; 2, 5; rest −0.5, 0.5, 0.5, −0.5.
    # MS_groups = 2·(1.5² + 1.5²) = 9, so that the images have (9 − 1)/4 = 2.
    found = of_table(np.array([[0.0, 4.0], [4.0, 6.0]]))
    assert (found.se_seeds, found.se_images) == pytest.approx((1.5, math.sqrt(2)))


def test_an_estimate_is_the_analysis_of_variance_of_two_crossed_random_factors():
    cells = table(5, 50)
    n, groups = cells.shape
    of_seeds, of_groups, grand = cells.mean(1), cells.mean(0), cells.mean()
    total = ((cells - grand) ** 2).sum()
    squares_seeds = groups * ((of_seeds - grand) ** 2).sum()
    squares_groups = n * ((of_groups - grand) ** 2).sum()
    squares_rest = total - squares_seeds - squares_groups
    mean_seeds, mean_groups = squares_seeds / (n - 1), squares_groups / (groups - 1)
    mean_rest = squares_rest / ((n - 1) * (groups - 1))
    found = of_table(cells)
    assert found.mean == pytest.approx(grand) and found.n == n
    assert found.se_seeds**2 == pytest.approx(mean_seeds / (n * groups))
    assert found.se_images**2 == pytest.approx((mean_groups - mean_rest) / (n * groups))


def test_the_crossed_bootstrap_counts_what_neither_factor_explains_three_times():
    """Seeds and groups drawn anew with replacement, each by itself (Owen 2007): with R seeds and C
    groups the variance of the mean over draws is (R − 1)/R · MS_seeds/RC + (C − 1)/C · MS_groups/RC
    + (R − 1)(C − 1)/RC · MS_rest/RC, for the weights of a draw are multinomial. Each mean square
    holds the rest once; ours takes it off once."""
    cells = table(6, 8)
    n, groups = cells.shape
    found = of_table(cells)
    centred = cells - cells.mean(1, keepdims=True) - cells.mean(0) + cells.mean()
    rest = (centred**2).sum() / ((n - 1) * (groups - 1)) / (n * groups)
    with_rest = found.se_images**2 + rest
    closed = (
        (n - 1) / n * found.se_seeds**2
        + (groups - 1) / groups * with_rest
        + (n - 1) * (groups - 1) / (n * groups) * rest
    )
    draws = 40_000
    rows = RNG.multinomial(n, np.full(n, 1 / n), draws)
    columns = RNG.multinomial(groups, np.full(groups, 1 / groups), draws)
    means = np.einsum("bi,ij,bj->b", rows, cells, columns) / (n * groups)
    assert means.var() == pytest.approx(closed, rel=0.03)


def test_estimates_are_right_on_average():
    """The expected variance is that of the mean: σ²_seeds/n + σ²_images/G + σ²_both/nG."""
    n, groups, tables = 5, 10, 4000
    rng = np.random.default_rng(1)
    cells = np.stack([table(n, groups, rng) for _ in range(tables)])
    effects = cells.mean(2)
    of_seeds, of_images = rule.standard_errors(effects, cells - effects[..., None])
    assert np.mean(of_seeds**2) == pytest.approx(1 / n + 1.5**2 / (n * groups), rel=0.05)
    assert np.mean(of_images**2) == pytest.approx(2**2 / groups, rel=0.05)
    assert np.mean(of_seeds**2 + of_images**2) == pytest.approx(effects.mean(1).var(), rel=0.06)
    first = of_table(cells[0])
    assert (first.se_seeds, first.se_images) == pytest.approx((of_seeds[0], of_images[0]))


def test_images_that_add_less_than_chance_add_nothing():
    cells = np.array([[1.0, -1.0], [-1.0, 1.0]])  # the groups have the same mean
    assert of_table(cells).se_images == 0


def test_the_variance_of_a_calibration_error_is_that_of_a_bootstrap_over_images():
    classes, images, seeds = 10, 4_000, 2
    rng = np.random.default_rng(2)
    logits = 2.5 * rng.normal(size=(images, classes))
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    flatter = np.sqrt(probs) / np.sqrt(probs).sum(1, keepdims=True)  # the truth: over-confident
    labels = (flatter.cumsum(1) < rng.random((images, 1))).sum(1).clip(max=classes - 1)
    order = np.argsort(labels, kind="stable")  # the groups take each class's images in turn
    probs, labels = probs[order], labels[order]

    def error(chosen: np.ndarray) -> float:
        return debiased_calibration_error(probs[chosen], labels[chosen])

    value, parts = by_group(lambda kept: {"error": error(kept)}, groups_of(labels))
    found = rule.estimate([value["error"]] * seeds, [parts["error"]] * seeds)
    resampled = [error(rng.integers(images, size=images)) for _ in range(400)]
    assert value["error"] > 0.1
    # 50 groups and 400 draws know a standard deviation to about 10% and 4%.
    assert found.se_images == pytest.approx(np.std(resampled), rel=0.25)
    assert found.se_seeds == 0


def test_a_single_seed_and_a_measure_without_images():
    one = rule.estimate([0.25], np.ones((1, GROUPS)))
    assert (one.mean, one.n) == (0.25, 1) and np.isnan([one.se_seeds, one.se_images]).all()
    alone = rule.estimate([1.0, 2.0, 3.0])
    assert alone.se_seeds == pytest.approx(1 / math.sqrt(3)) and math.isnan(alone.se_images)


@pytest.mark.parametrize(
    ("effects", "groups", "words"),
    [
        ([], None, "effects must be one or more finite numbers"),
        ([1.0, NAN], None, "effects must be one or more finite numbers"),
        ([[1.0, 2.0]], None, "effects must be one or more finite numbers"),
        ([1.0, 2.0], np.ones((3, 4)), r"by_group must have shape \(2, G\) with G >= 2, but has \("),
        ([1.0, 2.0], np.ones((2, 1)), r"by_group must have shape \(2, G\)"),
        ([1.0, 2.0], np.ones(2), r"by_group must have shape \(2, G\)"),
        ([1.0, 2.0], [[0.0, NAN], [0.0, 0.0]], "by_group must be finite"),
    ],
)
def test_wrong_numbers_are_named(effects, groups, words):
    with pytest.raises(ValueError, match=words):
        rule.estimate(effects, groups)


# ---- intervals ----


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_one_effect_without_images_has_the_t_interval(level):
    effects = RNG.normal(0.5, 1, 7)
    (found,) = rule.intervals([rule.estimate(effects)], level=level)
    theirs = stats.ttest_1samp(effects, 0).confidence_interval(level)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))
    assert (found.mean, found.n) == (effects.mean(), 7)


def test_intervals_of_a_page_by_hand():
    # Two of them, n = 3: t(2) exceeds 6.205347 and t(49) exceeds 2.312375 with probability 0.0125.
    first, second = rule.intervals([Estimate(1, 3, 0.1, 0.2), Estimate(2, 3, 0.1, NAN)])
    half = math.sqrt((6.205347 * 0.1) ** 2 + (2.312375 * 0.2) ** 2)
    assert (first.low, first.high) == pytest.approx((1 - half, 1 + half), rel=1e-6)
    assert second.high - 2 == pytest.approx(0.6205347, rel=1e-6)


def test_an_interval_is_as_wide_as_the_page_is_large():
    one = rule.estimate([1.0, 2.0, 4.0])
    assert rule.intervals([one], size=20)[0] == rule.intervals([one] * 20)[7]
    assert rule.intervals([]) == []


def test_an_effect_at_a_chosen_setting_counts_for_those_it_was_chosen_among():
    assert rule.family_size(6) == 6
    # Of five ε one is judged anyway; the other four may come beside it: (4 + 1) / 2 more.
    assert rule.family_size(2, [4, 4]) == 7
    assert rule.family_size(1, [1]) == 2  # one other: as if it were judged, too


def test_without_spread_between_seeds_there_is_no_interval():
    for single in (Estimate(2, 1, NAN, NAN), Estimate(2, 3, 0.0, 0.5)):
        (found,) = rule.intervals([single])
        assert found.mean == 2 and np.isnan([found.low, found.high]).all()
        assert rule.verdict(found, 1) == rule.verdict(found, 1, not_worse=True) == "undecided"


@pytest.mark.parametrize(("of_seeds", "of_images"), [(1, 0.01), (0.01, 1), (1, 1), (1, 3)])
def test_intervals_hold_as_often_as_they_say(of_seeds, of_images):
    n, pages, rng = 4, 4000, np.random.default_rng(3)
    cells = of_seeds * rng.normal(size=(pages, n, 1)) + of_images * math.sqrt(GROUPS) * rng.normal(
        size=(pages, 1, GROUPS)
    )
    cells += 0.1 * rng.normal(size=cells.shape)
    held = 0
    for table_ in cells:
        (found,) = rule.intervals([of_table(table_)], level=0.9)
        held += found.low <= 0 <= found.high
    assert held / pages >= 0.9 - 3 * math.sqrt(0.09 / pages)


# ---- verdicts ----


def effect(mean: float, low: float, high: float) -> Effect:
    return Effect(mean, 5, 1.0, 1.0, low, high)


@pytest.mark.parametrize(
    ("numbers", "verdict"),
    [
        ((2.0, 1.0, 3.0), "supported"),
        ((1.0, 0.5, 1.5), "supported"),  # the estimate is the margin
        ((0.99, 0.5, 1.5), "undecided"),  # surely for the claim, but perhaps too small
        ((2.0, 0.0, 4.0), "undecided"),  # ends at 0
        ((2.0, -0.1, 4.1), "undecided"),
        ((0.5, 0.1, 0.9), "negligible"),  # surely for the claim, and surely too small
        ((0.0, -0.9, 0.9), "negligible"),
        ((0.1, -0.8, 1.0), "undecided"),  # ends at the margin
        ((-0.1, -1.0, 0.8), "undecided"),
        ((0.0, -1.1, 1.1), "undecided"),
        ((-0.5, -0.9, -0.1), "negligible"),
        ((-0.99, -1.5, -0.5), "undecided"),
        ((-1.0, -1.5, -0.5), "opposite"),
        ((-2.0, -4.0, 0.0), "undecided"),
        ((-2.0, -3.0, -1.0), "opposite"),
        ((1.5, NAN, NAN), "undecided"),
    ],
)
def test_verdicts(numbers, verdict):
    assert rule.verdict(effect(*numbers), 1.0) == verdict
    assert rule.verdict(effect(*(0.01 * number for number in numbers)), 0.01) == verdict


@pytest.mark.parametrize(
    ("numbers", "verdict"),
    [
        ((0.0, -0.9, 0.9), "supported"),
        ((-0.5, -0.9, -0.1), "supported"),  # worse, but by less than allowed
        ((0.5, -1.0, 2.0), "undecided"),  # ends at what is allowed
        ((-1.0, -2.0, 0.0), "undecided"),
        ((-2.0, -3.0, -1.0), "undecided"),
        ((-2.0, -2.9, -1.1), "opposite"),
        ((0.5, NAN, NAN), "undecided"),
    ],
)
def test_verdicts_of_not_worse_than(numbers, verdict):
    assert rule.verdict(effect(*numbers), 1.0, not_worse=True) == verdict


@pytest.mark.parametrize("margin", [0.0, -1.0, math.inf, NAN])
def test_a_margin_is_positive(margin):
    with pytest.raises(ValueError, match="margin must be positive and finite"):
        rule.verdict(effect(1, 0, 2), margin)


def test_combinations_of_verdicts():
    """Every set of words, in any order and however often, against the rule said otherwise."""
    for count in range(1, len(rule.VERDICTS) + 1):
        for words in itertools.combinations(rule.VERDICTS, count):
            decided = [word for word in words if word in ("supported", "opposite", "negligible")]
            if len(decided) > 1:
                expected = "depends"
            elif "undecided" in words:
                expected = "undecided"
            else:
                expected = decided[0] if decided else "not testable here"
            assert rule.combine(words) == expected
            assert rule.combine([*reversed(words), *words]) == expected
    with pytest.raises(ValueError, match="verdicts must hold at least one"):
        rule.combine([])
