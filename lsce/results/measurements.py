"""What the report needs of a run: all that its pages read, small enough to be recorded.

A digest is made of a record (see `lsce.training.spec`) on the machine that has it, or read from the
recorded results (see `lsce.results.recorded`); pages cannot tell which.
"""

import functools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch.nn import functional as F

from lsce import data
from lsce.data import synthetic
from lsce.machine import paths
from lsce.measures import calibration, features, selective
from lsce.results.store import Record
from lsce.training.spec import DETAILS, RunSpec

#: Bins of the binned calibration errors, unless a page asks for others.
BINS = 15

#: Width of the bins that histograms count in: confidences in [0, 1], and logit gaps from 0 on.
WIDTHS = {"confidence": 1 / 40, "gap": 0.5}

#: Examples of each class that a projection shows, of either split.
PROJECTED = 100

#: Columns of a history that only some runs have, see `lsce.training.monitors`.
MONITORED = ("memorised", "recovered", "information_similar", "information_unlike")

#: Extra of a record (`lsce.training.spec.EXTRAS`) → what tells that a digest has it: a scalar, or a column
#: of the history.
TELLS = {
    "features": "nc1",
    "selected": "top1_error_selected",
    "information": "information_similar",
    "selective": "aurc",
    "unseen": "unseen_auroc",
}

#: Where a digest is kept beside its record, and a number to raise when it would be another one.
CACHE, VERSION = "digest.safetensors", 3

#: Logit gaps beyond this, which only losses that can run away leave, are counted as this.
LARGEST_GAP = 200.0

#: The NLL of an image, in nats, is at most this.
LARGEST_NLL = 500.0

#: What a record says of how a run was made.
ORIGIN = ("device", "precision", "step", "versions", "commit", "finished", "seconds")


@dataclass(frozen=True)
class Digest:
    """A run as the pages see it. One that diverged has a history and nothing else."""

    spec: RunSpec
    #: "completed" or "diverged", as in `lsce.results.store.Record`.
    status: str
    #: `ORIGIN`: where, with what and when the run was trained.
    origin: dict[str, Any]
    #: See `measure`.
    scalars: dict[str, float]
    #: One row an epoch, see `lsce.training.train.Outcome`.
    history: pd.DataFrame
    #: Test images by confidence and by logit gap (the largest logit less the mean of the others):
    #: int64 counts in bins of `WIDTHS`, up to the last one that holds an image.
    counts: dict[str, np.ndarray]
    #: For each test image: `confidence` and, after temperature scaling, `scaled`, floats (N,) in
    #: [0, 1]; `nll` and `nll_scaled`, likewise, floats (N,) in nats; `correct`, bool (N,); on the
    #: built-in data also `true_probability`, the posterior of the predicted class. Of most recorded
    #: runs `correct` alone is here, and of those recorded before 27 November 2026 nothing.
    samples: dict[str, np.ndarray]
    #: Where features were kept: "similar.train", … "unlike.validation" → float32 (3, P, 2), the
    #: first P examples of three classes on the plane of their templates, see
    #: `lsce.measures.features.projection`.
    projections: dict[str, np.ndarray]
    #: `lsce.training.spec.DETAILS`: errors by "corruption" and severity, by "attack" and radius, and of
    #: "masking" (see `lsce.measures.robustness`), and "risk" by coverage (see `lsce.measures.selective`).
    details: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(DETAILS)))

    def has(self, extras: Iterable[str]) -> bool:
        """Whether it holds some of `lsce.training.spec.EXTRAS`; one that diverged has nothing to hold."""
        tells = {TELLS[extra] for extra in extras}
        return self.diverged or tells <= {*self.scalars, *self.history}

    @property
    def diverged(self) -> bool:
        return self.status == "diverged"

    @property
    def seconds(self) -> float:
        """Seconds of training: on a CPU those of its core, where they were measured."""
        seconds = self.origin["seconds"]
        return seconds.get("core", seconds["training"])


