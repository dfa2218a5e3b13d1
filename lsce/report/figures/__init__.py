"""One function a figure, drawn from a tidy table of numbers.

Unless it says otherwise, a figure has a panel for each value of the column `panel` and a colour for
each `arm`; where `numbers` has seeds, it shows their mean `value` with its 95% t interval. `labels`
are xlabel, ylabel and percent (values are shares in [0, 1], written as percentages). `publish`
shows a figure and saves it as SVG and PNG with those numbers as CSV beside it.
"""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from lsce.judging import rule, statistics
from lsce.report.figures import style
from lsce.report.figures.publishing import publish as publish
from lsce.report.figures.style import COLOURS, GREY, MARKERS
from lsce.report.figures.style import use_style as use_style


def against(
    numbers: pd.DataFrame, x: str = "epsilon", columns: int = 2, form: str = "{:g}", **labels: Any
) -> Figure:
    """Values against `x`, which is evenly spaced and written as `form`; `numbers` has panel, arm,
    `x`, seed and value."""
    arms = list(numbers["arm"].unique())
    look = {"markersize": 5, "linewidth": 1.4, "capsize": 0.12, "err_kws": {"linewidth": 1.2}}
    look |= {"markers": MARKERS[: len(arms)], "palette": COLOURS[: len(arms)]}
    look |= {"dodge": min(0.5, 0.13 * len(arms)) * (len(arms) > 1), "errorbar": _t_interval}
    figure, panels = style.panels(numbers, "panel", columns, 2.6)
    for ax, part in panels:
        part = part.dropna(subset="value")
        sns.pointplot(part, x=x, y="value", hue="arm", hue_order=arms, ax=ax, **look)
        ax.legend().remove()  # one for all panels stands below them
        values = sorted(part[x].unique())
        ax.set_xticks(range(len(values)), [form.format(value) for value in values])
        ax.set_ylabel("")
    return style.label(figure, legend=4, **{"xlabel": "ε"} | labels)


def _t_interval(values: pd.Series) -> tuple[float, float]:
    interval = statistics.mean_interval(values)
    return interval.low, interval.high


def histories(
    numbers: pd.DataFrame, *, solid: str, dashed: str, columns: int = 3, **labels: Any
) -> Figure:
    """The columns `solid` and `dashed` by epoch, a panel a regime.

    `numbers` has regime, arm, epoch and those columns, means over seeds. There are colours for
    seven arms; more are not drawn.
    """
    arms = numbers["arm"].unique()[: len(COLOURS)]
    figure, panels = style.panels(numbers, "regime", columns, 2.8, extra=0.6)
    for ax, part in panels:
        for history, look in style.series(part, "arm", arms, markers=False):
            ax.plot(history["epoch"], history[solid], **look)
            ax.plot(history["epoch"], history[dashed], color=look["color"], linestyle="--")
        ax.set_ylim(0, None)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return style.label(figure, xlabel="epoch", legend=4, **labels)


def slopes(numbers: pd.DataFrame, *, x: str, logarithmic: bool = False, **labels: Any) -> Figure:
    """Values against `x`, to scale, with a line through the means; `numbers` has panel, arm, `x`,
    seed and value."""
    figure, panels = style.panels(numbers, "panel", 3, 3.1, extra=0.6)
    for ax, part in panels:
        for rows, look in style.series(part, "arm", numbers["arm"].unique()):
            groups = rows.groupby(x)["value"]
            style.means(ax, dict(iter(groups)), upright=True, **look)
            heights = groups.mean()
            ax.plot(heights.index, heights, color=look["color"], linewidth=1.2)
        if logarithmic:
            style.logarithmic_axis(ax, part[x], "{:g}")
    return style.label(figure, legend=2, **labels)


