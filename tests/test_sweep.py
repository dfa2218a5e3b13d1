"""What a task costs, which tasks are missing, and doing them: in threads, and in processes that are
killed."""

import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
import torch
from made_up import run_of, tiny, trial
from tiny_dataset import registered

from lsce import data
from lsce.measures import robustness
from lsce.results.store import Store
from lsce.sweeps import cost, sweep
from lsce.sweeps.cost import Work
from lsce.sweeps.workers import Workers, perform
from lsce.training import networks
from lsce.training.methods import Distillation, Smoothing
from lsce.training.spec import Balanced, NoisyLabels, Recipe, SomeClasses


@pytest.fixture(scope="module", autouse=True)
def _data_set():
    with registered():
        yield


@pytest.fixture(autouse=True)
def threads(monkeypatch):
    """Workers are threads, as on a GPU: they know the tiny data set."""
    monkeypatch.setattr(sweep, "Workers", lambda count, processes: Workers(count, processes=False))


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path)


def spec(epsilon: float = 0.1, **changes: Any):
    usual = dict(method=Smoothing(epsilon=epsilon), epochs=1, recipe=Recipe(batch_size=50))
    return tiny(**usual | changes)


def taught_by(teacher, **changes: Any):
    return spec(method=Distillation(teacher=teacher, temperature=2), **changes)


DIVERGING = Recipe(peak_learning_rate=1e30)


# ---- what it costs ----


@pytest.mark.parametrize(
    ("changes", "work"),
    [
        ({}, Work(100, 100 + 300)),  # the monitored images, and once some of each split
        ({"epochs": 3}, Work(300, 3 * 100 + 300)),
        ({"keep": ("features",)}, Work(100, 400 + cost.PROBE_IMAGES)),
        ({"keep": ("information",)}, Work(100, 400 + 4 * 10 * 5)),
        ({"labels": NoisyLabels(noise="symmetric", rate=0.4)}, Work(100, 400 + 40)),
        (
            {"sample": SomeClasses(classes=8, train_size=80), "monitor_size": 80},
            Work(80, 80 + 3 * 80),
        ),
        (
            {"recipe": Recipe(early_resolution=(0.5, 8)), "epochs": 4},
            Work(round(400 * (0.5 + 0.5 / 4)), 4 * 100 + 300),
        ),
    ],
)
def test_the_work_of_a_run(changes, work):
    assert cost.workload(spec(**changes)) == work
    assert cost.operations(spec(**changes)) == 2 * networks.multiply_adds(
        "resnet6", spec(**changes).num_classes, 16
    ) * (3 * work.trained + work.evaluated)


def test_images_of_another_data_set_are_counted():
    run = spec(data="cifar-100", sample=Balanced(train_size=100))
    more = cost.workload(run.keeping("selective")).evaluated - cost.workload(run).evaluated
    assert more == 10_000
    known = run.changed(data="built-in", data_checksum=data.entry("built-in").checksum)
    assert cost.workload(known.keeping("selective")) == cost.workload(known)


def test_a_student_waits_for_its_teacher_s_answers():
    assert cost.workload(taught_by(spec())) == Work(100, 400 + 100)
    tried = trial(spec(), source=spec(seed=1))
    assert cost.workload(tried) == robustness.workload(tried.protocol)


# ---- plans ----


def test_a_plan_puts_all_arms_of_a_seed_before_the_next_seed(store):
    specs = [spec(e, seed=seed, epochs=1 + (e == 0.1)) for e in (0.0, 0.1) for seed in (1, 0)]
    todo = sweep.plan(specs, store)
    order = [(s.seed, s.method.epsilon) for s in todo.missing]
    assert order == [(0, 0.1), (0, 0.0), (1, 0.1), (1, 0.0)]
    assert todo.seconds[specs[2].id] > todo.seconds[specs[0].id] > 0
    assert todo.expected >= sum(todo.seconds.values()) / todo.at_a_time
    assert 0 < todo.memory < todo.at_a_time * 2**33


