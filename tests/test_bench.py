"""The benchmarks run and their table is complete; no test here asserts a time."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from lsce.machine import paths
from lsce.report import figures, page

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


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory) -> tuple[Path, str]:
    """What `run.py --quick` wrote and what it printed."""
    out = tmp_path_factory.mktemp("bench")
    command = [sys.executable, str(FOLDER / "run.py"), "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done.stdout


@pytest.mark.slow
def test_the_table_is_complete(rehearsal):
    out, _ = rehearsal
    (file,) = out.glob("*.csv")
    table = pd.read_csv(file)
    assert list(table["module"].unique()) == list(EXPECTED)
    for module, words in EXPECTED.items():
        rivals = " ".join(table.loc[table["module"] == module, "rival"])
        assert all(word in rivals for word in words), (module, rivals)
    assert not table.duplicated(["benchmark", "case", "rival", "quantity"]).any()
    values = table[["ours", "theirs", "ratio", "ratio_low", "ratio_high"]].to_numpy()
    assert np.isfinite(values).all() and (values > 0).all() and (table["n"] >= 1).all()
    assert (table["ratio_low"] <= table["ratio"]).all()
    assert (table["ratio"] <= table["ratio_high"]).all()
    assert set(table["better"]) <= {"lower", "higher"}


@pytest.mark.slow
def test_the_table_says_what_it_rests_on(rehearsal):
    out, printed = rehearsal
    (file,) = out.glob("*.json")
    about = json.loads(file.read_text())
    table = pd.read_csv(file.with_suffix(".csv"))
    assert set(about["machine"]) == {"device", "cores"}
    assert file.stem.endswith(f"-{about['machine']['cores']}-cores")
    assert list(about["modules"]) == list(table["module"].unique())
    for entry in about["modules"].values():
        assert set(entry) == {"versions", "commit", "date", "seconds", "load"}
        assert {"torch", "python"} <= set(entry["versions"])
    assert "these numbers mean nothing" in printed
    assert all(case in printed for case in table["case"])


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


def appendix(root: Path, *more: str) -> str:
    """The outputs of the appendix, executed and built in a checkout of its own."""
    (root / "data").mkdir()
    shutil.copy(paths.PUBLISHED, root / "data")
    for folder in ("notebooks", "report", *more):
        ignored = shutil.ignore_patterns(".ipynb_checkpoints")
        shutil.copytree(paths.ROOT / folder, root / folder, ignore=ignored)
    script = (
        "from lsce.machine import paths; from lsce.report import site; out = paths.BUILD / 'executed' / 'A1_speed.ipynb'; "
        "site.execute(paths.NOTEBOOKS / 'A1_speed.ipynb', {}, out); "
        "first = site.stub('01_loss', 'The loss', 'm', out.parent); "
        "site.build([out, first], paths.HTML)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"LSCE_ROOT": str(root)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return (root / "build" / "html" / "A1_speed.html").read_text()


@pytest.mark.slow
def test_the_appendix_shows_every_machine(runner, monkeypatch, tmp_path):
    results = tmp_path / "benchmarks" / "results"
    for device, case in (("NVIDIA H200", "on the GPU"), ("Some (R) CPU", "on the CPU")):
        here = {"device": device, "cores": 2}
        monkeypatch.setattr(runner, "machine", lambda here=here: here)
        runner.save(
            "loss", [row(monkeypatch, case=case), row(monkeypatch, rival="s")], 3.0, 0.1, results
        )
    html = appendix(tmp_path, "data/recorded")
    assert 'id="fig-budgets"' in html and "core-minutes" in html
    for words in (
        "NVIDIA H200, 2 cores",
        "Some (R) CPU, 2 cores",
        "a: on the GPU",
        "a: on the CPU",
    ):
        assert words in html, words
    for words in (
        runner.versions()["torch"],
        "0.25 (0.2–0.5)",
        ">time</td>",
        ">3</td>",
        "Fig. 1",
        'id="fig-speed"',
    ):
        assert words in html, words
    for ending in ("svg", "png", "csv"):
        assert (tmp_path / "figures" / f"speed.{ending}").stat().st_size > 100
    index = (tmp_path / "build" / "html" / "index.html").read_text()
    assert index.index("01_loss.html") < index.index("A1_speed.html") < index.index("how_to.html")


def test_the_appendix_can_show_some_parts_alone():
    every = page.benchmarks()
    some = page.benchmarks(["loss"])
    for machine, (_, rows) in every.items():
        assert set(rows["module"]) > {"loss"} == set(some[machine][1]["module"])
    with pytest.raises(ValueError, match="parts names 'los'; it must name some of .*loss"):
        page.benchmarks(["los"])


@pytest.mark.slow
def test_the_appendix_without_a_table_says_how_to_make_one(tmp_path):
    html = appendix(tmp_path)
    assert "No machine has been measured yet" in html and "<figure" not in html
