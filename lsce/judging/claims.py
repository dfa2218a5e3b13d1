"""The claims that the report judges, and their verdicts from tables of runs.

The claims of a page are declared in a YAML file beside its study; `changes.csv` says what was
changed after runs had been seen. `lsce.judging.rule` turns effects into verdicts.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from lsce.judging import preconditions, rule
from lsce.judging.arms import Arm, best_arm, by_regime, of_arm, words_of
from lsce.judging.rule import Effect, Estimate
from lsce.machine.values import Value

#: The group of a study's runs that its main figures show.
MAIN = "main"

#: Endings of a control's measure that differs from the treatment's, and their words.
CONTROLS = {"_selected": "stopped early", "_scaled": "temperature scaled"}

#: What a claim's treatment or control is. "smoothing": at the judged ε and at that of the best
#: validation value; "judged" and "plain": ε = the judged one and 0; "tuned" and "another ε": the
#: best smoothing but for ε = 0 and for the judged one; a list of methods: the best of these; a
#: method with "smoothing", "same" (the treatment's ε) or "plain": that with this ε; `ANY` with
#: "smoothing" or "plain": of all arms with this ε the best.
Rule = str | list[str] | dict[str, str]
ANY = "any"

#: How runs' measures vary between groups of test images: see `lsce.results.run.Run.by_group`.
ByGroup = Mapping[str, Mapping[str, np.ndarray]]

#: Says why a claim cannot be tested in a regime with these arms, or None.
Objection = Callable[["Claim", str, tuple[Arm, Arm]], str | None]


class Published(Value):
    """What the literature measured: pairs of `data/published.csv`, without and with smoothing."""

    measure: str
    pairs: list[list[str]]


class Claim(Value):
    """A sentence about label smoothing that paired runs can judge."""

    id: str
    claim: str
    #: The page that judges it, and its figure there.
    notebook: str
    figure: str
    family: str
    #: The date.
    declared: str
    measure: str
    words: str
    unit: str
    scale: float = 1.0
    better: Literal["lower", "higher"]
    #: The margin: the smallest effect that matters, or the loss that a claim of "not worse" allows;
    #: and why it is that.
    smallest: float | None = Field(None, gt=0)
    not_worse_by: float | None = Field(None, gt=0)
    reason: str
    #: What was sampled, beside the seeds, to measure it.
    sampled: Literal["test images", "training images"] = "test images"
    #: The least and greatest value that the measure can have, None where it has none; "guessing" is
    #: what guessing gives (see `lsce.judging.preconditions`).
    bounds: list[float | Literal["guessing"] | None] = Field(
        [None, None], min_length=2, max_length=2
    )
    #: The group of runs that it is judged in, see `lsce.studies.study.Labelled`; or several, with
    #: the words for each.
    group: str | dict[str, str] = MAIN
    treatment: Rule = "smoothing"
    control: Rule = "plain"
    #: The control's measure, if it is another one.
    control_measure: str | None = None
    #: What settings are chosen by, on the validation split: of these columns the first that all
    #: runs have. Those of an accuracy are better when higher, others when lower.
    chosen_by: list[str] = ["validation_accuracy"]
    #: ["more" or "fewer", a column]: the effect is how much larger it is where there is most of
    #: that than where there is least, or the other way round.
    contrast: list[str] | None = None
    #: What a practitioner should make of each verdict but undecided.
    advice: dict[str, str]
    published: Published | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.smallest is None) == (self.not_worse_by is None):
            raise ValueError(f"{self.id}: either smallest or not_worse_by must be given")
        return self

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def sign(self) -> float:
        """Turns a difference in the measure into an effect in the unit, positive for the claim."""
        return self.scale * (1 if self.better == "higher" else -1)

    @property
    def matters(self) -> float:
        """The margin, in the unit."""
        margin = self.not_worse_by or self.smallest
        assert margin is not None
        return margin

    @property
    def groups(self) -> dict[str, str]:
        """The groups of runs that it is judged in, with their words; these are empty for one."""
        return self.group if isinstance(self.group, dict) else {self.group: ""}

    @property
    def is_plain(self) -> bool:
        """Whether it compares smoothing with ε = 0 and nothing else."""
        simple = (self.treatment, self.control, self.control_measure) == (
            "smoothing",
            "plain",
            None,
        )
        return simple and self.group == MAIN and self.contrast is None


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

    @property
    def runs(self) -> frozenset[str]:
        """The ids of the runs that are compared."""
        return frozenset(term.run for term in self.terms)


def declared(file: Path, notebook: str) -> list[Claim]:
    """The claims of a page, none if there is no such file."""
    if not file.is_file():
        return []
    import yaml  # part of what the report is made with, which recording does without

    entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    common = {"notebook": notebook, "family": entries.pop("family")}
    return [Claim(id=name, **common, **fields) for name, fields in entries.items()]


def changes() -> pd.DataFrame:
    """What was changed after runs had been seen: columns date, change, seen (what had been), and
    claims: the ids or families that it touched, separated by "; ", or "all"."""
    return pd.read_csv(Path(__file__).with_name("changes.csv"), dtype=str)


def changes_of(claim: Claim) -> pd.DataFrame:
    """The rows of `changes` that touched a claim."""
    rows = changes()
    touched = [{claim.id, claim.family, "all"} & set(each.split("; ")) for each in rows["claims"]]
    return rows[[bool(each) for each in touched]]


@dataclass(frozen=True)
class _Comparison:
    """A claim in a regime, not yet judged."""

    judgement: Judgement
    estimate: Estimate | None


def judge(
    family: Iterable[Claim],
    tables: Mapping[str, pd.DataFrame],
    epsilon: float,
    by_group: ByGroup,
    objection: Objection = lambda claim, regime, arms: None,
    measured_as: Callable[[str, str], str] = lambda regime, measure: measure,
) -> dict[str, list[Judgement]]:
    """Judge a family of claims, by id, in every regime, with intervals that hold for all of them.

    tables: of runs, by the study's groups (see `lsce.studies.study.table_of`). Claims whose measure
    or group the study lacks are left out. epsilon: the judged one. objection: what the study itself
    has against testing a claim. measured_as: the column and scalar that a measure is in a regime.
    """
    compared = {}
    for claim in family:
        parts = [
            _compare(claim, part, measured_as, by_group, objection)
            for group, words in claim.groups.items()
            if claim.measure in (table := tables.get(group, pd.DataFrame()))
            for part in _parts(claim, words, table, epsilon)
        ]
        if parts:
            compared[claim] = parts
    testable = [part.estimate for parts in compared.values() for part in parts if part.estimate]
    effects = iter(rule.intervals(testable))
    return {
        claim.id: [
            _judged(claim, part.judgement, next(effects)) if part.estimate else part.judgement
            for part in parts
        ]
        for claim, parts in compared.items()
    }


def _judged(claim: Claim, judgement: Judgement, effect: Effect) -> Judgement:
    word = rule.verdict(effect, claim.matters, claim.not_worse_by is not None)
    return Judgement(**vars(judgement) | {"effect": effect, "verdict": word})


class _Part(NamedTuple):
    """Runs in which two arms are compared, at one ε; of a contrast those with least of its column
    come first and those with most second."""

    regime: str
    at: str
    runs: list[pd.DataFrame]
    arms: tuple[Arm, Arm]


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
            regime = " against ".join(part["regime"].iloc[0] for part in reversed(parts))
        name = ": ".join(filter(None, (words, regime)))
        both = pd.concat(parts)
        for at, treatment in _treatments(claim, both, epsilon):
            control = _arm(claim.control, claim, both, epsilon, treatment)
            if control is None:
                continue
            arms = treatment, control
            if all(of_arm(each, arm).any() for each in parts for arm in arms):
                yield _Part(name, at, parts, arms)


def _treatments(claim: Claim, runs: pd.DataFrame, epsilon: float) -> list[tuple[str, Arm]]:
    """The arms that a claim is about, with `Judgement.at`."""
    treatment = claim.treatment
    if treatment == "smoothing" or (
        isinstance(treatment, dict) and "smoothing" in treatment.values()
    ):
        method = next(iter(treatment)) if isinstance(treatment, dict) else "smoothing"
        judged: Arm | None = (method, epsilon)
        smoothed = runs[(runs["method"] == method) & (runs["setting"] > 0)]
        if method == ANY:
            judged = _best(claim, runs[runs["epsilon"] == epsilon])
            smoothed = runs[runs["epsilon"] > 0]
        # Where a page trains a single ε, validation has nothing to choose.
        several = smoothed["epsilon"].nunique() > 1
        chosen = _best(claim, smoothed) if several else None
        if chosen == judged:
            return [("both", judged)] if judged else []
        return [(at, arm) for at, arm in (("judged", judged), ("chosen", chosen)) if arm]
    arm = _arm(treatment, claim, runs, epsilon, ("smoothing", epsilon))
    return [("judged" if treatment == "judged" else "", arm)] if arm else []


def _chosen_by(claim: Claim, runs: pd.DataFrame) -> str:
    """Of the columns that a claim's settings are chosen by the first that all completed runs
    have."""
    completed = runs[runs["status"] != "diverged"]
    complete = (name for name in claim.chosen_by if name in runs and completed[name].notna().all())
    return next(complete, claim.chosen_by[-1])


def _arm(what: Rule, claim: Claim, runs: pd.DataFrame, epsilon: float, to: Arm) -> Arm | None:
    """The arm of a regime that a rule means; None if there is none that never diverged, and for
    "another ε" where there is no third value. to: the treatment."""
    of_rule = {"judged": epsilon, "plain": 0.0, "same": to[1]}
    if isinstance(what, dict):
        ((method, name),) = what.items()
        if method == ANY:
            return _best(claim, runs[runs["epsilon"] == of_rule[name]])
        return method, of_rule[name]
    if isinstance(what, list):
        return _best(claim, runs[runs["method"].isin(what)])
    if what in of_rule:
        return "smoothing", of_rule[what]
    smoothed = runs[(runs["method"] == "smoothing") & (runs["setting"] > 0)]
    if what == "another ε":
        smoothed = smoothed[smoothed["setting"] != epsilon]
    return _best(claim, smoothed)


def _best(claim: Claim, runs: pd.DataFrame) -> Arm | None:
    """The best arm of some runs, by what the claim's settings are chosen by; None if there is none
    that never diverged."""
    return None if runs.empty else best_arm(runs, _chosen_by(claim, runs))


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
    names = part.regime, part.at, treatment, control
    if not terms:
        judgement = Judgement(*names, rule.UNTESTABLE, None, terms, preconditions.NO_PAIRS)
        return _Comparison(judgement, None)
    judgement = Judgement(*names, rule.UNDECIDED, None, terms)
    effects, groups = effects_of(terms, both, by_group if claim.sampled == "test images" else None)
    reasons = [preconditions.failed(claim, runs, part.arms) for runs in part.runs]
    reasons.append(objection(claim, part.regime, part.arms))
    if claim.sampled == "test images" and groups is None:
        reasons.append(preconditions.NO_OUTCOMES)
    if reason := next(filter(None, reasons), None):
        alone = rule.estimate(effects)
        effect = Effect(**vars(alone), low=np.nan, high=np.nan)
        fields = {"effect": effect, "verdict": rule.UNTESTABLE, "reason": reason}
        return _Comparison(Judgement(**vars(judgement) | fields), None)
    return _Comparison(judgement, rule.estimate(effects, groups))


def _terms(claim: Claim, part: _Part, measures: Sequence[str]) -> Iterator[Term]:
    """The terms of the effects of all seeds that have every value; measures: of the treatment and
    of the control."""
    signs = [1.0]
    if claim.contrast is not None:
        signs = [-1.0, 1.0] if claim.contrast[0] == "more" else [1.0, -1.0]
    columns = [
        (measure, claim.sign * sign * side, runs[of_arm(runs, arm)].set_index("seed"))
        for runs, sign in zip(part.runs, signs, strict=True)
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
