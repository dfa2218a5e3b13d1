"""Judging: verdicts on claims from tables of runs.

Claims are declared in `lsce.judging.claims`; `lsce.judging.rule` turns effects into verdicts.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from lsce.judging import preconditions, rule
from lsce.judging.arms import Arm, best_arm, by_regime, of_arm, words_of
from lsce.judging.claims import ANY, CONTROLS, Claim, Rule
from lsce.judging.rule import Effect, Estimate

#: How runs' measures vary between groups of test images: see `lsce.results.run.Run.by_group`.
ByGroup = Mapping[str, Mapping[str, np.ndarray]]

#: Says why a claim cannot be tested in a regime with these arms, or None.
Objection = Callable[[Claim, str, tuple[Arm, Arm]], str | None]


class Term(NamedTuple):
    """A part of a seed's effect: a measure of a run, times a weight."""

    seed: int
    run: str
    measure: str
    weight: float


@dataclass(frozen=True)
class Judgement:
    """A claim's verdict in one regime.

    `at`: "judged" at the judged ε, "chosen" at the ε of the best validation value, "both" where
    these are the same, "" where the claim is of other arms. `treatment` and `control` are in words.
    The effect is positive where it favours the claim: of each seed it is the sum of its terms. With
    no complete pair of runs there is none. `reason` says why a claim is not testable.
    """

    regime: str
    at: str
    treatment: str
    control: str
    verdict: str
    effect: Effect | None
    terms: tuple[Term, ...]
    reason: str = ""
    #: The column that ε was chosen by, "" where it was not.
    chosen_by: str = ""

    @property
    def runs(self) -> frozenset[str]:
        """The ids of the runs that are compared."""
        return frozenset(term.run for term in self.terms)


@dataclass(frozen=True)
class _Comparison:
    """A claim in a regime, not yet judged."""

    judgement: Judgement
    estimate: Estimate | None
    among: tuple[int, int] = (1, 1)


def judge(
    family: Iterable[Claim],
    tables: Mapping[str, pd.DataFrame],
    epsilon: float,
    by_group: ByGroup,
    objection: Objection = lambda claim, regime, arms: None,
    measured_as: Callable[[str, str], str] = lambda regime, measure: measure,
    planned: Mapping[str, pd.DataFrame] | None = None,
) -> dict[str, list[Judgement]]:
    """Judge a family of claims, by id, in every regime, with intervals that hold for all of them.

    tables: of runs, by the study's groups (see `lsce.studies.study.table_of`). Claims whose measure
    or group the study lacks are left out. epsilon: the judged one. objection: what the study itself
    has against testing a claim. measured_as: the column and scalar that a measure is in a regime.
    planned: every run that the page is to have, see `lsce.studies.study.Study.plan`: intervals hold
    for all that will be judged, however much of it is there.
    """
    compared, family = {}, list(family)
    for claim in family:
        parts = [
            _compare(claim, part, measured_as, by_group, objection)
            for group, words in claim.groups.items()
            if claim.measure in (table := tables.get(group, pd.DataFrame()))
            for part in _parts(claim, words, table, epsilon)
        ]
        if parts:
            compared[claim] = parts
    testable = [part for parts in compared.values() for part in parts if part.estimate]
    estimates = [part.estimate for part in testable if part.estimate]
    sizes = [_family_size((part.judgement.at, part.among) for part in testable)]
    if planned is not None:
        sizes.append(_family_size(_to_be_judged(family, planned, epsilon)))
    effects = iter(rule.intervals(estimates, max(sizes)))
    return {
        claim.id: [
            _judged(claim, part.judgement, next(effects)) if part.estimate else part.judgement
            for part in parts
        ]
        for claim, parts in compared.items()
    }


def _family_size(judged: Iterable[tuple[str, tuple[int, int]]]) -> float:
    """See `lsce.judging.rule.family_size`: a treatment that was chosen may have been raised by
    chance, and a control that was chosen the same. judged: `Judgement.at` and `_Part.among`."""
    fixed, among = 0, []
    for at, (treatments, controls) in judged:
        fixed += at == "both"
        others = treatments - (at in ("chosen", "both"))  # the judged one is judged anyway
        among.append(others + controls - 1)
    return rule.family_size(fixed, among)


def _to_be_judged(
    family: Iterable[Claim], planned: Mapping[str, pd.DataFrame], epsilon: float
) -> Iterator[tuple[str, tuple[int, int]]]:
    """What `_family_size` takes, of runs that need not be there, whatever validation chooses."""
    for claim in family:
        for group, words in claim.groups.items():
            if group in planned:
                table = planned[group].assign(status="completed", **{claim.chosen_by[0]: 0.0})
                for part in _parts(claim, words, table, epsilon):
                    yield part.at, part.among


