"""What a task costs: time, operations, memory and disk, from its spec and a short timing."""

import resource
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from lsce import data
from lsce.losses import LabelSmoothingCrossEntropy
from lsce.measures import information, robustness
from lsce.results.measure import FAR, TRAIN_SAMPLE, sees_far_images
from lsce.training import monitors, networks
from lsce.training.batches import Augmenter, evaluate
from lsce.training.spec import Evaluation, NoisyLabels, RunSpec, SomeClasses, Task
from lsce.training.train import a_trainer, default_device, train_epoch

#: Evaluations that take about as long as fitting linear probes to a run's features.
PROBE_IMAGES = 20_000


class Work(NamedTuple):
    """Images of full size that a task passes forward and backward, and that it only evaluates."""

    trained: int
    evaluated: int


class Speed(NamedTuple):
    """Seconds to train and to evaluate an image, and bytes of the GPU's or the process's memory."""

    train: float
    evaluate: float
    memory: int

    def seconds(self, task: Task) -> float:
        """Expected seconds of a task."""
        work = workload(task)
        return work.trained * self.train + work.evaluated * self.evaluate


def workload(task: Task) -> Work:
    if isinstance(task, Evaluation):
        return Work(*robustness.workload(task.protocol))
    per_epoch = task.monitor_size
    if isinstance(task.labels, NoisyLabels):
        per_epoch += min(monitors.WRONG_SAMPLE, int(task.images * task.labels.rate))
    if "information" in task.keep:
        images = min(information.IMAGES, task.images // task.num_classes)
        per_epoch += 4 * images * information.DRAWS
    if (teacher := task.method.learns_from) is not None:
        # In the student's time for an image.
        per_epoch += round(_multiply_adds(teacher) / _multiply_adds(task) * task.images)
    once = _measured_images(task)
    if "features" in task.keep:
        once += PROBE_IMAGES
        if isinstance(task.sample, SomeClasses):
            left_out = task.entry.num_classes - task.classes
            once += left_out * sum(map(task.entry.per_class, task.entry.sizes))
    if sees_far_images(task):
        once += data.entry(FAR).sizes["test"]
    trained = task.epochs * task.images
    if task.recipe.early_resolution is not None:  # smaller images take less, by their area
        share, pixels = task.recipe.early_resolution
        trained = round(trained * (1 - share * (1 - (pixels / task.entry.pixels) ** 2)))
    return Work(trained, task.epochs * per_epoch + once)


def _measured_images(spec: RunSpec) -> int:
    """Images of the three splits that a trained network is measured on."""
    return min(spec.images, TRAIN_SAMPLE) + spec.images_of("validation") + spec.images_of("test")


def _multiply_adds(spec: RunSpec) -> int:
    return networks.multiply_adds(spec.network, spec.num_classes, spec.entry.pixels)


def operations(task: Task) -> int:
    """Floating-point operations: multiplications and additions, forward and backward."""
    work = workload(task)
    return 2 * _multiply_adds(task.run) * (3 * work.trained + work.evaluated)


def disk(task: Task) -> int:
    """Bytes that a record takes, about: its float32 tensors."""
    if isinstance(task, Evaluation):
        return 0
    numbers = (task.images_of("validation") + task.images_of("test")) * task.num_classes
    if "features" in task.keep:
        numbers += _measured_images(task) * networks.width(task.network)
    if "weights" in task.keep:
        numbers += networks.parameters(task.network, task.num_classes)
    return 4 * numbers


def speed(spec: RunSpec) -> Speed:
    """How fast the spec's network is on this machine's device, from a short timing."""
    device, pixels, batch = default_device(), spec.entry.pixels, spec.recipe.batch_size
    shape = (4 * batch, pixels, pixels, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    labels = torch.randint(0, spec.num_classes, (4 * batch,), device=device)

    def timed(work: Callable[[], object]) -> float:
        work()  # the first pass picks and compiles kernels
        start = time.perf_counter()
        work()
        return (time.perf_counter() - start) / len(images)

    with a_trainer(spec.network, spec.num_classes, device) as trainer:
        batches = Augmenter(images, labels, batch, seed=0)
        loss, steps = LabelSmoothingCrossEntropy(0.1), 2 * batches.steps()
        trainer.begin(
            spec.recipe, loss, steps=steps, batch_size=batch, pixels=pixels, seed=spec.seed
        )
        train_time = timed(lambda: train_epoch(trainer, batches))
        evaluation = timed(lambda: evaluate(trainer.network, images)[0].sum().item())
    if device.type == "cuda":
        return Speed(train_time, evaluation, torch.cuda.max_memory_reserved(device))
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return Speed(train_time, evaluation, peak)
