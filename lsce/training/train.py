"""One run, from its spec to what it leaves behind.

The data stay on the device as uint8 and are augmented there a batch at a time. The arithmetic is
bf16 autocast in channels_last where the hardware multiplies bf16 fast (CUDA from Ampere on, CPUs
with AMX) and float32 elsewhere; the outcome says which. On a CPU a run uses one thread, so that
the same seed gives the same bits on the same machine however many runs go on beside it.

All random draws come from the spec's seed: initialisation, training subset, label noise, and one
stream for data order and augmentation. Runs that differ in ε alone share all of them.
"""

import contextlib
import functools
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F

from lsce import data
from lsce.data import label_noise
from lsce.losses import LabelSmoothingCrossEntropy, alternatives
from lsce.measures import features, long_tail, robustness
from lsce.measures.temperature import fit_temperature
from lsce.results.store import Record
from lsce.training import monitors, networks
from lsce.training.batches import Augmenter, evaluate, to_float
from lsce.training.spec import LOSSES, RunSpec
from lsce.training.step import PIXELS, Trainer, built

#: Turns a batch of images and labels into one of images and label probabilities.
Mixer = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

#: Gives the state dict of a run's network.
Networks = Callable[[RunSpec], dict[str, Tensor]]

#: A name of `lsce.training.spec.LOSSES` → the loss.
RIVALS = {
    "focal": alternatives.FocalLoss,
    "maxsup": alternatives.MaxSup,
    "gce": alternatives.GeneralizedCrossEntropy,
    "forward": alternatives.ForwardCorrection,
    "backward": alternatives.BackwardCorrection,
}

#: Training images measured, without augmentation, after the last epoch (at most).
TRAIN_SAMPLE = 10_000
#: Training images that a fixed first layer is set from (about).
WHITENED = 5_000
#: Evaluations that take about as long as fitting linear probes to a run's features.
PROBE_IMAGES = 20_000


@dataclass
class Outcome:
    """What a run leaves: see `lsce.results.store.Record` for shapes.

    `history` has one row an epoch: `epoch`; `train_loss` (the smoothed criterion, nats),
    `train_nll` (hard-label) and `train_accuracy`, running means over the epoch's augmented
    batches; `validation_nll` and `validation_accuracy` on the monitored part of the validation
    split after the epoch; and what `lsce.training.monitors` measures. `final` has hard-label NLL and
    accuracy after the last epoch, in evaluation mode and without augmentation, on training,
    validation and test; `selected_epoch` and `selected_validation_accuracy` with the extra
    "selected"; and with "features" what `_representation` measures.

    With label noise the validation labels are as noisy as the training labels are, in all that
    uses them; final training values are of the true labels. With mixup or a teacher the running
    means are of the probabilities that the network learns; `smoothness` is how smooth a teacher's
    are (γ of Müller et al. 2019): the mean of what is not on the true class, times C/(C − 1). After
    a long tail `final` has what `lsce.measures.long_tail.measure` says of the test images.
    """

    status: str = "completed"
    history: list[dict[str, float]] = field(default_factory=list)
    final: dict[str, float] = field(default_factory=dict)
    temperature: dict[str, float] = field(default_factory=dict)
    #: training, with what is measured between the epochs; total; and on a CPU core, the training's
    #: processor time, which other work on the machine does not lengthen.
    seconds: dict[str, float] = field(default_factory=dict)
    #: How the training's steps were done, see `lsce.training.step.Trainer`: mode and fallbacks.
    step: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    #: Name of an extra (see `lsce.training.spec.EXTRAS`) → its tensors.
    extras: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    #: Rows of `lsce.training.spec.DETAILS`.
    details: list[dict[str, Any]] = field(default_factory=list)


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
    """The data set as the run labels it, and that of the classes that it never sees."""
    if spec.labels is not None:
        # The very images that a run with the classes themselves is trained on.
        chosen = data.subset(dataset.train.labels, spec.train_size, spec.seed)
        train = data.Split(dataset.train.images[chosen], dataset.train.labels[chosen])
        return data.coarse(replace(dataset, train=train)), None
    if spec.classes is None:
        return dataset, None
    seen = data.class_subset(spec.classes, spec.seed)
    unseen = [k for k in range(len(dataset.classes)) if k not in seen]
    return data.restrict(dataset, seen), data.restrict(dataset, unseen)


