import math
import time
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import log_loss, top_k_accuracy_score
from torchmetrics.classification import MulticlassCalibrationError

from lsce.measures import calibration

BINNED = [
    calibration.expected_calibration_error,
    calibration.maximum_calibration_error,
    calibration.adaptive_calibration_error,
    calibration.classwise_calibration_error,
    calibration.debiased_squared_calibration_error,
    calibration.debiased_calibration_error,
    calibration.overconfidence,
    calibration.underconfidence,
]
PLAIN = [
    calibration.confidence_gap,
    calibration.confident_errors,
    calibration.negative_log_likelihood,
    calibration.brier_score,
]


def draw(n=700, classes=7, sharpness=2.0, temperature=1.0, seed=0):
    """Probabilities whose labels follow softmax(z), while they say softmax(z / temperature)."""
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.normal(size=(n, classes))
    posterior = calibration.softmax(logits)
    labels = (posterior.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return calibration.softmax(logits, temperature), labels, posterior


def binary(confidence, correct):
    """Two-class rows with these confidences (>= 0.5) and outcomes."""
    confidence = np.asarray(confidence, dtype=np.float64)
    return np.stack([confidence, 1 - confidence], axis=1), 1 - np.asarray(correct, dtype=int)


# Second implementations: loops, straight from the definitions.


def loop_bins(values, outcomes, n_bins):
    """(count, mean value, mean outcome) of ((m-1)/M, m/M], in exact arithmetic for the edges."""
    cells = [[] for _ in range(n_bins)]
    for value, outcome in zip(values, outcomes):
        m = max(1, math.ceil(Fraction(float(value)) * n_bins))
        cells[m - 1].append((float(value), float(outcome)))
    return [(len(c), *(sum(x) / len(c) for x in zip(*c))) for c in cells if c]


def sorted_bins(values, outcomes, n_bins):
    order = np.argsort(values, kind="stable")
    return [
        (len(i), values[i].mean(), outcomes[i].mean())
        for i in np.array_split(order, n_bins)
        if len(i)
    ]


def loop_ece(bins):
    n = sum(count for count, _, _ in bins)
    return sum(count / n * abs(outcome - value) for count, value, outcome in bins)


@pytest.mark.parametrize("n_bins", [1, 2, 10, 15, 40])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_binned_metrics_equal_their_definitions(n_bins, temperature):
    probs, labels, _ = draw(temperature=temperature)
    confidence, correct = probs.max(axis=1), (probs.argmax(axis=1) == labels).astype(float)
    wide, mass = loop_bins(confidence, correct, n_bins), sorted_bins(confidence, correct, n_bins)
    classwise = [
        loop_ece(loop_bins(probs[:, k], labels == k, n_bins)) for k in range(probs.shape[1])
    ]
    squares = [(c - a, n / 700 * ((c - a) ** 2 - a * (1 - a) / (n - 1))) for n, c, a in mass]
    over = sum(square for gap, square in squares if gap > 0)
    square = sum(square for _, square in squares)
    expected = [
        loop_ece(wide),
        max(abs(a - c) for _, c, a in wide),
        loop_ece(mass),
        np.mean(classwise),
        square,
        math.sqrt(max(0.0, square)),
        math.sqrt(max(0.0, over)),
        math.sqrt(max(0.0, square - over)),
    ]
    assert [f(probs, labels, n_bins) for f in BINNED] == pytest.approx(expected, abs=1e-12)


def test_calibration_errors_equal_torchmetrics_away_from_one():
    probs, labels, _ = draw(n=3000, temperature=0.7)
    assert probs.max() < 1
    for norm, ours in [("l1", BINNED[0]), ("max", BINNED[1])]:
        theirs = MulticlassCalibrationError(num_classes=7, n_bins=15, norm=norm)
        theirs = theirs(torch.tensor(probs), torch.tensor(labels))
        assert ours(probs, labels) == pytest.approx(float(theirs), abs=1e-6)


def test_hand_computed_calibration():
    # Bins of 0.1: {0.85, 0.9} with accuracy 1/2 and {0.95, 1.0, 1.0} with accuracy 2/3.
    probs, labels = binary([0.85, 0.9, 0.95, 1.0, 1.0], [1, 0, 1, 1, 0])
    low, high = abs(0.5 - 0.875), abs(2 / 3 - 2.95 / 3)
    ece = calibration.expected_calibration_error(probs, labels, n_bins=10)
    assert ece == pytest.approx(2 / 5 * low + 3 / 5 * high)
    assert calibration.maximum_calibration_error(probs, labels, n_bins=10) == pytest.approx(low)
    assert calibration.confidence_gap(probs, labels) == pytest.approx(0.94 - 0.6)


def test_hand_computed_debiased_error():
    # Two bins of three: accuracies 1/3 and 2/3, variances of the mean (2/9) / 2 = 1/9.
    probs, labels = binary([0.6, 0.6, 0.6, 0.9, 0.9, 0.9], [1, 0, 0, 1, 1, 0])
    square = ((0.6 - 1 / 3) ** 2 - 1 / 9 + (0.9 - 2 / 3) ** 2 - 1 / 9) / 2
    assert square < 0
    signed = calibration.debiased_squared_calibration_error(probs, labels, n_bins=2)
    assert signed == pytest.approx(square)
    assert calibration.debiased_calibration_error(probs, labels, n_bins=2) == 0
    # Single images have no variance, and count as 0; alone they say nothing.
    some = binary([0.6, 0.6, 0.6, 0.9], [1, 0, 0, 0])
    alone = ((0.6 - 1 / 3) ** 2 - 1 / 9) * 3 / 4
    assert calibration.debiased_squared_calibration_error(*some, 2) == pytest.approx(alone)
    with pytest.raises(ValueError, match="more images than the 2 bins, but there are 2"):
        calibration.debiased_squared_calibration_error(*binary([0.6, 0.9], [0, 0]), 2)


def test_hand_computed_parts_of_the_debiased_error():
    # Two bins of four: 0.9 with accuracy 1/2 is over-, 0.6 with accuracy 3/4 under-confident.
    probs, labels = binary([0.6] * 4 + [0.9] * 4, [1, 1, 1, 0, 1, 1, 0, 0])
    over = (0.4**2 - 0.5 * 0.5 / 3) / 2
    under = (0.15**2 - 0.75 * 0.25 / 3) / 2  # less than chance alone would show
    assert calibration.overconfidence(probs, labels, 2) == pytest.approx(math.sqrt(over))
    assert under < 0 and calibration.underconfidence(probs, labels, 2) == 0
    whole = calibration.debiased_squared_calibration_error(probs, labels, 2)
    assert whole == pytest.approx(over + under)


def test_over_and_under_confidence_change_places_with_the_sign_of_the_gap():
    """And a model with both has both, though its confidence is right on average."""
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.6, 0.9, 20_000)
    for gap, expected in (
        (0.1, (0.1, 0)),
        (-0.1, (0, 0.1)),
        (np.where(confidence > 0.75, 0.1, -0.1), (math.sqrt(0.005), math.sqrt(0.005))),
    ):
        probs, labels = binary(confidence, rng.random(20_000) < confidence - gap)
        parts = [
            f(probs, labels) for f in (calibration.overconfidence, calibration.underconfidence)
        ]
        assert parts == pytest.approx(expected, abs=0.01)


