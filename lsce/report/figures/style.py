"""What all figures share: colours and fonts, panels, labels, and means with their intervals."""

import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.rcsetup import cycler
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from lsce.judging import statistics

#: Okabe and Ito's colours, told apart with any kind of colour vision; markers tell arms apart too.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
GREY = "#777777"
WIDTH = 8.0  # inches

_STYLE: dict[Any, Any] = {
    "figure.dpi": 100,
    "savefig.dpi": 120,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.prop_cycle": cycler(color=COLOURS),
    "grid.color": "#dddddd",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "svg.hashsalt": "lsce",  # the same figure gives the same file
}


def use_style() -> None:
    """Use the report's style from here on."""
    matplotlib.style.use(_STYLE)


def grid(rows: int, columns: int, height: float, **kwargs: Any) -> tuple[Figure, NDArray[Any]]:
    """A figure `height` inches high and its axes (rows, columns), made with `kwargs`."""
    layout = ConstrainedLayoutEngine(h_pad=0.08)  # titles apart from the axis above, in inches
    figure = Figure(figsize=(WIDTH, height), layout=layout)
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs)


def panels(
    table: pd.DataFrame, by: str, columns: int, height: float, extra: float = 0.5, **kwargs: Any
) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    """A figure with a panel for each value of the column `by`, and each panel's axes and rows.

    At most `columns` panels stand side by side, each `height` inches high with its title; `extra`
    inches are for a legend. A table without rows has no panel, and the figure says so.
    """
    if table.empty:
        figure, [[ax]] = grid(1, 1, 0.8)
        ax.set_axis_off()
        words = (
            "Nothing to show yet: none of these runs has these measurements.\n"
            "Runs that are trained now have them."
        )
        ax.text(0.5, 0.5, words, ha="center", va="center")
        return figure, []
    names, parts = zip(*table.groupby(by, sort=False), strict=True)
    columns = min(columns, len(names))
    lines = math.ceil(len(names) / columns)
    figure, axes = grid(lines, columns, extra + height * lines, **kwargs)
    for ax in axes.flat[len(names) :]:
        ax.remove()
    for ax, name in zip(figure.axes, names, strict=True):
        ax.set_title(textwrap.fill(str(name), 78 // columns))
    return figure, list(zip(figure.axes, parts, strict=True))


def series(
    table: pd.DataFrame, by: str, names: Iterable[Any] | None = None, markers: bool = True
) -> Iterator[tuple[pd.DataFrame, dict[str, Any]]]:
    """The rows of each of `names` (default: all) in the column `by`, and their colour, marker and
    label. Where there are more names than colours, a colour returns with another marker."""
    for index, name in enumerate(table[by].unique() if names is None else names):
        again, place = divmod(index, len(COLOURS))
        marker = {"marker": MARKERS[(index + again) % len(MARKERS)]} if markers else {}
        yield table[table[by] == name], {"color": COLOURS[place], "label": name} | marker


def label(
    figure: Figure, legend: int = 0, values: str = "y", percent: bool = False, **labels: str
) -> Figure:
    """Write the labels xlabel and, at the first panel of a row, ylabel; returns the figure.

    With `percent`, the axis `values` shows shares in [0, 1] as percentages. Below the panels stands
    one legend, in at most `legend` columns (0: none).
    """
    for ax in figure.axes:
        ax.set(**labels)
        place = ax.get_subplotspec()
        if "ylabel" in labels and place is not None and not place.is_first_col():
            ax.set_ylabel("")
        if percent:
            axis = ax.xaxis if values == "x" else ax.yaxis
            axis.set_major_formatter(PercentFormatter(1, decimals=None))
    return legend_below(figure, legend) if legend else figure


def legend_below(figure: Figure, columns: int, size: float = 10) -> Figure:
    """The figure with one legend for all its panels, in at most so many columns."""
    pairs = [zip(*ax.get_legend_handles_labels(), strict=True) for ax in figure.axes]
    handles = {name: handle for panel in pairs for handle, name in panel}
    room = int(1000 / size)  # characters; a figure is about 100 wide at size 10
    columns = max(1, min(columns, room // (max(map(len, handles), default=0) + 6)))
    look: dict[str, Any] = {"ncols": columns, "fontsize": size}
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", **look)
    return figure


def logarithmic_axis(ax: Axes, values: pd.Series, form: str) -> None:
    """A logarithmic x axis with ticks at these values alone, written as `form`."""
    ticks = sorted(values.unique())
    ax.set_xscale("log")
    ax.set_xticks(ticks, [form.format(tick) for tick in ticks])
    ax.minorticks_off()


def intervals(ax: Axes, points: pd.DataFrame, upright: bool = False, **look: Any) -> None:
    """Points with their intervals along the x axis, or along the y axis where `upright`.

    `points` has mean, low and high, and `at`, the place on the other axis.
    """
    ends = [points["mean"] - points["low"], points["high"] - points["mean"]]
    # Where an interval ends at its point, rounding can put the end on the wrong side.
    errors = np.maximum(np.asarray(ends, dtype=float), 0)
    x, y, bars = ("at", "mean", "yerr") if upright else ("mean", "at", "xerr")
    usual = {"ls": "none", "capsize": 2.5, "markersize": 5, "elinewidth": 1.2, bars: errors}
    ax.errorbar(points[x], points[y], **usual | look)


def means(ax: Axes, groups: Mapping[float, pd.Series], **look: Any) -> None:
    """The mean of each group with its 95% t interval at the group's key, see `intervals`. A single
    value has an interval of no width."""
    if groups:
        table = pd.DataFrame([statistics.mean_interval(values) for values in groups.values()])
        points = table[["mean", "low", "high"]].ffill(axis=1)
        intervals(ax, points.assign(at=list(groups)), **look)