def _labelled(spec: RunSpec, dataset: data.Dataset, device: torch.device):
    """The run's subset: images, the labels it is trained on, and the true labels; then the
    validation images with the labels it is chosen by."""
    subset = data.subset
    if spec.imbalance is not None:
        subset = functools.partial(data.long_tail, imbalance=spec.imbalance)
    chosen = subset(dataset.train.labels, spec.train_size, seed=spec.seed)
    images, truth = dataset.train.images[chosen], dataset.train.labels[chosen]
    labels, validation = truth, dataset.validation.labels
    if spec.noise is not None:
        labels, validation = label_noise.flip_labels(
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
    networks: Networks | None = None,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> Outcome:
    """Train the run that `spec` describes on `dataset`, whose checksum must be the spec's.

    `networks` gives the teacher's, if there is one. `on_epoch` is called with the number of epochs
    done. Raises ValueError if the data are not those of the spec or the subset cannot be drawn.
    """
    if dataset.checksum != spec.data_checksum:
        raise ValueError(
            f"the run {spec.id} wants data {spec.data_checksum[:12]}…, these are "
            f"{dataset.name} {dataset.checksum[:12]}…"
        )
    device = device or default_device()
    seen, unseen = _of_classes(spec, dataset)
    teacher = None if spec.teacher is None else network_of(spec.teacher, networks, device)
    with _a_trainer(spec.model, len(seen.classes), device) as trainer:
        return _train(spec, seen, unseen, teacher, trainer, on_epoch)


def network_of(spec: RunSpec, networks: Networks, device: torch.device) -> networks.ImageClassifier:
    """The trained network of a run, in evaluation mode."""
    network = built(spec.model, spec.num_classes, device)
    network.load_state_dict(networks(spec))
    return network.eval()


def _criterion(spec: RunSpec, labels: Tensor, superclass: Sequence[int]) -> torch.nn.Module:
    """The loss of a run with these training labels."""
    if spec.teacher is not None:
        return alternatives.Distillation(spec.temperature)
    if spec.loss is not None:
        argument = spec.loss_parameter
        if LOSSES[spec.loss] is None:  # the corrections are given the noise
            argument = label_noise.transition_matrix(spec.noise, spec.noise_rate, superclass)
        return RIVALS[spec.loss](argument)
    if spec.epsilon < 0 or spec.warmup_epochs:
        return alternatives.GeneralizedLabelSmoothing(spec.epsilon, spec.convention)
    smoothed = functools.partial(
        LabelSmoothingCrossEntropy, spec.epsilon, convention=spec.convention
    )
    if spec.weighting is None:
        return smoothed()
    weights = long_tail.inverse_frequency(labels.bincount().tolist())
    if spec.weighting == "terms":
        return smoothed(class_weights=weights)
    return alternatives.SampleWeighted(smoothed(reduction="none"), weights)


def _teach(teacher: networks.ImageClassifier, temperature: float, images: Tensor) -> Tensor:
    """A teacher's probabilities, float32 (N, C), of images as `evaluate` takes them."""
    return (evaluate(teacher, images)[0] / temperature).softmax(1)


def _mixer(spec: RunSpec, classes: int, teacher: networks.ImageClassifier | None) -> Mixer | None:
    if teacher is not None:
        return lambda images, labels: (images, _teach(teacher, spec.temperature, images).clone())
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


def _train(spec, dataset, unseen, teacher, trainer, on_epoch) -> Outcome:
    started, core = time.perf_counter(), time.thread_time()
    outcome, device = Outcome(), trainer.device
    training, validation = _labelled(spec, dataset, device)
    monitored = data.subset(dataset.validation.labels, spec.monitor_size, seed=0).to(device)
    monitor = validation[0][monitored], validation[1][monitored]

    augment = spec.recipe.augment is not False
    batches = Augmenter(*training[:2], spec.recipe.batch_size, spec.seed, augment)
    criterion = _criterion(spec, training[1], dataset.superclass).to(device)
    if spec.warmup_epochs:
        criterion.epsilon.zero_()
    steps = spec.epochs * batches.steps()
    mix = _mixer(spec, len(dataset.classes), teacher)
    size, soft = batches.batch_size, mix is not None
    trainer.begin(spec.recipe, criterion, steps=steps, batch_size=size, seed=spec.seed, soft=soft)
    network = trainer.network
    network.fit_whitening(to_float(training[0][:: max(1, len(training[0]) // WHITENED)]))
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
    if device.type == "cpu":  # of its one thread, whatever else goes on beside it
        outcome.seconds["core"] = time.thread_time() - core
    outcome.step = {"mode": trainer.mode, "fallbacks": trainer.fallbacks}

    if outcome.status == "completed":
        _measure(outcome, spec, network, (training[0], training[2]), validation, dataset)
        if "unseen" in spec.keep:
            logits, _ = evaluate(network, unseen.test.images.to(device))
            outcome.extras["unseen"] = {"unseen_logits": logits.cpu()}
        if "features" in spec.keep:
            with threadpool_limits(1):  # NumPy and scikit-learn have threads of their own
                outcome.final |= _representation(outcome, dataset, unseen, network)
        if "selected" in spec.keep:
            _measure_selected(outcome, watching[0], network, validation, dataset)
        if teacher is not None:
            outcome.final["smoothness"] = _smoothness(spec, teacher, training[0], training[2])
    outcome.seconds["total"] = time.perf_counter() - started
    return outcome


def _measure(outcome, spec, network, training, validation, dataset) -> None:
    """Fill in what is measured after the last epoch."""
    device = training[0].device
    most = TRAIN_SAMPLE - TRAIN_SAMPLE % len(dataset.classes)
    counts = training[1].bincount(minlength=len(dataset.classes)).tolist()
    if spec.imbalance is None:
        sample = data.subset(training[1].cpu(), min(most, spec.train_size), spec.seed)
    else:
        sample = torch.arange(len(training[1]))
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
    if spec.imbalance is not None:
        test = (outcome.outputs[f"test_{name}"] for name in ("logits", "labels"))
        outcome.final |= long_tail.measure(*test, counts)
    if "weights" in spec.keep:
        outcome.extras["weights"] = {  # a copy: the next run uses the same network
            name: value.clone(memory_format=torch.contiguous_format).cpu()
            for name, value in network.state_dict().items()
        }
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
    """`lsce.measures.features.neural_collapse` of the training images, and the test accuracy of
    linear probes: `superclass_probe` where the run saw all classes, else `unseen_probe`, to tell
    the classes apart that it did not see."""
    kept, labels = outcome.extras["features"], outcome.extras["features"]["train_labels"]
    found = features.neural_collapse(
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
    accuracy, _ = features.linear_probe(*(part for split in splits for part in split))
    return found | {name: accuracy}


def _smoothness(spec, teacher, images, labels) -> float:
    """See `Outcome`."""
    on_true = _teach(teacher, spec.temperature, images).gather(1, labels[:, None])
    classes = spec.num_classes
    return (1 - on_true.double().mean()).item() * classes / (classes - 1)


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


def examine(
    spec: RunSpec,
    dataset: data.Dataset,
    base: Record,
    source: Record,
    *,
    device: torch.device | None = None,
) -> Outcome:
    """Try the network of `base` as the spec's examination says; the rest is what `base` left.

    Raises ValueError if the source, from which attacks are transferred, diverged.
    """
    started, device = time.perf_counter(), device or default_device()
    if source.diverged:
        raise ValueError(f"run {source.spec.id}, from which attacks are transferred, diverged")
    outcome = Outcome(base.status, base.history.to_dict("records"), dict(base.meta["final"]))
    outcome.seconds["training"] = base.meta["seconds"]["training"]
    if not base.diverged:
        outcome.temperature, outcome.outputs = base.meta["temperature"], base.outputs()
        tried, other = (
            network_of(record.spec, lambda _, record=record: record.weights(), device)
            for record in (base, source)
        )
        images, labels = dataset.test.images.to(device), dataset.test.labels.to(device)
        with _one_thread(device), threadpool_limits(1):
            found, outcome.details = robustness.examine(
                tried, other, images, labels, spec.examination, spec.seed
            )
        outcome.final |= found
    outcome.seconds["total"] = time.perf_counter() - started
    return outcome


def workload(spec: RunSpec) -> tuple[int, int]:
    """Images of full size that the run passes forward and backward, and that it only evaluates."""
    if spec.examination is not None:
        return robustness.workload(spec.examination)
    each = spec.monitor_size
    if spec.noise is not None:
        each += min(monitors.WRONG_SAMPLE, int(spec.train_size * spec.noise_rate))
    if "information" in spec.keep:
        images = min(monitors.INFORMATION_IMAGES, spec.train_size // 100)
        each += 4 * images * monitors.INFORMATION_DRAWS
    if spec.teacher is not None:
        # In the student's time for an image.
        cost = networks.multiply_adds(spec.teacher.model) / networks.multiply_adds(spec.model)
        each += round(cost * spec.images)
    once = min(spec.images, TRAIN_SAMPLE) + 15_000
    if "features" in spec.keep:
        once += PROBE_IMAGES + (0 if spec.classes is None else 600 * (100 - spec.classes))
    trained = spec.epochs * spec.images
    if spec.recipe.early_resolution is not None:  # smaller images take less, by their area
        share, pixels = spec.recipe.early_resolution
        trained = round(trained * (1 - share * (1 - (pixels / PIXELS) ** 2)))
    return trained, spec.epochs * each + once


class Speed(NamedTuple):
    """Seconds an image takes to train and to evaluate, and bytes of memory that a run takes: of the
    device, or on a CPU of the process."""

    train: float
    evaluate: float
    memory: int


def speed(spec: RunSpec, *, device: torch.device | None = None) -> Speed:
    """How fast the spec's network is, from a short timing."""
    device = device or default_device()
    batch, classes = spec.recipe.batch_size, spec.num_classes
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
        evaluation = timed(lambda: evaluate(trainer.network, images)[0].sum().item())
    return Speed(train_time, evaluation, _peak_memory(device))


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    try:
        import resource  # not on Windows
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
