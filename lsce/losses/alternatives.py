"""Losses that label smoothing is compared with.

Each is called with logits, float (N, C), and labels, int64 (N,), and returns the mean over the
batch, float64 for float64 logits and else float32. Values of labels are not checked: the host
never waits for the device.
"""

import math
import numbers
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_CONVENTIONS = ("exclude-true", "include-true")

#: A transition matrix with a larger condition number is not inverted.
_WORST_CONDITION = 1e8


def _require(ok: bool, name: str, value: object, want: str) -> None:
    if not ok:
        raise ValueError(f"{name} is {value!r}; it must be {want}")


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _checked(transition: Tensor) -> Tensor:
    shape = tuple(getattr(transition, "shape", ()))
    square = isinstance(transition, Tensor) and len(shape) == 2 and shape[0] == shape[1]
    _require(square, "shape of transition", shape, "(C, C)")
    sums = transition.double().sum(1)
    rows = bool((transition >= 0).all()) and torch.allclose(sums, torch.ones_like(sums))
    _require(rows, "transition", transition, "rows of probabilities that sum to 1")
    return transition.double()


def _log_softmax(logits: Tensor) -> Tensor:
    wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return F.log_softmax(logits, dim=1, dtype=wide)


def _product(mass: Tensor, log_p: Tensor) -> Tensor:
    """mass · log p, 0 where the mass is 0 even if log p is −∞."""
    return mass * log_p.masked_fill((mass == 0) & (log_p == -math.inf), 0)


def _of_label(values: Tensor, labels: Tensor) -> Tensor:
    return values.gather(1, labels[:, None]).squeeze(1)


class FocalLoss(nn.Module):
    """−(1 − p_y)^γ log p_y (Lin et al., 2017, ICCV; for calibration Mukhoti et al., 2020).

    Raises ValueError unless γ is a number >= 0.
    """

    def __init__(self, gamma: float):
        super().__init__()
        _require(_is_number(gamma) and gamma >= 0, "gamma", gamma, "a number >= 0")
        self.gamma = float(gamma)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        log_p = _of_label(_log_softmax(logits), labels)
        # 1 − p without cancellation; the power's slope is infinite at 0 for γ < 1.
        missing = -torch.expm1(log_p)
        floor = torch.finfo(missing.dtype).tiny
        return -(missing.clamp(min=floor) ** self.gamma * log_p).mean()


class MaxSup(nn.Module):
    """Cross entropy + weight · (max_k z_k − mean_k z_k) (Zhou et al., 2025, arXiv:2502.15798).

    With the true class's logit in the place of the largest it would be include-true label
    smoothing with ε = weight. Raises ValueError unless the weight is a number >= 0.
    """

    def __init__(self, weight: float):
        super().__init__()
        _require(_is_number(weight) and weight >= 0, "weight", weight, "a number >= 0")
        self.weight = float(weight)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        log_p = _log_softmax(logits)
        cross_entropy = -_of_label(log_p, labels).mean()
        if self.weight == 0:  # the penalty is infinite if a logit is −∞
            return cross_entropy
        # Logits but for a constant, which the difference loses.
        return self.weight * (log_p.amax(1) - log_p.mean(1)).mean() + cross_entropy


class GeneralizedCrossEntropy(nn.Module):
    """(1 − p_y^q)/q (Zhang & Sabuncu, 2018, NeurIPS): cross entropy for q → 0, 1 − p_y for q = 1.

    Raises ValueError unless q is a number in (0, 1].
    """

    def __init__(self, q: float):
        super().__init__()
        _require(_is_number(q) and 0 < q <= 1, "q", q, "a number in (0, 1]")
        self.q = float(q)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        log_p = _of_label(_log_softmax(logits), labels)
        return -torch.expm1(self.q * log_p).mean() / self.q


class ForwardCorrection(nn.Module):
    """−log (Tᵀp)_label (Patrini et al., 2017, CVPR), T[i, j] = P(labelled j | class i).

    transition: float64 (C, C), each row a distribution. Raises ValueError if it is not.
    """

    log_columns: Tensor

    def __init__(self, transition: Tensor):
        super().__init__()
        # Row j is log T[·, j]: one row is read a sample.
        self.register_buffer("log_columns", _checked(transition).log().T.contiguous())

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        log_p = _log_softmax(logits)
        # N·C sums in the logs, where no p underflows; Tᵀp would be N·C² products, less exact.
        return -(log_p + self.log_columns[labels].to(log_p.dtype)).logsumexp(1).mean()


