"""`lsce record`, `merge` and `verify`, as commands in a checkout of their own, on tiny data."""

import contextlib
import io
import json
import logging
import os
import random
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from made_up import run_of, spec, tiny
from tiny_dataset import registered

from lsce import cli
from lsce.commands import record, verify
from lsce.judging import preconditions, statistics
from lsce.machine import paths
from lsce.results import recorded
from lsce.results.recorded import Recorded
from lsce.results.run import Run
from lsce.results.store import Store
from lsce.studies.profiles import Profile
from lsce.sweeps import sweep
from lsce.sweeps.workers import Workers
from lsce.training.methods import Distillation, GeneralizedCE, Smoothing
from lsce.training.spec import Evaluation, LongTail, NoisyLabels, RunSpec, SomeClasses

PROFILE = """
data = "tiny"

[shared]
epsilons = [0.0, 0.1]
seeds = [0, 1]
regimes = {few = {network = "resnet6", train_size = 100, epochs = 2, monitor_size = 100}}
"""
PAGES = """
[notebooks.03_calibration]
truth_epsilons = [0.0]
focal_gammas = [1.0]
mixup_alphas = [0.2]
maxsup_weights = [0.1]

[notebooks.06_robustness]
corrupted_images = 10
attacked_images = 10
radii = [4]
pgd_steps = 2
square_queries = 2

[notebooks.08_distillation]
teacher_run = {network = "resnet6", train_size = 100, epochs = 2, monitor_size = 100}
student_run = {network = "resnet6-half", train_size = 100, epochs = 1, monitor_size = 100}
temperatures = [2.0]
"""
#: Smoothing, its rivals, one with a known posterior; evaluations; students alone and taught.
RUNS, STUDENTS = 4 + 6 + 1 + 4 + 4 + 4, 4


def make_checkout(root: Path, profile: str, *pages: str) -> Path:
    """A checkout without recorded results, of which the profile tiny is the only one."""
    (root / "notebooks" / "profiles").mkdir(parents=True)
    (root / "notebooks" / "profiles" / "tiny.toml").write_text(profile)
    for page in pages:
        (root / "notebooks" / f"{page}.ipynb").touch()
    return root


def enter(root: Path, patch: pytest.MonkeyPatch) -> Path:
    """Work in a checkout, in threads, which know the tiny data set."""
    for name in ("NOTEBOOKS", "PROFILES", "DATA", "RUNS", "RECORDED"):
        patch.setattr(paths, name, root / getattr(paths, name).relative_to(paths.ROOT))
    patch.setattr(paths, "ROOT", root)
    patch.setattr(record, "step_aside", lambda: None)
    patch.setattr(sweep, "Workers", lambda count, processes: Workers(count, processes=False))
    return root


def lsce(*arguments: object) -> tuple[int, str]:
    """The exit status of a command in this process, and what it printed."""
    said, disabled = io.StringIO(), logging.root.manager.disable
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            with warnings.catch_warnings():
                cli.main([str(each) for each in arguments])
        except SystemExit as end:
            return end.code, said.getvalue()
        finally:
            logging.disable(disabled)
    return 0, said.getvalue()


def one_sentence(*arguments: object) -> str:
    status, said = lsce(*arguments)
    (line,) = said.strip().splitlines()
    assert status == 2 and line.startswith("lsce: ")
    return line


@pytest.fixture(scope="module", autouse=True)
def _data_set():
    with registered():
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    pages = ("03_calibration", "06_robustness", "08_distillation")
    return make_checkout(tmp_path_factory.mktemp("record") / "checkout", PROFILE + PAGES, *pages)


@pytest.fixture
def checkout(root, monkeypatch) -> Path:
    return enter(root, monkeypatch)


@pytest.fixture(scope="module")
def results(root) -> tuple[Path, list[str]]:
    """What `record` leaves of the tiny profile in two goes, and what it printed."""
    said = []
    for budget in ("0s", "9m"):
        with pytest.MonkeyPatch.context() as patch:
            enter(root, patch)
            command = ("record", "--profile", "tiny", "--budget", budget, "--out", root / "out")
            status, words = lsce(*command)
        assert status == 0, words
        said.append(words)
    return root / "out", said


