"""Which runs a page shows: those of the machine that it is run on, or the recorded ones."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from lsce import data, studies
from lsce.judging import judgements
from lsce.judging.claims import MAIN
from lsce.results import measure
from lsce.results.recorded import Recorded, results
from lsce.results.run import Run
from lsce.results.store import Store
from lsce.studies import profiles
from lsce.studies.parameters import Shown
from lsce.studies.profiles import Profile
from lsce.studies.study import Labelled, Study, about
from lsce.sweeps import sweep

#: A set of this many seeds comes before one of fewer: its intervals can decide something.
SEEDS = 5


class NothingToShow(RuntimeError):
    """A page whose runs are not there."""


@dataclass(frozen=True)
class Evidence:
    """A complete set of runs for a page: every run of each of its seeds.

    `study` has the runs of the main figures, `others` the study's other groups by their names.
    """

    study: Study
    runs: Mapping[str, Run]
    #: Whether these are recorded results, and not this machine's own.
    recorded: bool
    profile: str
    others: Mapping[str, "Evidence"] = field(default_factory=dict)
    #: Runs that the profile asks for on this page and that are not recorded yet.
    lacking: int = 0
    #: The study with every run that the profile asks for; None if these are they.
    complete: Study | None = None

    @property
    def pairs(self) -> list[tuple[Labelled, Run]]:
        """The main runs with the parts that they play."""
        return [(label, self.runs[label.task.id]) for label in self.study.labelled]

    @functools.cached_property
    def table(self) -> pd.DataFrame:
        """The study's table of the main runs (see `lsce.studies.study.table_of`), with every
        measure that the study shows: NaN where a run was recorded before it was measured."""
        table = self.study.table(self.pairs)
        lacking = [name for name in self.study.columns if name not in table]
        return table.assign(**dict.fromkeys(lacking, math.nan))

    @functools.cached_property
    def histories(self) -> pd.DataFrame:
        """The main runs' histories (see `lsce.training.train.Trained`), with label, ε and seed."""
        parts = [run.history.assign(**about(label)) for label, run in self.pairs]
        return pd.concat(parts, ignore_index=True)

    @functools.cached_property
    def judgements(self) -> dict[str, list[judgements.Judgement]]:
        """Every claim of this page, by its id, judged in each regime."""
        study = self.study
        return judgements.judge(
            studies.claims_of(study.notebook),
            {name: part.table for name, part in self.groups.items()},
            study.judged,
            {run.task.id: run.by_group for run in self.all_runs},
            functools.partial(study.objection, self),
            functools.partial(study.measured_as, self),
            (self.complete or study).plan(),
        )

    @property
    def groups(self) -> dict[str, "Evidence"]:
        """The main runs and the others, by their groups."""
        return {MAIN: self, **self.others}

    @property
    def own_runs(self) -> list[Run]:
        """The main runs, each once."""
        return list({label.task.id: run for label, run in self.pairs}.values())

    @property
    def all_runs(self) -> list[Run]:
        """The runs of all groups, each once."""
        runs = (run for group in self.groups.values() for run in group.own_runs)
        return list({run.task.id: run for run in runs}.values())

    @property
    def seeds(self) -> list[int]:
        return sorted({label.task.seed for label in self.study.labelled})

    @property
    def regimes(self) -> list[str]:
        return list(dict.fromkeys(label.regime for label in self.study.labelled))