def test_the_parts_of_a_calibrated_model_are_0_on_average():
    rng = np.random.default_rng(0)
    squares = {"over": [], "under": []}
    for _ in range(400):
        confidence = rng.uniform(0.5, 0.9, 300)
        correct = rng.random(300) < confidence
        gap, square = calibration._debiased_squares(confidence, correct, 15)
        squares["over"].append(square[gap > 0].sum())
        squares["under"].append(square[gap <= 0].sum())
    for values in squares.values():
        # Half of the variance of a bin's accuracy, about 0.2 / 20, is what each would show else.
        assert abs(np.mean(values)) < 0.1 * 0.5 * 0.2 / 20


def test_hand_computed_confident_errors():
    probs, labels = binary([0.95, 0.9, 0.91, 0.99, 0.6], [0, 0, 0, 1, 0])
    assert calibration.confident_errors(probs, labels) == 2 / 4
    assert calibration.confident_errors(probs, labels, above=0.6) == 3 / 4
    assert calibration.confident_errors(*binary([0.99], [1])) == 0
    with pytest.raises(ValueError, match=r"above must lie in \[0, 1\], but it is 90"):
        calibration.confident_errors(probs, labels, above=90)


def test_zero_and_one_belong_to_the_first_and_the_last_bin():
    # 1.0 shares the last bin with 0.96: the gaps +0.04 and -1 net to 0.96 / 2, not 1.04 / 2.
    probs, labels = binary([0.96, 1.0], [1, 0])
    assert calibration.expected_calibration_error(probs, labels) == pytest.approx(0.96 / 2)
    table = calibration.reliability_table(probs, labels)
    assert table["count"].tolist() == [0] * 14 + [2]
    # Class 0 has probabilities 0 and 0.04, both in the first of 15 bins; class 1 mirrors them.
    probs, labels = np.array([[0.0, 1.0], [0.04, 0.96]]), [1, 0]
    classwise = calibration.classwise_calibration_error(probs, labels)
    assert classwise == pytest.approx(abs(0.04 - 1) / 2)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n_bins", [5, 10, 15, 20, 49, 100])
