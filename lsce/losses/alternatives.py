"""Losses that label smoothing is compared with.

Each is called with logits, float (N, C), and labels, int64 (N,), and returns the mean over the
batch, float64 for float64 logits and else float32. Values of labels are not checked: the host
never waits for the device. A parameter out of its range raises ValueError. What may change between
calls is a buffer, so that a captured step reads it anew.
"""

import math
import numbers
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
    arXiv:2502.15798). With z_y for the maximum it is include-true label smoothing, ε = weight. The
    buffer `weight`, float64 (), may be changed between calls."""

    def __init__(self, weight: float):
        super().__init__()
        weight = _number("weight", weight, "a number >= 0", lambda weight: weight >= 0)
        self.weight = nn.Buffer(torch.tensor(weight, dtype=torch.float64))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        log_p = log_softmax(logits)
        cross_entropy = -_of_label(log_p, labels).mean()
        # Logits but for a constant, which the difference loses; −∞ if a logit is.
        below = (log_p.mean(1) - log_p.amax(1)).mean()
        return cross_entropy - product(self.weight.to(log_p.dtype), below)


class LogitPenalty(nn.Module):
    """Cross entropy + β/2 · Σ_k z_k², β ≥ 0 (Dauphin & Cubuk, 2021, ICLR; Kornblith et al., 2021,
    arXiv:2010.16402, whose released code has the half)."""

    def __init__(self, beta: float):
        super().__init__()
        self.beta = _number("beta", beta, "a number >= 0", lambda beta: beta >= 0)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        cross_entropy = -_of_label(log_softmax(logits), labels).mean()
        if self.beta == 0:  # the penalty is infinite if a logit is −∞
            return cross_entropy
        squares = logits.to(compute_dtype(logits)).square().sum(1)
        return self.beta / 2 * squares.mean() + cross_entropy


class MbLS(nn.Module):
    """Margin-based label smoothing: cross entropy + weight · max(0, max_j z_j − z_k − margin),
    margin ≥ 0 and weight ≥ 0 (Liu et al., 2022, CVPR, arXiv:2111.15430). The second term is the
    mean over samples and classes k, as in the released code, where weight is 0.1."""

    def __init__(self, margin: float, weight: float = 0.1):
        super().__init__()
        self.margin = _number("margin", margin, "a number >= 0", lambda margin: margin >= 0)
        self.weight = _number("weight", weight, "a number >= 0", lambda weight: weight >= 0)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        cross_entropy = -_of_label(log_softmax(logits), labels).mean()
        if self.weight == 0:  # the gap is infinite if a logit is −∞
            return cross_entropy
        logits = logits.to(compute_dtype(logits))
        gaps = logits.amax(1, keepdim=True) - logits
        return self.weight * (gaps - self.margin).relu().mean() + cross_entropy


class OnlineLabelSmoothing(nn.Module):
    """α · cross entropy + (1 − α) · cross entropy with the soft label of the class, 0 < α ≤ 1
    (Zhang et al., 2021, TIP, arXiv:2011.12562; there α is 0.5).

    In training mode each call adds up the probabilities of the samples that are classified rightly,
    by class; `next_epoch` makes their means the soft labels, the buffer float64 (C, C) whose row is
    the class. As in the released code, a class without such samples gets the uniform distribution,
    and before the first `next_epoch` all soft labels are 0. Raises ValueError if there are fewer
    than two classes.
    """

    def __init__(self, alpha: float, num_classes: int):
        super().__init__()
        self.alpha = _number("alpha", alpha, "a number in (0, 1]", lambda alpha: 0 < alpha <= 1)
        _require(num_classes >= 2, "num_classes", num_classes, "at least 2")
        self.soft_labels = nn.Buffer(torch.zeros(num_classes, num_classes, dtype=torch.float64))
        self.sums = nn.Buffer(torch.zeros_like(self.soft_labels))
        self.counts = nn.Buffer(torch.zeros(num_classes, 1, dtype=torch.float64))

    def next_epoch(self) -> None:
        """Take over the soft labels of the calls since the last time."""
        means = self.sums / self.counts
        self.soft_labels.copy_(torch.where(self.counts > 0, means, 1 / len(means)))
        self.sums.zero_()
        self.counts.zero_()

    @torch.no_grad()
    def _add(self, log_p: Tensor, labels: Tensor) -> None:
        classes = torch.arange(len(self.counts), device=labels.device)
        rightly = (classes[:, None] == labels) & (log_p.argmax(1) == labels)  # (C, N)
        # A product, as sums at indices have no fixed order on CUDA.
        self.sums.add_(rightly.double() @ log_p.double().exp())
        self.counts.add_(rightly.sum(1, keepdim=True))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        log_p = log_softmax(logits)
        if self.training:
            self._add(log_p, labels)
        mass = ((1 - self.alpha) * self.soft_labels)[labels].to(log_p.dtype)
        soft = product(mass, log_p).sum(1)
        return -(self.alpha * _of_label(log_p, labels) + soft).mean()


class ZipfLabelSmoothing(nn.Module):
    """Cross entropy + weight · KL(q ‖ p), weight ≥ 0, with q and p over the classes other than the
    true one (Liang et al., 2022, ECCV, arXiv:2207.12980; there weight is 0.1 on CIFAR-100).

    q_k is proportional to 1/rank of class k by votes: each position of the last feature map votes
    for the class that the classifier finds likeliest there; classes with equally many votes share
    their best rank, and the true class is left out once ranks are given. As in the released command
    for CIFAR-100, the map is first doubled in height and width by bilinear interpolation and no
    other layer votes. The loss is called with the logits at each position, too: float (N, C, H, W),
    through which no gradient flows.
    """

    def __init__(self, weight: float):
        super().__init__()
        self.weight = _number("weight", weight, "a number >= 0", lambda weight: weight >= 0)

    def forward(self, logits: Tensor, labels: Tensor, local_logits: Tensor) -> Tensor:
        cross_entropy = -_of_label(log_softmax(logits), labels).mean()
        if self.weight == 0:  # the divergence is infinite if a logit is −∞
            return cross_entropy
        log_p = log_softmax(logits.scatter(1, labels[:, None], -math.inf))
        q = (1 / _ranks_by_votes(local_logits.detach()).to(log_p.dtype)).scatter(
            1, labels[:, None], 0
        )
        q = q / q.sum(1, keepdim=True)
        divergence = (torch.xlogy(q, q) - product(q, log_p)).sum(1)
        return self.weight * divergence.mean() + cross_entropy


def _ranks_by_votes(local_logits: Tensor) -> Tensor:
    """Ranks of the classes from 1, int64 (N, C), of logits (N, C, H, W)."""
    doubled = F.interpolate(local_logits, scale_factor=2, mode="bilinear")
    winners = doubled.flatten(2).argmax(1)
    votes = torch.zeros_like(local_logits[:, :, 0, 0], dtype=torch.float32)
    fewer = -votes.scatter_add(1, winners, torch.ones_like(winners, dtype=torch.float32))
    return 1 + torch.searchsorted(fewer.sort(1).values, fewer)


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
