"""One function a figure, one style for all; every figure is drawn from a tidy table of numbers.

`publish` shows a figure and saves it as SVG and PNG with those numbers as CSV beside it.
"""

import io
import math
import os
import re
import textwrap
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from IPython import get_ipython
from IPython.display import HTML, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, PercentFormatter
from matplotlib.transforms import blended_transform_factory
from PIL import Image

from lsce.judging import statistics
from lsce.machine import paths

#: Okabe and Ito's colours, told apart with any kind of colour vision; markers tell arms apart too.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
WIDTH = 8.0

_STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 120,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "svg.hashsalt": "lsce",  # the same figure gives the same file
}


def use_style() -> None:
    """Use the report's style from here on."""
    mpl.rcParams.update(_STYLE)
    mpl.rcParams["axes.prop_cycle"] = mpl.cycler(color=COLOURS)


def publish(figure: Figure, name: str, numbers: pd.DataFrame, own: str | None = None) -> None:
    """Save `name`.svg, .png and .csv; in a notebook, show the figure with links to them.

    `own` is the profile of this machine's runs where they are in the figure: it is saved in
    `figures/<own>` then, and else in `figures`, which holds what everybody draws alike.
    """
    folder = paths.FIGURES / own if own else paths.FIGURES
    folder.mkdir(parents=True, exist_ok=True)
    with io.StringIO() as text, mpl.rc_context({"svg.fonttype": "none"}):  # text stays text
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", metadata=nothing)
        (folder / f"{name}.svg").write_text(_compact(text.getvalue()), encoding="utf-8")
    with io.BytesIO() as buffer:
        figure.savefig(buffer, format="png")
        # A chart has few colours: with a palette its file is a third of the size.
        Image.open(buffer).convert("RGB").quantize(32).save(folder / f"{name}.png", optimize=True)
    numbers.to_csv(folder / f"{name}.csv", index=False, float_format="%.5g")
    if get_ipython() is not None:
        display(figure, HTML(_downloads(folder / name)))


def _downloads(file: Path) -> str:
    """Links to the files of a figure, as seen from the notebooks' folder."""
    there = Path(os.path.relpath(file, paths.NOTEBOOKS)).as_posix()
    kinds = {"svg": "SVG", "png": "PNG", "csv": "numbers as CSV"}
    links = [f'<a href="{there}.{ending}" download>{words}</a>' for ending, words in kinds.items()]
    return f'<p class="downloads">Download: {" · ".join(links)}</p>'


#: Places and sizes in an SVG, and numbers in them with more than two decimals.
_GEOMETRY = re.compile(r'( (?:d|x|y|x1|x2|y1|y2|width|height|points)=")([^"]*)"')
_LONG = re.compile(r"-?\d+\.\d{3,}")


def _compact(svg: str) -> str:
    """An SVG with two decimals (of 1/72 inch), without indentation and names of groups: a quarter
    smaller."""

    def rounded(number: re.Match) -> str:
        return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")

    svg = _GEOMETRY.sub(lambda found: f'{found[1]}{_LONG.sub(rounded, found[2])}"', svg)
    svg = re.sub(r' transform="rotate\(-0 [^"]*"', "", svg)  # text that is not turned
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    return re.sub(r"\n +", "\n", svg)


def _figure(rows: int, columns: int, height: float, **kwargs) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.08)  # titles apart from the axis above, in inches
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs)


