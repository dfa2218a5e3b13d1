"""Try a network and a recipe for a CPU: validation accuracy after so many images, in core-minutes.

    python benchmarks/screen.py NETWORK --images 400000 [--early 0.5 24] [--rate 0.3] …

What was tried so, and why, is in SCREENING.md; each try is a line of recipes/screening.csv, which
this appends to. One thread, bfloat16, all 45,000 training images; nothing here reads the test
split. Two tries at a time, one a core, are what the times there were measured with.
"""

import argparse
import csv
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsce import data
from lsce.machine import provenance
from lsce.sweeps import workers
from lsce.training.batches import Augmenter, to_float
from lsce.training.networks import ConvBN, PooledPadShortcut, Whitening
from lsce.training.spec import Recipe
from lsce.training.step import learning_rate, parameter_groups, resolution, scaled

RESULTS = Path(__file__).parent / "recipes" / "screening.csv"

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "silu": F.silu}


class Block(nn.Module):
    """A basic residual block with any activation."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: str):
        super().__init__()
        self.first = ConvBN(inputs, outputs, 3, stride, relu=False)
        self.second = ConvBN(outputs, outputs, 3, relu=False)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else PooledPadShortcut(inputs, outputs, stride)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        residual = self.second(self.activation(self.first(x)))
        return self.activation(residual + self.shortcut(x))


class Group(nn.Module):
    """A convolution, a max pool and a residual pair, as in the speedruns."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.MaxPool2d(2),
            nn.BatchNorm2d(outputs), nn.ReLU(),
        )  # fmt: skip
        self.pair = nn.Sequential(ConvBN(outputs, outputs, 3), ConvBN(outputs, outputs, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return x + self.pair(x)


class Network(nn.Module):
    def __init__(self, name: str, activation: str, head: str):
        super().__init__()
        (kernel, stride, width, *whitened), *blocks = NETWORKS[name]
        stem = Whitening(width, kernel, stride) if whitened else ConvBN(3, width, kernel, stride)
        layers, self.head = [stem], head
        for block in blocks:
            if len(block) == 1:
                layers.append(Group(width, *block))
            else:
                layers.append(Block(width, *block, activation))
            width = block[0]
        self.body, self.classifier = nn.Sequential(*layers), nn.Linear(width, 100)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        maps = self.body((images - 0.5) * 4).float()
        features = maps.mean((2, 3))
        if self.head == "both":
            features = features + maps.amax((2, 3))
        with torch.autocast("cpu", enabled=False):
            return self.classifier(features)


#: Stem: kernel, stride, channels, and whether it is whitened. Blocks: channels and stride; a number
#: alone is a `Group`.
NETWORKS = {
    "A": ((4, 2, 32), (64, 1), (128, 2), (256, 2)),
    "B": ((6, 4, 64), (128, 1), (256, 2)),
    "C": ((4, 2, 48), (96, 1), (192, 2), (384, 2)),
    "F": ((3, 1, 32), (64, 2), (128, 2), (256, 2)),
    "H": ((4, 2, 32), (64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1)),
    "Q": ((4, 2, 96, True), (128,), (384,)),
    "W": ((4, 2, 64, True), (64, 1), (128, 2), (256, 2)),
}


def try_one(given: argparse.Namespace) -> dict[str, object]:
    torch.manual_seed(given.seed)
    dataset = data.decoded("cifar-100")
    network = Network(given.network, given.activation, given.head)
    network = network.to(memory_format=torch.channels_last)
    for module in network.modules():
        if isinstance(module, Whitening):
            module.fit((to_float(dataset.train.images[::9]) - 0.5) * 4)
        if given.dirac and isinstance(module, Block | ConvBN):
            for layer in module.children():
                if isinstance(layer, nn.Conv2d) and layer.out_channels >= layer.in_channels > 3:
                    nn.init.dirac_(layer.weight.data[: layer.in_channels])
    early = None if given.early is None else (given.early[0], int(given.early[1]))
    recipe = Recipe(
        batch_size=given.batch, peak_learning_rate=given.rate, weight_decay=given.decay,
        early_resolution=early,
    )  # fmt: skip
    batches = Augmenter(
        dataset.train.images, dataset.train.labels, given.batch, given.seed, not given.plain
    )
    minutes = train(network, recipe, batches, given.images // given.batch, given.epsilon) / 60
    network.eval()
    validation = measured(network, dataset.validation.images, dataset.validation.labels)
    training = measured(network, dataset.train.images[::5], dataset.train.labels[::5])
    return {
        "core_minutes": round(minutes, 2),
        "validation_accuracy": round(validation[0], 4),
        "validation_nll": round(validation[1], 4),
        "train_accuracy": round(training[0], 4),
    }


def train(network: nn.Module, recipe: Recipe, batches: Augmenter, steps: int, epsilon: float):
    """Seconds of processor time that so many steps take."""
    groups = parameter_groups(network, recipe.weight_decay)
    optimizer = torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum, nesterov=True, fused=True)
    start = time.thread_time()
    for step, (images, labels) in enumerate(itertools.islice(endless(batches), steps)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step, steps)
        if (pixels := resolution(recipe, step, steps, batches.size)) != images.shape[-1]:
            images = scaled(images, pixels)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(images)
        optimizer.zero_grad()
        F.cross_entropy(logits, labels, label_smoothing=epsilon).backward()
        optimizer.step()
    return time.thread_time() - start


def endless(batches: Augmenter) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from batches.epoch()


@torch.inference_mode()
def measured(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Accuracy and NLL."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = torch.cat([network(to_float(part)) for part in images.split(500)])
    right = (logits.argmax(1) == labels).float().mean().item()
    return right, F.cross_entropy(logits, labels).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--images", type=int, required=True, help="seen in all, at any size")
    parser.add_argument("--early", type=float, nargs=2, metavar=("SHARE", "PIXELS"))
    parser.add_argument("--rate", type=float, default=0.3)
    parser.add_argument("--decay", type=float, default=5e-4)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--epsilon", type=float, default=0.0, help="as in PyTorch, of all classes")
    parser.add_argument("--activation", default="relu", choices=ACTIVATIONS)
    parser.add_argument("--head", default="mean", choices=["mean", "both"])
    parser.add_argument("--dirac", action="store_true", help="convolutions begin as the identity")
    parser.add_argument("--plain", action="store_true", help="without augmentation")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    workers.keep_freed_memory()
    row = vars(given) | try_one(given) | {"device": provenance.device_name("cpu")}
    new = not RESULTS.is_file()
    with RESULTS.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, row)
        if new:
            writer.writeheader()
        writer.writerow(row)
    print(row)


if __name__ == "__main__":
    main()
