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
    """What class weights and smoothing ask for: the probability in [0, 1] of the rarest fifth of
    the classes, all together, on images of the others, on average over these classes.

    A sample of class y adds −Σ_k w_k q_k log p_k to the loss, which is least at p_k ∝ w_k q_k, with
    the weights of `inverse_frequency` and the targets q of "exclude-true".
    """
    weights, rare = inverse_frequency(counts).double(), _rarest(counts)
    classes = len(counts)
    targets = torch.full((classes, classes), epsilon / (classes - 1), dtype=torch.float64)
    targets.fill_diagonal_(1 - epsilon)
    wanted = weights * targets
    return (wanted[~rare][:, rare].sum(1) / wanted[~rare].sum(1)).mean().item()


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
    images = torch.tensor(counts)
    right = (logits.argmax(1) == labels).double()
    groups = {"many": images > MANY, "few": images < FEW}
    groups["medium"] = ~(groups["many"] | groups["few"])
    groups["rare"] = rare = _rarest(counts)
    found = {
        f"{name}_accuracy": right[classes[labels]].mean().item()
        for name, classes in groups.items()
        if classes[labels].any()
    }
    probabilities = logits.double().softmax(1)[:, rare].sum(1)
    found["rare_predicted"] = rare[logits.argmax(1)].double().mean().item()
    found["rare_elsewhere"] = probabilities[~rare[labels]].mean().item()
    return found
