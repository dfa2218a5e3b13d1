"""`lsce record`, `merge` and `verify`, as commands in a checkout of their own."""

import dataclasses
import json
import random
import re

import pytest
from made_up import digest_of, record_of, spec
from test_reproduce import RUNS, lsce, make_checkout, one_sentence, python

from lsce.commands import record, verify
from lsce.judging import statistics
from lsce.machine import paths
from lsce.results import recorded
from lsce.results.recorded import Recorded
from lsce.studies import profiles


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return make_checkout(tmp_path_factory.mktemp("record") / "checkout", data="built-in")


@pytest.fixture(scope="module")
def results(checkout):
    """What `record` leaves of the tiny profile in two goes, and what it printed."""
    said = []
    for budget in ("1s", "9m"):
        done = lsce(checkout, "record", "--profile", "tiny", "--budget", budget, "--out", "out")
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    return checkout / "out", said


@pytest.mark.slow
def test_it_stops_within_its_budget_and_goes_on_the_next_time(results, monkeypatch):
    out, (first, second) = results
    assert f"{RUNS} of {RUNS} runs are not recorded" in first and "0 runs recorded" in first
    assert f"{RUNS} of {RUNS} runs are not recorded" in second
    assert f"{RUNS} runs recorded" in second and "0 still to do" in second
    found = Recorded(out)
    assert len(found) == RUNS
    monkeypatch.setattr(paths, "PROFILES", out.parent / "notebooks" / "profiles")
    wanted = record.wanted(profiles.load("tiny"))
    shown = {run.spec.id for run in wanted.values() if run.in_full}
    assert {run.spec.id for run in found if "nll" in run.samples} == shown
    assert 0 < len(shown) < RUNS / 2 and all("correct" in run.samples for run in found)
    assert all(run.origin["seconds"]["training"] > 0 and run.scalars for run in found)


@pytest.mark.slow
def test_what_is_merged_is_not_recorded_again(results, checkout):
    out, _ = results
    for new in (RUNS, 0):
        done = lsce(checkout, "merge", "out")
        assert f"{new} runs are new; {RUNS} are recorded" in done.stdout
    again = lsce(checkout, "record", "--profile", "tiny", "--budget", "9s", "--out", "other")
    assert f"0 of {RUNS} runs are not recorded" in again.stdout
    assert not (checkout / "other").exists()


@pytest.mark.slow
def test_recorded_runs_are_verified_by_training_them_again(results, checkout):
    """The tiny profile has two seeds, and a prediction wants five: three are made up."""
    out, _ = results
    runs = list(Recorded(out))
    more = [
        dataclasses.replace(
            run,
            spec=dataclasses.replace(run.spec, seed=seed),
            scalars={name: factor * value for name, value in run.scalars.items()},
        )
        for run in runs
        for seed, factor in ((2, 0.98), (3, 1.01), (4, 1.02))
        if run.spec.seed == 0
    ]
    recorded.write([*runs, *more], checkout / "data" / "recorded")
    order = list(Recorded(checkout / "data" / "recorded"))
    real = next(  # a draw of runs that somebody trained
        draw
        for draw in range(10_000)
        if all(run.spec.seed < 2 for run in random.Random(draw).sample(order, 2))
    )
    done = lsce(checkout, "verify", "--runs", "2", "--draw", str(real))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("recorded the same") == 2 * len(verify.MEASURES)
    assert "2 of 2 retrained runs fall where repeated seeds say they should" in done.stdout


@pytest.mark.slow
def test_networks_that_only_others_need_are_trained_and_not_recorded(results, tmp_path):
    checkout = make_checkout(tmp_path / "checkout", data="built-in")
    others = [run for run in Recorded(results[0]) if run.spec.teacher is None]
    recorded.write(others, checkout / "data" / "recorded")
    done = lsce(checkout, "record", "--profile", "tiny", "--budget", "9m", "--out", "out")
    assert done.returncode == 0, done.stderr
    students = RUNS - len(others)
    assert f"{students} of {RUNS} runs are not recorded" in done.stdout
    assert f"{students} runs recorded in out (0 pairs), 0 still to do" in done.stdout
    found = list(Recorded(checkout / "out"))
    assert len(found) == students > 0 and all(run.spec.teacher is not None for run in found)


