"""Label noise of known kind and rate, drawn once per seed."""

from collections.abc import Sequence

import numpy as np
import torch

KINDS = ("symmetric", "asymmetric")

#: Keeps the draws of one seed for noise apart from those for subsets of the images.
_STREAM = 2


def transition_matrix(kind: str, rate: float, superclass: Sequence[int]) -> torch.Tensor:
    """The probabilities T[i, j], float64 (K, K), that an image of class i is labelled j.

    kind: ``"symmetric"`` (Wei et al., ICML 2022, their code) gives each of the K - 1 other classes
    probability rate / (K - 1); ``"asymmetric"`` (Patrini et al., CVPR 2017) gives probability rate
    to the next class of the same superclass, cyclically in the order of the class indices. rate:
    probability in [0, 1] that a label is wrong. superclass: superclass of each of the K classes.

    Raises ValueError or TypeError for another kind, a rate outside [0, 1], fewer than two classes,
    and, if asymmetric, a superclass of one class.
    """
    _check(kind, rate, superclass)
    k = len(superclass)
    identity = torch.eye(k, dtype=torch.float64)
    if kind == "symmetric":
        return (1 - rate) * identity + rate / (k - 1) * (1 - identity)
    return (1 - rate) * identity + rate * identity[_next_in_superclass(superclass)]


def flip_labels(
    labels: torch.Tensor, kind: str, rate: float, seed: int, superclass: Sequence[int]
) -> torch.Tensor:
    """Labels with noise of `transition_matrix(kind, rate, superclass)`, new int64 (N,).

    labels: int64 (N,), true classes in [0, K). A label that is wrong at one rate is wrong in the
    same way at every higher rate of the same seed. Raises as `transition_matrix`, and for labels of
    another dtype, shape or range.
    """
    _check(kind, rate, superclass)
    k = len(superclass)
    _check_labels(labels, k)
    generator = _generator(seed)
    flipped = torch.from_numpy(generator.random(len(labels)) < rate)
    other = torch.from_numpy(np.floor(generator.random(len(labels)) * (k - 1))).long()
    symmetric = kind == "symmetric"
    wrong = other + (other >= labels) if symmetric else _next_in_superclass(superclass)[labels]
    return torch.where(flipped, wrong, labels)


def human_transition(counts: torch.Tensor) -> torch.Tensor:
    """The probabilities T[i, j], float64 (K, K), that people call an image of class i class j.

    counts: int64 (K, K), images of class i (rows) that people called j (columns), as in
    `Entry.human_counts`. T[i, j] is the share of class i's images that got label j: noise drawn so
    has the same transition matrix as the labels by people, which Wei et al. (2022, ICLR, arXiv
    2110.12088) compare with it, but forgets which images are easily mistaken. Raises ValueError for
    counts of another shape, below 0, or of a class without images.
    """
    images = counts.sum(dim=-1, keepdim=True)
    square = counts.ndim == 2 and counts.shape[0] == counts.shape[1]
    if not square or counts.min() < 0 or images.min() == 0:
        raise ValueError("counts must be a square of numbers from 0, none of its rows all 0")
    return counts.double() / images


def human_rate(counts: torch.Tensor) -> float:
    """The share of images that people called another class than their own; counts as in
    `human_transition`."""
    total = int(counts.sum())
    return (total - int(counts.diagonal().sum())) / total


def draw_labels(labels: torch.Tensor, transition: torch.Tensor, seed: int) -> torch.Tensor:
    """Labels with noise of any matrix, new int64 (N,).

    labels: int64 (N,), true classes in [0, K). transition: float64 (K, K), the probabilities
    T[i, j] that an image of class i is labelled j. Which labels are wrong is drawn by the same
    numbers as in `flip_labels`: of the images of a class those that the lower of two rates flips
    are among those that the higher one flips. Raises ValueError unless the rows of T are
    probabilities, and as `flip_labels` for the labels.
    """
    sums = transition.sum(1)
    if transition.min() < 0 or not torch.allclose(sums, torch.ones_like(sums)):
        raise ValueError("transition must hold probabilities, each of its rows in sum 1")
    _check_labels(labels, len(transition))
    # Summed up, a class's probabilities of the others divide the numbers below its rate among them.
    bounds = (transition - transition.diagonal().diag()).cumsum(1)
    drawn = torch.from_numpy(_generator(seed).random(len(labels)))
    wrong = drawn < bounds[labels, -1]
    noisy = labels.clone()
    reached = torch.searchsorted(bounds[labels[wrong]], drawn[wrong, None], right=True)
    noisy[wrong] = reached.squeeze(1)
    return noisy


def _generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, _STREAM]))


def _next_in_superclass(superclass: Sequence[int]) -> torch.Tensor:
    """int64 (K,): the class that follows each class cyclically inside its superclass."""
    following = torch.empty(len(superclass), dtype=torch.int64)
    for group in set(superclass):
        members = [k for k, s in enumerate(superclass) if s == group]
        following[members] = torch.tensor(members[1:] + members[:1])
    return following


def _check_labels(labels: torch.Tensor, k: int) -> None:
    if not isinstance(labels, torch.Tensor) or labels.dtype != torch.int64 or labels.ndim != 1:
        raise TypeError("labels must be an int64 tensor of shape (N,)")
    if len(labels) and not 0 <= labels.min() <= labels.max() < k:
        raise ValueError(f"labels must lie in [0, {k}), got {labels.min()} to {labels.max()}")


def _check(kind: str, rate: float, superclass: Sequence[int]) -> None:
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(map(repr, KINDS))}, got {kind!r}")
    if isinstance(rate, bool) or not isinstance(rate, (int, float)):
        raise TypeError(f"rate must be a number in [0, 1], got {rate!r}")
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must lie in [0, 1], got {rate!r}")
    if len(superclass) < 2:
        raise ValueError(f"superclass must name at least two classes, got {len(superclass)}")
    if kind == "asymmetric":
        alone = [s for s in set(superclass) if list(superclass).count(s) == 1]
        if alone:
            raise ValueError(f"superclass {alone[0]} holds one class, which has no next class")
