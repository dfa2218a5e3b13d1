"""Figures with a row a thing: arms, cases, claims, effects in the literature and benchmarks."""

import textwrap
from collections.abc import Sequence
from typing import Any, Unpack

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from lsce.judging import statistics
from lsce.report.figures import style
from lsce.report.figures.style import COLOURS, GREY, Labels

#: Words that stand above a group of rows.
_HEADING: dict[str, Any] = {
    "xycoords": ("figure fraction", "data"),
    "va": "center",
    "weight": "bold",
    "fontsize": 8,
    "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 1},
    "in_layout": False,  # long ones would take width from the axes
}


def arms(numbers: pd.DataFrame, *, columns: int = 3, **labels: Unpack[Labels]) -> Figure:
    """A panel a regime and a row an arm: the mean over seeds with its 95% t interval.

    `numbers` has panel, arm, method, seed, value (missing where the run diverged) and `chosen`:
    whether validation chose the arm among those of its method, which are filled; the others are
    hollow. A colour is a method.
    """
    rows, methods = list(numbers["arm"].unique()), list(numbers["method"].unique())
    size = columns, 0.6 + 0.24 * len(rows)
    figure, parts = style.panels(numbers, "panel", *size, extra=0.9, named_rows=True, sharey=True)
    for ax, part in parts:
        for line, arm in enumerate(rows):
            mine = part[part["arm"] == arm]
            if len(mine):
                colour = COLOURS[methods.index(mine["method"].iloc[0]) % len(COLOURS)]
                _arm(ax, line, mine, colour)
        _name_rows(ax, rows, range(len(rows)))
        ax.xaxis.set_major_locator(MaxNLocator(4))
    return style.labelled(figure, values="x", **labels)


def _arm(ax: Axes, line: int, mine: pd.DataFrame, colour: str) -> None:
    values = mine["value"].dropna()
    if len(values):
        face = colour if mine["chosen"].iloc[0] else "white"
        look: dict[str, Any] = {"color": colour, "markerfacecolor": face}
        style.means(ax, {line: values}, marker="o", markersize=6, **look)
    else:
        look = {"color": GREY, "fontsize": 8, "transform": ax.get_yaxis_transform()}
        ax.text(0.5, line, "diverged", ha="center", va="center", **look)


def cases(numbers: pd.DataFrame, **labels: Unpack[Labels]) -> Figure:
    """A panel a `panel`, a row a `case` and a colour an arm: means over seeds with 95% t intervals.

    `numbers` has panel, case, arm, seed and value.
    """
    rows, names = list(numbers["case"].unique()), list(numbers["arm"].unique())
    height = 0.6 + (0.14 + 0.1 * len(names)) * len(rows)
    figure, parts = style.panels(numbers, "panel", 2, height, extra=0.9, sharey=True)
    apart = min(0.22, 0.7 / len(names))
    for ax, part in parts:
        each = style.told_apart(part.dropna(subset="value"), "arm", names)
        for index, (mine, look) in enumerate(each):
            first = apart * (index - (len(names) - 1) / 2)
            groups = mine.groupby("case")["value"]
            style.means(ax, {rows.index(case) + first: group for case, group in groups}, **look)
        _name_rows(ax, rows, range(len(rows)))
        ax.xaxis.set_major_locator(MaxNLocator(5))
    return style.labelled(figure, legend=4, values="x", **labels)


def effects(numbers: pd.DataFrame) -> Figure:
    """A row a claim and regime: the effect and its 95% interval, in smallest effects that matter.

    `numbers` has claim, regime, effect, low, high and verdict, scaled so that 1 is the smallest
    effect that matters and positive is as claimed.
    """
    figure, axes = style.grid(1, 1, 1.0 + 0.2 * (len(numbers) + numbers["claim"].nunique()))
    ax = axes[0, 0]
    points = numbers.rename(columns={"effect": "mean"})
    points["at"] = _name_below_headings(ax, points["claim"], points["regime"])
    looks: dict[str, dict[str, Any]] = {
        statistics.SUPPORTED: {"color": COLOURS[2], "marker": "o"},
        statistics.REFUTED: {"color": COLOURS[1], "marker": "X"},
        statistics.UNDECIDED: {"color": GREY, "marker": "D"},
    }
    for verdict, look in looks.items():
        mine = points[points["verdict"] == verdict]
        style.intervals(ax, mine, elinewidth=None, label=verdict, **look)
    _mark_none(ax)
    ax.axvspan(-1, 1, color=GREY, alpha=0.12, linewidth=0)
    ax.set_xscale("symlog", linthresh=1, linscale=0.7)
    ax.margins(x=0.08)
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    xlabel = "effect, in smallest effects that matter (positive is as claimed)"
    return style.labelled(figure, legend=3, xlabel=xlabel)