def test_an_output_folder_with_other_things_is_left_alone(checkout):
    (checkout / "precious").mkdir(exist_ok=True)
    (checkout / "precious" / "thesis.txt").write_text("three years")
    command = ["record", "--profile", "tiny", "--budget", "9m", "--out", "precious"]
    line = one_sentence(lsce(checkout, *command), 2)
    assert "OUT is precious; it must be a new or empty folder" in line
    assert [path.name for path in (checkout / "precious").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("budget", ["9", "nine", "-1m", "9d"])
def test_a_wrong_budget_is_named(checkout, budget):
    command = ["record", "--profile", "tiny", f"--budget={budget}", "--out", "out"]
    done = lsce(checkout, *command)
    assert done.returncode == 2 and f"'{budget}' must be a time such as" in done.stderr


def test_nothing_to_verify_is_one_sentence(checkout, tmp_path):
    root = make_checkout(tmp_path / "checkout", data="built-in")
    assert "holds no run with 5 recorded seeds" in one_sentence(lsce(root, "verify"), 2)


def test_recording_needs_only_the_core_dependencies(checkout):
    """A bare GPU machine has PyTorch and the like, and nothing that the report is made with."""
    script = (
        "import sys\n"
        "for name in ('IPython', 'papermill', 'yaml', 'matplotlib', 'seaborn', 'relplot',"
        " 'sphinx', 'myst_nb', 'nbformat', 'torchmetrics'):\n"
        "    sys.modules[name] = None\n"
        "from lsce import cli\n"
        "cli.main(['record', '--profile', 'tiny', '--budget', '1s', '--out', 'bare'])\n"
    )
    done = python(checkout, "-c", script)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d+ still to do", done.stdout)


def test_the_pairs_that_most_claims_compare_come_first():
    wanted = sorted(record.wanted(profiles.load("cpu")).values(), key=lambda run: run.rank)
    pairs = [run.spec for run in wanted[:20]]
    grid = [run.spec for run in wanted if run.spec.model == "resnet8" and not run.rank[0]]
    others = [spec for spec in grid if spec.epsilon not in (0.0, 0.1)]
    assert len({spec.recipe.augment for spec in pairs}) == 2
    for part, epsilons in ((pairs, {0.0, 0.1}), (others, {0.05, 0.2, 0.4, 0.8})):
        assert {spec.epsilon for spec in part} == epsilons
        assert {spec.model for spec in part} == {"resnet8"}
        seeds = [spec.seed for spec in part]
        assert seeds == sorted(seeds) and set(seeds) == {0, 1, 2, 3, 4}


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_trained(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(record.os, "access", lambda folder, mode: folder != tmp_path)
    with pytest.raises(OSError, match=rf"OUT is .*new, but {tmp_path} cannot be written to"):
        record.record("cpu", 60, tmp_path / "new")


def test_what_another_adds_meanwhile_stays(monkeypatch, tmp_path):
    """Trained are two runs; while the first was, somebody merged another."""
    specs = [spec(seed=seed) for seed in range(2)]
    other = digest_of(spec(seed=7))
    wanted = {s.id: record.Wanted(s, False, (0,), s.id) for s in specs}
    monkeypatch.setattr(record, "wanted", lambda profile: wanted)
    monkeypatch.setattr(record, "_fits", lambda *_: True)
    monkeypatch.setattr(record.data, "load", lambda *_: None)
    monkeypatch.setattr(record.Store, "load", lambda self, spec: record_of(spec))
    monkeypatch.setattr(record.sweep, "plan", lambda *_, **__: record.sweep.Plan([], {}, 0))
    monkeypatch.setattr(paths, "RECORDED", tmp_path / "recorded")

    def execute(plan, store, *, deadline, on_done):
        on_done(specs[0])
        recorded.write([*Recorded(tmp_path / "out"), other], tmp_path / "out")
        on_done(specs[1])

    monkeypatch.setattr(record.sweep, "execute", execute)
    record.record("cpu", 60, tmp_path / "out")
    found = {run.spec.id for run in Recorded(tmp_path / "out")}
    assert found == {specs[0].id, specs[1].id, other.spec.id}


def test_runs_that_are_compared_go_to_one_kind_of_device(monkeypatch):
    every = record.wanted(profiles.load("cpu"))
    plain = next(run for run in every.values() if run.rank[:2] == (False, False))
    block = [run for run in every.values() if run.block == plain.block]
    assert {run.spec.seed for run in block} == {plain.spec.seed}
    # Smoothing, its rivals and weight decay; the other regime is compared with none of them.
    assert {run.spec.loss for run in block} == {None, "focal", "maxsup"}
    assert len({run.spec.recipe.weight_decay for run in block}) > 1
    assert len({run.spec.recipe.augment for run in block}) == 1
    have = {plain.spec.id: digest_of(plain.spec)}  # on an abacus
    other = next(run for run in every.values() if run.block != plain.block)
    monkeypatch.setattr(record.precision, "of", lambda model, device: "float32")
    for device, fits in (("a loom", False), ("an abacus", True)):
        monkeypatch.setattr(record.provenance, "device_name", lambda kind, device=device: device)
        assert record._fits(block[-1], record._begun(every, have)) == fits
        assert record._fits(other, record._begun(every, have))


def repeats(values: list[float]):
    """Recorded runs that differ in the seed, with these values of every measure."""
    runs = [digest_of(spec(seed=seed)) for seed in range(len(values))]
    for run, value in zip(runs, values, strict=True):
        run.scalars.update(dict.fromkeys(verify.MEASURES, value))
    return runs


def test_a_value_is_expected_within_the_widened_prediction_interval():
    runs = repeats([1.0, 1.1, 1.2, 1.3, 1.4])
    low, high = statistics.prediction_interval([1.0, 1.1, 1.2, 1.3, 1.4], 1 - 0.05 / (3 * 4))
    for value, holds in ((high - 1e-6, True), (high + 1e-6, False), (low - 1e-6, False)):
        again = digest_of(spec(seed=1))
        again.scalars.update(dict.fromkeys(verify.MEASURES, value))
        checks = verify.compare(again, runs[1], runs, 3)
        assert [check.measure for check in checks] == list(verify.MEASURES)
        assert all(check.holds == holds for check in checks)
        assert checks[0].recorded == 1.1


def test_only_runs_with_the_same_spec_but_for_the_seed_repeat_a_run(tmp_path):
    runs = [
        *repeats([1.0, 2.0, 3.0]),
        digest_of(spec(seed=4, epsilon=0.2)),
        digest_of(spec(seed=5), status="diverged"),
    ]
    recorded.write(runs, tmp_path)
    found = verify._repeats(Recorded(tmp_path))[verify._but_for_the_seed(runs[0].spec)]
    assert sorted(run.spec.seed for run in found) == [0, 1, 2]


def test_a_student_is_repeated_by_those_of_other_seeds_and_their_teachers(tmp_path):
    students = [spec(seed=s, epsilon=0.0, teacher=spec(seed=s), temperature=2.0) for s in (0, 1)]
    hotter = dataclasses.replace(students[0], temperature=4.0)
    other = dataclasses.replace(students[0], teacher=spec(epsilon=0.3))
    runs = [digest_of(each) for each in (*students, hotter, other)]
    recorded.write(runs, tmp_path)
    found = verify._repeats(Recorded(tmp_path))[verify._but_for_the_seed(students[1])]
    assert {run.spec.id for run in found} == {each.id for each in students}


def test_what_is_verified_is_told_apart_from_other_runs(capsys):
    student = spec(epsilon=0, teacher=spec(seed=1), temperature=2)
    verify._say(student, [])
    said = capsys.readouterr().out
    assert f"teacher {spec(seed=1).id}, temperature 2.0, seed 0" in said and len(said) < 200
    noisy = spec(epsilon=0, noise="symmetric", noise_rate=0.4, loss="gce", loss_parameter=0.7)
    verify._say(noisy, [])
    said = capsys.readouterr().out
    assert "weight decay 0.0005, noise symmetric, noise rate 0.4, loss gce, " in said
    assert "loss parameter 0.7, seed 0" in said and "mixup" not in said


def test_a_manifest_says_where_every_run_came_from(tmp_path):
    recorded.write(repeats([1.0]), tmp_path)
    (entry,) = json.loads((tmp_path / recorded.MANIFEST).read_text())["runs"].values()
    assert entry["device"] == "an abacus" and entry["commit"] == "0123456789ab"
    assert entry["spec"]["recipe"]["peak_learning_rate"] == 0.3 and entry["versions"]["torch"]
