"""Figures of a value against another: lines, histories, distributions, points on a plane."""

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lsce.judging import statistics
from lsce.report.figures import style
from lsce.report.figures.style import COLOURS, GREY, MARKERS


def against_epsilon(numbers: pd.DataFrame, *, columns: int = 2, percent: bool = False) -> Figure:
    """`against` for values of ε."""
    return against(numbers, x="epsilon", xlabel="ε", columns=columns, percent=percent)


def against(
    numbers: pd.DataFrame, *, x: str, columns: int = 2, form: str = "{:g}", **labels: Any
) -> Figure:
    """Small multiples of a value against `x`: the mean over seeds with its 95% t interval.

    `numbers` has panel, arm, `x`, seed and value; `x` is drawn evenly spaced, its values written as
    `form`.
    """
    arms = list(numbers["arm"].unique())
    look: dict[str, Any] = {"markersize": 5, "capsize": 0.12, "err_kws": {"linewidth": 1.2}}
    look |= {"markers": MARKERS[: len(arms)], "palette": COLOURS[: len(arms)], "linewidth": 1.4}
    look |= {"dodge": min(0.5, 0.13 * len(arms)) * (len(arms) > 1), "errorbar": _t_interval}
    figure, parts = style.panels(numbers, "panel", columns, 2.6)
    for ax, part in parts:
        part = part.dropna(subset="value")
        sns.pointplot(part, x=x, y="value", hue="arm", hue_order=arms, ax=ax, **look)
        ax.legend().remove()  # one for all panels stands below them
        values = sorted(part[x].unique())
        ax.set_xticks(range(len(values)), [form.format(value) for value in values])
        ax.set_ylabel("")
    return style.label(figure, legend=4, **labels)


def _t_interval(values: pd.Series) -> tuple[float, float]:
    interval = statistics.mean_interval(values)
    return interval.low, interval.high


def histories(
    numbers: pd.DataFrame, *, solid: str, dashed: str, columns: int = 3, **labels: Any
) -> Figure:
    """Two columns of histories by epoch, means over seeds: a panel a regime, a colour an arm.

    `numbers` has regime, arm, epoch, and the columns `solid` and `dashed`. There are colours for
    seven arms; more are not drawn.
    """
    arms = numbers["arm"].unique()[: len(COLOURS)]
    figure, parts = style.panels(numbers, "regime", columns, 2.8, extra=0.6)
    for ax, part in parts:
        for run, look in style.series(part, "arm", arms, markers=False):
            ax.plot(run["epoch"], run[solid], **look)
            ax.plot(run["epoch"], run[dashed], color=look["color"], linestyle="--")
        ax.set(xlabel="epoch", ylim=(0, None))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return style.label(figure, legend=4, **labels)


def slopes(
    numbers: pd.DataFrame, *, x: str, line: str, logarithmic: bool = False, **labels: Any
) -> Figure:
    """A panel a `panel` and a colour an arm: means over seeds with 95% t intervals at each `x`.

    `numbers` has panel, arm, `x`, seed and value. `line` joins the means ("means"), or is the mean
    of the seeds' least-squares lines ("fit"), by log10 x where the axis is logarithmic.
    """
    arms = numbers["arm"].unique()
    figure, parts = style.panels(numbers, "panel", 3, 3.1, extra=0.6)
    for ax, part in parts:
        for mine, look in style.series(part, "arm", arms):
            at = mine.groupby(x)["value"]
            style.means(ax, dict(iter(at)), upright=True, **look)
            drawn = at.mean()
            if line == "fit":
                places = np.log10(drawn.index) if logarithmic else drawn.index
                drawn[:] = np.polyval(np.polyfit(places, drawn, 1), places)
            ax.plot(drawn.index, drawn, color=look["color"], linewidth=1.2)
        if line == "fit":
            ax.axhline(0, color="black", linewidth=1)
        if logarithmic:
            style.logarithmic_axis(ax, part[x], "{:g}")
    return style.label(figure, legend=2, **labels)


