"""One run, from its spec to what it leaves behind.

The data stay on the device as uint8 and are augmented there a batch at a time. The arithmetic is
bf16 autocast in channels_last where the hardware multiplies bf16 fast (CUDA from Ampere on, CPUs
with AMX) and float32 elsewhere; the outcome says which. On a CPU a run uses one thread, so that
the same seed gives the same bits on the same machine however many runs go on beside it.

All random draws come from the spec's seed: initialisation, training subset, label noise, and one
stream for data order and augmentation. Runs that differ in ε alone share all of them.
"""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from lsce import data, models, noise
from lsce.calibration import fit_temperature
from lsce.losses import LabelSmoothingCrossEntropy
from lsce.runs import RunSpec
from lsce.trainer import Trainer, autocast

PADDING = 4
EVALUATION_BATCH = 500
#: Training images measured, without augmentation, after the last epoch (at most).
TRAIN_SAMPLE = 10_000


@dataclass
class Outcome:
    """What a run leaves: see `lsce.runs.Record` for shapes.

    `history` has one row an epoch: `epoch`; `train_loss` (the smoothed criterion, nats),
    `train_nll` (hard-label) and `train_accuracy`, running means over the epoch's augmented
    batches; `validation_nll` and `validation_accuracy` on the monitored part of the validation
    split after the epoch. `final` has hard-label NLL and accuracy after the last epoch, in
    evaluation mode and without augmentation, on training, validation and test.
    """

    status: str = "completed"
    history: list[dict[str, float]] = field(default_factory=list)
    final: dict[str, float] = field(default_factory=dict)
    temperature: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    features: dict[str, Tensor] = field(default_factory=dict)


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


_counting = threading.Lock()
#: Runs on a CPU that go on in this process, and the threads PyTorch had before the first of them.
_running, _threads = 0, 0


@contextlib.contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """The number of threads is the process's, so the last run that ends gives it back."""
    global _running, _threads
    if device.type != "cpu":
        yield
        return
    with _counting:
        if _running == 0:
            _threads = torch.get_num_threads()
        _running += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _counting:
            _running -= 1
            if _running == 0:
                torch.set_num_threads(_threads)


def to_float(images: Tensor) -> Tensor:
    """uint8 (N, 32, 32, 3) to float32 (N, 3, 32, 32) in [0, 1], channels last in memory."""
    return images.permute(0, 3, 1, 2).float().div_(255)


class Augmenter:
    """Draws an epoch's shuffled, randomly cropped and flipped batches; the last part is dropped."""

    def __init__(self, images: Tensor, labels: Tensor, batch_size: int, seed: int):
        self.pixels, self.labels = images.reshape(-1, 3), labels
        self.batch_size = min(batch_size, len(images))
        self.generator = torch.Generator().manual_seed(seed)
        self.size = size = images.shape[1]
        inside = torch.arange(-PADDING, size + PADDING)
        #: Padded coordinate → image coordinate, mirrored at the border.
        self.mirror = (size - 1 - (size - 1 - inside.abs()).abs()).to(images.device)
        self.window = torch.arange(size, device=images.device)

    def steps(self) -> int:
        """Batches an epoch."""
        return len(self.labels) // self.batch_size

    def epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of images, float32 (B, 3, 32, 32) in [0, 1], and labels, int64 (B,)."""
        n, size, generator, device = len(self.labels), self.size, self.generator, self.labels.device
        order = torch.randperm(n, generator=generator).to(device)
        shifts = torch.randint(0, 2 * PADDING + 1, (2, n), generator=generator).to(device)
        flips = (torch.rand(n, generator=generator) < 0.5).to(device)
        for start in range(0, self.steps() * self.batch_size, self.batch_size):
            batch = slice(start, start + self.batch_size)
            rows, columns = self.mirror[shifts[:, batch, None] + self.window]
            columns = torch.where(flips[batch, None], columns.flip(1), columns)
            chosen = order[batch]
            # A third of the time that indexing by image, row and column takes on a CPU.
            pixels = size * (size * chosen[:, None, None] + rows[:, :, None]) + columns[:, None, :]
            images = self.pixels.index_select(0, pixels.view(-1)).view(-1, size, size, 3)
            yield to_float(images), self.labels[chosen]


def evaluate(network: models.ImageClassifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, float32 (N, C), and penultimate features, float32 (N, D), in evaluation mode."""
    network.eval()
    logits, features = [], []
    with torch.inference_mode():
        for batch in images.split(EVALUATION_BATCH):
            with autocast(images.device):
                hidden = network.features(to_float(batch))
            features.append(hidden)
            logits.append(network.classifier(hidden))
    return torch.cat(logits), torch.cat(features)


def _hard_label(name: str, logits: Tensor, labels: Tensor) -> dict[str, float]:
    return {
        f"{name}_nll": F.cross_entropy(logits.double(), labels).item(),
        f"{name}_accuracy": (logits.argmax(1) == labels).double().mean().item(),
    }


def train_epoch(trainer: Trainer, batches: Augmenter) -> dict[str, float]:
    """One pass; sums stay on the device, so the only wait for it is at the end of the epoch."""
    trainer.network.train()
    trainer.totals.zero_()
    for images, labels in batches.epoch():
        trainer.step(images, labels)
    names = ("train_loss", "train_nll", "train_accuracy")
    return dict(zip(names, (trainer.totals / batches.steps()).tolist(), strict=True))


#: Trainers that no run uses now, by model, classes and device: compiling one takes long.
_idle: dict[tuple, list[Trainer]] = {}


