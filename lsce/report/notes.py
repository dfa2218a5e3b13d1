"""Sentences, and small tables in their place, that pages compute from their runs."""

import math
from collections.abc import Mapping

import pandas as pd
import torch
from IPython.display import Markdown
from pandas.io.formats.style import Styler

from lsce import data
from lsce.judging import arms, judgements
from lsce.measures import temperature
from lsce.report.findings import signed
from lsce.report.tables import table
from lsce.studies import tables
from lsce.studies.evidence import Evidence
from lsce.studies.robustness import KEPT, Judged


def selected(shown: Evidence) -> Markdown:
    """Which epochs validation chose."""
    frame = shown.table.dropna(subset="selected_epoch").drop_duplicates("run")
    epochs = {run.task.id: run.spec.epochs for run in shown.own_runs}
    share = frame["selected_epoch"] / frame["run"].map(epochs)
    return Markdown(
        f"Of {len(frame)} runs, validation chose the last epoch in {(share == 1).sum()}; on "
        f"average it chose the epoch at {share.mean():.0%} of the run."
    )


def edges(table: pd.DataFrame, chosen_by: str) -> Markdown:
    """Which methods were best by `chosen_by` at the least or greatest setting tried."""
    regimes: dict[str, list[str]] = {}
    for regime, _, runs, best in arms.tuned(table, chosen_by):
        settings = runs["setting"].dropna().unique()
        if len(settings) > 1 and best and best[1] in (min(settings), max(settings)):
            regimes.setdefault(arms.words_of(table, best), []).append(f"*{regime}*")
    if not regimes:
        return Markdown("No method's chosen setting is the least or the greatest of those tried.")
    lines = [f"- {arm}: {', '.join(names)}" for arm, names in regimes.items()]
    return Markdown(
        "Chosen was the least or the greatest setting tried, so that a better one may lie beyond:"
        "\n\n" + "\n".join(lines)
    )


def chosen(shown: Evidence) -> Styler:
    """The ε above 0 of the best mean validation value by several measures, in each regime, and
    whether 0 is better still; – where a completed run lacks the measure, or with a single ε."""
    measures = {
        "validation_accuracy": "accuracy",
        "validation_nll": "NLL",
        "validation_nll_scaled": "NLL, scaled",
        "validation_debiased_ce": "calibration error",
    }
    rows = []
    for regime, runs in arms.by_regime(shown.table[shown.table["method"] == "smoothing"]):
        row = {"regime": regime}
        for measure, words in measures.items():
            epsilon = _chosen(runs, measure)
            row[words] = "–" if epsilon is None else f"{epsilon:g}"
            if epsilon is not None and arms.best_arm(runs, measure) == ("smoothing", 0.0):
                row[words] += " (0 is better)"
        rows.append(row)
    return table(pd.DataFrame(rows), wrapped=["regime"], numeric=[*measures.values()])


def _chosen(runs: pd.DataFrame, measure: str) -> float | None:
    """The ε above 0 of the best mean of a validation measure; None where a completed run lacks it,
    where there is a single ε, and where every ε diverged."""
    completed, smoothed = runs[runs["status"] != "diverged"], runs[runs["setting"] > 0]
    if measure not in runs or completed[measure].isna().any() or smoothed["arm"].nunique() < 2:
        return None
    best = arms.best_arm(smoothed, measure)
    return best and best[1]


def over_fitting(shown: Evidence) -> Markdown:
    """By how much smoothing changes the gap between test and training NLL, and which side moves:
    in each regime at the judged ε and at that of the best validation NLL. Nats, means over paired
    seeds."""
    judged, lines = shown.study.judged, []
    for regime, runs in arms.by_regime(shown.table[shown.table["method"] == "smoothing"]):
        best = _chosen(runs, "validation_nll")
        for epsilon in dict.fromkeys([judged, judged if best is None else best]):
            words = ", which validation NLL chooses" * (epsilon == best)
            gap, train, test, scaled = (
                _change(runs, epsilon, measure)
                for measure in ("nll_gap", "train_nll", "test_nll", "nll_scaled")
            )
            if not math.isnan(gap):
                lines.append(
                    f"- *{regime}*, ε = {epsilon:g}{words}: the gap "
                    f"{_moves(gap, 'widens', 'narrows')}; training NLL {_moves(train)}, and test "
                    f"NLL {_moves(test)}. After temperature scaling test NLL {_moves(scaled)}."
                )
    return Markdown("\n".join(lines) or "No pair of runs was completed.")


def _change(runs: pd.DataFrame, epsilon: float, measure: str) -> float:
    """The mean paired difference that smoothing makes to a measure; NaN without a pair."""
    plain, smoothed = (judgements.values(runs, ("smoothing", e), measure) for e in (0.0, epsilon))
    return float((smoothed - plain).mean())


def _moves(change: float, up: str = "rises", down: str = "falls") -> str:
    if math.isnan(change):
        return "is not known"
    size = f"{abs(change):.3f}"
    return "stays the same" if float(size) == 0 else f"{up if change > 0 else down} by {size}"


