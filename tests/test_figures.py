"""`make report` from the recorded results alone, and the figures that come with the project."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lsce import studies
from lsce.machine import paths
from lsce.report.figures.style import COLOURS
from lsce.results.recorded import Recorded

pytest_plugins = ["report_fixtures"]

FIGURES = sorted(path.stem for path in paths.FIGURES.glob("*.svg"))
#: A coordinate; and the name of a path, which is a hash of its coordinates.
NUMBER, NAME = re.compile(r"-?\d+\.\d+"), re.compile(r"\b[mp][0-9a-f]{10}\b")


@pytest.mark.slow
@pytest.mark.parametrize("page", studies.with_runs())
def test_every_page_with_runs_shows_recorded_results_of_cifar_100(report, page):
    text = (report / "build" / "html" / f"{page}.html").read_text(encoding="utf-8")
    assert "These are the recorded runs" in text and "runs of this machine" not in text
    assert "<strong>data</strong> CIFAR-100" in text and "bd-header-announcement" not in text
    assert f"Recorded results: {len(Recorded())} runs" in text


@pytest.mark.slow
def test_figures_are_exactly_what_the_recorded_results_draw(report):
    names = {path.name for path in (report / "figures").iterdir()}
    kept = {path.name for path in paths.FIGURES.iterdir() if path.is_file()}
    assert names == kept - {".gitignore"}, "run `make report` in a fresh clone and commit figures/"


# Another processor rounds otherwise, so numbers may differ by less than can be seen.


def apart(read: Callable[[Path], tuple[str, list[float]]], *files: Path) -> float:
    """The largest difference of the numbers in two files that are else the same."""
    (text, numbers), (expected_text, expected) = map(read, files)
    assert text == expected_text
    pairs = zip(numbers, expected, strict=True)
    return max((abs(one - other) for one, other in pairs), default=0.0)


def image(file: Path) -> tuple[str, list[float]]:
    text = NAME.sub("name", file.read_text(encoding="utf-8"))
    return NUMBER.sub("#", text), [float(number) for number in NUMBER.findall(text)]


def finding(file: Path) -> tuple[str, list[float]]:
    numbers: list[float] = []
    text = file.read_text(encoding="utf-8")
    rest = json.loads(text, parse_float=lambda number: numbers.append(float(number)))
    return json.dumps(rest), numbers


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_what_the_recorded_results_draw(report, name):
    new, kept = report / "figures" / name, paths.FIGURES / name
    pd.testing.assert_frame_equal(
        pd.read_csv(f"{new}.csv"), pd.read_csv(f"{kept}.csv"), rtol=1e-4, atol=1e-9
    )
    assert apart(image, Path(f"{new}.svg"), Path(f"{kept}.svg")) < 0.1
    assert Path(f"{kept}.png").stat().st_size > 4_000


@pytest.mark.slow
@pytest.mark.parametrize("page", studies.with_runs())
def test_what_a_page_found_is_what_the_recorded_results_say(report, page):
    name = f"{page}.json"
    assert apart(finding, report / "figures" / name, paths.FIGURES / name) < 1e-4


def test_figures_take_little_room():
    files = [path for path in paths.FIGURES.iterdir() if path.is_file()]
    assert FIGURES and sum(path.stat().st_size for path in files) <= 5.5e6


def test_nothing_else_is_in_git_below_figures():
    if not (paths.ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "-C", paths.ROOT, "ls-files", "figures"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert all(Path(name).parent == Path("figures") for name in listed)


@pytest.mark.parametrize("name", FIGURES)
def test_lines_have_their_colours_in_the_png_too(name):
    svg = (paths.FIGURES / f"{name}.svg").read_text(encoding="utf-8")
    with Image.open(paths.FIGURES / f"{name}.png") as png:
        colours = png.convert("RGB").getcolors(png.width * png.height)
    pixels = np.array([colour for _, colour in colours or []])
    for colour in COLOURS:
        if f"stroke: {colour.lower()}; stroke-width" in svg:
            distance = np.abs(pixels - list(bytes.fromhex(colour[1:]))).max(axis=1).min()
            assert distance < 8, f"{colour} is off by {distance}"
