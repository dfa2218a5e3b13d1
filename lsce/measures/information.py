"""What logits say of single images, watched during training."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lsce.measures import features
from lsce.training.batches import Augmenter, evaluate
from lsce.training.networks import ImageClassifier
from lsce.training.train import Material

#: Müller et al. (2019) estimate the information from 600 images of two classes, 5 draws of each.
IMAGES, DRAWS = 300, 5


class Information:
    """`information_similar` and `information_unlike`, in nats, of two pairs of classes: see
    `lsce.measures.features.mutual_information`."""

    def __init__(self, images: Tensor, truth: Tensor, pairs: Mapping[str, tuple[int, int]]):
        self._pairs = {}
        for name, pair in pairs.items():
            chosen = torch.cat([(truth == k).nonzero().flatten()[:IMAGES] for k in pair])
            batches = Augmenter(images[chosen], truth[chosen], len(chosen), seed=0)
            self._pairs[name] = (*pair, batches)

    def after(self, network: ImageClassifier, row: dict[str, float]) -> dict[str, float]:
        measures = {}
        for name, (first, second, batches) in self._pairs.items():
            draws = [evaluate(network, batches.once())[0] for _ in range(DRAWS)]
            differences = torch.stack([z[:, first] - z[:, second] for z in draws], dim=1).cpu()
            finite = bool(differences.isfinite().all())
            value = features.mutual_information(differences) if finite else math.nan
            measures[f"information_{name}"] = value
        return measures


def monitor(material: Material, examples: Mapping[str, Sequence[str]]) -> Information:
    """Watches the first and the last of each three example classes."""
    names = material.seen.classes
    pairs = {name: (names.index(k[0]), names.index(k[-1])) for name, k in examples.items()}
    return Information(material.training.images, material.training.truth, pairs)