def test_a_confidence_on_an_edge_belongs_to_the_bin_below_it(n_bins, dtype):
    m = np.arange(n_bins // 2 + 1, n_bins + 1)
    edges = (m / n_bins).astype(dtype)
    above = np.nextafter(edges, dtype(2))[:-1]
    for confidence, expected in [(edges, m), (above, m[:-1] + 1)]:
        probs = np.stack([confidence, 1 - confidence], axis=1)
        table = calibration.reliability_table(probs, np.zeros(len(probs), dtype=int), n_bins)
        assert table["count"].to_numpy().nonzero()[0].tolist() == (expected - 1).tolist()


def test_edges_below_one_half():
    # 1/5 and 2/5 are the confidences of these rows; 3/15 and 6/15 the edges.
    probs = np.array([[0.2] * 5, [0.4, 0.3, 0.3, 0.0, 0.0]])
    for dtype in (np.float64, np.float32):
        for n_bins in (5, 10, 15):
            table = calibration.reliability_table(probs.astype(dtype), [0, 0], n_bins)
            filled = table[table["count"] > 0]
            assert filled["upper"].tolist() == [0.2, 0.4]


def test_equal_confidences_share_an_equal_mass_bin():
    probs, labels, _ = draw(n=300)
    probs[:120] = np.eye(7)[labels[:120]]
    probs[60:120] = np.roll(probs[60:120], 1, axis=1)
    shuffled = np.random.default_rng(1).permutation(300)
    for metric in BINNED:
        same = metric(probs[shuffled], labels[shuffled])
        assert same == pytest.approx(metric(probs, labels), abs=1e-12)
    # All 120 certain images, half of them wrong, are one bin's worth: a gap of one half.
    certain = probs.max(axis=1) == 1
    alone = calibration.adaptive_calibration_error(probs[certain], labels[certain])
    assert alone == pytest.approx(0.5)


def test_debiased_estimator_is_unbiased_where_ece_is_not():
    rng = np.random.default_rng(0)
    plain, squares = [], []
    for _ in range(400):
        confidence = rng.uniform(0.5, 1, 300)
        probs, labels = binary(confidence, rng.random(300) < confidence)
        plain.append(calibration.adaptive_calibration_error(probs, labels) ** 2)
        squares.append(calibration.debiased_squared_calibration_error(probs, labels))
    error = np.std(squares) / math.sqrt(400)
    assert abs(np.mean(squares)) < 3 * error
    assert np.mean(plain) > 20 * error


def test_debiased_estimator_finds_a_constant_gap():
    rng = np.random.default_rng(0)
    squares = []
    for _ in range(400):
        confidence = rng.uniform(0.6, 1, 300)
        probs, labels = binary(confidence, rng.random(300) < confidence - 0.1)
        squares.append(calibration.debiased_squared_calibration_error(probs, labels))
    assert np.mean(squares) == pytest.approx(0.1**2, abs=3 * np.std(squares) / math.sqrt(400))


def test_scores_equal_sklearn():
    probs, labels, _ = draw()
    onehot = np.eye(7)[labels]
    brier = sum(((p - e) ** 2).sum() for p, e in zip(probs, onehot)) / len(labels)
    assert calibration.brier_score(probs, labels) == pytest.approx(brier, abs=1e-12)
    nll = log_loss(labels, probs, labels=range(7))
    assert calibration.negative_log_likelihood(probs, labels) == pytest.approx(nll, abs=1e-12)
    for k in (1, 2, 5):
        accuracy = top_k_accuracy_score(labels, probs, k=k, labels=range(7))
        assert calibration.top_k_error(probs, labels, k) == pytest.approx(1 - accuracy, abs=1e-12)


def test_hand_computed_scores():
    probs, labels = [[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]], [0, 1]
    assert calibration.negative_log_likelihood(probs, labels) == pytest.approx(math.log(2) / 2)
    assert calibration.brier_score(probs, labels) == pytest.approx((0.25 + 2 * 0.0625) / 2)
    assert calibration.brier_score([[1.0, 0.0]], [1]) == 2
    assert calibration.negative_log_likelihood(probs, [0, 2]) == math.inf
    perfect = calibration.negative_log_likelihood([[1.0, 0.0]], [0])
    assert math.copysign(1, perfect) == 1 and perfect == 0


def test_top_k_ranks_ties_by_index():
    probs = np.full((4, 4), 0.25)
    labels = np.arange(4)
    assert [calibration.top_k_error(probs, labels, k) for k in range(1, 6)] == [
        0.75,
        0.5,
        0.25,
        0,
        0,
    ]
    probs, labels, _ = draw()
    wrong = (probs.argmax(axis=1) != labels).mean()
    assert calibration.top_k_error(probs, labels, 1) == wrong


def test_reliability_table():
    probs, labels, _ = draw(n=400)
    table = calibration.reliability_table(probs, labels, n_bins=20, level=0.9)
    assert len(table) == 20 and table["count"].sum() == 400
    # Seven classes: no confidence lies below 1/7.
    assert table["count"].iloc[:2].tolist() == [0, 0]
    assert table.loc[:1, "confidence":].isna().all(axis=None)
    assert table["lower"].iloc[0] == 0 and table["upper"].iloc[-1] == 1
    filled = table[table["count"] > 0]
    assert (filled["confidence"] > filled["lower"]).all()
    assert (filled["confidence"] <= filled["upper"]).all()
    weighted = filled["count"] * (filled["accuracy"] - filled["confidence"]).abs() / 400
    ece = calibration.expected_calibration_error(probs, labels, n_bins=20)
    assert weighted.sum() == pytest.approx(ece, abs=1e-12)


def test_reliability_intervals_equal_scipy():
    probs, labels, _ = draw(n=400)
    table = calibration.reliability_table(probs, labels, n_bins=30, level=0.9)
    table = table[table["count"] > 0]
    assert {0, 1} <= set(table["accuracy"])
    for count, accuracy, low, high in table[
        ["count", "accuracy", "accuracy_low", "accuracy_high"]
    ].to_numpy():
        test = binomtest(round(accuracy * count), int(count))
        ci = test.proportion_ci(0.9, method="wilson")
        assert (low, high) == pytest.approx((ci.low, ci.high), abs=1e-12)


def test_true_calibration_error_of_a_calibrated_model_is_zero():
    probs, labels, posterior = draw()
    assert calibration.true_calibration_error(probs, posterior) == pytest.approx(0, abs=1e-15)
    assert calibration.adaptive_calibration_error(probs, labels, n_bins=8) > 0.01


def test_true_calibration_error_finds_a_known_gap():
    # The first class's posterior is its stated probability less 0.3, often the smaller one then.
    rng = np.random.default_rng(0)
    stated = rng.uniform(0.6, 1, 5000)
    probs = np.stack([stated, 1 - stated], axis=1)
    posterior = np.stack([stated - 0.3, 1.3 - stated], axis=1)
    assert calibration.true_calibration_error(probs, posterior) == pytest.approx(0.3)


def test_true_calibration_error_is_closer_than_the_outcomes():
    # A model blind to part of the signal: the posterior varies among equal confidences. What the
    # temperature leaves of miscalibration is measured with 40 times as many images.
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(200_000, 5))
    posterior = calibration.softmax(logits + rng.normal(size=logits.shape))
    probs = calibration.softmax(logits, 1.2)
    labels = (posterior.cumsum(axis=1) > rng.random((len(logits), 1))).argmax(axis=1)
    truth = calibration.true_calibration_error(probs, posterior, n_bins=50)
    parts = [slice(i, i + 5000) for i in range(0, 200_000, 5000)]
    true = [calibration.true_calibration_error(probs[s], posterior[s]) for s in parts]
    plain = [calibration.adaptive_calibration_error(probs[s], labels[s]) for s in parts]
    assert np.abs(np.array(true) - truth).mean() < np.abs(np.array(plain) - truth).mean() / 2
    assert abs(np.mean(true) - truth) < 0.003