def curves(
    numbers: pd.DataFrame, *, x: str, xlabel: str, ylabel: str, marks: pd.DataFrame | None = None
) -> Figure:
    """Lines of `value` against `x`, a panel a `panel` and a colour an arm.

    `numbers` has panel, arm, `x` and value, and so has `marks`, which are points on the lines.
    """
    arms = numbers["arm"].unique()
    figure, parts = style.panels(numbers, "panel", 3, 3.0, extra=0.4)
    for ax, part in parts:
        for line, look in style.series(part, "arm", arms, markers=False):
            ax.plot(line[x], line["value"], **look)
            if marks is not None:
                panel = marks["panel"] == part["panel"].iloc[0]
                spots = marks[panel & (marks["arm"] == look["label"])]
                ax.plot(spots[x], spots["value"], "o", color=look["color"], markersize=6)
        ax.set_ylabel(ylabel)
    return style.label(figure, legend=5, xlabel=xlabel)


def estimators(numbers: pd.DataFrame) -> Figure:
    """What each estimator says against the number of test images, and the true value.

    `numbers` has panel, estimator, images, mean, low, high, norm (1 or 2) and truth.
    """
    truths = {1: ("--", "true mean gap"), 2: (":", "true root mean square gap")}
    count = numbers["panel"].nunique()
    figure, parts = style.panels(numbers, "panel", count, 3.6, extra=0, sharey=True)
    for ax, part in parts:
        for curve, look in style.series(part, "estimator"):
            ax.plot(curve["images"], curve["mean"], markersize=5, **look)
            band = curve["images"], curve["low"], curve["high"]
            ax.fill_between(*band, color=look["color"], alpha=0.15, linewidth=0)
        for norm, (line, name) in truths.items():
            truth = part.loc[part["norm"] == norm, "truth"].iloc[0]
            ax.axhline(truth, color="black", linestyle=line, linewidth=1.4, label=name)
        style.logarithmic_axis(ax, part["images"], "{:,}")
    parts[0][0].set_ylim(0, None)  # shared, so once all is drawn
    return style.label(figure, legend=3, xlabel="test images", ylabel="calibration error")


def budgets(numbers: pd.DataFrame) -> Figure:
    """Accuracy against core-minutes on a logarithmic scale: means with one standard deviation.

    `numbers` is from `lsce.report.tables.budgets`.
    """
    figure, axes = style.grid(1, 1, 4.2)
    ax = axes[0, 0]
    networks, epsilons = list(numbers["network"].unique()), sorted(numbers["epsilon"].unique())
    points = numbers.rename(columns={"core_minutes": "at", "accuracy": "mean"})
    points["low"], points["high"] = points["mean"] - points["sd"], points["mean"] + points["sd"]
    usual: dict[str, Any] = {"upright": True, "markersize": None, "elinewidth": None}
    for (network, epsilon), part in points.groupby(["network", "epsilon"]):
        look = {"color": COLOURS[epsilons.index(epsilon)], "label": f"{network}, ε = {epsilon:g}"}
        look["marker"] = MARKERS[networks.index(network) % len(MARKERS)]
        look["fillstyle"] = "full" if epsilon == 0 else "none"
        style.intervals(ax, part, **usual | look)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    legend, xlabel = len(networks), "core-minutes of training"
    return style.label(figure, legend=legend, xlabel=xlabel, ylabel="test accuracy", percent=True)


def targets(numbers: pd.DataFrame) -> Figure:
    """The smoothed target distributions; `numbers` has convention, class and probability."""
    count = numbers["convention"].nunique()
    figure, parts = style.panels(numbers, "convention", count, 2.6, extra=0, sharey=True)
    for ax, part in parts:
        bars = ax.bar(part["class"], part["probability"], color=COLOURS[0])
        ax.bar_label(bars, fmt="%.3g", fontsize=9)
        ax.set_ylim(0, 1.08)
        ax.grid(axis="x", visible=False)
    return style.label(figure, ylabel="target probability")


