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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F

from lsce import baselines, data, monitors, noise, representation
from lsce.batches import Augmenter, evaluate
from lsce.calibration import fit_temperature
from lsce.losses import LabelSmoothingCrossEntropy
from lsce.runs import LOSSES, RunSpec
from lsce.trainer import Trainer

#: Turns a batch of images and labels into one of mixed images and label probabilities.
Mixer = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

#: A name of `lsce.runs.LOSSES` → the loss.
RIVALS = {
    "focal": baselines.FocalLoss,
    "maxsup": baselines.MaxSup,
    "gce": baselines.GeneralizedCrossEntropy,
    "forward": baselines.ForwardCorrection,
    "backward": baselines.BackwardCorrection,
}

#: Training images measured, without augmentation, after the last epoch (at most).
TRAIN_SAMPLE = 10_000
#: Evaluations that take about as long as fitting linear probes to a run's features.
PROBE_IMAGES = 20_000


@dataclass
class Outcome:
    """What a run leaves: see `lsce.runs.Record` for shapes.

    `history` has one row an epoch: `epoch`; `train_loss` (the smoothed criterion, nats),
    `train_nll` (hard-label) and `train_accuracy`, running means over the epoch's augmented
    batches; `validation_nll` and `validation_accuracy` on the monitored part of the validation
    split after the epoch; and what `lsce.monitors` measures. `final` has hard-label NLL and
    accuracy after the last epoch, in evaluation mode and without augmentation, on training,
    validation and test; `selected_epoch` and `selected_validation_accuracy` with the extra
    "selected"; and with "features" what `_representation` measures.

    With label noise the validation labels are as noisy as the training labels are, in all that
    uses them; final training values are of the true labels.
    """

    status: str = "completed"
    history: list[dict[str, float]] = field(default_factory=list)
    final: dict[str, float] = field(default_factory=dict)
    temperature: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    #: Name of an extra (see `lsce.runs.EXTRAS`) → its tensors.
    extras: dict[str, dict[str, Tensor]] = field(default_factory=dict)


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


def _hard_label(name: str, logits: Tensor, labels: Tensor) -> dict[str, float]:
    return {
        f"{name}_nll": F.cross_entropy(logits.double(), labels).item(),
        f"{name}_accuracy": (logits.argmax(1) == labels).double().mean().item(),
    }


def train_epoch(trainer: Trainer, batches: Augmenter, mix: Mixer | None = None) -> dict[str, float]:
    """One pass; sums stay on the device, so the only wait for it is at the end of the epoch."""
    trainer.network.train()
    trainer.totals.zero_()
    for images, labels in batches.epoch():
        trainer.step(*(mix(images, labels) if mix else (images, labels)))
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


def _of_classes(spec: RunSpec, dataset: data.Dataset) -> tuple[data.Dataset, data.Dataset | None]:
    """The data set of the run's classes, and that of the classes it never sees."""
    if spec.classes is None:
        return dataset, None
    seen = data.class_subset(spec.classes, spec.seed)
    unseen = [k for k in range(len(dataset.classes)) if k not in seen]
    return data.restrict(dataset, seen), data.restrict(dataset, unseen)


def _labelled(spec: RunSpec, dataset: data.Dataset, device: torch.device):
    """The run's subset: images, the labels it is trained on, and the true labels; then the
    validation images with the labels it is chosen by."""
    chosen = data.subset(dataset.train.labels, spec.train_size, spec.seed)
    images, truth = dataset.train.images[chosen], dataset.train.labels[chosen]
    labels, validation = truth, dataset.validation.labels
    if spec.noise is not None:
        labels, validation = noise.flip_labels(
            torch.cat([truth, validation]),
            spec.noise,
            spec.noise_rate,
            spec.seed,
            dataset.superclass,
        ).split([len(truth), len(validation)])
    training = images.to(device), labels.to(device), truth.to(device)
    return training, (dataset.validation.images.to(device), validation.to(device))


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
    seen, unseen = _of_classes(spec, dataset)
    with _a_trainer(spec.model, len(seen.classes), device) as trainer:
        return _train(spec, seen, unseen, trainer, on_epoch)