def side_by_side(numbers: pd.DataFrame, *, x: str, xlabel: str) -> Figure:
    """Means at each `x`, on a logarithmic axis, and no line through them: a panel for each value of
    the columns `row` and `column`, with the same axis for a row of panels and for all of them;
    `numbers` has these, arm, `x`, seed and value."""
    rows, columns = numbers["row"].unique(), numbers["column"].unique()
    shared = {"sharex": True, "sharey": "row"}
    figure, axes = style.grid(len(rows), len(columns), 0.7 + 2.5 * len(rows), **shared)
    for row_axes, row in zip(axes, rows, strict=True):
        for ax, column in zip(row_axes, columns, strict=True):
            part = numbers[(numbers["row"] == row) & (numbers["column"] == column)]
            for points, look in style.series(part, "arm", numbers["arm"].unique()):
                style.means(ax, dict(iter(points.groupby(x)["value"])), upright=True, **look)
            ax.axhline(0, color="black", linewidth=1)
            style.logarithmic_axis(ax, numbers[x], "{:g}")
        row_axes[0].set_ylabel(row)
    for ax, column in zip(axes[0], columns, strict=True):
        ax.set_title(column)
    for ax in axes[-1]:
        ax.set_xlabel(xlabel)
    return style.legend_below(figure, 2)


def curves(
    numbers: pd.DataFrame, *, x: str, xlabel: str, ylabel: str, marks: pd.DataFrame | None = None
) -> Figure:
    """Lines of `value` against `x`; `numbers` has panel, arm, `x` and value, and so has `marks`,
    which are points on the lines."""
    figure, panels = style.panels(numbers, "panel", 3, 3.0, extra=0.4)
    for ax, part in panels:
        for line, look in style.series(part, "arm", numbers["arm"].unique(), markers=False):
            ax.plot(line[x], line["value"], **look)
            if marks is not None:
                points = marks.merge(line[["panel", "arm"]].drop_duplicates())
                ax.plot(points[x], points["value"], "o", color=look["color"], markersize=6)
        ax.set_ylabel(ylabel)
    return style.label(figure, legend=5, xlabel=xlabel)


def estimators(numbers: pd.DataFrame) -> Figure:
    """Each estimator's mean and band, and the true values, against the number of test images;
    `numbers` has panel, estimator, images, mean, low, high, norm (1 or 2) and truth."""
    truths = (1, "--", "true mean gap"), (2, ":", "true root mean square gap")
    columns = numbers["panel"].nunique()
    figure, panels = style.panels(numbers, "panel", columns, 3.6, extra=0, sharey=True)
    for ax, part in panels:
        for rows, look in style.series(part, "estimator"):
            ax.plot(rows["images"], rows["mean"], markersize=5, **look)
            band = rows["images"], rows["low"], rows["high"]
            ax.fill_between(*band, color=look["color"], alpha=0.15, linewidth=0)
        for norm, line, name in truths:
            truth = part.loc[part["norm"] == norm, "truth"].iloc[0]
            ax.axhline(truth, color="black", linestyle=line, linewidth=1.4, label=name)
        style.logarithmic_axis(ax, part["images"], "{:,}")
    figure.axes[0].set_ylim(0, None)  # shared, so once all is drawn
    return style.label(figure, xlabel="test images", ylabel="calibration error", legend=3)


def budgets(numbers: pd.DataFrame) -> Figure:
    """Accuracy against core-minutes on a logarithmic scale, means with one standard deviation;
    `numbers` is from `lsce.report.tables.budgets`."""
    figure, [[ax]] = style.grid(1, 1, 4.2)
    networks, epsilons = list(numbers["network"].unique()), sorted(numbers["epsilon"].unique())
    points = numbers.rename(columns={"core_minutes": "at", "accuracy": "mean"})
    points["low"], points["high"] = points["mean"] - points["sd"], points["mean"] + points["sd"]
    for (network, epsilon), part in points.groupby(["network", "epsilon"]):
        look = {"color": COLOURS[epsilons.index(epsilon)], "label": f"{network}, ε = {epsilon:g}"}
        look["marker"] = MARKERS[networks.index(network) % len(MARKERS)]
        look["fillstyle"] = "full" if epsilon == 0 else "none"
        style.intervals(ax, part, upright=True, markersize=None, elinewidth=None, **look)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    legend, xlabel = len(networks), "core-minutes of training"
    return style.label(figure, legend, percent=True, xlabel=xlabel, ylabel="test accuracy")


