import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from lsce import metrics, selective
from lsce.calibration import fit_temperature


def outcomes(n=400, error=0.3, seed=0):
    """A score that says something, and which predictions are right."""
    rng = np.random.default_rng(seed)
    correct = rng.random(n) > error
    return rng.normal(size=n) + correct, correct


def draw(n=600, classes=6, seed=0):
    """Logits, and labels drawn from their softmax."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n, classes))
    cumulative = metrics.softmax(logits).cumsum(axis=1)
    return logits, (cumulative > rng.random((n, 1))).argmax(axis=1)


SCORES = {
    "log_odds": selective.log_odds,
    "scaled": lambda z: selective.log_odds(z, 2.5),
    "maximum_logit": selective.maximum_logit,
    "normalised": lambda z: selective.normalised(z, 3),
    "energy": selective.energy,
}


@pytest.mark.parametrize("errors", [0, 1, 30, 99, 100])
def test_the_best_order_has_the_risks_and_the_area_of_its_closed_form(errors):
    n = 100
    correct = np.arange(n) < n - errors
    risks = selective.risk_coverage(-np.arange(n), correct)
    expected = [max(0, i - (n - errors)) / i for i in range(1, n + 1)]
    assert risks.tolist() == expected
    assert selective.aurc(risks) == pytest.approx(sum(expected) / n, abs=1e-15)
    # The bracket is a lower bound, from which the finite sum differs by r / 2N, to the first order.
    excess = selective.excess_aurc(risks)
    assert 0 <= excess + 1e-15 and excess == pytest.approx(errors / n / (2 * n), abs=3e-4)


def test_the_best_order_nears_no_excess_as_images_grow():
    for n in (1_000, 10_000, 100_000):
        excess = selective.excess_aurc(selective.risk_coverage(-np.arange(n), np.arange(n) < 0.7 * n))
        assert excess == pytest.approx(0.3 / (2 * n), rel=0.01)


def test_the_worst_order_has_its_closed_form():
    n, errors = 50, 20
    risks = selective.risk_coverage(np.arange(n), np.arange(n) < n - errors)
    assert risks.tolist() == [min(i, errors) / i for i in range(1, n + 1)]


def test_a_constant_score_has_the_error_rate_at_every_coverage():
    _, correct = outcomes(n=997)
    risks = selective.risk_coverage(np.full(997, 0.1), correct)
    assert (risks == (~correct).mean()).all()
    r = (~correct).mean()
    assert selective.excess_aurc(risks) == pytest.approx((1 - r) * np.log(1 / (1 - r)))


def test_a_random_score_has_the_area_of_a_constant_one():
    rng = np.random.default_rng(0)
    correct = np.arange(200) < 140
    areas = [
        selective.aurc(selective.risk_coverage(rng.random(200), correct)) for _ in range(500)
    ]
    assert np.mean(areas) == pytest.approx(0.3, abs=4 * np.std(areas) / np.sqrt(500))


@pytest.mark.parametrize("seed", range(8))
def test_ties_count_as_the_average_over_every_order_of_the_images(seed):
    rng = np.random.default_rng(seed)
    score, correct = rng.integers(3, size=7), rng.random(7) < 0.5
    risks = []
    for order in map(list, itertools.permutations(range(7))):
        # A stable sort: in the order of the file, where scores tie.
        ranked = correct[order][np.argsort(-score[order], kind="stable")]
        risks.append(np.cumsum(~ranked) / np.arange(1, 8))
    expected = np.mean(risks, axis=0)
    assert selective.risk_coverage(score, correct) == pytest.approx(expected, abs=1e-12)


def test_the_order_of_the_file_does_not_matter():
    score, correct = outcomes()
    score = score.round(1)
    risks = selective.risk_coverage(score, correct)
    order = np.random.default_rng(1).permutation(len(score))
    assert (selective.risk_coverage(score[order], correct[order]) == risks).all()


def test_only_the_order_of_the_scores_matters():
    score, correct = outcomes()
    score = score.round(1)
    risks = selective.risk_coverage(score, correct)
    for same in (np.exp(score), 3 * score - 7, score**3):
        assert (selective.risk_coverage(same, correct) == risks).all()
    assert selective.aurc(selective.risk_coverage(-score, correct)) > selective.aurc(risks) + 0.1
    area = selective.auroc(score[correct], score[~correct])
    assert selective.auroc(np.exp(score[correct]), np.exp(score[~correct])) == area
    assert selective.auroc(-score[correct], -score[~correct]) == pytest.approx(1 - area)


def test_risk_and_coverage_are_inverse():
    risks = selective.risk_coverage(*outcomes())
    for most in [0.05, 0.1, *risks[::7], 1.0]:
        coverage = selective.coverage_at_risk(risks, most)
        share = np.arange(1, len(risks) + 1) / len(risks)
        assert (risks[share > coverage] > most).all()
        assert coverage == 0 or selective.risk_at_coverage(risks, coverage) <= most
    for i, risk in enumerate(risks, start=1):
        assert selective.risk_at_coverage(risks, i / len(risks)) == risk
        assert selective.coverage_at_risk(risks, risk) >= i / len(risks)


def test_coverage_and_risk_by_hand():
    risks = [0.0, 0.5, 1 / 3, 0.25, 0.4]
    found = [selective.coverage_at_risk(risks, most) for most in (0, 0.25, 0.3, 0.45, 1)]
    assert found == [0.2, 0.8, 0.8, 1.0, 1.0]
    found = [selective.risk_at_coverage(risks, c) for c in (0, 0.2, 0.21, 0.4, 0.6, 0.61, 0.8, 1)]
    assert found == [0.0, 0.0, 0.5, 0.5, 1 / 3, 0.25, 0.25, 0.4]
    assert selective.coverage_at_risk([1.0, 0.5], 0.4) == 0


@pytest.mark.parametrize("n", [20, 100, 300, 2000])
def test_coverages_and_risks_that_are_reached_exactly_count(n):
    rising = np.arange(1, n + 1) / n
    for percent in range(5, 101, 5):  # 0.55 * 100 is above 55
        assert selective.risk_at_coverage(rising, percent / 100) == percent / 100
    errors = np.arange(n) < n / 20  # all scores tie: 5% at every coverage
    risks = selective.risk_coverage(np.zeros(n), ~errors)
    assert selective.coverage_at_risk(risks, 0.05) == 1


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_log_odds_are_those_of_the_maximum_softmax_probability(classes, temperature):
    logits, _ = draw(classes=classes)
    odds = np.exp(selective.log_odds(logits, temperature))
    top = metrics.softmax(logits, temperature).max(axis=1)
    assert odds / (1 + odds) == pytest.approx(top, rel=1e-12)


def test_log_odds_tell_probabilities_apart_that_round_to_one():
    logits = np.array([[0.0, 40.0], [0.0, 50.0], [0.0, 2000.0]])
    assert (metrics.softmax(logits).max(axis=1) == 1).all()
    assert selective.log_odds(logits) == pytest.approx([40, 50, 2000])


def test_of_two_classes_temperature_keeps_the_ranking():
    logits, labels = draw(classes=2)
    correct = logits.argmax(axis=1) == labels
    risks = selective.risk_coverage(selective.log_odds(logits), correct)
    for temperature in (0.01, 0.3, 7.0, 100.0):
        scaled = selective.log_odds(logits, temperature)
        assert (selective.risk_coverage(scaled, correct) == risks).all()
    logits, _ = draw(classes=3)  # of more it does not
    orders = [np.argsort(selective.log_odds(logits, t)) for t in (1, 7)]
    assert (orders[0] != orders[1]).any()


@pytest.mark.parametrize("name", SCORES)
def test_a_shift_of_the_logits_changes_no_ranking(name):
    logits, _ = draw()
    score, shifted = SCORES[name](logits), SCORES[name](logits + 64)
    assert shifted - score == pytest.approx(shifted[0] - score[0], abs=1e-12)
    # One for each image changes the two scores that are not functions of the softmax alone.
    rows = np.random.default_rng(1).normal(size=(len(logits), 1))
    same = np.allclose(SCORES[name](logits + rows), score, rtol=0, atol=1e-12)
    assert same == (name not in ("maximum_logit", "energy"))


@pytest.mark.parametrize("p", selective.NORMS)
def test_normalised_equals_its_formula_and_ignores_the_scale(p):
    logits, _ = draw()
    centred = logits - logits.mean(axis=1, keepdims=True)
    score = selective.normalised(logits, p)
    expected = centred.max(axis=1) / np.linalg.norm(centred, ord=p, axis=1)
    assert score == pytest.approx(expected, rel=1e-12)
    scales = 10.0 ** np.random.default_rng(1).integers(-120, 120, size=(len(logits), 1))
    assert selective.normalised(scales * logits, p) == pytest.approx(score, rel=1e-12)


@pytest.mark.parametrize("classes", [2, 3, 7, 100])
def test_equal_logits_have_the_lowest_normalised_score(classes):
    logits = np.stack([np.full(classes, 0.1), np.arange(classes)])
    score = selective.normalised(logits, 2)
    assert score[0] == 0 < score[1]


def test_the_other_scores_by_hand():
    logits = np.log([[1.0, 2.0, 5.0], [4.0, 1.0, 1.0]])
    assert np.exp(selective.maximum_logit(logits)) == pytest.approx([5, 4])
    assert np.exp(selective.energy(logits)) == pytest.approx([8, 6])
    assert np.exp(selective.log_odds(logits)) == pytest.approx([5 / 3, 2])
    assert selective.energy([[1000.0, 1000.0]]) == pytest.approx(1000 + np.log(2))


def test_choose_norm_finds_the_norm_that_tells_right_from_wrong():
    """Of two kinds of rows, one right: a low p ranks the one above the other, a high p below."""
    flat = np.array([4.0, 4.0, -2.0, -2.0, -2.0, -2.0])
    steep = np.array([5.0, 3.0, 2.0, 0.0, -4.0, -6.0]) + 0.0
    low = [selective.normalised(z[None], 1.0)[0] for z in (flat, steep)]
    high = [selective.normalised(z[None], 8.0)[0] for z in (flat, steep)]
    assert low[0] > low[1] or low[0] < low[1]
    assert (low[0] < low[1]) != (high[0] < high[1])