def _panels(
    count: int, columns: int, height: float, extra: float = 0.5, **kwargs
) -> tuple[Figure, np.ndarray, int]:
    """A figure of `count` panels, `height` inches a row, its axes and how many stand in a row;
    what is left over of the last row is empty."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure, axes = _figure(rows, columns, extra + height * rows, **kwargs)
    for ax in axes.flat[count:]:
        ax.remove()
    return figure, axes, columns


def _t_interval(values: pd.Series) -> tuple[float, float]:
    interval = statistics.mean_interval(values)
    return interval.low, interval.high


def _wrapped(title: str, columns: int) -> str:
    """A panel's title in lines that fit where so many panels stand side by side."""
    return textwrap.fill(title, 78 // columns)


def _legend_below(figure: Figure, ax: Axes, columns: int) -> None:
    handles, names = ax.get_legend_handles_labels()
    room = 100 // (max(map(len, names), default=0) + 6)  # a figure is about 100 characters wide
    columns = max(1, min(columns, room))
    figure.legend(handles, names, loc="outside lower center", ncols=columns)


def _row_heading(ax: Axes, line: float, words: str) -> None:
    """Words above a group of rows, from the left end of the figure on."""
    ax.text(
        0.005,
        line,
        words,
        transform=blended_transform_factory(ax.figure.transFigure, ax.transData),
        va="center",
        weight="bold",
        fontsize=8,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        in_layout=False,  # a long one would take width from the axes
    )


def against_epsilon(numbers: pd.DataFrame, *, columns: int = 2, percent: bool = False) -> Figure:
    """`against` for values of ε."""
    return against(numbers, x="epsilon", xlabel="ε", columns=columns, percent=percent)


def against(
    numbers: pd.DataFrame,
    *,
    x: str,
    xlabel: str,
    columns: int = 2,
    percent: bool = False,
    form: str = "{:g}",
) -> Figure:
    """Small multiples of a value against `x`: the mean over seeds with its 95% t interval.

    `numbers` has the columns panel, arm, `x`, seed and value; `x` is drawn evenly spaced, its
    values written as `form`.
    """
    panels, arms = list(numbers["panel"].unique()), list(numbers["arm"].unique())
    figure, axes, columns = _panels(len(panels), columns, 2.6)
    for ax, panel in zip(axes.flat, panels, strict=False):
        part = numbers[numbers["panel"] == panel].dropna(subset="value")
        sns.pointplot(
            part,
            x=x,
            y="value",
            hue="arm",
            hue_order=arms,
            errorbar=_t_interval,
            markers=MARKERS[: len(arms)],
            palette=COLOURS[: len(arms)],
            dodge=min(0.5, 0.13 * len(arms)) * (len(arms) > 1),
            capsize=0.12,
            err_kws={"linewidth": 1.2},
            markersize=5,
            linewidth=1.4,
            ax=ax,
        )
        ax.set(title=_wrapped(panel, columns), xlabel=xlabel, ylabel="")
        values = sorted(part[x].unique())
        ax.set_xticks(range(len(values)), [form.format(value) for value in values])
        if percent:
            ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        ax.get_legend().remove()
    _legend_below(figure, axes.flat[0], min(len(arms), 4))
    return figure


def histories(
    numbers: pd.DataFrame,
    *,
    solid: str,
    dashed: str,
    ylabel: str,
    columns: int = 3,
    percent: bool = False,
) -> Figure:
    """Two columns of histories by epoch, means over seeds: a panel a regime, a colour an arm.

    `numbers` has regime, arm, epoch, and the columns `solid` and `dashed`.
    """
    regimes, arms = list(numbers["regime"].unique()), list(numbers["arm"].unique())
    figure, axes, columns = _panels(len(regimes), columns, 2.8, extra=0.6)
    for ax, regime in zip(axes.flat, regimes, strict=False):
        part = numbers[numbers["regime"] == regime]
        for colour, arm in zip(COLOURS, arms, strict=False):
            run = part[part["arm"] == arm]
            ax.plot(run["epoch"], run[solid], color=colour, label=arm)
            ax.plot(run["epoch"], run[dashed], color=colour, linestyle="--")
        ax.set(title=_wrapped(regime, columns), xlabel="epoch", ylim=(0, None))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        if percent:
            ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    for row in axes:
        row[0].set_ylabel(ylabel)
    _legend_below(figure, axes.flat[0], min(len(arms), 4))
    return figure


def arms(numbers: pd.DataFrame, *, xlabel: str, columns: int = 3, percent: bool = False) -> Figure:
    """A panel a regime and a row an arm: the mean over seeds with its 95% t interval.

    `numbers` has panel, arm, method, seed, value and `chosen`: whether validation chose the arm
    among those of its method, which are filled; the others are hollow.
    """
    panels, rows = list(numbers["panel"].unique()), list(numbers["arm"].unique())
    methods = list(numbers["method"].unique())
    height = 0.6 + 0.24 * len(rows)
    figure, axes, columns = _panels(len(panels), columns, height, extra=0.9, sharey=True)
    for ax, panel in zip(axes.flat, panels, strict=False):
        part = numbers[numbers["panel"] == panel]
        for line, arm in enumerate(rows):
            mine = part[part["arm"] == arm]
            values = mine["value"].dropna()
            if values.empty:
                if len(mine):
                    ax.text(
                        0.5,
                        line,
                        "diverged",
                        transform=ax.get_yaxis_transform(),
                        ha="center",
                        va="center",
                        fontsize=8,
                        color="#777777",
                    )
                continue
            colour = COLOURS[methods.index(mine["method"].iloc[0]) % len(COLOURS)]
            face = colour if mine["chosen"].iloc[0] else "white"
            style = {"color": colour, "markerfacecolor": face, "fmt": "o", "markersize": 6}
            _means(ax, [values], [line], True, **style)
        _name_rows(ax, rows)
        # The names of the arms leave the panels less room.
        ax.set(title=_wrapped(panel, columns + 1), xlabel=xlabel)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        if percent:
            ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    return figure


def cases(numbers: pd.DataFrame, *, xlabel: str, percent: bool = False) -> Figure:
    """A panel a `panel`, a row a `case` and a colour an `arm`: means over seeds with 95% t
    intervals of `value`."""
    panels, rows = list(numbers["panel"].unique()), list(numbers["case"].unique())
    names = list(numbers["arm"].unique())
    height = 0.6 + (0.14 + 0.1 * len(names)) * len(rows)
    figure, axes, columns = _panels(len(panels), 2, height, extra=0.9, sharey=True)
    for ax, panel in zip(axes.flat, panels, strict=False):
        part = numbers[numbers["panel"] == panel]
        for index, (name, colour, marker) in enumerate(zip(names, COLOURS, MARKERS, strict=False)):
            mine = part[part["arm"] == name].dropna(subset="value").groupby("case")["value"]
            off = min(0.22, 0.7 / len(names)) * (index - (len(names) - 1) / 2)
            lines = [rows.index(case) + off for case, _ in mine]
            style = {"color": colour, "fmt": marker, "label": name}
            _means(ax, [values for _, values in mine], lines, True, **style)
        _name_rows(ax, rows)
        ax.set(title=_wrapped(panel, columns), xlabel=xlabel)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        if percent:
            ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    _legend_below(figure, axes.flat[0], min(len(names), 4))
    return figure


def _means(ax: Axes, groups: list[pd.Series], at: list[float], sideways: bool, **style) -> None:
    """Means of groups with 95% t intervals, at these places of the other axis."""
    if not groups:
        return
    found = [statistics.mean_interval(values) for values in groups]
    mean = [each.mean for each in found]
    ends = [
        [0 if each.n < 2 else each.mean - each.low for each in found],
        [0 if each.n < 2 else each.high - each.mean for each in found],
    ]
    places = (mean, at) if sideways else (at, mean)
    errors = {"xerr" if sideways else "yerr": ends}
    ax.errorbar(*places, **errors, **{"capsize": 2.5, "markersize": 5, "elinewidth": 1.2} | style)


def _name_rows(ax: Axes, names: list[str]) -> None:
    """Names for the rows of an axis, from the top down."""
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)