def of(
    record: Record, bins: int = BINS, classes: Mapping[str, Sequence[str]] | None = None
) -> Digest:
    """The digest of a record, its binned calibration errors with `bins` bins.

    classes: the three classes of the projections "similar" and "unlike", by their names; by
    default `lsce.data.EXAMPLES`.
    """
    origin = {name: record.meta[name] for name in ORIGIN if name in record.meta}
    if record.diverged:
        return Digest(record.spec, record.status, origin, {}, record.history, {}, {}, {})
    as_usual = bins == BINS and classes is None
    parts = _cached(record) if as_usual else None
    if parts is None:
        parts = _computed(record, bins, classes or data.EXAMPLES[record.spec.data])
        if as_usual:
            _cache(record, parts)
    return Digest(record.spec, record.status, origin, parts[0], record.history, *parts[1:])


#: Scalars, counts, samples, projections and details of a digest.
_Parts = tuple[dict[str, float], dict, dict, dict, pd.DataFrame]


def _cached(record: Record) -> _Parts | None:
    """What an earlier call left beside the record: measuring a run takes a tenth of a second."""
    try:
        with safe_open(record.folder / CACHE, "numpy") as file:
            about = json.loads(file.metadata()["digest"])
            if about["version"] != VERSION:
                return None
            arrays: dict[str, dict] = {"counts": {}, "samples": {}, "projections": {}}
            for name in file.keys():
                kind, _, quantity = name.partition(".")
                arrays[kind][quantity] = file.get_tensor(name)
    except (OSError, SafetensorError, KeyError, TypeError):
        return None
    details = pd.DataFrame(about["details"], columns=list(DETAILS))
    return about["scalars"], *arrays.values(), details


def _cache(record: Record, parts: _Parts) -> None:
    scalars, *groups, details = parts
    arrays = {
        f"{kind}.{name}": values
        for kind, group in zip(("counts", "samples", "projections"), groups, strict=True)
        for name, values in group.items()
    }
    rows = details.to_numpy().tolist()
    about = json.dumps({"version": VERSION, "scalars": scalars, "details": rows})
    file = record.folder / CACHE
    save_file(arrays, paths.beside(file), metadata={"digest": about})
    paths.beside(file).replace(file)


def _computed(record: Record, bins: int, classes: Mapping[str, Sequence[str]]) -> _Parts:
    outputs = record.outputs()
    logits, labels = outputs["test_logits"].double().numpy(), outputs["test_labels"].numpy()
    temperature = record.meta["temperature"]["value"]
    probs, scaled = calibration.softmax(logits), calibration.softmax(logits, temperature)
    predicted = logits.argmax(axis=1)
    samples = {
        "confidence": probs.max(axis=1),
        "scaled": scaled.max(axis=1),
        "correct": predicted == labels,
        "nll": _nll(probs, labels),
        "nll_scaled": _nll(scaled, labels),
    }
    if record.spec.data == "built-in" and record.spec.num_classes == 100:
        samples["true_probability"] = _posterior()[np.arange(len(labels)), predicted]
    count, top = logits.shape[1], logits.max(axis=1)
    gap = (count * top - logits.sum(axis=1)) / (count - 1)
    counts = {
        "confidence": _counts(samples["confidence"], "confidence", 1.0),
        "gap": _counts(gap, "gap", LARGEST_GAP),
    }
    scalars = measure(record, probs, scaled, labels, bins)
    details = record.details()
    if "selective" in record.keep:
        validation = outputs["validation_logits"], outputs["validation_labels"]
        found, rows = selective.selective(*validation, logits, labels, temperature)
        scalars |= found
        details = pd.concat([details, pd.DataFrame(rows)], ignore_index=True)
    if "unseen" in record.keep:
        norm = selective.choose_norm(outputs["validation_logits"], outputs["validation_labels"])
        scalars |= selective.unseen(logits, record.unseen(), temperature, norm)
    projections = _projections(record, outputs["validation_labels"], classes)
    return scalars, counts, samples, projections, details


