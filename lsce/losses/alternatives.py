"""Losses that label smoothing is compared with.

Each is called with logits, float (N, C), and labels, int64 (N,), and returns the mean over the
batch, float64 for float64 logits and else float32. Values of labels are not checked: the host
never waits for the device. A parameter out of its range raises ValueError.
"""

import math
import numbers
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lsce.losses.checks import CONVENTIONS
from lsce.losses.kernel import compute_dtype, log_softmax, masses, product, weighted


def _require(ok: bool, name: str, value: object, want: str) -> None:
    if not ok:
        raise ValueError(f"{name} is {value!r}; it must be {want}")


def _number(name: str, value: float, want: str, is_in_range: Callable[[float], bool]) -> float:
    is_real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    _require(is_real and math.isfinite(value) and is_in_range(value), name, value, want)
    return float(value)


def _checked(transition: Tensor) -> Tensor:
    shape = tuple(getattr(transition, "shape", ()))
    square = isinstance(transition, Tensor) and len(shape) == 2 and shape[0] == shape[1]
    _require(square, "shape of transition", shape, "(C, C)")
    sums = transition.double().sum(1)
    rows = bool((transition >= 0).all()) and torch.allclose(sums, torch.ones_like(sums))
    _require(rows, "transition", transition, "rows of probabilities that sum to 1")
    return transition.double()


def _of_label(values: Tensor, labels: Tensor) -> Tensor:
    return values.gather(1, labels[:, None]).squeeze(1)


class FocalLoss(nn.Module):
    """−(1 − p_y)^γ log p_y, γ ≥ 0 (Lin et al., 2017, ICCV; on calibration Mukhoti et al., 2020)."""

    def __init__(self, gamma: float):
        super().__init__()
        self.gamma = _number("gamma", gamma, "a number >= 0", lambda gamma: gamma >= 0)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        log_p = _of_label(log_softmax(logits), labels)
        # 1 − p without cancellation; the power's slope is infinite at 0 for γ < 1.
        missing = -torch.expm1(log_p).clamp(max=-torch.finfo(log_p.dtype).tiny)
        return -(missing**self.gamma * log_p).mean()


class MaxSup(nn.Module):
    """Cross entropy + weight · (max_k z_k − mean_k z_k), weight ≥ 0 (Zhou et al., 2025,
    arXiv:2502.15798). With z_y for the maximum it is include-true label smoothing, ε = weight."""

    def __init__(self, weight: float):
        super().__init__()
        self.weight = _number("weight", weight, "a number >= 0", lambda weight: weight >= 0)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        log_p = log_softmax(logits)
        cross_entropy = -_of_label(log_p, labels).mean()
        if self.weight == 0:  # the penalty is infinite if a logit is −∞
            return cross_entropy
        # Logits but for a constant, which the difference loses.
        return self.weight * (log_p.amax(1) - log_p.mean(1)).mean() + cross_entropy


class GeneralizedCrossEntropy(nn.Module):
    """(1 − p_y^q)/q, 0 < q ≤ 1 (Zhang & Sabuncu, 2018, NeurIPS); cross entropy for q → 0."""

    def __init__(self, q: float):
        super().__init__()
        self.q = _number("q", q, "a number in (0, 1]", lambda q: 0 < q <= 1)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return -torch.expm1(self.q * _of_label(log_softmax(logits), labels)).mean() / self.q


class ForwardCorrection(nn.Module):
    """−log (Tᵀp)_label (Patrini et al., 2017, CVPR) with the transition matrix T, float64 (C, C),
    T[i, j] = P(labelled j | class i)."""

    def __init__(self, transition: Tensor):
        super().__init__()
        # Row j is log T[·, j]: one row is read a sample.
        self.log_columns = nn.Buffer(_checked(transition).log().T.contiguous())

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        log_p = log_softmax(logits)
        # N·C sums in the logs, where no p underflows; Tᵀp would be N·C² products, less exact.
        return -(log_p + self.log_columns[labels].to(log_p.dtype)).logsumexp(1).mean()


class BackwardCorrection(nn.Module):
    """Σ_j T⁻¹[label, j] · (−log p_j) (Patrini et al., 2017, CVPR), whose mean over the noisy labels
    of a sample is the cross entropy with the true one. T is as in `ForwardCorrection`, with a
    condition number below 1e8."""

    def __init__(self, transition: Tensor):
        super().__init__()
        transition = _checked(transition)
        condition = torch.linalg.cond(transition).item()
        _require(condition < 1e8, "condition number of transition", condition, "below 1e+08")
        self.inverse = nn.Buffer(torch.linalg.inv(transition))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        log_p = log_softmax(logits)
        return -product(self.inverse[labels].to(log_p.dtype), log_p).sum(1).mean()


class GeneralizedLabelSmoothing(nn.Module):
    """Label smoothing with any ε ≤ 1, negative ones too (Wei et al., 2022, ICML). The buffer
    `epsilon`, float32 (), is read at each call and may be changed in between."""

    def __init__(self, epsilon: float, convention: str):
        super().__init__()
        epsilon = _number("epsilon", epsilon, "a number <= 1", lambda epsilon: epsilon <= 1)
        choices = f"one of {', '.join(map(repr, CONVENTIONS))}"
        _require(convention in CONVENTIONS, "convention", convention, choices)
        self.convention = convention
        self.epsilon = nn.Buffer(torch.tensor(epsilon, dtype=torch.float32))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        log_p = log_softmax(logits)
        epsilon = self.epsilon.to(log_p.dtype)
        on_true, on_other = masses(epsilon, logits.shape[1], self.convention)
        others = log_p.scatter(1, labels[:, None], 0)
        loss = product(on_true, _of_label(log_p, labels)) + product(on_other, others).sum(1)
        return -loss.mean()


def inverse_frequency(counts: Sequence[int]) -> Tensor:
    """Class weights N/(C·n_k), float32 (C,), for C classes of n_k training images, N in all: their
    mean over the training images is 1."""
    images = torch.tensor(counts, dtype=torch.float64)
    return (images.sum() / (len(images) * images)).float()


class SampleWeighted(nn.Module):
    """The mean of the losses (N,) that ``criterion`` returns, times the weights, float (C,), of the
    labels; so they do not act on the smoothed part of the targets."""

    def __init__(self, criterion: nn.Module, weights: Tensor):
        super().__init__()
        self.criterion = criterion
        self.weights = nn.Buffer(torch.as_tensor(weights))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        loss: Tensor = self.criterion(logits, labels)
        return weighted(loss, self.weights[labels].to(loss.dtype)).mean()


class Distillation(nn.Module):
    """T² · H(q, softmax(z/T)), the teacher's part of Hinton et al. (2015, arXiv:1503.02531): q,
    float (N, C), are its probabilities at the same temperature T > 0."""

    def __init__(self, temperature: float):
        super().__init__()
        self.temperature = _number(
            "temperature", temperature, "a number > 0", lambda value: value > 0
        )

    def forward(self, logits: Tensor, probabilities: Tensor) -> Tensor:
        log_p = log_softmax(logits.to(compute_dtype(logits)) / self.temperature)
        cross_entropy = -product(probabilities.to(log_p.dtype), log_p).sum(1).mean()
        return self.temperature**2 * cross_entropy