def slopes(
    numbers: pd.DataFrame,
    *,
    x: str,
    xlabel: str,
    line: str,
    percent: bool = False,
    logarithmic: bool = False,
) -> Figure:
    """A panel a `panel` and a colour an `arm`: means over seeds of `value` with 95% t intervals at
    each `x`. `line` joins them ("means"), or is the mean of the seeds' least-squares lines ("fit"),
    by log10 x where the axis is logarithmic."""
    panels, names = list(numbers["panel"].unique()), list(numbers["arm"].unique())
    figure, axes, columns = _panels(len(panels), 3, 3.1, extra=0.6)
    for ax, panel in zip(axes.flat, panels, strict=False):
        part = numbers[numbers["panel"] == panel]
        for name, colour, marker in zip(names, COLOURS, MARKERS, strict=False):
            mine = part[part["arm"] == name]
            at = mine.groupby(x)["value"]
            style = {"color": colour, "fmt": marker, "label": name}
            _means(ax, [values for _, values in at], [place for place, _ in at], False, **style)
            drawn = at.mean()
            if line == "fit":
                places = np.log10(drawn.index) if logarithmic else drawn.index
                drawn = pd.Series(np.polyval(np.polyfit(places, drawn, 1), places), drawn.index)
            ax.plot(drawn.index, drawn, color=colour, linewidth=1.2)
        if line == "fit":
            ax.axhline(0, color="black", linewidth=1)
        ax.set(title=_wrapped(panel, columns), xlabel=xlabel)
        if logarithmic:
            ax.set_xscale("log")
            values = sorted(part[x].unique())
            ax.set_xticks(values, [f"{value:g}" for value in values])
            ax.minorticks_off()
        if percent:
            ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    _legend_below(figure, axes.flat[0], 2)
    return figure


