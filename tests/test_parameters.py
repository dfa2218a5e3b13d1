"""Parameters of notebooks: what is misspelt or missing is said, before anything is trained."""

from pathlib import Path

import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

from lsce import cli
from lsce.machine import paths
from lsce.report import page

KNOWN = ("epsilons", "seeds", "bins")


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        (["epsilons = [0.0, 0.1]  # of smoothing\nseeds = [0]"], []),
        (["epsilons = [0.0, 0.1]\nseed = [0]"], ["seed"]),
        (["epsilons: list = [0.0, 0.1]\nsead: int | None = None"], ["sead"]),
        (["epsilons = [0.0]", "# Parameters\nepsilosn = [0.3]"], ["epsilosn"]),  # papermill's
        (["epsilons = [0.0]\nsed = [1]", "epsilons = [0.0]\nseeds = [1]"], []),  # mended since
        (["mine = 3"], []),  # somebody's own variable
        (["numbers = tables.tidy(table)\nepsilons = [0.0]"], []),
        (["%matplotlib inline\nepsilons = 3", "!ls", ""], []),
    ],
)
def test_a_misspelt_parameter_is_found(cells, names):
    assert page.misspelt(cells, KNOWN) == names


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "given", "words"),
    [
        ("01_loss", {"epsilom": 0.2}, "no parameter 'epsilom'; did you mean 'epsilon'"),
        ("02_epsilon_study", {"seads": [0]}, "no parameter 'seads'; did you mean 'seeds'"),
        ("11_summary", {"profile": "cpu"}, "no parameter 'profile'; it has runs"),
    ],
)
def test_papermill_alone_trains_no_defaults_either(page, given, words, tmp_path):
    notebook = paths.NOTEBOOKS / f"{page}.ipynb"
    with pytest.raises(PapermillExecutionError, match=words):
        papermill.execute_notebook(
            notebook,
            tmp_path / "out.ipynb",
            given,
            cwd=paths.NOTEBOOKS,
            kernel_name="python3",
            progress_bar=False,
        )


def test_a_folder_may_be_below_the_home_of_the_user(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    arguments = cli._arguments(["reproduce", "--data", "~/cifar"])
    assert arguments.data == Path("/home/somebody/cifar")
