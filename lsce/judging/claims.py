"""The claims that the report judges, and their verdicts from tables of runs.

The claims of a page are declared in a YAML file beside its study; `changes.csv` says what was
changed after runs had been seen.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
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

#: How the measure of a control ends that is another one than the treatment's → the words for it.
CONTROLS = {"_selected": "stopped early", "_scaled": "temperature scaled"}

#: Columns that claims of more or fewer are about → words for them.
COLUMNS = {"train_size": "images", "classes": "classes"}


#: What a claim's treatment or control is: "judged" and "plain" are ε = the judged one and 0;
#: "tuned" and "another ε" the best smoothing but for ε = 0 and for the judged one; a list of
#: methods, the best of these; a method with "judged" or "plain", that with this ε.
Rule = str | list[str] | dict[str, str]


class Published(Value):
    """What the literature measured: pairs of rows of `data/published.csv`, without and with
    smoothing."""

    measure: str
    pairs: list[list[str]]


class Claim(Value):
    """A sentence about label smoothing that paired runs can judge."""

    id: str
    claim: str
    #: The page that judges it and its figure there.
    notebook: str
    figure: str
    family: str
    #: On which day.
    declared: str
    measure: str
    words: str
    unit: str
    scale: float = 1.0
    better: Literal["lower", "higher"]
    #: The smallest effect worth the claim; or, for a claim of equivalence, the loss that it allows.
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
    #: The effect is how much more of it there is with tenfold of this column of a table of runs:
    #: [more or fewer, the column].
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
        """Turns a difference in the measure into an effect: in the unit, positive as claimed."""
        return self.scale * (1 if self.better == "higher" else -1)

    @property
    def matters(self) -> float:
        """The smallest effect, or loss, that matters."""
        return (self.smallest if self.not_worse_by is None else self.not_worse_by) or 0.0

    @property
    def is_plain(self) -> bool:
        """Whether it compares the judged ε with ε = 0 and nothing else."""
        simple = (self.treatment, self.control, self.control_measure) == ("judged", "plain", None)
        return simple and self.group == MAIN and self.per_tenfold is None


@dataclass(frozen=True)
class Judgement:
    """A claim's verdict in one regime; the effect is positive where it is as claimed.

    `treatment` and `control` say in words what was compared. With fewer than one complete pair the
    verdict is "undecided" and there is no effect. `p` is corrected for the claim's family. `runs`
    are the ids of those whose differences were taken.
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

    found = yaml.safe_load(file.read_text(encoding="utf-8"))
    family = found.pop("family")
    return [
        Claim(id=name, notebook=notebook, family=family, **fields) for name, fields in found.items()
    ]


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
    found: list[tuple[Claim, Judgement]] = []
    for claim in family:
        table = tables.get(claim.group, pd.DataFrame())
        if claim.measure in table:
            found += [(claim, each) for each in _compare(claim, table, epsilon)]
    # Non-inferiority: the effect, moved up by the margin, must be above 0.
    moved = [_moved(each.effect, claim.not_worse_by or 0.0) for claim, each in found if each.effect]
    smallest = [claim.smallest or 0.0 for claim, each in found if each.effect]
    verdicts = iter(statistics.judge_family(moved, smallest))
    judged: dict[str, list[Judgement]] = {}
    for claim, each in found:
        if each.effect:
            v = next(verdicts)
            each = replace(each, verdict=v.verdict, p=v.p, more_runs=v.more_runs)
        judged.setdefault(claim.id, []).append(each)
    return judged


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
    found = []
    for regime, part in by_regime(table):
        treatment = _arm(claim.treatment, claim, part, epsilon)
        control = _arm(claim.control, claim, part, epsilon)
        if treatment is not None and control is not None:
            effects = seed_effects(claim, part, claim.measure, treatment, control)
            found.append(_judgement(claim, regime, (treatment, control), effects, part))
    return found


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


def _arm(rule: Rule, claim: Claim, part: pd.DataFrame, epsilon: float) -> Arm | None:
    """The arm of a regime that a rule means; None if there is none that never diverged, and for
    "another ε" where there is no third value. The best arm is chosen on the validation split."""
    if isinstance(rule, dict):
        ((method, of_epsilon),) = rule.items()
        return method, epsilon if of_epsilon == "judged" else 0.0
    if rule in ("judged", "plain"):
        return "smoothing", epsilon if rule == "judged" else 0.0
    smoothing = part["method"] == "smoothing"
    if rule == "tuned":
        part = part[smoothing & (part["setting"] > 0)]
    elif rule == "another ε":
        part = part[smoothing & (part["setting"] != epsilon)]
        if (part["setting"] == 0).all():  # against none alone, that is another claim
            return None
    else:
        part = part[part["method"].isin(rule)]
    return best_arm(part, claim.chosen_by)


def seed_effects(
    claim: Claim, runs: pd.DataFrame, measure: str, treatment: Arm, control: Arm
) -> pd.Series:
    """The effect of one arm against another on a measure, in the claim's unit and positive as
    claimed, for each seed of a regime's runs that has both."""
    first = values(runs, treatment, measure)
    second = values(runs, control, claim.control_measure or measure)
    differences = claim.sign * (first - second)
    return (100 * differences / second if claim.relative else differences).dropna()


def smoothing_effects(claim: Claim, runs: pd.DataFrame, measure: str, epsilon: float) -> pd.Series:
    """`seed_effects` of smoothing at `epsilon` against none."""
    return seed_effects(claim, runs, measure, ("smoothing", epsilon), ("smoothing", 0.0))


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
