"""The loops that people use, each of its own library's public parts, on our network and recipe.

- ``torchvision``: the style of torchvision's reference training: a `DataLoader` whose workers
  transform one image at a time (v2 transforms), `CrossEntropyLoss`, float32 or AMP.
- ``popular``: the style of the much copied CIFAR-100 repositories: PIL images, v1 transforms,
  batch 128 (the peak learning rate follows in proportion), float32, the loss read at each step.
- ``timm``: its loader with the prefetcher (uint8 batches, scaled on the device), its loss and its
  optimiser; AMP and channels_last where the device multiplies bf16 fast.

All take crops after reflection padding by 4 and flips, SGD with Nesterov momentum, the same weight
decay on the same parameters and the same one-cycle schedule. Our networks scale their input
themselves, so no loop normalises. ε is our exclude-true one, converted.
"""

import functools
from collections.abc import Callable, Iterable

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as v1
from torchvision.transforms import v2

from lsce.losses import convert_epsilon
from lsce.training import networks, precision
from lsce.training.spec import Recipe
from lsce.training.step import one_cycle, parameter_groups

NUM_CLASSES = 100


class Images(Dataset):
    """uint8 images and labels, an item at a time, through `transform`."""

    def __init__(self, images: Tensor | np.ndarray, labels: Tensor, transform: Callable | None):
        self.images, self.labels, self.transform = images, labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        return self.transform(self.images[index]), self.labels[index]


class Loop:
    """A training loop: `epoch()` trains `network` for one, on `images` images; `close()` ends it.

    Raises ValueError if the loader has no full batch.
    """

    def __init__(
        self,
        loader: Iterable,
        criterion: nn.Module,
        *,
        network: str,
        epochs: int,
        recipe: Recipe,
        seed: int,
        device: torch.device,
        make_optimizer: Callable = functools.partial(torch.optim.SGD, nesterov=True),
        amp: torch.dtype | None = None,
        memory_format: torch.memory_format = torch.contiguous_format,
        read_loss: bool = False,
    ):
        if not len(loader):
            raise ValueError(f"fewer images than a batch of {recipe.batch_size}: nothing to train")
        self.images = len(loader) * recipe.batch_size
        torch.manual_seed(seed)
        torch.backends.cudnn.benchmark = True
        self.loader, self.device, self.recipe = loader, device, recipe
        self.amp, self.memory_format, self.read_loss = amp, memory_format, read_loss
        self.network = networks.build(network, NUM_CLASSES).to(device, memory_format=memory_format)
        self.criterion = criterion.to(device)
        self.optimizer = make_optimizer(
            parameter_groups(self.network, recipe.weight_decay),
            lr=recipe.peak_learning_rate,
            momentum=recipe.momentum,
        )
        steps = epochs * len(loader)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: one_cycle(step, steps, recipe.warmup_fraction)
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp == torch.float16)

    def epoch(self) -> None:
        self.network.train()
        for images, labels in self.loader:
            images = images.to(self.device, non_blocking=True, memory_format=self.memory_format)
            labels = labels.to(self.device, non_blocking=True)
            with torch.autocast(self.device.type, self.amp, enabled=self.amp is not None):
                loss = self.criterion(self.network(images), labels)
            self.optimizer.zero_grad()
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.schedule.step()
            if self.read_loss:
                loss.item()
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def close(self) -> None:
        """End the loader's workers, which the loader would keep for the next epoch."""
        self.loader = None


def _loader(dataset: Dataset, batch_size: int, workers: int, device: torch.device) -> DataLoader:
    return DataLoader(
        dataset,
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )


def _share(epsilon: float) -> float:
    return convert_epsilon(epsilon, NUM_CLASSES, to="include-true")


def _pil_transform(finish: Callable) -> v1.Compose:
    """Crop and flip of a PIL image, then `finish`."""
    crop = v1.RandomCrop(32, padding=4, padding_mode="reflect")
    return v1.Compose([Image.fromarray, crop, v1.RandomHorizontalFlip(), finish])


def torchvision_style(
    images: Tensor, labels: Tensor, *, epsilon: float, amp: bool, workers: int, recipe: Recipe,
    device: torch.device, **common,
) -> Loop:  # fmt: skip
    transform = v2.Compose(
        [
            v2.RandomCrop(32, padding=4, padding_mode="reflect"),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    half = torch.float16 if device.type == "cuda" else torch.bfloat16
    images = images.permute(0, 3, 1, 2).contiguous()
    return Loop(
        _loader(Images(images, labels, transform), recipe.batch_size, workers, device),
        nn.CrossEntropyLoss(label_smoothing=_share(epsilon)),
        amp=half if amp else None,
        recipe=recipe,
        device=device,
        **common,
    )


def popular_style(
    images: Tensor, labels: Tensor, *, epsilon: float, workers: int, recipe: Recipe,
    device: torch.device, **common,
) -> Loop:  # fmt: skip
    transform = _pil_transform(v1.ToTensor())
    rate = recipe.peak_learning_rate * 128 / recipe.batch_size
    recipe = recipe.model_copy(update={"batch_size": 128, "peak_learning_rate": rate})
    return Loop(
        _loader(Images(images.numpy(), labels, transform), recipe.batch_size, workers, device),
        nn.CrossEntropyLoss(label_smoothing=_share(epsilon)),
        recipe=recipe,
        device=device,
        read_loss=True,
        **common,
    )


def timm_style(
    images: Tensor, labels: Tensor, *, epsilon: float, workers: int, recipe: Recipe,
    device: torch.device, **common,
) -> Loop:  # fmt: skip
    import timm.data
    import timm.loss
    import timm.optim

    dataset = Images(images.numpy(), labels, None)
    loader = timm.data.create_loader(
        dataset,
        input_size=(3, 32, 32),
        batch_size=recipe.batch_size,
        is_training=True,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
        device=device,
    )
    # timm's own transform crops at random scales; this is the recipe's.
    dataset.transform = _pil_transform(timm.data.transforms.ToNumpy())
    fast = precision.of(common["network"], device) == "bf16"
    return Loop(
        loader,
        timm.loss.LabelSmoothingCrossEntropy(_share(epsilon)),
        make_optimizer=functools.partial(timm.optim.create_optimizer_v2, opt="sgd"),
        amp=torch.bfloat16 if fast else None,
        memory_format=torch.channels_last if fast else torch.contiguous_format,
        recipe=recipe,
        device=device,
        **common,
    )
