"""Figures with a row a thing: arms, cases, claims, effects in the literature and benchmarks."""

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from lsce.judging import statistics
from lsce.report.figures import style
from lsce.report.figures.style import COLOURS, GREY


def arms(numbers: pd.DataFrame, *, columns: int = 3, **labels: Any) -> Figure:
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
            values = mine["value"].dropna()
            if len(values):
                colour = COLOURS[methods.index(mine["method"].iloc[0]) % len(COLOURS)]
                face = {"markerfacecolor": colour if mine["chosen"].iloc[0] else "white"}
                style.means(ax, {line: values}, marker="o", markersize=6, color=colour, **face)
            elif len(mine):
                place: dict[str, Any] = {"ha": "center", "va": "center"}
                place["transform"] = ax.get_yaxis_transform()
                ax.text(0.5, line, "diverged", fontsize=8, color=GREY, **place)
        _name_rows(ax, rows)
        ax.xaxis.set_major_locator(MaxNLocator(4))
    return style.label(figure, values="x", **labels)


def cases(numbers: pd.DataFrame, **labels: Any) -> Figure:
    """A panel a `panel`, a row a `case` and a colour an arm: means over seeds with 95% t intervals.

    `numbers` has panel, case, arm, seed and value.
    """
    rows, names = list(numbers["case"].unique()), list(numbers["arm"].unique())
    height = 0.6 + (0.14 + 0.1 * len(names)) * len(rows)
    figure, parts = style.panels(numbers, "panel", 2, height, extra=0.9, sharey=True)
    apart = min(0.22, 0.7 / len(names))
    for ax, part in parts:
        each = style.series(part.dropna(subset="value"), "arm", names)
        for index, (mine, look) in enumerate(each):
            first = apart * (index - (len(names) - 1) / 2)
            groups = mine.groupby("case")["value"]
            style.means(ax, {rows.index(case) + first: group for case, group in groups}, **look)
        _name_rows(ax, rows)
        ax.xaxis.set_major_locator(MaxNLocator(5))
    return style.label(figure, legend=4, values="x", **labels)


def effects(numbers: pd.DataFrame) -> Figure:
    """A row a claim and regime: the effect and its 95% interval, in smallest effects that matter.

    `numbers` has claim, regime, effect, low, high and verdict, scaled so that 1 is the smallest
    effect that matters and positive values favour the claim.
    """
    figure, axes = style.grid(1, 1, 1.0 + 0.2 * (len(numbers) + numbers["claim"].nunique()))
    ax = axes[0, 0]
    numbers = numbers.assign(at=_name_below_headings(ax, numbers["claim"], numbers["regime"]))
    colours, markers = (COLOURS[2], COLOURS[1], GREY), ("o", "X", "D")
    verdicts = (statistics.SUPPORTED, statistics.REFUTED, statistics.UNDECIDED)
    _effects(ax, numbers, "verdict", zip(verdicts, colours, markers, strict=True))
    ax.axvspan(-1, 1, color=GREY, alpha=0.12, linewidth=0)
    ax.set_xscale("symlog", linthresh=1, linscale=0.7)
    ax.margins(x=0.08)
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    xlabel = "effect, in smallest effects that matter (positive is as claimed)"
    return style.label(figure, legend=3, xlabel=xlabel)


def beside_published(numbers: pd.DataFrame) -> Figure:
    """Effects here, with intervals, and in the literature; a panel a claim, a row an effect.

    `numbers` has the columns of `lsce.report.reproduction.with_published`.
    """
    claims = list(numbers.groupby("claim", sort=False))
    counts = [len(part) for _, part in claims]
    height = sum(0.24 * count + 0.8 for count in counts)
    figure, axes = style.grid(len(claims), 1, height, height_ratios=counts)
    here = "here, with 95% interval"
    looks = (here, COLOURS[0], "o"), ("published", COLOURS[1], "D")
    for ax, (claim, part) in zip(axes.flat, claims, strict=True):
        part = part.assign(at=range(len(part))).replace({"source": {"here": here}})
        _effects(ax, part, "source", looks, capsize=3)
        _name_rows(ax, part["name"] + part["epsilon"].map(", ε = {:g}".format))
        unit = part["unit"].iloc[0]
        ax.set_title(textwrap.fill(str(claim), 50), fontsize=9)  # the names leave little room
        ax.set_xlabel(f"effect{f', {unit}' if unit else ''} (positive is as claimed)")
    return style.label(figure, legend=2)


def _effects(
    ax: Axes, numbers: pd.DataFrame, by: str, looks: Iterable[tuple[str, str, str]], **more: Any
) -> None:
    """Effects with their intervals at the heights `at`, and a line where there is none. `looks` are
    the values of the column `by` with their colours and markers."""
    points = numbers.rename(columns={"effect": "mean"})
    for name, colour, marker in looks:
        look = {"color": colour, "marker": marker, "label": name, "elinewidth": None} | more
        style.intervals(ax, points[points[by] == name], **look)
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
        for mine, look in style.series(part.merge(each), "rival", points["rival"].unique()):
            if len(mine):
                style.intervals(ax, mine, **look)
        ax.axvline(1, color="black", linewidth=1)
        ax.set_xscale("log")
        ax.set_xlim(min(0.5, part["low"].min() / 1.1), max(2, 1.1 * part["high"].max()))
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.minorticks_off()
        ax.set_title(str(machine))
    what = "how many times better ours is\n(theirs / ours for time and memory, else ours / theirs)"
    return style.label(figure, xlabel=what, legend=3, fontsize=9)


def _name_below_headings(ax: Axes, headings: pd.Series, names: pd.Series) -> pd.Series:
    """Name the rows below each heading, which has a line of its own; returns the rows' heights."""
    groups = list(headings.unique())
    above = headings.map(groups.index)
    at = (above.rank(method="first") + above).sort_values()
    look: dict[str, Any] = {"va": "center", "weight": "bold", "fontsize": 8}
    look["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    look["in_layout"] = False  # a long one would take width from the axes
    for group in groups:  # from the left end of the figure on
        place = 0.005, at[headings == group].min() - 1
        ax.annotate(group, place, xycoords=("figure fraction", "data"), **look)
    _name_rows(ax, names[at.index], at, room=0.7)
    return at


def _name_rows(
    ax: Axes, names: Sequence[str] | pd.Series, at: pd.Series | None = None, room: float = 0.6
) -> None:
    """Names for rows at the heights `at`, or 0, 1, … from the top down."""
    heights = range(len(names)) if at is None else list(at)
    ax.set_yticks(heights, list(names), fontsize=8)
    ax.set_ylim(max(heights) + room, -room)
    ax.tick_params(axis="y", length=0)
