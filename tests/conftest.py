"""Fixtures that several test files share."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from lsce import data
from lsce.machine import paths

ROOT = Path(__file__).resolve().parent.parent


#: Tests in these look at the same built sites.
SITES = ("tests/test_browser.py", "tests/test_figures.py", "tests/test_site.py")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Of several processes (pytest -n) one runs a file, and one all files that share sites.

    (pytest-xdist 3.8 does not see its own groups under pytest 9.2.)
    """
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "sites" if file in SITES else file

    return ByFile(config, log)


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    """A test that fails by an unlucky draw fails every time."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def cifar100_dir() -> Path:
    """A folder that holds the real CIFAR-100; the test is skipped where there is none."""
    if "LSCE_TEST_DATA" in os.environ:
        return Path(os.environ["LSCE_TEST_DATA"])
    for folder in (ROOT.parent / "shared" / "cifar-100", ROOT / "data" / "cifar-100"):
        if folder.is_dir():
            return folder
    pytest.skip("no CIFAR-100: set LSCE_TEST_DATA to a folder that holds it")


@pytest.fixture(scope="session")
def cifar100_cache(cifar100_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the test session's own, which holds CIFAR-100 decoded."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "CACHE", folder)
        data.load("cifar-100", cifar100_dir)
    return folder


@pytest.fixture(scope="session")
def cifar100(cifar100_dir: Path, cifar100_cache: Path) -> data.Dataset:
    """The real CIFAR-100."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "CACHE", cifar100_cache)
        return data.load("cifar-100", cifar100_dir)