def divergence(shown: Evidence) -> Markdown:
    """Which arms did not finish training."""
    diverged = shown.table["status"] == "diverged"
    counts = diverged.groupby([shown.table["regime"], shown.table["arm"]], sort=False)
    lines = [
        f"- *{regime}*, {arm}: {count} of {runs} runs diverged"
        for (regime, arm), count, runs in counts.agg(["sum", "size"]).itertuples()
        if count
    ]
    return Markdown("\n".join(lines) or "No run diverged.")


def temperatures(shown: Evidence) -> Markdown:
    """How many of the temperature fits converged, and of which arms the others are."""
    fits = shown.table.dropna(subset="temperature_converged")
    failed = fits[fits["temperature_converged"] == 0]
    text = f"Of {len(fits)} temperature fits of these runs, {len(fits) - len(failed)} converged."
    if len(failed):
        counts = failed.groupby("arm", sort=False).size()
        arms_of = ", ".join(f"{arm} ({count})" for arm, count in counts.items())
        text += (
            f" The other {len(failed)} found no best T within the bounds of the search, "
            f"{temperature.LOWEST:g} to {temperature.HIGHEST:g}; their T and what is scaled with "
            f"it are left out of every mean, where (3/5) says that it is of 3 of 5 runs and – of "
            f"none, and such a setting cannot be chosen by what is scaled: {arms_of}."
        )
    return Markdown(text)


def unconverged(shown: Evidence) -> Styler | Markdown:
    """The temperature fits that did not converge, by regime and arm, and why."""
    rows = tables.unconverged(shown)
    if rows.empty:
        return Markdown("Every temperature fit converged.")
    chance = math.log(shown.own_runs[0].spec.num_classes)
    left = f"validation NLL (chance: {chance:.2f})"
    rows["did not converge"] = rows["failed"].map(str) + " of " + rows["fits"].map(str)
    rows["validation accuracy"] = rows["accuracy"].map("{:.1%}".format)
    rows[left] = rows["nll"].map("{:.2f}".format)
    rows.loc[rows["regime"].duplicated(), "regime"] = ""
    words = ["regime", "arm", "did not converge", "why"]
    numeric = ["validation accuracy", left]
    return table(rows[words + numeric], wrapped=["regime", "why"], numeric=numeric)


def human_noise(shown: Evidence) -> Markdown:
    """What the labels are like that human noise is drawn from, where some runs have it."""
    noisy = [run.spec for run in shown.own_runs if getattr(run.spec.labels, "human", False)]
    if not noisy or (of_people := noisy[0].entry.human_counts) is None:
        return Markdown("None of these runs has human noise.")
    entry, counts = noisy[0].entry, of_people()
    off = counts - counts.diagonal().diag()
    superclass = torch.tensor(entry.superclass)
    inside = off[superclass[:, None] == superclass].sum() / off.sum()
    mistaken = [
        f"{name.replace('_', ' ')} for {entry.classes[row.argmax()].replace('_', ' ')}"
        for k, (name, row) in enumerate(zip(entry.classes, counts, strict=True))
        if row.argmax() != k
    ]
    text = (
        f"Of the labels that people gave {entry.words}'s {int(counts.sum()):,} training images, "
        f"{data.human_rate(counts):.1%} are wrong, and {inside:.0%} of these name a class of the "
        "same superclass."
    )
    if mistaken:
        text += f" Of some classes another name is the commonest: {', '.join(mistaken)}."
    return Markdown(text)


def judged_radii(judged: Mapping[str, Judged]) -> Markdown:
    """At which radius each regime is judged, and whether anything can be judged there."""
    lines = []
    for regime, (radius, kept) in judged.items():
        line = (
            f"- *{regime}*: {radius:g}/255, where plain networks keep {kept:.0%} of their accuracy."
        )
        if not KEPT[0] <= kept <= KEPT[1]:
            bound = f"less than {KEPT[0]:.0%}" if kept < KEPT[0] else f"more than {KEPT[1]:.0%}"
            end = "floor" if kept < KEPT[0] else "ceiling"
            line += f" That is {bound}: accuracy is at its {end}, and nothing can be judged here."
        lines.append(line)
    return Markdown("\n".join(lines))


def estimators(numbers: pd.DataFrame) -> Markdown:
    """How far each estimator is from the truth at the fewest and at the most images."""
    fewest, most = numbers["images"].min(), numbers["images"].max()
    lines = []
    for panel, part in numbers.groupby("panel", sort=False):
        errors = []
        for name, curve in part.groupby("estimator", sort=False):
            error = curve.set_index("images")["mean"] - curve["truth"].iloc[0]
            ends = (
                f"{signed(error[fewest])} at {fewest:,} images, {signed(error[most])} at {most:,}"
            )
            errors.append(f"{name} {ends}")
        lines.append(f"- {panel}: " + "; ".join(errors))
    return Markdown("Estimate less true value, on average over the subsets:\n\n" + "\n".join(lines))
