"""Sentences, and small tables in their place, that pages compute from their runs."""

import math
from collections.abc import Mapping

import pandas as pd
import torch
from IPython.display import Markdown
from pandas.io.formats.style import Styler

from lsce import data
from lsce.judging import arms
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
