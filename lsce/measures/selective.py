"""Whether a network knows when it is wrong: selective classification, and classes never seen.

A *score* (N,) says how sure a network is of each image, higher being surer; only its order counts.
Images are accepted from the highest score down: *coverage* is the share accepted, *risk* their
error rate, both in [0, 1]. Logits are (N, C), labels integers (N,) in [0, C), scores and risks (N,)
with N >= 1, all as in `lsce.measures.arrays`, computed in float64. Anything else, numbers that are
not finite, and probabilities given as logits raise ValueError or TypeError.
"""

from typing import Any

import numpy as np

from lsce.measures.arrays import Values, as_array, as_labels, as_logits, as_risks, as_vector

#: The norms that `choose_norm` tries: those of Cattelan & Silva's (2024) code.
NORMS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)

#: The coverages of the curves that are kept.
COVERAGES = np.arange(1, 21) / 20

#: What the suffixes of `selective`'s scalars are called in its rows.
CASES = {"": "as trained", "_scaled": "temperature scaled", "_normalised": "logits normalised"}


def log_odds(logits: Values, temperature: float = 1.0) -> np.ndarray:
    """ln(c / (1 − c)), (N,), c being the maximum of softmax(logits / temperature).

    The order of c (Hendrycks & Gimpel 2017), but without the ties that appear where c rounds to 1.
    At least −ln(C − 1). 0 < temperature < inf.
    """
    from scipy.special import logsumexp  # half a second to import

    if not 0 < temperature < np.inf:
        raise ValueError(f"temperature must be positive and finite, but it is {temperature!r}")
    logits = as_logits(logits)
    behind = (logits - logits.max(axis=1, keepdims=True)) / temperature
    behind[np.arange(len(behind)), logits.argmax(axis=1)] = -np.inf
    return -logsumexp(behind, axis=1)


def maximum_logit(logits: Values) -> np.ndarray:
    """max_k z_k, (N,). Unlike a probability it changes when a row of logits is shifted."""
    return as_logits(logits).max(axis=1)


def normalised(logits: Values, p: float) -> np.ndarray:
    """max_k z_k / ‖z‖_p of logits less their mean over the classes: (N,) in [0, 1], p > 0.

    Cattelan & Silva 2024 (arXiv:2305.15508); for smoothing Xia et al. 2025 (arXiv:2403.14715).
    Equal logits score 0. Of two classes it says nothing: 2^(−1/p) for every image.
    """
    if not 0 < p < np.inf:
        raise ValueError(f"p must be positive and finite, but it is {p!r}")
    logits = as_logits(logits)
    # Less the maximum first, or the mean of equal logits can differ from them by a rounding.
    centred = logits - logits.max(axis=1, keepdims=True)
    centred -= centred.mean(axis=1, keepdims=True)
    largest = np.abs(centred).max(axis=1, keepdims=True)
    centred /= np.where(largest > 0, largest, 1)
    norm = (np.abs(centred) ** p).sum(axis=1) ** (1 / p)  # at least 1, but 0 for equal logits
    return centred.max(axis=1) / np.maximum(norm, 1)


def energy(logits: Values) -> np.ndarray:
    """ln Σ_k exp z_k, (N,), the negative free energy at T = 1 (Liu et al. 2020, arXiv:2010.03759),
    which changes when a row of logits is shifted."""
    from scipy.special import logsumexp

    return logsumexp(as_logits(logits), axis=1)


def choose_norm(logits: Values, labels: Values) -> float:
    """The p of `NORMS` whose `normalised` has the least AURC on these images, which should be
    validation images; the first of equals."""
    correct = _correct(logits, labels)
    return min(NORMS, key=lambda p: aurc(risk_coverage(normalised(logits, p), correct)))


def risk_coverage(score: Values, correct: Values) -> np.ndarray:
    """r_i, the error rate among the i images of highest score, i = 1..N: (N,) in [0, 1].

    `correct` (N,), boolean. Where scores tie, the expected value over random orders of the tied
    images, so that the order of the file can't matter. Geifman et al. 2019 (arXiv:1805.08206).
    """
    score, correct = as_vector("score", score), as_array(correct)
    if correct.dtype != bool:
        raise TypeError(f"correct must be boolean, but it is {correct.dtype}")
    if correct.shape != score.shape:
        raise ValueError(f"correct must have shape {score.shape}, but has {correct.shape}")
    _, group, size = np.unique(-score, return_inverse=True, return_counts=True)
    wrong = np.bincount(group[~correct], minlength=len(size))
    sooner, errors_sooner = np.cumsum(size) - size, np.cumsum(wrong) - wrong
    tied, accepted = np.repeat(np.arange(len(size)), size), np.arange(1, len(score) + 1)
    errors = errors_sooner[tied] * size[tied] + (accepted - sooner[tied]) * wrong[tied]
    # Integers up to here: each risk is rounded once, so that one of 5% equals 0.05.
    return errors / (size[tied] * accepted)


def aurc(risks: Values) -> float:
    """The mean of the risks at coverages 1/N, 2/N, …, 1: in [0, 1], 0 if all are right."""
    return float(as_risks("risks", risks).mean())


def excess_aurc(risks: Values) -> float:
    """AURC − [r + (1 − r) ln(1 − r)], r being the risk at full coverage (Geifman et al. 2019).

    The bracket is the large-N limit of the optimum, all errors last; at finite N the optimum is
    above it by r / N at most.
    """
    r = as_risks("risks", risks)[-1]
    best = r + (1 - r) * np.log1p(-r) if r < 1 else 1.0
    return aurc(risks) - float(best)