# ---- record and merge ----


@pytest.mark.slow
def test_it_stops_within_its_budget_and_goes_on_the_next_time(results, checkout):
    out, (first, second) = results
    assert f"{RUNS} of {RUNS} runs are not recorded" in first and "0 runs recorded" in first
    assert f"{RUNS} of {RUNS} runs are not recorded" in second
    assert f"{RUNS} runs recorded" in second and "0 still to do" in second
    found = Recorded(out)
    wanted = record.wanted(Profile("tiny"))
    assert {run.task.id for run in found} == set(wanted) and len(wanted) == RUNS
    assert all(each.task in found for each in wanted.values())
    shown = {each.task.id for each in wanted.values() if each.in_full}
    assert {run.task.id for run in found if "scaled" in run.samples} == shown
    runs = [run for run in found if isinstance(run.task, RunSpec)]
    assert 0 < len(shown) < len(runs) / 2 and all("correct" in run.samples for run in runs)
    assert all(run.origin["seconds"]["training"] > 0 for run in runs)
    assert all(run.scalars and "weights" not in run.kept for run in found)


def test_what_is_merged_is_not_recorded_again(results, checkout, monkeypatch):
    out, _ = results
    for new in (RUNS, 0):
        _, said = lsce("merge", out)
        assert f"{new} runs are new; {RUNS} are recorded" in said
    command = ("record", "--profile", "tiny", "--budget", "9s", "--out", checkout / "other")
    assert f"0 of {RUNS} runs are not recorded" in lsce(*command)[1]
    assert not (checkout / "other").exists()
    monkeypatch.setattr(preconditions, "failed", lambda *_: None)  # nothing is learned so soon
    widths = record._widths(Profile("tiny"), [run.task.id for run in Recorded()])
    assert {regime for _, regime in widths} == {"few", "teachers"}  # the teachers are too weak
    assert all(width >= 0 for width in widths.values())


def test_a_plan_counts_every_run_once_and_what_it_takes(results, checkout, monkeypatch):
    monkeypatch.setattr(paths, "RECORDED", checkout / "new")
    before = lsce("plan", "--profile", "tiny")[1].splitlines()
    lsce("merge", results[0])
    after = lsce("plan", "--profile", "tiny")[1].splitlines()
    assert f"| all | {RUNS} | 0 |" in before[-1] and f"| all | {RUNS} | {RUNS} | 0.0 |" in after[-1]
    assert len(before) == len(after)
    counts = [int(line.split("|")[2]) for line in after[4:-1]]
    assert sum(counts) == RUNS


def test_claims_that_are_judged_more_narrowly_are_named():
    before, after = {("a", "few"): 2.0, ("b", "few"): 1.0}, {("a", "few"): 1.0, ("b", "few"): 1.0}
    said = record._narrower(before, after | {("c", "few"): 3.0})
    assert said == "narrower intervals: a in few to 50%, c in few (new)"


def test_what_this_machine_has_trained_is_recorded_from_its_store(results, checkout, monkeypatch):
    monkeypatch.setattr(paths, "RECORDED", checkout / "nothing")
    command = ("record", "--profile", "tiny", "--budget", "0s", "--out", checkout / "again")
    _, said = lsce(*command)
    assert f"{RUNS} of them are on this machine, 0 take it" in said and "0 still to do" in said
    assert len(Recorded(checkout / "again")) == RUNS


def test_networks_that_only_others_need_are_trained_and_not_recorded(
    results, checkout, monkeypatch, tmp_path
):
    def taught(run: Run) -> bool:
        return isinstance(run.task, RunSpec) and run.spec.method.learns_from is not None

    for name in ("RUNS", "RECORDED"):
        monkeypatch.setattr(paths, name, tmp_path / name)
    others = [run for run in Recorded(results[0]) if not taught(run)]
    recorded.write(others, paths.RECORDED)
    status, said = lsce("record", "--profile", "tiny", "--budget", "9m")
    assert status == 0 and f"{STUDENTS} of {RUNS} runs are not recorded" in said
    assert f"{STUDENTS} runs recorded in {paths.RECORDED} (0 pairs), 0 still to do" in said
    assert sum(map(taught, Recorded())) == STUDENTS and len(Recorded()) == RUNS
    assert len(list(paths.RUNS.iterdir())) == 2 * STUDENTS  # with their teachers


