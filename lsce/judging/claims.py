"""The claims that the report judges, and their verdicts from tables of runs.

The claims of a page are declared in a YAML file beside its study; `changes.csv` says what was
changed after runs had been seen.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from lsce.judging import statistics
from lsce.judging.arms import Arm, best_arm, by_regime, of_arm, words_of
from lsce.judging.statistics import Interval
from lsce.machine.values import Value

#: The group of a study's runs that its main figures show.
MAIN = "main"

#: Endings of a control's measure that differs from the treatment's, and their words.
CONTROLS = {"_selected": "stopped early", "_scaled": "temperature scaled"}

#: Columns that `Claim.per_tenfold` names, and their words.
COLUMNS = {"train_size": "images", "classes": "classes"}

#: What a claim's treatment or control is: "judged" and "plain" are ε = the judged one and 0;
#: "tuned" and "another ε" the best smoothing but for ε = 0 and for the judged one; a list of
#: methods, the best of these; a method with "judged" or "plain", that with this ε.
Rule = str | list[str] | dict[str, str]


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
    #: The smallest effect worth the claim, or the loss that a claim of equivalence allows.
    smallest: float | None = None
    not_worse_by: float | None = None
    #: The group of runs that it is judged in, see `lsce.studies.study.Labelled`.
    group: str = MAIN
    treatment: Rule = "judged"
    control: Rule = "plain"
    #: The control's measure, if it is another one.
    control_measure: str | None = None
    #: What settings are chosen by, on the validation split; an NLL is better when lower.
    chosen_by: str = "validation_accuracy"
    #: ["more" or "fewer", a column]: the effect is its increase with tenfold more or fewer of it.
    per_tenfold: list[str] | None = None
    #: Effects are in percent of the control's value.
    relative: bool = False
    #: What a practitioner should make of each verdict but undecided.
    advice: dict[str, str]
    published: Published | None = None

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def sign(self) -> float:
        """Turns a difference in the measure into an effect in the unit, positive for the claim."""
        return self.scale * (1 if self.better == "higher" else -1)

    @property
    def matters(self) -> float:
        return (self.smallest if self.not_worse_by is None else self.not_worse_by) or 0.0

    @property
    def is_plain(self) -> bool:
        """Whether it compares the judged ε with ε = 0 and nothing else."""
        simple = (self.treatment, self.control, self.control_measure) == ("judged", "plain", None)
        return simple and self.group == MAIN and self.per_tenfold is None


@dataclass(frozen=True)
class Judgement:
    """A claim's verdict in one regime.

    `treatment` and `control` are in words. The effect is positive where it favours the claim; with
    no complete pair of runs there is none, and the verdict is "undecided". `p` is corrected for the
    claim's family. `runs` are the ids of those compared.
    """

    regime: str
    treatment: str
    control: str
    verdict: str
    effect: Interval | None
    runs: frozenset[str]
    p: float = np.nan
    more_runs: int | None = None


def declared(file: Path, notebook: str) -> list[Claim]:
    """The claims of a page, none if there is no such file."""
    if not file.is_file():
        return []
    import yaml  # part of what the report is made with, which recording does without

    entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    common = {"notebook": notebook, "family": entries.pop("family")}
    return [Claim(id=name, **common, **fields) for name, fields in entries.items()]


def changes() -> pd.DataFrame:
    """What was changed after runs had been seen: columns date, change and seen (what had been)."""
    return pd.read_csv(Path(__file__).with_name("changes.csv"))


def judge(
    family: Iterable[Claim], tables: Mapping[str, pd.DataFrame], epsilon: float
) -> dict[str, list[Judgement]]:
    """Judge a family of claims, by id, in every regime, with Holm's correction over all of them.

    tables: of runs, by the study's groups (see `lsce.studies.study.table_of`). Claims whose measure
    or group the study lacks are left out. epsilon: the judged one.
    """
    judged: dict[str, list[Judgement]] = {}
    effects, smallest = [], []
    for claim in family:
        table = tables.get(claim.group, pd.DataFrame())
        judgements = _compare(claim, table, epsilon) if claim.measure in table else []
        if judgements:
            judged[claim.id] = judgements
        for effect in (judgement.effect for judgement in judgements if judgement.effect):
            # Non-inferiority: the effect, moved up by the margin, must be above 0.
            effects.append(_moved(effect, claim.not_worse_by or 0.0))
            smallest.append(claim.smallest or 0.0)
    verdicts = iter(statistics.judge_family(effects, smallest))
    return {
        name: [replace(j, **asdict(next(verdicts))) if j.effect else j for j in judgements]
        for name, judgements in judged.items()
    }


def _moved(effect: Interval, up: float) -> Interval:
    return replace(effect, mean=effect.mean + up, low=effect.low + up, high=effect.high + up)


def _compare(claim: Claim, table: pd.DataFrame, epsilon: float) -> list[Judgement]:
    """The claim's effect in every regime, or over all of them, not yet judged."""
    if claim.per_tenfold is not None:
        direction, column = claim.per_tenfold
        sizes, words = sorted(table[column].unique()), COLUMNS[column]
        effects = _slopes(claim, table, epsilon, direction, column)
        arms = (("smoothing", epsilon), ("smoothing", 0.0))
        return [_judgement(claim, f"{sizes[0]:,} to {sizes[-1]:,} {words}", arms, effects, table)]
    judgements = []
    for regime, runs in by_regime(table):
        treatment = _arm(claim.treatment, claim, runs, epsilon)
        control = _arm(claim.control, claim, runs, epsilon)
        if treatment is not None and control is not None:
            effects = _seed_effects(claim, runs, claim.measure, treatment, control)
            judgements.append(_judgement(claim, regime, (treatment, control), effects, runs))
    return judgements


