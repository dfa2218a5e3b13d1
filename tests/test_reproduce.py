"""`lsce reproduce` and `lsce report` as a user types them, in checkouts of their own."""

import re
import shutil
from pathlib import Path

import checkouts
import pandas as pd
import pytest
from checkouts import change_profile, inside, lsce

from lsce.commands import reproduce
from lsce.machine import paths
from lsce.report import findings, site
from lsce.results import recorded
from lsce.results.recorded import Recorded
from lsce.studies import evidence
from lsce.studies.profiles import Profile
from lsce.sweeps import sweep

PAGES = ("01_loss", "02_epsilon_study", "11_summary", "12_reproduction")
REPRODUCE = ("reproduce", "--profile", "tiny")
#: Two seeds: without smoothing, with it, and with more weight decay.
RUNS = 8

STOPPED = "lsce: stopped; finished runs are kept, and the same command goes on from there"


# ---- what a user may get wrong ----


def one_sentence(capsys, *arguments: str) -> str:
    """What a command says that stops at wrong input."""
    assert lsce(*arguments) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("lsce: ")
    return line


@pytest.fixture
def checkout(tmp_path):
    root = checkouts.make(tmp_path / "checkout", PAGES)
    with inside(root):
        yield root


def test_a_misspelt_profile(checkout, capsys):
    line = one_sentence(capsys, "reproduce", "--profile", "tyni")
    assert line == "lsce: PROFILE is 'tyni'; it must be one of tiny"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("data = ", "data = [", "tiny.toml is not valid TOML: "),
        ("[0.0, 0.1]", "[0.0, 1.5]", "tiny.toml, 02_epsilon_study: epsilons.1 is 1.5; it must be"),
        ("fractions = ", "fractoins = ", "tiny.toml, 02_epsilon_study: Epsilon"),
    ],
)
def test_a_wrong_profile_is_one_sentence_before_anything_is_done(checkout, capsys, old, new, words):
    change_profile(checkout, old, new)
    assert words in one_sentence(capsys, *REPRODUCE)
    assert not paths.RUNS.exists()


def test_a_data_folder_that_cannot_be_written(checkout, capsys):
    shutil.rmtree(paths.DATA)
    paths.DATA.write_text("in the way")
    for command in (REPRODUCE, ("report",)):
        assert lsce(*command) == 1
        assert f"lsce: {paths.DATA} cannot be written to (" in capsys.readouterr().err


