"""Selective classification against closed forms, brute force and invariances."""

import itertools

import numpy as np
import pytest

from lsce import selective


def logits(n: int = 200, classes: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=n)
    z = generator.normal(size=(n, classes))
    z[np.arange(n), labels] += generator.uniform(0, 3, size=n)
    return z, labels


def test_a_perfect_order_has_the_least_area():
    correct = np.array([True] * 60 + [False] * 40)
    risks = selective.risk_coverage(np.arange(100.0)[::-1], correct)
    assert selective.aurc(risks) == pytest.approx(sum(i / (60 + i) for i in range(1, 41)) / 100)
    assert 0 < selective.excess_aurc(risks) < 0.4 / 100  # about r / 2N
    worst = selective.risk_coverage(np.arange(100.0), correct)
    assert selective.excess_aurc(worst) > 0.3


def test_everything_right_or_wrong_has_a_risk_of_0_or_1():
    score = np.arange(5.0)
    assert selective.aurc(selective.risk_coverage(score, np.ones(5, bool))) == 0
    wrong = selective.risk_coverage(score, np.zeros(5, bool))
    assert selective.aurc(wrong) == 1 and selective.excess_aurc(wrong) == 0


def test_tied_scores_count_as_the_average_over_their_orders():
    score = np.array([2.0, 1.0, 1.0, 1.0, 0.0])
    correct = np.array([True, False, True, False, True])
    orders = [
        selective.risk_coverage(np.array([9.0, *order, 0.0]), correct)
        for order in itertools.permutations([1.0, 2.0, 3.0])
    ]
    found = selective.risk_coverage(score, correct)
    assert found == pytest.approx(np.mean(orders, axis=0))
    constant = selective.risk_coverage(np.zeros(5), correct)
    assert constant == pytest.approx([0.4] * 5)


def test_only_the_order_of_a_score_counts():
    z, labels = logits()
    correct = z.argmax(1) == labels
    score = selective.log_odds(z)
    risks = selective.risk_coverage(score, correct)
    assert np.array_equal(risks, selective.risk_coverage(np.exp(score), correct))
    shuffled = np.random.default_rng(1).permutation(len(score))
    again = selective.risk_coverage(score[shuffled], correct[shuffled])
    assert again == pytest.approx(risks)


def test_log_odds_order_as_the_largest_probability_does():
    z, _ = logits()
    largest = np.exp(z).max(1) / np.exp(z).sum(1)
    assert selective.log_odds(z) == pytest.approx(np.log(largest / (1 - largest)))
    # Where the probability is 1 in float64 there is still an order.
    sure = np.array([[50.0, 0.0, 0.0], [60.0, 0.0, 0.0]])
    assert np.diff(selective.log_odds(sure))[0] == pytest.approx(10)


def test_normalised_logits_know_neither_shift_nor_scale():
    z, _ = logits()
    score = selective.normalised(z, 3.0)
    assert selective.normalised(5 * z + 7, 3.0) == pytest.approx(score)
    centred = z - z.mean(1, keepdims=True)
    assert score == pytest.approx(centred.max(1) / np.linalg.norm(centred, 3, axis=1))
    assert selective.normalised(np.full((2, 4), 0.1), 2.0).tolist() == [0.0, 0.0]


def test_the_norm_is_that_of_the_least_validation_area():
    z, labels = logits(500)
    chosen = selective.choose_norm(z, labels)
    correct = z.argmax(1) == labels
    areas = {
        p: selective.aurc(selective.risk_coverage(selective.normalised(z, p), correct))
        for p in selective.NORMS
    }
    assert areas[chosen] == min(areas.values()) and len(set(areas.values())) > 1


def test_auroc_is_the_share_of_pairs_in_order():
    generator = np.random.default_rng(0)
    positive = generator.integers(5, size=30).astype(float)
    negative = generator.integers(4, size=20).astype(float)
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert selective.auroc(positive, negative) == pytest.approx(np.mean(pairs))


def test_a_threshold_lets_enough_positives_through():
    positive, negative = np.arange(100.0), np.arange(-50.0, 50.0)
    assert selective.fpr_at_tpr(positive, negative) == 0.45  # those from 5 on
    assert selective.fpr_at_tpr(positive, positive - 1000) == 0


def test_coverage_at_a_risk_and_risk_at_a_coverage_are_inverse():
    correct = np.array([True] * 15 + [False] + [True] * 4)
    risks = selective.risk_coverage(-np.arange(20.0), correct)
    assert selective.coverage_at_risk(risks, 0.05) == 1.0
    assert selective.coverage_at_risk(risks, 0.04) == 0.75
    assert selective.risk_at_coverage(risks, 0.75) == 0
    assert selective.risk_at_coverage(risks, 0.8) == pytest.approx(1 / 16)
    assert selective.coverage_at_risk(np.ones(3), 0.05) == 0


def test_all_that_is_measured_agrees_with_its_parts():
    validation, test = logits(seed=1), logits(seed=2)
    found, rows = selective.selective(*validation, *test, temperature=2.0)
    correct = test[0].argmax(1) == test[1]
    scores = {
        "": selective.log_odds(test[0]),
        "_scaled": selective.log_odds(test[0], 2.0),
        "_normalised": selective.normalised(test[0], found["norm"]),
    }
    for suffix, score in scores.items():
        risks = selective.risk_coverage(score, correct)
        assert found[f"excess_aurc{suffix}"] == selective.excess_aurc(risks)
        pairs = selective.auroc(score[correct], score[~correct])
        assert found[f"failure_auroc{suffix}"] == pairs
    assert found["norm"] == selective.choose_norm(*validation)
    assert {row["case"] for row in rows} == set(selective.CASES.values())
    whole = [row["value"] for row in rows if row["x"] == 1.0]
    assert whole == pytest.approx([1 - correct.mean()] * 3)


def test_unseen_images_with_smaller_logits_are_told_apart():
    seen, _ = logits()
    found = selective.unseen(10 * seen, seen, temperature=1.0, norm=2.0)
    assert found["unseen_auroc"] > 0.8 and found["unseen_auroc_logit"] > 0.8
    assert found["unseen_auroc_normalised"] == pytest.approx(0.5, abs=1e-3)  # they differ in scale
    assert set(found) == {
        f"unseen_{measure}{suffix}"
        for measure in ("auroc", "fpr95")
        for suffix in ("", "_scaled", "_normalised", "_logit", "_energy")
    }


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: selective.risk_coverage([1.0, 2.0], [1, 0]), "correct must be boolean"),
        (lambda: selective.risk_coverage([1.0], [True, False]), "correct must have shape"),
        (lambda: selective.risk_coverage([np.nan], [True]), "score must be finite"),
        (lambda: selective.log_odds(np.zeros((2, 3)), 0), "temperature must be positive"),
        (lambda: selective.normalised(np.zeros((2, 3)), -1), "p must be positive"),
        (lambda: selective.aurc([0.5, 1.5]), "risks must lie in"),
        (lambda: selective.coverage_at_risk([0.5], 2), "most must lie in"),
        (
            lambda: selective.unseen(np.zeros((2, 3)), np.zeros((2, 4)), 1.0, 2.0),
            "same classes",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(call, words):
    with pytest.raises((ValueError, TypeError), match=words):
        call()