def test_summary_has_every_metric():
    probs, labels, _ = draw()
    summary = calibration.summarize(probs, labels, n_bins=12)
    assert summary == {
        "top1_error": calibration.top_k_error(probs, labels, 1),
        "top5_error": calibration.top_k_error(probs, labels, 5),
        "nll": calibration.negative_log_likelihood(probs, labels),
        "brier": calibration.brier_score(probs, labels),
        "ece": calibration.expected_calibration_error(probs, labels, 12),
        "adaptive_ece": calibration.adaptive_calibration_error(probs, labels, 12),
        "classwise_ece": calibration.classwise_calibration_error(probs, labels, 12),
        "mce": calibration.maximum_calibration_error(probs, labels, 12),
        "debiased_ce": calibration.debiased_calibration_error(probs, labels, 12),
        "overconfidence": calibration.overconfidence(probs, labels, 12),
        "underconfidence": calibration.underconfidence(probs, labels, 12),
        "confident_errors": calibration.confident_errors(probs, labels),
        "confidence_gap": calibration.confidence_gap(probs, labels),
    }
    assert all(type(value) is float for value in summary.values())
    assert calibration.summarize(*draw(classes=4)[:2])["top5_error"] == 0


def test_summary_is_fast():
    probs, labels, _ = draw(n=10_000, classes=100)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        calibration.summarize(probs, labels)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.3


