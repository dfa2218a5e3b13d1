"""What a study is: the runs of one page, with the part that each plays, and tables of them.

A study lies in a module named as its notebook without the number, with its claims in a YAML file of
the same name beside it.
"""

import copy
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd

from lsce.results.run import Run
from lsce.studies.parameters import Parameters, Regime
from lsce.training.methods import Method, Smoothing
from lsce.training.spec import Balanced, NoisyLabels, Task, TrueLabels


@dataclass(frozen=True)
class Labelled:
    """A task and the part it plays: its `group` (`MAIN` or what else the page compares), its
    `regime`, and its arm: the method, its setting, and the words for both."""

    group: str
    regime: str
    task: Task
    method: str
    setting: float
    arm: str

    @classmethod
    def by_method(cls, group: str, regime: str, task: Task) -> "Labelled":
        """Labelled by the method of its run."""
        method = task.run.method
        return cls(group, regime, task, method.name, method.setting, method.words)

    @property
    def smoothed(self) -> bool:
        """Whether it is plain cross entropy or smoothing and nothing else."""
        return self.method == "smoothing"


def smoothed(
    group: str,
    data_name: str,
    regimes: Mapping[str, Regime],
    epsilons: Sequence[float],
    seeds: Sequence[int],
    **changes: Any,
) -> Iterator[Labelled]:
    """Every ε with every seed in every regime; `changes` as in `Regime.spec`."""
    methods = [Smoothing(epsilon=epsilon) for epsilon in epsilons]
    return trained(group, data_name, regimes, methods, seeds, **changes)


def trained(
    group: str,
    data_name: str,
    regimes: Mapping[str, Regime],
    methods: Sequence[Method],
    seeds: Sequence[int],
    **changes: Any,
) -> Iterator[Labelled]:
    """The same by other methods."""
    for (name, regime), seed, method in itertools.product(regimes.items(), seeds, methods):
        try:
            spec = regime.spec(data_name, seed, method, **changes)
        except ValueError as error:
            raise ValueError(f"{name!r}: {error}") from error
        yield Labelled.by_method(group, name, spec)


class Study:
    """A set of runs that answers the question of one page."""

    notebook: ClassVar[str]
    Parameters: ClassVar[type[Parameters]]
    #: Whether figures show single runs image by image.
    by_image: ClassVar[bool] = False
    #: The measures of the table of all numbers with the words for them, and which are shares.
    columns: ClassVar[Mapping[str, str]] = {}
    percent: ClassVar[frozenset[str] | set[str]] = frozenset()
    #: What settings are chosen by, on the validation split.
    chosen_by: ClassVar[str] = "validation_accuracy"

    def __init__(self, parameters: Any):
        self.parameters = parameters
        self.judged: float = parameters.judged
        self.labelled = list(self.runs())

    def runs(self) -> Iterable[Labelled]:
        """The runs that the parameters ask for."""
        raise NotImplementedError

    @property
    def tasks(self) -> list[Task]:
        return [each.task for each in self.labelled]

    def decisive(self, label: Labelled) -> bool:
        """Whether it is plain cross entropy or smoothed with the judged ε."""
        return label.smoothed and label.setting in (0.0, self.judged)

    def in_full(self, label: Labelled) -> bool:
        """Whether figures show its run image by image, and not in sums alone."""
        spec = label.task.run
        plain = label.task is spec and isinstance(spec.sample, Balanced)
        plain = plain and isinstance(spec.labels, TrueLabels) and self.decisive(label)
        return self.by_image and (plain or spec.entry.posterior is not None)

    @property
    def epsilons(self) -> list[float]:
        """The values of ε that runs are smoothed with, ascending."""
        return sorted({each.setting for each in self.labelled if each.smoothed})

    def part(self, labelled: Iterable[Labelled]) -> Self:
        """The study of some of its runs alone."""
        smaller = copy.copy(self)
        smaller.labelled = list(labelled)
        return smaller

    def groups(self) -> dict[str, list[Labelled]]:
        """The runs of every group, in order."""
        found: dict[str, list[Labelled]] = {}
        for each in self.labelled:
            found.setdefault(each.group, []).append(each)
        return found


# ---- tables of what they left ----

Pairs = Sequence[tuple[Labelled, Run]]


def table_of(pairs: Pairs) -> pd.DataFrame:
    """One row a run: its label, ε, training images, classes, kind and rate of label noise, seed,
    id, status and scalars (see `lsce.results.measure`).

    A temperature whose fit did not converge, and what was measured with it, is NaN."""
    table = pd.DataFrame([_row(label, run) for label, run in pairs])
    if "temperature_converged" in table:
        names = [str(name) for name in table]
        fitted = [name for name in names if name == "temperature" or name.endswith("_scaled")]
        table.loc[table["temperature_converged"] == 0, fitted] = np.nan
    return table


def about(label: Labelled) -> dict[str, Any]:
    """The columns that name a run's part, its ε and its seed."""
    named = {name: getattr(label, name) for name in ("group", "regime", "method", "setting", "arm")}
    epsilon = getattr(label.task.run.method, "epsilon", 0.0)
    return named | {"epsilon": epsilon, "seed": label.task.seed}


def _row(label: Labelled, run: Run) -> dict[str, Any]:
    spec = run.spec
    noisy = spec.labels if isinstance(spec.labels, NoisyLabels) else None
    return {
        **about(label),
        "train_size": spec.sample.train_size,
        "noise": noisy.noise if noisy else None,
        "noise_rate": noisy.rate if noisy else 0.0,
        "classes": spec.num_classes,
        "run": run.task.id,
        "status": run.status,
        **run.scalars,
    }


def histories_of(pairs: Pairs) -> pd.DataFrame:
    """Every run's history (see `lsce.training.train.Trained`), with its label, ε and seed."""
    parts = [run.history.assign(**about(label)) for label, run in pairs]
    return pd.concat(parts, ignore_index=True)
