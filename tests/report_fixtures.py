"""Sites that several test files look at; load with `pytest_plugins`."""

import shutil
from pathlib import Path

import checkouts
import pytest
from report_samples import BANNER, FIRST, SECOND, write_notebook

from lsce.report import site as web


@pytest.fixture(scope="session")
def executed(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The sample notebooks, executed, and a stub for a third."""
    folder = tmp_path_factory.mktemp("notebooks")
    first = write_notebook(FIRST, folder / "01_sample_loss.ipynb")
    second = write_notebook(SECOND, folder / "02_sample_study.ipynb")
    done = folder / "executed"
    web.execute(first, {"epsilon": 0.25}, done / first.name)
    web.execute(second, {}, done / second.name)
    missing = web.stub("03_missing", "Sample stub", "Nothing is recorded for it yet.", done)
    # Not in the order in which the site is to list them.
    return [missing, done / second.name, done / first.name]


@pytest.fixture(scope="session")
def site(executed: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a site with a banner, built where another report was."""
    out = tmp_path_factory.mktemp("site") / "html"
    out.mkdir()
    (out / "old.html").write_text("the old report")
    return web.build(executed, out, banner=BANNER).parent


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone after `make report`: every page, from the recorded results."""
    root = tmp_path_factory.mktemp("clone") / "checkout"
    for folder in ("notebooks", "report", "data/recorded", "benchmarks/results"):
        left_out = shutil.ignore_patterns(".ipynb_checkpoints")
        shutil.copytree(checkouts.ROOT / folder, root / folder, ignore=left_out)
    for name in ("published.csv", "sources.csv", "recipes.csv", "cifar-100n-transitions.csv"):
        shutil.copy(checkouts.ROOT / "data" / name, root / "data")
    with checkouts.inside(root):
        assert checkouts.lsce("report") == 0
    return root
