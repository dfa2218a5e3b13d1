"""What is measured after each epoch beside the validation values.

Nothing here draws from the run's random streams: a run with monitors is the run without.
"""

import math
from typing import Protocol

from torch import Tensor

from lsce.training.batches import evaluate
from lsce.training.networks import ImageClassifier

#: Wrongly labelled training images that are evaluated after each epoch, at most.
WRONG_SAMPLE = 2_000


class Monitor(Protocol):
    def after(self, network: ImageClassifier, row: dict[str, float]) -> dict[str, float]:
        """Called after each epoch with its row of the history: more columns for the row."""


class Best:
    """Keeps the weights of the epoch with the highest validation accuracy, the first of equals."""

    def __init__(self) -> None:
        self.epoch, self._accuracy = 0, -math.inf
        self._state: dict[str, Tensor] = {}

    def after(self, network: ImageClassifier, row: dict[str, float]) -> dict[str, float]:
        if row["validation_accuracy"] > self._accuracy:
            self.epoch, self._accuracy = int(row["epoch"]), row["validation_accuracy"]
            self._state = {name: value.clone() for name, value in network.state_dict().items()}
        return {}

    def restore(self, network: ImageClassifier) -> None:
        network.load_state_dict(self._state)


class Memorisation:
    """Shares of the wrongly labelled training images that the network, without augmentation, gives
    their wrong label (`memorised`) and their true one (`recovered`; Liu et al. 2020, fig. 1)."""

    def __init__(self, images: Tensor, labels: Tensor, truth: Tensor):
        wrong = (labels != truth).nonzero().flatten()
        step = max(1, math.ceil(len(wrong) / WRONG_SAMPLE))  # images are in the order of classes
        chosen = wrong[::step]
        self._images, self._labels, self._truth = images[chosen], labels[chosen], truth[chosen]

    def after(self, network: ImageClassifier, row: dict[str, float]) -> dict[str, float]:
        predicted = evaluate(network, self._images)[0].argmax(1)
        return {
            "memorised": (predicted == self._labels).double().mean().item(),
            "recovered": (predicted == self._truth).double().mean().item(),
        }
