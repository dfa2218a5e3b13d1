"""One run, from its spec to a trained network.

All random draws come from the spec's seed: initialisation, training subset, label noise, and one
stream for data order and augmentation. Runs that differ in ε alone share all of them. On a CPU a
run uses one thread: a seed gives the same bits whatever else runs on the machine.
"""

import contextlib
import functools
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lsce import data
from lsce.measures.temperature import fit_temperature
from lsce.training.batches import Augmenter, evaluate, to_float
from lsce.training.methods import Mixer, Teach, TrainingLabels
from lsce.training.monitors import Best, Memorisation, Monitor
from lsce.training.networks import ImageClassifier
from lsce.training.spec import LongTail, NoisyLabels, RunSpec, SomeClasses, Superclasses
from lsce.training.step import Trainer, built

#: Training images that a whitening layer is set from (about).
WHITENED = 5_000


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Part(NamedTuple):
    """On the device: images, uint8 (N, H, W, 3), the run's labels and the true ones, int64 (N,)."""

    images: Tensor
    labels: Tensor
    truth: Tensor


class Material(NamedTuple):
    """The data set as the run labels it, and that of the classes that the run never sees, if there
    are any; and the images that it is trained on and validated with, both with noisy labels."""

    seen: data.Dataset
    unseen: data.Dataset | None
    training: Part
    validation: Part


def material(spec: RunSpec, dataset: data.Dataset, device: torch.device) -> Material:
    """The images of a run and their labels, drawn by its seed."""
    seen, unseen = _of_classes(spec, dataset)
    subset = data.subset
    if isinstance(spec.sample, LongTail):
        subset = functools.partial(data.long_tail, imbalance=spec.sample.imbalance)
    chosen = subset(seen.train.labels, spec.sample.train_size, seed=spec.seed)
    images, truth = seen.train.images[chosen], seen.train.labels[chosen]
    held_out = seen.validation
    labels = torch.cat([truth, held_out.labels])
    if isinstance(spec.labels, NoisyLabels):
        labels = _noisy(labels, spec, chosen)
    labels = labels.to(device)
    training = Part(images.to(device), labels[: len(truth)], truth.to(device))
    validation = Part(held_out.images.to(device), labels[len(truth) :], held_out.labels.to(device))
    return Material(seen, unseen, training, validation)


def _noisy(labels: Tensor, spec: RunSpec, chosen: Tensor) -> Tensor:
    """The labels of the chosen training and of the validation images with the run's noise, which
    its seed draws, or which people gave each image."""
    noise, entry = spec.labels, spec.entry
    assert isinstance(noise, NoisyLabels)
    if noise.noise == "human":
        return data.draw_labels(labels, transition_of(spec), spec.seed)
    if noise.noise != "instance-wise human":
        return data.flip_labels(labels, noise.noise, noise.rate, spec.seed, entry.superclass)
    assert entry.human_labels is not None
    given = entry.human_labels()
    if given.checksum != noise.checksum:
        these = f"those on this machine are {given.checksum[:12]}…"
        raise ValueError(f"the run {spec.id} wants labels {str(noise.checksum)[:12]}…, {these}")
    return torch.cat([given.labels[chosen], given.labels[entry.sizes["train"] :]])


def transition_of(spec: RunSpec) -> Tensor:
    """The probabilities T[i, j], float64 (C, C), that a run with noisy labels has j for class i."""
    noise, entry = spec.labels, spec.entry
    assert isinstance(noise, NoisyLabels)
    if noise.human:
        assert entry.human_counts is not None
        return data.human_transition(entry.human_counts())
    return data.transition_matrix(noise.noise, noise.rate, entry.superclass)


