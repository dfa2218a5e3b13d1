"""Parameters of notebooks: what is misspelt or out of range is said, before anything is trained,
and what is changed is what the page and the summary show."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from IPython.core.interactiveshell import ExecutionResult, InteractiveShell
from made_up import enter, runs_of
from tiny_dataset import registered
from traitlets.config import Config

from lsce import cli, studies
from lsce.machine import paths
from lsce.report import front, page, reference
from lsce.sweeps import sweep

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


@pytest.fixture
def shell(tmp_path, monkeypatch) -> Iterator[InteractiveShell]:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    yield InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
    InteractiveShell.clear_instance()


def begin(shell: InteractiveShell, notebook: str, parameters: str) -> ExecutionResult:
    """Run a notebook up to its first cell, with these parameters as papermill sets them."""
    text = (paths.NOTEBOOKS / f"{notebook}.ipynb").read_text(encoding="utf-8")
    code = ["".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "code"]
    for cell in (code[0], f"# Parameters\n{parameters}"):
        shell.run_cell(cell, store_history=True).raise_error()
    return shell.run_cell(code[1], store_history=True)


@pytest.mark.parametrize(
    ("notebook", "given", "words"),
    [
        ("01_loss", "epsilom = 0.2", "no parameter 'epsilom'; did you mean 'epsilon'"),
        ("01_loss", "epsilon = 1.2", "epsilon is 1.2; it must be less than 1"),
        ("02_epsilon_study", "seads = [0]", "no parameter 'seads'; did you mean 'seeds'"),
        ("02_epsilon_study", "seeds = [0.5]", "seeds.0 is 0.5; it must be a valid integer"),
        ("02_epsilon_study", "runs = 'both'", "runs is 'both'; it must be 'own' or 'recorded'"),
        ("11_summary", "profile = 'cpu'", "no parameter 'profile'; it has runs"),
        ("11_summary", "runs = 'both'", "runs is 'both'; it must be 'own' or 'recorded'"),
        ("A2_verdicts", "pages = 5", "pages is 5; it must be at least 10"),
        ("A1_speed", "parts = ['los']", "parts names 'los'; it must name some of "),
    ],
)
def test_a_wrong_parameter_is_one_sentence_before_anything_is_trained(
    notebook, given, words, shell, capsys
):
    error = begin(shell, notebook, given).error_in_exec
    assert isinstance(error, ValueError) and words in str(error)
    (line,) = capsys.readouterr().out.strip().splitlines()
    assert line == f"ValueError: {error}"


def test_epsilon_walks_from_a_parameter_to_the_figure_and_to_the_summary(
    shell, tmp_path, monkeypatch
):
    run = {"network": "resnet6", "train_size": 100, "epochs": 2, "monitor_size": 50}
    given = {"data_name": "tiny", "profile": "mine", "epsilons": [0.0, 0.35], "fraction_run": run}
    given |= {"regimes": {"few": run}, "more_regimes": {}}
    enter(tmp_path, monkeypatch)
    monkeypatch.setattr(sweep, "ensure", lambda tasks, **_: runs_of(tasks))
    with registered():
        assignments = "\n".join(f"{name} = {value!r}" for name, value in given.items())
        begin(shell, "02_epsilon_study", assignments).raise_error()
        main = shell.user_ns["main"]
        assert set(main.study.errors(main)["epsilon"]) == {0.0, 0.35}
        assert set(main.study.stopped(main)["arm"]) == {"ε = 0", "ε = 0.35", "ε = 0, stopped early"}
        collected = front.collect("own")
    (found,) = collected.values()
    (judged,) = found.judgements["lower-error"]
    assert (judged.treatment, judged.effect.n) == ("ε = 0.35", 3)
    assert "few: ε = 0.35 against ε = 0" in set(front.effects(collected).data["regime"])
    ours = [row for row in found.published if row["source"] == "here"]
    assert ours and {row["epsilon"] for row in ours} == {0.35}


def test_a_folder_may_be_below_the_home_of_the_user(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    arguments = cli._arguments(["reproduce", "--data", "~/cifar"])
    assert arguments.data == Path("/home/somebody/cifar")


def test_every_parameter_is_documented_as_it_is_written(tmp_path):
    (tmp_path / "_static").mkdir()
    reference.write(tmp_path, ["03_calibration"])
    text = (tmp_path / "parameters.md").read_text()
    assert "saved below figures/&lt;profile&gt; |" in text
    for study in studies.with_runs().values():
        assert all(f"| `{name}` |" in text for name in study.Parameters.model_fields)
    assert "## [03_calibration](03_calibration)" in text and "## 05_noisy_labels" in text
    schema = json.loads((tmp_path / "_static" / "run.schema.json").read_text())
    assert {"data", "sample", "labels", "method", "network", "seed"} <= set(schema["properties"])