@pytest.mark.parametrize("metric", BINNED + PLAIN)
def test_tensors_and_arrays_agree(metric):
    probs, labels, _ = draw()
    value = metric(probs, labels)
    assert type(value) is float
    tensors = torch.tensor(probs, requires_grad=True), torch.tensor(labels, dtype=torch.int32)
    assert metric(*tensors) == value
    assert metric(probs.tolist(), labels.tolist()) == value
    # Computed in float64: only the rounding of the input itself is left.
    single = torch.tensor(probs, dtype=torch.float32)
    assert metric(single, labels) == pytest.approx(value, abs=2e-7)


def test_softmax():
    logits = torch.tensor([[1000.0, 999.0, -1000.0], [0.0, 1.0, 2.0]])
    expected = torch.softmax(logits.double() / 2, dim=1).numpy()
    actual = calibration.softmax(logits, temperature=2)
    assert actual.dtype == np.float64
    np.testing.assert_allclose(actual, expected, rtol=1e-14)
    for temperature in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="temperature must be positive and finite"):
            calibration.softmax(logits, temperature)
    with pytest.raises(ValueError, match="logits must be finite"):
        calibration.softmax([[0.0, math.nan]])


@pytest.mark.parametrize(
    "metric",
    [
        calibration.expected_calibration_error,
        calibration.maximum_calibration_error,
        calibration.adaptive_calibration_error,
        calibration.debiased_calibration_error,
        calibration.confidence_gap,
    ],
)
def test_confidences_alone_give_what_the_probabilities_give(metric):
    probs, labels, _ = draw()
    probs = np.asarray(probs)
    correct = probs.argmax(axis=1) == np.asarray(labels)
    assert metric(probs.max(axis=1), correct) == metric(probs, labels)
    with pytest.raises(ValueError, match="confidences must lie in"):
        metric(probs.max(axis=1) + 1, correct)
    with pytest.raises(ValueError, match="correct must have shape"):
        metric(probs.max(axis=1), correct[:-1])