def targets(numbers: pd.DataFrame) -> Figure:
    """The smoothed target distributions; `numbers` has convention, class and probability."""
    columns = numbers["convention"].nunique()
    figure, panels = style.panels(numbers, "convention", columns, 2.6, extra=0, sharey=True)
    for ax, part in panels:
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
    for row_axes, row in zip(axes, rows, strict=True):
        for ax, column in zip(row_axes, columns, strict=True):
            part = numbers[(numbers["row"] == row) & (numbers["column"] == column)]
            for points, look in style.series(part, "name"):
                ax.plot(points["x"], points["y"], ls="", markersize=2.5, alpha=0.7, **look)
            ax.set_title(column, fontsize=9)
            ax.set_aspect("equal", adjustable="datalim")
            ax.xaxis.set_major_locator(MaxNLocator(4))
            ax.yaxis.set_major_locator(MaxNLocator(4))
        row_axes[0].set_ylabel(row, fontsize=9)
        row_axes[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, markerscale=2)
    return figure


def distributions(numbers: pd.DataFrame, labels: dict[str, str]) -> Figure:
    """Histograms, a row a regime, a column a quantity (`labels` are their axes') and a line an ε;
    `numbers` has regime, epsilon, quantity, left, right and density."""
    regimes = numbers["regime"].unique()
    figure, axes = style.grid(len(regimes), len(labels), 0.5 + 2.5 * len(regimes))
    numbers = numbers.sort_values("epsilon", kind="stable")
    numbers["name"] = numbers["epsilon"].map("ε = {:g}".format)
    for row_axes, regime in zip(axes, regimes, strict=True):
        for ax, (quantity, xlabel) in zip(row_axes, labels.items(), strict=True):
            part = numbers[(numbers["regime"] == regime) & (numbers["quantity"] == quantity)]
            for bins, look in style.series(part, "name", markers=False):
                edges = [*bins["left"], bins["right"].iloc[-1]]
                ax.stairs(bins["density"], edges, linewidth=1.6, **look)
            # Logarithmic: what matters are the tails, where a network is sure of itself.
            ax.set(title=regime, xlabel=xlabel, ylabel="density", yscale="log", ylim=(1e-3, None))
    return style.legend_below(figure, 6)


def reliability(numbers: pd.DataFrame) -> Figure:
    """Reliability diagrams, a row a regime, and below each the share of the images in every bin.

    `numbers` has regime, panel and the columns of `lsce.measures.calibration.reliability_table`.
    The bins' accuracies have their 95% intervals; an orange bar is a bin's distance from
    calibration.
    """
    regimes = list(numbers.groupby("regime", sort=False))
    columns = max(rows["panel"].nunique() for _, rows in regimes)
    shared = {"sharex": True, "sharey": "row", "height_ratios": [3, 1] * len(regimes)}
    figure, axes = style.grid(2 * len(regimes), columns, 3.1 * len(regimes), **shared)
    names = {"confidence": "at", "accuracy": "mean", "accuracy_low": "low", "accuracy_high": "high"}
    look = {"color": COLOURS[0], "marker": "o", "markersize": 3.5, "capsize": 0, "elinewidth": 1.1}
    for (regime, rows), diagrams, shares in zip(regimes, axes[::2], axes[1::2], strict=True):
        panels = rows.groupby("panel", sort=False)
        for ax, below, (panel, bins) in zip(diagrams, shares, panels, strict=False):
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


