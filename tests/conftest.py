"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest
import torch

from lsce import data
from lsce.machine import paths

ROOT = Path(__file__).resolve().parent.parent


#: What takes long to make, for many tests.
SHARED = ("cifar100_cache", "report", "reproduced", "site")


@pytest.hookimpl(tryfirst=True)  # xdist reads the marks in its own hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of several processes (pytest -n) one runs all tests that share such a thing."""
    for item in items:
        shared = [name for name in SHARED if name in getattr(item, "fixturenames", ())]
        if shared:
            item.add_marker(pytest.mark.xdist_group(shared[0]))


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
