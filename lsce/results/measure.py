"""What pages need of a run, measured once, where it was trained.

The scalars of a run are hard-label NLL (nats) and accuracy on training images (at most 10,000 of
them, with their true labels), validation and test, in evaluation mode and without augmentation;
the differences between test and training; the temperature fitted on the validation split
(`temperature_converged`: 1 or 0) with the validation NLL that it leaves;
`lsce.measures.calibration.summarize` on the test split, as trained and, with the suffix `_scaled`,
after temperature scaling, and `_selected`, at the epoch that validation chose (with
`selected_epoch` and `selected_validation_accuracy`); `related_auroc`, see
`lsce.measures.features.relatedness`, where all classes are told apart; what monitors saw after the
last epoch; with "features", `lsce.measures.features.neural_collapse` of the training images and the
test accuracy of linear probes (`superclass_probe`, or `unseen_probe` where the run never saw some
classes); with "selective" and "unseen" what `lsce.measures.selective` says; after a long tail what
`lsce.measures.long_tail.measure` says; and with a teacher `smoothness`, how smooth its
probabilities are (γ of Müller et al. 2019): the mean of what is not on the true class, times
C/(C − 1).

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
from lsce.measures import calibration, features, long_tail, selective
from lsce.measures.temperature import fit_temperature
from lsce.results.run import MONITORED, WIDTHS, Run
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

#: Logit gaps beyond this, which only losses that can run away leave, are counted as this.
LARGEST_GAP = 200.0

#: The NLL of an image, in nats, is at most this.
LARGEST_NLL = 500.0


#: Logits, float32 (N, C), and labels, int64 (N,).
Split = tuple[Tensor, Tensor]

#: Named groups of tensors. "outputs": `{test,validation}_logits` float32 (N, C) and `…_labels`
#: int64 (N,); "features": `{train,validation,test}_features` float32 (N, D), `train_labels` int64
#: (N,), `classifier_weight` (C, D) and `classifier_bias` (C,); "weights": the network's state dict.
Tensors = dict[str, dict[str, Tensor]]


def measure(trained: Trained, origin: dict[str, Any]) -> tuple[Run, Tensors]:
    """All that pages need of a run, and what it was measured from; of one that diverged its history
    alone."""
    spec, keep = trained.spec, trained.spec.keep
    history = pd.DataFrame(trained.history)
    run = Run(spec, trained.status, origin, history=history, kept=frozenset(keep))
    if run.diverged:
        return run, {}
    tensors = _evaluate(trained, run)
    outputs = tensors["outputs"]
    test, validation = (
        (outputs[f"{split}_logits"], outputs[f"{split}_labels"]) for split in ("test", "validation")
    )
    if isinstance(spec.sample, LongTail):
        counts = trained.material.training.truth.bincount(minlength=spec.num_classes).tolist()
        run.scalars.update(long_tail.measure(*test, counts))
    fitted = fit_temperature(*validation)
    scaled = F.cross_entropy(validation[0].double() / fitted.value, validation[1]).item()
    run.scalars["temperature"] = fitted.value
    run.scalars["temperature_converged"] = float(fitted.converged)
    run.scalars["validation_nll_scaled"] = scaled
    of_test_images(run, outputs)
    last = history.iloc[-1]
    run.scalars.update({name: float(last[name]) for name in MONITORED if name in last})
    if "features" in keep:
        with threadpool_limits(1):  # NumPy and scikit-learn have threads of their own
            run.scalars.update(_representation(trained, tensors["features"]))
        run.projections.update(projections(spec, tensors, spec.entry.examples))
    run = _selective(trained, run, test, validation)
    if "weights" in keep:
        tensors["weights"] = {  # a copy: the next run uses the same network
            name: value.clone(memory_format=torch.contiguous_format).cpu()
            for name, value in trained.network.state_dict().items()
        }
    if isinstance(spec.method, Distillation):
        run.scalars["smoothness"] = _smoothness(trained, spec.method)
    if "selected" in keep:  # last: it gives the network the weights of another epoch
        run.scalars.update(_selected(trained, outputs))
    return run, tensors


def _evaluate(trained: Trained, run: Run) -> Tensors:
    """NLL and accuracy of every split; returns logits, labels and features."""
    spec, (seen, _, training, validation) = trained.spec, trained.material
    most = TRAIN_SAMPLE - TRAIN_SAMPLE % len(seen.classes)
    if isinstance(spec.sample, LongTail):
        sample = torch.arange(len(training.truth))
    else:
        size = min(most, spec.sample.train_size)
        sample = data.subset(training.truth.cpu(), size, spec.seed)
    sample, device = sample.to(trained.device), trained.device
    splits = {
        "train": (training.images[sample], training.truth[sample]),
        "validation": (validation.images, validation.labels),
        "test": (seen.test.images.to(device), seen.test.labels.to(device)),
    }
    outputs, of_features = {}, {}
    for name, (images, labels) in splits.items():
        logits, of_features[f"{name}_features"] = evaluate(trained.network, images)
        run.scalars.update(hard_label(name, logits, labels))
        if name != "train":
            outputs[f"{name}_logits"] = logits.cpu()
            outputs[f"{name}_labels"] = labels.cpu().clone()
    scalars = run.scalars
    scalars["nll_gap"] = scalars["test_nll"] - scalars["train_nll"]
    scalars["accuracy_gap"] = scalars["train_accuracy"] - scalars["test_accuracy"]
    tensors = {"outputs": outputs}
    if "features" in spec.keep:
        of_features["train_labels"] = splits["train"][1]
        of_features["classifier_weight"] = trained.network.classifier.weight.detach().clone()
        of_features["classifier_bias"] = trained.network.classifier.bias.detach().clone()
        tensors["features"] = {name: value.cpu() for name, value in of_features.items()}
    return tensors


def of_test_images(run: Run, outputs: Mapping[str, Tensor], bins: int = BINS) -> None:
    """Fill in what the logits of the test images say, binned errors with so many bins."""
    logits, labels = outputs["test_logits"].double().numpy(), outputs["test_labels"].numpy()
    probs = calibration.softmax(logits)
    scaled = calibration.softmax(logits, run.scalars["temperature"])
    predicted = logits.argmax(axis=1)
    samples = {
        "confidence": probs.max(axis=1),
        "scaled": scaled.max(axis=1),
        "correct": predicted == labels,
        "nll": _nll(probs, labels),
        "nll_scaled": _nll(scaled, labels),
    }
    entry, count = run.spec.entry, logits.shape[1]
    if count == entry.num_classes:
        if entry.posterior is not None:
            known = _posterior(entry.name)
            samples["true_probability"] = known[np.arange(len(labels)), predicted]
        # The probabilities' order is that of the logits.
        related = features.relatedness(probs, labels, entry.superclass)
        run.scalars["related_auroc"] = related
    gap = (count * logits.max(axis=1) - logits.sum(axis=1)) / (count - 1)
    run.samples.update(samples)
    run.counts["confidence"] = _counts(samples["confidence"], "confidence", 1.0)
    run.counts["gap"] = _counts(gap, "gap", LARGEST_GAP)
    for suffix, part in {"": probs, "_scaled": scaled}.items():
        run.scalars.update(_summary(part, labels, suffix, bins))


def _selective(trained: Trained, run: Run, test: Split, validation: Split) -> Run:
    """What scores say of wrong images and of classes never seen."""
    logits, temperature = test[0].double().numpy(), run.scalars["temperature"]
    if "unseen" in run.kept:
        assert trained.material.unseen is not None
        images = trained.material.unseen.test.images.to(trained.device)
        others, norm = (
            evaluate(trained.network, images)[0].cpu(),
            selective.choose_norm(*validation),
        )
        run.scalars.update(selective.unseen(logits, others, temperature, norm))
    if "selective" not in run.kept:
        return run
    found, rows = selective.selective(*validation, logits, test[1], temperature)
    run.scalars.update(found)
    return replace(run, details=pd.DataFrame(rows))


def _summary(probs: np.ndarray, labels: Any, suffix: str, bins: int = BINS) -> dict[str, float]:
    summary = calibration.summarize(probs, labels, bins)
    return {f"{name}{suffix}": value for name, value in summary.items()}


def _nll(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    smallest = np.exp(-LARGEST_NLL)
    return np.asarray(-np.log(np.maximum(probs[np.arange(len(labels)), labels], smallest)))


def _counts(values: np.ndarray, quantity: str, highest: float) -> np.ndarray:
    bins = values / WIDTHS[quantity]
    # What is at the highest value, or by a rounding outside, belongs to the bin at that end.
    return np.bincount(np.clip(bins, 0, highest / WIDTHS[quantity] - 1e-9).astype(int))


@functools.cache
def _posterior(name: str) -> np.ndarray:
    posterior = data.entry(name).posterior
    assert posterior is not None
    return np.asarray(posterior(data.load(name).test.images))


def _representation(trained: Trained, kept: Mapping[str, Tensor]) -> dict[str, float]:
    """Neural collapse of the training images, and linear probes."""
    (seen, unseen, *_), labels = trained.material, kept["train_labels"]
    found = features.neural_collapse(
        kept["train_features"], labels, kept["classifier_weight"], kept["classifier_bias"]
    )
    found["log_nc1"] = math.log10(found["nc1"])
    found["log_scatter_ratio"] = math.log10(found["within"] / found["between"])
    if unseen is None:
        above = torch.tensor(seen.superclass)
        splits = [
            (kept["train_features"], above[labels]),
            (kept["validation_features"], above[seen.validation.labels]),
            (kept["test_features"], above[seen.test.labels]),
        ]
    else:
        splits = [
            (evaluate(trained.network, split.images.to(trained.device))[1].cpu(), split.labels)
            for split in (unseen.train, unseen.validation, unseen.test)
        ]
    accuracy, _ = features.linear_probe(*(part for split in splits for part in split))
    return found | {"superclass_probe" if unseen is None else "unseen_probe": accuracy}


def projections(
    spec: RunSpec, tensors: Tensors, classes: Mapping[str, Sequence[str]]
) -> dict[str, np.ndarray]:
    """Examples of three classes each, by their names, on the plane of their templates; none of a
    run that does not see all classes."""
    if spec.num_classes != spec.entry.num_classes:
        return {}
    kept = tensors["features"]
    labels = {
        "train": kept["train_labels"],
        "validation": tensors["outputs"]["validation_labels"],
    }
    found = {}
    for group, three in classes.items():
        indices = [spec.entry.classes.index(name) for name in three]
        for split, of_images in labels.items():
            points = features.projection(
                kept[f"{split}_features"], kept["classifier_weight"], indices
            )
            chosen = [(of_images == k).nonzero().flatten()[:PROJECTED] for k in indices]
            found[f"{group}.{split}"] = np.stack([points[c] for c in chosen]).astype(np.float32)
    return found


def _smoothness(trained: Trained, method: Distillation) -> float:
    assert trained.teach is not None
    images, _, truth = trained.material.training
    on_true = method.probabilities(trained.teach, images).gather(1, truth[:, None])
    classes = trained.spec.num_classes
    return (1 - on_true.double().mean()).item() * classes / (classes - 1)


def _selected(trained: Trained, outputs: Mapping[str, Tensor]) -> dict[str, float]:
    """The epoch that validation chose: its outputs are the last's, if it is the last."""
    logits = {name: outputs[f"{name}_logits"] for name in ("validation", "test")}
    if trained.best.epoch != len(trained.history):
        trained.best.restore(trained.network)
        images = {
            "validation": trained.material.validation.images,
            "test": trained.material.seen.test.images.to(trained.device),
        }
        logits = {name: evaluate(trained.network, images[name])[0].cpu() for name in images}
    labels = outputs["validation_labels"]
    accuracy = (logits["validation"].argmax(1) == labels).double().mean().item()
    probs = calibration.softmax(logits["test"].double().numpy())
    return {
        "selected_epoch": trained.best.epoch,
        "selected_validation_accuracy": accuracy,
        **_summary(probs, outputs["test_labels"].numpy(), "_selected"),
    }