SCRIPT = """
import sys
for name in ("IPython", "papermill", "yaml", "matplotlib", "seaborn", "relplot", "docutils",
             "myst_nb", "nbformat", "torchmetrics"):
    sys.modules[name] = None
from lsce import cli
from lsce.data import datasets
from tiny_dataset import ENTRY

datasets.register(ENTRY)
if __name__ == "__main__":
    cli.main(sys.argv[1:])
"""


@pytest.mark.slow
def test_recording_needs_only_the_core_dependencies(tmp_path):
    """A bare GPU machine has PyTorch and the like, and nothing that the report is made with; nor
    have the processes that train."""
    root = make_checkout(tmp_path / "checkout", PROFILE.replace("[0, 1]", "[0]"), "00_overview")
    (tmp_path / "bare.py").write_text(SCRIPT)
    command = ["bare.py", "record", "--profile", "tiny", "--budget", "9m", "--out", "out"]
    path = os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *command],
        env=os.environ | {"LSCE_ROOT": str(root), "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "2 runs recorded in out (1 pairs), 0 still to do" in done.stdout
    assert len(Recorded(tmp_path / "out")) == 2


def test_an_output_folder_with_other_things_is_left_alone(checkout):
    precious = checkout / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("three years")
    line = one_sentence("record", "--profile", "tiny", "--budget", "9m", "--out", precious)
    assert f"OUT is {precious}; it must be a new or empty folder" in line
    assert [path.name for path in precious.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("budget", ["9", "nine", "-1m", "9d"])
def test_a_wrong_budget_is_named(budget):
    status, said = lsce("record", "--profile", "tiny", f"--budget={budget}", "--out", "out")
    assert status == 2 and f"'{budget}' must be a time such as" in said


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_trained(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(record.os, "access", lambda folder, mode: folder != tmp_path)
    with pytest.raises(OSError, match=rf"OUT is .*new, but {tmp_path} cannot be written to"):
        record.record("cpu", 60, tmp_path / "new")


def test_what_another_adds_meanwhile_stays(monkeypatch, tmp_path):
    """Trained are two runs; while the first was, somebody merged another."""
    specs, out = [tiny(seed=seed) for seed in range(2)], tmp_path / "out"
    other = run_of(tiny(seed=7), images=100)
    wanted = {each.id: record.Wanted(each, False, (0,), each.id) for each in specs}
    monkeypatch.setattr(record, "wanted", lambda profile: wanted)
    monkeypatch.setattr(record, "_fitting", lambda lacking, *_: lacking)
    monkeypatch.setattr(record.data, "load", lambda *_: None)
    monkeypatch.setattr(Store, "read", lambda self, task: run_of(task, images=100))
    monkeypatch.setattr(sweep, "plan", lambda *_, **__: sweep.Plan([], {}))
    monkeypatch.setattr(paths, "RECORDED", tmp_path / "recorded")

    def execute(plan, store, *, deadline, on_done):
        on_done(specs[0])
        recorded.write([*Recorded(out), other], out)
        on_done(specs[1])

    monkeypatch.setattr(sweep, "execute", execute)
    record.record("cpu", 60, out)
    assert {run.task.id for run in Recorded(out)} == {*wanted, other.task.id}


def test_a_manifest_says_where_every_run_came_from(tmp_path):
    recorded.write(repeats([1.0]), tmp_path)
    (entry,) = json.loads((tmp_path / recorded.MANIFEST).read_text())["runs"].values()
    assert entry["device"] == "an abacus" and entry["commit"] == "0123456789ab"
    assert entry["task"]["recipe"]["peak_learning_rate"] == 0.3 and entry["versions"]["torch"]


# ---- which runs, in which order ----


@pytest.fixture(scope="module")
def every() -> dict[str, record.Wanted]:
    """What the profile cpu wants."""
    return record.wanted(Profile("cpu"))


def test_the_pairs_that_most_claims_compare_come_first(every):
    wanted = sorted(every.values(), key=lambda each: each.rank)
    pairs = [each.task for each in wanted[:10]]
    shared = [
        each.task for each in wanted if each.task.run.network == "resnet8" and not each.rank[0]
    ]
    others = [task for task in shared if task.method.setting not in (0.0, 0.1)]
    assert {task.recipe.augment for task in pairs} == {True}  # those that are attacked, too
    for part, epsilons in ((pairs, {0.0, 0.1}), (others, {0.05, 0.2, 0.4, 0.8})):
        assert {(task.network, task.method.kind) for task in part} == {("resnet8", "smoothing")}
        assert {task.method.epsilon for task in part} == epsilons
        assert {task.seed for task in part} == {0, 1, 2, 3, 4}
    seeds = [task.seed for task in pairs]
    assert seeds == sorted(seeds)
    # One ε with all its seeds after the other.
    order = [task.method.epsilon for task in others]
    fives = [order[i : i + 5] for i in range(0, len(order), 5)]
    assert all(len(five) == 5 and len(set(five)) == 1 for five in fives) and len(fives) == 8


def test_a_run_comes_with_its_evaluation_and_keeps_what_any_page_asks_for(every):
    tried = [each.task for each in every.values() if isinstance(each.task, Evaluation)]
    assert tried and all(task.run.id in every for task in tried)
    kept = frozenset().union(*(each.task.keep for each in every.values()))
    assert kept == {"features", "information", "selected", "selective", "unseen"}


def test_runs_that_are_compared_go_to_one_kind_of_device(every, monkeypatch):
    plain = next(each for each in every.values() if each.rank[:2] == (False, False))
    block = [each for each in every.values() if each.block == plain.block]
    runs = [each.task.run for each in block]
    assert {run.seed for run in runs} == {plain.task.seed}
    # Smoothing; rivals are of another network, and the other regime is compared with weight decays.
    assert {run.method.kind for run in runs} == {"smoothing"}
    rival = next(each for each in every.values() if each.task.run.method.kind == "MbLS")
    rivals = [each.task.run for each in every.values() if each.block == rival.block]
    assert {run.method.kind for run in rivals} > {"smoothing", "MaxSup", "Zipf-LS", "logit penalty"}
    assert len({run.recipe.augment for run in runs}) == 1
    crossed = next(each for each in every.values() if each.task.run.recipe.weight_decay == 0.002)
    of_decays = [each.task.run for each in every.values() if each.block == crossed.block]
    assert len({run.recipe.weight_decay for run in of_decays}) == 3
    assert {run.method.kind for run in of_decays} == {"smoothing"}
    have = {plain.task.id: run_of(plain.task)}  # on an abacus, in float32
    other = next(each for each in every.values() if each.block != plain.block)
    for device, precision, fits in (
        ("a loom", "float32", True),
        ("a loom", "bf16", False),
        ("NVIDIA loom", "float32", False),
    ):
        monkeypatch.setattr(record.precision, "of", lambda *_, precision=precision: precision)
        monkeypatch.setattr(record.provenance, "device_name", lambda kind, device=device: device)
        both = [block[-1].task, other.task]
        assert record._fitting(both, every, have) == (both if fits else both[1:])


# ---- verify ----


def test_recorded_runs_are_verified_by_training_them_again(results, checkout):
    """The tiny profile has two seeds, and a prediction wants five: three are made up."""
    runs = list(Recorded(results[0]))
    more = [
        replace(
            run,
            task=run.spec.changed(seed=seed),
            scalars={name: factor * value for name, value in run.scalars.items()},
        )
        for run in runs
        for seed, factor in ((2, 0.98), (3, 1.01), (4, 1.02))
        if isinstance(run.task, RunSpec) and run.spec.seed == 0
    ]
    recorded.write([*runs, *more], paths.RECORDED)
    there = [run for run in Recorded() if isinstance(run.task, RunSpec)]
    alike = verify.repeated(there)
    drawn = [run for run in there if len(alike[verify.but_for_the_seed(run)]) == verify.SEEDS]
    real = next(  # a draw of runs that somebody trained
        draw
        for draw in range(10_000)
        if all(run.spec.seed < 2 for run in random.Random(draw).sample(drawn, 2))
    )
    status, said = lsce("verify", "--runs", 2, "--draw", real)
    assert status == 0, said
    assert said.count("recorded the same") == 2 * len(verify.MEASURES)
    assert "2 of 2 retrained runs fall where repeated seeds say they should" in said
    assert (
        f"{len(there)} runs are recorded; {len(there) - len(drawn)} diverged or have fewer" in said
    )


def test_nothing_to_verify_is_one_sentence(checkout, monkeypatch):
    monkeypatch.setattr(paths, "RECORDED", checkout / "nothing")
    assert "holds no run with 5 recorded seeds" in one_sentence("verify")


def repeats(values: list[float]) -> list[Run]:
    """Runs that differ in the seed, with these values of every measure."""
    runs = [run_of(tiny(seed=seed), images=100) for seed in range(len(values))]
    for run, value in zip(runs, values, strict=True):
        run.scalars.update(dict.fromkeys(verify.MEASURES, value))
    return runs


def test_a_value_is_expected_within_the_widened_prediction_interval():
    runs = repeats([1.0, 1.1, 1.2, 1.3, 1.4])
    low, high = statistics.prediction_interval([1.0, 1.1, 1.2, 1.3, 1.4], 1 - 0.05 / (3 * 4))
    for value, holds in ((high - 1e-6, True), (high + 1e-6, False), (low - 1e-6, False)):
        (again,) = repeats([value])
        checks = verify.compare(again, runs[1], runs, 3)
        assert [check.measure for check in checks] == list(verify.MEASURES)
        assert all(check.holds == holds for check in checks)
        assert checks[0].recorded == 1.1
    diverged = run_of(tiny(), status="diverged")
    assert not any(check.holds for check in verify.compare(diverged, runs[1], runs, 3))


def alike(run: Run, *runs: Run) -> set[str]:
    """Those of the runs that repeat the first."""
    return {each.task.id for each in verify.repeated(runs)[verify.but_for_the_seed(run)]}


def test_only_runs_with_the_same_spec_but_for_the_seed_repeat_a_run():
    same = repeats([1.0, 2.0, 3.0])
    other = run_of(tiny(seed=4, method=Smoothing(epsilon=0.2)), images=100)
    diverged = run_of(tiny(seed=5), status="diverged")
    assert alike(same[0], *same, other, diverged) == {run.task.id for run in same}


def taught(seed: int, epsilon: float = 0.1, temperature: float = 2.0) -> RunSpec:
    teacher = tiny(seed=seed, method=Smoothing(epsilon=epsilon))
    return tiny(seed=seed, method=Distillation(teacher=teacher, temperature=temperature))


def test_a_student_is_repeated_by_those_of_other_seeds_and_their_teachers():
    specs = taught(0), taught(1), taught(0, temperature=4.0), taught(0, epsilon=0.3)
    runs = [run_of(each, images=100) for each in specs]
    assert alike(runs[1], *runs) == {specs[0].id, specs[1].id}


def test_what_is_verified_is_told_apart_from_other_runs(capsys):
    verify._say(taught(0, epsilon=0.0), [])
    student = "resnet6, 100 images of tiny, 2 epochs, plain teacher, T = 2, weight decay 0.0005"
    assert f"{taught(0, epsilon=0.0).id}: {student}, seed 0\n" in capsys.readouterr().out
    labels = NoisyLabels(noise="symmetric", rate=0.4)
    verify._say(spec(labels=labels, method=GeneralizedCE(q=0.7)), [])
    said = capsys.readouterr().out
    assert "symmetric noise of 0.4, generalised CE, q = 0.7, weight decay 0.0005, seed 0" in said
    verify._say(spec(sample=LongTail(train_size=10_000, imbalance=50)), [])
    assert "2 epochs, long tail, imbalance 50, ε = 0.1, weight" in capsys.readouterr().out
    verify._say(spec(sample=SomeClasses(train_size=300, classes=20), monitor_size=100), [])
    assert "2 epochs, 20 of 100 classes, ε = 0.1, weight" in capsys.readouterr().out
