"""Networks for small images: ResNets and small Inceptions.

A network maps images, float (N, 3, H, W) in [0, 1], to logits, float32 (N, C); it scales its input
itself. ``network.features(images)`` are the penultimate features, float32 (N, D), and
``network.classifier`` is the last linear layer, computed in float32 under autocast, too, so that
logits are never rounded to 8 bits of mantissa.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode


class ImageClassifier(nn.Module):
    """A body that maps scaled images to feature maps, mean pooling, and a linear classifier."""

    #: What it is trained and evaluated in, see `lsce.training.precision`: "bf16" or "float32".
    precision = "float32"

    def __init__(self, body: nn.Module, width: int, num_classes: int):
        super().__init__()
        self.body = body
        self.classifier = nn.Linear(width, num_classes)
        for module in self.body.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def fit_whitening(self, images: Tensor) -> None:
        """Set whitening layers, if there are any, from training images, float (N, 3, H, W)."""
        for module in self.body.modules():
            if isinstance(module, Whitening):
                module.fit(_scaled(images))

    def features(self, images: Tensor) -> Tensor:
        return self._maps(images).mean(dim=(2, 3))

    def forward(self, images: Tensor, local: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Logits; with `local` also those of each position of the last feature map, float32
        (N, C, H, W), through which no gradient flows."""
        if not local:
            return self._logits(self.features(images))
        maps = self._maps(images)
        with torch.no_grad():
            everywhere = self._logits(maps.movedim(1, -1)).movedim(-1, 1)
        return self._logits(maps.mean(dim=(2, 3))), everywhere

    def _maps(self, images: Tensor) -> Tensor:
        maps: Tensor = self.body(_scaled(images))
        return maps.to(self.classifier.weight.dtype)

    def _logits(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            logits: Tensor = self.classifier(features)
        return logits


def _scaled(images: Tensor) -> Tensor:
    return (images - 0.5).mul_(4)


class Whitening(nn.Module):
    """A fixed convolution after which the channels are uncorrelated and of equal variance.

    Its filters are the first principal components of the images' patches over their standard
    deviations, and their negatives (Page 2018, "How to train your ResNet"; Jordan 2024,
    arXiv:2404.00498). They are drawn at random until `fit` sets them.
    """

    #: Added to a component's variance, of images in [−2, 2].
    SMALLEST = 0.01

    weight: Tensor

    def __init__(self, filters: int, kernel: int, stride: int):
        super().__init__()
        self.outputs, self.stride, self.padding = filters, stride, (kernel - stride + 1) // 2
        self.register_buffer("weight", torch.randn(filters, 3, kernel, kernel) / kernel)

    def fit(self, images: Tensor) -> None:
        """Set the filters from images, float (N, 3, H, W)."""
        filters, _, kernel, _ = self.weight.shape
        patches = F.unfold(images.cpu().double(), kernel, stride=self.stride)
        variances, components = torch.linalg.eigh(patches.transpose(1, 2).flatten(0, 1).T.cov())
        first = (components / (variances + self.SMALLEST).sqrt()).T.flip(0)[: filters // 2]
        self.weight.copy_(torch.cat([first, -first]).view_as(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, stride=self.stride, padding=self.padding)


class ConvBN(nn.Sequential):
    """Convolution without bias, batch normalisation and, unless `relu` is false, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, relu: bool = True):
        padding = (kernel - stride + 1) // 2
        convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        activation = [nn.ReLU(inplace=True)] if relu else []
        super().__init__(convolution, nn.BatchNorm2d(outputs), *activation)
        self.outputs = outputs


class PadShortcut(nn.Module):
    """He et al.'s shortcut A: subsample, then pad the new channels with zeros (no parameters)."""

    def __init__(self, inputs: int, outputs: int, stride: int, pooled: bool = False):
        super().__init__()
        self.extra, self.stride, self.pooled = outputs - inputs, stride, pooled

    def forward(self, x: Tensor) -> Tensor:
        step = self.stride
        x = F.avg_pool2d(x, step) if self.pooled else x[:, :, ::step, ::step]
        return F.pad(x, (0, 0, 0, 0, 0, self.extra))


#: Makes a shortcut from input channels, output channels and `stride`.
Shortcut = Callable[..., nn.Module]

#: Shortcut A with mean pooling, so that no position is thrown away.
PooledPadShortcut = functools.partial(PadShortcut, pooled=True)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (He et al. 2016)."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, shortcut: Shortcut = PooledPadShortcut
    ):
        super().__init__()
        self.outputs = outputs
        self.residual = nn.Sequential(
            ConvBN(inputs, outputs, 3, stride), ConvBN(outputs, outputs, 3, relu=False)
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else shortcut(inputs, outputs, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.residual(x) + self.shortcut(x), inplace=True)


class Inception(nn.Module):
    """Convolutions of 1×1 and 3×3, each with so many channels, side by side; or, for one number of
    channels, a 3×3 convolution and max pooling, both with stride 2."""

    def __init__(self, inputs: int, *channels: int):
        super().__init__()
        if len(channels) == 1:
            branches = [ConvBN(inputs, *channels, 3, 2), nn.MaxPool2d(3, stride=2, padding=1)]
            self.outputs = inputs + channels[0]
        else:
            branches = [ConvBN(inputs, channels[0], 1), ConvBN(inputs, channels[1], 3)]
            self.outputs = sum(channels)
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


def _stack(
    num_classes: int,
    stem: nn.Module,
    shapes: Sequence[tuple[int, ...]],
    block: Callable[..., nn.Module] = BasicBlock,
    **options: Any,
) -> ImageClassifier:
    """A stem, then a block of each shape: what `block` takes between its inputs and its options."""
    layers: list[Any] = [stem]
    for shape in shapes:
        layers.append(block(layers[-1].outputs, *shape, **options))
    return ImageClassifier(nn.Sequential(*layers), layers[-1].outputs, num_classes)


#: He et al.'s shortcut B: a 1×1 convolution.
_projection = functools.partial(ConvBN, kernel=1, relu=False)

_RESNET18 = [(64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)]
_RESNET56 = [(16, 1)] * 9 + [(32, 2)] + [(32, 1)] * 8 + [(64, 2)] + [(64, 1)] * 8
_INCEPTION = [(32, 32), (32, 48), (80,), (112, 48), (96, 64), (80, 80), (48, 96), (96,),
              (176, 160), (176, 160)]  # fmt: skip
_INCEPTION_TINY = [(16, 32), (48,), (32, 64), (64,), (64, 96)]

#: Name → function of the number of classes.
NETWORKS: dict[str, Callable[[int], ImageClassifier]] = {
    # Small enough for a CPU: maps of 8×8 after the stem, 2×2 at the end (`benchmarks/NOTES.md`).
    "resnet6": lambda k: _stack(k, ConvBN(3, 32, 6, 4), [(64, 2), (128, 2)]),
    "resnet6-half": lambda k: _stack(k, ConvBN(3, 16, 6, 4), [(32, 2), (64, 2)]),
    # What a CPU trains in minutes and the field would look at: maps of 16×16 after a fixed stem,
    # 4×4 at the end (`benchmarks/SCREENING.md`).
    "resnet8": lambda k: _stack(k, Whitening(64, 4, 2), [(64, 1), (128, 2), (256, 2)]),
    "resnet8-half": lambda k: _stack(k, Whitening(32, 4, 2), [(32, 1), (64, 2), (128, 2)]),
    # He et al. 2016, the usual CIFAR form: 3×3 stem, no max pooling.
    "resnet18": lambda k: _stack(k, ConvBN(3, 64, 3), _RESNET18, shortcut=_projection),
    # He et al. 2016, section 4.2: 6n + 2 layers with n = 9, shortcut A.
    "resnet56": lambda k: _stack(k, ConvBN(3, 16, 3), _RESNET56, shortcut=PadShortcut),
    # Zhang et al. 2017, "Understanding deep learning requires rethinking generalization", fig. 3,
    # on whole 32×32 images.
    "inception-small": lambda k: _stack(k, ConvBN(3, 96, 3), _INCEPTION, Inception),
    # The same modules where `resnet6` works, on maps of 8×8 to 2×2, at about its cost.
    "inception-tiny": lambda k: _stack(k, ConvBN(3, 32, 6, 4), _INCEPTION_TINY, Inception),
}


def known(name: str) -> str:
    """The name of a network; ValueError if it is not one of `NETWORKS`."""
    if name not in NETWORKS:
        raise ValueError(f"network is {name!r}; it must be one of {', '.join(NETWORKS)}")
    return name


def build(name: str, num_classes: int) -> ImageClassifier:
    """A network by its name, initialised from PyTorch's global generator."""
    return NETWORKS[known(name)](num_classes)


@functools.cache
def multiply_adds(name: str, num_classes: int, pixels: int) -> int:
    """Multiplications, each with its addition, for one image of this height and width."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = build(name, num_classes).eval()
        network.features(torch.empty(1, 3, pixels, pixels))
    return int(counter.get_total_flops()) // 2 + network.classifier.weight.numel()  # it counts both


@functools.cache
def parameters(name: str, num_classes: int) -> int:
    """Parameters of a network."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(name, num_classes).parameters())


@functools.cache
def width(name: str) -> int:
    """Penultimate features of a network."""
    with torch.device("meta"):
        return build(name, 2).classifier.in_features
