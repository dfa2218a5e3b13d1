"""A run as pages see it: small enough to be recorded, and the same wherever it is read from."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from lsce.training.spec import RunSpec, Task

#: Width of the bins that histograms count in: confidences in [0, 1], and logit gaps from 0 on.
WIDTHS = {"confidence": 1 / 40, "gap": 0.5}

#: Columns of a history that only some runs have: see `lsce.training.monitors` and
#: `lsce.measures.information`; runs recorded before 28 November 2026 have no refinement.
MONITORED = (
    "validation_refinement",
    "memorised",
    "recovered",
    "information_similar",
    "information_unlike",
)

#: Columns of details: what was measured, in which case, at which x.
DETAILS = {"quantity": str, "case": str, "x": float, "value": float}


def details_of(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """A table of details, which may be empty."""
    return pd.DataFrame(rows, columns=list(DETAILS)).astype(DETAILS)


@dataclass(frozen=True)
class Run:
    """What a task left. A run that diverged has a history and nothing else."""

    task: Task
    #: "completed" or "diverged", see `lsce.training.train.Trained`.
    status: str
    #: Where, with what and when it was trained: device, precision, step, versions, commit,
    #: finished, and the seconds of training and in all.
    origin: dict[str, Any]
    #: See `lsce.results.measure`.
    scalars: dict[str, float] = field(default_factory=dict)
    #: One row an epoch, see `lsce.training.train.Trained`; none of an evaluation alone.
    history: pd.DataFrame = field(default_factory=pd.DataFrame)
    #: How scalars that are of test images vary between groups of these, see
    #: `lsce.measures.jackknife.by_group`: floats (GROUPS,) by the scalar's name. Recorded since
    #: 28 November 2026.
    by_group: dict[str, np.ndarray] = field(default_factory=dict)
    #: Test images by confidence and by logit gap (the largest logit less the mean of the others):
    #: int64 counts in bins of `WIDTHS`, up to the last one that holds an image.
    counts: dict[str, np.ndarray] = field(default_factory=dict)
    #: For each test image: `confidence` and, after temperature scaling, `scaled`, floats (N,) in
    #: [0, 1]; `correct`, bool (N,); where the posterior is known `true_probability`, that of the
    #: predicted class. Most recorded runs have `correct` alone, and those recorded before
    #: 27 November 2026 none. For each image that an evaluation tried, in the order of
    #: `lsce.data.subset` with seed 0: `survived_fgsm` and `survived_worst`, bool (radii, n),
    #: whether it is right after the attack, after the worst of all; `survived_corruptions`,
    #: uint8 (n,), after how many of the kinds and severities. Those recorded before
    #: 28 November 2026 have none.
    samples: dict[str, np.ndarray] = field(default_factory=dict)
    #: Where features were kept: "similar.train", … "unlike.validation" → float32 (3, P, 2), the
    #: first P examples of three classes on the plane of their templates, see
    #: `lsce.measures.features.projection`.
    projections: dict[str, np.ndarray] = field(default_factory=dict)
    #: `DETAILS`: errors by "corruption" and severity, by "attack" and radius, and of "masking", and
    #: shares of images that are "discordant" (see `lsce.measures.robustness`); "risk" by coverage
    #: (see `lsce.measures.selective`); and accuracy of a "probe" by strength (see
    #: `lsce.measures.features.linear_probe`).
    details: pd.DataFrame = field(default_factory=lambda: details_of([]))
    #: Which extras of `lsce.training.spec.Extra` it holds.
    kept: frozenset[str] = frozenset()

    @property
    def spec(self) -> RunSpec:
        return self.task.run

    @property
    def diverged(self) -> bool:
        return self.status == "diverged"

    @property
    def seconds(self) -> float:
        """Seconds of training: on a CPU those of its core, where they were measured."""
        seconds = self.origin["seconds"]
        return float(seconds.get("core", seconds["training"]))

    def evaluated(self, evaluation: "Run") -> "Run":
        """This run with what an evaluation of its network measured."""
        seconds = self.origin["seconds"] | evaluation.origin["seconds"]
        return replace(
            self,
            task=evaluation.task,
            origin=evaluation.origin | {"seconds": seconds},
            scalars=self.scalars | evaluation.scalars,
            by_group=self.by_group | evaluation.by_group,
            samples=self.samples | evaluation.samples,
            details=pd.concat([self.details, evaluation.details], ignore_index=True),
        )
