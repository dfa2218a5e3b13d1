"""How good and how well calibrated probabilities are.

Every metric takes `probs` (N, C), each row a distribution over the classes, and integer `labels`
(N,) in [0, C), and returns a float computed in float64 with natural logarithms. Instead of both,
those that need the prediction alone also take confidences (N,) and whether the prediction is right,
boolean (N,). `lsce.measures.arrays` says which arrays are taken; anything else raises ValueError or
TypeError. The prediction is the most probable class (the first one where several tie), the
*confidence* its probability.

Equal-width bins are ((m-1)/M, m/M], with a confidence of exactly 0 in the first. Their edges are
m/M, correctly rounded in the precision of `probs`, so that a float32 0.2 meets the edge at 0.2
(`linspace` and `ceil(c * M)` both miss some edges by a rounding). torchmetrics keeps a bin of its
own for 1.0 (torchmetrics#3510), which is why the calibration errors are written here. Equal-mass
bins hold N/M images each, the first bins one more where that is no integer; equal confidences share
a bin, so that the order of the images never matters.
"""

from statistics import NormalDist

import numpy as np
import pandas as pd

from lsce.measures.arrays import (
    Values,
    as_array,
    as_distributions,
    as_labels,
    as_logits,
    as_shares,
    rounded,
)

#: Count, mean confidence and mean outcome of each bin; the means are NaN in an empty one.
Bins = tuple[np.ndarray, np.ndarray, np.ndarray]


def expected_calibration_error(probs: Values, labels: Values, n_bins: int = 15) -> float:
    """ECE in [0, 1]: mean of ``|accuracy − confidence|`` over equal-width bins, weighted by counts.

    Naeini et al. 2015; Guo et al. 2017. Biased upwards at finite N, most of all for a calibrated
    model: read it beside `debiased_calibration_error` and `confidence_gap`.
    """
    return _mean_gap(*_equal_width_bins(probs, labels, n_bins))


def maximum_calibration_error(probs: Values, labels: Values, n_bins: int = 15) -> float:
    """MCE in [0, 1]: the largest ``|accuracy − confidence|`` of a non-empty equal-width bin (Guo et
    al. 2017). One nearly empty bin can decide it."""
    _, confidence, accuracy = _equal_width_bins(probs, labels, n_bins)
    return float(np.nanmax(np.abs(accuracy - confidence)))


def adaptive_calibration_error(probs: Values, labels: Values, n_bins: int = 15) -> float:
    """ECE over equal-mass bins of the confidence, in [0, 1] (Nixon et al. 2019)."""
    return _mean_gap(*_equal_mass_bins(*_top_label(probs, labels), n_bins))


def classwise_calibration_error(probs: Values, labels: Values, n_bins: int = 15) -> float:
    """Mean over the classes of the ECE of each class's probability over all images, in [0, 1]
    (Nixon et al. 2019; Kull et al. 2019). Small when C is large; not comparable with ECE."""
    values, labels = _checked(probs, labels)
    n, classes = values.shape
    cell = _equal_width(values, n_bins, probs) + n_bins * np.arange(classes)
    mass = np.bincount(cell.ravel(), weights=values.ravel(), minlength=n_bins * classes)
    hits = np.bincount(cell[np.arange(n), labels], minlength=n_bins * classes)
    return float(np.abs(hits - mass).sum() / (n * classes))


def debiased_squared_calibration_error(probs: Values, labels: Values, n_bins: int = 15) -> float:
    """The debiased squared l2 calibration error over equal-mass bins (Kumar et al. 2019).

    The variance of its accuracy, a(1 − a)/(n − 1), is taken from each bin's squared gap, which can
    make it negative. A bin of one image counts as 0, as in their code; ValueError if all are such.
    """
    return float(_debiased_squares(probs, labels, n_bins)[1].sum())


def debiased_calibration_error(probs: Values, labels: Values, n_bins: int = 15) -> float:
    """The root of `debiased_squared_calibration_error`, or 0 where that is negative; in [0, 1]."""
    return float(np.sqrt(max(0.0, debiased_squared_calibration_error(probs, labels, n_bins))))


def overconfidence(probs: Values, labels: Values, n_bins: int = 15) -> float:
    """The part of `debiased_calibration_error` that is of over-confident bins, in [0, 1].

    The terms of `debiased_squared_calibration_error` are added up over the bins whose confidence
    is above their accuracy, and `underconfidence` adds up the others, so that the squares of both
    sum to that of the whole unless one of them is negative and counts as 0. FedLAS (2026,
    arXiv:2606.28654) has the two states of confidence, but trains by them and has no such measure.

    A calibrated bin adds 0 on average to either part, as to the whole. Where the true gap is about
    as large as its standard error σ, chance puts the bin on the wrong side at times: its own part
    is then up to 0.1 σ² too large, and the other as much too small.
    """
    gap, square = _debiased_squares(probs, labels, n_bins)
    return float(np.sqrt(max(0.0, square[gap > 0].sum())))


