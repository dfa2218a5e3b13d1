"""What a page found, written beside its figures as JSON; the summary and the front page read it."""

import contextlib
import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

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
    """A group of a page's runs: its name, the profile and the data that it is of, its runs' ids."""

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

    def group_of(self, claim: Claim) -> Group:
        """The group that a claim compares."""
        return next(group for group in self.groups if group.name == claim.group)

    def compared(self, claim: Claim) -> set[str]:
        """The runs whose differences the verdict on a claim rests on."""
        return {run for judged in self.judgements.get(claim.id, []) for run in judged.runs}

    def whose(self, profile: str) -> str:
        """The words for its runs of a profile."""
        return f"{'recorded results' if self.recorded else 'this machine'}, profile {profile}"


def of(shown: Evidence) -> Finding:
    """What a page's evidence says."""
    groups = [
        Group(name, part.profile, _data_of(part), [run.task.id for run in part.own_runs])
        for name, part in {MAIN: shown, **shown.others}.items()
    ]
    notebook = shown.study.notebook
    numbers = reproduction.with_published(shown, studies.claims_of(notebook))
    return Finding(
        notebook,
        shown.recorded,
        shown.profile,
        shown.lacking,
        groups,
        shown.judgements,
        _in_json(numbers.to_dict("records")),
    )


def _data_of(shown: Evidence) -> str:
    return data.entry(shown.own_runs[0].spec.data).words


def _file(notebook: str, own: str | None) -> Path:
    """Beside the page's figures."""
    return (paths.FIGURES / own if own else paths.FIGURES) / f"{notebook}.json"


def write(finding: Finding) -> None:
    """Save what a page found, in place of what it found before."""
    file = _file(finding.notebook, None if finding.recorded else finding.profile)
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_in_json(dataclasses.asdict(finding)), indent=1, ensure_ascii=False)
    paths.beside(file).write_text(text + "\n", encoding="utf-8")
    paths.beside(file).replace(file)


def _in_json(value: Any) -> Any:
    """JSON has no NaN and no sets."""
    if isinstance(value, dict):
        return {name: _in_json(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_in_json(each) for each in value]
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, float):
        return None if math.isnan(value) else value
    return value


def read(notebook: str, runs: Shown) -> Finding | None:
    """What a page found: with "own" when it was last run on this machine with its own runs, if it
    was; else of the recorded ones. None if nothing is there that this version can read."""
    files = [_file(notebook, None)]
    if runs == "own":
        own = list(paths.FIGURES.glob(f"*/{notebook}.json"))
        files = [*sorted(own, key=lambda file: -file.stat().st_mtime), *files]
    for file in files:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            return _of_json(json.loads(file.read_text(encoding="utf-8")))
    return None


def _of_json(fields: dict[str, Any]) -> Finding:
    judgements = {
        claim: [_judgement(each) for each in judged]
        for claim, judged in fields["judgements"].items()
    }
    groups = [Group(**group) for group in fields["groups"]]
    return Finding(**fields | {"judgements": judgements, "groups": groups})


def _judgement(fields: dict[str, Any]) -> Judgement:
    effect = fields["effect"]
    if effect is not None:
        effect = Interval(**{name: _number(value) for name, value in effect.items()})  # type: ignore[arg-type]
    changed = {"effect": effect, "runs": frozenset(fields["runs"]), "p": _number(fields["p"])}
    return Judgement(**fields | changed)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


# ---- verdicts in words ----


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


def overall(claim: Claim, shown: Finding | Evidence) -> str:
    """The verdict over all regimes."""
    judged = shown.judgements.get(claim.id)
    return statistics.combine(each.verdict for each in judged) if judged else statistics.UNDECIDED


def span_of_effects(claim: Claim, shown: Finding | Evidence) -> str:
    """Least and greatest effect of the regimes, how many there are, and the pairs in each."""
    judged = [j.effect for j in shown.judgements.get(claim.id, []) if j.effect is not None]
    if not judged:
        return "no complete pair of runs"
    means = [signed(mean) for mean in sorted(effect.mean for effect in judged)]
    span = f"{means[0]} to {means[-1]}" if len(means) > 1 else means[0]
    regimes = f" in {len(means)} regimes" if len(means) > 1 else ""
    return f"{span} {claim.unit}".rstrip() + f"{regimes}, n = {judged[0].n}"


def in_smallest(claim: Claim, judged: list[Judgement]) -> pd.DataFrame:
    """Every effect in smallest effects that matter, for `lsce.report.figures.effects`."""
    rows = []
    for found in judged:
        if (effect := found.effect) is not None:
            row = {"claim": claim.claim, "regime": found.regime, "n": effect.n}
            ends = {"effect": effect.mean, "low": effect.low, "high": effect.high}
            row |= {name: value / claim.matters for name, value in ends.items()}
            rows.append(row | {"p": found.p, "verdict": found.verdict})
    return pd.DataFrame(rows)
