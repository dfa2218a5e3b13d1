"""Checkouts of their own for tests of whole commands, and how these run in the tests' process.

A command in a process of its own takes seconds to begin, and so does each notebook's kernel: few
tests start them.
"""

import contextlib
import io
import logging
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import nbformat
import pytest
from IPython.core.displayhook import CapturingDisplayHook
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import HTML, SVG, display
from matplotlib.figure import Figure
from nbformat.v4 import new_code_cell, new_output
from traitlets.config import Config

from lsce import cli
from lsce.machine import paths
from lsce.report import site
from lsce.report.figures import publishing
from lsce.sweeps import sweep
from lsce.sweeps.workers import Workers

ROOT = paths.ROOT

#: The smallest profile with pairs of runs, for the pages 02 and 12.
PROFILE = """
data = "cifar-100"

[shared]
epsilons = [0.0, 0.1]
seeds = [0, 1]
regimes.few = {network = "resnet6", train_size = 100, epochs = 2, monitor_size = 100}

[notebooks.02_epsilon_study]
more_regimes = {}
fractions = [1.0]
fraction_run = {network = "resnet6", train_size = 100, epochs = 2, monitor_size = 100}
weight_decays = [0.002]
"""


def make(root: Path, pages: Sequence[str]) -> Path:
    """A checkout with some of the pages, the profile tiny alone, and nothing recorded."""
    for folder in ("notebooks", "report"):
        kept = shutil.ignore_patterns(".ipynb_checkpoints", "*.ipynb", "*.toml")
        shutil.copytree(ROOT / folder, root / folder, ignore=kept)
    for page in pages:
        shutil.copy(paths.NOTEBOOKS / f"{page}.ipynb", root / "notebooks")
    (root / "data").mkdir()
    for file in (paths.PUBLISHED, paths.SOURCES, paths.RECIPES, paths.CIFAR100N_COUNTS):
        shutil.copy(file, root / "data")
    of_every_page = PROFILE.partition("[notebooks")[0]
    text = PROFILE if "02_epsilon_study" in pages else of_every_page
    (root / "notebooks" / "profiles" / "tiny.toml").write_text(text)
    return root


def change_profile(root: Path, old: str, new: str) -> None:
    file = root / "notebooks" / "profiles" / "tiny.toml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def environment(root: Path) -> dict[str, str]:
    """What a process needs to work in a checkout; downloads go to a port where nobody listens."""
    nowhere = "http://127.0.0.1:9"
    return {"LSCE_ROOT": str(root), "http_proxy": nowhere, "https_proxy": nowhere}


def python(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | environment(root),
        cwd=root,
        capture_output=True,
        text=True,
        timeout=600,
    )


# ---- in this process ----


@contextlib.contextmanager
def inside(root: Path) -> Iterator[pytest.MonkeyPatch]:
    """Here `root` is the checkout, runs are trained in this process, and notebooks executed."""
    with pytest.MonkeyPatch.context() as patch:
        for name, path in vars(paths).copy().items():
            if isinstance(path, Path):
                patch.setattr(paths, name, root / path.relative_to(ROOT))
        for name, value in environment(root).items():
            patch.setenv(name, value)
        patch.setattr(site, "execute", execute)
        patch.setattr(sweep, "cores", lambda: 1)
        patch.setattr(sweep, "Workers", lambda count, processes: Workers(count, processes=False))
        yield patch


def lsce(*arguments: str) -> int | str | None:
    """The exit status of a command, or the sentence that stands for 1."""
    with warnings.catch_warnings():
        try:
            cli.main(list(arguments))
        except SystemExit as stop:
            return stop.code
        finally:
            logging.disable(logging.NOTSET)
    return 0


def execute(notebook: Path, parameters: Mapping[str, Any], output: Path) -> None:
    """As `lsce.report.site.execute` does, but what a cell raises is raised as it is."""
    site.check_parameters(notebook, parameters)
    node = nbformat.read(notebook, as_version=4)
    tagged = [c for c in node.cells if "parameters" in c.metadata.get("tags", [])]
    for cell in tagged:
        lines = ["# Parameters", *(f"{name} = {value!r}" for name, value in parameters.items())]
        injected = new_code_cell("\n".join(lines), metadata={"tags": ["injected-parameters"]})
        node.cells.insert(node.cells.index(cell) + 1, injected)
    with _shell() as (shell, outputs):
        for cell in node.cells:
            if cell.cell_type == "code":
                outputs.clear()
                with contextlib.redirect_stdout(io.StringIO()):
                    shell.run_cell(cell.source, store_history=True).raise_error()
                cell.outputs = [new_output("display_data", o["data"]) for o in outputs]
    output.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(node, output)


@contextlib.contextmanager
def _shell() -> Iterator[tuple[InteractiveShell, list[dict[str, Any]]]]:
    """A shell, and the list to which what a cell displays is added."""
    InteractiveShell.clear_instance()
    with pytest.MonkeyPatch.context() as patch, mpl.rc_context():
        patch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # which a shell replaces
        patch.setattr(publishing, "display", _display_saved)
        shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
        shell.display_pub = CapturingDisplayPublisher(shell=shell)
        outputs = shell.display_pub.outputs
        shell.display_trap.hook = CapturingDisplayHook(shell=shell, outputs=outputs)
        yield shell, outputs
        InteractiveShell.clear_instance()


def _display_saved(figure: Figure, links: HTML) -> None:
    """A figure that has just been drawn for its files is not drawn once more."""
    file = re.search(r'href="(\S+\.svg)"', links.data)
    display(SVG(filename=paths.NOTEBOOKS / file[1]), links)
