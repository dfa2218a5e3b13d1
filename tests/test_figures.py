"""`make report` from the recorded results alone, and the figures that come with the project."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_reproduce import lsce

from lsce.machine import paths
from lsce.results.recorded import Recorded

FIGURES = sorted(path.stem for path in paths.ROOT.glob("figures/*.svg"))
#: A coordinate; and the name of a path, which is a hash of its coordinates.
NUMBER, NAME = re.compile(r"-?\d+\.\d+"), re.compile(r"\b[mp][0-9a-f]{10}\b")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> tuple[Path, str]:
    """A fresh clone after `make report`, and what that said."""
    root = tmp_path_factory.mktemp("clone") / "checkout"
    for folder in ("notebooks", "report", "data/recorded", "benchmarks/results"):
        shutil.copytree(
            paths.ROOT / folder, root / folder, ignore=shutil.ignore_patterns(".ipynb_checkpoints")
        )
    for file in (paths.PUBLISHED, paths.RECIPES):
        shutil.copy(file, root / "data")
    done = lsce(root, "report")
    assert done.returncode == 0, done.stderr
    return root, done.stdout


@pytest.mark.slow
def test_every_page_with_runs_shows_recorded_results_of_cifar_100(drawn):
    root, said = drawn
    assert "no results yet" not in said
    for page in ("00_overview", "02_epsilon_study", "03_calibration", "12_reproduction"):
        text = (root / "build" / "html" / f"{page}.html").read_text()
        assert "These are the recorded runs" in text and "runs of this machine" not in text, page
        assert "CIFAR-100" in text and "<strong>profile</strong> cpu" in text, page
        assert f"Recorded results: {len(Recorded())} runs" in text, page


@pytest.mark.slow
def test_figures_are_exactly_what_the_recorded_results_draw(drawn):
    root, _ = drawn
    names = {path.name for path in (root / "figures").iterdir()}
    assert names == {path.name for path in paths.FIGURES.iterdir() if path.is_file()} - {
        ".gitignore"
    }, "run `make report` in a fresh clone and commit figures/"


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_what_the_recorded_results_draw(drawn, name):
    root, _ = drawn
    new, kept = root / "figures" / name, paths.FIGURES / name
    pd.testing.assert_frame_equal(
        pd.read_csv(f"{new}.csv"), pd.read_csv(f"{kept}.csv"), rtol=1e-4, atol=1e-9
    )
    # Another processor rounds otherwise, so numbers may differ by less than can be seen.
    texts = [NAME.sub("name", Path(f"{path}.svg").read_text()) for path in (new, kept)]
    assert NUMBER.sub("#", texts[0]) == NUMBER.sub("#", texts[1])
    places = [np.array([float(n) for n in NUMBER.findall(text)]) for text in texts]
    assert np.abs(places[0] - places[1]).max() < 0.1
    assert Path(f"{kept}.png").stat().st_size > 5_000


def test_figures_take_little_room():
    files = [path for path in paths.FIGURES.iterdir() if path.is_file()]
    assert FIGURES and sum(path.stat().st_size for path in files) <= 5e6


def test_nothing_else_is_in_git_below_figures():
    if not (paths.ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "-C", paths.ROOT, "ls-files", "figures"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert all(Path(name).parent == Path("figures") for name in listed)