def projections(numbers: pd.DataFrame) -> Figure:
    """Penultimate features of three classes on the plane of their templates.

    `numbers` has row (three classes and a split), column (the arm), name (the class), x and y.
    Every panel has its own scale, equal on both axes and written on them, since it is a finding.
    """
    rows, columns = list(numbers["row"].unique()), list(numbers["column"].unique())
    figure, axes = _figure(len(rows), len(columns), 0.5 + 2.5 * len(rows))
    for line, row in zip(axes, rows, strict=True):
        for ax, column in zip(line, columns, strict=True):
            part = numbers[(numbers["row"] == row) & (numbers["column"] == column)]
            for colour, marker, (name, points) in zip(
                COLOURS, MARKERS, part.groupby("name", sort=False), strict=False
            ):
                ax.plot(
                    points["x"],
                    points["y"],
                    marker,
                    color=colour,
                    markersize=2.5,
                    alpha=0.7,
                    linestyle="",
                    label=name,
                )
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
    regimes = list(numbers["regime"].unique())
    figure, axes = _figure(len(regimes), len(labels), 0.5 + 2.5 * len(regimes))
    for row, regime in zip(axes, regimes, strict=True):
        for ax, (quantity, label) in zip(row, labels.items(), strict=True):
            part = numbers[(numbers["regime"] == regime) & (numbers["quantity"] == quantity)]
            for colour, (epsilon, bars) in zip(COLOURS, part.groupby("epsilon"), strict=False):
                edges = [*bars["left"], bars["right"].iloc[-1]]
                ax.stairs(
                    bars["density"], edges, color=colour, label=f"ε = {epsilon:g}", linewidth=1.6
                )
            # Logarithmic: what matters are the tails, where a network is sure of itself.
            ax.set(title=regime, xlabel=label, ylabel="density", yscale="log", ylim=(1e-3, None))
    _legend_below(figure, axes.flat[0], 6)
    return figure


def reliability(numbers: pd.DataFrame) -> Figure:
    """Reliability diagrams, a row a regime, and below each the share of the images in every bin.

    `numbers` has regime, panel and the columns of `lsce.measures.calibration.reliability_table`. The bins'
    accuracies have their 95% intervals; an orange bar is a bin's distance from calibration.
    """
    regimes = list(numbers["regime"].unique())
    columns = numbers.groupby("regime")["panel"].nunique().max()
    figure, axes = _figure(
        2 * len(regimes),
        columns,
        3.1 * len(regimes),
        sharex=True,
        sharey="row",
        gridspec_kw={"height_ratios": [3, 1] * len(regimes)},
    )
    for index, regime in enumerate(regimes):
        rows = numbers[numbers["regime"] == regime]
        for column, (panel, bins) in enumerate(rows.groupby("panel", sort=False)):
            _reliability_diagram(axes[2 * index, column], bins)
            axes[2 * index, column].set_title(panel, fontsize=9)
            share = axes[2 * index + 1, column]
            share.stairs(
                bins["count"] / bins["count"].sum(),
                [*bins["lower"], 1.0],
                fill=True,
                color="#9aa7b5",
            )
            share.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
            share.set_xlabel("confidence")
        axes[2 * index, 0].set_ylabel(f"{regime}\n\naccuracy")
        axes[2 * index + 1, 0].set_ylabel("share")
    return figure


