"""Sentences that pages compute from their runs."""

import pandas as pd
from IPython.display import Markdown

from lsce.judging import arms
from lsce.measures import temperature
from lsce.report.findings import signed
from lsce.studies.evidence import Evidence


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
    found: dict[str, list[str]] = {}
    for regime, _, runs, best in arms.tuned(table, chosen_by):
        settings = runs["setting"].dropna().unique()
        if len(settings) > 1 and best and best[1] in (min(settings), max(settings)):
            found.setdefault(arms.words_of(table, best), []).append(f"*{regime}*")
    if not found:
        return Markdown("No method's chosen setting is the least or the greatest of those tried.")
    lines = [f"- {arm}: {', '.join(regimes)}" for arm, regimes in found.items()]
    words = (
        "Chosen was the least or the greatest setting tried, so that a better one may lie beyond:"
    )
    return Markdown("\n".join([words, "", *lines]))


def divergence(shown: Evidence) -> Markdown:
    """Which arms did not finish training."""
    groups = shown.table.groupby(["regime", "arm"], sort=False)["status"]
    lines = [
        f"- *{regime}*, {arm}: {(part == 'diverged').sum()} of {len(part)} runs diverged"
        for (regime, arm), part in groups
        if (part == "diverged").any()
    ]
    return Markdown("\n".join(lines) or "No run diverged.")


def temperatures(shown: Evidence) -> Markdown:
    """How many of the temperature fits converged, and of which arms the others are."""
    frame = shown.table.dropna(subset="temperature_converged")
    failed = frame[frame["temperature_converged"] == 0]
    text = f"Of {len(frame)} temperature fits of these runs, {len(frame) - len(failed)} converged."
    if failed.empty:
        return Markdown(text)
    counts = failed.groupby("arm", sort=False).size()
    arms_of = ", ".join(f"{arm} ({count})" for arm, count in counts.items())
    return Markdown(
        f"{text} The other {len(failed)} found no best T within the bounds of the search, "
        f"{temperature.LOWEST:g} to {temperature.HIGHEST:g}; their T and what is scaled with it "
        f"are left out of every mean, where (3/5) says that it is of 3 of 5 runs and – of none, "
        f"and such a setting cannot be chosen by what is scaled: {arms_of}."
    )


def estimators(numbers: pd.DataFrame) -> Markdown:
    """How far each estimator is from the truth at the fewest and at the most images."""
    fewest, most = numbers["images"].min(), numbers["images"].max()
    lines = []
    for panel, part in numbers.groupby("panel", sort=False):
        errors = []
        for name, curve in part.groupby("estimator", sort=False):
            at = curve.set_index("images")["mean"] - curve["truth"].iloc[0]
            errors.append(
                f"{name} {signed(at[fewest])} at {fewest:,} images, {signed(at[most])} at {most:,}"
            )
        lines.append(f"- {panel}: " + "; ".join(errors))
    return Markdown("Estimate less true value, on average over the subsets:\n\n" + "\n".join(lines))
