"""The training step: eager on a CPU, compiled and captured on CUDA, reused by all runs of a shape.

On CUDA the network is compiled once a process, and the whole step (forward, loss, backward,
optimizer) is captured as a CUDA graph once a run, which takes a few steps' time: ε, weight decay
and the criterion are then constants of the graph, and the learning rate is a tensor that it reads.
Weights are initialised in place, so a new run compiles nothing.
"""

import contextlib
import functools
import math
import threading
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsce import models
from lsce.runs import Recipe

Criterion = Callable[[Tensor, Tensor], Tensor]

#: Steps before a capture: they choose kernels, and allocate what the optimizer keeps.
WARMUP_STEPS = 3

#: PyTorch's global generator is shared by threads, and a capture waits for the whole device.
_one_at_a_time = threading.Lock()


@functools.cache  # asked at every batch
def precision(device: torch.device) -> str:
    """Either "bf16", where the device multiplies that faster than float32, or "float32"."""
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_amx_tile_supported()
    return "bf16" if fast else "float32"


def autocast(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision(device) == "bf16")


def one_cycle(step: int, steps: int, warmup: float) -> float:
    """The learning rate's share of its peak: a cosine up from 1/25, then a cosine down to 0.

    Smith & Topin 2019, in the form that PyTorch's `OneCycleLR` made usual; that one divides by
    zero where the warm-up is a single step.
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


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict]:
    """Weight decay acts on convolution and linear weights only."""
    return [
        {
            "params": [p for p in network.parameters() if p.ndim > 1],
            "weight_decay": weight_decay,
        },
        {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]


def make_optimizer(network: nn.Module, recipe: Recipe, learning_rate: Tensor) -> torch.optim.SGD:
    """SGD with Nesterov momentum, which reads its learning rate from the tensor at each step."""
    return torch.optim.SGD(
        parameter_groups(network, recipe.weight_decay),
        lr=learning_rate,
        momentum=recipe.momentum,
        nesterov=True,
        fused=True,
    )


def built(model: str, num_classes: int) -> models.ImageClassifier:
    """A network whose first weights do not matter. Drawing them moves the process's generator,
    which must not happen while the run of another thread draws its own from a seed."""
    with _one_at_a_time:
        return models.build(model, num_classes)


class Trainer:
    """A network and the step that trains it; one run at a time, begun by `begin`.

    `network` is the module to evaluate. `totals`, float32 (3,) on the device, sums over the steps
    since it was last zeroed: the criterion, the hard-label NLL (both in nats) and the accuracy.
    """

    def __init__(
        self, model: str, num_classes: int, device: torch.device, *, compiled: bool | None = None
    ):
        self._build = functools.partial(models.build, model, num_classes)
        self.device = device
        self.network = built(model, num_classes).to(device, memory_format=torch.channels_last)
        self._on_cuda = device.type == "cuda"
        if compiled if compiled is not None else self._on_cuda:
            self._forward = torch.compile(self.network, dynamic=False)
        else:
            self._forward = self.network
        self._stream = torch.cuda.Stream(device) if self._on_cuda else None
        self._graph: torch.cuda.CUDAGraph | None = None
        self.totals = torch.zeros(3, device=device)

    def stream(self) -> contextlib.AbstractContextManager:
        """Where a run's work on CUDA goes, so that runs in several threads can overlap."""
        return torch.cuda.stream(self._stream) if self._on_cuda else contextlib.nullcontext()

    def begin(
        self,
        recipe: Recipe,
        criterion: Criterion,
        *,
        steps: int,
        batch_size: int,
        seed: int,
        soft: bool = False,
    ) -> None:
        """Get ready for a run of `steps` steps with the initialisation that `seed` draws.

        With `soft` the labels of a step are probabilities.
        """
        self._recipe, self._criterion, self._steps, self._done = recipe, criterion, steps, 0
        self._learning_rate = torch.zeros((), device=self.device)
        self._optimizer = make_optimizer(self.network, recipe, self._learning_rate)
        with _one_at_a_time:
            torch.default_generator.manual_seed(seed)
            initial = self._build().state_dict()
            self.network.load_state_dict(initial)
            if self._on_cuda:
                self._capture(batch_size, soft)
                self.network.load_state_dict(initial)
                for state in self._optimizer.state.values():
                    state["momentum_buffer"].zero_()
        self.totals.zero_()

    def step(self, images: Tensor, labels: Tensor) -> None:
        """One step on float32 (B, 3, 32, 32) images in [0, 1] and labels, int64 (B,) or, if the
        run began with `soft`, float32 (B, C)."""
        self._learning_rate.fill_(learning_rate(self._recipe, self._done, self._steps))
        if self._graph is None:
            self._step(images, labels)
        else:
            self._images.copy_(images)
            self._labels.copy_(labels)
            self._graph.replay()
        self._done += 1

    def _step(self, images: Tensor, labels: Tensor) -> None:
        with autocast(self.device):
            logits = self._forward(images)
        loss = self._criterion(logits, labels)
        self._optimizer.zero_grad()
        factor, largest = self._recipe.loss_factor, self._recipe.clip_norm
        (loss if factor is None else factor * loss).backward()
        if largest is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), largest)
        self._optimizer.step()
        seen = logits.detach()
        likeliest = labels.argmax(1) if labels.is_floating_point() else labels
        right = (seen.argmax(1) == likeliest).float().mean()
        self.totals += torch.stack([loss.detach(), F.cross_entropy(seen, labels), right])

    def _capture(self, batch_size: int, soft: bool) -> None:
        self._graph = None  # frees the last run's
        self._images = torch.rand(batch_size, 3, 32, 32, device=self.device)
        self._images = self._images.to(memory_format=torch.channels_last)
        self._labels = torch.zeros(batch_size, dtype=torch.int64, device=self.device)
        if soft:
            classes = self.network.classifier.out_features
            self._labels = F.one_hot(self._labels, classes).float()
        self.network.train()
        for _ in range(WARMUP_STEPS):
            try:
                self._step(self._images, self._labels)
            except torch._dynamo.exc.TorchDynamoException as error:
                reason = str(error).strip().splitlines()[0]
                warnings.warn(f"training goes on uncompiled, and slower: {reason}", stacklevel=2)
                self._forward = self.network
                self._step(self._images, self._labels)
        graph = torch.cuda.CUDAGraph()
        # Other threads may allocate meanwhile.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            self._step(self._images, self._labels)
        self._graph = graph