def beside_published(numbers: pd.DataFrame) -> Figure:
    """Effects here, with intervals, and in the literature; a panel a claim, a row an effect.

    `numbers` has the columns of `lsce.report.reproduction.with_published`.
    """
    claims = list(numbers.rename(columns={"effect": "mean"}).groupby("claim", sort=False))
    counts = [len(part) for _, part in claims]
    height = sum(0.24 * count + 0.8 for count in counts)
    figure, axes = style.grid(len(claims), 1, height, height_ratios=counts)
    looks: dict[str, dict[str, Any]] = {
        "here": {"label": "here, with 95% interval", "color": COLOURS[0], "marker": "o"},
        "published": {"label": "published", "color": COLOURS[1], "marker": "D"},
    }
    for ax, (claim, part) in zip(axes.flat, claims, strict=True):
        part = part.assign(at=range(len(part)))
        for source, look in looks.items():
            mine = part[part["source"] == source]
            style.intervals(ax, mine, elinewidth=None, capsize=3, **look)
        _mark_none(ax)
        _name_rows(ax, part["name"] + part["epsilon"].map(", ε = {:g}".format), part["at"])
        unit = part["unit"].iloc[0]
        ax.set_title(textwrap.fill(str(claim), 50), fontsize=9)  # the names leave little room
        ax.set_xlabel(f"effect{f', {unit}' if unit else ''} (positive is as claimed)")
    return style.legend_below(figure, 2)


def _mark_none(ax: Axes) -> None:
    """A line where there is no effect, and none across it."""
    ax.axvline(0, color="black", linewidth=1)
    ax.grid(axis="y", visible=False)


def speed(numbers: pd.DataFrame) -> Figure:
    """How many times better ours is than each rival, a row a case; a panel a machine.

    `numbers` has machine and the columns of a table of `make bench`. The ratios of what is better
    when lower are inverted, so that ours is the better one to the right of 1 everywhere. Points are
    medians over turns, bars the quartiles.
    """
    names = {"ratio": "mean", "ratio_low": "low", "ratio_high": "high"}
    points = numbers.rename(columns=names)
    inverted = points["better"] == "lower"
    ends = points.loc[inverted, ["mean", "high", "low"]].to_numpy(dtype=float)
    points.loc[inverted, ["mean", "low", "high"]] = 1 / ends
    points["line"] = points["case"] + ", " + points["quantity"]
    machines = list(points.groupby("machine", sort=False))
    rows = [part[["benchmark", "line"]].drop_duplicates() for _, part in machines]
    # Every benchmark has a line of its own, for its name, above its cases.
    counts = [len(each) + each["benchmark"].nunique() for each in rows]
    height = 1.2 + sum(0.27 * count + 0.9 for count in counts)
    figure, axes = style.grid(len(machines), 1, height, height_ratios=counts)
    for ax, (machine, part), each in zip(axes.flat, machines, rows, strict=True):
        each["at"] = _name_below_headings(ax, each["benchmark"], each["line"])
        _factors(ax, part.merge(each), list(points["rival"].unique()))
        ax.set_title(str(machine))
        ax.set_xlabel(
            "how many times better ours is\n(theirs / ours for time and memory, else ours / theirs)"
        )
    return style.legend_below(figure, 3, size=9)


def _factors(ax: Axes, points: pd.DataFrame, rivals: list[str]) -> None:
    for mine, look in style.told_apart(points, "rival", rivals):
        if len(mine):
            style.intervals(ax, mine, **look)
    ax.axvline(1, color="black", linewidth=1)
    ax.set_xscale("log")
    ax.set_xlim(min(0.5, points["low"].min() / 1.1), max(2, 1.1 * points["high"].max()))
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()


def _name_below_headings(ax: Axes, headings: pd.Series, names: pd.Series) -> pd.Series:
    """Name the rows below each heading, which has a line of its own; returns the rows' heights."""
    groups = list(headings.unique())
    above = headings.map(groups.index)
    at = (above.rank(method="first") + above).sort_values()
    for group in groups:  # from the left end of the figure on
        ax.annotate(group, (0.005, at[headings == group].min() - 1), **_HEADING)
    _name_rows(ax, names[at.index], at, room=0.7)
    return at


def _name_rows(
    ax: Axes, names: Sequence[str] | pd.Series, at: Sequence[int] | pd.Series, room: float = 0.6
) -> None:
    """Names for rows at these heights, which increase downwards from 0 on."""
    ax.set_yticks(at, list(names), fontsize=8)
    ax.set_ylim(max(at) + room, -room)
    ax.tick_params(axis="y", length=0)
