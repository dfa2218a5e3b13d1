"""Whether a run is complete: what recorded results must hold of it."""

from pathlib import Path

import numpy as np

from lsce.measures.jackknife import GROUPS
from lsce.results.run import WIDTHS, Run
from lsce.training.spec import Evaluation, RunSpec, Task

#: Scalars without which a run, or an evaluation, is incomplete.
NEEDED = {"train_nll", "validation_nll", "test_nll", "top1_error", "debiased_ce", "temperature"}
NEEDED_OF_EVALUATION = {"corrupted_error", "worst_error"}

#: The samples that are counts, uint8; all others of that type are packed bits.
COUNTS = "survived_corruptions"


def shape_of(name: str, task: Task) -> tuple[int, ...]:
    """The shape of a task's samples of a name."""
    if isinstance(task, RunSpec):
        return (task.images_of("test"),)
    protocol = task.protocol
    if name == COUNTS:
        return (protocol.corrupted_images,)
    return len(protocol.radii), protocol.attacked_images


def check_groups(run: Run, file: Path) -> None:
    """Raise ValueError, naming file, measure and run, unless each measure has a number a group."""
    for measure, values in run.by_group.items():
        if len(values) != GROUPS or not np.isfinite(values).all():
            raise ValueError(
                f"{file}: {measure} of run {run.task.id} must be {GROUPS} finite numbers, one a "
                f"group, but is {len(values)} of which {int(np.isfinite(values).sum())} are finite"
            )


def check(run: Run) -> None:
    """Raise ValueError, saying why, unless a run is complete and of the pinned data."""
    spec, pinned = run.spec, run.spec.entry.checksum
    if spec.data_checksum != pinned:
        raise ValueError(
            f"its data_checksum is {spec.data_checksum[:12]}…, but that of {spec.data} is "
            f"{pinned[:12]}…"
        )
    if run.status not in ("completed", "diverged"):
        raise ValueError(f"its status is {run.status!r}; it must be completed or diverged")
    if run.diverged:
        return
    needed = NEEDED if isinstance(run.task, RunSpec) else NEEDED_OF_EVALUATION
    if missing := sorted(needed - run.scalars.keys()):
        raise ValueError(f"its {missing[0]} is missing")
    for name, values in run.samples.items():
        if values.shape != (shape := shape_of(name, run.task)):
            raise ValueError(f"its {name} has the shape {values.shape} instead of {shape}")
    if isinstance(run.task, Evaluation):
        return
    if list(run.history["epoch"]) != list(range(1, spec.epochs + 1)):
        raise ValueError(f"its history has {len(run.history)} epochs instead of {spec.epochs}")
    images = {quantity: int(counts.sum()) for quantity, counts in run.counts.items()}
    expected = spec.images_of("test")
    for name, count in images.items():
        if count != expected:
            raise ValueError(f"its {name} is of {count:,} test images instead of {expected:,}")
    if missing := sorted(WIDTHS.keys() - run.counts.keys()):
        raise ValueError(f"its histogram of {missing[0]} is missing")
