import numpy as np
import pytest

from lsce.measures import calibration, conformal


def draw(n, temperature=1.0, classes=20, seed=0):
    """Probabilities softmax(z / temperature) whose labels follow softmax(z)."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n, classes))
    labels = (calibration.softmax(logits).cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return calibration.softmax(logits, temperature), labels


def slow_scores(probs, u, penalty, free):
    """Second implementation: the definition of the RAPS paper, one class at a time."""
    scores = np.zeros_like(probs)
    for i, p in enumerate(probs):
        for k in range(len(p)):
            ahead = [j for j in range(len(p)) if p[j] > p[k] or (p[j] == p[k] and j < k)]
            rank = len(ahead) + 1
            scores[i, k] = sum(p[ahead]) + u[i] * p[k] + penalty * max(0, rank - free)
    return scores


def test_hand_computed_scores():
    def score(u, **penalty):
        return 1 + conformal.adaptive_scores([[0.3, 0.5, 0.2]], [u], **penalty)[0]

    assert score(1.0) == pytest.approx([0.8, 0.5, 1.0])
    assert score(0.5) == pytest.approx([0.65, 0.25, 0.9])
    assert score(0.0) == pytest.approx([0.5, 0.0, 0.8])
    assert score(1.0, penalty=0.1, free=1) == pytest.approx([0.9, 0.5, 1.2])


@pytest.mark.parametrize(("penalty", "free"), [(0.0, 5), (0.01, 5), (0.3, 0)])
def test_scores_equal_their_definition(penalty, free):
    rng = np.random.default_rng(0)
    probs = rng.multinomial(16, np.full(8, 1 / 8), 30) / 16  # with ties
    u = rng.random(30)
    scores = conformal.adaptive_scores(probs, u, penalty, free)
    np.testing.assert_allclose(1 + scores, slow_scores(probs, u, penalty, free), atol=1e-12)


def test_unlikely_classes_of_a_sure_network_do_not_tie():
    probs = calibration.softmax([[100.0, 50.0, 30.0, 10.0]])
    assert (np.diff(conformal.adaptive_scores(probs, [1.0])[0]) > 0).all()


def test_hand_computed_threshold():
    """Of nine scores the ninth for 90%, as ⌈10 · 0.9⌉ = 9; of eight none is large enough."""
    scores = np.stack([np.arange(9), np.full(9, 100)], axis=1)
    labels = np.zeros(9, dtype=int)
    assert conformal.threshold(scores[::-1], labels) == 8
    assert conformal.threshold(scores, labels, coverage=0.5) == 4
    assert conformal.threshold(scores[:8], labels[:8]) == np.inf


def test_hand_computed_sets():
    sizes, covered = conformal.prediction_sets([[0.2, 0.6, 1.0]] * 3, [0, 1, 2], 0.6)
    assert sizes.tolist() == [2, 2, 2] and covered.tolist() == [True, True, False]
    sizes, covered = conformal.prediction_sets([[0.2, 0.6, 1.0]], [0], 0.1)
    assert sizes.tolist() == [0] and covered.tolist() == [False]
    assert conformal.prediction_sets([[0.2, 0.6, 1.0]], [2], np.inf)[0].tolist() == [3]


@pytest.mark.parametrize("temperature", [0.2, 1.0, 5.0])
@pytest.mark.parametrize("kind", conformal.KINDS)
def test_sets_cover_nine_in_ten_however_wrong_the_confidence(kind, temperature):
    """On average over 100 draws of 200 held-out images, which is (N + 1) · 0.9 / (N + 1)."""
    covered = []
    for seed in range(100):
        probs, labels = draw(600, temperature, seed=seed)
        _, inside = conformal.adaptive_sets(
            probs[:200], labels[:200], probs[200:], labels[200:], conformal.KINDS[kind]
        )
        covered.append(inside.mean())
    assert np.mean(covered) == pytest.approx(0.9, abs=3 * np.std(covered) / 10 + 0.003)


def test_without_random_numbers_sets_cover_more_than_asked_for():
    """The reason for them: a sure network that ends each set with a class too many."""
    probs = np.tile([0.96, 0.03, 0.01], (2000, 1))
    labels = np.where(np.random.default_rng(0).random(2000) < 0.96, 0, 1)
    whole = conformal.adaptive_scores(probs, np.ones(2000))
    most = conformal.threshold(whole[:1000], labels[:1000])
    _, covered = conformal.prediction_sets(whole[1000:], labels[1000:], most)
    assert covered.mean() > 0.94
    sizes, covered = conformal.adaptive_sets(
        probs[:1000], labels[:1000], probs[1000:], labels[1000:]
    )
    assert covered.mean() == pytest.approx(0.9, abs=0.03) and sizes.min() == 0


def test_a_better_network_has_smaller_sets_and_a_penalty_bounds_them():
    sharp, blunt = draw(4000), draw(4000)
    blunt = calibration.softmax(np.log(blunt[0]) + np.random.default_rng(1).normal(size=(4000, 20)))
    labels = sharp[1]
    for penalty in conformal.KINDS.values():
        sizes = [
            conformal.adaptive_sets(
                probs[:2000], labels[:2000], probs[2000:], labels[2000:], penalty
            )[0].mean()
            for probs in (sharp[0], blunt)
        ]
        assert sizes[0] < sizes[1] - 0.5
    split = blunt[:2000], labels[:2000], blunt[2000:], labels[2000:]
    free, bounded = (conformal.adaptive_sets(*split, penalty)[0] for penalty in (0.0, 1.0))
    assert bounded.std() < free.std() / 2


def test_sets_are_of_every_image_and_repeat():
    probs, labels = draw(300)
    split = probs[:100], labels[:100], probs[100:], labels[100:]
    sizes, covered = conformal.adaptive_sets(*split)
    assert sizes.shape == covered.shape == (200,) and covered.dtype == bool
    again = conformal.adaptive_sets(*split)
    assert (sizes == again[0]).all() and (covered == again[1]).all()
