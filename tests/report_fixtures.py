"""The sample notebooks executed, and the site made of them; load with `pytest_plugins`."""

from pathlib import Path

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
    """The folder of a built site with a banner; who needs other pages overrides `executed`."""
    return web.build(executed, tmp_path_factory.mktemp("site") / "html", banner=BANNER).parent
