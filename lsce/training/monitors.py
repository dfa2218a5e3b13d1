"""What is measured after each epoch beside the validation values, where a run asks for it.

Nothing here draws from the run's random streams: a run with monitors is the run without.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lsce.measures import features
from lsce.training.batches import Augmenter, evaluate
from lsce.training.networks import ImageClassifier

#: Wrongly labelled training images that are looked at after each epoch, at most.
WRONG_SAMPLE = 2_000

#: Müller et al. (2019) estimate the information from 600 images of two classes, 5 draws of each.
INFORMATION_IMAGES, INFORMATION_DRAWS = 300, 5


class Best:
    """Keeps the weights of the epoch with the highest validation accuracy, the first of equals."""

    def __init__(self) -> None:
        self.epoch, self._accuracy = 0, -math.inf
        self._state: dict[str, Tensor] = {}

    def after(self, network: ImageClassifier, row: dict[str, float]) -> dict[str, float]:
        if row["validation_accuracy"] > self._accuracy:
            self.epoch, self._accuracy = row["epoch"], row["validation_accuracy"]
            self._state = {name: value.clone() for name, value in network.state_dict().items()}
        return {}

    def restore(self, network: ImageClassifier) -> None:
        network.load_state_dict(self._state)


class Memorisation:
    """What a network says of training images whose labels are wrong.

    `memorised` and `recovered` are the shares that it gives the wrong and the true label, without
    augmentation (Liu et al. 2020, fig. 1).
    """

    def __init__(self, images: Tensor, labels: Tensor, truth: Tensor):
        wrong = (labels != truth).nonzero().flatten()
        step = max(1, math.ceil(len(wrong) / WRONG_SAMPLE))  # images are in the order of classes
        self._chosen = wrong[::step]
        self._images = images[self._chosen]
        self._labels, self._truth = labels[self._chosen], truth[self._chosen]

    def after(self, network: ImageClassifier, row: dict[str, float]) -> dict[str, float]:
        predicted = evaluate(network, self._images)[0].argmax(1)
        return {
            "memorised": (predicted == self._labels).double().mean().item(),
            "recovered": (predicted == self._truth).double().mean().item(),
        }


class Information:
    """Müller et al.'s information between image and logit difference, for two pairs of classes.

    `information_similar` and `information_unlike`, in nats: see
    `lsce.measures.features.mutual_information`.
    """

    def __init__(self, images: Tensor, truth: Tensor, pairs: dict[str, Sequence[int]]):
        self._pairs = {}
        for name, (first, second) in pairs.items():
            chosen = torch.cat(
                [(truth == k).nonzero().flatten()[:INFORMATION_IMAGES] for k in (first, second)]
            )
            batches = Augmenter(images[chosen], truth[chosen], len(chosen), seed=0)
            self._pairs[name] = (first, second, batches)

    def after(self, network: ImageClassifier, row: dict[str, float]) -> dict[str, float]:
        found = {}
        for name, (first, second, batches) in self._pairs.items():
            drawn = [evaluate(network, batches.once())[0] for _ in range(INFORMATION_DRAWS)]
            differences = torch.stack([z[:, first] - z[:, second] for z in drawn], dim=1).cpu()
            finite = bool(differences.isfinite().all())
            value = features.mutual_information(differences) if finite else math.nan
            found[f"information_{name}"] = value
        return found