def coverage_at_risk(risks: Values, most: float) -> float:
    """The largest i/N with r_i <= `most`, in [0, 1]; 0 if there is none."""
    risks = as_risks("risks", risks)
    within = np.flatnonzero(risks <= _share("most", most))
    return float((within[-1] + 1) / len(risks)) if within.size else 0.0


def risk_at_coverage(risks: Values, coverage: float) -> float:
    """r_i at the least i with i/N >= `coverage`, in [0, 1]; the first image's at coverage 0."""
    risks = as_risks("risks", risks)
    return float(risks[_least(len(risks), _share("coverage", coverage))])


def auroc(positive: Values, negative: Values) -> float:
    """The probability that a positive's score is above a negative's, ties counting half; the two
    may differ in number."""
    from sklearn.metrics import roc_auc_score  # a second to import

    positive, negative = as_vector("positive", positive), as_vector("negative", negative)
    truth = np.repeat([True, False], [len(positive), len(negative)])
    return float(roc_auc_score(truth, np.concatenate([positive, negative])))


def fpr_at_tpr(positive: Values, negative: Values, tpr: float = 0.95) -> float:
    """Share of negatives, in [0, 1], at or above the highest threshold that `tpr` of positives
    reach."""
    positive, negative = as_vector("positive", positive), as_vector("negative", negative)
    threshold = np.sort(positive)[::-1][_least(len(positive), _share("tpr", tpr))]
    return float((negative >= threshold).mean())


def selective(
    validation_logits: Values,
    validation_labels: Values,
    test_logits: Values,
    test_labels: Values,
    temperature: float,
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """How well three scores of the test images tell right from wrong.

    Scalars, with a suffix for the score: "aurc"; "excess_aurc"; "coverage_at_5", where risk is 5%
    at most; "risk_at_80", at 80% coverage; "failure_auroc", a right image being the positive, left
    out if all are right or all wrong. Suffixes: "" for the maximum softmax probability, "_scaled"
    for that of logits / temperature, "_normalised" for `normalised` with p, "norm", chosen on
    validation. Also rows {"quantity": "risk", "case": one of `CASES`, "x": one of `COVERAGES`,
    "value": risk}.
    """
    correct = _correct(test_logits, test_labels)
    norm = choose_norm(validation_logits, validation_labels)
    scalars, rows = {"norm": norm}, []
    for suffix, score in scores(test_logits, temperature, norm).items():
        risks = risk_coverage(score, correct)
        scalars |= {
            f"aurc{suffix}": aurc(risks),
            f"excess_aurc{suffix}": excess_aurc(risks),
            f"coverage_at_5{suffix}": coverage_at_risk(risks, 0.05),
            f"risk_at_80{suffix}": risk_at_coverage(risks, 0.8),
        }
        if 0 < risks[-1] < 1:
            scalars[f"failure_auroc{suffix}"] = auroc(score[correct], score[~correct])
        rows += [
            {"quantity": "risk", "case": CASES[suffix], "x": x, "value": risk_at_coverage(risks, x)}
            for x in COVERAGES.tolist()
        ]
    return scalars, rows


def unseen(
    seen_logits: Values,
    unseen_logits: Values,
    temperature: float,
    norm: float,
    name: str = "unseen",
) -> dict[str, float]:
    """How well scores tell test images of the C training classes (positive) from other images
    (Hendrycks & Gimpel 2017, arXiv:1610.02136).

    Both logits are over the training classes. With `name` before them "_auroc" and "_fpr95" (the
    share of the other images accepted where 95% of the seen ones are) with the suffixes of
    `selective`, p being `norm`, and "_logit", `maximum_logit`, and "_energy", `energy`.
    """
    seen_logits = as_logits(seen_logits, "seen_logits")
    unseen_logits = as_logits(unseen_logits, "unseen_logits")
    if seen_logits.shape[1] != unseen_logits.shape[1]:
        shapes = f"{seen_logits.shape} and {unseen_logits.shape}"
        raise ValueError(f"seen and unseen logits must be of the same classes, but have {shapes}")
    positive, negative = (
        scores(z, temperature, norm) | {"_logit": maximum_logit(z), "_energy": energy(z)}
        for z in (seen_logits, unseen_logits)
    )
    pairs = {suffix: (score, negative[suffix]) for suffix, score in positive.items()}
    aurocs = {f"{name}_auroc{suffix}": auroc(*pair) for suffix, pair in pairs.items()}
    return aurocs | {f"{name}_fpr95{suffix}": fpr_at_tpr(*pair) for suffix, pair in pairs.items()}


def scores(logits: Values, temperature: float, norm: float) -> dict[str, np.ndarray]:
    """The three scores, (N,) each, by the suffixes of `selective`; p of `normalised` is `norm`."""
    return {
        "": log_odds(logits),
        "_scaled": log_odds(logits, temperature),
        "_normalised": normalised(logits, norm),
    }


def _correct(logits: Values, labels: Values) -> np.ndarray:
    logits = as_logits(logits)
    return logits.argmax(axis=1) == as_labels(labels, *logits.shape)


def _least(n: int, share: float) -> int:
    """The index i − 1 of the least i in 1..n with i/n >= share; `ceil` would miss some by one."""
    return int(np.searchsorted(np.arange(1, n + 1) / n, share))


def _share(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie in [0, 1], but it is {value!r}")
    return value