def test_nothing_to_train_takes_no_time(store):
    todo = sweep.plan([], store)
    assert todo.expected == todo.at_a_time == 0
    sweep.execute(todo, store)


# ---- sweeps ----


def test_a_sweep_trains_what_is_missing_and_nothing_else(store, capsys):
    specs = [spec(seed=1), spec(), spec(0.0), spec(0.0, seed=1)]
    runs = sweep.ensure(specs, store=store)
    assert list(runs) == [each.id for each in specs]
    assert "4 of 4 runs are not trained yet" in capsys.readouterr().out
    for run in runs.values():
        origin = run.origin
        assert origin["device"] and origin["precision"] in ("float32", "bf16")
        assert origin["versions"]["torch"] and origin["finished"]
        assert origin["seconds"]["total"] >= origin["seconds"]["training"] > 0

    def stamps():
        return {each.id: (store.root / each.id).stat().st_mtime_ns for each in specs}

    before = stamps()
    sweep.ensure([*specs, spec(0.2)], store=store)
    assert "1 of 5 runs are not trained yet" in capsys.readouterr().out
    assert stamps() == before


def test_a_record_takes_the_disk_that_was_planned(store):
    whole = spec(keep=("features", "weights"), sample=Balanced(train_size=200))
    perform(whole, store)
    written = sum(file.stat().st_size for file in store.root.rglob("*") if file.is_file())
    assert written / 1.2 < cost.disk(whole) < written


def test_threads_train_the_same_runs_as_one_after_the_other(store, tmp_path):
    """They must not share a random stream or a network."""
    specs = [spec(e, seed=seed) for seed in (0, 1) for e in (0.0, 0.2)]
    crew = Workers(2, processes=False)
    sweep.execute(sweep.Plan(specs, {each.id: 1.0 for each in specs}, crew), store)
    alone = Store(tmp_path / "alone")
    for each in specs:
        perform(each, alone)
        expected = alone.tensors(each, "outputs")["test_logits"]
        torch.testing.assert_close(store.tensors(each, "outputs")["test_logits"], expected)


def test_a_run_that_would_not_end_in_time_is_not_started(store):
    """And a shorter one after it is."""
    specs, done = [spec(seed=seed) for seed in range(3)], []
    todo = sweep.plan(specs, store, workers=1)
    todo.seconds[specs[0].id] = 1e6
    sweep.execute(todo, store, deadline=time.monotonic() + 600, on_done=done.append)
    assert done == specs[1:] and store.missing(specs) == specs[:1]


def test_a_run_whose_teacher_would_not_end_in_time_is_not_started(store):
    teacher = spec(seed=1, epochs=9)
    todo = sweep.plan([taught_by(teacher)], store)
    todo.seconds[teacher.id] = 1e6
    sweep.execute(todo, store, deadline=time.monotonic() + 600)
    assert not store.root.exists() or list(store.root.iterdir()) == []


def test_runs_that_took_longer_than_planned_teach_what_fits():
    slow, other = spec(epochs=10), spec(epochs=10, network="resnet18")
    pace = sweep._Pace({slow.id: 1000.0, other.id: 1000.0})
    before = pace.end(slow) - time.monotonic()
    run = run_of(slow, status="diverged")
    run.origin["seconds"]["total"] = 3000.0
    pace.learn(run)
    assert pace.end(slow) - time.monotonic() == pytest.approx(3 * before, rel=0.1)
    assert pace.end(other) - time.monotonic() == pytest.approx(before, rel=0.1)


def test_what_a_run_needs_is_trained_first_and_kept(store):
    teacher = spec(0.0, seed=1)
    student = taught_by(teacher)
    todo = sweep.plan([student, spec()], store)
    assert [each.id for each in todo.missing if each != spec()] == [teacher.id, student.id]
    sweep.execute(todo, store)
    assert teacher.keeping("weights") in store and student in store
    assert store.load(student).scalars["smoothness"] > 0
    assert sweep.with_needed([student, teacher], store) == []