def _judged(claim: Claim, judgement: Judgement, effect: Effect) -> Judgement:
    word = rule.verdict(effect, claim.matters, claim.not_worse_by is not None)
    return replace(judgement, effect=effect, verdict=word)


class _Part(NamedTuple):
    """Runs in which two arms are compared, at one ε; of a contrast those where the effect is to be
    larger come first."""

    regime: str
    at: str
    runs: list[pd.DataFrame]
    arms: tuple[Arm, Arm]
    #: Among how many each of these was chosen, and the column that ε was chosen by.
    among: tuple[int, int]
    by: str


def _parts(claim: Claim, words: str, table: pd.DataFrame, epsilon: float) -> Iterator[_Part]:
    """Where a claim is judged: every regime, or all of them for a contrast, at one or two ε."""
    for regime, runs in by_regime(table) if claim.contrast is None else [("", table)]:
        parts = [runs]
        if claim.contrast is not None:
            column = claim.contrast[1]
            sizes = [runs[column].min(), runs[column].max()]
            if sizes[0] == sizes[1]:
                continue
            parts = [runs[runs[column] == size] for size in sizes]
            if claim.contrast[0] == "more":
                parts.reverse()
            regime = " against ".join(part["regime"].iloc[0] for part in parts)
        name = ": ".join(filter(None, (words, regime)))
        both = pd.concat(parts)
        for treatment in _treatments(claim, both, epsilon):
            control = _arm(claim.control, claim, both, epsilon, treatment.arm)
            if control is None:
                continue
            arms = treatment.arm, control.arm
            if all(of_arm(each, arm).any() for each in parts for arm in arms):
                among = treatment.among, control.among
                yield _Part(name, treatment.at, parts, arms, among, treatment.by)


class _Choice(NamedTuple):
    """An arm, among how many validation chose it (1: it did not) and by which column, and
    `Judgement.at`."""

    arm: Arm
    among: int = 1
    by: str = ""
    at: str = ""


def _treatments(claim: Claim, runs: pd.DataFrame, epsilon: float) -> list[_Choice]:
    """The arms that a claim is about."""
    treatment = claim.treatment
    if not (
        treatment == "smoothing"
        or (isinstance(treatment, dict) and "smoothing" in treatment.values())
    ):
        arm = _arm(treatment, claim, runs, epsilon, ("smoothing", epsilon))
        return [arm._replace(at="judged" if treatment == "judged" else "")] if arm else []
    method = next(iter(treatment)) if isinstance(treatment, dict) else "smoothing"
    judged: _Choice | None = _Choice((method, epsilon))
    smoothed = runs[(runs["method"] == method) & (runs["setting"] > 0)]
    if method == ANY:
        judged = _best(claim, runs[runs["epsilon"] == epsilon])
        smoothed = runs[runs["epsilon"] > 0]
    # Where a page trains a single ε, validation has nothing to choose.
    several = smoothed["epsilon"].nunique() > 1
    chosen = _best(claim, smoothed) if several else None
    if judged and chosen and chosen.arm == judged.arm:
        return [chosen._replace(at="both")]
    return [
        choice._replace(at=at)
        for at, choice in (("judged", judged), ("chosen", chosen))
        if choice is not None
    ]


def _chosen_by(claim: Claim, runs: pd.DataFrame) -> str:
    """Of the columns that a claim's settings are chosen by the first that all completed runs
    have."""
    completed = runs[runs["status"] != "diverged"]
    complete = (name for name in claim.chosen_by if name in runs and completed[name].notna().all())
    return next(complete, claim.chosen_by[-1])


def _arm(what: Rule, claim: Claim, runs: pd.DataFrame, epsilon: float, to: Arm) -> _Choice | None:
    """The arm of a regime that a rule means; None if there is none that never diverged, and for
    "another ε" where there is no third value. to: the treatment."""
    of_rule = {"judged": epsilon, "plain": 0.0, "same": to[1]}
    if isinstance(what, dict):
        ((method, name),) = what.items()
        if method == ANY:
            return _best(claim, runs[runs["epsilon"] == of_rule[name]])
        return _Choice((method, of_rule[name]))
    if isinstance(what, list):
        return _best(claim, runs[runs["method"].isin(what)])
    if what in of_rule:
        return _Choice(("smoothing", of_rule[what]))
    smoothed = runs[(runs["method"] == "smoothing") & (runs["setting"] > 0)]
    if what == "another ε":
        smoothed = smoothed[smoothed["setting"] != epsilon]
    return _best(claim, smoothed)


