"""Images on their way through a network: augmented batches to train on, plain ones to evaluate."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lsce.training import networks
from lsce.training.precision import autocast

PADDING = 4
EVALUATION_BATCH = 500


def to_float(images: Tensor) -> Tensor:
    """uint8 (N, P, P, 3) to float32 (N, 3, P, P) in [0, 1], channels last in memory."""
    return images.permute(0, 3, 1, 2).float().div_(255)


class Augmenter:
    """Draws an epoch's shuffled batches, randomly cropped and flipped unless `augment` is false.

    images: uint8 (N, P, P, 3); labels: int64 (N,). The incomplete last batch is dropped.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, batch_size: int, seed: int, augment: bool = True
    ):
        self.pixels, self.labels = images.reshape(-1, 3), labels
        self.batch_size = min(batch_size, len(images))
        self.generator = torch.Generator().manual_seed(seed)
        self.augment = augment
        self.size = size = images.shape[1]
        padded = torch.arange(-PADDING, size + PADDING)
        #: Padded coordinate → image coordinate, mirrored at the border.
        self.mirror = (size - 1 - (size - 1 - padded.abs()).abs()).to(images.device)
        self.window = torch.arange(size, device=images.device)

    def steps(self) -> int:
        """Batches an epoch."""
        return len(self.labels) // self.batch_size

    def epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of images, float32 (B, 3, P, P) in [0, 1], and labels, int64 (B,)."""
        order = torch.randperm(len(self.labels), generator=self.generator).to(self.labels.device)
        shifts, flips = self._draws()
        for start in range(0, self.steps() * self.batch_size, self.batch_size):
            batch = slice(start, start + self.batch_size)
            chosen = order[batch]
            yield self._crop(chosen, shifts[:, batch], flips[batch]), self.labels[chosen]

    def once(self) -> Tensor:
        """Every image in its order, randomly cropped and flipped: float32 (N, 3, P, P)."""
        return self._crop(torch.arange(len(self.labels), device=self.labels.device), *self._draws())

    def _draws(self) -> tuple[Tensor, Tensor]:
        n, generator, device = len(self.labels), self.generator, self.labels.device
        if not self.augment:
            unmoved = torch.full((2, n), PADDING, device=device)
            return unmoved, torch.zeros(n, dtype=torch.bool, device=device)
        shifts = torch.randint(0, 2 * PADDING + 1, (2, n), generator=generator).to(device)
        return shifts, (torch.rand(n, generator=generator) < 0.5).to(device)

    def _crop(self, chosen: Tensor, shifts: Tensor, flips: Tensor) -> Tensor:
        size = self.size
        rows, columns = self.mirror[shifts[:, :, None] + self.window]
        columns = torch.where(flips[:, None], columns.flip(1), columns)
        # A third of the time that indexing by image, row and column takes on a CPU.
        pixels = size * (size * chosen[:, None, None] + rows[:, :, None]) + columns[:, None, :]
        return to_float(self.pixels.index_select(0, pixels.view(-1)).view(-1, size, size, 3))


def evaluate(network: networks.ImageClassifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, float32 (N, C), and penultimate features, float32 (N, D), in evaluation mode.

    images: uint8 (N, P, P, 3), or float32 (N, 3, P, P) in [0, 1].
    """
    logits, features = [], []
    with evaluating(network), torch.inference_mode():
        for batch in images.split(EVALUATION_BATCH):
            batch = to_float(batch) if batch.dtype == torch.uint8 else batch
            with autocast(network, images.device):
                features.append(network.features(batch))
            logits.append(network.classifier(features[-1]))
    return torch.cat(logits), torch.cat(features)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; every part of the network leaves it in the mode it came in."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
