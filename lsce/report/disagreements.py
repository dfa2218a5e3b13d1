"""Where papers disagree: what our runs decide.

The questions are declared in `disagreements.yaml`. Each has two sides, and each side a number: the
mean over the published effects that it names (or a level, where its papers report no more). What
decides lies between the two: 0 if one is a gain and the other a loss, else half way. Of ours, an
interval in each regime answers as a side says if it lies wholly on that side of it.

*Settled* is a question that every regime answers alike, and in one of them at least plain networks
get `STRONG` of the test images right. Where the sides differ in a condition (the strength of a
probe, the temperature of a teacher), ours are measured in each: each side may be right in its own
condition, or one of them in both. Anything else is *still open*: there are no such runs, an
interval decides nothing, our regimes disagree, or our networks are too weak.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
import yaml
from pandas.io.formats.style import Styler

from lsce import studies
from lsce.judging import judgements, statistics
from lsce.judging.arms import Arm, best_arm, by_regime, plain
from lsce.judging.claims import MAIN
from lsce.judging.statistics import Interval
from lsce.machine.values import Value
from lsce.report import literature
from lsce.report.tables import table
from lsce.studies import evidence, profiles
from lsce.studies.evidence import Evidence
from lsce.studies.profiles import Profile
from lsce.sweeps.workers import SweepFailed

#: Level of all intervals of the table together (Bonferroni).
LEVEL = 0.95

SETTLED, OPEN = "settled", "still open"

#: The test accuracy from which plain networks settle something.
STRONG = 0.6

#: A method and its setting: a number, the judged ε, or the best by validation accuracy.
Rule = dict[str, float | Literal["judged", "tuned"]]


class Here(Value):
    """What of ours is set beside a side: in each regime of a group of a page's runs the paired
    difference between treatment and control; without a control, the treatment's level."""

    #: Which runs, in words.
    words: str
    notebook: str
    group: str = MAIN
    measure: str
    #: An attack with its radius in 1/255: the measure is then the error under it among the attacked
    #: images that the network gets right.
    attack: dict[str, float] | None = None
    treatment: Rule
    control: Rule | None = {"smoothing": 0.0}


class Side(Value):
    """What one side reports: pairs of published values without and with the method, or levels."""

    rows: list[list[str]]
    #: In which condition, in words.
    under: str = ""
    #: Ours in the same condition, where the sides differ in it.
    here: Here | None = None


class Disagreement(Value):
    """A question that papers answer differently."""

    question: str
    unit: str
    scale: float
    better: Literal["lower", "higher"]
    sides: list[Side]
    here: Here | None = None

    def of(self, side: Side) -> Here:
        """What of ours is set beside a side."""
        here = side.here or self.here
        assert here is not None
        return here

    @property
    def is_level(self) -> bool:
        """Whether levels are compared, and not effects."""
        return self.of(self.sides[0]).control is None

    @property
    def sign(self) -> float:
        """Turns a difference in the measure into an effect in the unit, positive if better."""
        return self.scale * (1 if self.better == "higher" else -1)

    def reported(self, side: Side, published: pd.DataFrame) -> float:
        """The mean of what a side reports."""
        effects = []
        for ids in side.rows:
            values = literature.in_units_of(self.of(side).measure, published.loc[ids])
            without = float(values.iloc[0]) if len(ids) > 1 else 0.0
            effects.append(self.sign * (float(values.iloc[-1]) - without))
        return sum(effects) / len(effects)


@dataclass(frozen=True)
class Position:
    """A side: its papers, what they report, and ours in the same condition: the words for our runs
    and their effects by regime, and the test accuracy of the plain ones, see `STRONG`."""

    papers: str
    reported: float
    words: str
    here: Mapping[str, Interval]
    profile: str = ""
    accuracy: float = 1.0


def declared() -> dict[str, Disagreement]:
    """The questions, by their ids."""
    text = Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
    return {name: Disagreement(**fields) for name, fields in yaml.safe_load(text).items()}


