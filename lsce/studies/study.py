"""What a study is: the runs of one page, with the part that each plays, and a table of them.

A study lies in a module named as its notebook without the number, with its claims in a YAML file of
the same name beside it.
"""

import copy
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pandas as pd

from lsce.judging.arms import Arm
from lsce.judging.claims import MAIN, Claim
from lsce.results.run import Run
from lsce.studies.parameters import Parameters, Regime
from lsce.training.methods import Method, Smoothing
from lsce.training.spec import Balanced, RunSpec, Task, TrueLabels

if TYPE_CHECKING:
    from lsce.studies.evidence import Evidence


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

    @property
    def smoothed(self) -> bool:
        """Whether it is plain cross entropy or smoothing and nothing else."""
        return self.method == "smoothing"


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
        """The runs that the parameters ask for: every ε with every seed in every regime."""
        return self.smoothed(MAIN, self.parameters.regimes, self.parameters.epsilons)

    def smoothed(
        self, group: str, regimes: Mapping[str, Regime], epsilons: Sequence[float], **changes: Any
    ) -> Iterator[Labelled]:
        """`trained` with label smoothing at every ε."""
        methods = [Smoothing(epsilon=epsilon) for epsilon in epsilons]
        return self.trained(group, regimes, methods, **changes)

    def trained(
        self,
        group: str,
        regimes: Mapping[str, Regime],
        methods: Sequence[Method],
        *,
        data_name: str | None = None,
        seeds: Sequence[int] | None = None,
        **changes: Any,
    ) -> Iterator[Labelled]:
        """The runs of every method with every seed in every regime, on the parameters' data and
        with their seeds unless others are given; `changes` as in `Regime.spec`."""
        name, seeds = data_name or self.parameters.data_name, seeds or self.parameters.seeds
        for (words, regime), seed, method in itertools.product(regimes.items(), seeds, methods):
            try:
                spec = regime.spec(name, seed, method, **changes)
            except ValueError as error:
                raise ValueError(f"{words!r}: {error}") from error
            yield Labelled(group, words, spec, method.name, method.setting, method.words)

    @property
    def tasks(self) -> list[Task]:
        return [label.task for label in self.labelled]

    def plan(self) -> dict[str, pd.DataFrame]:
        """Every run of each group, as `table_of` has it, but for what is measured."""
        rows = {
            name: [about(label) | _material(label.task.run) for label in labelled]
            for name, labelled in self.groups().items()
        }
        return {name: pd.DataFrame(part) for name, part in rows.items()}

    def decisive(self, label: Labelled) -> bool:
        """Whether it is plain cross entropy or smoothed with the judged ε."""
        return label.smoothed and label.setting in (0.0, self.judged)

    def in_full(self, label: Labelled) -> bool:
        """Whether figures show its run image by image, and not in sums alone."""
        spec = label.task.run
        plain = label.task is spec and isinstance(spec.sample, Balanced)
        plain = plain and isinstance(spec.labels, TrueLabels) and self.decisive(label)
        return self.by_image and (plain or spec.entry.posterior is not None)

    def objection(
        self, shown: "Evidence", claim: Claim, regime: str, arms: tuple[Arm, Arm]
    ) -> str | None:
        """Why this page's runs cannot test a claim in a regime, beside what
        `lsce.judging.preconditions` checks on every page."""
        return None

    def measured_as(self, shown: "Evidence", regime: str, measure: str) -> str:
        """The scalar of a run that a measure of the study's table is in a regime."""
        return measure

    @property
    def epsilons(self) -> list[float]:
        """The values of ε that runs are smoothed with, ascending."""
        return sorted({label.setting for label in self.labelled if label.smoothed})

    def part(self, labelled: Iterable[Labelled]) -> Self:
        """The study of some of its runs alone."""
        smaller = copy.copy(self)
        smaller.labelled = list(labelled)
        return smaller

    def table(self, pairs: Iterable[tuple[Labelled, Run]]) -> pd.DataFrame:
        """`table_of` some of its runs, with what this study alone makes of them."""
        return table_of(pairs)

    def groups(self) -> dict[str, list[Labelled]]:
        """The runs of every group, in order."""
        groups: dict[str, list[Labelled]] = {}
        for label in self.labelled:
            groups.setdefault(label.group, []).append(label)
        return groups


def about(label: Labelled) -> dict[str, Any]:
    """The columns that name a run's part, its ε and its seed."""
    part = {name: getattr(label, name) for name in ("group", "regime", "method", "setting", "arm")}
    epsilon = getattr(label.task.run.method, "epsilon", 0.0)
    return part | {"epsilon": epsilon, "seed": label.task.seed}


def table_of(pairs: Iterable[tuple[Labelled, Run]]) -> pd.DataFrame:
    """One row a run: its label, ε, training images, classes, kind and rate of label noise, seed,
    id, status and scalars (see `lsce.results.measure`).

    A temperature whose fit did not converge, and what was measured with it, is NaN."""
    table = pd.DataFrame([_row(label, run) for label, run in pairs])
    if "temperature_converged" in table:
        fitted = table.columns.str.endswith(("_scaled", "_calibration", "temperature"))
        table.loc[table["temperature_converged"] == 0, fitted] = np.nan
    return table


def _row(label: Labelled, run: Run) -> dict[str, Any]:
    of_run = {"run": run.task.id, "status": run.status, **run.scalars}
    return about(label) | _material(run.spec) | of_run


def _material(spec: RunSpec) -> dict[str, Any]:
    return {
        "train_size": spec.sample.train_size,
        "noise": getattr(spec.labels, "noise", None),
        "noise_rate": getattr(spec.labels, "rate", 0.0),
        "classes": spec.num_classes,
    }