def projections(numbers: pd.DataFrame) -> Figure:
    """Penultimate features of three classes on the plane of their templates.

    `numbers` has row (three classes and a split), column (the arm), name (the class), x and y.
    Every panel has its own scale, equal on both axes and written on them, since it is a finding.
    """
    rows, columns = numbers["row"].unique(), numbers["column"].unique()
    figure, axes = style.grid(len(rows), len(columns), 0.5 + 2.5 * len(rows))
    for line, row in zip(axes, rows, strict=True):
        for ax, column in zip(line, columns, strict=True):
            part = numbers[(numbers["row"] == row) & (numbers["column"] == column)]
            for points, look in style.series(part, "name"):
                ax.plot(points["x"], points["y"], ls="", markersize=2.5, alpha=0.7, **look)
            ax.set_title(column, fontsize=9)
            ax.set_aspect("equal", adjustable="datalim")
            ax.xaxis.set_major_locator(MaxNLocator(4))
            ax.yaxis.set_major_locator(MaxNLocator(4))
        line[0].set_ylabel(row, fontsize=9)
        line[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, markerscale=2)
    return figure


def distributions(numbers: pd.DataFrame, labels: dict[str, str]) -> Figure:
    """Histograms, a row a regime and a column a quantity, one step line an ε.

    `numbers` has regime, epsilon, quantity, left, right and density; `labels` maps a quantity to
    its axis label.
    """
    regimes = numbers["regime"].unique()
    figure, axes = style.grid(len(regimes), len(labels), 0.5 + 2.5 * len(regimes))
    for row, regime in zip(axes, regimes, strict=True):
        for ax, (quantity, label) in zip(row, labels.items(), strict=True):
            part = numbers[(numbers["regime"] == regime) & (numbers["quantity"] == quantity)]
            part = part.sort_values("epsilon", kind="stable")
            part["name"] = part["epsilon"].map("ε = {:g}".format)
            for bars, look in style.series(part, "name", markers=False):
                edges = [*bars["left"], bars["right"].iloc[-1]]
                ax.stairs(bars["density"], edges, linewidth=1.6, **look)
            # Logarithmic: what matters are the tails, where a network is sure of itself.
            ax.set(title=regime, xlabel=label, ylabel="density", yscale="log", ylim=(1e-3, None))
    return style.label(figure, legend=6)


def reliability(numbers: pd.DataFrame) -> Figure:
    """Reliability diagrams, a row a regime, and below each the share of the images in every bin.

    `numbers` has regime, panel and the columns of `lsce.measures.calibration.reliability_table`.
    The bins' accuracies have their 95% intervals; an orange bar is a bin's distance from
    calibration.
    """
    regimes = list(numbers.groupby("regime", sort=False))
    columns = max(rows["panel"].nunique() for _, rows in regimes)
    height, ratios = 3.1 * len(regimes), [3, 1] * len(regimes)
    shared = {"sharex": True, "sharey": "row", "height_ratios": ratios}
    figure, axes = style.grid(len(ratios), columns, height, **shared)
    names = {"confidence": "at", "accuracy": "mean", "accuracy_low": "low", "accuracy_high": "high"}
    look: dict[str, Any] = {"color": COLOURS[0], "marker": "o", "markersize": 3.5, "capsize": 0}
    look["elinewidth"] = 1.1
    for (regime, rows), diagrams, shares in zip(regimes, axes[::2], axes[1::2], strict=True):
        groups = rows.groupby("panel", sort=False)
        for ax, below, (panel, bins) in zip(diagrams, shares, groups, strict=False):
            filled = bins[bins["count"] > 0].rename(columns=names)
            ax.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.2)
            ax.vlines(filled["at"], filled["at"], filled["mean"], COLOURS[1], lw=3, alpha=0.35)
            style.intervals(ax, filled, upright=True, **look)
            ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
            ax.set_title(panel, fontsize=9)
            share = bins["count"] / bins["count"].sum()
            below.stairs(share, [*bins["lower"], 1.0], fill=True, color="#9aa7b5")
            below.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
            below.set_xlabel("confidence")
        diagrams[0].set_ylabel(f"{regime}\n\naccuracy")
        shares[0].set_ylabel("share")
    return figure
