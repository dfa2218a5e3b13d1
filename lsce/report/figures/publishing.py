"""Saves a figure as SVG and PNG with its numbers as CSV, and shows it in a notebook."""

import io
import os
import re
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from IPython import get_ipython
from IPython.display import HTML, display
from matplotlib.figure import Figure
from PIL import Image

from lsce.machine import paths


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

    def rounded(number: re.Match[str]) -> str:
        return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")

    svg = _GEOMETRY.sub(lambda found: f'{found[1]}{_LONG.sub(rounded, found[2])}"', svg)
    svg = re.sub(r' transform="rotate\(-0 [^"]*"', "", svg)  # text that is not turned
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    return re.sub(r"\n +", "\n", svg)