def _reliability_diagram(ax: Axes, bins: pd.DataFrame) -> None:
    filled = bins[bins["count"] > 0]
    confidence, accuracy = filled["confidence"], filled["accuracy"]
    ax.plot([0, 1], [0, 1], color="#777777", linestyle=":", linewidth=1.2)
    ax.vlines(confidence, confidence, accuracy, color=COLOURS[1], linewidth=3, alpha=0.35)
    # At an accuracy of 0 or 1 rounding can put the end of the interval on the wrong side.
    errors = [
        (accuracy - filled["accuracy_low"]).clip(lower=0),
        (filled["accuracy_high"] - accuracy).clip(lower=0),
    ]
    ax.errorbar(
        confidence, accuracy, yerr=errors, fmt="o", markersize=3.5, color=COLOURS[0], elinewidth=1.1
    )
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")


def estimators(numbers: pd.DataFrame) -> Figure:
    """What each estimator says against the number of test images, and the true value.

    `numbers` has panel, estimator, images, mean, low, high, norm and truth.
    """
    panels = list(numbers["panel"].unique())
    figure, axes = _figure(1, len(panels), 3.6, sharey=True)
    for ax, panel in zip(axes.flat, panels, strict=True):
        part = numbers[numbers["panel"] == panel]
        for colour, marker, (name, curve) in zip(
            COLOURS, MARKERS, part.groupby("estimator", sort=False), strict=False
        ):
            ax.plot(
                curve["images"],
                curve["mean"],
                color=colour,
                marker=marker,
                markersize=5,
                label=name,
            )
            ax.fill_between(
                curve["images"], curve["low"], curve["high"], color=colour, alpha=0.15, linewidth=0
            )
        lines = {1: ("--", "true mean gap"), 2: (":", "true root mean square gap")}
        for norm, (style, name) in lines.items():
            truth = part.loc[part["norm"] == norm, "truth"].iloc[0]
            ax.axhline(truth, color="black", linestyle=style, linewidth=1.4, label=name)
        ax.set(title=panel, xlabel="test images", xscale="log")
        ticks = sorted(part["images"].unique())
        ax.set_xticks(ticks, [f"{t:,}" for t in ticks])
        ax.minorticks_off()
    axes[0, 0].set(ylabel="calibration error", ylim=(0, None))  # shared, so once all is drawn
    _legend_below(figure, axes.flat[0], 3)
    return figure


def effects(numbers: pd.DataFrame) -> Figure:
    """A row a claim and regime: the effect and its 95% interval, in smallest effects that matter.

    `numbers` has claim, regime, effect, low, high and verdict, scaled so that 1 is the smallest
    effect that matters and positive is as claimed.
    """
    claims = list(numbers["claim"].unique())
    figure, axes = _figure(1, 1, 1.0 + 0.2 * (len(numbers) + len(claims)))
    ax = axes[0, 0]
    # Every claim has a line of its own, for its words, above its regimes.
    lines = pd.Series(np.arange(len(numbers)), numbers.index)
    lines += numbers["claim"].map(claims.index) + 1
    colour = {
        statistics.SUPPORTED: COLOURS[2],
        statistics.REFUTED: COLOURS[1],
        statistics.UNDECIDED: "#777777",
    }
    marker = {statistics.SUPPORTED: "o", statistics.REFUTED: "X", statistics.UNDECIDED: "D"}
    for name in colour:
        part = numbers[numbers["verdict"] == name]
        errors = [part["effect"] - part["low"], part["high"] - part["effect"]]
        ax.errorbar(
            part["effect"],
            lines[part.index],
            xerr=errors,
            fmt=marker[name],
            color=colour[name],
            capsize=2.5,
            markersize=5,
            label=name,
        )
    ax.axvline(0, color="black", linewidth=1)
    ax.axvspan(-1, 1, color="#777777", alpha=0.12, linewidth=0)
    ax.set_yticks(lines, numbers["regime"], fontsize=8)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    for claim in claims:
        _row_heading(ax, lines[numbers["claim"] == claim].min() - 1, claim)
    ax.set_ylim(lines.max() + 0.7, -0.7)
    ax.set_xscale("symlog", linthresh=1, linscale=0.7)
    ax.margins(x=0.08)
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    ax.set_xlabel("effect, in smallest effects that matter (positive is as claimed)")
    _legend_below(figure, ax, 3)
    return figure