def arms(numbers: pd.DataFrame, *, columns: int = 3, **labels: Any) -> Figure:
    """A row an arm and a colour a method.

    `numbers` has panel, arm, method, seed, value (missing where the run diverged) and `chosen`:
    whether validation chose the arm among those of its method. The others are hollow.
    """
    names, methods = list(numbers["arm"].unique()), list(numbers["method"].unique())
    height = 0.6 + 0.24 * len(names)
    figure, panels = style.panels(numbers, "panel", columns, height, extra=0.9, sharey=True)
    width = 78 // (min(columns, len(panels)) + 1)  # the names of the rows leave titles less room
    text: dict[str, Any] = {"fontsize": 8, "color": GREY, "ha": "center", "va": "center"}
    for ax, part in panels:
        for place, rows in part.groupby(part["arm"].map(names.index)):
            values = rows["value"].dropna()
            if values.empty:
                ax.text(0.5, place, "diverged", transform=ax.get_yaxis_transform(), **text)
                continue
            colour = COLOURS[methods.index(rows["method"].iloc[0]) % len(COLOURS)]
            look = {"color": colour, "marker": "o", "markersize": 6}
            look["markerfacecolor"] = colour if rows["chosen"].iloc[0] else "white"
            style.means(ax, {place: values}, **look)
        ax.set_title(textwrap.fill(part["panel"].iloc[0], width))
        _name_rows(ax, names)
        ax.xaxis.set_major_locator(MaxNLocator(4))
    return style.label(figure, values="x", **labels)


def cases(numbers: pd.DataFrame, **labels: Any) -> Figure:
    """A row a case; `numbers` has panel, case, arm, seed and value."""
    names, arms = list(numbers["case"].unique()), list(numbers["arm"].unique())
    height = 0.6 + (0.14 + 0.1 * len(arms)) * len(names)
    figure, panels = style.panels(numbers, "panel", 2, height, extra=0.9, sharey=True)
    offsets = min(0.22, 0.7 / max(1, len(arms))) * (np.arange(len(arms)) - (len(arms) - 1) / 2)
    for ax, part in panels:
        series = style.series(part.dropna(subset="value"), "arm", arms)
        for offset, (rows, look) in zip(offsets, series, strict=True):
            groups = rows.groupby("case")["value"]
            style.means(ax, {names.index(case) + offset: group for case, group in groups}, **look)
        _name_rows(ax, names)
        ax.xaxis.set_major_locator(MaxNLocator(5))
    return style.label(figure, values="x", legend=4, **labels)


def effects(numbers: pd.DataFrame) -> Figure:
    """A row a claim, regime and ε: the effect and its interval, in smallest effects that matter.

    `numbers` has claim, regime, treatment, effect, low, high and verdict, scaled so that 1 is the
    smallest effect that matters and positive values favour the claim.
    """
    figure, [[ax]] = style.grid(1, 1, 1.0 + 0.2 * (len(numbers) + numbers["claim"].nunique()))
    if numbers.empty:
        return style.label(figure, xlabel="no claim could be tested")
    names = numbers["regime"] + ", " + numbers["treatment"]
    numbers = numbers.assign(at=_name_below_headings(ax, numbers["claim"], names))
    colours = {rule.SUPPORTED: COLOURS[2], rule.OPPOSITE: COLOURS[1], rule.NEGLIGIBLE: COLOURS[0]}
    _effects(ax, numbers, "verdict", colours | {rule.UNDECIDED: GREY}, markers="oXsD")
    ax.axvspan(-1, 1, color=GREY, alpha=0.12, linewidth=0)
    ax.set_xscale("symlog", linthresh=1, linscale=0.7)
    ax.margins(x=0.08)
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    xlabel = "effect, in smallest effects that matter (positive values favour the claim)"
    return style.label(figure, xlabel=xlabel, legend=4)


def beside_published(numbers: pd.DataFrame) -> Figure:
    """Effects here, with intervals, and in the literature; a panel a claim, a row an effect.
    `numbers` is from `lsce.report.reproduction.with_published`."""
    claims = list(numbers.groupby("claim", sort=False))
    counts = [len(part) for _, part in claims]
    height = sum(0.24 * count + 0.97 for count in counts)
    figure, axes = style.grid(len(claims), 1, height, height_ratios=counts)
    here = "here, with 95% interval"
    colours = {here: COLOURS[0], "published": COLOURS[1]}
    for ax, (claim, part) in zip(axes.flat, claims, strict=True):
        part = part.assign(at=range(len(part))).replace({"source": {"here": here}})
        _effects(ax, part, "source", colours, markers="oD", capsize=3)
        epsilons = part["epsilon"].map(", ε = {:g}".format, na_action="ignore")
        _name_rows(ax, part["name"] + epsilons.fillna(", no single ε"))
        unit = part["unit"].iloc[0]
        ax.set_title(textwrap.fill(str(claim), 80), fontsize=9, loc="right")  # above the names, too
        ax.set_xlabel(f"effect{f', {unit}' if unit else ''}\n(positive values favour the claim)")
    return style.legend_below(figure, 2)


