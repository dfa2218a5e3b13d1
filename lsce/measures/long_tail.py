"""Long tails: class weights, and what becomes of frequent and of rare classes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lsce.losses.alternatives import inverse_frequency

#: Classes with more training images than the first are many-shot, with fewer than the second
#: few-shot (Liu et al. 2019, CVPR, arXiv:1904.05160).
MANY, FEW = 100, 20

#: The share of the classes that are called the rarest, whatever their number of images.
RAREST = 0.2


def optimal_elsewhere(counts: Sequence[int], epsilon: float) -> float:
    """The probability in [0, 1] that class weights and smoothing at `epsilon` ask for of the rarest
    fifth of the classes, all together, on images of the others, on average over these classes.

    A sample of class y adds −Σ_k w_k q_k log p_k to the loss, which is least at p_k ∝ w_k q_k, with
    the weights of `inverse_frequency` and the targets q of "exclude-true".
    """
    classes, rare = len(counts), _rarest(counts)
    targets = torch.full((classes, classes), epsilon / (classes - 1), dtype=torch.float64)
    optimum = (inverse_frequency(counts).double() * targets.fill_diagonal_(1 - epsilon))[~rare]
    return (optimum[:, rare].sum(1) / optimum.sum(1)).mean().item()


def groups(counts: Sequence[int]) -> dict[str, Tensor]:
    """Which classes are many-, medium- and few-shot, and the rarest fifth, which overlaps with
    these: bool (C,) by "many", "medium", "few" and "rare". counts: training images of each class.
    """
    images = torch.tensor(counts)
    many, few = images > MANY, images < FEW
    return {"many": many, "medium": ~(many | few), "few": few, "rare": _rarest(counts)}


def _rarest(counts: Sequence[int]) -> Tensor:
    rare = torch.zeros(len(counts), dtype=torch.bool)
    rare[torch.tensor(counts).argsort(stable=True)[: round(RAREST * len(counts))]] = True
    return rare


def measure(logits: Tensor, labels: Tensor, counts: Sequence[int]) -> dict[str, float]:
    """What a classifier does with classes of few and of many training images.

    logits (N, C), labels int64 (N,), of test images. counts: training images of each class. All in
    [0, 1]: `many_accuracy`, `medium_accuracy` and `few_accuracy` over the images of these classes,
    left out where there is no such class; and for the rarest fifth of the classes `rare_accuracy`,
    `rare_predicted`, the share of all images that are predicted to be of one, and `rare_elsewhere`,
    the mean probability of all of them together on images of the other classes.
    """
    predicted, of_groups = logits.argmax(1), groups(counts)
    right, rare = (predicted == labels).double(), of_groups["rare"]
    accuracies = {
        f"{name}_accuracy": right[classes[labels]].mean().item()
        for name, classes in of_groups.items()
        if classes[labels].any()
    }
    probabilities = logits.double().softmax(1)[:, rare].sum(1)
    return accuracies | {
        "rare_predicted": rare[predicted].double().mean().item(),
        "rare_elsewhere": probabilities[~rare[labels]].mean().item(),
    }
