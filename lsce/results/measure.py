"""What pages need of a run, measured once, where it was trained.

The scalars of a run, in evaluation mode and without augmentation:

- `{train,validation,test}_nll` (hard-label, nats) and `…_accuracy`, of at most 10,000 training
  images with their true labels; `nll_gap` and `accuracy_gap`, between test and training
- `temperature`, fitted on the validation split, whether it `…_converged` (1 or 0), and the
  `validation_nll_scaled` that it leaves; `validation_debiased_ce`, and `_scaled`
- `lsce.measures.calibration.summarize` on the test split: as trained; temperature-scaled, with the
  suffix `_scaled`; and `_selected`, at the epoch that validation chose (`selected_epoch`, with
  `selected_validation_accuracy`)
- the calibration parts of the proper scores, `nll_calibration` and `brier_calibration`: what
  temperature scaling takes off; `nll_scaled` and `brier_scaled` are the refinement parts (Berta et
  al. 2025, arXiv:2501.19195)
- where all classes are told apart `related_auroc`, see `lsce.measures.features.relatedness`
- what monitors saw after the last epoch, `validation_refinement` among it
- with "features" `lsce.measures.features.neural_collapse` of the training images and the test
  accuracy of linear probes: `superclass_probe`, or `unseen_probe` where some classes were not seen,
  with the strength chosen on validation, and with the usual one `…_usual`
- with "selective" and "unseen" those of `lsce.measures.selective`; with "selective" `aps_size` and
  `raps_size`, the mean number of classes in the prediction sets of `lsce.measures.conformal`, and
  `…_coverage`, as trained and `_scaled`, and `far_auroc` and `far_fpr95` for test images of `FAR`,
  with the suffixes of `lsce.measures.selective.unseen`, if the run's images are others of that size
- after a long tail those of `lsce.measures.long_tail.measure`
- with a teacher `smoothness`, γ of Müller et al. 2019: the mean of its probabilities of other than
  the true class, times C/(C − 1)

With label noise the validation labels are as noisy as the training labels, in all that uses them.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F

from lsce import data
from lsce.measures import calibration, conformal, features, long_tail, selective
from lsce.measures.arrays import Values
from lsce.measures.temperature import fit_temperature
from lsce.results import by_groups
from lsce.results.run import MONITORED, WIDTHS, Run, details_of
from lsce.training.batches import evaluate
from lsce.training.methods import Distillation
from lsce.training.spec import LongTail, RunSpec
from lsce.training.train import Trained, hard_label

#: Training images that are measured (at most).
TRAIN_SAMPLE = 10_000

#: Bins of the binned calibration errors, unless a page asks for others.
BINS = 15

#: Examples of each class that a projection shows, of either split.
PROJECTED = 100

#: The data set whose test images are unlike any that a network has seen.
FAR = "built-in"

#: Larger logit gaps and NLLs (nats) of an image, that only unbounded losses leave, count as these.
LARGEST_GAP, LARGEST_NLL = 200.0, 500.0

#: Named groups of tensors. "outputs": `{test,validation}_logits` float32 (N, C) and `…_labels`
#: int64 (N,); "features": `{train,validation,test}_features` float32 (N, D), `train_labels` int64
#: (N,), `classifier_weight` (C, D) and `classifier_bias` (C,); "weights": the network's state dict.
Tensors = dict[str, dict[str, Tensor]]


def measure(trained: Trained, origin: dict[str, Any]) -> tuple[Run, Tensors]:
    """All that pages need of a run, and the tensors it was measured from; of one that diverged its
    history alone."""
    spec, keep = trained.spec, trained.spec.keep
    history = pd.DataFrame(trained.history)
    run = Run(spec, trained.status, origin, history=history, kept=frozenset(keep))
    if run.diverged:
        return run, {}
    scalars, tensors = run.scalars, _evaluate(trained, run.scalars)
    outputs = tensors["outputs"]
    validation = outputs["validation_logits"], outputs["validation_labels"]
    test = outputs["test_logits"], outputs["test_labels"]
    groups = by_groups.of_images(spec, test[1])
    if isinstance(spec.sample, LongTail):
        counts = trained.material.training.truth.bincount(minlength=spec.num_classes).tolist()
        by_groups.add(run, groups, lambda of: long_tail.measure(test[0][of], test[1][of], counts))
    fitted = fit_temperature(*validation)
    scaled = validation[0].double() / fitted.value
    scalars["temperature"] = fitted.value
    scalars["temperature_converged"] = float(fitted.converged)
    scalars["validation_nll_scaled"] = F.cross_entropy(scaled, validation[1]).item()
    for suffix, logits in {"": validation[0], "_scaled": scaled}.items():
        probs = calibration.softmax(logits)
        error = calibration.debiased_calibration_error(probs, validation[1])
        scalars[f"validation_debiased_ce{suffix}"] = error
    of_test_images(run, outputs)
    last = history.iloc[-1]
    scalars.update({name: float(last[name]) for name in MONITORED if name in last})
    rows: list[dict[str, Any]] = []
    if "features" in keep:
        with threadpool_limits(1):  # NumPy and scikit-learn have threads of their own
            scalars.update(_collapse(tensors["features"]))
            name, probe, probe_labels = _probe(trained, tensors["features"])
        right = dict(zip(features.STRENGTHS, probe.correct, strict=True))
        by_image = {name: right[probe.strength], f"{name}_usual": right[features.USUAL_STRENGTH]}
        probed = by_groups.of_images(spec, probe_labels, others="" if name[0] == "s" else "unseen")
        by_groups.add(run, probed, by_groups.means(by_image))
        rows += [
            {"quantity": "probe", "case": name, "x": strength, "value": accuracy}
            for strength, accuracy in probe.accuracies.items()
        ]
        run.projections.update(projections(spec, tensors, spec.entry.examples))
    _of_other_images(trained, run, groups, outputs)
    if "selective" in keep:
        measured, risks = selective.selective(*validation, *test, fitted.value)
        scalars.update(measured)
        by_groups.add(run, groups, by_groups.excess(*test, fitted.value, measured["norm"]))
        _prediction_sets(run, groups, outputs, fitted.value)
        rows += risks
    run = replace(run, details=details_of(rows))
    if "weights" in keep:
        tensors["weights"] = {  # a copy: the next run uses the same network
            name: value.clone(memory_format=torch.contiguous_format).cpu()
            for name, value in trained.network.state_dict().items()
        }
    if isinstance(spec.method, Distillation):
        scalars["smoothness"] = _smoothness(trained, spec.method)
    if "selected" in keep:  # last: it gives the network the weights of another epoch
        _selected(trained, run, outputs)
    return run, tensors


def _evaluate(trained: Trained, scalars: dict[str, float]) -> Tensors:
    """Adds the NLL and accuracy of every split to the scalars; returns logits, labels, features."""
    spec, device, network = trained.spec, trained.device, trained.network
    seen, _, training, validation = trained.material
    sample = torch.arange(len(training.truth), device=device)
    if not isinstance(spec.sample, LongTail):
        most = TRAIN_SAMPLE - TRAIN_SAMPLE % len(seen.classes)
        size = min(most, spec.sample.train_size)
        sample = data.subset(training.truth.cpu(), size, spec.seed).to(device)
    splits = {
        "train": (training.images[sample], training.truth[sample]),
        "validation": (validation.images, validation.labels),
        "test": (seen.test.images.to(device), seen.test.labels.to(device)),
    }
    outputs, kept = {}, {}
    for name, (images, labels) in splits.items():
        logits, kept[f"{name}_features"] = evaluate(network, images)
        scalars.update(hard_label(name, logits, labels))
        if name != "train":
            outputs[f"{name}_logits"] = logits.cpu()
            outputs[f"{name}_labels"] = labels.cpu().clone()
    scalars["nll_gap"] = scalars["test_nll"] - scalars["train_nll"]
    scalars["accuracy_gap"] = scalars["train_accuracy"] - scalars["test_accuracy"]
    if "features" not in spec.keep:
        return {"outputs": outputs}
    kept["train_labels"] = splits["train"][1]
    kept["classifier_weight"] = network.classifier.weight.detach().clone()
    kept["classifier_bias"] = network.classifier.bias.detach().clone()
    return {"outputs": outputs, "features": {name: value.cpu() for name, value in kept.items()}}


def of_test_images(run: Run, outputs: Mapping[str, Tensor], bins: int = BINS) -> None:
    """Fill in the scalars, counts and samples of the test images, binned errors with `bins` bins.

    outputs: `test_logits`, floats (N, C), and `test_labels`, integers (N,).
    """
    logits, labels = outputs["test_logits"].double().numpy(), outputs["test_labels"].numpy()
    probs = calibration.softmax(logits)
    scaled = calibration.softmax(logits, run.scalars["temperature"])
    predicted, images, classes = logits.argmax(axis=1), np.arange(len(labels)), logits.shape[1]
    run.samples.update(
        confidence=probs.max(axis=1),
        scaled=scaled.max(axis=1),
        correct=predicted == labels,
    )
    nll = {
        f"nll{suffix}": -np.log(np.maximum(values[images, labels], np.exp(-LARGEST_NLL)))
        for suffix, values in {"": probs, "_scaled": scaled}.items()
    }
    entry, groups = run.spec.entry, by_groups.of_images(run.spec, outputs["test_labels"])
    if classes == entry.num_classes:
        if entry.posterior is not None:
            run.samples["true_probability"] = _posterior(entry.name)[images, predicted]
        # The probabilities' order is that of the logits.
        related = features.relatedness(probs, labels, entry.superclass)
        by_groups.add(run, groups, by_groups.means({"related_auroc": related}))
    gap = (classes * logits.max(axis=1) - logits.sum(axis=1)) / (classes - 1)
    counted = {"confidence": (run.samples["confidence"], 1.0), "gap": (gap, LARGEST_GAP)}
    for quantity, (values, largest) in counted.items():
        width = WIDTHS[quantity]
        # What is at the largest value, or by a rounding outside, belongs to the bin at that end.
        positions = np.clip(values / width, 0, largest / width - 1e-9).astype(int)
        run.counts[quantity] = np.bincount(positions)
    for suffix, values in {"": probs, "_scaled": scaled}.items():
        run.scalars.update(_summary(values, labels, suffix, bins))
    for score in ("nll", "brier"):
        part = run.scalars[score] - run.scalars[f"{score}_scaled"]
        run.scalars[f"{score}_calibration"] = part
    run.by_group.update(by_groups.of_samples(run.samples | nll, groups, bins))


def _summary(probs: Values, labels: Values, suffix: str, bins: int = BINS) -> dict[str, float]:
    summary = calibration.summarize(probs, labels, bins)
    return {f"{name}{suffix}": value for name, value in summary.items()}


@functools.cache
def _posterior(name: str) -> np.ndarray:
    posterior = data.entry(name).posterior
    assert posterior is not None
    return np.asarray(posterior(data.load(name).test.images))


def _prediction_sets(
    run: Run, groups: np.ndarray, outputs: Mapping[str, Tensor], temperature: float
) -> None:
    """Size and coverage of prediction sets, as trained and after temperature scaling."""
    labels = outputs["validation_labels"], outputs["test_labels"]
    for suffix, divisor in {"": 1.0, "_scaled": temperature}.items():
        held_out, test = (
            calibration.softmax(outputs[f"{split}_logits"], divisor)
            for split in ("validation", "test")
        )
        for kind, penalty in conformal.KINDS.items():
            sizes, covered = conformal.adaptive_sets(held_out, labels[0], test, labels[1], penalty)
            by_image = {f"{kind}_size{suffix}": sizes, f"{kind}_coverage{suffix}": covered}
            by_groups.add(run, groups, by_groups.means(by_image))


def _of_other_images(
    trained: Trained, run: Run, groups: np.ndarray, outputs: Mapping[str, Tensor]
) -> None:
    """How well scores tell the test images from those of classes that were not seen, which are near
    to them, and from those of `FAR`."""
    spec, others = trained.spec, dict[str, data.Split]()
    if (unseen := trained.material.unseen) is not None and "unseen" in spec.keep:
        others["unseen"] = unseen.test
    if sees_far_images(spec):
        others["far"] = _far_images()
    test, temperature = outputs["test_logits"], run.scalars["temperature"]
    for name, split in others.items():
        norm = selective.choose_norm(outputs["validation_logits"], outputs["validation_labels"])
        logits = evaluate(trained.network, split.images.to(trained.device))[0].cpu()
        run.scalars.update(selective.unseen(test, logits, temperature, norm, name))
        of_others = by_groups.of_images(spec, split.labels, others=name)
        both = np.concatenate([groups, of_others])
        run.by_group.update(by_groups.detection(test, logits, temperature, name, both))


def sees_far_images(spec: RunSpec) -> bool:
    """Whether the test images of `FAR` are shown to its network."""
    same_size = spec.entry.pixels == data.entry(FAR).pixels
    return "selective" in spec.keep and spec.data != FAR and same_size


@functools.cache
def _far_images() -> data.Split:
    return data.load(FAR).test


def _collapse(kept: Mapping[str, Tensor]) -> dict[str, float]:
    """Neural collapse of the training images."""
    classifier = kept["classifier_weight"], kept["classifier_bias"]
    scalars = features.neural_collapse(kept["train_features"], kept["train_labels"], *classifier)
    scalars["log_nc1"] = math.log10(scalars["nc1"])
    scalars["log_scatter_ratio"] = math.log10(scalars["within"] / scalars["between"])
    return scalars


def _probe(trained: Trained, kept: Mapping[str, Tensor]) -> tuple[str, features.Probe, Tensor]:
    """The linear probe of the superclasses or, where some classes were not seen, of these, with its
    name before and the classes of its test images after it."""
    seen, unseen, *_ = trained.material
    probed: list[Tensor] = []  # features and labels, split by split
    if unseen is None:
        labels = kept["train_labels"], seen.validation.labels, seen.test.labels
        above = torch.tensor(seen.superclass)
        for split, classes in zip(("train", "validation", "test"), labels, strict=True):
            probed += kept[f"{split}_features"], above[classes]
    else:
        for part in (unseen.train, unseen.validation, unseen.test):
            images = part.images.to(trained.device)
            probed += evaluate(trained.network, images)[1].cpu(), part.labels
    name, tested = ("superclass_probe", seen) if unseen is None else ("unseen_probe", unseen)
    return name, features.linear_probe(*probed), tested.test.labels


def projections(
    spec: RunSpec, tensors: Tensors, classes: Mapping[str, Sequence[str]]
) -> dict[str, np.ndarray]:
    """Examples of three classes each, by their names, on the plane of their templates (see
    `lsce.results.run.Run.projections`); none of a run that does not see all classes."""
    if spec.num_classes != spec.entry.num_classes:
        return {}
    kept = tensors["features"]
    labels = {"train": kept["train_labels"], "validation": tensors["outputs"]["validation_labels"]}
    projected = {}
    for group, names in classes.items():
        three = [spec.entry.classes.index(name) for name in names]
        for split in labels:
            of_split = kept[f"{split}_features"]
            points = features.projection(of_split, kept["classifier_weight"], three)
            first = [(labels[split] == k).nonzero().flatten()[:PROJECTED] for k in three]
            projected[f"{group}.{split}"] = np.stack([points[i] for i in first]).astype(np.float32)
    return projected


def _smoothness(trained: Trained, method: Distillation) -> float:
    assert trained.teach is not None
    images, _, truth = trained.material.training
    on_true = method.probabilities(trained.teach, images).gather(1, truth[:, None])
    classes = trained.spec.num_classes
    return (1 - on_true.double().mean()).item() * classes / (classes - 1)


def _selected(trained: Trained, run: Run, outputs: Mapping[str, Tensor]) -> None:
    """The epoch that validation chose."""
    logits = [outputs["validation_logits"], outputs["test_logits"]]
    if trained.best.epoch != len(trained.history):
        trained.best.restore(trained.network)
        test = trained.material.seen.test.images.to(trained.device)
        splits = trained.material.validation.images, test
        logits = [evaluate(trained.network, images)[0].cpu() for images in splits]
    right = logits[0].argmax(1) == outputs["validation_labels"]
    run.scalars["selected_epoch"] = trained.best.epoch
    run.scalars["selected_validation_accuracy"] = right.double().mean().item()
    probs, labels = calibration.softmax(logits[1]), outputs["test_labels"]
    run.scalars.update(_summary(probs, labels, "_selected"))
    wrong = (logits[1].argmax(1) != labels).numpy()
    groups = by_groups.of_images(trained.spec, labels)
    by_groups.add(run, groups, by_groups.means({"top1_error_selected": wrong}))