def boundary(first: float, second: float) -> float:
    """What decides between two published numbers: 0 between a gain and a loss, else the middle."""
    return 0.0 if first * second < 0 else (first + second) / 2


def decide(first: Position, second: Position, there: str = "are recorded") -> str:
    """Whether ours settle a question, and how; `there` ends the sentence that there are no runs."""
    for side in (first, second):
        if not side.here:
            return f"{OPEN}: no runs of {side.words} {there}"
    limit = boundary(first.reported, second.reported)
    answers = []
    for side in (first, second):
        lie_above = {regime: _above(interval, limit) for regime, interval in side.here.items()}
        undecided = [f"“{regime}”" for regime, above in lie_above.items() if above is None]
        if undecided:
            return f"{OPEN}: undecided for {side.words} in {' and '.join(undecided)}"
        if not side.accuracy >= STRONG:  # or none of them is known
            return f"{OPEN}: plain networks get only {side.accuracy:.0%} of the test images right"
        answers.append({above == (first.reported > limit) for above in lie_above.values()})
    if any(len(answer) > 1 for answer in answers):
        return f"{OPEN}: our regimes disagree"
    as_first, as_second = (answer == {True} for answer in answers)
    if as_first != as_second:
        kind = "each side is right" if as_first else "each side is wrong"
        return f"{SETTLED}: {kind} in its own condition"
    either = ", in either condition" if first.words != second.words else ""
    return f"{SETTLED}: as in {(first if as_first else second).papers}{either}"


def _above(interval: Interval, limit: float) -> bool | None:
    """On which side of a limit an interval lies; None if on neither, or with a single seed."""
    return True if interval.low > limit else False if interval.high < limit else None


def effects(question: Disagreement, here: Here, shown: Evidence) -> dict[str, pd.Series]:
    """Ours for every seed, by regime; empty if a page has no such runs or did not measure it."""
    if here.group not in shown.groups:
        return {}
    runs = _with_attack(shown.groups[here.group], here)
    if here.measure not in runs:
        return {}
    by_seed = {}
    for regime, part in by_regime(runs):
        treatment = _arm(here.treatment, part, shown.study.judged)
        if treatment is None:
            continue
        effect = judgements.values(part, treatment, here.measure)
        if here.control is not None:
            control = _arm(here.control, part, shown.study.judged)
            effect = (
                effect - judgements.values(part, control, here.measure) if control else effect[:0]
            )
        effect = question.sign * effect.dropna()
        if len(effect):
            by_seed[regime] = effect
    return by_seed


def _arm(rule: Rule, runs: pd.DataFrame, judged: float) -> Arm | None:
    """The arm of a regime that a rule means; None if there is none."""
    ((method, setting),) = rule.items()
    if setting == "tuned":
        return best_arm(runs[runs["method"] == method], "validation_accuracy")
    return method, judged if setting == "judged" else float(setting)


def _with_attack(shown: Evidence, here: Here) -> pd.DataFrame:
    """The table of a page's runs with the error under the attack in question, if there is one."""
    if here.attack is None:
        return shown.table
    ((case, radius),) = here.attack.items()
    errors = []
    for _, run in shown.pairs:
        attacks = run.details[run.details["quantity"] == "attack"].set_index(["case", "x"])["value"]
        right = 1 - attacks.get(("clean", 0.0), float("nan"))
        errors.append(1 - (1 - attacks.get((case, radius), float("nan"))) / right)
    return shown.table.assign(**{here.measure: errors})


def outcomes(main: Evidence) -> pd.DataFrame:
    """`answers` from recorded runs if the page shows such, else from this machine's of its profile
    and data."""
    there = "are recorded" if main.recorded else "are on this machine"
    wanted = {q.of(side).notebook for q in declared().values() for side in q.sides}
    return answers({name: _sets(name, main) for name in wanted & set(studies.with_runs())}, there)


def _sets(notebook: str, main: Evidence) -> list[Evidence]:
    """A page's sets of runs, the most decisive first."""
    if main.recorded:
        return evidence.recorded(notebook)
    if notebook == main.study.notebook:
        return [main]
    if main.profile not in profiles.names():
        return []
    study = Profile(main.profile).study(notebook, main.study.parameters.data_name)
    try:
        return [evidence.gather(study, profile=main.profile, train_missing=False)]
    except SweepFailed:
        return []