@contextlib.contextmanager
def _a_trainer(model: str, num_classes: int, device: torch.device) -> Iterator[Trainer]:
    """A trainer for one run, with its stream current; runs in several threads get one each."""
    idle = _idle.setdefault((model, num_classes, device), [])
    try:
        trainer = idle.pop()
    except IndexError:
        trainer = Trainer(model, num_classes, device)
    with _one_thread(device), trainer.stream():
        yield trainer
    idle.append(trainer)


def _training_data(spec: RunSpec, dataset: data.Dataset, device: torch.device):
    """The run's subset: images, the labels it is trained on, and the true labels."""
    chosen = data.subset(dataset.train.labels, spec.train_size, spec.seed)
    images, truth = dataset.train.images[chosen], dataset.train.labels[chosen]
    labels = truth
    if spec.noise is not None:
        labels = noise.flip_labels(
            truth, spec.noise, spec.noise_rate, spec.seed, dataset.superclass
        )
    return images.to(device), labels.to(device), truth.to(device)


def train(
    spec: RunSpec,
    dataset: data.Dataset,
    *,
    device: torch.device | None = None,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> Outcome:
    """Train the run that `spec` describes on `dataset`, whose checksum must be the spec's.

    `on_epoch` is called with the number of epochs done. Raises ValueError if the data are not
    those of the spec or the subset cannot be drawn.
    """
    if dataset.checksum != spec.data_checksum:
        raise ValueError(
            f"the run {spec.id} wants data {spec.data_checksum[:12]}…, these are "
            f"{dataset.name} {dataset.checksum[:12]}…"
        )
    device = device or default_device()
    with _a_trainer(spec.model, len(dataset.classes), device) as trainer:
        return _train(spec, dataset, trainer, on_epoch)


def _begin(trainer: Trainer, spec: RunSpec, batches: Augmenter, *, epochs: int) -> None:
    trainer.begin(
        spec.recipe,
        LabelSmoothingCrossEntropy(spec.epsilon, convention=spec.convention),
        steps=epochs * batches.steps(),
        batch_size=batches.batch_size,
        seed=spec.seed,
    )


def _train(spec, dataset, trainer, on_epoch) -> Outcome:
    outcome, started, device = Outcome(), time.perf_counter(), trainer.device
    images, labels, truth = _training_data(spec, dataset, device)
    validation = dataset.validation.images.to(device), dataset.validation.labels.to(device)
    monitored = data.subset(dataset.validation.labels, spec.monitor_size, seed=0).to(device)
    monitor = validation[0][monitored], validation[1][monitored]

    batches = Augmenter(images, labels, spec.recipe.batch_size, seed=spec.seed)
    _begin(trainer, spec, batches, epochs=spec.epochs)
    network = trainer.network
    for epoch in range(spec.epochs):
        row = {"epoch": epoch + 1} | train_epoch(trainer, batches)
        row |= _hard_label("validation", evaluate(network, monitor[0])[0], monitor[1])
        outcome.history.append(row)
        on_epoch(epoch + 1)
        if not math.isfinite(row["train_loss"]):
            outcome.status = "diverged"
            break
    outcome.seconds["training"] = time.perf_counter() - started

    if outcome.status == "completed":
        _measure(outcome, spec, network, (images, truth), validation, dataset)
    outcome.seconds["total"] = time.perf_counter() - started
    return outcome


def _measure(outcome, spec, network, training, validation, dataset) -> None:
    """Fill in what is measured after the last epoch."""
    device = training[0].device
    sample = data.subset(training[1].cpu(), min(TRAIN_SAMPLE, spec.train_size), spec.seed)
    splits = {
        "train": (training[0][sample.to(device)], training[1][sample.to(device)]),
        "validation": validation,
        "test": (dataset.test.images.to(device), dataset.test.labels.to(device)),
    }
    for name, (images, labels) in splits.items():
        logits, features = evaluate(network, images)
        outcome.final |= _hard_label(name, logits, labels)
        if name != "train":
            outcome.outputs[f"{name}_logits"] = logits.cpu()
            outcome.outputs[f"{name}_labels"] = labels.cpu().clone()
        if "features" in spec.keep:
            outcome.features[f"{name}_features"] = features.cpu()
    if "features" in spec.keep:
        outcome.features["train_labels"] = splits["train"][1].cpu()
        outcome.features["classifier_weight"] = network.classifier.weight.detach().cpu().clone()
        outcome.features["classifier_bias"] = network.classifier.bias.detach().cpu().clone()
    fitted = fit_temperature(
        outcome.outputs["validation_logits"], outcome.outputs["validation_labels"]
    )
    outcome.temperature = {"value": fitted.value, "converged": fitted.converged}


def workload(spec: RunSpec) -> tuple[int, int]:
    """Images that the run passes forward and backward, and images that it only evaluates."""
    evaluated = spec.epochs * spec.monitor_size + min(spec.train_size, TRAIN_SAMPLE) + 15_000
    return spec.epochs * spec.train_size, evaluated


def time_per_image(spec: RunSpec, *, device: torch.device | None = None) -> tuple[float, float]:
    """Seconds an image to train and to evaluate the spec's network, from a short timing."""
    device = device or default_device()
    batch = spec.recipe.batch_size
    images = torch.randint(0, 256, (4 * batch, 32, 32, 3), dtype=torch.uint8, device=device)
    labels = torch.randint(0, 100, (4 * batch,), device=device)
    with _a_trainer(spec.model, 100, device) as trainer:
        batches = Augmenter(images, labels, batch, seed=0)
        _begin(trainer, spec, batches, epochs=2)

        def timed(work: Callable[[], object]) -> float:
            work()  # the first pass picks and compiles kernels
            start = time.perf_counter()
            work()
            return (time.perf_counter() - start) / len(images)

        train_time = timed(lambda: train_epoch(trainer, batches))
        return train_time, timed(lambda: evaluate(trainer.network, images)[0].sum().item())