def _criterion(spec: RunSpec, superclass: Sequence[int]) -> torch.nn.Module:
    if spec.loss is not None:
        argument = spec.loss_parameter
        if LOSSES[spec.loss] is None:  # the corrections are given the noise
            argument = noise.transition_matrix(spec.noise, spec.noise_rate, superclass)
        return RIVALS[spec.loss](argument)
    if spec.epsilon < 0 or spec.warmup_epochs:
        return baselines.GeneralizedLabelSmoothing(spec.epsilon, spec.convention)
    return LabelSmoothingCrossEntropy(spec.epsilon, convention=spec.convention)


def _mixer(spec: RunSpec, classes: int) -> Mixer | None:
    if spec.mixup is None:
        return None
    from torchvision.transforms.v2 import MixUp  # a second to import

    return MixUp(alpha=spec.mixup, num_classes=classes)


def _monitors(spec: RunSpec, dataset: data.Dataset, training) -> list:
    images, labels, truth = training
    found: list = []
    if "selected" in spec.keep:
        found.append(monitors.Best())
    if spec.noise is not None:
        found.append(monitors.Memorisation(images, labels, truth))
    if "information" in spec.keep:
        names = data.EXAMPLES[dataset.name]
        pairs = {
            name: [dataset.classes.index(k) for k in (three[0], three[-1])]
            for name, three in names.items()
        }
        found.append(monitors.Information(images, truth, pairs))
    return found


def _train(spec, dataset, unseen, trainer, on_epoch) -> Outcome:
    outcome, started, device = Outcome(), time.perf_counter(), trainer.device
    training, validation = _labelled(spec, dataset, device)
    monitored = data.subset(dataset.validation.labels, spec.monitor_size, seed=0).to(device)
    monitor = validation[0][monitored], validation[1][monitored]

    batches = Augmenter(*training[:2], spec.recipe.batch_size, seed=spec.seed)
    criterion = _criterion(spec, dataset.superclass).to(device)
    if spec.warmup_epochs:
        criterion.epsilon.zero_()
    steps = spec.epochs * batches.steps()
    size, soft = batches.batch_size, spec.mixup is not None
    trainer.begin(spec.recipe, criterion, steps=steps, batch_size=size, seed=spec.seed, soft=soft)
    network, mix = trainer.network, _mixer(spec, len(dataset.classes))
    watching = _monitors(spec, dataset, training)
    for epoch in range(spec.epochs):
        if epoch and epoch == spec.warmup_epochs:
            criterion.epsilon.fill_(spec.epsilon)
        row = {"epoch": epoch + 1} | train_epoch(trainer, batches, mix)
        row |= _hard_label("validation", evaluate(network, monitor[0])[0], monitor[1])
        for watch in watching:
            row |= watch.after(network, row)
        outcome.history.append(row)
        on_epoch(epoch + 1)
        if not math.isfinite(row["train_loss"]):
            outcome.status = "diverged"
            break
    outcome.seconds["training"] = time.perf_counter() - started

    if outcome.status == "completed":
        _measure(outcome, spec, network, (training[0], training[2]), validation, dataset)
        if "features" in spec.keep:
            with threadpool_limits(1):  # NumPy and scikit-learn have threads of their own
                outcome.final |= _representation(outcome, dataset, unseen, network)
        if "selected" in spec.keep:
            _measure_selected(outcome, watching[0], network, validation, dataset)
    outcome.seconds["total"] = time.perf_counter() - started
    return outcome


def _measure(outcome, spec, network, training, validation, dataset) -> None:
    """Fill in what is measured after the last epoch."""
    device = training[0].device
    most = TRAIN_SAMPLE - TRAIN_SAMPLE % len(dataset.classes)
    sample = data.subset(training[1].cpu(), min(most, spec.train_size), spec.seed)
    splits = {
        "train": (training[0][sample.to(device)], training[1][sample.to(device)]),
        "validation": validation,
        "test": (dataset.test.images.to(device), dataset.test.labels.to(device)),
    }
    features = {}
    for name, (images, labels) in splits.items():
        logits, features[f"{name}_features"] = evaluate(network, images)
        outcome.final |= _hard_label(name, logits, labels)
        if name != "train":
            outcome.outputs[f"{name}_logits"] = logits.cpu()
            outcome.outputs[f"{name}_labels"] = labels.cpu().clone()
    if "features" in spec.keep:
        features["train_labels"] = splits["train"][1]
        features["classifier_weight"] = network.classifier.weight.detach().clone()
        features["classifier_bias"] = network.classifier.bias.detach().clone()
        outcome.extras["features"] = {name: value.cpu() for name, value in features.items()}
    fitted = fit_temperature(
        outcome.outputs["validation_logits"], outcome.outputs["validation_labels"]
    )
    outcome.temperature = {"value": fitted.value, "converged": fitted.converged}