def beside_published(numbers: pd.DataFrame) -> Figure:
    """Effects here, with intervals, and in the literature; a panel a claim, a row an effect.

    `numbers` has the columns of `lsce.report.reproduction.with_published`.
    """
    panels = list(numbers["claim"].unique())
    rows = [int((numbers["claim"] == claim).sum()) for claim in panels]
    height = sum(0.24 * count + 0.8 for count in rows)
    figure, axes = _figure(len(panels), 1, height, gridspec_kw={"height_ratios": rows})
    for ax, claim in zip(axes.flat, panels, strict=True):
        part = numbers[numbers["claim"] == claim].reset_index(drop=True)
        for source, words, colour, marker in (
            ("here", "here, with 95% interval", COLOURS[0], "o"),
            ("published", "published", COLOURS[1], "D"),
        ):
            mine = part[part["source"] == source]
            errors = [mine["effect"] - mine["low"], mine["high"] - mine["effect"]]
            ax.errorbar(
                mine["effect"],
                mine.index,
                xerr=errors,
                fmt=marker,
                color=colour,
                capsize=3,
                markersize=5,
                label=words,
            )
        ax.axvline(0, color="black", linewidth=1)
        labels = part["name"] + part["epsilon"].map(", ε = {:g}".format)
        ax.set_yticks(part.index, labels, fontsize=8)
        ax.set_ylim(len(part) - 0.4, -0.6)
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="y", visible=False)
        unit = part["unit"].iloc[0]
        ax.set_title(textwrap.fill(claim, 50), fontsize=9)  # the names leave little room
        ax.set_xlabel(f"effect{f', {unit}' if unit else ''} (positive is as claimed)")
    _legend_below(figure, axes.flat[0], 2)
    return figure


def targets(numbers: pd.DataFrame) -> Figure:
    """The smoothed target distributions; `numbers` has convention, class and probability."""
    conventions = list(numbers["convention"].unique())
    figure, axes = _figure(1, len(conventions), 2.6, sharey=True)
    for ax, convention in zip(axes.flat, conventions, strict=True):
        part = numbers[numbers["convention"] == convention]
        bars = ax.bar(part["class"], part["probability"], color=COLOURS[0])
        ax.bar_label(bars, fmt="%.3g", fontsize=9)
        ax.set(title=convention, ylim=(0, 1.08))
        ax.grid(axis="x", visible=False)
    axes[0, 0].set_ylabel("target probability")
    return figure


def curves(numbers: pd.DataFrame, *, x: str, xlabel: str, ylabel: str, marks=None) -> Figure:
    """Lines of `value` against `x`, a panel a `panel` and a colour an `arm`; `marks` are points."""
    panels, arms = list(numbers["panel"].unique()), list(numbers["arm"].unique())
    figure, axes, columns = _panels(len(panels), 3, 3.0, extra=0.4)
    for ax, panel in zip(axes.flat, panels, strict=False):
        for colour, arm in zip(COLOURS, arms, strict=False):
            line = numbers[(numbers["panel"] == panel) & (numbers["arm"] == arm)]
            ax.plot(line[x], line["value"], color=colour, label=arm)
            if marks is not None:
                spot = marks[(marks["panel"] == panel) & (marks["arm"] == arm)]
                ax.plot(spot[x], spot["value"], "o", color=colour, markersize=6)
        ax.set(title=_wrapped(panel, columns), xlabel=xlabel, ylabel=ylabel)
    _legend_below(figure, axes.flat[0], 5)
    return figure


