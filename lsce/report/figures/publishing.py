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

#: Places and sizes in an SVG, and numbers in them with more than two decimals.
_GEOMETRY = re.compile(r'( (?:d|x|y|x1|x2|y1|y2|width|height|points)=")([^"]*)"')
_LONG = re.compile(r"-?\d+\.\d{3,}")


def publish(figure: Figure, name: str, numbers: pd.DataFrame, own: str | None = None) -> None:
    """Save `name`.svg, .png and .csv; in a notebook, show the figure with links to them.

    A figure of this machine's runs is saved in `figures/<own>`, where `own` is their profile; what
    everybody draws alike is saved in `figures`.
    """
    folder = paths.FIGURES / own if own else paths.FIGURES
    folder.mkdir(parents=True, exist_ok=True)
    text, image = io.StringIO(), io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none"}):  # text stays text
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", metadata=metadata)
    (folder / f"{name}.svg").write_text(_compact(text.getvalue()), encoding="utf-8")
    figure.savefig(image, format="png")
    # With a palette its file is a third of the size; fewer entries would change a line's colour.
    Image.open(image).convert("RGB").quantize(256).save(folder / f"{name}.png", optimize=True)
    numbers.to_csv(folder / f"{name}.csv", index=False, float_format="%.5g")
    if get_ipython() is not None:
        file = Path(os.path.relpath(folder / name, paths.NOTEBOOKS)).as_posix()
        kinds = {"svg": "SVG", "png": "PNG", "csv": "numbers as CSV"}
        links = [f'<a href="{file}.{kind}" download>{words}</a>' for kind, words in kinds.items()]
        display(figure, HTML(f'<p class="downloads">Download: {" · ".join(links)}</p>'))


def _compact(svg: str) -> str:
    """An SVG with two decimals (of 1/72 inch) and without indentation, names of groups and turns by
    0 degrees: a quarter smaller."""
    svg = _GEOMETRY.sub(lambda place: f'{place[1]}{_LONG.sub(_rounded, place[2])}"', svg)
    return re.sub(r'(?<=\n) +|(?<=<g) id="[^"]*"(?=>)| transform="rotate\(-0 [^"]*"', "", svg)


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")
