"""How a run's measures of test images vary between groups of these (`Run.by_group`)."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from lsce import data
from lsce.measures import calibration, jackknife, robustness, selective
from lsce.results.run import Run
from lsce.training.spec import Protocol, RunSpec, SomeClasses

#: Errors under attacks that an evaluation has at every radius, see `at_radius`.
AT_RADIUS = ("fgsm_error", "worst_error", "overstated")

#: Measures, by name, of the images that a bool mask (N,) selects.
Measures = Callable[[np.ndarray], Mapping[str, float]]


def of_images(spec: RunSpec, labels: Tensor, *, others: str = "") -> np.ndarray:
    """The group of each test image of a run, by its label, int64 (N,): an image has the same in all
    runs with classes (see `lsce.measures.jackknife`). others: "unseen" for images of the classes
    that it never sees, "far" for those of another data set."""
    if isinstance(spec.sample, SomeClasses) and others != "far":
        count = spec.entry.num_classes
        seen = data.class_subset(spec.sample.classes, spec.seed, count)
        classes = [k for k in range(count) if k not in seen] if others == "unseen" else seen
        labels = torch.tensor(classes)[labels]
    return jackknife.groups_of(labels)


def add(run: Run, groups: np.ndarray, measures: Measures) -> None:
    """Add measures to a run's scalars, and how they vary."""
    scalars, by_group = jackknife.by_group(measures, groups)
    run.scalars.update(scalars)
    run.by_group.update(by_group)


def means(by_image: Mapping[str, np.ndarray]) -> Measures:
    """The means of values (N,) of images."""
    return lambda of: {name: float(values[of].mean()) for name, values in by_image.items()}


def of_samples(
    samples: Mapping[str, np.ndarray], groups: np.ndarray, bins: int
) -> dict[str, np.ndarray]:
    """`Run.by_group` of errors, proper scores and calibration. samples: `Run.samples`, with `nll`
    and `nll_scaled`, floats (N,) in nats; groups: `of_images`."""

    def measures(of: np.ndarray) -> dict[str, float]:
        correct = samples["correct"][of]
        values = {"top1_error": float(1 - correct.mean())}
        for suffix, score in {"": "confidence", "_scaled": "scaled"}.items():
            sure = samples[score][of], correct
            values |= {
                f"debiased_ce{suffix}": calibration.debiased_calibration_error(*sure, bins),
                f"overconfidence{suffix}": calibration.overconfidence(*sure, bins),
                f"underconfidence{suffix}": calibration.underconfidence(*sure, bins),
                f"confident_errors{suffix}": calibration.confident_errors(*sure),
                f"nll{suffix}": float(samples[f"nll{suffix}"][of].mean()),
            }
        values["nll_gap"] = values["nll"]
        values["nll_calibration"] = values["nll"] - values["nll_scaled"]
        return values

    return jackknife.by_group(measures, groups)[1]


def excess(logits: Tensor, labels: Tensor, temperature: float, norm: float) -> Measures:
    """E-AURC by each score, as `lsce.measures.selective.selective` has it."""
    correct = (logits.argmax(1) == labels).numpy()
    scores = selective.scores(logits, temperature, norm)
    return lambda of: {
        f"excess_aurc{suffix}": selective.excess_aurc(
            selective.risk_coverage(score[of], correct[of])
        )
        for suffix, score in scores.items()
    }


def detection(
    seen: Tensor, others: Tensor, temperature: float, name: str, groups: np.ndarray
) -> dict[str, np.ndarray]:
    """The AUROC of confidences for test images against others, by the names of
    `lsce.measures.selective.unseen`; groups are those of the former and then of the latter."""
    scores = {
        suffix: (selective.log_odds(seen, t), selective.log_odds(others, t))
        for suffix, t in {"": 1.0, "_scaled": temperature}.items()
    }

    def measures(of: np.ndarray) -> dict[str, float]:
        positive, negative = of[: len(seen)], of[len(seen) :]
        return {
            f"{name}_auroc{suffix}": selective.auroc(first[positive], second[negative])
            for suffix, (first, second) in scores.items()
        }

    return jackknife.by_group(measures, groups)[1]


def at_radius(measure: str, radius: float) -> str:
    """The name of a measure of attacks at a radius in 1/255."""
    return f"{measure}@{radius:g}"


def of_evaluation(run: Run, protocol: Protocol, labels: Tensor) -> None:
    """Add the errors under attacks at every radius, by the names of `at_radius`, and how these and
    the error on corrupted images vary. labels: int64 (N,) of all test images."""

    def groups_of(count: int) -> np.ndarray:
        return jackknife.groups_of(labels[data.subset(labels, count, seed=0)])

    fgsm, worst = (1 - run.samples[f"survived_{name}"].astype(float) for name in ("fgsm", "worst"))
    attacked = groups_of(protocol.attacked_images)
    for radius, of_fgsm, of_worst in zip(protocol.radii, fgsm, worst, strict=True):
        errors = of_fgsm, of_worst, of_worst - of_fgsm
        names = (at_radius(name, radius) for name in AT_RADIUS)
        add(run, attacked, means(dict(zip(names, errors, strict=True))))
    tried = len(robustness.SEVERITIES) * len(next(iter(robustness.SEVERITIES.values())))
    survived = 1 - run.samples["survived_corruptions"] / tried
    add(run, groups_of(protocol.corrupted_images), means({"corrupted_error": survived}))