def budgets(numbers: pd.DataFrame) -> Figure:
    """Accuracy against core-minutes on a logarithmic scale: means with one standard deviation.

    `numbers` is from `lsce.report.tables.budgets`.
    """
    figure, axes = _figure(1, 1, 4.2)
    ax = axes.flat[0]
    networks, epsilons = list(numbers["network"].unique()), sorted(numbers["epsilon"].unique())
    for (network, epsilon), part in numbers.groupby(["network", "epsilon"]):
        ax.errorbar(
            part["core_minutes"],
            part["accuracy"],
            yerr=part["sd"],
            fmt=MARKERS[networks.index(network) % len(MARKERS)],
            color=COLOURS[epsilons.index(epsilon)],
            fillstyle="full" if epsilon == 0 else "none",
            linestyle="none",
            capsize=2.5,
            label=f"{network}, ε = {epsilon:g}",
        )
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    ax.set(xlabel="core-minutes of training", ylabel="test accuracy")
    _legend_below(figure, ax, len(networks))
    return figure


def speed(numbers: pd.DataFrame) -> Figure:
    """How many times better ours is than each rival, a row a case; a panel a machine.

    `numbers` has machine and the columns of a table of `make bench`. The ratios of what is better
    when lower are inverted, so that ours is the better one to the right of 1 everywhere. Points are
    medians over turns, bars the quartiles.
    """
    inverted = numbers["better"] == "lower"
    columns = ["ratio", "ratio_low", "ratio_high"]
    factors = numbers.assign(line=numbers["case"] + ", " + numbers["quantity"])
    ends = numbers.loc[inverted, ["ratio", "ratio_high", "ratio_low"]]
    factors.loc[inverted, columns] = 1 / ends.to_numpy(dtype=float)
    machines = list(numbers["machine"].unique())
    parts = [factors[factors["machine"] == machine] for machine in machines]
    # Every benchmark has a line of its own, for its name, above its cases.
    heights = [
        len(part[["benchmark", "line"]].drop_duplicates()) + part["benchmark"].nunique()
        for part in parts
    ]
    figure, axes = _figure(
        len(machines),
        1,
        1.2 + sum(0.27 * height + 0.9 for height in heights),
        gridspec_kw={"height_ratios": heights},
    )
    rivals = list(numbers["rival"].unique())
    for ax, machine, part in zip(axes.flat, machines, parts, strict=True):
        _speed_panel(ax, part, rivals)
        ax.set_title(machine)
        ax.set_xlabel(
            "how many times better ours is\n(theirs / ours for time and memory, else ours / theirs)"
        )
    handles = {
        name: handle
        for ax in axes.flat
        for handle, name in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        [handles[rival] for rival in rivals],
        rivals,
        loc="outside lower center",
        ncols=3,
        fontsize=9,
    )
    return figure


def _speed_panel(ax: Axes, part: pd.DataFrame, rivals: list[str]) -> None:
    labels, top = {}, 0.0
    for benchmark, cases in part.groupby("benchmark", sort=False):
        _row_heading(ax, top, benchmark)
        for line in cases["line"].unique():
            top += 1
            labels[benchmark, line] = top
        top += 1
    keys = pd.MultiIndex.from_frame(part[["benchmark", "line"]])
    heights = pd.Series([labels[key] for key in keys], part.index)
    for index, rival in enumerate(rivals):
        mine = part[part["rival"] == rival]
        if mine.empty:
            continue
        ax.errorbar(
            mine["ratio"],
            heights[mine.index],
            xerr=[mine["ratio"] - mine["ratio_low"], mine["ratio_high"] - mine["ratio"]],
            # Where there are more rivals than colours, the same colour comes with another marker.
            fmt=MARKERS[(index + index // len(COLOURS)) % len(MARKERS)],
            color=COLOURS[index % len(COLOURS)],
            capsize=2.5,
            markersize=5,
            elinewidth=1.2,
            label=rival,
        )
    ax.axvline(1, color="black", linewidth=1)
    ax.set_yticks(list(labels.values()), [line for _, line in labels], fontsize=8)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(top - 0.3, -0.7)
    ax.set_xscale("log")
    ax.set_xlim(min(0.5, part["ratio_low"].min() / 1.1), max(2, 1.1 * part["ratio_high"].max()))
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    ax.minorticks_off()
