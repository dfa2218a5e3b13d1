"""Temperature scaling (Guo et al. 2017): one number that mends a model's confidence."""

from dataclasses import dataclass

import numpy as np

from lsce.measures.arrays import Values, as_labels, as_logits

#: The temperatures searched.
LOWEST, HIGHEST = 0.01, 100.0


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature, and the hard-label NLL (nats) it was fitted to before and after."""

    value: float
    nll_before: float
    nll_after: float
    #: False where the NLL has no minimum inside [LOWEST, HIGHEST]: all labels right by a margin
    #: (ever colder is ever better), worse than chance or logits so far apart that HIGHEST is not
    #: hot enough (ever hotter), or logits that say nothing.
    converged: bool


def fit_temperature(logits: Values, labels: Values) -> Temperature:
    """The T in [0.01, 100] that minimises the hard-label NLL of softmax(logits / T), never worse
    than T = 1: below 1 for an under-confident model, above for an over-confident one.

    `logits` (N, C) and `labels` (N,) of held-out images; computed in float64. Raises ValueError or
    TypeError for logits that are not finite or are probabilities, and for labels that do not fit.
    """
    logits = as_logits(logits)
    labels = as_labels(labels, *logits.shape)
    shifted = logits - logits.max(axis=1, keepdims=True)
    target = shifted[np.arange(len(labels)), labels]
    before = _nll(shifted, target, 1.0)
    beta, converged = _best_inverse(shifted, target)
    after = _nll(shifted, target, beta)
    if after >= before:
        beta, after = 1.0, before
    return Temperature(1 / beta, before, after, converged)


def _nll(shifted: np.ndarray, target: np.ndarray, beta: float) -> float:
    return float((np.log(np.exp(beta * shifted).sum(axis=1)) - beta * target).mean())


def _derivatives(shifted: np.ndarray, target: np.ndarray, beta: float) -> tuple[float, float]:
    """The mean of E_p[z] − z_y and Var_p[z]: first and second derivative of the NLL by β = 1/T."""
    weights = np.exp(beta * shifted)
    weights /= weights.sum(axis=1, keepdims=True)
    mean = (weights * shifted).sum(axis=1)
    square = (weights * shifted**2).sum(axis=1)
    return float((mean - target).mean()), float((square - mean**2).mean())


def _best_inverse(shifted: np.ndarray, target: np.ndarray) -> tuple[float, bool]:
    """The β that minimises the NLL, and whether it lies inside the bounds.

    The NLL is convex in β, so its slope has one sign change: Newton's steps, and a bisection (of
    log β) wherever such a step leaves the bracket or no longer halves the slope.
    """
    low, high = 1 / HIGHEST, 1 / LOWEST
    if _derivatives(shifted, target, high)[0] <= 0:
        return high, False
    if _derivatives(shifted, target, low)[0] >= 0:
        return low, False
    beta, last = 1.0, np.inf
    for _ in range(200):
        slope, curvature = _derivatives(shifted, target, beta)
        low, high = (beta, high) if slope < 0 else (low, beta)
        newton = beta - slope / curvature if curvature > 0 else np.inf
        if abs(newton - beta) <= 1e-11 * beta or high - low <= 1e-11 * beta:
            return beta, True
        halved, last = abs(slope) <= last / 2, abs(slope)
        beta = newton if halved and low < newton < high else float(np.sqrt(low * high))
    return beta, False
