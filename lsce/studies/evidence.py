"""Which runs a page shows: those of the machine that it is run on, or the recorded ones."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args

import pandas as pd

from lsce import studies
from lsce.judging import claims
from lsce.machine import paths
from lsce.results import measurements
from lsce.results.measurements import Digest
from lsce.results.recorded import Recorded, results
from lsce.studies import Shown, Study, profiles
from lsce.sweeps import sweep
from lsce.training import networks

if TYPE_CHECKING:  # a recorder judges claims where nothing can draw
    from matplotlib.figure import Figure

#: A set of this many seeds comes before one of fewer, however large: it has intervals.
SEEDS = 3

#: Below `paths.RUNS`: what each page was last run with on this machine.
LAST = "pages"


class NothingToShow(RuntimeError):
    """A page whose runs are not there."""


@dataclass(frozen=True)
class Evidence:
    """A complete set of runs for a page: every run of each of its seeds."""

    notebook: str
    #: Whether these are recorded results, and not this machine's own.
    recorded: bool
    profile: str
    #: The notebook's parameters that the set was made with.
    parameters: Mapping[str, Any]
    #: The runs of the main figures.
    study: Study
    runs: Sequence[Digest]
    #: Bins of the binned calibration errors.
    bins: int
    #: The study's other groups of runs, by their names.
    others: Mapping[str, "Evidence"]
    #: Runs that the profile asks for on this page and that are not recorded yet.
    lacking: int = 0

    @property
    def name(self) -> str:
        return f"{'recorded results' if self.recorded else 'this machine'}, profile {self.profile}"

    @cached_property
    def table(self) -> pd.DataFrame:
        """`Study.table` of the main runs."""
        return self.study.table(self.runs)

    @cached_property
    def judgements(self) -> dict[str, list[claims.Judgement]]:
        """Every claim of this page, by its id, judged in each regime."""
        tables = {studies.MAIN: self.table}
        tables |= {name: other.table for name, other in self.others.items()}
        return claims.judge(claims.of(self.notebook), tables, self.study.judged)

    @cached_property
    def beside(self) -> "Evidence | None":
        """The largest recorded set for the page, beside runs of this machine; None if none is."""
        return None if self.recorded else next(iter(recorded(self.notebook)), None)

    @property
    def all_runs(self) -> list[Digest]:
        """The runs of all groups, each once."""
        groups = [self.runs, *(other.runs for other in self.others.values())]
        return list({run.spec.id: run for group in groups for run in group}.values())

    @property
    def seeds(self) -> list[int]:
        return sorted({run.spec.seed for run in self.runs})

    @property
    def work(self) -> int:
        """Multiplications that training took, forward passes only: how large the set is."""
        return sum(
            run.spec.epochs * run.spec.train_size * networks.multiply_adds(run.spec.model)
            for run in self.all_runs
        )

    @property
    def rank(self) -> tuple[bool, int, int]:
        """The larger the more it decides: real images first, then seeds, then size."""
        real = all(run.spec.data == "cifar-100" for run in self.runs)
        return real, min(len(self.seeds), SEEDS), self.work

    def publish(self, figure: "Figure", name: str, numbers: pd.DataFrame) -> None:
        """Show and save a figure of this set, see `lsce.report.figures.publish`."""
        from lsce.report import figures

        figures.publish(figure, name, numbers, own=None if self.recorded else self.profile)


def gather(
    notebook: str,
    *,
    profile: str,
    data_name: str,
    runs: Shown,
    train_missing: bool,
    bins: int = measurements.BINS,
    classes: Mapping[str, Sequence[str]] | None = None,
    **parameters: Any,
) -> Evidence:
    """The set of runs that a page shows: those of the study that `parameters` describe.

    `runs` says where they come from: "own" are this machine's, where what is missing is trained
    unless `train_missing` is false; "recorded" are those in `data/recorded`. `profile` is their
    name. `bins` and `classes` are those of `lsce.results.measurements.of`, for this machine's runs.

    Of a profile that is still being recorded, the recorded ones are what there is of it, see
    `recorded`. Raises ValueError, naming a parameter that is out of range; SweepFailed if a run
    cannot be trained; NothingToShow if recorded runs are wanted and are not there.
    """
    if runs not in get_args(Shown):
        raise ValueError(f"runs is {runs!r}; it must be one of {', '.join(get_args(Shown))}")
    study = studies.build(notebook, data_name, parameters)
    if runs == "recorded":
        return _of_recorded(notebook, profile, parameters, study, bins)
    records = sweep.ensure(study.specs, train_missing=train_missing)
    distinct = {record.spec.id: record for record in records}
    digests = {run: measurements.of(record, bins, classes) for run, record in distinct.items()}
    _remember(notebook, dict(profile=profile, data_name=data_name, bins=bins) | parameters)
    return _evidence(notebook, False, profile, parameters, study, digests, bins)


def _of_recorded(
    notebook: str, profile: str, parameters: Mapping[str, Any], study: Study, bins: int
) -> Evidence:
    if bins != measurements.BINS:
        raise ValueError(f"bins is {bins}; recorded runs were measured with {measurements.BINS}")
    have = results()
    missing = have.missing(study.specs)
    if not missing:
        digests = {spec.id: have.load(spec) for spec in study.specs}
        return _evidence(notebook, True, profile, parameters, study, digests, bins)
    if _is_of(profile, notebook, study):
        for found in recorded(notebook):
            if found.profile == profile:
                return found
    raise NothingToShow(
        f"{len(missing)} of the {len(study.specs)} runs that the parameters of {notebook} ask "
        'for are not recorded; runs = "own" trains them'
    )


def _is_of(profile_name: str, notebook: str, study: Study) -> bool:
    """Whether a study is the one that a profile asks for."""
    if profile_name not in profiles.names():
        return False
    profile = profiles.load(profile_name)
    whole = profile.study(notebook, profile.data)
    return {spec.id for spec in whole.specs} == {spec.id for spec in study.specs}


def _remember(notebook: str, parameters: Mapping[str, Any]) -> None:
    file = paths.RUNS / LAST / f"{notebook}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    paths.beside(file).write_text(json.dumps(parameters), encoding="utf-8")
    paths.beside(file).replace(file)


def last(notebook: str) -> Evidence | None:
    """What a page showed when it was last run on this machine; None if it was not, or if runs of
    it are gone since."""
    file = paths.RUNS / LAST / f"{notebook}.json"
    if not file.is_file():
        return None
    try:
        parameters = json.loads(file.read_text(encoding="utf-8"))
        return gather(notebook, runs="own", train_missing=False, **parameters)
    except (ValueError, TypeError, sweep.SweepFailed):
        return None  # damaged, of another version of the page, or of runs that were deleted


def recorded(notebook: str) -> list[Evidence]:
    """What is recorded for a notebook, a set of runs for each profile, the most decisive first.

    A profile that is still being recorded gives what there is: see `part`. A group of runs that it
    lacks comes from the profile after it that has it.
    """
    have, found, groups = results(), [], {}
    for name in profiles.names():
        profile = profiles.load(name)
        whole = profile.study(notebook, profile.data)
        groups |= dict.fromkeys(whole.groups())
        study = part(whole, have)
        if studies.MAIN in study.groups():
            digests = {spec.id: have.load(spec) for spec in study.specs}
            parameters = profile.notebooks[notebook]
            shown = _evidence(notebook, True, name, parameters, study, digests, measurements.BINS)
            found.append(replace(shown, lacking=len(have.missing(whole.specs))))
    found.sort(key=lambda shown: shown.rank, reverse=True)
    others: dict[str, Evidence] = {}
    for shown in reversed(found):
        others |= shown.others
    completed = [replace(shown, others=_in_order(others | shown.others, groups)) for shown in found]
    return [shown for shown in completed if set(groups) <= {studies.MAIN, *shown.others}]


def _in_order(others: Mapping[str, Evidence], groups: Iterable[str]) -> dict[str, Evidence]:
    return {name: others[name] for name in groups if name in others}


def part(study: Study, have: Recorded) -> Study:
    """What is recorded of a study, the same seeds in all that it compares.

    Of each group those seeds of which every run is there; but of smoothing, in the main one, plain
    cross entropy and the judged ε are enough, and other values of ε are shown once all of these
    seeds have them.
    """
    there = [spec in have for spec in study.specs]
    kept: list[int] = []
    for group, positions in study.groups().items():
        optional = {i for i in positions if group == studies.MAIN and _between(study, i)}
        lacking = {study.specs[i].seed for i in positions if not there[i] and i not in optional}
        shown = [i for i in positions if study.specs[i].seed not in lacking]
        unfinished = {_arm(study.labels[i]) for i in shown if not there[i]}
        kept += [i for i in shown if _arm(study.labels[i]) not in unfinished]
    return study.part(sorted(kept))


def _arm(label: Mapping[str, Any]) -> tuple[str, str]:
    return label["regime"], label["arm"]


def _between(study: Study, position: int) -> bool:
    """Whether a run is smoothed with an ε at which no claim is judged."""
    label = study.labels[position]
    return label["method"] == "smoothing" and not studies.decisive(label, study.judged)


def _evidence(
    notebook: str,
    from_recorded: bool,
    profile: str,
    parameters: Mapping[str, Any],
    study: Study,
    digests: Mapping[str, Digest],
    bins: int,
) -> Evidence:
    groups = {}
    for name, positions in study.groups().items():
        part = study.part(positions)
        runs = [digests[spec.id] for spec in part.specs]
        groups[name] = Evidence(
            notebook, from_recorded, profile, parameters, part, runs, bins, others={}
        )
    main = groups.pop(studies.MAIN)
    return replace(main, others=groups)
