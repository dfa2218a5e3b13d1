import dataclasses
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from lsce import data
from lsce.results import measurements
from lsce.results.store import Record, Store
from lsce.sweeps import sweep
from lsce.training import networks, train
from lsce.training.spec import Protocol, Recipe, RunSpec


def spec(**changes) -> RunSpec:
    fields = dict(
        data="built-in",
        data_checksum=data.CHECKSUMS["built-in"],
        train_size=100,
        model="resnet6",
        epsilon=0.1,
        epochs=1,
        monitor_size=100,
        seed=0,
        recipe=Recipe(batch_size=50),
    )
    return RunSpec(**fields | changes)


def test_a_sweep_trains_what_is_missing_and_nothing_else(tmp_path, capsys):
    store = Store(tmp_path)
    specs = [spec(seed=1), spec(), spec(epsilon=0.0), spec(seed=1, epsilon=0.0)]
    records = sweep.ensure(specs, store=store)
    assert [r.spec for r in records] == specs
    assert "4 of 4 runs are not trained yet" in capsys.readouterr().out
    for record in records:
        assert record.meta["device"] and record.meta["precision"] in ("float32", "bf16")
        assert record.meta["versions"]["torch"] and record.meta["finished"]
        assert record.meta["seconds"]["total"] >= record.meta["seconds"]["training"] > 0
    stamps = [r.folder.stat().st_mtime_ns for r in records]

    more = sweep.ensure([*specs, spec(epsilon=0.2)], store=store)
    assert "1 of 5 runs are not trained yet" in capsys.readouterr().out
    assert [r.folder.stat().st_mtime_ns for r in more[:4]] == stamps


def test_a_plan_puts_all_arms_of_a_seed_before_the_next_seed(tmp_path):
    specs = [
        spec(seed=seed, epsilon=e, epochs=1 + (e == 0.1)) for e in (0.0, 0.1) for seed in (1, 0)
    ]
    todo = sweep.plan(specs, Store(tmp_path))
    assert [(s.seed, s.epsilon) for s in todo.missing] == [(0, 0.1), (0, 0.0), (1, 0.1), (1, 0.0)]
    assert todo.expected > 0
    assert todo.seconds[specs[2].id] > todo.seconds[specs[0].id]


def test_a_plan_says_what_it_takes(tmp_path):
    store = Store(tmp_path)
    specs = [spec(), spec(seed=1, keep=("features", "weights"))]
    todo = sweep.plan(specs, store)
    trained, evaluated = (100, 100 + 100 + 15_000)  # the second one's probes evaluate more
    least = 2 * networks.multiply_adds("resnet6") * (3 * trained + evaluated)
    assert 2 * least <= todo.operations <= 5 * least
    assert todo.workers * 2**27 < todo.memory < todo.workers * 2**33  # PyTorch alone takes 200 MiB
    sweep.execute(todo, store)
    written = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    assert written / 1.2 < todo.disk < written * 1.2


def test_early_steps_on_smaller_images_are_less_work():
    whole, _ = train.workload(spec(epochs=4))
    recipe = Recipe(batch_size=50, early_resolution=(0.5, 16))
    small, _ = train.workload(spec(epochs=4, recipe=recipe))
    assert small == pytest.approx(whole * (0.5 + 0.5 / 4))


def test_nothing_to_train_takes_no_time(tmp_path):
    todo = sweep.plan([], Store(tmp_path))
    assert todo.expected == todo.operations == todo.disk == 0
    sweep.execute(todo, Store(tmp_path))


def test_a_run_that_would_not_end_in_time_is_not_started(tmp_path):
    """And a shorter one after it is."""
    store, done = Store(tmp_path), []
    specs = [spec(seed=0, epochs=2000), spec(seed=1), spec(seed=2)]
    todo = sweep.plan(specs, store, workers=1)
    start = time.monotonic()
    assert todo.seconds[specs[0].id] > 15 > 2 * todo.seconds[specs[1].id]
    sweep.execute(todo, store, deadline=start + 15, on_done=done.append)
    assert time.monotonic() - start < 15
    assert done == specs[1:] and store.missing(specs) == specs[:1]


def test_runs_that_took_longer_than_planned_teach_what_fits():
    slow, other = spec(epochs=10), spec(epochs=10, model="resnet18")
    pace = sweep._Pace({slow.id: 1.0, other.id: 1.0})
    before = pace.end(slow) - time.monotonic()
    pace.learn(Record(None, slow, "completed", {"seconds": {"total": 3.0}}))
    assert pace.end(slow) - time.monotonic() == pytest.approx(3 * before, rel=0.01)
    assert pace.end(other) - time.monotonic() == pytest.approx(before, rel=0.01)


def test_without_training_a_missing_run_is_one_sentence(tmp_path):
    with pytest.raises(
        sweep.SweepFailed, match="1 of 1 runs have not been trained on this machine; `make rep"
    ):
        sweep.ensure([spec()], train_missing=False, store=Store(tmp_path))


def test_a_run_that_cannot_be_trained_is_named(tmp_path):
    impossible = spec(data_checksum="abc")
    with pytest.raises(
        sweep.SweepFailed, match=f"run {impossible.id} failed: the run .* wants data abc"
    ):
        sweep.ensure([impossible], store=Store(tmp_path))


