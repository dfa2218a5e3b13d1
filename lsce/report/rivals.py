"""Label smoothing beside each of its rivals: tables and sentences with intervals of their own.

The claims of the page on calibration hold smoothing against the best rival. Here each rival is set
against smoothing. These differences are a family of their own, so that the intervals of the claims
do not depend on how many rivals there are.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from IPython.display import Markdown
from pandas.io.formats.style import Styler

from lsce.judging import arms, judgements, rule
from lsce.judging.arms import Arm
from lsce.judging.judgements import Term
from lsce.judging.rule import Effect
from lsce.report.findings import mean_and_interval
from lsce.report.tables import table as styled
from lsce.studies.calibration import SCORES, chosen_by
from lsce.studies.evidence import Evidence

SMOOTHING, PLAIN = "smoothing", "plain cross entropy"


def differences(peers: Evidence) -> pd.DataFrame:
    """Each rival less label smoothing, on the test images, by every one of `SCORES`, both at the
    setting that validation chose by it.

    Columns regime, score (its words), method, rival and smoothing (the arms in words), mean, low,
    high, n (paired seeds), in the score's unit; below 0 the rival is better. All intervals hold
    together with probability `lsce.judging.rule.LEVEL`. They are NaN where there is one seed, and
    where runs were recorded without how they vary between groups of test images.
    """
    table, by_group = peers.table, {run.task.id: run.by_group for run in peers.own_runs}
    rows, estimates, known = [], [], []
    for name, score in SCORES.items():
        for regime, runs in arms.by_regime(table):
            best = {each: arm for _, each, _, arm in arms.tuned(runs, chosen_by(table, name))}
            for method, rival in best.items():
                ours = best.get(SMOOTHING)
                if method in (SMOOTHING, PLAIN) or rival is None or ours is None:
                    continue
                terms = list(_terms(runs, (rival, ours), name, score.scale))
                effects, groups = judgements.effects_of(terms, runs, by_group)
                words = [arms.words_of(runs, arm) for arm in (rival, ours)]
                rows.append((regime, score.words, method, *words))
                estimates.append(rule.estimate(effects, groups))
                known.append(groups is not None)
    frame = pd.DataFrame(rows, columns=["regime", "score", "method", "rival", "smoothing"])
    effects_of = rule.intervals(estimates)
    lows_and_highs = [
        (each.low, each.high) if sure else (np.nan, np.nan)
        for each, sure in zip(effects_of, known, strict=True)
    ]
    frame["mean"], frame["n"] = [e.mean for e in estimates], [e.n for e in estimates]
    frame[["low", "high"]] = np.array(lows_and_highs).reshape(-1, 2)
    return frame


def _terms(runs: pd.DataFrame, both: tuple[Arm, Arm], score: str, scale: float) -> Iterator[Term]:
    """The terms of the difference between two arms of a regime, for each seed."""
    ids = [runs[arms.of_arm(runs, arm)].set_index("seed")["run"] for arm in both]
    for seed in ids[0].index.intersection(ids[1].index):
        for of_seed, weight in zip(ids, (scale, -scale), strict=True):
            yield Term(int(seed), str(of_seed[seed]), score, weight)


def table(numbers: pd.DataFrame) -> Styler:
    """`differences` as a table: a row a rival, the best by the first score on top, and a column a
    score; in each cell the difference, its interval and the rival's setting, in bold where the
    interval is on one side of 0."""
    headings = {score.words: score.heading for score in SCORES.values()}
    cells = numbers.assign(cell=[_cell(row) for row in numbers.itertuples()])
    parts = [pd.DataFrame(columns=["regime", "rival", *headings.values()])]
    for regime, part in cells.groupby("regime", sort=False):
        first = part[part["score"] == part["score"].iloc[0]]
        wide = part.pivot(index="method", columns="score", values="cell").rename(columns=headings)
        wide = wide.reindex(first.sort_values("mean", kind="stable")["method"])
        names = [regime] + [""] * (len(wide) - 1)
        parts.append(wide.rename_axis("rival").reset_index().assign(regime=names))
    rows = pd.concat(parts)[list(parts[0])].reset_index(drop=True)
    return styled(rows if len(parts) > 2 else rows.drop(columns="regime"))


def _cell(row: object) -> str:
    mean, low, high = (float(getattr(row, name)) for name in ("mean", "low", "high"))
    effect = Effect(mean, 0, np.nan, np.nan, low, high, np.nan)
    value, interval = mean_and_interval(effect)
    text = value + f" ({interval})" * bool(interval)
    if low > 0 or high < 0:
        text = f"<b>{text}</b>"
    return f"{text}<br>{_setting(str(getattr(row, 'rival')))}"


def _setting(arm: str) -> str:
    """An arm's words without the method's."""
    return arm.partition(", ")[2] or arm


def summary(numbers: pd.DataFrame) -> Markdown:
    """How many rivals of `differences` are better and worse than label smoothing by each score, and
    what the table of them shows."""
    if numbers.empty:
        return Markdown("No rival finished training with every seed.")
    sure = numbers.dropna(subset="low")
    lines = []
    for words, part in numbers.groupby("score", sort=False):
        better, worse = (part["high"] < 0).sum(), (part["low"] > 0).sum()
        ours = ", ".join(part["smoothing"].unique())
        line = f"- {words}, where smoothing has {ours}: "
        if part["low"].notna().any():
            rest = len(part) - better - worse
            line += f"{better} better, {worse} worse, {rest} undecided"
        else:
            line += f"{(part['mean'] < 0).sum()} lower, {(part['mean'] > 0).sum()} higher"
        lines.append(line)
    pairs = " to ".join(map(str, sorted({numbers["n"].min(), numbers["n"].max()})))
    below = (
        f"\n\nThe table shows each rival less label smoothing over {pairs} paired seeds, both at "
        "the setting that validation chose by the score of the column: below 0 the rival is "
        "better. "
    )
    if sure.empty:
        below += (
            "Intervals need two seeds or more, and runs that were recorded with how they vary "
            "between groups of test images: there are none."
        )
    else:
        below += (
            f"Its {len(sure)} intervals hold together with {rule.LEVEL:.0%} probability; they are "
            "a family of their own, apart from the claims of this page. Bold: all of the interval "
            "is on one side of 0."
        )
    counted = numbers["method"].nunique()
    start = f"Of {counted} rivals against label smoothing:\n\n"
    return Markdown(start + "\n".join(lines) + below)


def edges(peers: Evidence) -> Markdown:
    """Which methods were best by each of `SCORES`, on validation, at the least or the greatest
    setting tried."""
    table = peers.table
    if table[~arms.plain(table)].groupby("method")["setting"].nunique().max() == 1:
        return Markdown("Each method has a single setting here, so that nothing was chosen.")
    lines = []
    for name, score in SCORES.items():
        ends = []
        for regime, _, runs, best in arms.tuned(table, chosen_by(table, name)):
            tried = sorted(runs["setting"].unique())
            if best and len(tried) > 1 and best[1] in (tried[0], tried[-1]):
                end = "least" if best[1] == tried[0] else "greatest"
                where = f", {regime}" * (table["regime"].nunique() > 1)
                ends.append(f"{arms.words_of(table, best)} ({end}{where})")
        lines.append(f"- by {score.words}: {'; '.join(ends) or 'none'}")
    return Markdown(
        "Where validation chose the least or the greatest setting tried, a better one may lie "
        "beyond:\n\n" + "\n".join(lines)
    )