class BackwardCorrection(nn.Module):
    """Σ_j T⁻¹[label, j] · (−log p_j) (Patrini et al., 2017, CVPR).

    Its mean over the noisy labels of a sample is the cross entropy with the true one.

    transition: as in `ForwardCorrection`, with a condition number below 1e8. Raises ValueError if
        it is not.
    """

    inverse: Tensor

    def __init__(self, transition: Tensor):
        super().__init__()
        transition = _checked(transition)
        condition = torch.linalg.cond(transition).item()
        name, want = "condition number of transition", f"below {_WORST_CONDITION:g}"
        _require(condition < _WORST_CONDITION, name, condition, want)
        self.register_buffer("inverse", torch.linalg.inv(transition))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        log_p = _log_softmax(logits)
        return -_product(self.inverse[labels].to(log_p.dtype), log_p).sum(1).mean()


class GeneralizedLabelSmoothing(nn.Module):
    """Label smoothing with any ε <= 1, negative ones too (Wei et al., 2022, ICML).

    −t log p_y − u Σ_{k≠y} log p_k, where t is 1 − ε and u is ε/(C−1) for "exclude-true", and t is
    1 − ε + ε/C and u is ε/C for "include-true". The buffer `epsilon`, float32 (), is read at each
    call and may be changed in between. Raises ValueError for an ε or a convention out of range.
    """

    epsilon: Tensor

    def __init__(self, epsilon: float, convention: str):
        super().__init__()
        _require(_is_number(epsilon) and epsilon <= 1, "epsilon", epsilon, "a number <= 1")
        choices = f"one of {', '.join(map(repr, _CONVENTIONS))}"
        _require(convention in _CONVENTIONS, "convention", convention, choices)
        self.convention = convention
        self.register_buffer("epsilon", torch.tensor(float(epsilon), dtype=torch.float32))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        log_p = _log_softmax(logits)
        classes = logits.shape[1]
        epsilon = self.epsilon.to(log_p.dtype)
        on_other = epsilon / (classes - 1 if self.convention == "exclude-true" else classes)
        on_true = 1 - epsilon if self.convention == "exclude-true" else 1 - epsilon + on_other
        others = log_p.scatter(1, labels[:, None], 0)
        loss = _product(on_true, _of_label(log_p, labels)) + _product(on_other, others).sum(1)
        return -loss.mean()


def inverse_frequency(counts: Sequence[int]) -> Tensor:
    """Class weights N/(C·n_k), float32 (C,), for C classes of n_k training images, N in all: their
    mean over the training images is 1."""
    images = torch.tensor(counts, dtype=torch.float64)
    return (images.sum() / (len(images) * images)).float()


class SampleWeighted(nn.Module):
    """The mean over samples of w_label times their loss, so that class weights do not act on the
    smoothed part of the targets.

    criterion: its loss of every sample, (N,). weights: float (C,).
    """

    weights: Tensor

    def __init__(self, criterion: nn.Module, weights: Tensor):
        super().__init__()
        self.criterion = criterion
        self.register_buffer("weights", weights)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        loss: Tensor = self.criterion(logits, labels)
        weights = self.weights[labels].to(loss.dtype)
        return (weights * loss.masked_fill(weights == 0, 0)).mean()


class Distillation(nn.Module):
    """T² · H(q, softmax(z/T)), the teacher's part of Hinton et al. (2015, arXiv:1503.02531): q,
    float (N, C), are its probabilities at the same temperature T.

    Raises ValueError unless T is a number > 0.
    """

    def __init__(self, temperature: float):
        super().__init__()
        fits = _is_number(temperature) and temperature > 0
        _require(fits, "temperature", temperature, "a number > 0")
        self.temperature = float(temperature)

    def forward(self, logits: Tensor, probabilities: Tensor) -> Tensor:
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        log_p = _log_softmax(wide / self.temperature)
        return -(self.temperature**2) * _product(probabilities.to(log_p.dtype), log_p).sum(1).mean()