def underconfidence(probs: Values, labels: Values, n_bins: int = 15) -> float:
    """The part of `debiased_calibration_error` that is of bins whose confidence is at most their
    accuracy, in [0, 1]: see `overconfidence`."""
    gap, square = _debiased_squares(probs, labels, n_bins)
    return float(np.sqrt(max(0.0, square[gap <= 0].sum())))


def confident_errors(probs: Values, labels: Values, above: float = 0.9) -> float:
    """Share of the wrong images whose confidence is higher than `above`, in [0, 1]; 0 if no image
    is wrong.

    What "label smoothing makes errors confident" says in a number (Zhou et al. 2025, MaxSup,
    arXiv:2502.15798). `above` must lie in [0, 1].
    """
    if not 0 <= above <= 1:
        raise ValueError(f"above must lie in [0, 1], but it is {above!r}")
    confidence, correct = _top_label(probs, labels)
    return float((confidence[~correct] > above).sum() / max(1, (~correct).sum()))


def confidence_gap(probs: Values, labels: Values) -> float:
    """Mean confidence − accuracy, in [-1, 1]: positive is over-confident, negative under-."""
    confidence, correct = _top_label(probs, labels)
    return float(confidence.mean(dtype=np.float64) - correct.mean())


def negative_log_likelihood(probs: Values, labels: Values) -> float:
    """Mean −log p of the label itself, in nats, never smoothed; inf where some p is 0."""
    probs, labels = _checked(probs, labels)
    with np.errstate(divide="ignore"):
        # 0 minus, rather than a sign: a perfect model then gets 0.0 instead of -0.0.
        return float(0.0 - np.log(_at(probs, labels).astype(np.float64)).mean())


def brier_score(probs: Values, labels: Values) -> float:
    """Mean squared distance from the one-hot label (Brier 1950), in [0, 2]: not divided by C."""
    probs, labels = _checked(probs, labels)
    residual = probs.astype(np.float64)
    residual[np.arange(len(labels)), labels] -= 1
    return float(np.square(residual).sum() / len(labels))


def top_k_error(probs: Values, labels: Values, k: int) -> float:
    """Share of images whose label is not among the k most probable classes, in [0, 1]; 0 if
    k >= C. Of equally probable classes the one of lower index ranks first, as in `argmax`."""
    probs, labels = _checked(probs, labels)
    _check_positive("k", k)
    own = _at(probs, labels)[:, None]
    earlier = np.arange(probs.shape[1]) < labels[:, None]
    ahead = (probs > own) | ((probs == own) & earlier)
    return float((ahead.sum(axis=1) >= k).mean())