def gather(
    study: Study, *, profile: str, runs: Shown = "own", train_missing: bool = True
) -> Evidence:
    """The set of runs that a page shows, `profile` being its name.

    `runs` says where they come from: "own" are this machine's, where what is missing is trained
    unless `train_missing` is false; "recorded" are those in `data/recorded`, of a profile that is
    still being recorded what there is.

    Raises SweepFailed if a run cannot be trained, NothingToShow if recorded runs are wanted and are
    not there, and ValueError if they were measured otherwise.
    """
    if runs == "own":
        store = Store()
        own = sweep.ensure(study.tasks, train_missing=train_missing, store=store)
        _remeasure(study, own, store)
        return grouped(study, own, False, profile)
    bins, classes = _measured_with(study)
    if bins != measure.BINS:
        raise ValueError(f"bins is {bins}; recorded runs were measured with {measure.BINS}")
    if classes not in (None, data.entry(study.parameters.data_name).examples):
        words = "similar_classes and unlike_classes must be None"
        raise ValueError(f"{words}; recorded runs show the examples of the data set")
    have = results()
    missing = have.missing(study.tasks)
    if not missing:
        return grouped(study, {task.id: have.load(task) for task in study.tasks}, True, profile)
    if profile in profiles.names():
        complete = Profile(profile).study(study.notebook)
        if {task.id for task in complete.tasks} == {task.id for task in study.tasks}:
            for shown in recorded(study.notebook):
                if shown.profile == profile:
                    return shown
    raise NothingToShow(
        f"{len(missing)} of the {len(study.tasks)} runs that the parameters of {study.notebook} "
        'ask for are not recorded; runs = "own" trains them'
    )


def _measured_with(study: Study) -> tuple[int, Mapping[str, Sequence[str]] | None]:
    """The bins and the projected classes that a page asks for."""
    p = study.parameters
    return getattr(p, "bins", measure.BINS), getattr(p, "classes", None)


def _remeasure(study: Study, runs: Mapping[str, Run], store: Store) -> None:
    """Measure runs again, from this machine's tensors, where a page asks for other bins or
    projected classes than the usual ones."""
    bins, classes = _measured_with(study)
    for run in runs.values():
        if run.diverged:
            continue
        if bins != measure.BINS:
            measure.of_test_images(run, store.tensors(run.spec, "outputs"), bins)
        if classes is not None and classes != run.spec.entry.examples and run.projections:
            tensors = {name: store.tensors(run.spec, name) for name in ("outputs", "features")}
            run.projections.update(measure.projections(run.spec, tensors, classes))


def recorded(notebook: str) -> list[Evidence]:
    """What is recorded for a page, a set of runs for each profile, the most decisive first.

    A profile that is still being recorded gives what there is: see `part`. A group of runs that it
    lacks comes from the next profile that has it.
    """
    have = results()
    sets: list[Evidence] = []
    wanted: dict[str, None] = {}
    for name in profiles.names():
        complete = Profile(name).study(notebook)
        wanted |= dict.fromkeys(complete.groups())
        study = part(complete, have)
        if MAIN in study.groups():
            runs = {task.id: have.load(task) for task in study.tasks}
            lacking = len(have.missing(complete.tasks))
            shown = grouped(study, runs, True, name)
            sets.append(replace(shown, lacking=lacking, complete=complete))
    sets.sort(key=lambda shown: -min(len(shown.seeds), SEEDS))
    others: dict[str, Evidence] = {}
    for shown in reversed(sets):
        others |= shown.others
    names = [name for name in wanted if name != MAIN]
    if not set(names) <= set(others):
        return []
    return [
        replace(shown, others={name: shown.others.get(name, others[name]) for name in names})
        for shown in sets
    ]


def part(study: Study, have: Recorded) -> Study:
    """What is recorded of a study, the same seeds in all that it compares.

    Of each group those seeds of which every run is there; but of smoothing, in the main one, plain
    cross entropy and the judged ε are enough, in every regime that was begun, and other values of ε
    are shown once all of these seeds have them.
    """
    kept: list[Labelled] = []
    for group, labelled in study.groups().items():
        absent = [label for label in labelled if label.task not in have]
        begun = {label.regime for label in labelled if label.task in have}
        lacking = {
            label.task.seed
            for label in absent
            if group != MAIN
            or (label.regime in begun and (not label.smoothed or study.decisive(label)))
        }
        shown = [label for label in labelled if label.task.seed not in lacking]
        unfinished = {
            (label.regime, label.arm) for label in absent if label.task.seed not in lacking
        }
        kept += [label for label in shown if (label.regime, label.arm) not in unfinished]
    return study.part(kept)


def grouped(study: Study, runs: Mapping[str, Run], from_recorded: bool, profile: str) -> Evidence:
    """The main runs of a study with its other groups."""
    groups = {
        name: Evidence(study.part(labelled), runs, from_recorded, profile)
        for name, labelled in study.groups().items()
    }
    return replace(groups.pop(MAIN), others=groups)