def _representation(outcome, dataset, unseen, network) -> dict[str, float]:
    """`lsce.representation.neural_collapse` of the training images, and the test accuracy of
    linear probes: `superclass_probe` where the run saw all classes, else `unseen_probe`, to tell
    the classes apart that it did not see."""
    kept, labels = outcome.extras["features"], outcome.extras["features"]["train_labels"]
    found = representation.neural_collapse(
        kept["train_features"], labels, kept["classifier_weight"], kept["classifier_bias"]
    )
    if unseen is None:
        above = torch.tensor(dataset.superclass)
        splits = [
            (kept["train_features"], above[labels]),
            (kept["validation_features"], above[dataset.validation.labels]),
            (kept["test_features"], above[dataset.test.labels]),
        ]
        name = "superclass_probe"
    else:
        device = next(network.parameters()).device
        splits = [
            (evaluate(network, split.images.to(device))[1].cpu(), split.labels)
            for split in (unseen.train, unseen.validation, unseen.test)
        ]
        name = "unseen_probe"
    accuracy, _ = representation.linear_probe(*(part for split in splits for part in split))
    return found | {name: accuracy}


def _measure_selected(outcome, best, network, validation, dataset) -> None:
    """The epoch that validation chose: its outputs are the last's, if it is the last."""
    logits = {name: outcome.outputs[f"{name}_logits"] for name in ("validation", "test")}
    if best.epoch != len(outcome.history):
        best.restore(network)
        images = {"validation": validation[0], "test": dataset.test.images.to(validation[0].device)}
        logits = {name: evaluate(network, images[name])[0].cpu() for name in images}
    accuracy = (logits["validation"].argmax(1) == validation[1].cpu()).double().mean().item()
    outcome.final |= {"selected_epoch": best.epoch, "selected_validation_accuracy": accuracy}
    outcome.extras["selected"] = {f"{name}_logits": value for name, value in logits.items()}


def workload(spec: RunSpec) -> tuple[int, int]:
    """Images that the run passes forward and backward, and images that it only evaluates."""
    each = spec.monitor_size
    if spec.noise is not None:
        each += min(monitors.WRONG_SAMPLE, int(spec.train_size * spec.noise_rate))
    if "information" in spec.keep:
        images = min(monitors.INFORMATION_IMAGES, spec.train_size // 100)
        each += 4 * images * monitors.INFORMATION_DRAWS
    once = min(spec.train_size, TRAIN_SAMPLE) + 15_000
    if "features" in spec.keep:
        once += PROBE_IMAGES + (0 if spec.classes is None else 600 * (100 - spec.classes))
    return spec.epochs * spec.train_size, spec.epochs * each + once


def time_per_image(spec: RunSpec, *, device: torch.device | None = None) -> tuple[float, float]:
    """Seconds an image to train and to evaluate the spec's network, from a short timing."""
    device = device or default_device()
    batch, classes = spec.recipe.batch_size, spec.classes or 100
    images = torch.randint(0, 256, (4 * batch, 32, 32, 3), dtype=torch.uint8, device=device)
    labels = torch.randint(0, classes, (4 * batch,), device=device)
    with _a_trainer(spec.model, classes, device) as trainer:
        batches = Augmenter(images, labels, batch, seed=0)
        criterion = LabelSmoothingCrossEntropy(0.1)
        trainer.begin(
            spec.recipe, criterion, steps=2 * batches.steps(), batch_size=batch, seed=spec.seed
        )

        def timed(work: Callable[[], object]) -> float:
            work()  # the first pass picks and compiles kernels
            start = time.perf_counter()
            work()
            return (time.perf_counter() - start) / len(images)

        train_time = timed(lambda: train_epoch(trainer, batches))
        return train_time, timed(lambda: evaluate(trainer.network, images)[0].sum().item())
