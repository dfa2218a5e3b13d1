"""The commands as a user types them, in a checkout of their own, on a tiny profile."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pandas as pd
import pytest
from test_browser import browser, page, test_every_page_opens_and_fits_a_phone  # noqa: F401

from lsce.machine import paths

PROFILE = """
data = "cifar-100"

[shared]
epsilons = [0.0, 0.1, 0.9]
seeds = [0, 1]
judged_epsilon = 0.1
compared_regimes = ["few"]
compared_epsilons = [0.1]

[shared.regimes]
few = {model = "resnet6", train_size = 300, epochs = 2, monitor_size = 100}
more = {model = "resnet6", train_size = 1000, epochs = 1, monitor_size = 100}

[notebooks.02_epsilon_study]
more_regimes = {}
fractions = [1.0]
fraction_run = {model = "resnet6", train_size = 300, epochs = 2, monitor_size = 100}
fraction_epsilons = [0.0, 0.1]
weight_decays = [0.0005]

[notebooks.03_calibration]
truth_epsilons = [0.0]
focal_gammas = [1.0]
mixup_alphas = [0.2]
maxsup_weights = [0.1]

[notebooks.04_penultimate]
seen_classes = 80

[notebooks.05_noisy_labels]
noise_run = {model = "resnet6", train_size = 300, epochs = 2, monitor_size = 100}
symmetric_rates = [0.4]
asymmetric_rates = []
epsilons = [0.0, 0.1]
negative_epsilons = []
warmup_epochs = 1
gce_qs = []

[notebooks.06_robustness]
epsilons = [0.0, 0.1]
corrupted_images = 100
attacked_images = 100
radii = [4]
judged_radius = 4
pgd_steps = 2
pgd_restarts = 1
square_queries = 2

[notebooks.07_number_of_classes]
class_run = {model = "resnet6", train_size = 300, epochs = 2, monitor_size = 100}
class_counts = [20, 100]

[notebooks.08_distillation]
teacher_run = {model = "resnet6", train_size = 300, epochs = 2, monitor_size = 100}
student_run = {model = "resnet6-half", train_size = 300, epochs = 1, monitor_size = 100}
teacher_epsilons = [0.0, 0.1]
temperatures = [2.0]
student_epsilons = [0.1]

[notebooks.09_class_weights]
long_tail_run = {model = "resnet6", train_size = 1000, epochs = 1, monitor_size = 100}
imbalances = [10]
epsilons = [0.0, 0.1]

[notebooks.10_costs]
epsilons = [0.0, 0.1]
seen_classes = 80