def test_a_network_is_tried_as_it_was_trained(store, capsys):
    whole = spec(sample=Balanced(train_size=200), epochs=9, keep=("features", "selected"))
    task = trial(whole.changed(keep=()), source=spec(0.0, seed=1))
    runs = sweep.ensure([task, whole], store=store)
    assert "3 of 3 runs are not trained yet" in capsys.readouterr().out  # the source, too
    tried, run = runs[task.id], runs[whole.id]
    assert run.kept == {"features", "selected", "weights"}
    found = tried.scalars
    assert found.items() > run.scalars.items() and len(tried.history) == 9
    assert set(tried.details["quantity"]) == {
        "corruption",
        "attack",
        "masking",
        "discordant",
        "probe",
    }
    assert tried.samples["survived_worst"].shape == (1, 10) and "correct" in tried.samples
    clean = tried.details.query("case == 'clean'")["value"].item()
    assert clean <= found["fgsm_error"] <= found["worst_error"] <= 1


# ---- what fails ----


def test_without_training_a_missing_run_is_one_sentence(store):
    words = "1 of 1 runs have not been trained on this machine; `make rep"
    with pytest.raises(sweep.SweepFailed, match=words):
        sweep.ensure([spec()], train_missing=False, store=store)


def test_a_run_that_cannot_be_trained_is_named(store):
    impossible = spec(data_checksum="abc")
    words = f"run {impossible.id} failed: the run .* wants data abc"
    with pytest.raises(sweep.SweepFailed, match=words):
        sweep.ensure([impossible], store=store)


def test_what_rests_on_a_run_that_diverged_says_so(store):
    diverging = spec(seed=1, recipe=DIVERGING)
    tried = trial(diverging, source=spec())
    assert sweep.ensure([tried], store=store)[tried.id].diverged
    words = f"run {taught_by(diverging).id} failed: run {diverging.id}, .* diverged"
    with pytest.raises(sweep.SweepFailed, match=words):
        sweep.ensure([taught_by(diverging)], store=store)


def test_a_failure_stops_the_threads_after_their_epoch(store):
    specs = [spec(data_checksum="abc"), spec(epochs=10**6)]
    crew = Workers(2, processes=False)
    with pytest.raises(sweep.SweepFailed, match="wants data abc"):
        sweep.execute(sweep.Plan(specs, {each.id: 1.0 for each in specs}, crew), store)


# ---- processes ----

#: A process that is spawned imports this, too, and so knows the tiny data set.
SCRIPT = """
import pathlib, signal, sys
from lsce.data import datasets
from lsce.results.store import Store
from lsce.sweeps import sweep
from test_sweep import spec
from tiny_dataset import ENTRY

datasets.register(ENTRY)
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    store = Store(pathlib.Path(sys.argv[1]))
    todo = sweep.plan([spec(), spec(seed=1, epochs=10**6)], store, workers=1)
    print("ready", flush=True)
    sweep.execute(todo, store)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_sweep_keeps_what_was_done_and_leaves_no_process(tmp_path, how):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    path = os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])
    sweeping = subprocess.Popen(
        [sys.executable, script, tmp_path / "runs"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        start_new_session=True,
    )
    assert sweeping.stdout.readline() == "ready\n"
    store = Store(tmp_path / "runs")
    wait_for(lambda: spec() in store)
    sweeping.send_signal(how)
    sweeping.wait(timeout=600)
    wait_for(lambda: not _group_lives(sweeping.pid))
    assert [p for p in store.root.iterdir() if p.name.startswith(".")] == []
    long = spec(seed=1, epochs=10**6)
    assert store.missing([spec(), long]) == [long]
    # What the process trained is what this one trains.
    here = Store(tmp_path / "here")
    perform(spec(), here)
    found, expected = (each.tensors(spec(), "outputs") for each in (store, here))
    torch.testing.assert_close(found["test_logits"], expected["test_logits"])


def wait_for(condition) -> None:
    deadline = time.monotonic() + 600
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert condition()


def _group_lives(group: int) -> bool:
    listing = subprocess.run(
        ["ps", "-o", "stat=", "-g", str(group)], capture_output=True, text=True
    )
    return any(not line.startswith("Z") for line in listing.stdout.split())