@pytest.mark.parametrize("norm", [1, 2])
def test_the_true_error_of_confidences_alone_is_that_of_the_probabilities(norm):
    probs, _, _ = draw()
    posterior = np.roll(probs, 1, axis=0)
    likely = posterior[np.arange(len(probs)), probs.argmax(axis=1)]
    alone = calibration.true_calibration_error(probs.max(axis=1), likely, norm=norm)
    assert alone == calibration.true_calibration_error(probs, posterior, norm=norm)


GOOD = [[0.5, 0.5], [0.25, 0.75]]


@pytest.mark.parametrize(
    "metric", BINNED + PLAIN + [calibration.summarize, calibration.reliability_table]
)
@pytest.mark.parametrize(
    ("probs", "labels", "error", "message"),
    [
        ([0.5, 0.5], [0, 1], ValueError, r"probs must have shape \(N, C\).* \(2,\)"),
        (np.empty((0, 3)), [], ValueError, r"N >= 1 and C >= 2, but has \(0, 3\)"),
        ([[1.0], [1.0]], [0, 0], ValueError, r"C >= 2, but has \(2, 1\)"),
        (np.array(GOOD, dtype=complex), [0, 1], TypeError, "probs must be real numbers"),
        ([[math.nan, 0.5], [0.5, 0.5]], [0, 1], ValueError, "probs must be finite"),
        ([[math.inf, 0.5], [0.5, 0.5]], [0, 1], ValueError, "probs must be finite"),
        ([[1.5, -0.5], [0.5, 0.5]], [0, 1], ValueError, r"range from -0.5 to 1.5"),
        ([[0.5, 0.4], [0.5, 0.5]], [0, 1], ValueError, r"must sum to 1, but one sums to 0.9"),
        (GOOD, [0, 1, 1], ValueError, r"labels must have shape \(2,\).* \(3,\)"),
        (GOOD, [[0, 1]], ValueError, r"labels must have shape"),
        (GOOD, [0.0, 1.0], TypeError, "labels must be integers, but they are float64"),
        (GOOD, [True, False], TypeError, "labels must be integers, but they are bool"),
        (GOOD, [0, 2], ValueError, r"labels must lie in \[0, 2\), but one is 2"),
        (GOOD, [-1, 0], ValueError, "but one is -1"),
    ],
)
def test_bad_input_is_named(metric, probs, labels, error, message):
    with pytest.raises(error, match=message):
        metric(probs, labels)


@pytest.mark.parametrize("metric", BINNED + [calibration.summarize, calibration.reliability_table])
def test_bad_bins_are_named(metric):
    with pytest.raises(ValueError, match="n_bins must be at least 1, but it is 0"):
        metric(GOOD, [0, 1], n_bins=0)
    with pytest.raises(TypeError, match="n_bins must be an integer, but it is 2.5"):
        metric(GOOD, [0, 1], n_bins=2.5)


def test_other_bad_arguments_are_named():
    with pytest.raises(ValueError, match="k must be at least 1"):
        calibration.top_k_error(GOOD, [0, 1], 0)
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        calibration.reliability_table(GOOD, [0, 1], level=95)
    with pytest.raises(ValueError, match="posterior must have the shape of probs"):
        calibration.true_calibration_error(GOOD, [[0.5, 0.5]])
    with pytest.raises(ValueError, match="each row of posterior must sum to 1"):
        calibration.true_calibration_error(GOOD, [[0.5, 0.4], [0.5, 0.5]])


@pytest.mark.parametrize("metric", PLAIN)
def test_half_precision_is_computed_in_double(metric):
    probs, labels, _ = draw()
    half = torch.tensor(probs).half()
    assert metric(half, labels) == pytest.approx(metric(half.double(), labels), abs=1e-12)
