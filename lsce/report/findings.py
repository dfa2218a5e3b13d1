"""What a page found, written beside its figures as JSON; the summary and the front page read it."""

import contextlib
import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

from lsce import data, studies
from lsce.judging import statistics
from lsce.judging.claims import MAIN, Claim, Judgement
from lsce.judging.statistics import Interval
from lsce.machine import paths
from lsce.report import reproduction
from lsce.studies.evidence import Evidence
from lsce.studies.parameters import Shown


@dataclass(frozen=True)
class Group:
    """A group of a page's runs: its name, its profile, its data in words, and the runs' ids."""

    name: str
    profile: str
    data: str
    runs: list[str]


@dataclass(frozen=True)
class Finding:
    """What a page found: every claim judged in each regime, and on which runs."""

    notebook: str
    recorded: bool
    profile: str
    #: Runs that the profile asks for on this page and that are not recorded yet.
    lacking: int
    groups: list[Group]
    judgements: dict[str, list[Judgement]]
    #: Rows of `lsce.report.reproduction.with_published`.
    published: list[dict[str, Any]]

    def profile_of(self, claim: Claim) -> str:
        """The profile of the runs that a claim compares."""
        return next(group.profile for group in self.groups if group.name == claim.group)

    def source(self, profile: str) -> str:
        """In words, where its runs of a profile come from."""
        return f"{'recorded results' if self.recorded else 'this machine'}, profile {profile}"


def of(evidence: Evidence) -> Finding:
    """What a page's evidence says."""
    groups = []
    for name, part in {MAIN: evidence, **evidence.others}.items():
        runs = part.own_runs
        words, ids = data.entry(runs[0].spec.data).words, [run.task.id for run in runs]
        groups.append(Group(name, part.profile, words, ids))
    notebook = evidence.study.notebook
    published = reproduction.with_published(evidence, studies.claims_of(notebook))
    rows = _in_json(published.to_dict("records"))
    source = (evidence.recorded, evidence.profile, evidence.lacking)
    return Finding(notebook, *source, groups, evidence.judgements, rows)


def write(finding: Finding) -> None:
    """Save what a page found, in place of what it found before."""
    folder = paths.FIGURES if finding.recorded else paths.FIGURES / finding.profile
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{finding.notebook}.json"
    text = json.dumps(_in_json(dataclasses.asdict(finding)), indent=1, ensure_ascii=False)
    paths.beside(file).write_text(text + "\n", encoding="utf-8")
    paths.beside(file).replace(file)


def _in_json(value: Any) -> Any:
    """The value without what JSON lacks: NaN becomes None, and a set a sorted list."""
    return json.loads(json.dumps(value, default=sorted), parse_constant=lambda name: None)


def read(notebook: str, runs: Shown) -> Finding | None:
    """What a page found: with "own" when it was last run on this machine with its own runs, if it
    was; else of the recorded ones. None if nothing is there that this version can read."""
    files = [paths.FIGURES / f"{notebook}.json"]
    if runs == "own":
        own = paths.FIGURES.glob(f"*/{notebook}.json")
        files = [*sorted(own, key=lambda file: -file.stat().st_mtime), *files]
    for file in files:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            fields = json.loads(file.read_text(encoding="utf-8"))
            fields["groups"] = [Group(**group) for group in fields["groups"]]
            for claim, rows in fields["judgements"].items():
                fields["judgements"][claim] = [_judgement(**row) for row in rows]
            return Finding(**fields)
    return None


def _judgement(
    effect: dict[str, Any] | None, runs: list[str], p: float | None, **fields: Any
) -> Judgement:
    numbers = {name: _number(value) for name, value in (effect or {}).items()}
    interval = Interval(**numbers) if effect else None
    return Judgement(effect=interval, runs=frozenset(runs), p=_number(p), **fields)


def _number(value: Any) -> Any:
    return math.nan if value is None else value


def signed(value: float) -> str:
    """A signed number with two significant digits and a real minus sign."""
    return f"{value:+.2g}".replace("-", "−")


def mean_and_interval(effect: Interval) -> tuple[str, str]:
    """Both with as many decimals as the interval's half width has until its second digit (its
    first, if that is 3 or more); the interval is empty for a single seed."""
    if effect.n < 2:
        return signed(effect.mean), ""
    half = (effect.high - effect.low) / 2
    exponent = math.floor(math.log10(half)) if half > 0 else -2
    decimals = max(0, -exponent + (half < 3 * 10**exponent))
    mean, low, high = (
        f"{round(value, decimals) + 0.0:+.{decimals}f}".replace("-", "−")  # no negative zero
        for value in (effect.mean, effect.low, effect.high)
    )
    return mean, f"{low} to {high}"


def overall(claim: Claim, page: Finding | Evidence) -> str:
    """The verdict over all regimes."""
    verdicts = [judgement.verdict for judgement in page.judgements.get(claim.id, [])]
    return statistics.combine(verdicts) if verdicts else statistics.UNDECIDED


def span_of_effects(claim: Claim, page: Finding | Evidence) -> str:
    """Least and greatest effect of the regimes, how many there are, and the pairs in each."""
    effects = [judged.effect for judged in page.judgements.get(claim.id, []) if judged.effect]
    if not effects:
        return "no complete pair of runs"
    means = [signed(mean) for mean in sorted(effect.mean for effect in effects)]
    if len(means) == 1:
        return f"{means[0]} {claim.unit}".rstrip() + f", n = {effects[0].n}"
    span = f"{means[0]} to {means[-1]} {claim.unit}".rstrip()
    return f"{span} in {len(means)} regimes, n = {effects[0].n}"
