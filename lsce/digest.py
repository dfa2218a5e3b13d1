"""What the report needs of a run: all that its pages read, small enough to be recorded.

A digest is made of a record (see `lsce.runs`) on the machine that has it, or read from the
recorded results (see `lsce.recorded`); pages cannot tell which.
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lsce import builtin, data, metrics
from lsce.runs import Record, RunSpec

#: Bins of the binned calibration errors, unless a page asks for others.
BINS = 15

#: Width of the bins that histograms count in: confidences in [0, 1], and logit gaps from 0 on.
WIDTHS = {"confidence": 1 / 40, "gap": 0.5}

#: What a record says of how a run was made.
ORIGIN = ("device", "precision", "versions", "commit", "finished", "seconds")


@dataclass(frozen=True)
class Digest:
    """A run as the pages see it. One that diverged has a history and nothing else."""

    spec: RunSpec
    #: "completed" or "diverged", as in `lsce.runs.Record`.
    status: str
    #: `ORIGIN`: where, with what and when the run was trained.
    origin: dict[str, Any]
    #: See `measure`.
    scalars: dict[str, float]
    #: One row an epoch, see `lsce.train.Outcome`.
    history: pd.DataFrame
    #: Test images by confidence and by logit gap (the largest logit less the mean of the others):
    #: int64 counts in bins of `WIDTHS`, up to the last one that holds an image.
    counts: dict[str, np.ndarray]
    #: For each test image: `confidence` and, after temperature scaling, `scaled`, floats (N,) in
    #: [0, 1]; `correct`, bool (N,); on the built-in data also `true_probability`, the posterior of
    #: the predicted class. Empty if only the rest was recorded.
    samples: dict[str, np.ndarray]

    @property
    def diverged(self) -> bool:
        return self.status == "diverged"


def of(record: Record, bins: int = BINS) -> Digest:
    """The digest of a record, its binned calibration errors with `bins` bins."""
    origin = {name: record.meta[name] for name in ORIGIN}
    if record.diverged:
        return Digest(record.spec, record.status, origin, {}, record.history, {}, {})
    outputs = record.outputs()
    logits, labels = outputs["test_logits"].double().numpy(), outputs["test_labels"].numpy()
    temperature = record.meta["temperature"]["value"]
    probs, scaled = metrics.softmax(logits), metrics.softmax(logits, temperature)
    predicted = logits.argmax(axis=1)
    samples = {
        "confidence": probs.max(axis=1),
        "scaled": scaled.max(axis=1),
        "correct": predicted == labels,
    }
    if record.spec.data == "built-in":
        samples["true_probability"] = _posterior()[np.arange(len(labels)), predicted]
    classes, top = logits.shape[1], logits.max(axis=1)
    gap = (classes * top - logits.sum(axis=1)) / (classes - 1)
    counts = {
        "confidence": _counts(samples["confidence"], "confidence", 1.0),
        "gap": _counts(gap, "gap", np.inf),
    }
    return Digest(
        record.spec,
        record.status,
        origin,
        measure(record, probs, scaled, labels, bins),
        record.history,
        counts,
        samples,
    )


def measure(record: Record, probs, scaled, labels, bins: int) -> dict[str, float]:
    """A run's scalars: hard-label NLL (nats) and accuracy on each split, the differences between
    test and training, the temperature fitted on the validation split (`temperature_converged`: 1
    or 0), and `lsce.metrics.summarize` on the test split, as trained and, with the suffix
    `_scaled`, after temperature scaling.
    """
    final, temperature = record.meta["final"], record.meta["temperature"]
    after = metrics.summarize(scaled, labels, bins)
    return (
        final
        | {
            "nll_gap": final["test_nll"] - final["train_nll"],
            "accuracy_gap": final["train_accuracy"] - final["test_accuracy"],
            "temperature": temperature["value"],
            "temperature_converged": float(temperature["converged"]),
        }
        | metrics.summarize(probs, labels, bins)
        | {f"{name}_scaled": value for name, value in after.items()}
    )


def _counts(values: np.ndarray, quantity: str, highest: float) -> np.ndarray:
    bins = values / WIDTHS[quantity]
    # What is at the highest value, or by a rounding outside, belongs to the bin at that end.
    return np.bincount(np.clip(bins, 0, highest / WIDTHS[quantity] - 1e-9).astype(int))


@functools.cache
def _posterior() -> np.ndarray:
    return builtin.posterior(data.load("built-in").test.images).numpy()