def answers(sets: Mapping[str, Sequence[Evidence]], there: str = "are recorded") -> pd.DataFrame:
    """What our runs decide, a row a question.

    sets: of each page the sets of runs, of which the first with an effect counts. Columns, all in
    words: question; reported, by either side; decides, the number between them; here, ours; and
    outcome, see `decide`. The intervals hold together at `LEVEL`.
    """
    published, questions = literature.published(), declared()
    measured = {
        (name, number): _measured(question, question.of(side), sets)
        for name, question in questions.items()
        for number, side in enumerate(question.sides)
    }
    count = sum(  # sides that differ in no condition share their intervals
        len(found)
        for (name, number), (*_, found) in measured.items()
        if number == 0 or questions[name].here is None
    )
    level = 1 - (1 - LEVEL) / max(1, count)
    rows = []
    for name, question in questions.items():
        positions = []
        for number, side in enumerate(question.sides):
            profile, accuracy, found = measured[name, number]
            here = {
                regime: statistics.mean_interval(values, level) for regime, values in found.items()
            }
            papers = " and ".join(_networks(side, published)) + f" ({side.under})" * bool(
                side.under
            )
            reported, words = question.reported(side, published), question.of(side).words
            positions.append(Position(papers, reported, words, here, profile, accuracy))
        first, second = positions
        row = _row(question, first, second, published)
        rows.append(row | {"outcome": decide(first, second, there)})
    return pd.DataFrame(rows)


def _measured(
    question: Disagreement, here: Here, sets: Mapping[str, Sequence[Evidence]]
) -> tuple[str, float, dict[str, pd.Series]]:
    """Of the first set of runs that has any: the name of its profile, the accuracy of its plain
    networks (see `STRONG`) and the effects by regime."""
    for shown in sets.get(here.notebook, []):
        if found := effects(question, here, shown):
            table = shown.groups[here.group].table
            accuracies = table[plain(table)].groupby("regime")["test_accuracy"].mean()
            return shown.profile, float(accuracies.max()), found
    return "", 0.0, {}


def _networks(side: Side, published: pd.DataFrame) -> dict[str, list[str]]:
    """The networks of a side by the paper's authors and year."""
    networks: dict[str, list[str]] = {}
    for ids in side.rows:
        authors, _, network = literature.name(published.loc[ids].iloc[0]).partition(", ")
        networks.setdefault(authors, []).append(network)
    return networks


def _row(
    question: Disagreement, first: Position, second: Position, published: pd.DataFrame
) -> dict[str, str]:
    """A row of `answers` but for its outcome."""

    def number(value: float) -> str:
        rounded = round(value, 2) + 0.0  # no negative zero
        text = f"{rounded:.2f}" if question.is_level else f"{rounded:+.2f}"
        return text.replace("-", "−").replace("nan", "–")

    limit, reported = boundary(first.reported, second.reported), []
    ours: dict[str, list[str]] = {}
    for side, position in zip(question.sides, (first, second), strict=True):
        papers = _networks(side, published).items()
        names = "; ".join(", ".join([authors, *networks]) for authors, networks in papers)
        names += f", {side.under}" * bool(side.under)
        reported.append(f"{number(position.reported)}: {names}")
        ours[f"<i>{position.words}, profile {position.profile}</i>"] = [
            f"{regime}: {number(one.mean)} ({number(one.low)} to {number(one.high)})"
            for regime, one in position.here.items()
        ]
    here = [line for words, lines in ours.items() if lines for line in (words, *lines)]
    return {
        "question": f"{question.question} ({question.unit})",
        "reported": "<br>".join(reported),
        "decides": number(limit) if limit else "0",
        "here": "<br>".join(here) or "–",
    }


def table_of(rows: pd.DataFrame) -> Styler:
    """`answers` as a table."""
    return table(rows, wrapped=["question", "reported", "here", "outcome"], width="12em")