def _of_classes(spec: RunSpec, dataset: data.Dataset) -> tuple[data.Dataset, data.Dataset | None]:
    """The data set as the run labels it, and that of the classes that it never sees."""
    if isinstance(spec.labels, Superclasses):
        # The very images that a run with the classes themselves is trained on.
        chosen = data.subset(dataset.train.labels, spec.sample.train_size, spec.seed)
        train = data.Split(dataset.train.images[chosen], dataset.train.labels[chosen])
        return data.coarse(replace(dataset, train=train)), None
    if not isinstance(spec.sample, SomeClasses):
        return dataset, None
    count = len(dataset.classes)
    seen = data.class_subset(spec.sample.classes, spec.seed, count)
    unseen = [k for k in range(count) if k not in seen]
    return data.restrict(dataset, seen), data.restrict(dataset, unseen)


_counting = threading.Lock()
#: Runs on a CPU that go on in this process, and the threads PyTorch had before the first of them.
_running, _threads = 0, 0


@contextlib.contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """One thread on a CPU. Threads are the process's: the last run that ends gives them back."""
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


#: Trainers that no run uses now, by network, classes and device: compiling one takes long.
_idle: dict[tuple[str, int, torch.device], list[Trainer]] = {}


@contextlib.contextmanager
def a_trainer(network: str, num_classes: int, device: torch.device) -> Iterator[Trainer]:
    """A trainer for one run, with its stream current; runs in several threads get one each."""
    idle = _idle.setdefault((network, num_classes, device), [])
    try:
        trainer = idle.pop()
    except IndexError:
        trainer = Trainer(network, num_classes, device)
    with one_thread(device), trainer.stream():
        yield trainer
    idle.append(trainer)


