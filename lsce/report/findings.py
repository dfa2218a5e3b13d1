"""What a page found, written beside its figures as JSON; the summary and the front page read it."""

import contextlib
import dataclasses
import json
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from lsce import data, studies
from lsce.judging import rule
from lsce.judging.claims import Claim
from lsce.judging.judgements import Judgement, Term
from lsce.judging.rule import Effect
from lsce.machine import paths
from lsce.report import reproduction
from lsce.studies.evidence import Evidence
from lsce.studies.parameters import Shown

#: The two values of ε at which claims about smoothing are judged.
At = Literal["judged", "chosen"]
AT: tuple[At, At] = ("judged", "chosen")


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
    #: By the claim's id the margin that its verdicts are drawn with; and the claims of "not worse".
    margins: dict[str, float]
    not_worse: list[str]
    #: Rows of `lsce.report.reproduction.with_published`.
    published: list[dict[str, Any]]

    def profile_of(self, claim: Claim) -> str:
        """The profile of the runs that a claim compares."""
        return next(group.profile for group in self.groups if group.name in claim.groups)

    def source(self, profile: str) -> str:
        """In words, where its runs of a profile come from."""
        return f"{'recorded results' if self.recorded else 'this machine'}, profile {profile}"


def of(evidence: Evidence) -> Finding:
    """What a page's evidence says."""
    groups = []
    for name, part in evidence.groups.items():
        runs = part.own_runs
        words, ids = data.entry(runs[0].spec.data).words, [run.task.id for run in runs]
        groups.append(Group(name, part.profile, words, ids))
    notebook = evidence.study.notebook
    declared = studies.claims_of(notebook)
    published = reproduction.with_published(evidence, declared)
    return Finding(
        notebook,
        evidence.recorded,
        evidence.profile,
        evidence.lacking,
        groups,
        evidence.judgements,
        {claim.id: claim.matters for claim in declared},
        [claim.id for claim in declared if claim.not_worse_by is not None],
        _in_json(published.to_dict("records")),
    )


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


def _judgement(effect: dict[str, Any] | None, terms: list[Any], **fields: Any) -> Judgement:
    numbers = {name: _number(value) for name, value in (effect or {}).items()}
    known = Effect(**numbers) if effect else None
    return Judgement(effect=known, terms=tuple(Term(*term) for term in terms), **fields)


def _number(value: Any) -> Any:
    return math.nan if value is None else value


def signed(value: float) -> str:
    """A signed number with two significant digits and a real minus sign."""
    return f"{value:+.2g}".replace("-", "−")


def mean_and_interval(effect: Effect) -> tuple[str, str]:
    """Both with as many decimals as the interval's half width has until its second digit (its
    first, if that is 3 or more); the interval is empty where there is none."""
    if math.isnan(effect.low):
        return signed(effect.mean), ""
    half = (effect.high - effect.low) / 2
    exponent = math.floor(math.log10(half)) if half > 0 else -2
    decimals = max(0, -exponent + (half < 3 * 10**exponent))
    mean, low, high = (
        f"{round(value, decimals) + 0.0:+.{decimals}f}".replace("-", "−")  # no negative zero
        for value in (effect.mean, effect.low, effect.high)
    )
    return mean, f"{low} to {high}"


def judgements(claim: Claim, page: Finding | Evidence, at: At) -> list[Judgement]:
    """A claim's judgements in every regime: those at the judged or at the chosen ε, with those that
    are not about one of the two."""
    return [j for j in page.judgements.get(claim.id, []) if j.at in (at, "both", "")]


def overall(claim: Claim, page: Finding | Evidence, at: At) -> str:
    """The verdict over all regimes at the judged or at the chosen ε; with a single ε there is
    nothing to choose."""
    verdicts = [judgement.verdict for judgement in judgements(claim, page, at)]
    return rule.combine(verdicts) if verdicts else rule.UNTESTABLE


def words(claim: Claim, page: Finding | Evidence) -> str:
    """The verdict over all regimes at the judged ε, and at the chosen one if that is another; of an
    undecided one also what was decided in some regimes."""
    first, second = (_in_regimes(claim, page, at) for at in AT)
    if first == second or not judgements(claim, page, "chosen"):
        return first
    return f"{first} at the judged ε, {second} at the chosen ε"


def _in_regimes(claim: Claim, page: Finding | Evidence, at: At) -> str:
    word = overall(claim, page, at)
    counts = Counter(judged.verdict for judged in judgements(claim, page, at))
    decided = [part for part in counts if part not in (rule.UNDECIDED, rule.UNTESTABLE)]
    if word != rule.UNDECIDED or not decided:
        return word
    return f"{word} ({', '.join(f'{part} in {counts[part]}' for part in decided)})"


def span_of_effects(claim: Claim, page: Finding | Evidence, at: At) -> str:
    """Least and greatest effect of the regimes, how many there are, and the pairs in each."""
    effects = [judged.effect for judged in judgements(claim, page, at) if judged.effect]
    if not effects:
        return "no complete pair of runs"
    means = [signed(mean) for mean in sorted(effect.mean for effect in effects)]
    pairs = sorted({effect.n for effect in effects})
    n = f"n = {' to '.join(map(str, dict.fromkeys([pairs[0], pairs[-1]])))}"
    if len(means) == 1:
        return f"{means[0]} {claim.unit}".rstrip() + f", {n}"
    span = f"{means[0]} to {means[-1]} {claim.unit}".rstrip()
    return f"{span} in {len(means)} regimes, {n}"