def _best(claim: Claim, runs: pd.DataFrame) -> _Choice | None:
    """The best arm of some runs, by what the claim's settings are chosen by; None if there is none
    that never diverged."""
    if runs.empty:
        return None
    by = _chosen_by(claim, runs)
    arm = best_arm(runs, by)
    settings = runs.groupby(["method", "setting"], dropna=False).ngroups
    return _Choice(arm, settings, by) if arm else None


def _compare(
    claim: Claim,
    part: _Part,
    measured_as: Callable[[str, str], str],
    by_group: ByGroup,
    objection: Objection,
) -> _Comparison:
    """A claim's effect in a part of the runs, or why it cannot be tested there."""
    measures = claim.measure, claim.control_measure or claim.measure
    terms = tuple(_terms(claim, part, [measured_as(part.regime, name) for name in measures]))
    both = pd.concat(part.runs)
    treatment, control = (words_of(both, arm) for arm in part.arms)
    for ending, words in CONTROLS.items():
        if (claim.control_measure or "").endswith(ending):
            control += f", {words}"
    by = part.by if part.at in ("chosen", "both") else ""
    names = part.regime, part.at, treatment, control
    if not terms:
        judgement = Judgement(*names, rule.UNTESTABLE, None, terms, preconditions.NO_PAIRS, by)
        return _Comparison(judgement, None)
    judgement = Judgement(*names, rule.UNDECIDED, None, terms, chosen_by=by)
    effects, groups = effects_of(terms, both, by_group if claim.sampled == "test images" else None)
    reasons = [preconditions.failed(claim, runs, part.arms) for runs in part.runs]
    reasons.append(objection(claim, part.regime, part.arms))
    if claim.sampled == "test images" and groups is None:
        reasons.append(preconditions.NO_OUTCOMES)
    if reason := next(filter(None, reasons), None):
        alone = rule.estimate(effects)
        effect = Effect(**vars(alone), low=np.nan, high=np.nan)
        untestable = replace(judgement, effect=effect, verdict=rule.UNTESTABLE, reason=reason)
        return _Comparison(untestable, None)
    return _Comparison(judgement, rule.estimate(effects, groups), part.among)


def _terms(claim: Claim, part: _Part, measures: Sequence[str]) -> Iterator[Term]:
    """The terms of the effects of all seeds that have every value; measures: of the treatment and
    of the control."""
    columns = [
        (measure, claim.sign * sign * side, runs[of_arm(runs, arm)].set_index("seed"))
        for runs, sign in zip(part.runs, (1.0, -1.0), strict=False)
        for arm, measure, side in zip(part.arms, measures, (1.0, -1.0), strict=True)
    ]
    known = [rows.index[rows[measure].notna()] for measure, _, rows in columns]
    for seed in known[0]:
        if all(seed in index for index in known[1:]):
            for measure, weight, rows in columns:
                yield Term(int(seed), str(rows.loc[seed, "run"]), measure, weight)


def effects_of(
    terms: Sequence[Term], table: pd.DataFrame, by_group: ByGroup | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """The effect of each seed (n,); and (n, G) how it varies between groups of test images, None if
    that is not known of every term."""
    measures = {term.measure for term in terms}
    values = {name: dict(zip(table["run"], table[name], strict=True)) for name in measures}
    known = by_group is not None and all(t.measure in by_group.get(t.run, {}) for t in terms)
    effects: dict[int, float] = {}
    groups: dict[int, np.ndarray] = {}
    for term in terms:
        value = values[term.measure][term.run]
        effects[term.seed] = effects.get(term.seed, 0.0) + term.weight * value
        if by_group is not None and known:
            part = term.weight * by_group[term.run][term.measure]
            groups[term.seed] = groups.get(term.seed, 0.0) + part
    return np.array([*effects.values()]), np.stack([*groups.values()]) if known else None


def smoothing_effects(claim: Claim, runs: pd.DataFrame, measure: str, epsilon: float) -> pd.Series:
    """The effect of smoothing at `epsilon` against none on a measure, in the claim's unit and
    positive where it favours the claim, for each seed of a regime's runs that has both."""
    first = values(runs, ("smoothing", epsilon), measure)
    return (claim.sign * (first - values(runs, ("smoothing", 0.0), measure))).dropna()


def values(runs: pd.DataFrame, arm: Arm, measure: str) -> pd.Series:
    """A measure of an arm's runs by seed."""
    return runs[of_arm(runs, arm)].set_index("seed")[measure]