def _effects(
    ax: Axes, numbers: pd.DataFrame, by: str, colours: dict[str, str], markers: str, **look: Any
) -> None:
    """Effects with their intervals at the heights `at`, coloured by the column `by`."""
    points = numbers.rename(columns={"effect": "mean"})
    for (name, colour), marker in zip(colours.items(), markers, strict=True):
        rows = points[points[by] == name]
        style.intervals(ax, rows, color=colour, marker=marker, label=name, elinewidth=None, **look)
    ax.axvline(0, color="black", linewidth=1)
    ax.grid(axis="y", visible=False)


def speed(numbers: pd.DataFrame) -> Figure:
    """How many times better ours is than each rival, a row a case; a panel a machine.

    `numbers` has machine and the columns of a table of `make bench`. The ratios of what is better
    when lower are inverted: right of 1, ours is better. Points are medians over turns, bars the
    quartiles.
    """
    points = numbers.rename(columns={"ratio": "mean", "ratio_low": "low", "ratio_high": "high"})
    lower = points["better"] == "lower"
    ratios = points.loc[lower, ["mean", "high", "low"]].to_numpy(dtype=float)
    points.loc[lower, ["mean", "low", "high"]] = 1 / ratios
    points["line"] = points["case"] + ", " + points["quantity"]
    machines = list(points.groupby("machine", sort=False))
    tables = [part[["benchmark", "line"]].drop_duplicates() for _, part in machines]
    counts = [len(lines) + lines["benchmark"].nunique() for lines in tables]
    height = 1.2 + sum(0.27 * count + 0.9 for count in counts)
    figure, axes = style.grid(len(machines), 1, height, height_ratios=counts)
    for ax, (machine, part), lines in zip(axes.flat, machines, tables, strict=True):
        lines["at"] = _name_below_headings(ax, lines["benchmark"], lines["line"])
        for rows, look in style.series(part.merge(lines), "rival", points["rival"].unique()):
            if len(rows):
                style.intervals(ax, rows, **look)
        ax.axvline(1, color="black", linewidth=1)
        ax.set_xscale("log")
        ax.set_xlim(min(0.5, part["low"].min() / 1.1), max(2, 1.1 * part["high"].max()))
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.minorticks_off()
        ax.set_title(str(machine))
    label = "how many times better ours is\n(theirs / ours for time and memory, else ours / theirs)"
    return style.legend_below(style.label(figure, xlabel=label), 3, size=9)


def _name_below_headings(ax: Axes, headings: pd.Series, names: pd.Series) -> pd.Series:
    """Name the rows below each heading, which has a line of its own; returns the rows' heights."""
    groups = list(headings.unique())
    above = headings.map(groups.index)
    heights = (above.rank(method="first") + above).sort_values()
    look: dict[str, Any] = {"va": "center", "weight": "bold", "fontsize": 8}
    look["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    look["in_layout"] = False  # a long one would take width from the axes
    for group in groups:  # from the left end of the figure on
        place = 0.005, heights[headings == group].min() - 1
        ax.annotate(group, place, xycoords=("figure fraction", "data"), **look)
    _name_rows(ax, names[heights.index], heights, room=0.7)
    return heights


def _name_rows(
    ax: Axes, names: Sequence[str] | pd.Series, at: pd.Series | None = None, room: float = 0.6
) -> None:
    """Names for rows at the heights `at`, or 0, 1, … from the top down."""
    heights = range(len(names)) if at is None else list(at)
    ax.set_yticks(heights, list(names), fontsize=8)
    ax.set_ylim(max(heights) + room, -room)
    ax.tick_params(axis="y", length=0)
