"""The benchmarks measure all that they should; no test here asserts a time."""

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from made_up import tiny
from matplotlib import pyplot as plt
from tiny_dataset import registered
from traitlets.config import Config

from lsce import data
from lsce.machine import paths
from lsce.report import figures, speed
from lsce.sweeps import sweep
from lsce.sweeps.workers import Workers
from lsce.training import precision, train
from lsce.training.spec import Recipe

pytestmark = pytest.mark.slow

FOLDER = paths.ROOT / "benchmarks"
#: What every machine measures, and against whom: words of the rivals' names, module by module.
EXPECTED = {
    "training": {"torchvision", "timm"},
    "sweep": {"1 at a time", "the limit"},
    "loss": {"cross_entropy", "timm", "textbook"},
    "evaluation": {"torchmetrics", "netcal", "class by class"},
}


def load(name: str, monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module(name)


@pytest.fixture
def runner(monkeypatch) -> ModuleType:
    return load("run", monkeypatch)


def row(monkeypatch, **changes):
    values = dict(
        benchmark="a", case="c", rival="r", quantity="time (s)", better="lower",
        n=3, ours=1.0, theirs=4.0, ratio=0.25, ratio_low=0.2, ratio_high=0.5,
    )  # fmt: skip
    return load("pairing", monkeypatch).Row(**values | changes)


def check(rows: list, module: str) -> None:
    """Each rival is there, with numbers."""
    rivals = " ".join(row.rival for row in rows)
    assert all(word in rivals for word in EXPECTED[module]), rivals
    keys = [(row.benchmark, row.case, row.rival, row.quantity) for row in rows]
    assert len(set(keys)) == len(keys)
    for row in rows:
        assert np.isfinite([row.ours, row.theirs, row.ratio_high]).all() and row.n >= 1
        assert 0 < row.ratio_low <= row.ratio <= row.ratio_high and row.ours > 0 < row.theirs


def test_a_rehearsal_writes_a_table_that_says_what_it_rests_on(tmp_path, runner, monkeypatch):
    """Of one part; the others are called below."""
    command = [sys.executable, str(FOLDER / "run.py"), "--quick", "--only", "loss"]
    command += ["--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,), (about,) = tmp_path.glob("*.csv"), tmp_path.glob("*.json")
    table, about = pd.read_csv(file), json.loads(about.read_text())
    assert set(table.pop("module")) == {"loss"} and set(table["better"]) == {"lower"}
    check([row(monkeypatch, **found) for found in table.to_dict("records")], "loss")
    assert set(about["machine"]) == {"device", "cores"}
    assert file.stem.endswith(f"-{about['machine']['cores']}-cores")
    (part,) = about["modules"].values()
    assert set(part) == {"versions", "commit", "date", "seconds", "load"}
    assert {"torch", "python"} <= set(part["versions"])
    assert "these numbers mean nothing" in done.stdout
    assert all(case in done.stdout for case in table["case"])


@pytest.fixture
def plain(monkeypatch):
    """One thread and float32, on any machine."""
    monkeypatch.setattr(precision, "of", lambda *_: "float32")
    monkeypatch.setattr(train, "_idle", {})
    with train.one_thread(torch.device("cpu")):
        yield


def test_metrics_are_measured_beside_every_rival(monkeypatch, plain):
    module = load("bench_evaluation", monkeypatch)
    monkeypatch.setattr(module, "N", 500)
    check(list(module.rows(quick=True)), "evaluation")


def test_a_sweep_is_measured_beside_fewer_at_a_time(monkeypatch, plain):
    module = load("bench_sweep", monkeypatch)
    assert module.a_run(quick=True).data == "built-in"
    # Workers are threads, as on a GPU: they know the tiny data set.
    monkeypatch.setattr(sweep, "Workers", lambda count, processes: Workers(count, processes=False))
    monkeypatch.setattr(sweep, "cores", lambda: 2)
    monkeypatch.setattr(module, "a_run", lambda *, quick: tiny(epochs=1))
    with registered():
        check(list(module.rows(quick=True)), "sweep")


def test_training_is_measured_beside_every_loop(monkeypatch, plain):
    module = load("bench_training", monkeypatch)
    shape = (128, 32, 32, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    training = data.Split(images, torch.arange(128) % 100)
    test = data.Split(images[:1].expand(100, -1, -1, -1), torch.arange(100))  # one is right
    monkeypatch.setattr(data, "decoded", lambda name: SimpleNamespace(train=training, test=test))
    monkeypatch.setattr(module.workers, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(module, "matrix_rate", lambda *_: 1e9)
    monkeypatch.setattr(sweep, "cores", lambda: 1)

    def pool(job):
        return ThreadPoolExecutor(1, initializer=module._start, initargs=(job,))

    monkeypatch.setattr(module, "_pool", pool)
    job, cpu = module.Job("any", "resnet6-half", 128, 1, Recipe()), torch.device("cpu")
    rows = [*module.throughput_rows(job, cpu, turns=1), *module.accuracy_rows(job, cpu, seeds=1)]
    check(rows, "training")
    assert {row.ours for row in rows if row.quantity == "test accuracy"} == {0.01}
    assert [row.rival for row in rows if row.quantity == "FLOP/s"] == ["matrix product"]


def test_ratios_are_taken_turn_by_turn(monkeypatch):
    pairing = load("pairing", monkeypatch)
    order, slow = [], iter([1.0, 1.0, 10.0, 1.0])  # the machine is busy in the third of the turns

    def ours() -> float:
        order.append("lsce")
        ours.busy = next(slow)
        return 2 * ours.busy

    def theirs() -> float:
        order.append("rival")
        return 4 * ours.busy

    values = pairing.take_turns({"lsce": ours, "rival": theirs}, turns=3, warmups=0)
    assert order == ["lsce", "rival"] * 3
    (found,) = pairing.compare(values, benchmark="b", case="c", quantity="time (s)", better="lower")
    assert (found.rival, found.n, found.ours, found.theirs) == ("rival", 3, 2, 4)
    assert (found.ratio_low, found.ratio, found.ratio_high) == (0.5, 0.5, 0.5)


def test_libraries_that_disagree_are_not_compared(monkeypatch):
    module = load("bench_evaluation", monkeypatch)
    module.check_agreement("ECE", {"lsce": lambda: 0.1, "other": lambda: 0.1 + 1e-7})
    with pytest.raises(AssertionError, match="other"):
        module.check_agreement("ECE", {"lsce": lambda: 0.1, "other": lambda: 0.101})


def test_a_machine_has_a_plain_file_name(runner):
    assert runner.slug("Intel(R) Xeon(R) Processor", 2) == "intel-xeon-processor-2-cores"
    assert runner.slug("NVIDIA H200", 16) == "nvidia-h200-16-cores"
    assert runner.slug("Intel(R) Core(TM) i7 @ 2.6GHz", 8) == "intel-core-i7-2-6ghz-8-cores"


def test_what_cannot_run_is_a_sentence_and_the_rest_goes_on(runner, monkeypatch, tmp_path, capsys):
    def breaks(*, quick):
        yield row(monkeypatch, case="before it breaks")
        raise RuntimeError("out of memory")

    for name, rows in {
        "fails": breaks,
        "works": lambda *, quick: [row(monkeypatch, case="it works")],
    }.items():
        monkeypatch.setitem(sys.modules, f"bench_{name}", module := ModuleType(name))
        module.rows = rows
    monkeypatch.setitem(sys.modules, "bench_absent", None)  # as if a package were missing
    monkeypatch.setattr(runner, "BENCHMARKS", names := ["absent", "fails", "works"])
    with pytest.raises(SystemExit, match="fails did not run to the end"):
        runner.main(["--quick", "--out", str(tmp_path), "--only", *names])
    said = capsys.readouterr().out
    assert "absent is left out: " in said
    assert "fails stopped with RuntimeError: out of memory" in said
    assert "before it breaks" in said
    (file,) = tmp_path.glob("*.csv")
    assert list(pd.read_csv(file)["case"]) == ["it works"]


def test_a_benchmark_replaces_its_own_rows_only(runner, monkeypatch, tmp_path):
    monkeypatch.setattr(runner, "BENCHMARKS", ["first", "second"])
    runner.save("second", [row(monkeypatch, case="x")], 1.0, 0.1, tmp_path)
    runner.save(
        "first", [row(monkeypatch, case="old"), row(monkeypatch, case="older")], 1.0, 0.1, tmp_path
    )
    table = runner.save("first", [row(monkeypatch, case="new")], 2.0, 0.1, tmp_path)
    rows = pd.read_csv(table)
    assert list(zip(rows["module"], rows["case"], strict=True)) == [
        ("first", "new"),
        ("second", "x"),
    ]
    entries = json.loads(table.with_suffix(".json").read_text())["modules"]
    assert {name: entry["seconds"] for name, entry in entries.items()} == {
        "first": 2.0,
        "second": 1.0,
    }


def test_a_rehearsal_stays_out_of_the_results(runner, capsys):
    assert runner.arguments(["--quick"]).out == paths.BUILD / "bench"
    assert runner.arguments([]).out == paths.BENCHMARKS
    with pytest.raises(SystemExit):
        runner.arguments(["--quick", "--out", str(paths.BENCHMARKS)])
    assert "do not belong" in capsys.readouterr().err


def table(**changes) -> pd.DataFrame:
    """PyTorch is half as fast as ours; timm is twice as fast, and has a third of our throughput."""
    rows = [
        ("PyTorch", "time (s)", "lower", 0.5, 0.4, 0.8),
        ("timm", "time (s)", "lower", 2.0, 1.6, 2.5),
        ("timm", "images/s", "higher", 3.0, 2.0, 4.0),
    ]
    names = ["rival", "quantity", "better", "ratio", "ratio_low", "ratio_high"]
    common = dict(module="loss", benchmark="loss", case="c", n=5, ours=1.0, theirs=2.0)
    return pd.DataFrame(rows, columns=names).assign(**common | changes)


def test_in_the_figure_ours_is_better_to_the_right():
    figure = figures.speed(table(machine="M"))
    (ax,) = figure.axes
    assert ax.get_xscale() == "log"
    drawn = {bar.get_label(): bar for bar in ax.containers}
    assert set(drawn) == {"PyTorch", "timm"}
    np.testing.assert_allclose(drawn["PyTorch"].lines[0].get_xdata(orig=False), [2.0])
    np.testing.assert_allclose(drawn["timm"].lines[0].get_xdata(orig=False), [0.5, 3.0])
    ends = {
        name: [segment[:, 0].tolist() for segment in bar.lines[2][0].get_segments()]
        for name, bar in drawn.items()
    }
    np.testing.assert_allclose(ends["PyTorch"], [[1 / 0.8, 1 / 0.4]])
    np.testing.assert_allclose(ends["timm"], [[0.4, 1 / 1.6], [2.0, 4.0]])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["c, time (s)", "c, images/s"]
    heights = [bar.lines[0].get_ydata(orig=False).tolist() for bar in drawn.values()]
    assert heights == [[1.0], [1.0, 2.0]]


def test_each_machine_has_a_panel_and_all_rivals_are_told_apart():
    many = pd.concat(
        [
            table(machine="M").assign(rival=[f"rival {3 * i + j}" for j in range(3)])
            for i in range(5)
        ]
        + [table(machine="N")],
        ignore_index=True,
    )
    figure = figures.speed(many)
    assert [ax.get_title() for ax in figure.axes] == ["M", "N"]
    bars = [bar for ax in figure.axes for bar in ax.containers]
    looks = {bar.get_label(): (bar.lines[0].get_marker(), bar.lines[0].get_color()) for bar in bars}
    assert len(set(looks.values())) == len(looks) == 17
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(many["rival"].unique())


@pytest.fixture
def appendix(monkeypatch, tmp_path) -> Iterator[Callable[[], str]]:
    """Shows the appendix where nothing was measured yet, cell by cell in this process."""
    monkeypatch.setattr(paths, "BENCHMARKS", tmp_path / "benchmarks")
    monkeypatch.setattr(paths, "FIGURES", tmp_path / "figures")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))

    def run() -> str:
        notebook = json.loads((paths.NOTEBOOKS / "A1_speed.ipynb").read_text(encoding="utf-8"))
        with capture_output() as shown:
            for cell in notebook["cells"]:
                if cell["cell_type"] == "code":
                    shell.run_cell("".join(cell["source"]), store_history=True).raise_error()
        return "\n".join(str(value) for each in shown.outputs for value in each.data.values())

    yield run
    InteractiveShell.clear_instance()
    plt.close("all")


def test_the_appendix_shows_every_machine(appendix, runner, monkeypatch, tmp_path):
    for device, case in (("NVIDIA H200", "on the GPU"), ("Some (R) CPU", "on the CPU")):
        here = {"device": device, "cores": 2}
        monkeypatch.setattr(runner, "machine", lambda here=here: here)
        rows = [row(monkeypatch, case=case), row(monkeypatch, rival="s")]
        runner.save("loss", rows, 3.0, 0.1, paths.BENCHMARKS)
    shown = appendix()
    for words in (
        *("NVIDIA H200, 2 cores", "Some (R) CPU, 2 cores", "a: on the GPU", "a: on the CPU"),
        *(runner.versions()["torch"], "0.25 (0.2–0.5)", ">time</td>", ">3</td>"),
        *("#fig-budgets", "core-minutes", "#fig-speed"),
    ):
        assert words in shown, words
    for figure in ("speed", "budgets"):
        for ending in ("svg", "png", "csv"):
            assert (tmp_path / "figures" / f"{figure}.{ending}").stat().st_size > 100


def test_the_appendix_without_a_table_says_how_to_make_one(appendix, tmp_path):
    shown = appendix()
    assert "No machine has been measured yet" in shown and "#fig-speed" not in shown
    assert not (tmp_path / "figures" / "speed.svg").exists()


def test_the_appendix_can_show_some_parts_alone():
    every = speed.benchmarks()
    some = speed.benchmarks(["loss"])
    for machine, (_, rows) in every.items():
        assert set(rows["module"]) > {"loss"} == set(some[machine][1]["module"])
    with pytest.raises(ValueError, match="parts names 'los'; it must name some of .*loss"):
        speed.benchmarks(["los"])
