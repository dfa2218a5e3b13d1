"""What all figures share: colours and fonts, panels, labels, and means with their intervals."""

import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypedDict, Unpack

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
    rows: pd.DataFrame,
    by: str,
    columns: int,
    height: float,
    *,
    extra: float = 0.5,
    named_rows: bool = False,
    **kwargs: Any,
) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    """A figure with a panel for each value of the column `by`, and the panels' axes and rows.

    At most `columns` panels stand side by side, each `height` inches high with its title, and
    `extra` inches are for a legend; what is left over of the last row of panels is empty.
    """
    groups = list(rows.groupby(by, sort=False))
    columns = min(columns, len(groups))
    lines = math.ceil(len(groups) / columns)
    figure, axes = grid(lines, columns, extra + height * lines, **kwargs)
    for ax in axes.flat[len(groups) :]:
        ax.remove()
    room = 78 // (columns + named_rows)  # characters; the names of rows leave the panels less
    for ax, (name, _) in zip(figure.axes, groups, strict=True):
        ax.set_title(textwrap.fill(str(name), room))
    return figure, [(ax, part) for ax, (_, part) in zip(figure.axes, groups, strict=True)]


def told_apart(
    rows: pd.DataFrame, by: str, names: Iterable[Any] | None = None, markers: bool = True
) -> Iterator[tuple[pd.DataFrame, dict[str, Any]]]:
    """The rows, if any, of each of `names` in the column `by` (all there are, unless given), and
    their colour, marker and label.

    Where there are more names than colours, the same colour comes with another marker.
    """
    for index, name in enumerate(rows[by].unique() if names is None else names):
        again, place = divmod(index, len(COLOURS))
        marker = {"marker": MARKERS[(index + again) % len(MARKERS)]} if markers else {}
        yield rows[rows[by] == name], {"color": COLOURS[place], "label": name} | marker


class Labels(TypedDict, total=False):
    """What is written at the axes of every panel."""

    xlabel: str
    ylabel: str  # at the first panel of a row
    percent: bool  # values are shares in [0, 1], written as percentages


def labelled(
    figure: Figure, legend: int = 0, values: Literal["x", "y"] = "y", **labels: Unpack[Labels]
) -> Figure:
    """The figure with labels at its axes, `values` being the axis of the values, and below it a
    legend with at most so many columns (0: none)."""
    for ax in figure.axes:
        place = ax.get_subplotspec()
        if "xlabel" in labels:
            ax.set_xlabel(labels["xlabel"])
        if "ylabel" in labels and place is not None and place.is_first_col():
            ax.set_ylabel(labels["ylabel"])
        if labels.get("percent"):
            axis = ax.xaxis if values == "x" else ax.yaxis
            axis.set_major_formatter(PercentFormatter(1, decimals=None))
    return legend_below(figure, legend) if legend else figure


def legend_below(figure: Figure, columns: int, size: float = 10) -> Figure:
    """The figure with one legend for all its panels, in at most so many columns."""
    pairs = [zip(*ax.get_legend_handles_labels(), strict=True) for ax in figure.axes]
    handles = {name: handle for of_panel in pairs for handle, name in of_panel}
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
    """Points with intervals, which lie along the x axis, or along the y axis where `upright`.

    `points` has mean, low and high, and `at`, the place on the other axis.
    """
    ends = [points["mean"] - points["low"], points["high"] - points["mean"]]
    # Where an interval ends at its point, rounding can put the end on the wrong side.
    errors = np.maximum(np.asarray(ends, dtype=float), 0)
    usual: dict[str, Any] = {"ls": "none", "capsize": 2.5, "markersize": 5, "elinewidth": 1.2}
    if upright:
        ax.errorbar(points["at"], points["mean"], yerr=errors, **usual | look)
    else:
        ax.errorbar(points["mean"], points["at"], xerr=errors, **usual | look)


def means(ax: Axes, groups: Mapping[float, pd.Series], **look: Any) -> None:
    """The mean of each group, if any, with its 95% t interval, at the group's key, see `intervals`.

    A single value has no interval.
    """
    found = pd.DataFrame([statistics.mean_interval(values) for values in groups.values()])
    if len(found):
        for end in ("low", "high"):
            found[end] = found[end].fillna(found["mean"])
        intervals(ax, found.assign(at=list(groups)), **look)
