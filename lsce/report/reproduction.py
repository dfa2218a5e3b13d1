"""Do the recorded numbers come out again: on this machine, and in the literature?

The rules are declared here. A headline number is an effect that a claim is judged by, or a level
of `LEVELS` at ε = 0 or at the judged ε, in one regime.

On this machine: the same specs trained here and recorded, paired by seed. The number *agrees* if
the 95% t interval of the difference contains 0, with Holm's correction over all numbers that are
compared; it is *the same* if every run gave exactly the recorded value; otherwise it *differs*.
With a single seed it is *undecided* unless the same.

In the literature: networks and recipes differ, so only directions are compared. An effect goes *the
same way* as a published one if its 95% interval lies on the published one's side of 0, the
*opposite way* if it lies on the other side, and is *undecided* if it contains 0. Where two papers
disagree, `lsce.report.disagreements` says what ours decide.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from lsce import studies
from lsce.judging import judgements, statistics
from lsce.judging.arms import by_regime
from lsce.judging.claims import Claim
from lsce.judging.rule import Effect
from lsce.judging.statistics import Interval
from lsce.report import literature
from lsce.report.tables import table
from lsce.results.recorded import Recorded
from lsce.studies.evidence import Evidence
from lsce.studies.study import table_of

#: Levels beside the claims' effects: column of a study's table → words, scale and unit.
LEVELS = {
    "top1_error": ("top-1 error", 100, "points"),
    "ece": ("ECE", 1, ""),
    "ece_scaled": ("ECE after temperature scaling", 1, ""),
    "temperature": ("temperature", 1, ""),
}

#: Families of claims whose main runs are those of this page's regimes.
FAMILIES = ("over-fitting", "calibration")

SAME, AGREES, DIFFERS, UNDECIDED = "the same", "agrees", "differs", "undecided"

#: Family-wise level of the comparison with the recorded results.
LEVEL = 0.05


def declared() -> list[Claim]:
    """The claims that this page compares."""
    return [claim for claim in studies.all_claims().values() if claim.family in FAMILIES]


def with_recorded(own: Evidence, results: Recorded) -> pd.DataFrame:
    """Every headline number of this machine's runs beside the recorded one.

    Columns: regime, number, unit, n (seeds in both), recorded and here (means) with their
    `_low` and `_high`, difference with its `_low` and `_high` (not corrected), p (corrected) and
    outcome. Only runs that are recorded with the same spec are compared: empty if none is.
    """
    unknown = {label.task.seed for label in own.study.labelled if label.task not in results}
    both = [pair for pair in own.pairs if pair[0].task.seed not in unknown]
    if not both:
        return pd.DataFrame()
    here = _by_seed(table_of(both), own.study.judged)
    loaded = [(label, results.load(label.task)) for label, _ in both]
    recorded = _by_seed(table_of(loaded), own.study.judged)
    rows = []
    for key, values in here.items():
        pairs = values.to_frame("here").join(recorded[key].rename("recorded")).dropna()
        if len(pairs):
            rows.append(_compare(*key, pairs))
    numbers = pd.DataFrame(rows)
    known = numbers["p"].notna()
    if known.any():
        numbers.loc[known, "p"] = statistics.holm(numbers.loc[known, "p"])
    cases = [numbers.pop("equal"), ~known, numbers["p"] < LEVEL]
    numbers["outcome"] = np.select(cases, [SAME, UNDECIDED, DIFFERS], AGREES)
    return numbers


def _by_seed(runs: pd.DataFrame, judged: float) -> dict[tuple[str, str, str], pd.Series]:
    """Values by seed of every headline number: (regime, words, unit) → series."""
    numbers = {}
    for regime, part in by_regime(runs):
        for claim in declared():
            # Of the others the rival is chosen, and perhaps another one each time.
            if claim.is_plain:
                effects = judgements.smoothing_effects(claim, part, claim.measure, judged)
                numbers[regime, f"effect: {claim.words}", claim.unit] = effects
        for column, (words, scale, unit) in LEVELS.items():
            for epsilon in (0.0, judged):
                values = judgements.values(part, ("smoothing", epsilon), column)
                numbers[regime, f"{words}, ε = {epsilon:g}", unit] = scale * values
    return numbers


def _compare(regime: str, number: str, unit: str, pairs: pd.DataFrame) -> dict[str, Any]:
    """A row of `with_recorded`, from the values here and recorded by seed."""
    row: dict[str, Any] = {"regime": regime, "number": number, "unit": unit, "n": len(pairs)}
    difference = statistics.paired_difference(pairs["here"], pairs["recorded"])
    for name, interval in (
        ("recorded", statistics.mean_interval(pairs["recorded"])),
        ("here", statistics.mean_interval(pairs["here"])),
        ("difference", difference),
    ):
        row |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return row | {"p": difference.p, "equal": bool((pairs["here"] == pairs["recorded"]).all())}


def reproduced(numbers: pd.DataFrame) -> Styler:
    """Headline numbers of a regime, see `with_recorded`."""
    unit = numbers["unit"].map(lambda unit: f", {unit}" * bool(unit))
    rows = pd.DataFrame({"number": numbers["number"] + unit})
    for name in ("recorded", "here", "difference"):
        ends = numbers[[name, f"{name}_low", f"{name}_high"]]
        texts = [
            f"{mean:.3g}" + f" ({low:.3g} to {high:.3g})" * (not np.isnan(low))
            for mean, low, high in ends.itertuples(index=False)
        ]
        rows[name] = [text.replace("-", "−") for text in texts]
    rows = rows.assign(n=numbers["n"], outcome=numbers["outcome"])
    return table(rows.rename(columns={"here": "this machine"}), wrapped=["number"], width="15em")


def summary(numbers: pd.DataFrame, profile: str) -> list[str]:
    """The comparison with the recorded results in a few lines of plain text."""
    if numbers.empty:
        return [f"No run of profile {profile} on this machine is recorded with the same spec."]
    phrases = {
        SAME: "are exactly the same",
        AGREES: "agree",
        DIFFERS: "differ",
        UNDECIDED: "are undecided (one seed)",
    }
    counts = numbers["outcome"].value_counts()
    words = ", ".join(f"{counts[name]} {phrases[name]}" for name in phrases if name in counts)
    lines = [
        f"Of {len(numbers)} headline numbers of profile {profile}, this machine's against the "
        f"recorded: {words}."
    ]
    line = "  differs: {number} ({regime}): recorded {recorded:.4g}, here {here:.4g} {unit}"
    differing = numbers[numbers["outcome"] == DIFFERS]
    return [*lines, *(line.format(**row).rstrip() for _, row in differing.iterrows())]


def with_published(shown: Evidence, declared: Iterable[Claim]) -> pd.DataFrame:
    """The effects in every regime beside each that the literature reports for the same claim.

    Columns: claim, unit, source ("here" or "published"), name (the regime, or paper and network),
    epsilon (NaN where a paper has no single one), effect (positive favours the claim), low and high
    (NaN for published ones), n. Ours are at the regime's ε nearest to that of a published pair (to
    the judged one where it is NaN), one row for each such ε; or, where the claim compares other
    arms than an ε with 0, those that it is judged by.
    """
    reported, judged = literature.published(), shown.study.judged
    rows = []
    for claim in declared:
        if claim.published is None:
            continue
        measure = claim.published.measure
        theirs = [
            _published(claim.sign, measure, reported.loc[pair]) for pair in claim.published.pairs
        ]
        ours = []
        if claim.is_plain:
            runs = shown.table if measure in shown.table else shown.table.iloc[:0]
            for regime, part in by_regime(runs):
                wanted = {_compared_at(row["epsilon"], judged) for row in theirs}
                for epsilon in sorted({_nearest(part, epsilon) for epsilon in wanted}):
                    effects = judgements.smoothing_effects(claim, part, measure, epsilon)
                    if len(effects):
                        ours.append(_ours(regime, epsilon, statistics.mean_interval(effects)))
        else:
            ours = [
                _ours(each.regime, judged, each.effect)
                for each in shown.judgements.get(claim.id, [])
                if each.effect and each.at != "chosen"
            ]
        rows += [{"claim": claim.claim, "unit": claim.unit} | row for row in (*ours, *theirs)]
    return pd.DataFrame(rows)


def _published(sign: float, measure: str, pair: pd.DataFrame) -> dict[str, Any]:
    """A row of `with_published`, from the published values without and with smoothing."""
    plain, smoothed = literature.in_units_of(measure, pair)
    first = pair.iloc[0]
    return {
        "source": "published",
        "name": literature.name(first),
        "epsilon": float(pair["epsilon"].iloc[1]),
        "effect": sign * (smoothed - plain),
        "setting": first["setting"],
    }


def _compared_at(epsilon: float, judged: float) -> float:
    """The ε that a published effect is compared at."""
    return judged if np.isnan(epsilon) else epsilon


def _nearest(runs: pd.DataFrame, epsilon: float) -> float:
    """The ε > 0 of some runs that is nearest; the conventions differ by 1% with 100 classes."""
    smoothed = runs.loc[(runs["method"] == "smoothing") & (runs["setting"] > 0), "setting"]
    return float(min(smoothed, key=lambda setting: abs(setting - epsilon)))


def _ours(regime: str, epsilon: float, effect: Interval | Effect) -> dict[str, Any]:
    row = {"source": "here", "name": regime, "epsilon": epsilon, "effect": effect.mean}
    return row | {"low": effect.low, "high": effect.high, "n": effect.n}


def directions(numbers: pd.DataFrame, judged: float) -> pd.DataFrame:
    """A row a published effect of `with_published`, with the outcome in each of our regimes, at the
    judged ε where a paper has no single one."""
    rows = []
    for claim, part in numbers.groupby("claim", sort=False):
        ours = part[part["source"] == "here"]
        for _, theirs in part[part["source"] == "published"].iterrows():
            row = {"claim": claim, "published": theirs["name"], "setting": theirs["setting"]}
            row |= {"ε": theirs["epsilon"], "effect": theirs["effect"]}
            epsilon = _compared_at(theirs["epsilon"], judged)
            for regime, effects in ours.groupby("name", sort=False):
                effect = effects.iloc[int((effects["epsilon"] - epsilon).abs().argmin())]
                same = effect["effect"] * theirs["effect"] > 0
                direction = "the same way" if same else "the opposite way"
                decided = effect["low"] > 0 or effect["high"] < 0
                row[str(regime)] = direction if decided else UNDECIDED
            rows.append(row)
    return pd.DataFrame(rows)


def published(directions: pd.DataFrame) -> Styler:
    """Published effects on a claim with the direction of ours."""
    effect = directions["effect"].map("{:+.3g}".format).str.replace("-", "−")
    rows = directions.drop(columns=["claim", "setting"]).assign(effect=effect)
    return table(rows, {"ε": "{:g}"}, wrapped=["published"], width="13em")
