"""Which runs a page shows: those of the machine that it is run on, or the recorded ones."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, get_args

import pandas as pd
from matplotlib.figure import Figure

from lsce import claims, digest, models, paths, plots, profiles, studies, sweep
from lsce.digest import Digest
from lsce.profiles import Profile
from lsce.recorded import Recorded, results
from lsce.studies import Shown, Study

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
            run.spec.epochs * run.spec.train_size * models.multiply_adds(run.spec.model)
            for run in self.all_runs
        )

    @property
    def rank(self) -> tuple[bool, int, int]:
        """The larger the more it decides: real images first, then seeds, then size."""
        real = all(run.spec.data == "cifar-100" for run in self.runs)
        return real, min(len(self.seeds), SEEDS), self.work

    def publish(self, figure: Figure, name: str, numbers: pd.DataFrame) -> None:
        """Show and save a figure of this set, see `lsce.plots.publish`."""
        plots.publish(figure, name, numbers, own=None if self.recorded else self.profile)


def gather(
    notebook: str,
    *,
    profile: str,
    data_name: str,
    runs: Shown,
    train_missing: bool,
    bins: int = digest.BINS,
    classes: Mapping[str, Sequence[str]] | None = None,
    **parameters: Any,
) -> Evidence:
    """The set of runs that a page shows: those of the study that `parameters` describe.

    `runs` says where they come from: "own" are this machine's, where what is missing is trained
    unless `train_missing` is false; "recorded" are those in `data/recorded`. `profile` is their
    name. `bins` and `classes` are those of `lsce.digest.of`, for this machine's runs.

    Raises ValueError, naming a parameter that is out of range; SweepFailed if a run cannot be
    trained; NothingToShow if a run is wanted from the recorded ones and is not there.
    """
    if runs not in get_args(Shown):
        raise ValueError(f"runs is {runs!r}; it must be one of {', '.join(get_args(Shown))}")
    study = studies.build(notebook, data_name, parameters)
    if runs == "recorded":
        digests = _of_recorded(notebook, study, bins)
    else:
        records = sweep.ensure(study.specs, train_missing=train_missing)
        distinct = {record.spec.id: record for record in records}
        digests = {run: digest.of(record, bins, classes) for run, record in distinct.items()}
        _remember(notebook, dict(profile=profile, data_name=data_name, bins=bins) | parameters)
    return _evidence(notebook, runs == "recorded", profile, parameters, study, digests, bins)


def _of_recorded(notebook: str, study: Study, bins: int) -> dict[str, Digest]:
    have = results()
    if missing := have.missing(study.specs):
        raise NothingToShow(
            f"{len(missing)} of the {len(study.specs)} runs that the parameters of {notebook} ask "
            'for are not recorded; runs = "own" trains them'
        )
    if bins != digest.BINS:
        raise ValueError(f"bins is {bins}; recorded runs were measured with {digest.BINS}")
    return {spec.id: have.load(spec) for spec in study.specs}


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
    """The complete recorded sets for a notebook, a profile each, the largest first."""
    have, found = results(), []
    for name in profiles.names():
        profile = profiles.load(name)
        study, seeds = complete(profile, notebook, profile.data, have)
        if study is not None:
            digests = {spec.id: have.load(spec) for spec in study.specs}
            parameters = profile.notebooks[notebook] | {"seeds": seeds}
            found.append(_evidence(notebook, True, name, parameters, study, digests, digest.BINS))
    return sorted(found, key=lambda evidence: evidence.rank, reverse=True)


def complete(
    profile: Profile, notebook: str, data_name: str, have: Recorded
) -> tuple[Study | None, list[int]]:
    """A notebook's study with those of its seeds whose runs are all there, and these seeds.

    None if there is no such seed.
    """
    whole = profile.study(notebook, data_name)
    missing = {spec.seed for spec in have.missing(whole.specs)}
    seeds = [seed for seed in profile.notebooks[notebook]["seeds"] if seed not in missing]
    if not seeds:
        return None, []
    # With fewer seeds a study may ask for other runs, as the one with a known posterior does.
    study = profile.study(notebook, data_name, seeds=seeds)
    return (None, []) if have.missing(study.specs) else (study, seeds)


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