def test_threads_train_the_same_runs_as_processes(tmp_path):
    """A GPU's runs are threads of one process; they must not share a random stream or a network."""
    specs = [spec(seed=seed, epsilon=e) for seed in (0, 1) for e in (0.0, 0.2)]
    crew = sweep._Workers(2, processes=False)
    store = Store(tmp_path / "threads")
    sweep.execute(sweep.Plan(specs, {s.id: 1.0 for s in specs}, 2, crew), store)
    processes = sweep.ensure(specs, store=Store(tmp_path / "processes"))
    for run, record in zip(specs, processes, strict=True):
        expected = record.outputs()["test_logits"]
        torch.testing.assert_close(store.load(run).outputs()["test_logits"], expected)


def test_a_failure_stops_the_threads_after_their_epoch(tmp_path):
    specs = [spec(data_checksum="abc"), spec(epochs=100_000)]
    crew = sweep._Workers(2, processes=False)
    with pytest.raises(sweep.SweepFailed, match="wants data abc"):
        sweep.execute(sweep.Plan(specs, {s.id: 1.0 for s in specs}, 2, crew), Store(tmp_path))


SCRIPT = """
import pathlib, signal, sys
from lsce.sweeps import sweep
from lsce.results.store import Store
from test_sweep import spec
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    store = Store(pathlib.Path(sys.argv[1]))
    todo = sweep.plan([spec(seed=s, epochs=e) for s, e in ((0, 1), (1, 3000), (2, 3000))], store)
    print("ready", flush=True)
    sweep.execute(todo, store)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_sweep_keeps_what_was_done_and_leaves_no_process(tmp_path, how):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": os.path.dirname(__file__)}
    command = [sys.executable, script, tmp_path / "runs"]
    sweeping = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert sweeping.stdout.readline() == "ready\n"
    store = Store(tmp_path / "runs")
    deadline = time.monotonic() + 120
    while spec() not in store and time.monotonic() < deadline:
        time.sleep(0.2)
    assert spec() in store
    sweeping.send_signal(how)
    sweeping.wait(timeout=60)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and _group_lives(sweeping.pid):
        time.sleep(0.2)
    assert not _group_lives(sweeping.pid)
    assert [p for p in store.root.iterdir() if p.name.startswith(".")] == []
    assert store.load(spec()).status == "completed"
    assert store.missing([spec(), spec(seed=1, epochs=3000)]) == [spec(seed=1, epochs=3000)]


def _group_lives(group: int) -> bool:
    listing = subprocess.run(
        ["ps", "-o", "stat=", "-g", str(group)], capture_output=True, text=True
    )
    return any(not line.startswith("Z") for line in listing.stdout.split())


def test_what_a_run_needs_is_trained_first_and_kept(tmp_path, capsys):
    store = Store(tmp_path)
    teacher = spec(seed=1, epsilon=0.0)
    student = spec(epsilon=0.0, teacher=teacher, temperature=2.0)
    todo = sweep.plan([student, spec()], store)
    assert [s.id for s in todo.missing if s != spec()] == [teacher.id, student.id]
    sweep.execute(todo, store)
    assert dataclasses.replace(teacher, keep=("weights",)) in store and student in store
    assert store.load(student).meta["final"]["smoothness"] > 0
    assert sweep.with_needed([student, teacher], store) == []


def test_a_network_is_tried_as_it_was_trained(tmp_path, capsys):
    protocol = Protocol(
        corrupted_images=100,
        attacked_images=100,
        radii=(4,),
        judged_radius=4,
        pgd_steps=2,
        pgd_restarts=1,
        square_queries=2,
        source=spec(seed=1, epsilon=0.0),
    )
    store = Store(tmp_path)
    # A digest of what was tried does without what its base keeps.
    whole = spec(train_size=200, keep=("features", "selected"))
    wanted = [dataclasses.replace(whole, examination=protocol, keep=()), whole]
    tried, base = sweep.ensure(wanted, store=store)
    assert "3 of 3 runs are not trained yet" in capsys.readouterr().out  # the source, too
    assert base.keep == {"features", "selected", "weights"} and tried.keep == set()
    assert measurements.of(tried).scalars["worst_error"] == tried.meta["final"]["worst_error"]
    assert torch.equal(tried.outputs()["test_logits"], base.outputs()["test_logits"])
    assert tried.meta["final"].items() >= base.meta["final"].items()
    assert tried.meta["final"]["worst_error"] >= tried.meta["final"]["fgsm_error"]
    assert set(tried.details()["quantity"]) == {"corruption", "attack", "masking"}
    clean = tried.details().query("case == 'clean'")["value"].item()
    assert clean <= tried.meta["final"]["worst_error"]


def test_a_run_whose_teacher_would_not_end_in_time_is_not_started(tmp_path):
    store = Store(tmp_path)
    student = spec(epsilon=0.0, teacher=spec(seed=1, epochs=9), temperature=2.0)
    todo = sweep.plan([student], store)
    todo.seconds[student.teacher.id] = 1e6
    sweep.execute(todo, store, deadline=time.monotonic() + 60)
    assert student not in store and student.teacher not in store