def _judgement(
    claim: Claim, regime: str, arms: tuple[Arm, Arm], effects: pd.Series, table: pd.DataFrame
) -> Judgement:
    compared = table[table["seed"].isin(effects.index)]
    runs = frozenset(run for arm in arms for run in compared[of_arm(compared, arm)]["run"])
    treatment, control = (words_of(table, arm) for arm in arms)
    for ending, words in CONTROLS.items():
        if (claim.control_measure or "").endswith(ending):
            control += f", {words}"
    effect = None if effects.empty else statistics.mean_interval(effects)
    return Judgement(regime, treatment, control, statistics.UNDECIDED, effect, runs)


def _arm(rule: Rule, claim: Claim, runs: pd.DataFrame, epsilon: float) -> Arm | None:
    """The arm of a regime that a rule means; None if there is none that never diverged, and for
    "another ε" where there is no third value."""
    of_rule = {"judged": epsilon, "plain": 0.0}
    if isinstance(rule, dict):
        ((method, name),) = rule.items()
        return method, of_rule[name]
    if isinstance(rule, list):
        return best_arm(runs[runs["method"].isin(rule)], claim.chosen_by)
    if rule in of_rule:
        return "smoothing", of_rule[rule]
    runs = runs[runs["method"] == "smoothing"]
    if rule == "tuned":
        return best_arm(runs[runs["setting"] > 0], claim.chosen_by)
    runs = runs[runs["setting"] != epsilon]
    if (runs["setting"] == 0).all():  # ε = 0 alone is another claim
        return None
    return best_arm(runs, claim.chosen_by)


def _seed_effects(
    claim: Claim, runs: pd.DataFrame, measure: str, treatment: Arm, control: Arm
) -> pd.Series:
    first = values(runs, treatment, measure)
    second = values(runs, control, claim.control_measure or measure)
    differences = claim.sign * (first - second)
    return (100 * differences / second if claim.relative else differences).dropna()


def smoothing_effects(claim: Claim, runs: pd.DataFrame, measure: str, epsilon: float) -> pd.Series:
    """The effect of smoothing at `epsilon` against none on a measure, in the claim's unit and
    positive where it favours the claim, for each seed of a regime's runs that has both."""
    return _seed_effects(claim, runs, measure, ("smoothing", epsilon), ("smoothing", 0.0))


def values(runs: pd.DataFrame, arm: Arm, measure: str) -> pd.Series:
    """A measure of an arm's runs by seed."""
    return runs[of_arm(runs, arm)].set_index("seed")[measure]


def _slopes(
    claim: Claim, table: pd.DataFrame, epsilon: float, direction: str, column: str
) -> pd.Series:
    """For each seed the least-squares slope of the effect by ±log10 of a column."""
    effects = {
        size: smoothing_effects(claim, part, claim.measure, epsilon)
        for size, part in table.groupby(column)
    }
    by_seed = pd.DataFrame(effects).dropna()
    if len(effects) < 2 or by_seed.empty:
        return pd.Series(dtype=float)
    decades = np.log10(by_seed.columns.to_numpy(dtype=float))
    decades *= -1 if direction == "fewer" else 1
    return pd.Series(np.polyfit(decades, by_seed.to_numpy().T, 1)[0], by_seed.index)