def test_a_data_argument_that_holds_nothing(checkout, capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    line = one_sentence(capsys, *REPRODUCE, "--data", str(tmp_path / "empty"))
    assert "empty holds no CIFAR-100" in line


# ---- the whole of it ----


def records(root: Path) -> dict[str, float]:
    runs = root / "data" / "runs"
    return {file.parent.name: file.stat().st_mtime for file in runs.glob("*/manifest.json")}


def executed(root: Path, name: str) -> str:
    return (root / "build" / "executed" / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory):
    """A checkout in which `reproduce` was stopped once and then, in a process of its own, ran to
    its end; the records that the first left, and what the second printed."""
    root = checkouts.make(tmp_path_factory.mktemp("user") / "checkout", PAGES)

    def stop(task: object) -> None:
        raise KeyboardInterrupt

    with inside(root) as patch:
        execute = sweep.execute
        patch.setattr(sweep, "execute", lambda todo, store: execute(todo, store, on_done=stop))
        assert lsce(*REPRODUCE) == STOPPED
    kept = records(root)
    done = checkouts.python(root, "-m", "lsce", *REPRODUCE)
    assert done.returncode == 0, done.stderr
    return root, kept, done.stdout


@pytest.mark.slow
def test_stopped_and_started_again_it_goes_on(reproduced):
    root, kept, said = reproduced
    assert len(kept) == 1
    assert f"{RUNS - 1} of {RUNS} to train" in said
    after = records(root)
    assert len(after) == RUNS and kept.items() <= after.items()


@pytest.mark.slow
def test_it_says_what_it_will_do_and_where_the_report_is(reproduced):
    root, _, printed = reproduced
    rows = "profile|device|data|runs|work|time|memory|disk|commit"
    said = dict(re.findall(rf"^  ({rows}) +(.+)$", printed, re.M))
    assert said["profile"] == "tiny" and said["time"].startswith("about ")
    assert said["work"].endswith("operations") and said["memory"].endswith("GiB")
    assert said["disk"].endswith("MiB")
    assert "since CIFAR-100 could not be downloaded" in said["data"]
    index = root / "build" / "html" / "index.html"
    assert printed.strip().endswith(f"open {index.as_uri()}") and index.is_file()


@pytest.mark.slow
def test_without_cifar_100_every_page_says_so(reproduced):
    root, _, _ = reproduced
    for name in ("index", *PAGES, "how_to", "bibliography"):
        text = (root / "build" / "html" / f"{name}.html").read_text(encoding="utf-8")
        assert "CIFAR-100 could not be had on this machine" in text, name
        assert f"This machine: profile tiny · built-in · {RUNS} runs" in text, name


@pytest.mark.slow
def test_figures_come_with_their_numbers_and_pages_with_what_they_found(reproduced):
    root, _, _ = reproduced
    figures = root / "figures" / "tiny"
    found = {path.stem for path in figures.glob("*.json")}
    names = {path.stem for path in figures.iterdir()} - found
    assert found == {"02_epsilon_study", "12_reproduction"}
    assert {"epsilon_error", "summary_effects", "reproduction_published"} <= names
    common = {path.stem for path in figures.parent.iterdir()} - {"tiny"}
    assert common == {"loss_targets", "loss_gap", "loss_optimal_gap"}
    for name in names:
        for ending in ("svg", "png", "csv"):
            assert (figures / f"{name}.{ending}").stat().st_size > 40


@pytest.mark.slow
def test_a_reproduced_page_shows_what_was_trained_and_how(reproduced):
    root, _, _ = reproduced
    html = (root / "build" / "html" / "02_epsilon_study.html").read_text(encoding="utf-8")
    assert "These are the runs of this machine" in html and "<strong>seeds</strong> 2" in html
    assert "<strong>profile</strong> tiny" in html and "Recorded runs" not in html
    summary = (root / "build" / "html" / "11_summary.html").read_text(encoding="utf-8")
    assert "<strong>This machine, profile tiny, the built-in synthetic data</strong>" in summary


@pytest.fixture
def copy(reproduced, tmp_path):
    """The reproduced checkout before its pages were built, with the built-in data as its profile's;
    and the banners of the sites that are built."""
    root, banners = tmp_path / "copy", []
    shutil.copytree(reproduced[0], root, ignore=shutil.ignore_patterns("build", "figures"))
    change_profile(root, "cifar-100", "built-in")
    with inside(root) as patch:
        record_banners(patch, banners)
        yield root, banners


def record_banners(patch: pytest.MonkeyPatch, banners: list[str | None]) -> None:
    """Build no site."""

    def build(pages: object, out: Path, *, banner: str | None, footer: str) -> Path:
        banners.append(banner)
        return out / "index.html"

    patch.setattr(site, "build", build)


def record_everything() -> None:
    folders = [paths.RUNS / name for name in records(paths.ROOT)]
    recorded.write([run for folder in folders for run in Recorded(folder)], paths.RECORDED)


@pytest.mark.slow
def test_again_it_trains_nothing_and_after_a_tweak_only_what_changed(copy, capsys):
    root, banners = copy
    before = records(root)
    record_everything()
    (beside,) = evidence.recorded("02_epsilon_study")
    findings.write(findings.of(beside))
    assert lsce(*REPRODUCE) == 0
    said = capsys.readouterr().out
    assert f"0 of {RUNS} to train" in said and records(root) == before
    assert re.search(r"Of \d+ headline numbers of profile tiny, .*: \d+ are exactly the same", said)
    assert "Recorded runs (profile tiny): *" in executed(root, "02_epsilon_study.ipynb")
    assert banners == [reproduce.BUILT_IN_BANNER]

    # As in Jupyter: the notebook alone, with one ε more. Its figures and tables show it.
    changed = Profile("tiny").parameters("02_epsilon_study")
    changed |= {"data_name": "built-in", "epsilons": [0.0, 0.1, 0.3]}
    notebook = paths.NOTEBOOKS / "02_epsilon_study.ipynb"
    site.execute(notebook, changed, paths.BUILD / "executed" / "tweaked.ipynb")
    after = records(root)
    assert len(after) == RUNS + 2 and before.items() <= after.items()
    tweaked = executed(root, "tweaked.ipynb")
    assert "These are the runs of this machine" in tweaked
    assert re.search(r"<td[^>]*>ε = 0.3</td>", tweaked)
    figure = pd.read_csv(root / "figures" / "quick" / "epsilon_error.csv")
    assert sorted(figure["epsilon"].unique()) == [0.0, 0.1, 0.3]


@pytest.mark.slow
def test_report_shows_recorded_runs_alone_and_names_pages_without_any(copy, capsys):
    root, banners = copy
    shutil.copy(checkouts.ROOT / "notebooks" / "07_number_of_classes.ipynb", paths.NOTEBOOKS)
    with_runs = {"02_epsilon_study", "07_number_of_classes", "12_reproduction"}
    for stubs in (with_runs | {"11_summary"}, {"07_number_of_classes"}):
        assert lsce("report") == 0
        assert set(re.findall("  (.*): no results yet", capsys.readouterr().out)) == stubs
        for name in stubs:
            text = executed(root, f"{name}.md")
            assert "No run of this page is recorded" in text and text.startswith("# ")
        assert "statements hold" in executed(root, "01_loss.ipynb")
        record_everything()
    text = executed(root, "02_epsilon_study.ipynb")
    assert "These are the recorded runs" in text and "runs of this machine" not in text
    assert '"epsilons = [0.0, 0.1]' in text  # what the figures were made with
    assert banners == [None, None]


@pytest.mark.slow
def test_with_cifar_100_no_page_has_a_banner(cifar100_dir, cifar100_cache, tmp_path, capsys):
    root = checkouts.make(tmp_path / "checkout", ["02_epsilon_study"])
    change_profile(root, "seeds = [0, 1]", "seeds = [0]")
    (root / "data" / "cache").symlink_to(cifar100_cache)
    banners: list[str | None] = []
    with inside(root) as patch:
        record_banners(patch, banners)
        assert lsce(*REPRODUCE, "--data", str(cifar100_dir)) == 0
    said = capsys.readouterr().out
    assert re.search(r"(\d+) of \1 to train", said) and ("(Parquet)" in said or "archive" in said)
    assert "**data** CIFAR-100" in executed(root, "02_epsilon_study.ipynb")
    assert banners == [None]