[notebooks.12_reproduction]
published_regimes = {}
published_epsilons = [0.0, 0.1]
"""
NOTEBOOKS = sorted(path.stem for path in paths.NOTEBOOKS.glob("*.ipynb"))
PAGES = ["index", *NOTEBOOKS, "how_to", "bibliography"]
TINY = tomllib.loads(PROFILE)
#: Runs of the profile; and with the one that is trained only for attacks to be transferred from it.
RUNS = 66
TRAINED = RUNS + 1


def make_checkout(root: Path, data: str = "cifar-100") -> Path:
    """A checkout without recorded results, of which the profile tiny is one."""
    for folder in ("notebooks", "report"):
        shutil.copytree(
            paths.ROOT / folder, root / folder, ignore=shutil.ignore_patterns(".ipynb_checkpoints")
        )
    (root / "data").mkdir()
    for file in (paths.PUBLISHED, paths.RECIPES):
        shutil.copy(file, root / "data")
    (root / "notebooks" / "profiles" / "tiny.toml").write_text(PROFILE.replace("cifar-100", data))
    return root


def change_profile(root: Path, old: str, new: str) -> None:
    file = root / "notebooks" / "profiles" / "tiny.toml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def environment(root: Path) -> dict[str, str]:
    """Downloads go to a port where nobody listens."""
    nowhere = "http://127.0.0.1:9"
    return os.environ | {"LSCE_ROOT": str(root), "http_proxy": nowhere, "https_proxy": nowhere}


def python(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, env=environment(root), cwd=root, capture_output=True, text=True, timeout=600
    )


def lsce(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    return python(root, "-m", "lsce", *arguments)


def one_sentence(done: subprocess.CompletedProcess, status: int) -> str:
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("lsce: ")
    return line


@pytest.fixture
def checkout(tmp_path) -> Path:
    return make_checkout(tmp_path / "checkout")


def test_a_misspelt_profile(checkout):
    line = one_sentence(lsce(checkout, "reproduce", "--profile", "qick"), 2)
    assert "'qick'" in line and "cpu, full, gpu, quick, small, smoke, tiny" in line


def test_an_epsilon_out_of_range_in_a_parameter_file(checkout):
    change_profile(checkout, "[0.0, 0.1, 0.9]", "[0.0, 1.5]")
    line = one_sentence(lsce(checkout, "reproduce", "--profile", "tiny"), 2)
    assert "tiny.toml, 00_overview: epsilons is [0.0, 1.5]; it must be numbers in [0, 1]" in line
    assert not (checkout / "data" / "runs").exists()  # found before anything else was done


def test_a_number_where_a_list_belongs(checkout):
    change_profile(checkout, "truth_epsilons", "epsilons = 0.1\ntruth_epsilons")
    line = one_sentence(lsce(checkout, "reproduce", "--profile", "tiny"), 2)
    assert "03_calibration: epsilons is 0.1; it must be a list of numbers in [0, 1]" in line


def test_a_judged_epsilon_that_is_not_trained(checkout):
    change_profile(checkout, "truth_epsilons", "judged_epsilon = 0.2\ntruth_epsilons")
    line = one_sentence(lsce(checkout, "reproduce", "--profile", "tiny"), 2)
    assert "tiny.toml, 03_calibration: judged_epsilon is 0.2; it must be one of epsilons" in line


def test_a_parameter_that_the_notebook_does_not_have(checkout):
    change_profile(checkout, "[notebooks.03", "[notebooks.01_loss]\nepsilom = 0.1\n[notebooks.03")
    line = one_sentence(lsce(checkout, "reproduce", "--profile", "tiny"), 2)
    assert "tiny.toml, 01_loss" in line and "'epsilom'" in line and "'epsilon'" in line


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("data = ", "data = [", "tiny.toml is not valid TOML: "),
        ('"cifar-100"', '"cifar-10"', "data is 'cifar-10'; it must be one of cifar-100, built-in"),
        ("[shared]\n", "[shared]\nepsilom = 0.1\n", "no notebook has the shared parameter 'epsi"),
        (
            "\n[shared]",
            "runs = 'own'\n[shared]",
            "sets 'runs'; it must set data, note, shared, notebooks and budgets",
        ),
        ("03_calibration", "03_calibratoin", "names 03_calibratoin, but there is no such notebook"),
    ],
)
def test_a_malformed_profile(checkout, old, new, words):
    change_profile(checkout, old, new)
    assert words in one_sentence(lsce(checkout, "reproduce", "--profile", "tiny"), 2)


def test_a_data_folder_that_cannot_be_written(checkout):
    shutil.rmtree(checkout / "data")
    (checkout / "data").write_text("in the way")
    line = one_sentence(lsce(checkout, "reproduce", "--profile", "tiny"), 1)
    assert str(checkout / "data") in line and "cannot be written" in line


def test_a_data_argument_that_holds_nothing(checkout):
    (checkout / "empty").mkdir()
    line = one_sentence(lsce(checkout, "reproduce", "--profile", "tiny", "--data", "empty"), 2)
    assert "empty holds no CIFAR-100" in line


def test_a_wrong_parameter_in_jupyter_is_a_sentence_and_no_traceback(checkout):
    script = (
        "from lsce.machine import paths; from lsce.report import site; "
        "site.execute(paths.NOTEBOOKS / '02_epsilon_study.ipynb', {'epsilons': [0.0, 1.5]}, "
        "paths.BUILD / 'tweaked.ipynb')"
    )
    done = python(checkout, "-c", script)
    sentence = "ValueError: epsilons is [0.0, 1.5]; it must be numbers in [0, 1]"
    assert f"02_epsilon_study.ipynb stopped with {sentence}" in done.stderr
    partial = json.loads((checkout / "build" / "tweaked.partial.ipynb").read_text())
    outputs = [o for cell in partial["cells"] for o in cell.get("outputs", [])]
    (error,) = [o for o in outputs if o["output_type"] == "error"]
    assert error["traceback"] == [sentence]


def records(root: Path) -> dict[str, float]:
    return {p.parent.name: p.stat().st_mtime for p in (root / "data/runs").glob("*/record.json")}


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory):
    """A checkout whose `reproduce` was killed once and then run to its end, and what it printed."""
    root = make_checkout(tmp_path_factory.mktemp("user") / "checkout")
    command = [sys.executable, "-m", "lsce", "reproduce", "--profile", "tiny"]
    first = subprocess.Popen(
        command,
        env=environment(root),
        cwd=root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while len(records(root)) < 3 and time.monotonic() < deadline:
        time.sleep(0.2)
    first.send_signal(signal.SIGKILL)
    first.wait()
    time.sleep(2)  # its workers notice
    kept = records(root)
    done = lsce(root, "reproduce", "--profile", "tiny")
    return root, kept, done


@pytest.mark.slow
def test_killed_and_started_again_it_goes_on(reproduced):
    root, kept, done = reproduced
    assert done.returncode == 0, done.stderr
    assert 3 <= len(kept) < RUNS
    assert f"{TRAINED - len(kept)} of {TRAINED} to train" in done.stdout
    assert {name: stamp for name, stamp in records(root).items() if name in kept} == kept
    assert len(records(root)) == TRAINED


@pytest.mark.slow
def test_it_says_what_it_will_do_and_where_the_report_is(reproduced):
    root, _, done = reproduced
    said = dict(
        re.findall(
            r"^  (profile|device|data|runs|work|time|memory|disk|commit) +(.+)$", done.stdout, re.M
        )
    )
    assert said["profile"] == "tiny" and said["time"].startswith("about ")
    assert said["work"].endswith("operations") and said["memory"].endswith("GiB")
    assert said["disk"].endswith("MiB")
    assert "since CIFAR-100 could not be downloaded" in said["data"]
    index = root / "build" / "html" / "index.html"
    assert done.stdout.strip().endswith(f"open {index.as_uri()}") and index.is_file()


@pytest.mark.slow
def test_without_cifar_100_every_page_says_so(reproduced):
    root, _, _ = reproduced
    for name in PAGES:
        text = (root / "build" / "html" / f"{name}.html").read_text()
        assert "CIFAR-100 could not be had on this machine" in text, name
        assert f"This machine: profile tiny · built-in · {RUNS} runs" in text, name


@pytest.mark.slow
def test_figures_come_with_their_numbers(reproduced):
    root, _, _ = reproduced
    figures = root / "figures" / "tiny"
    names = {path.stem for path in figures.iterdir()}
    assert {"epsilon_error", "calibration_reliability", "summary_effects"} <= names
    assert {path.stem for path in figures.parent.glob("*.csv")} <= {
        "loss_targets",
        "loss_gap",
        "loss_optimal_gap",
        "speed",
    }
    for name in names:
        for ending in ("svg", "png", "csv"):
            assert (figures / f"{name}.{ending}").stat().st_size > 100


@pytest.mark.slow
def test_again_it_trains_nothing_and_after_a_tweak_only_what_changed(reproduced):
    root, _, _ = reproduced
    before = records(root)
    again = lsce(root, "reproduce", "--profile", "tiny")
    assert f"0 of {RUNS} to train" in again.stdout and records(root) == before

    # As in Jupyter: the notebook alone, with one ε more. Its figures and tables show it.
    changed = TINY["shared"] | TINY["notebooks"]["02_epsilon_study"]
    changed |= {"data_name": "built-in", "epsilons": [0.0, 0.1, 0.3, 0.9]}
    script = (
        "import pathlib, sys; from lsce.machine import paths; from lsce.report import site; "
        "site.execute(paths.NOTEBOOKS / '02_epsilon_study.ipynb', eval(sys.argv[1]), "
        "paths.BUILD / 'tweaked.ipynb')"
    )
    subprocess.run(
        [sys.executable, "-c", script, repr(changed)],
        env=environment(root),
        cwd=root,
        check=True,
        timeout=300,
    )
    after = records(root)
    assert len(after) == len(before) + 4
    assert {name: after[name] for name in before} == before
    tweaked = (root / "build" / "tweaked.ipynb").read_text()
    assert "These are the runs of this machine" in tweaked
    assert re.search(r"<td[^>]*>ε = 0.3</td>", tweaked)
    figure = pd.read_csv(root / "figures" / "quick" / "epsilon_error.csv")
    assert sorted(figure["epsilon"].unique()) == [0.0, 0.1, 0.3, 0.9]


@pytest.mark.slow
def test_a_reproduced_page_shows_what_was_trained_and_how(reproduced):
    root, _, _ = reproduced
    html = (root / "build" / "html" / "02_epsilon_study.html").read_text()
    assert "These are the runs of this machine" in html and "<strong>seeds</strong> 2" in html
    assert "<strong>profile</strong> tiny" in html and "Recorded runs" not in html
    overview = (root / "build" / "html" / "00_overview.html").read_text()
    assert "<strong>This machine, profile tiny, the built-in synthetic data</strong>" in overview


@pytest.mark.slow
def test_report_shows_recorded_runs_alone_and_names_pages_without_any(reproduced):
    root, _, _ = reproduced
    shutil.copytree(root, copy := root.parent / "copy", ignore=shutil.ignore_patterns("build"))
    done = lsce(copy, "report")
    assert done.returncode == 0, done.stderr
    assert "02_epsilon_study: no results yet" in done.stdout
    html = (copy / "build" / "html" / "02_epsilon_study.html").read_text()
    assert "No run of this page is recorded" in html and "The ε study" in html
    assert "statements hold" in (copy / "build" / "html" / "01_loss.html").read_text()

    change_profile(copy, "cifar-100", "built-in")
    record = ["record", "--profile", "tiny", "--budget", "9m", "--out", str(copy / "out")]
    for command in (record, ["merge", str(copy / "out")]):
        done = lsce(copy, *command)
        assert done.returncode == 0, done.stderr
    done = lsce(copy, "report")
    assert done.returncode == 0, done.stderr
    html = (copy / "build" / "html" / "02_epsilon_study.html").read_text()
    assert "These are the recorded runs" in html and "runs of this machine" not in html
    executed = (copy / "build" / "executed" / "02_epsilon_study.ipynb").read_text()
    assert '"epsilons = [0.0, 0.1, 0.9]' in executed  # what the figures were made with


@pytest.fixture
def site(reproduced) -> Path:
    """What the browser test that is imported above runs on here: the real report."""
    return reproduced[0] / "build" / "html"


@pytest.mark.slow
def test_with_cifar_100_no_page_has_a_banner(cifar100_dir, checkout):
    change_profile(checkout, "seeds = [0, 1]", "seeds = [0]")
    # The other pages show it well enough.
    others = ("03_calibration", "04_penultimate", "05_noisy_labels")
    for block in PROFILE.strip().split("\n\n"):
        if block.startswith(tuple(f"[notebooks.{name}]" for name in others)):
            change_profile(checkout, block, "")
    for name in (*others, "00_overview", "11_summary", "A1_speed"):
        (checkout / "notebooks" / f"{name}.ipynb").unlink()
    for name in ("smoke", "quick", "small", "cpu", "gpu", "full"):
        (checkout / "notebooks" / "profiles" / f"{name}.toml").unlink()
    done = lsce(checkout, "reproduce", "--profile", "tiny", "--data", str(cifar100_dir))
    assert done.returncode == 0, done.stderr
    assert "(Parquet)" in done.stdout or "archive" in done.stdout
    html = (checkout / "build" / "html" / "02_epsilon_study.html").read_text()
    assert "<strong>data</strong> CIFAR-100" in html and "announcement" not in html