def _nll(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    smallest = np.exp(-LARGEST_NLL)
    return -np.log(np.maximum(probs[np.arange(len(labels)), labels], smallest))


def measure(record: Record, probs, scaled, labels, bins: int) -> dict[str, float]:
    """A run's scalars: hard-label NLL (nats) and accuracy on each split, the differences between
    test and training, the temperature fitted on the validation split (`temperature_converged`: 1
    or 0) with the validation NLL that it leaves, and `lsce.measures.calibration.summarize` on the test split, as
    trained and, with the suffix `_scaled`, after temperature scaling, and `_selected`, at the epoch
    that validation chose; `related_auroc`, see `lsce.measures.features.relatedness`, where all classes
    are told apart; and what else the record measured in or after the last epoch, the scatter ratio
    and NC1 as log10, too. With the extras "selective" and "unseen" also what `lsce.measures.selective` says.
    """
    final, temperature = record.meta["final"], record.meta["temperature"]
    last = record.history.iloc[-1]
    found = final | {
        "nll_gap": final["test_nll"] - final["train_nll"],
        "accuracy_gap": final["train_accuracy"] - final["test_accuracy"],
        "temperature": temperature["value"],
        "temperature_converged": float(temperature["converged"]),
        "validation_nll_scaled": _validation_nll(record, temperature["value"]),
    }
    found |= {name: float(last[name]) for name in MONITORED if name in last}
    if record.spec.num_classes == 100:
        above = data.SUPERCLASS[record.spec.data]
        # The probabilities' order is that of the logits.
        found["related_auroc"] = features.relatedness(probs, labels, above)
    if "nc1" in final:
        found["log_nc1"] = math.log10(final["nc1"])
        found["log_scatter_ratio"] = math.log10(final["within"] / final["between"])
    parts = {"": probs, "_scaled": scaled}
    if "selected" in record.keep:  # an examination has the scalars of its base and not this
        logits = record.selected()["test_logits"].double().numpy()
        parts["_selected"] = calibration.softmax(logits)
    for suffix, part in parts.items():
        summary = calibration.summarize(part, labels, bins)
        found |= {f"{name}{suffix}": value for name, value in summary.items()}
    return found


def _validation_nll(record: Record, temperature: float) -> float:
    outputs = record.outputs()
    logits, labels = outputs["validation_logits"], outputs["validation_labels"]
    return F.cross_entropy(logits.double() / temperature, labels).item()


def _projections(
    record: Record, validation_labels: torch.Tensor, classes: Mapping[str, Sequence[str]]
) -> dict[str, np.ndarray]:
    names = data.CLASSES[record.spec.data]
    if "features" not in record.keep or record.spec.classes is not None:
        return {}
    kept = record.features()
    labels = {"train": kept["train_labels"], "validation": validation_labels}
    found = {}
    for group, three in classes.items():
        indices = [names.index(name) for name in three]
        for split, of_images in labels.items():
            points = features.projection(
                kept[f"{split}_features"], kept["classifier_weight"], indices
            )
            chosen = [(of_images == k).nonzero().flatten()[:PROJECTED] for k in indices]
            found[f"{group}.{split}"] = np.stack([points[c] for c in chosen]).astype(np.float32)
    return found


def _counts(values: np.ndarray, quantity: str, highest: float) -> np.ndarray:
    bins = values / WIDTHS[quantity]
    # What is at the highest value, or by a rounding outside, belongs to the bin at that end.
    return np.bincount(np.clip(bins, 0, highest / WIDTHS[quantity] - 1e-9).astype(int))


@functools.cache
def _posterior() -> np.ndarray:
    return synthetic.posterior(data.load("built-in").test.images).numpy()