@dataclass
class Trained:
    """A run whose training has ended, with its network, which the next run takes over.

    `history` has one row an epoch: `epoch`; `train_loss` (the criterion, nats), `train_nll`
    (hard-label; with mixup or a teacher, of the probabilities that the network learns) and
    `train_accuracy`, running means over the augmented batches; `validation_nll` and
    `validation_accuracy` of the monitored images after the epoch, and `validation_refinement`, see
    `refinement`; and what monitors add.
    """

    spec: RunSpec
    material: Material
    network: ImageClassifier
    teach: Teach | None
    best: Best = field(default_factory=Best)
    #: "completed", or "diverged" if the loss on training or validation stopped being finite.
    status: str = "completed"
    history: list[dict[str, float]] = field(default_factory=list)
    #: Of the training with its monitors; and on a CPU as "core" the processor time of its thread,
    #: which other work on the machine does not lengthen.
    seconds: dict[str, float] = field(default_factory=dict)
    #: How the training's steps were done: mode and fallbacks of `lsce.training.step.Trainer`.
    step: dict[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return self.material.training.images.device


@contextlib.contextmanager
def train(
    spec: RunSpec,
    dataset: data.Dataset,
    *,
    device: torch.device | None = None,
    networks: Callable[[RunSpec], dict[str, Tensor]] | None = None,
    monitors: Callable[[Material], Sequence[Monitor]] = lambda material: (),
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> Iterator[Trained]:
    """Train the run that `spec` describes on `dataset`, whose checksum must be the spec's.

    Inside the `with` the trained network can be measured, with one thread on a CPU. `networks`
    gives the state dict of the teacher, if there is one. `monitors` are made of the run's images,
    beside those that every run has. `on_epoch` is called with the number of epochs done. Raises
    ValueError if the data are not those of the spec or the subset cannot be drawn.
    """
    if dataset.checksum != spec.data_checksum:
        these = f"{dataset.name} {dataset.checksum[:12]}…"
        raise ValueError(
            f"the run {spec.id} wants data {spec.data_checksum[:12]}…, these are {these}"
        )
    device = device or default_device()
    teach = None
    if (teacher := spec.method.learns_from) is not None:
        assert networks is not None
        teacher_network = network_of(teacher, networks(teacher), device)
        teach = lambda images: evaluate(teacher_network, images)[0]  # noqa: E731
    with a_trainer(spec.network, spec.num_classes, device) as trainer:
        started, core = time.perf_counter(), time.thread_time()
        trained = Trained(spec, material(spec, dataset, device), trainer.network, teach)
        _run_epochs(trained, trainer, monitors(trained.material), on_epoch)
        trained.seconds["training"] = time.perf_counter() - started
        if device.type == "cpu":
            trained.seconds["core"] = time.thread_time() - core
        trained.step = {"mode": trainer.mode, "fallbacks": trainer.fallbacks}
        yield trained


def network_of(spec: RunSpec, weights: dict[str, Tensor], device: torch.device) -> ImageClassifier:
    """The trained network of a run, in evaluation mode."""
    network = built(spec.network, spec.num_classes, device)
    network.load_state_dict(weights)
    return network.eval()


def _run_epochs(
    trained: Trained, trainer: Trainer, monitors: Sequence[Monitor], on_epoch: Callable[[int], None]
) -> None:
    spec, (seen, _, training, validation) = trained.spec, trained.material
    monitored = data.subset(seen.validation.labels, spec.monitor_size, seed=0).to(trained.device)
    images, labels = validation.images[monitored], validation.labels[monitored]
    batches = Augmenter(*training[:2], spec.recipe.batch_size, spec.seed, spec.recipe.augment)
    transition = None
    usual: list[Monitor] = [trained.best] if "selected" in spec.keep else []
    if isinstance(spec.labels, NoisyLabels):
        transition = transition_of(spec)
        usual.append(Memorisation(*training))
    labelled = TrainingLabels(training.labels, len(seen.classes), transition)
    criterion = spec.method.criterion(labelled).to(trained.device)
    spec.method.begin_epoch(criterion, 0, spec.epochs)  # before its step is captured
    mix = spec.method.mixer(len(seen.classes), trained.teach)
    trainer.begin(
        spec.recipe,
        criterion,
        steps=spec.epochs * batches.steps(),
        batch_size=batches.batch_size,
        pixels=batches.size,
        seed=spec.seed,
        soft=mix is not None,
        local=spec.method.local,
    )
    sampled = training.images[:: max(1, len(training.images) // WHITENED)]
    trained.network.fit_whitening(to_float(sampled))
    for epoch in range(spec.epochs):
        if epoch:
            spec.method.begin_epoch(criterion, epoch, spec.epochs)
        row = {"epoch": epoch + 1} | train_epoch(trainer, batches, mix)
        logits, _ = evaluate(trained.network, images)
        row |= hard_label("validation", logits, labels)
        row["validation_refinement"] = refinement(logits, labels)
        for monitor in [*usual, *monitors]:
            row |= monitor.after(trained.network, row)
        trained.history.append(row)
        on_epoch(epoch + 1)
        if not math.isfinite(row["train_loss"] + row["validation_nll"]):
            trained.status = "diverged"
            break


def train_epoch(trainer: Trainer, batches: Augmenter, mix: Mixer | None = None) -> dict[str, float]:
    """One pass; sums stay on the device, so the only wait for it is at the end of the epoch."""
    trainer.network.train()
    trainer.totals.zero_()
    for images, labels in batches.epoch():
        trainer.step(*(mix(images, labels) if mix else (images, labels)))
    names = ("train_loss", "train_nll", "train_accuracy")
    return dict(zip(names, (trainer.totals / batches.steps()).tolist(), strict=True))


def hard_label(name: str, logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Hard-label NLL (nats, float64) and accuracy of a split with this name."""
    return {
        f"{name}_nll": F.cross_entropy(logits.double(), labels).item(),
        f"{name}_accuracy": (logits.argmax(1) == labels).double().mean().item(),
    }


def refinement(logits: Tensor, labels: Tensor) -> float:
    """The NLL (nats) that the best temperature for these very images leaves; NaN where logits are
    not finite.

    The refinement part of the NLL, and the rest is its calibration part (Berta et al. 2025,
    arXiv:2501.19195): a loss is as good as the network tells classes apart once what recalibration
    can mend is taken off. Their code estimates it likewise, by temperature scaling on all images.
    """
    return fit_temperature(logits, labels).nll_after if logits.isfinite().all() else math.nan
