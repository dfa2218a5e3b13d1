"""The training step: eager on a CPU, compiled and captured on CUDA, reused by all runs of a shape.

On CUDA the network is compiled once a process, and the whole step (forward, loss, backward,
optimizer) is captured as a CUDA graph once a run: ε, weight decay and the criterion are constants
of the graph, but for its buffers; the learning rate is a tensor. A new run initialises the weights
in place.
"""

import contextlib
import math
import threading
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsce.training import networks, precision
from lsce.training.spec import Recipe

#: Steps before a capture: they choose kernels, and allocate what the optimizer keeps.
WARMUP_STEPS = 3

#: Networks, by number of classes and batch size, that a process compiles at most; PyTorch's own
#: limit, 8, is less than a profile has, and the others would be run eagerly.
COMPILED = 64

#: PyTorch's global generator is shared by threads, and a capture waits for the whole device.
_one_at_a_time = threading.Lock()


def one_cycle(step: int, steps: int, warmup: float) -> float:
    """The learning rate's share of its peak: a cosine up from 1/25, then a cosine down to 0.

    Smith & Topin 2019, as PyTorch's `OneCycleLR`, which fails where the warm-up is a single step.
    """
    peak = warmup * steps
    if step < peak:
        return 1 - (1 - 1 / 25) * (1 + math.cos(math.pi * step / peak)) / 2
    return (1 + math.cos(math.pi * (step - peak) / (steps - peak))) / 2


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """The learning rate at a step: the recipe's peak times its schedule's share."""
    if recipe.milestones is None:
        share = one_cycle(step, steps, recipe.warmup_fraction)
    else:
        share = 0.1 ** sum(step >= milestone * steps for milestone in recipe.milestones)
    return recipe.peak_learning_rate * share


def resolution(recipe: Recipe, step: int, steps: int, pixels: int) -> int:
    """Height and width of a step's images, where those of the data set are `pixels`."""
    share, fewer = recipe.early_resolution or (0.0, pixels)
    return fewer if step < share * steps else pixels


def scaled(images: Tensor, pixels: int) -> Tensor:
    """Images in so many pixels, bilinear and antialiased, channels last in memory."""
    small = F.interpolate(images, size=(pixels, pixels), mode="bilinear", antialias=True)
    return small.contiguous(memory_format=torch.channels_last)


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay acts on convolution and linear weights only."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    spared = [p for p in network.parameters() if p.ndim <= 1]
    return [dict(params=decayed, weight_decay=weight_decay), dict(params=spared, weight_decay=0.0)]


def built(name: str, num_classes: int, device: torch.device) -> networks.ImageClassifier:
    """A network on a device, in its precision there, whose weights will be replaced."""
    with _one_at_a_time:  # drawing them moves the generator
        network = networks.build(name, num_classes)
    network.precision = precision.of(name, device)
    return network.to(device).to(memory_format=torch.channels_last)