def reliability_table(
    probs: Values, labels: Values, n_bins: int = 15, level: float = 0.95
) -> pd.DataFrame:
    """One row an equal-width bin: what a reliability diagram draws.

    Columns: lower, upper (the bin's edges), count, confidence (mean), accuracy, and accuracy_low
    and accuracy_high, the Wilson (1927) interval of the accuracy at `level` in (0, 1). An empty
    bin keeps its row, with NaN for all but the edges and the count.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, but it is {level!r}")
    count, confidence, accuracy = _equal_width_bins(probs, labels, n_bins)
    low, high = _wilson(accuracy, count, level)
    edges = np.arange(n_bins + 1) / n_bins
    return pd.DataFrame(
        {
            "lower": edges[:-1],
            "upper": edges[1:],
            "count": count,
            "confidence": confidence,
            "accuracy": accuracy,
            "accuracy_low": low,
            "accuracy_high": high,
        }
    )


def true_calibration_error(
    probs: Values, posterior: Values, n_bins: int = 8, *, norm: int = 1
) -> float:
    """E|c − E[p(ŷ|x) | c]| where the data's `posterior` p(y|x), (N, C) like `probs`, is known.

    With confidences (N,), `posterior` is that of the predicted classes, (N,). With `norm=2` the
    root mean square gap instead, which the debiased error estimates.

    The expectation given the confidence c is taken over equal-mass bins of the posterior, not of
    the 0/1 outcome, so that the noise of the labels is gone. Two errors remain. The spread σ of the
    posterior among images of equal confidence adds up to about 0.8 σ √(n_bins / N) where the model
    is calibrated, and next to nothing where the gap exceeds σ √(n_bins / N). Averaging hides a gap
    that changes sign inside a bin: an underestimate of the order of 1 / n_bins².

    Simulated nearly calibrated models with N = 10,000 and σ about 0.2 came out 0.001 too high
    with 8 bins, 0.003 with 15 (the outcomes: 0.010), and none too low from 5 bins on; hence the
    default of 8.
    """
    if norm not in (1, 2):
        raise ValueError(f"norm must be 1 or 2, but it is {norm!r}")
    check = as_shares if as_array(probs).ndim == 1 else as_distributions
    probs = check("confidences" if check is as_shares else "probs", probs)
    posterior = check("posterior", posterior)
    if posterior.shape != probs.shape:
        raise ValueError(
            f"posterior must have the shape of probs, {probs.shape}, but has {posterior.shape}"
        )
    if probs.ndim == 2:
        predicted = probs.argmax(axis=1)
        probs, posterior = _at(probs, predicted), _at(posterior, predicted)
    count, confidence, likely = _equal_mass_bins(probs, posterior, n_bins)
    if norm == 1:
        return _mean_gap(count, confidence, likely)
    return float(np.sqrt(np.nansum(count * (likely - confidence) ** 2) / count.sum()))


def summarize(probs: Values, labels: Values, n_bins: int = 15) -> dict[str, float]:
    """Every metric of this module that needs labels alone, by the names the report uses."""
    return {
        "top1_error": top_k_error(probs, labels, 1),
        "top5_error": top_k_error(probs, labels, 5),
        "nll": negative_log_likelihood(probs, labels),
        "brier": brier_score(probs, labels),
        "ece": expected_calibration_error(probs, labels, n_bins),
        "adaptive_ece": adaptive_calibration_error(probs, labels, n_bins),
        "classwise_ece": classwise_calibration_error(probs, labels, n_bins),
        "mce": maximum_calibration_error(probs, labels, n_bins),
        "debiased_ce": debiased_calibration_error(probs, labels, n_bins),
        "overconfidence": overconfidence(probs, labels, n_bins),
        "underconfidence": underconfidence(probs, labels, n_bins),
        "confident_errors": confident_errors(probs, labels),
        "confidence_gap": confidence_gap(probs, labels),
    }


def softmax(logits: Values, temperature: float = 1.0) -> np.ndarray:
    """softmax(logits / temperature) over the classes, float64 (N, C); ValueError unless the logits
    are finite and 0 < temperature < inf."""
    if not 0 < temperature < np.inf:
        raise ValueError(f"temperature must be positive and finite, but it is {temperature!r}")
    logits = as_logits(logits)
    weights = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
    return weights / weights.sum(axis=1, keepdims=True)


def _checked(probs: Values, labels: Values) -> tuple[np.ndarray, np.ndarray]:
    probs = as_distributions("probs", probs)
    return probs, as_labels(labels, *probs.shape)


def _check_positive(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, but it is {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, but it is {value}")


def _at(matrix: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return matrix[np.arange(len(columns)), columns]


def _top_label(probs: Values, labels: Values) -> tuple[np.ndarray, np.ndarray]:
    """Confidence (N,) in the precision of `probs`, and whether the prediction is right (N,)."""
    correct = as_array(labels)
    if as_array(probs).ndim == 1 and correct.dtype == bool:
        confidence = as_shares("confidences", probs)
        if correct.shape != confidence.shape:
            raise ValueError(
                f"correct must have shape {confidence.shape}, one an image, but has {correct.shape}"
            )
        return confidence, correct
    probs, labels = _checked(probs, labels)
    predicted = probs.argmax(axis=1)
    return _at(probs, predicted), predicted == labels


def _equal_width(values: np.ndarray, n_bins: int, like: Values) -> np.ndarray:
    """The bin of each value, 0 to n_bins − 1: how many inner edges lie strictly below it."""
    _check_positive("n_bins", n_bins)
    return np.searchsorted(rounded(np.arange(1, n_bins) / n_bins, like), values)


def _equal_width_bins(probs: Values, labels: Values, n_bins: int) -> Bins:
    confidence, correct = _top_label(probs, labels)
    return _per_bin(_equal_width(confidence, n_bins, probs), confidence, correct, n_bins)


def _equal_mass_bins(confidence: np.ndarray, outcome: np.ndarray, n_bins: int) -> Bins:
    _check_positive("n_bins", n_bins)
    size, larger = divmod(len(confidence), n_bins)
    last = np.cumsum(size + (np.arange(n_bins - 1) < larger)) - 1
    bins = np.searchsorted(np.sort(confidence)[last], confidence)
    return _per_bin(bins, confidence, outcome, n_bins)


def _per_bin(bins: np.ndarray, confidence: np.ndarray, outcome: np.ndarray, n_bins: int) -> Bins:
    count = np.bincount(bins, minlength=n_bins)
    # bincount adds up in float64 whatever it is given.
    sums = [np.bincount(bins, weights=w, minlength=n_bins) for w in (confidence, outcome)]
    with np.errstate(invalid="ignore"):
        return count, sums[0] / count, sums[1] / count


def _debiased_squares(probs: Values, labels: Values, n_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Confidence − accuracy of each equal-mass bin of two images or more, and its squared gap less
    the variance of its accuracy, times its share of the images."""
    bins = np.array(_equal_mass_bins(*_top_label(probs, labels), n_bins))
    images = int(bins[0].sum())
    count, confidence, accuracy = bins[:, bins[0] > 1]
    if not len(count):
        raise ValueError(
            f"probs must hold more images than the {n_bins} bins, but there are {images}"
        )
    gap = confidence - accuracy
    return gap, count * (gap**2 - accuracy * (1 - accuracy) / (count - 1)) / images


def _mean_gap(count: np.ndarray, confidence: np.ndarray, outcome: np.ndarray) -> float:
    return float(np.nansum(count * np.abs(outcome - confidence)) / count.sum())


def _wilson(share: np.ndarray, n: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    z = NormalDist().inv_cdf((1 + level) / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z * np.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2) / (1 + z**2 / n)
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)
