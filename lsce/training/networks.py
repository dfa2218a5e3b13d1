"""Networks for small images: the CIFAR ResNets and the small Inception.

Every network takes images as float (N, 3, H, W) in [0, 1] and returns logits as float32 (N, C).
`network.features(images)` returns the penultimate features as float32 (N, D), and
`network.classifier` is the last linear layer, so that ``classifier(features(x)) == network(x)``.
Input scaling is part of the network, and the last layer is computed in float32 under autocast,
so that logits are never rounded to 8 bits of mantissa.
"""

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode


class ImageClassifier(nn.Module):
    """A body that maps scaled images to feature maps, mean pooling, and a linear classifier."""

    #: What it is trained and evaluated in: "bf16" (autocast) or "float32", see
    #: `lsce.training.precision`.
    precision = "float32"

    def __init__(self, body: nn.Module, width: int, num_classes: int):
        super().__init__()
        self.body = body
        self.classifier = nn.Linear(width, num_classes)
        for module in self.body.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def fit_whitening(self, images: Tensor) -> None:
        """Set the fixed first layer, where there is one, from training images, float
        (N, 3, H, W) in [0, 1]."""
        for module in self.body.modules():
            if isinstance(module, Whitening):
                module.fit(_scaled(images))

    def features(self, images: Tensor) -> Tensor:
        """Penultimate features, float32 (N, D)."""
        maps: Tensor = self.body(_scaled(images))
        return maps.to(self.classifier.weight.dtype).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images)
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
        self.stride, self.padding = stride, (kernel - stride + 1) // 2
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
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, stride, (kernel - stride + 1) // 2, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        super().__init__(*layers, *([nn.ReLU(inplace=True)] if relu else []))
        self.outputs = outputs


class PadShortcut(nn.Module):
    """He et al.'s shortcut A: subsample, then pad the new channels with zeros (no parameters)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.extra, self.stride = outputs - inputs, stride

    def smaller(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.stride, :: self.stride]

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(self.smaller(x), (0, 0, 0, 0, 0, self.extra))


class PooledPadShortcut(PadShortcut):
    """Shortcut A with mean pooling, so that no position is thrown away."""

    def smaller(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.stride)


#: Makes a shortcut of input channels, output channels and a stride.
Shortcut = Callable[[int, int, int], nn.Module]


def projection(inputs: int, outputs: int, stride: int) -> nn.Module:
    """He et al.'s shortcut B: a 1×1 convolution."""
    return ConvBN(inputs, outputs, 1, stride, relu=False)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: Shortcut):
        super().__init__()
        self.residual = nn.Sequential(
            ConvBN(inputs, outputs, 3, stride), ConvBN(outputs, outputs, 3, relu=False)
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.residual(x) + self.shortcut(x), inplace=True)


def _resnet(
    num_classes: int, widths: tuple[int, ...], blocks: int, shortcut: Shortcut = projection
) -> ImageClassifier:
    layers: list[nn.Module] = [ConvBN(3, widths[0], 3)]
    inputs = widths[0]
    for stage, width in enumerate(widths):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(BasicBlock(inputs, width, stride, shortcut))
            inputs = width
    return ImageClassifier(nn.Sequential(*layers), inputs, num_classes)


def _small_resnet(
    num_classes: int, stem: nn.Module, inputs: int, blocks: Sequence[tuple[int, int]]
) -> ImageClassifier:
    """A stem of so many channels, then basic blocks, each given by its channels and stride, with
    pooled shortcuts."""
    layers: list[nn.Module] = [stem]
    for channels, stride in blocks:
        layers.append(BasicBlock(inputs, channels, stride, PooledPadShortcut))
        inputs = channels
    return ImageClassifier(nn.Sequential(*layers), inputs, num_classes)


def _resnet6(num_classes: int, width: int = 32) -> ImageClassifier:
    stem = ConvBN(3, width, 6, stride=4)
    return _small_resnet(num_classes, stem, width, ((2 * width, 2), (4 * width, 2)))


def _resnet8(num_classes: int, width: int = 64) -> ImageClassifier:
    stem = Whitening(width, 4, stride=2)
    return _small_resnet(num_classes, stem, width, ((width, 1), (2 * width, 2), (4 * width, 2)))


class Branches(nn.Module):
    """Parallel branches, concatenated along the channels."""

    def __init__(self, *branches: nn.Module):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


def _inception(
    num_classes: int, stem: ConvBN, modules: Sequence[int | tuple[int, int]]
) -> ImageClassifier:
    """Inception modules (1×1 and 3×3 channels) and, for a single number, downsampling ones."""
    layers: list[nn.Module] = [stem]
    inputs = stem.outputs
    for channels in modules:
        if isinstance(channels, int):
            pool = nn.MaxPool2d(3, stride=2, padding=1)
            layers.append(Branches(ConvBN(inputs, channels, 3, stride=2), pool))
            inputs += channels
        else:
            ones, threes = channels
            layers.append(Branches(ConvBN(inputs, ones, 1), ConvBN(inputs, threes, 3)))
            inputs = ones + threes
    return ImageClassifier(nn.Sequential(*layers), inputs, num_classes)


_SMALL_INCEPTION = (
    *((32, 32), (32, 48), 80),
    *((112, 48), (96, 64), (80, 80), (48, 96), 96),
    *((176, 160), (176, 160)),
)

#: Name → function of the number of classes.
NETWORKS: dict[str, Callable[[int], ImageClassifier]] = {
    # Small enough for a CPU: maps of 8×8 after the stem, 2×2 at the end (`benchmarks/NOTES.md`).
    "resnet6": _resnet6,
    # The same at half its widths, for its students.
    "resnet6-half": lambda classes: _resnet6(classes, 16),
    # What a CPU trains in minutes and the field would look at: maps of 16×16 after a fixed stem,
    # 4×4 at the end (`benchmarks/SCREENING.md`); and the same at half its widths.
    "resnet8": _resnet8,
    "resnet8-half": lambda classes: _resnet8(classes, 32),
    # He et al. 2016, the usual CIFAR form: 3×3 stem, no max pooling.
    "resnet18": lambda classes: _resnet(classes, (64, 128, 256, 512), 2),
    # He et al. 2016, section 4.2: 6n + 2 layers with n = 9, shortcut A.
    "resnet56": lambda classes: _resnet(classes, (16, 32, 64), 9, PadShortcut),
    # Zhang et al. 2017, "Understanding deep learning requires rethinking generalization", fig. 3,
    # on whole 32×32 images.
    "inception-small": lambda classes: _inception(classes, ConvBN(3, 96, 3), _SMALL_INCEPTION),
    # The same modules where `resnet6` works, on maps of 8×8 to 2×2, at about its cost.
    "inception-tiny": lambda classes: _inception(
        classes, ConvBN(3, 32, 6, stride=4), ((16, 32), 48, (32, 64), 64, (64, 96))
    ),
}


def known(name: str) -> str:
    """The name of a network; ValueError if it is not one of `NETWORKS`."""
    if name not in NETWORKS:
        raise ValueError(f"network is {name!r}; it must be one of {', '.join(NETWORKS)}")
    return name


def build(name: str, num_classes: int) -> ImageClassifier:
    """Build a network by its name, with the global random generator's initialisation."""
    return NETWORKS[known(name)](num_classes)


@functools.cache
def multiply_adds(name: str, num_classes: int, pixels: int) -> int:
    """Multiplications, each with its addition, that a network takes for one image of so many
    pixels in height and width."""
    with torch.device("meta"):
        network = build(name, num_classes).eval()
        with FlopCounterMode(display=False) as counter:
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