class Trainer:
    """A network and the step that trains it; one run at a time, begun by `begin`.

    `network` is the module to evaluate. `totals`, float32 (3,) on the device, sums over the steps
    since it was last zeroed: the criterion, the hard-label NLL (both in nats) and the accuracy.
    `compiled` and `captured` are by default true on CUDA and false on a CPU. Where either fails,
    training goes on without, and `fallbacks` says why.
    """

    def __init__(
        self,
        network: str,
        num_classes: int,
        device: torch.device,
        *,
        compiled: bool | None = None,
        captured: bool | None = None,
    ):
        on_cuda = device.type == "cuda"
        self._name, self._num_classes, self.device = network, num_classes, device
        self.network = built(network, num_classes, device)
        self._forward: Callable[..., Any] = self.network
        if on_cuda if compiled is None else compiled:
            torch._dynamo.config.recompile_limit = COMPILED
            self._forward = torch.compile(self.network, dynamic=False)
        self._captures = on_cuda if captured is None else captured
        self.fallbacks: list[str] = []
        self._stream = torch.cuda.Stream(device) if on_cuda else None
        #: The captured step for images of so many pixels.
        self._captured: dict[int, Callable[[Tensor, Tensor], None]] = {}
        self.totals = torch.zeros(3, device=device)

    @property
    def mode(self) -> str:
        """How steps are done: "captured", "compiled" or "eager"."""
        if self._captured:
            return "captured"
        return "eager" if self._forward is self.network else "compiled"

    def stream(self) -> contextlib.AbstractContextManager[Any]:
        """Where a run's work on CUDA goes, so that runs in several threads can overlap."""
        if self._stream is None:
            return contextlib.nullcontext()
        return torch.cuda.stream(self._stream)

    def begin(
        self,
        recipe: Recipe,
        criterion: nn.Module,
        *,
        steps: int,
        batch_size: int,
        pixels: int,
        seed: int,
        soft: bool = False,
        local: bool = False,
    ) -> None:
        """Get ready for `steps` steps on images of `pixels` × `pixels` from the weights that `seed`
        draws. With `soft` the labels of a step are probabilities; with `local` the criterion takes
        the logits at each position of the last feature map, too."""
        self._recipe, self._criterion, self._local = recipe, criterion, local
        self._steps, self._pixels, self._done = steps, pixels, 0
        self._learning_rate = torch.zeros((), device=self.device)
        self._optimizer = torch.optim.SGD(
            parameter_groups(self.network, recipe.weight_decay),
            lr=self._learning_rate,
            momentum=recipe.momentum,
            nesterov=True,
            fused=True,
        )
        with _one_at_a_time:
            torch.default_generator.manual_seed(seed)
            initial = networks.build(self._name, self._num_classes).state_dict()
            self.network.load_state_dict(initial)
            if self._captures or self._forward is not self.network:
                buffers = {name: value.clone() for name, value in criterion.named_buffers()}
                self._prepare(batch_size, soft)
                self.network.load_state_dict(initial)
                for name, value in buffers.items():
                    criterion.get_buffer(name).copy_(value)
                for state in self._optimizer.state.values():
                    state["momentum_buffer"].zero_()
        self.totals.zero_()

    def step(self, images: Tensor, labels: Tensor) -> None:
        """One step on float32 (B, 3, H, W) images in [0, 1] and labels, int64 (B,) or, if the run
        began with `soft`, float32 (B, C)."""
        self._learning_rate.fill_(learning_rate(self._recipe, self._done, self._steps))
        pixels = resolution(self._recipe, self._done, self._steps, self._pixels)
        if pixels != images.shape[-1]:
            images = scaled(images, pixels)
        self._captured.get(pixels, self._step)(images, labels)
        self._done += 1

    def _step(self, images: Tensor, labels: Tensor) -> None:
        with precision.autocast(self.network, self.device):
            outputs = self._forward(images, True) if self._local else (self._forward(images),)
        logits, *local = outputs
        loss = self._criterion(logits, labels, *local)
        self._optimizer.zero_grad()
        factor, largest = self._recipe.loss_factor, self._recipe.clip_norm
        (loss if factor is None else factor * loss).backward()
        if largest is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), largest)
        self._optimizer.step()
        logits = logits.detach()
        likeliest = labels.argmax(1) if labels.is_floating_point() else labels
        accuracy = (logits.argmax(1) == likeliest).float().mean()
        self.totals += torch.stack([loss.detach(), F.cross_entropy(logits, labels), accuracy])

    def _prepare(self, batch_size: int, soft: bool) -> None:
        """Warm the step up and capture it; where that fails, go on without, and say why."""
        self._captured = {}  # frees the last run's
        self.network.train()
        ends = (0, self._steps)
        for pixels in {resolution(self._recipe, s, self._steps, self._pixels) for s in ends}:
            batch = self._batch(batch_size, pixels, soft)
            try:
                self._warm_up(*batch)
            except Exception as error:
                if self._forward is self.network:
                    raise
                self._fall_back("uncompiled", error)
                self._forward = self.network
                self._warm_up(*batch)
            if self._captures:
                try:
                    self._captured[pixels] = self._capture(*batch)
                except Exception as error:
                    self._fall_back("without a captured step", error)
                    self._captures, self._captured = False, {}

    def _batch(self, batch_size: int, pixels: int, soft: bool) -> tuple[Tensor, Tensor]:
        images = torch.rand(batch_size, 3, pixels, pixels, device=self.device)
        labels = torch.zeros(batch_size, dtype=torch.int64, device=self.device)
        soft_labels = F.one_hot(labels, self._num_classes).float()
        return images.to(memory_format=torch.channels_last), soft_labels if soft else labels

    def _warm_up(self, images: Tensor, labels: Tensor) -> None:
        for _ in range(WARMUP_STEPS):
            self._step(images, labels)

    def _capture(self, images: Tensor, labels: Tensor) -> Callable[[Tensor, Tensor], None]:
        graph = torch.cuda.CUDAGraph()
        # Other threads may allocate meanwhile.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            self._step(images, labels)

        def replay(new_images: Tensor, new_labels: Tensor) -> None:
            images.copy_(new_images)
            labels.copy_(new_labels)
            graph.replay()

        return replay

    def _fall_back(self, how: str, error: Exception) -> None:
        lines = str(error).strip().splitlines() or [""]
        reason = f"{type(error).__name__}: {lines[0]}"
        warnings.warn(f"training goes on {how}, and slower: {reason}", RuntimeWarning, stacklevel=4)
        self.fallbacks.append(f"{how}: {reason}")
