"""The calibration metrics on 10,000 × 100 logits, beside those of torchmetrics and netcal.

Each library gets the same float32 probabilities, made from the logits beforehand, in its own
format (arrays or tensors in main memory) and 15 bins. A row a metric that a rival has too, and one
for all of those in succession. Neither rival has the classwise ECE: "class by class" is its binary
ECE of each class, averaged. All values are checked to agree.

netcal's "ACE" is another metric, the unweighted mean over bins; ours is its ECE with
`equal_intervals=False`, whose edges are interpolated, so that an image beside one may change bins.
torchmetrics puts a confidence on an edge into the bin above; the data have none.

torchmetrics computes with PyTorch's threads, which wait for each other for twenty times as long as
they compute when another process has a core. So every case is measured with one thread too, and a
rival has the better of the two.
"""

import statistics
import time
from collections.abc import Callable, Iterable

import numpy as np
import torch
from netcal.metrics import ECE, MCE
from pairing import Row, compare, take_turns
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multiclass_calibration_error,
)

from lsce.measures import calibration

N, CLASSES, BINS = 10_000, 100, 15
CASE = "10,000 × 100 logits"

Metric = Callable[[], float]


def logits_and_labels() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a model that is too sure where it is sure, and not sure enough where it is not."""
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(N, CLASSES, generator=generator)
    posterior = 0.7 * torch.softmax(1.5 * logits, dim=1) + 0.3 / CLASSES
    return logits, torch.multinomial(posterior, 1, generator=generator).squeeze(1)


def methods() -> dict[str, dict[str, Metric]]:
    """For each metric that a rival has, what computes it, ours and theirs."""
    logits, labels = logits_and_labels()
    probs = torch.softmax(logits, dim=1)
    p, y = probs.numpy(), labels.numpy()

    def torchmetrics(norm: str) -> Metric:
        return lambda: multiclass_calibration_error(probs, labels, CLASSES, BINS, norm).item()

    def torchmetrics_by_class() -> float:
        errors = [
            binary_calibration_error(column, (labels == k).long(), BINS)
            for k, column in enumerate(probs.T.contiguous())
        ]
        return torch.stack(errors).mean().item()

    def netcal_by_class() -> float:
        errors = [ECE(BINS).measure(p[:, k], (y == k).astype(int)) for k in range(CLASSES)]
        return float(np.mean(errors))

    return {
        "ECE": {
            "lsce": lambda: calibration.expected_calibration_error(p, y, BINS),
            "torchmetrics": torchmetrics("l1"),
            "netcal": lambda: ECE(BINS).measure(p, y),
        },
        "MCE": {
            "lsce": lambda: calibration.maximum_calibration_error(p, y, BINS),
            "torchmetrics": torchmetrics("max"),
            "netcal": lambda: MCE(BINS).measure(p, y),
        },
        "adaptive ECE": {
            "lsce": lambda: calibration.adaptive_calibration_error(p, y, BINS),
            "netcal": lambda: ECE(BINS, equal_intervals=False).measure(p, y),
        },
        "classwise ECE": {
            "lsce": lambda: calibration.classwise_calibration_error(p, y, BINS),
            "torchmetrics, class by class": torchmetrics_by_class,
            "netcal, class by class": netcal_by_class,
        },
    }


def check_agreement(name: str, computing: dict[str, Metric]) -> None:
    """Raise AssertionError unless a metric has the same value in all libraries."""
    # An image in the other bin moves the sum of two bins' gaps by at most 2/N.
    tolerance = 2 * (BINS - 1) / N if name == "adaptive ECE" else 2e-6
    ours = computing["lsce"]()
    for rival, metric in computing.items():
        np.testing.assert_allclose(metric(), ours, rtol=0, atol=tolerance, err_msg=rival)


def seconds(metrics_in_succession: list[Metric]) -> Callable[[], float]:
    """What computes the metrics once and returns how long that took."""

    def timed() -> float:
        start = time.perf_counter()
        for metric in metrics_in_succession:
            metric()
        return time.perf_counter() - start

    return timed


def measure(case: str, computing: dict[str, list[Metric]], turns: int) -> Iterable[Row]:
    """A row a rival, with one or all of PyTorch's threads, whichever suits the rival better."""
    timed = {name: seconds(chosen) for name, chosen in computing.items()}
    threads = torch.get_num_threads()
    tries = []
    for count in sorted({1, threads}):
        torch.set_num_threads(count)
        tries.append(take_turns(timed, turns=turns))
    for rival in [name for name in computing if name != "lsce"]:
        times = min(tries, key=lambda times, rival=rival: statistics.median(times[rival]))
        yield from compare(
            {"lsce": times["lsce"], rival: times[rival]},
            benchmark="evaluation",
            case=case,
            quantity="time (s)",
            better="lower",
        )


def rows(*, quick: bool) -> Iterable[Row]:
    turns = 2 if quick else 30
    by_metric = methods()
    for name, computing in by_metric.items():
        check_agreement(name, computing)
        alone = {library: [metric] for library, metric in computing.items()}
        yield from measure(f"{CASE}, {name}", alone, turns)
    for rival in ("torchmetrics", "netcal"):
        shared = [computing for computing in by_metric.values() if rival in computing]
        chosen = {library: [each[library] for each in shared] for library in ("lsce", rival)}
        names = [name for name, computing in by_metric.items() if rival in computing]
        yield from measure(f"{CASE}, {' + '.join(names)}", chosen, turns)
